"""The tokenizer and the sizes of the tiny models that ship with the package."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ovd_jax.models.transformer import TransformerConfig
from ovd_jax.teacher.prompts import JUDGE_STEP, JUDGE_TRAJECTORY

FOLDER = Path(__file__).parent.parent / "embedded"
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", JUDGE_STEP, JUDGE_TRAJECTORY)
_PIECES = (*map(str, range(100)), *"+-*()=\n", "#### ")


def arithmetic_tokenizer() -> PreTrainedTokenizerFast:
    """One token a number up to 99, a sign, a bracket, or the answer mark."""
    vocabulary = {piece: index for index, piece in enumerate((*_SPECIAL, *_PIECES))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    piece = Regex(r"#### |[1-9]\d|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(piece, "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[JUDGE_STEP, JUDGE_TRAJECTORY],
        clean_up_tokenization_spaces=False,
    )


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


SIZES = {"student": student_config, "teacher": teacher_config}
