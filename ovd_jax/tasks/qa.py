"""Open questions with short answers, answered alone or with the help of a search
engine."""

import logging
from collections.abc import Callable, Mapping, Sequence

from ovd_jax.errors import UserError
from ovd_jax.search.base import Query, SearchBackend
from ovd_jax.search.observation import observation, shortened
from ovd_jax.search.tags import (
    ANSWER,
    SEARCH,
    TAGS,
    contents,
    found_by_queries,
    turn_ends,
)  # fmt: skip
from ovd_jax.tasks.base import Grade, Problem, steps
from ovd_jax.tasks.data.dataset import Dataset, DatasetTask
from ovd_jax.tasks.data.rows import load_problems
from ovd_jax.tasks.data.sets import QA_SETS
from ovd_jax.tasks.grading import qa_metrics
from ovd_jax.tasks.qa_prompts import load_prompt
from ovd_jax.text import (
    Tokenizer,
    chat_prompt,
    check_chat,
    neutralize,
    plain_prompt,
    special_tokens,
)

REWARDS = ("f1", "em")
_log = logging.getLogger(__name__)


class QATask(DatasetTask):
    """Questions from `data`, asked in a prompt, paid by how near the answer is.

    A step is a turn: thought, query and what was found, or thought and answer.

    Args:
        data: what `load` takes, as for `held_out_data`; see `Dataset`.
        held_out_data: questions for evaluation; empty: some of `data`.
        seed: of the order of the problems, and of which ones are held out.
        prompt: one of `PROMPTS` in tasks/qa_prompts.py, or a JSON file.
        reward: `f1` (the paper's eq. 2) or `em`.
        chat: whether the prompt is a user's message in the tokenizer's chat template.
        tokenizer: a transformers tokenizer; its special tokens are broken up where a
            question contains them.
        max_prompt_tokens: training problems with a longer prompt are left out, with a
            warning; 0 keeps all. Needs the tokenizer.
        search: what a prompt with documents asks for them; such a prompt needs it.
        max_observation_chars: of those documents.
        load: `(data, "train" or "eval") -> problems`.
    """

    sources = QA_SETS
    step_stop = ""

    def __init__(
        self,
        *,
        data: str,
        held_out_data: str = "",
        seed: int,
        prompt: str = "search",
        reward: str = "f1",
        chat: bool = True,
        tokenizer: Tokenizer | None = None,
        max_prompt_tokens: int = 0,
        search: SearchBackend | None = None,
        max_observation_chars: int = 4000,
        load: Callable = load_problems,
    ):
        check_reward(reward)
        self._prompt = load_prompt(prompt)
        if self._prompt.reads and search is None:
            raise UserError(
                f"qa.prompt {prompt!r} shows documents; set search.backend, to bm25 or "
                "http, say."
            )
        if chat:
            check_chat(tokenizer, "set prompt_template to 'plain'")
        self.stop_strings = self._prompt.stop_strings
        self._reward = reward
        self._chat = chat
        self._tokenizer = tokenizer
        self._special_tokens = () if tokenizer is None else special_tokens(tokenizer)
        self._search = search
        # By question: its documents, and how many of them are cut.
        self._found: dict[str, tuple[str, int]] = {}
        self._max_chars = max_observation_chars
        self._dataset = Dataset(data, held_out_data, seed=seed, load=load)
        if max_prompt_tokens and tokenizer is not None:
            self._dataset.drop_long(self.prompt, tokenizer, max_prompt_tokens)

    def prompt(self, problem: Problem) -> str:
        """The question in its prompt, with documents if the prompt shows some."""
        slots = {"question": neutralize(problem.question, self._hostile())}
        if self._prompt.reads:
            slots["documents"], _ = self._documents(problem)
        text = self._prompt.text.format(**slots)
        if not self._chat or self._tokenizer is None:
            return plain_prompt(self._tokenizer, text)
        return chat_prompt(self._tokenizer, text)

    def step_ends(self, text: str) -> tuple[int, ...]:
        """The end of each turn: see `turn_ends`."""
        return turn_ends(text)

    def extract(self, text: str) -> str | None:
        """The text in the first closed answer tag."""
        return next(iter(contents(text, ANSWER)), None)

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """F1 or strict EM of each answer; 0.0 without one."""
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The rewards, and as metrics `em`, `cover_em`, `f1`, `recall` (whether what
        was read holds a gold answer), `searches`, and `invalid_rate`, the share of
        turns with neither a query nor an answer; where prompts hold documents, too, how
        many of them were cut. Texts without an answer count in all."""
        return [
            self._grade(problem, text)
            for problem, text in zip(problems, texts, strict=True)
        ]

    def _grade(self, problem: Problem, text: str) -> Grade:
        answer, golds = self.extract(text), problem.golds
        turns = list(steps(text, turn_ends(text)))
        acts = [bool(contents(t, SEARCH) or contents(t, ANSWER)) for t in turns]
        read = found_by_queries(text) if self._prompt.searches else []
        if self._prompt.reads:
            read.append(self._documents(problem)[0])
        metrics = {
            "em": qa_metrics.exact_match(answer, golds),
            "cover_em": qa_metrics.cover_match(answer, golds),
            "f1": qa_metrics.f1(answer, golds),
            "recall": qa_metrics.retrieval_recall(read, golds),
            "searches": float(len(contents(text, SEARCH))),
            "invalid_rate": 1.0 - sum(acts) / len(acts) if acts else 1.0,
        }
        if self.shows_documents:
            metrics["documents_cut"] = float(self.documents_cut(problem))
        return Grade(metrics[self._reward], answer, reason(answer, metrics), metrics)

    @property
    def shows_documents(self) -> bool:
        """Whether a prompt holds documents."""
        return self._prompt.reads

    def documents_cut(self, problem: Problem) -> int:
        """How many of the documents in its prompt are cut."""
        return self._documents(problem)[1]

    def _hostile(self) -> tuple[str, ...]:
        return (*self._special_tokens, *TAGS)

    def _documents(self, problem: Problem) -> tuple[str, int]:
        """What the engine finds for the question itself, and how many documents are cut
        in it; the engine is asked once, for prompt and grade."""
        question = problem.question
        if question not in self._found and self._search is not None:
            (found,) = self._search.search([Query(question)], seeds=[0])
            shown = observation(found, self._special_tokens, self._max_chars)
            cut = shortened(found, self._max_chars)
            if cut and not any(before for _, before in self._found.values()):
                _log.warning(
                    "%d of %d documents are cut in the prompt of %r, which holds %d "
                    "characters of them (search.max_chars); all such are counted as "
                    "documents_cut.",
                    cut, len(found), question[:80], self._max_chars,
                )  # fmt: skip
            self._found[question] = shown, cut
        return self._found[question]


def check_reward(reward: str) -> None:
    """Raises UserError unless `reward` is one of REWARDS."""
    if reward not in REWARDS:
        raise UserError(f"qa.reward is {reward!r}; use one of {', '.join(REWARDS)}.")


def reason(answer: str | None, metrics: Mapping[str, float]) -> str:
    """A code for why an answer is right or wrong."""
    if answer is None:
        return "no_answer"
    if metrics["em"]:
        return "exact"
    if metrics["cover_em"]:
        return "covers_gold"
    return "shares_words" if metrics["f1"] else "different"
