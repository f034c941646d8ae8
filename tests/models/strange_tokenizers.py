"""Tokenizers and one-line errors for the tests of other people's models."""

from search_fakes import byte_tokenizer
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
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


def sentencepiece(scheme: str) -> PreTrainedTokenizerFast:
    """As Llama 2's: spaces are letters of words, and every text begins with <s>.

    By `scheme` a space is put before every text: "always", where it is "first" of all,
    "never", or before every piece between special tokens ("prepend").
    """
    words = "\u2581 \u2581the \u2581cat the cat \u2581Step Step \u25811 \u25812 1 2 + ="
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*words.split(" "), "\n"]
    inner = Tokenizer(
        models.Unigram([(piece, -1.0) for piece in pieces], 0, byte_fallback=True)
    )
    if scheme == "prepend":
        inner.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme=scheme, split=False
        )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         *([] if scheme == "never" else [decoders.Strip(" ", 1, 0)])]
    )  # fmt: skip
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
