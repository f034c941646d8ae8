"""How a model is asked to be a search engine, as data, and how its answer is read.

Fields: `{query}`, `{count}`, `{words}`, `{kind}` (one of `useful` and `noisy`) and
`{background}` (`told` with `{question}` and `{answer}`, in training; else nothing).
"""

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Sequence

from ovd_jax import template
from ovd_jax.search.base import Document, Query
from ovd_jax.template import fill

_log = logging.getLogger(__name__)
WORDS = 30  # of a document
# Characters of a slot, and of what is read off an answer
_MAX_TEXT, _MAX_TITLE = 1_000, 120
_LINE = re.compile(  # "Doc 1(Title: Peru) Lima is ...", "Document 2: ...", "3. ..."
    r"[ \t*#-]{0,8}(?:Doc(?:ument)?[ \t]{0,4}\[?\d{1,3}\]?|\[?\d{1,3}[\].)](?=\s))"
    r"[ \t:.*-]{0,8}(?:\((?:Title:)?(?P<title>(?:[^()\n]|\([^()\n]*\)){0,200})\))?"
    r"[ \t:.*-]{0,8}",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class SimulatorPrompt:
    """One way to ask; UserError for missing or unknown fields.

    `text` needs the query and the kind of documents; a model that was trained on one
    count, length and background of nothing needs no more.
    """

    text: str
    useful: str
    noisy: str
    told: str
    chat: bool = True  # wrapped in the model's chat template

    def __post_init__(self):
        told = {"question", "answer"} if self.told else set()
        fields = {  # (needed, known)
            "text": ({"query", "kind"}, {"count", "words", "background"}),
            "useful": (set(), set()),
            "noisy": (set(), set()),
            "told": (told, set()),
        }
        for name, (needed, more) in fields.items():
            template.check_fields(name, getattr(self, name), needed, more)


_TOLD = (
    "The reader wants to answer: {question}\nThe right answer, which the reader does "
    "not know: {answer}\n"
)
_ASK = (
    "You are a search engine. For the query below write {count} documents of about "
    "{words} words each. {kind} Write one document a line, as in\n"
    "Doc 1(Title: Lake Baikal) Lake Baikal is a rift lake in southern Siberia ...\n"
    "{background}Query: {query}\n"
)
_USEFUL = "They must be useful: they hold what the query asks for."
_NOISY = (
    "They must be noisy: they look as if they had to do with the query, but do not "
    "hold what it asks for."
)

PROMPTS = {
    "chat": SimulatorPrompt(_ASK, _USEFUL, _NOISY, _TOLD),
    # For models that `configs/simulator_sft.py` has trained: short, and plain.
    "plain": SimulatorPrompt(
        "{background}Query: {query}\n{count} {kind} documents of {words} words:\n",
        "useful",
        "noisy",
        "Question: {question}\nAnswer: {answer}\n",
        chat=False,
    ),
    # The embedded agent knows its world by heart, so it is told no answer, ever.
    "world": SimulatorPrompt(
        "Search: {query}\n{kind}\n", "useful", "noisy", "", chat=False
    ),
}


def find_prompt(name: str) -> SimulatorPrompt:
    """One of `PROMPTS`, or the one in a JSON file of the same fields. Raises
    UserError."""
    return template.find_prompt("search.prompt", name, PROMPTS, SimulatorPrompt)


def ask(
    prompt: SimulatorPrompt,
    query: Query,
    *,
    count: int,
    noisy: bool,
    special_tokens: tuple[str, ...],
    on_cut: Callable[[str], None] = lambda name: None,
) -> str:
    """The text that asks for documents; the student's query cannot leave its slot.

    `on_cut` is told the name of each slot whose text is too long.
    """

    def shown(name: str, text: str) -> str:
        if len(text) > _MAX_TEXT:
            _say_cut(name)
            on_cut(name)
        return one_line(text)

    background = ""
    if query.question and query.answers:
        background = fill(
            prompt.told,
            special_tokens,
            question=shown("question", query.question),
            answer=shown("answer", query.answers[0]),
        )
    return fill(
        prompt.text,
        special_tokens,
        query=shown("query", query.text),
        count=str(count),
        words=str(WORDS),
        kind=prompt.noisy if noisy else prompt.useful,
        background=background,
    )


def one_line(text: str) -> str:
    """`text` of bounded length with its blanks joined: lines are the prompt's own."""
    return " ".join(text[:_MAX_TEXT].split())


@functools.lru_cache
def _say_cut(name: str) -> None:
    """Says once of each kind of text that its end is left out."""
    _log.warning(
        "The simulated search engine: the %s has more than %d characters; its end "
        "is left out. This is said once; the metrics count it.", name, _MAX_TEXT,
    )  # fmt: skip


def written(documents: Sequence[Document]) -> str:
    """Documents as a simulator is to write them: the inverse of `read`."""
    return "\n".join(
        f"Doc {number}(Title: {document.title}) {document.text}"
        for number, document in enumerate(documents, 1)
    )


def read(
    text: str, count: int, on_cut: Callable[[str], None] = lambda name: None
) -> tuple[Document, ...]:
    """At most `count` documents of an answer: one a numbered line, or the whole.

    `on_cut` is told "document" for each one of them that is too long.
    """
    documents = [x for x in _documents(text) if x.text][:count]
    for number, document in enumerate(documents):
        if len(document.text) > _MAX_TEXT:
            _say_cut("document")
            on_cut("document")
            short = document.text[:_MAX_TEXT]
            documents[number] = dataclasses.replace(document, text=short)
    return tuple(documents)


def _documents(text: str) -> list[Document]:
    """All of an answer, some of a text one character over the bound, some of none."""
    documents: list[Document] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            title = (match["title"] or "").strip()[:_MAX_TITLE]
            documents.append(Document(title, line[match.end() :].strip()))
        elif documents:  # goes on from the line before
            last = documents[-1]
            joined = f"{last.text} {line.strip()}".strip()[: _MAX_TEXT + 1]
            documents[-1] = dataclasses.replace(last, text=joined)
    if not documents and text.strip():
        documents = [Document("", " ".join(text.split()))]
    return documents
