"""Tokenizers and one-line errors for the tests of other people's models."""

from search_fakes import byte_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast


def one_line(caught) -> str:
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


def tokenizer(*, bos=True, template=None) -> PreTrainedTokenizerFast:
    """Byte-level; with `bos` every text begins with <|start|>, as Llama's do."""
    made = byte_tokenizer()
    if bos:
        made.bos_token = "<|start|>"
        start = (made.bos_token, made.bos_token_id)
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start[0]} $A", special_tokens=[start]
        )
    made.chat_template = template
    return made
