"""Renders prompts, decodes tokens, and sanitizes untrusted text for prompts, terminals
and logs."""

import datetime
import functools
import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from ovd_jax.errors import UserError

# What may stand behind a % in strftime.
_DIRECTIVES = (*"aAbBcdeDFgGhHIjmMpRSTuUVwWxXyYzZ", "-d", "-m", "-H", "-I")
# Commands to a terminal: colours, moves of the cursor, titles, links, ...
_COMMANDS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_REMEDY = "use a prompt without chat, or mend the model's chat_template.jinja"
_WORD = "blackbird"  # stands for any text
_JOINERS = "\u200c\u200d"  # parts of words in some scripts, and of emoji


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    bos_token: Any  # text put before every other; None: there is none
    bos_token_id: Any
    eos_token: Any
    eos_token_id: Any
    chat_template: Any  # Jinja; None: there is none

    @property
    def all_special_tokens(self) -> list[str]:
        """Tokens that are flagged special."""
        ...

    def __len__(self) -> int:
        """How many tokens there are."""
        ...

    def __call__(
        self, text: str | list[str], *, add_special_tokens: bool = True
    ) -> Any:
        """A mapping with the token ids of a text, or of each, as `input_ids`."""
        ...

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        *,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of tokens."""
        ...

    def apply_chat_template(
        self,
        conversation: Any,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> Any:
        """Messages as the model reads them."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Those that were added to the model's own."""
        ...


def one_line(text: str) -> str:
    """`text` as a single line for a terminal or log: without commands, control
    characters and marks of writing direction."""
    if text.isprintable():
        return text
    text = re.sub(r"\s+", " ", _COMMANDS.sub("", text)).strip()
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return "\ufffd" if "\ud800" <= character <= "\udfff" else ""


# The shapes of control tokens that no text has by chance, whatever model they are of;
# a server does not tell which ones its model has. Bars may be full-width.
_BAR = "[|\uff5c]"
_NAME = r"[^\s<>|\uff5c\[\]]{1,64}"
_ROLES = "user|assistant|system|developer|tool|function|observation|human|model|context"
_TOOLS = (
    r"tools?|tool_?calls?|tool_?responses?|tool_?results?|tool_?outputs?"
    r"|function_?calls?|function_?results?|functions?|available_?tools|arg_key"
    r"|arg_value|parameters?|invoke|documents?|response"
)
_THOUGHTS = r"thinking|thoughts?|reasoning|reflection|scratch_?pad|analysis"
_MARKS = "bos|eos|pad|unk|cls|sep|mask|pad_token|eo[aeh]"
CONTROL = re.compile(
    rf"<{_BAR}{_NAME}{_BAR}>"  # most families, DeepSeek
    rf"|<{_BAR}/?[A-Za-z]\w{{0,40}}>|</?[A-Za-z]\w{{0,40}}{_BAR}>"  # Gemma 4
    rf"|\[{_BAR}{_NAME}{_BAR}\]"  # EXAONE
    r"|\u25c1/?\w{1,20}\u25b7"  # Kimi's thoughts
    r"|<(?:start|end|begin)_of_\w{1,20}>"  # Gemma
    r"|<<(?i:/?SYS)>>|>>(?:QUESTION|ANSWER|INTRODUCTION)<<"  # Llama 2, Falcon
    r"|<(?:[A-Z][A-Z_]{0,20}_TOKEN|(?:SPECIAL|reserved|extra_id|unused|ctrl"
    r"|TOKENS_UNUSED)_?\d{1,5})>"
    rf"|<(?i:{_MARKS})>|\[(?:BOS|EOS|EOT|PAD|UNK|CLS|SEP|UNUSED_TOKEN_\d{{1,4}})\]"
    r"|</?\uff5cDSML\uff5c|\[e~\[|</?role>|<_(?:user|bot|system|start|end)>"
    r"|<(?:fim_(?:prefix|middle|suffix|pad)|file_sep|repo_?name|gh_stars)>"
    r"|<(?:image|video|audio)(?:_soft_token|_pad)?>"
    r"|<\w{1,20}:/?\w{1,20}>|</\w{1,20}:\w{1,20}>"  # Seed, MiniMax
    r"|\]~!?b[\[\]]"  # MiniMax
    r"|</?(?:eot|eom|eod|sop|eop|im_start|im_end|end_of_text|endoftext)>"
    rf"|</?(?i:{_ROLES}|{_TOOLS}|{_THOUGHTS}|\w{{1,20}}_think)(?:=\w{{1,40}})?>"
    # Mistral and GLM; short words in brackets may be a geometer's.
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT"
    r"|TOOL_OUTPUTS?|CALL_ID|ARGS|THINK|SYS|SYSTEM|USER|ASSISTANT|TOOL|IMG|IMG_BREAK"
    r"|IMG_END|AUDIO|BEGIN_AUDIO|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|MASK|[gs]MASK|eop|sop"
    r"|MODEL_SETTINGS|control_\d{1,4})\]"
)


def special_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """All control tokens of a tokenizer, flagged as special or not."""
    tokens = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return tuple(token for token in tokens if len(token) > 1 and not token.isspace())


def check_chat(tokenizer: Tokenizer | None, remedy: str) -> None:
    """Raises UserError, with the remedy, if a tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "A chat needs a tokenizer with a chat template; this "
            f"{type(tokenizer).__name__} has none; {remedy}."
        )


def chat_prompt(tokenizer: Tokenizer, text: str, *, system: str = "") -> str:
    """A user's message in the tokenizer's chat template, and the start of an answer.

    Raises UserError if the template refuses a message or leaves it out, as some do with
    system messages.
    """
    rendered = _rendered(tokenizer, text, system)
    if text in rendered and system in rendered:
        return rendered
    # Some templates change a text, as by escaping; one that leaves it out shows none.
    trials = {"a message that is text": (_WORD, system and "a")}
    if system:
        trials["a system message"] = ("a", _WORD)
    for what, messages in trials.items():
        if _WORD not in _rendered(tokenizer, *messages).lower():
            raise UserError(
                f"The chat template of this {type(tokenizer).__name__} leaves out "
                f"{what}; {_REMEDY}."
            )
    return rendered


def _rendered(tokenizer: Tokenizer, text: str, system: str) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    try:
        return tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is a program of a stranger's
        asked = "a system message and a user's" if system else "a user's message"
        raise UserError(
            f"The chat template of this {type(tokenizer).__name__} refuses {asked} "
            f"({type(error).__name__}: {one_line(str(error))[:200]}); {_REMEDY}."
        ) from error


def dated_template(template: str, date: str) -> str:
    """A chat template whose `strftime_now` returns midnight of the day `date`,
    YYYY-MM-DD, instead of the current time."""
    if "strftime_now" not in template:
        return template
    day = datetime.datetime.fromisoformat(date)
    filters = "".join(
        f" | replace({'%' + letter!r}, {day.strftime('%' + letter)!r})"
        for letter in _DIRECTIVES
    )
    # The empty expression keeps a first line break, which a tag before it would eat.
    return (
        "{% macro strftime_now(format) %}{{ format" + filters + " }}{% endmacro %}"
        "{{ '' }}" + template
    )


def plain_prompt(tokenizer: Tokenizer | None, text: str) -> str:
    """A prompt without a chat, begun with the tokenizer's start token if it has one:
    Llama and Gemma models need it."""
    start = "" if tokenizer is None else start_token(tokenizer)
    if tokenizer is None or text.startswith(start):
        return text
    # Behind a start token some SentencePiece tokenizers leave out the space that they
    # put before a text.
    spaced = encode(tokenizer, f"{start} {text}")
    is_own = spaced == list(tokenizer(text)["input_ids"])[: len(spaced)]
    return f"{start} {text}" if is_own else start + text


def start_token(tokenizer: Tokenizer) -> str:
    """The token that a tokenizer puts before every text; empty if it has none."""
    if getattr(tokenizer, "bos_token_id", None) is None:
        return ""
    added = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token if added else ""


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text`, nothing added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text` where it stands behind another: without the space that
    SentencePiece tokenizers put before every text."""
    tokens = encode(tokenizer, text)
    if decode(tokenizer, [*tokens, *tokens], special=True) == text + text:
        return tokens
    for before in ("\n", ".", "a"):
        both, first = encode(tokenizer, before + text), encode(tokenizer, before)
        if both[: len(first)] == first:
            return both[len(first) :]
    return tokens


def decode(
    tokenizer: Tokenizer, tokens: Sequence[int], *, special: bool = False
) -> str:
    """The exact text of `tokens`; `special` includes special tokens.

    Some tokenizers would remove spaces that were written.
    """
    return tokenizer.decode(
        tokens,
        skip_special_tokens=not special,
        clean_up_tokenization_spaces=False,
    )


def neutralize(text: str, special_tokens: Collection[str]) -> str:
    """Breaks up every special token in a text, and anything of that shape, with a space
    after its first character.

    Otherwise a question could close its own message and speak as the system.
    """
    tokens = control_pattern(tuple(special_tokens))
    while tokens.search(text):  # a second pass only where special tokens overlapped
        text = tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)
    return text


@functools.lru_cache
def control_pattern(special_tokens: tuple[str, ...]) -> re.Pattern:
    """A pattern of special tokens, the longest first, and of their shapes."""
    own = map(re.escape, sorted(special_tokens, reverse=True))
    return re.compile("|".join((*own, CONTROL.pattern)))
