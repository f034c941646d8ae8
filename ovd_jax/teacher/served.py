"""A served model: what its server can do, and how it is asked for that."""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence

from ovd_jax.teacher.distribution import leading
from ovd_jax.teacher.replies import Refused, Reply, Unavailable
from ovd_jax.teacher.transport import Transport

_log = logging.getLogger(__name__)
_TOPS = (20, 5)  # how many of the likeliest tokens servers are willing to show
_STRAY = 1e-4  # probability of a token that a constrained answer must not have
_LABEL_TOKENS = 8  # room for a label and a space before it
_TRIAL = "Write the word yes."
_GO_ON = "Go on exactly where you stopped. Repeat nothing and add no remark."
# Spellings of a constraint to choices: vLLM >= 0.11, and before.
_CONSTRAINTS = {
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": choices}},
    "guided_choice": lambda choices: {"guided_choice": choices},
}
_OPEN = {"continue_final_message": True, "add_generation_prompt": False}

# Control tokens of the usual families of models, for servers that do not name theirs.
CONTROL_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|endofprompt|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|header_start|>", "<|header_end|>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>", "<|message|>",
    "<|channel|>", "<|return|>", "<|python_tag|>", "<s>", "</s>", "<unk>", "<pad>",
    "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
    "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    *(f"<\uff5c{name}\uff5c>" for name in ("User", "Assistant")),
    *(f"<\uff5c{name}\u2581of\u2581sentence\uff5c>" for name in ("begin", "end")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt, its place in the queue, and the family that it shares a beginning
    with."""

    text: str  # of the user's message, or all of it for a model without chat
    order: str
    home: int


class ServedModel:
    """Asks through `transport`, in a chat or plainly.

    `probe` finds out what the server can do: without it nothing is assumed.
    """

    def __init__(self, transport: Transport, *, chat: bool, labels: Sequence[str]):
        self.labels = tuple(labels)
        self.top = 0  # likeliest tokens shown; 0: no log-probabilities
        self.constraint: str | None = None  # how it is spelled; None: there is none
        self.continues = not chat  # whether an answer can be begun for the model
        self._transport = transport
        self._chat = chat

    @property
    def name(self) -> str:
        """Of the model, with where its weights come from."""
        return " ".join(self._transport.model).strip()

    async def probe(self) -> None:
        """Connects, tries what the server can do, and says once what it cannot."""
        await self._transport.connect()
        for top in _TOPS:
            self.top = self.top or await self._shown_of(top)
        for spelling in _CONSTRAINTS:
            if self.constraint is None and await self._obeys(spelling):
                self.constraint = spelling
        if self._chat:
            self.continues = await self._continues()
        self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        lacks = {
            "log-probabilities (a score is one answer, not a distribution)": self.top,
            "choice between given answers (a label that it does not show among its "
            "likeliest tokens counts nothing)": self.constraint,
            "answers that are begun for it (labels of several tokens count nothing, "
            "and it is asked in words to go on from a prefix)": self.continues,
        }
        missing = [what for what, has in lacks.items() if not has]
        if missing:
            url = self._transport.endpoints[0].url
            _log.warning("The teacher at %s has no %s.", url, "; no ".join(missing))

    async def next_tokens(
        self, question: Question, prefix: str, allowed: Sequence[str] | None
    ) -> Mapping[str, float]:
        """What may follow the question and the answer's beginning `prefix`: tokens with
        their probabilities, relative to one another where only `allowed` may follow."""

        def check(reply: Reply) -> None:
            tokens = reply.first_tokens or {}
            if allowed:
                check_held(tokens, allowed, self.top)
            elif len(tokens) < self.top / 2:
                raise Unavailable(f"it shows {len(tokens)} of {self.top} tokens")
            elif not prefix and not self.constraint:
                check_any(tokens, self.labels)

        body = self._begun(question.text, prefix) | self._shown(self.top)
        body |= {"max_tokens": 1, "temperature": 1.0}
        if allowed:
            body |= _CONSTRAINTS[self.constraint](list(allowed))
        return (await self._post(question, body, check)).first_tokens

    async def label(self, question: Question, temperature: float, seed: int) -> str:
        """One drawn label: for servers that show no probabilities."""

        def check(reply: Reply) -> None:
            if read_label(reply.text, self.labels) is None:
                raise Unavailable(f"its answer {reply.text[:40]!r} is no score label")

        body = self._begun(question.text, "")
        body |= {"max_tokens": _LABEL_TOKENS, "temperature": temperature, "seed": seed}
        if self.constraint:
            body |= _CONSTRAINTS[self.constraint](list(self.labels))
        return read_label((await self._post(question, body, check)).text, self.labels)

    def solution_body(
        self,
        text: str,
        prefix: str,
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[str] = (),
    ) -> dict:
        """A request for the rest of an answer that begins with `prefix`."""
        body = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        if stop:
            body["stop"] = list(stop)
        return self._begun(text, prefix) | body

    async def solution(self, question: Question, body: Mapping) -> Reply:
        """The answer to a `solution_body`."""
        return await self._post(question, body, lambda reply: None)

    async def control_tokens(self) -> tuple[str, ...]:
        """The model's own, where the server tells (vLLM with
        --enable-tokenizer-info-endpoint); of the usual families in any case."""
        info = await self._transport.fetch("/tokenizer_info")
        return tuple(sorted({*CONTROL_TOKENS, *special_in(info)}))

    def _begun(self, text: str, prefix: str) -> dict:
        if not self._chat:
            return {"prompt": text + prefix}
        messages = [{"role": "user", "content": text}]
        if not prefix:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": prefix})
        if self.continues:
            return {"messages": messages} | _OPEN
        return {"messages": [*messages, {"role": "user", "content": _GO_ON}]}

    def _shown(self, top: int) -> dict:
        if self._chat:
            return {"logprobs": True, "top_logprobs": top}
        return {"logprobs": top}

    async def _post(self, question: Question, body: Mapping, check) -> Reply:
        path = "/chat/completions" if self._chat else "/completions"
        place = {"order": question.order, "home": question.home}
        return await self._transport.post(path, body, check=check, **place)

    async def _try(self, body: Mapping) -> Reply | None:
        """The reply to a trial; None where the server refuses it."""
        question = Question("", order="", home=0)
        try:
            return await self._post(question, body, lambda reply: None)
        except Refused:
            return None

    async def _shown_of(self, top: int) -> int:
        """How many of the `top` likeliest tokens it shows."""
        body = self._begun(_TRIAL, "") | {"max_tokens": 1} | self._shown(top)
        # Each trial twice: one strange answer must not decide about the whole run.
        replies = [await self._try(body) for _ in range(2)]
        return max(len(reply.first_tokens or ()) if reply else 0 for reply in replies)

    async def _obeys(self, spelling: str) -> bool:
        """Whether it writes two digits that it would not write otherwise."""
        obeyed = set()
        for digit in ("7", "3", "7", "3"):
            held = _CONSTRAINTS[spelling]([digit])
            body = self._begun(_TRIAL, "") | {"max_tokens": 2} | held
            reply = await self._try(body)
            if reply and reply.text.strip() == digit:
                obeyed.add(digit)
        return len(obeyed) == 2

    async def _continues(self) -> bool:
        """Whether an answer left open is shorter than one that was closed."""
        messages = [
            {"role": "user", "content": "Count to nine."},
            {"role": "assistant", "content": "1 2 3"},
        ]
        body = {"messages": messages, "max_tokens": 1}
        opened, closed = await self._try(body | _OPEN), await self._try(body)
        if opened is None or closed is None:
            return False
        return 0 < opened.tokens_in < closed.tokens_in


def special_in(info) -> set[str]:
    """Control tokens in the answer of vLLM's /tokenizer_info."""
    if not isinstance(info, Mapping):
        return set()
    found = []
    for name, value in info.items():
        if name == "added_tokens_decoder" and isinstance(value, Mapping):
            found += value.values()
        elif name.endswith("_tokens") and isinstance(value, list):
            found += value
        elif name.endswith("_token"):
            found.append(value)
    texts = (x.get("content") if isinstance(x, Mapping) else x for x in found)
    return {x for x in texts if isinstance(x, str) and len(x) > 1 and not x.isspace()}


def check_held(tokens: Mapping[str, float], allowed: Sequence[str], top: int) -> None:
    """Raises Unavailable unless `tokens` are what a model held to `allowed` may say."""
    held = leading(tokens, allowed)
    stray = any(p > _STRAY for token, p in tokens.items() if token not in held)
    missing = [choice for choice in allowed if not leading(tokens, [choice])]
    if stray or (missing and len(tokens) < top):
        raise Unavailable(f"held to {list(allowed)}, it may say {dict(tokens)}")


def check_any(tokens: Mapping[str, float], labels: Sequence[str]) -> None:
    """Raises Unavailable where no label begins with one of `tokens`."""
    if not leading(tokens, labels):
        raise Unavailable(
            f"it gives no probability to any of {list(labels)}, but to {list(tokens)}; "
            "the prompt must ask for one of them and nothing else"
        )


def read_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text begins with; None if it begins with none, or goes on as a
    longer number or word."""
    for label in sorted(labels, key=len, reverse=True):
        if re.match(rf"\s*{re.escape(label)}(?![\w.,]*\w)", text):
            return label
    return None
