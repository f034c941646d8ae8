"""Mathematics with a final answer: GSM8K, MATH and everything in their form."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from ovd_jax.tasks.answers import extract_answer
from ovd_jax.tasks.base import Grade, Problem
from ovd_jax.tasks.compare import choice_letter
from ovd_jax.tasks.dataset import Dataset
from ovd_jax.tasks.grading import Grader
from ovd_jax.tasks.math_sets import MATH_SETS
from ovd_jax.tasks.rows import load_problems
from ovd_jax.text import neutralize, special_tokens

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question becomes a prompt."""

    text: str  # around {question}
    chat: bool  # whether `text` is a user's message in the tokenizer's chat template


TEMPLATES = {
    "plain": Template("Question: {question}\nSolution:", chat=False),
    "chat": Template("{question}", chat=True),
    # The line of One-Shot-RLVR (arXiv:2504.20571), which the paper's section A.2 shows.
    "qwen_boxed": Template(
        "{question} Let's think step by step and output the final answer within "
        "\\boxed{{}}.",
        chat=False,
    ),
}


class MathTask:
    """Problems from `data`, asked in a template, paid 1.0 for the right final answer.

    Args:
        data: what `load_problems` takes: a JSONL file, a sample's or a hub name.
            Empty for a task that only evaluates what `load` gives.
        held_out_data: the same, for evaluation. Training problems with a question of
            these are left out. Where it is empty, a tenth of `data`, at most 500
            problems, is held out instead, unless `data` has fewer than 3.
        seed: of the order of the problems, and of which ones are held out.
        template: one of `TEMPLATES`.
        tokenizer: a transformers tokenizer; its special tokens are broken up where a
            question contains them. A chat template is taken from it.
        system: the system message of a chat; "" for templates that know no such role.
        max_prompt_tokens: training problems with a longer prompt are left out, with a
            warning; 0 keeps all. Needs the tokenizer.
    """

    stop_strings: tuple[str, ...] = ()
    sources = MATH_SETS

    def __init__(
        self,
        *,
        data: str,
        held_out_data: str = "",
        seed: int,
        template: str = "chat",
        tokenizer: Any = None,
        system: str = SYSTEM,
        max_prompt_tokens: int = 0,
    ):
        if template not in TEMPLATES:
            raise ValueError(f"template is {template!r}; use one of {list(TEMPLATES)}.")
        self._template = TEMPLATES[template]
        self._tokenizer = tokenizer
        self._system = system
        self._special_tokens = (
            special_tokens(tokenizer) if tokenizer is not None else ()
        )
        if self._template.chat and not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"Template {template!r} needs a tokenizer with a chat template; this "
                f"{type(tokenizer).__name__} has none; use template 'plain'."
            )
        self._dataset = Dataset(data, held_out_data, seed=seed, load=load_checked)
        if max_prompt_tokens:
            self._dataset.drop_long(self.prompt, tokenizer, max_prompt_tokens)
        self._grader = Grader()

    def problems(self, step: int, count: int) -> tuple[Problem, ...]:
        """The next `count` problems of an endless row of epochs, each shuffled anew."""
        return self._dataset.problems(step, count)

    def held_out(self, count: int) -> tuple[Problem, ...]:
        """`count` problems spread evenly over those held out, or all if fewer are."""
        return self._dataset.held_out(count)

    def load(self, source: str) -> tuple[Problem, ...]:
        """All evaluation problems of what `load_problems` takes."""
        return load_checked(source, "eval")

    def prompt(self, problem: Problem) -> str:
        """The question in its template, with choices as "(A) ..." lines."""
        question = neutralize(problem.asked, self._special_tokens)
        text = self._template.text.format(question=question)
        if not self._template.chat:
            return text
        messages = [{"role": "system", "content": self._system}] if self._system else []
        return self._tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
        )

    def step_ends(self, text: str) -> tuple[int, ...]:
        """Where each step ends: see the function of the same name."""
        return step_ends(text)

    def extract(self, text: str) -> str | None:
        """The final answer: see `extract_answer`."""
        return extract_answer(text)

    def rewards(self, problems: list[Problem], texts: list[str]) -> list[float]:
        """1.0 for each text whose final answer equals the gold answer, else 0.0."""
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The rewards, with the answers found and the grader's reasons."""
        found = [self.extract(text) for text in texts]
        verdicts = self._grader.judge(
            [
                _graded_pair(problem, answer)
                for problem, answer in zip(problems, found, strict=True)
            ]
        )
        return [
            Grade(float(verdict.equal), answer, verdict.reason)
            for verdict, answer in zip(verdicts, found, strict=True)
        ]


def _graded_pair(problem: Problem, answer: str | None) -> tuple[str, str]:
    """The (answer, gold) to compare: letters where the answer names a choice."""
    if not answer or not problem.choices:
        return answer or "", problem.answer
    gold = choice_letter(problem.answer, problem.choices)
    if letter := choice_letter(answer, problem.choices):
        return letter, gold
    return answer, problem.choices[ord(gold) - ord("A")]


def load_checked(data: str, split: str) -> tuple[Problem, ...]:
    """`load_problems`, where an answer to choices must name one of them."""
    problems = load_problems(data, split)
    for problem in problems:
        if problem.choices and not choice_letter(problem.answer, problem.choices):
            raise ValueError(
                f"{data}: the answer {problem.answer!r} of {problem.id!r} is none of "
                f"its choices {problem.choices}; write a choice or its letter."
            )
    return problems


# A newline takes the blank lines after it; the others open or close what stays whole.
STEP_TOKEN = re.compile(
    r"\n(?:[^\S\n]*+\n)*+|```|\$\$|\\\[|\\\]|\\begin\{|\\end\{|\\\\"
)
CLOSERS = {"```": "```", "$$": "$$", r"\[": r"\]"}


def step_ends(text: str) -> tuple[int, ...]:
    r"""Where the steps of a text end: at each newline, with the blank lines after it.

    Displayed mathematics (`$$`, `\[ \]`, `\begin \end`) and code fences stay whole if
    they are closed. Text after the last newline is a step unless it is blank; an empty
    text has none. Time is linear in the length.
    """
    tokens = list(STEP_TOKEN.finditer(text))
    closing = _closing_tokens([token[0] for token in tokens])
    ends, start, index = [], 0, 0
    while index < len(tokens):
        token = tokens[index]
        if token[0][0] == "\n" and text[start : token.end()].strip():
            start = token.end()
            ends.append(start)
        index = closing.get(index, index) + 1
    if ends and not text[start:].strip():
        ends.pop()
    return (*ends, len(text)) if text else ()


def _closing_tokens(tokens: list[str]) -> dict[int, int]:
    """For the index of each token that opens something, the index that closes it."""
    following: dict[str, int] = {}
    unmatched_ends: list[int] = []
    closing = {}
    for index in reversed(range(len(tokens))):
        token = tokens[index]
        if token == r"\end{":
            unmatched_ends.append(index)
        elif token == r"\begin{" and unmatched_ends:
            closing[index] = unmatched_ends.pop()
        elif CLOSERS.get(token) in following:
            closing[index] = following[CLOSERS[token]]
        following[token] = index
    return closing
