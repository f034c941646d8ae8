"""From an observation to the tokens that the student reads: cleaned, between its tags,
and within the budget."""

import re
from collections.abc import Callable, Collection, Sequence

from ovd_jax.conversation.env import Env, Observation
from ovd_jax.errors import UserError
from ovd_jax.search.base import Document
from ovd_jax.search.observation import body, shortened, tag_bracket
from ovd_jax.text import (
    Tokenizer,
    decode,
    encode,
    encode_continuation,
    neutralize,
    special_tokens,
)

_CHARS_A_TOKEN = 8  # more than there are; a reading is shortened until it fits
_CUT = "..."  # at the end of a text that was
_TAG_NAME = re.compile(r"</?\s*([A-Za-z]\w*)\s*>")


class Reader:
    """Writes observations of `env` in at most `most` tokens; `cut` counts those that
    were shortened to fit. Raises UserError where no observation fits, or where the
    tokenizer cannot write what ends a turn."""

    def __init__(self, env: Env, tokenizer: Tokenizer, *, most: int):
        self.cut = 0
        self._most = most
        self._tokenizer = tokenizer
        self._special = special_tokens(tokenizer)
        self._before, self._behind = env.observation_tags
        self._clean = cleaner((*env.turn_ends, *env.observation_tags))
        self._check_can_write(env)
        # A turn that goes on leaves room for one token of the student's as well.
        uncut = getattr(env, "uncut", (_CUT,))
        self._uncut_chars = max(map(len, uncut))
        self.least_room = max(len(self._tokens(text)) for text in uncut) + 1
        if self.least_room > most:
            raise UserError(
                f"turns.observation_tokens {most} leaves no room for an observation; "
                f"it takes at least {self.least_room}."
            )

    def read(self, observation: Observation, room: int) -> list[int]:
        """Tokens of an observation, `room` of them and the budget at most."""
        room = min(room, self._most)
        if observation.documents is None:
            return self._read_text(observation.text, room)
        return self._read_documents(observation.documents, room)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added."""
        return encode(self._tokenizer, text)

    def _read_text(self, text: str, room: int) -> list[int]:
        chars = max(room * _CHARS_A_TOKEN, self._uncut_chars)
        cut = len(text) > chars
        while True:
            shown = text if len(text) <= chars else text[:chars].rstrip() + _CUT
            tokens = self._tokens(shown)
            if len(tokens) <= room or not chars:
                self.cut += cut
                return tokens
            cut = True
            chars = min(chars, len(text)) * room // (len(tokens) + room // 8 + 1)

    def _read_documents(self, documents: Sequence[Document], room: int) -> list[int]:
        """Every document is shortened alike, then the last ones are left out."""
        chars = room * _CHARS_A_TOKEN
        cut = bool(shortened(documents, chars))
        while True:
            tokens = self._tokens(body(documents, self._special, chars))
            if len(tokens) <= room:
                self.cut += cut
                return tokens
            cut = True
            if chars > len(documents):
                chars = chars * room // (len(tokens) + room // 8 + 1)
            else:
                documents = documents[:-1]

    def _tokens(self, text: str) -> list[int]:
        clean = neutralize(self._clean(text), self._special)
        shown = self._before + clean + self._behind
        return encode_continuation(self._tokenizer, shown)

    def _check_can_write(self, env: Env) -> None:
        for end in env.turn_ends:
            if end not in decode(self._tokenizer, self.encode(end)):
                raise UserError(
                    f"The student's tokenizer cannot write {end!r}, which ends a turn "
                    f"of {type(env).__name__}: choose another config.env or model."
                )


def cleaner(marks: Collection[str]) -> Callable[[str], str]:
    """A function that takes out of a text what does not print, and breaks up the tags
    that `marks` consist of, or that every model may take for an answer."""
    names = {name for mark in marks for name in _TAG_NAME.findall(mark)}
    bracket = tag_bracket(sorted(names | {"answer", "think"}))

    def clean(text: str) -> str:
        lines = (
            "".join(c if c.isprintable() else " " if c.isspace() else "" for c in line)
            for line in text.split("\n")
        )
        return bracket.sub("(", "\n".join(lines))

    return clean
