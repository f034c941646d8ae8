"""A served model: what its server can do, and how it is asked for that."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ovd_jax.client.dialect import Dialect
from ovd_jax.client.distribution import leading
from ovd_jax.client.labels import read_label
from ovd_jax.client.replies import Reply, Unavailable, Unreadable
from ovd_jax.client.transport import Transport
from ovd_jax.seeds import derive

_STRAY = 1e-4  # probability of a token that a constrained answer must not have
_LABEL_TOKENS = 64  # room for a label and its dress, such as fenced JSON
# Numbers of the seeds of answers drawn for one label. A fault of the server passes, and
# must not change what is drawn; a model that gives no label by one seed may by another.
_LABEL_DRAWS = (0, 0, 0, 1, 2)
_USELESS_REPLIES = 5  # to one request, before it is given up
TRIAL = "Write the word yes."  # a question whose answer is short
_GO_ON = "Go on exactly where you stopped. Repeat nothing and add no remark."
# Spellings of a constraint to choices: vLLM >= 0.11, and before.
CONSTRAINTS = {
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": choices}},
    "guided_choice": lambda choices: {"guided_choice": choices},
}
OPEN = {"continue_final_message": True, "add_generation_prompt": False}

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
    priority: str
    affinity: int


class ServedModel:
    """Asks through `transport`, in a chat or plainly.

    `probe.py` finds out what the server can do: until then nothing is assumed.
    """

    def __init__(self, transport: Transport, *, chat: bool, labels: Sequence[str]):
        self.labels = tuple(labels)
        self.top = 0  # likeliest tokens shown; 0: no log-probabilities
        self.constraint: str | None = None  # how it is spelled; None: there is none
        self.continues = not chat  # whether an answer can be begun for the model
        self.dialect = Dialect()  # in which requests are written
        self.chat = chat
        self._transport = transport

    def through(self, transport: Transport) -> "ServedModel":
        """The same model, asked through another view of its `transport`."""
        model = copy.copy(self)
        model._transport = transport
        return model

    @property
    def name(self) -> str:
        """Of the model, with where its weights come from."""
        return " ".join(self._transport.model).strip()

    @property
    def url(self) -> str:
        """Of the first server."""
        return self._transport.endpoints[0].url

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

        body = self.next_token_body(question.text, prefix, self.top)
        if allowed and self.constraint:
            body |= CONSTRAINTS[self.constraint](list(allowed))
        reply = await self._post(question, body, patient(check))
        return reply.first_tokens or {}

    def next_token_body(self, text: str, prefix: str, top: int) -> dict:
        """A request for the `top` likeliest tokens after an answer's beginning."""
        shown = self.shown(top) if top else {}
        return self.begun(text, prefix) | shown | {"max_tokens": 1, "temperature": 1.0}

    async def label(self, question: Question, temperature: float, seed: int) -> str:
        """One drawn label, for servers that show no probabilities. An answer that gives
        none is asked for again, then drawn anew. Raises Unreadable where none gives
        one."""
        for number in _LABEL_DRAWS:
            drawn = derive(seed, "label", number) if number else seed
            body = self.label_body(question.text, temperature, drawn)
            reply = await self._post(question, body, lambda reply: None)
            if label := read_label(reply.text, self.labels):
                return label
        cut = "" if reply.finished else f", cut after {_LABEL_TOKENS} tokens,"
        raise Unreadable(
            f"{self.url}: its answer {reply.text[:80]!r}{cut} gives no score label; "
            f"the teacher.prompt must ask for one of {', '.join(self.labels)} and "
            "nothing else, of a model that does as it is told"
        )

    def label_body(self, text: str, temperature: float, seed: int) -> dict:
        """A request for one drawn label."""
        body = self.begun(text, "")
        body |= {"max_tokens": _LABEL_TOKENS, "temperature": temperature, "seed": seed}
        if self.constraint:
            body |= CONSTRAINTS[self.constraint](list(self.labels))
        return body

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
        return self.begun(text, prefix) | body

    async def solution(self, question: Question, body: Mapping) -> Reply:
        """The answer to a `solution_body`, which ends where a text of its `stop` is."""
        reply = await self._post(question, body, lambda reply: None)
        ends = [reply.text.find(stop) for stop in body.get("stop", ())]
        if ends := [end for end in ends if end >= 0]:
            text = reply.text[: min(ends)]
            return dataclasses.replace(reply, text=text, finished=True)
        return reply

    async def ask(self, body: Mapping) -> Reply:
        """The reply to a request of the probe, sent as it is."""
        return await self._transport.probe(self._path, body, self.begun(TRIAL, ""))

    async def control_tokens(self) -> tuple[str, ...]:
        """The model's own, where the server tells (vLLM with
        --enable-tokenizer-info-endpoint); of the usual families in any case."""
        info = await self._transport.fetch("/tokenizer_info")
        return tuple(sorted({*CONTROL_TOKENS, *special_in(info)}))

    def begun(self, text: str, prefix: str) -> dict:
        """The part of a request that asks `text` and begins the answer."""
        if not self.chat:
            return {"prompt": text + prefix}
        messages = [{"role": "user", "content": text}]
        if not prefix:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": prefix})
        if self.continues:
            return {"messages": messages} | OPEN
        return {"messages": [*messages, {"role": "user", "content": _GO_ON}]}

    def shown(self, top: int) -> dict:
        """The part of a request that asks for the `top` likeliest tokens."""
        if self.chat:
            return {"logprobs": True, "top_logprobs": top}
        return {"logprobs": top}

    @property
    def _path(self) -> str:
        return "/chat/completions" if self.chat else "/completions"

    async def _post(self, question: Question, body: Mapping, check) -> Reply:
        return await self._transport.post(
            self._path,
            self.dialect.spoken(body),
            priority=question.priority,
            affinity=question.affinity,
            check=check,
        )


def patient(check: Callable[[Reply], None]) -> Callable[[Reply], None]:
    """`check` for the replies to one request, which raises Unreadable rather than
    Unavailable once some of them were of no use: the next one would not be either."""
    useless = 0

    def checked(reply: Reply) -> None:
        nonlocal useless
        try:
            check(reply)
        except Unavailable as error:
            useless += 1
            if useless < _USELESS_REPLIES:
                raise
            raise Unreadable(str(error)) from None

    return checked


def special_in(info: object) -> set[str]:
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
