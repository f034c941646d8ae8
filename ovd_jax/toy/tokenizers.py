"""The tokenizers and the sizes of the tiny models that ship with the package."""

import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ovd_jax.models.transformer import TransformerConfig
from ovd_jax.teacher.prompts import JUDGE_STEP, JUDGE_TRAJECTORY
from ovd_jax.text import Tokenizer
from ovd_jax.toy.world_words import vocabulary

FOLDER = Path(__file__).parent.parent / "embedded"
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", JUDGE_STEP, JUDGE_TRAJECTORY)
_PIECES = (*map(str, range(100)), *"+-*()=\n", "#### ")


def arithmetic_tokenizer() -> Tokenizer:
    """One token a number up to 99, a sign, a bracket, or the answer mark."""
    return _word_tokenizer(_PIECES, r"#### |[1-9]\d|[\s\S]")


def world_tokenizer() -> Tokenizer:
    """One token a word of the made-up world or a tag, with or without a space before
    it; other text is spelled."""
    words = vocabulary()
    ends = "|".join(
        rf"{re.escape(w)}(?!\w)" if w.isalpha() else re.escape(w) for w in words
    )
    pieces = [f"{space}{word}" for space in ("", " ") for word in words]
    letters = [*string.printable.strip(), " ", "\n"]
    pieces += [letter for letter in letters if letter not in pieces]
    return _word_tokenizer(pieces, rf" ?(?:{ends})|[\s\S]")


TOKENIZERS = {"arithmetic": arithmetic_tokenizer, "world": world_tokenizer}


def _word_tokenizer(pieces: Iterable[str], pattern: str) -> Tokenizer:
    """Every match of `pattern` is a token: one of `pieces`, or unknown."""
    vocabulary = {piece: index for index, piece in enumerate((*_SPECIAL, *pieces))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[JUDGE_STEP, JUDGE_TRAJECTORY],
        clean_up_tokenization_spaces=False,
    )
    return cast(Tokenizer, made)  # it finds some of these members at run time


def student_config(vocab_size: int) -> TransformerConfig:
    """About 1M parameters."""
    return TransformerConfig(
        vocab_size=vocab_size, width=128, num_layers=5, num_heads=4, num_kv_heads=4,
        head_dim=32, mlp_width=384, max_positions=512,
    )  # fmt: skip


def teacher_config(vocab_size: int) -> TransformerConfig:
    """About 3M parameters."""
    return TransformerConfig(
        vocab_size=vocab_size, width=192, num_layers=6, num_heads=6, num_kv_heads=6,
        head_dim=32, mlp_width=576, max_positions=512,
    )  # fmt: skip


def agent_config(vocab_size: int) -> TransformerConfig:
    """About 2M parameters."""
    return TransformerConfig(
        vocab_size=vocab_size, width=160, num_layers=6, num_heads=5, num_kv_heads=5,
        head_dim=32, mlp_width=480, max_positions=512,
    )  # fmt: skip


SIZES = {"student": student_config, "teacher": teacher_config, "agent": agent_config}
