"""Mathematics with a final answer: GSM8K, MATH and similar data."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from ovd_jax.errors import UserError
from ovd_jax.tasks.base import Grade, Problem
from ovd_jax.tasks.data.dataset import Dataset, DatasetTask
from ovd_jax.tasks.data.rows import keep_good, load_problems
from ovd_jax.tasks.data.sets import MATH_SETS
from ovd_jax.tasks.grading.equality import TOLERANCE, choice_letter
from ovd_jax.tasks.grading.extract import extract_answer, last_line
from ovd_jax.tasks.grading.grader import Grader
from ovd_jax.tasks.steps import STOPS, check_rule, step_ends
from ovd_jax.text import (
    Tokenizer,
    chat_prompt,
    check_chat,
    neutralize,
    plain_prompt,
    special_tokens,
)

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclasses.dataclass(frozen=True)
class Template:
    """The form of a prompt."""

    text: str  # around {question}
    chat: bool  # whether `text` is a user's message in the tokenizer's chat template
    # A base model goes on with questions of its own, in the form it was asked in.
    stop_strings: tuple[str, ...] = ()


TEMPLATES = {
    "plain": Template(
        "Question: {question}\nSolution:", chat=False, stop_strings=("\nQuestion:",)
    ),
    "chat": Template("{question}", chat=True),
    # The line of One-Shot-RLVR (arXiv:2504.20571), which the paper's section A.2 shows.
    "qwen_boxed": Template(
        "{question} Let's think step by step and output the final answer within "
        "\\boxed{{}}.",
        chat=False,
    ),
}


class MathTask(DatasetTask):
    """Problems from `data`, asked in a template, paid 1.0 for the right final answer.

    Args:
        data: what `load` takes: a JSONL file, a sample's or a hub name.
            Empty for a task that only evaluates what `load` gives.
        held_out_data: the same, for evaluation. Training problems with a question of
            these are left out. Where it is empty, a tenth of `data`, at most 500
            problems, is held out instead, unless `data` has fewer than 3.
        seed: of the order of the problems, and of which ones are held out.
        template: one of `TEMPLATES`.
        tokenizer: a transformers tokenizer; its special tokens are broken up where a
            question contains them. A chat template is taken from it.
        system: the system message of a chat; "" for templates that know no such role.
        step_rule: how solutions are cut into steps, one of `tasks/steps.py`.
        max_prompt_tokens: training problems with a longer prompt are left out, with a
            warning; 0 keeps all. Needs the tokenizer.
        tolerance: how far a decimal may be from a gold that is no integer, as a share
            of the gold; integers are exact.
        load: `(data, "train" or "eval") -> problems`.
    """

    sources = MATH_SETS

    def __init__(
        self,
        *,
        data: str,
        held_out_data: str = "",
        seed: int,
        template: str = "chat",
        tokenizer: Tokenizer | None = None,
        system: str = SYSTEM,
        step_rule: str = "lines",
        max_prompt_tokens: int = 0,
        tolerance: float = float(TOLERANCE),
        load: Callable = load_problems,
    ):
        if template not in TEMPLATES:
            raise UserError(f"template is {template!r}; use one of {list(TEMPLATES)}.")
        check_rule(step_rule)
        self._step_rule = step_rule
        self.step_stop = STOPS[step_rule]
        self._template = TEMPLATES[template]
        self.stop_strings = self._template.stop_strings
        self._tokenizer = tokenizer
        self._system = system
        self._special_tokens = (
            special_tokens(tokenizer) if tokenizer is not None else ()
        )
        if self._template.chat:
            check_chat(tokenizer, "set prompt_template to 'plain'")
        load = functools.partial(load_checked, load=load)
        self._dataset = Dataset(data, held_out_data, seed=seed, load=load)
        if max_prompt_tokens and tokenizer is not None:
            self._dataset.drop_long(self.prompt, tokenizer, max_prompt_tokens)
        self._grader = Grader(tolerance=tolerance)

    def prompt(self, problem: Problem) -> str:
        """The question in its template, with choices as "(A) ..." lines."""
        question = neutralize(problem.asked, self._special_tokens)
        text = self._template.text.format(question=question)
        if not self._template.chat or self._tokenizer is None:
            return plain_prompt(self._tokenizer, text)
        return chat_prompt(self._tokenizer, text, system=self._system)

    def step_ends(self, text: str) -> tuple[int, ...]:
        """By `step_rule`: see `tasks/steps.py`."""
        return step_ends(text, self._step_rule)

    def extract(self, text: str) -> str | None:
        """The final answer: see `extract_answer`."""
        return extract_answer(text)

    def rewards(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float]:
        """1.0 for each text whose final answer equals the gold answer, else 0.0."""
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """The rewards, with the answers found and the grader's reasons."""
        found = [
            # Of a text such as "B" or "Option B", which is no more than a choice.
            self.extract(text) or (last_line(text) if problem.choices else None)
            for problem, text in zip(problems, texts, strict=True)
        ]
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
    """The (answer, gold) to compare: letters if the answer names a choice."""
    if not answer or not problem.choices:
        return answer or "", problem.answer
    gold = choice_letter(problem.answer, problem.choices)
    if gold is None:  # `load_checked` lets no such problem in
        raise ValueError(f"{problem.answer!r} is none of {problem.choices}")
    if letter := choice_letter(answer, problem.choices):
        return letter, gold
    return answer, problem.choices[ord(gold) - ord("A")]


def load_checked(
    data: str, split: str, *, load: Callable = load_problems
) -> tuple[Problem, ...]:
    """`load`, where an answer to choices must name one of them."""

    def check(problem: Problem) -> None:
        if problem.choices and not choice_letter(problem.answer, problem.choices):
            raise UserError(
                f"{data}: the answer {problem.answer!r} of {problem.id!r} is none of "
                f"its choices {problem.choices}; write a choice or its letter."
            )

    return keep_good(load(data, split), check, data)
