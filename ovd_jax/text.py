"""Text that a model or a stranger wrote, made safe to put into a prompt."""

import re
from collections.abc import Collection
from typing import Any

from ovd_jax.errors import UserError


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """All that a tokenizer makes one control token of, be it flagged special or not."""
    tokens = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return tuple(token for token in tokens if len(token) > 1 and not token.isspace())


def check_chat(tokenizer: Any, remedy: str) -> None:
    """Raises UserError, with the remedy, where a tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "A chat needs a tokenizer with a chat template; this "
            f"{type(tokenizer).__name__} has none; {remedy}."
        )


def chat_prompt(tokenizer: Any, text: str, *, system: str = "") -> str:
    """A user's message in the tokenizer's chat template, and the start of an answer."""
    messages = [{"role": "system", "content": system}] if system else []
    return tokenizer.apply_chat_template(
        [*messages, {"role": "user", "content": text}],
        tokenize=False,
        add_generation_prompt=True,
    )


def neutralize(text: str, special_tokens: Collection[str]) -> str:
    """Breaks up every special token in a text with a space after its first character.

    Without it a question could close its own message and speak as the system.
    """
    if not special_tokens:
        return text
    tokens = re.compile("|".join(map(re.escape, sorted(special_tokens, reverse=True))))
    while tokens.search(text):  # a second pass only where special tokens overlapped
        text = tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)
    return text
