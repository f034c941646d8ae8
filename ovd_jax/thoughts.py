"""Separates the thoughts of a thinking model from its answer."""

import re

_NAMES = r"(?:think|thinking|thoughts?|reasoning|seed:think)"
_OPEN = re.compile(
    rf"<{_NAMES}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<\|channel\|>analysis<\|message\|>|<\|channel>thought\b|<\|inner_prefix\|>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>"
    r"|<\|channel\|>final<\|message\|>|<channel\|>|<\|inner_suffix\|>",
    re.IGNORECASE,
)
OPENERS = (  # as tokens
    "<think>", "<thinking>", "<thought>", "<reasoning>", "<seed:think>", "[THINK]",
    "◁think▷", "<|inner_prefix|>",
)  # fmt: skip


def after_thought(text: str) -> str | None:
    """`text` after the end of a thought; None if a thought begins and does not end."""
    parts = _CLOSE.split(text)
    if opens_thought(parts[-1]):
        return None
    return text if len(parts) == 1 else parts[-1].lstrip()


def opens_thought(text: str) -> bool:
    """True if a thought begins in `text` and does not end there."""
    return bool(_OPEN.search(_CLOSE.split(text)[-1]))


def holds_thought(text: str) -> bool:
    """True if a thought begins or ends in `text`."""
    return bool(_OPEN.search(text) or _CLOSE.search(text))
