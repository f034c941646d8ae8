"""Text that a model or a stranger wrote, made safe for a prompt, a terminal, a log."""

import re
from collections.abc import Collection
from typing import Any

from ovd_jax.errors import UserError

# Commands to a terminal: colours, moves of the cursor, titles, links, ...
_COMMANDS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_JOINERS = "\u200c\u200d"  # parts of words in some scripts, and of emoji


def one_line(text: str) -> str:
    """`text` as a line that no terminal or log takes for more: without commands,
    control characters and marks that turn the direction of writing."""
    if text.isprintable():
        return text
    text = re.sub(r"\s+", " ", _COMMANDS.sub("", text)).strip()
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return "\ufffd" if "\ud800" <= character <= "\udfff" else ""


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
