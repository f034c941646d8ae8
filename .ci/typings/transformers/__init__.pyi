# Its thousand models take the type checker a minute to read; we only load tokenizers.
from typing import Any

def __getattr__(name: str) -> Any: ...
