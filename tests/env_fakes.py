"""Environments, a task of sums, and conversations with them, for tests."""

import re

import fakes
from search_fakes import RULES, TOKENIZER, Student, encode

from ovd_jax.conversation.calculator import Calculator
from ovd_jax.conversation.collect import ConversationCollector
from ovd_jax.conversation.dialogue import Dialogue, TurnRules
from ovd_jax.conversation.env import Call, Done, Observation
from ovd_jax.conversation.tools import ThreadTools
from ovd_jax.tasks.base import Grade, Problem
from ovd_jax.threads import DaemonThreads

CALL = "<tool>{}</tool>"  # turns
SUM = "<calculator>{}</calculator>"
THREADS = DaemonThreads(4)


class Sums:
    """A task whose reward is 1 where the last number of a text is the answer."""

    stop_strings = ()
    step_stop = ""

    def prompt(self, problem):
        return f"Q: {problem.question}\n"

    def extract(self, text):
        return next(reversed(re.findall(r"\d+", text)), None)

    def rewards(self, problems, texts):
        return [grade.reward for grade in self.grade(problems, texts)]

    def grade(self, problems, texts):
        found = map(self.extract, texts)
        return [
            Grade(float(x == p.answer), x, "test")
            for x, p in zip(found, problems, strict=True)
        ]


class Tool:
    """Answers what stands in the tool tag by `answer(query)`; else a turn is the
    last."""

    turn_ends = ("</tool>",)
    observation_tags = ("\n<out>", "</out>\n")

    def __init__(self, answer=lambda query: f"about {query}"):
        self.answer = answer

    def reset(self, problem):
        return f"Q: {problem.question}\n"

    def step(self, text):
        inside, closed, _ = text.partition("</tool>")
        return self.told(inside.rpartition("<tool>")[2]) if closed else Done()

    def told(self, query):
        return Observation(self.answer(query))


class SlowTool(Tool):
    """The same in threads; `answer(query, conversation)`."""

    def told(self, query):
        return Call(query)

    def call(self, query, conversation):
        return Observation(self.answer(query, conversation))


def dialogue(env, *, refine=None, **changes) -> Dialogue:
    return Dialogue(
        env, ThreadTools(env, THREADS), rules=TurnRules(**vars(RULES) | changes),
        tokenizer=TOKENIZER, refine=refine,
    )  # fmt: skip


def collector(teacher, talk: Dialogue, **changes) -> ConversationCollector:
    fields = {"replacement": "step", "granularity": "step"} | changes
    return ConversationCollector(
        dialogue=talk, task=Sums(), teacher=teacher, tokenizer=TOKENIZER,
        rules=fakes.rules(**fields),
    )  # fmt: skip


def problem(question="3+4?", answer="7") -> Problem:
    return Problem(question, question, answer, "hand")


def calculator():
    return Calculator(Sums())


def converse(env, write, *, samples=1, problems=None, rules=None, **options):
    """The completions of a student in `env`, in one list."""
    problems = problems or [problem()]
    groups = dialogue(env, **rules or {}).generate(
        Student(write), [encode(env.reset(p)) for p in problems], seed=0,
        samples=samples, problems=problems, **options,
    )  # fmt: skip
    return [completion for group in groups for completion in group]


def collect(env, write, teacher=None, *, rules=None, **changes):
    """The group of one problem."""
    teacher = teacher or fakes.FakeTeacher(lambda request, rng: 9)
    made = collector(teacher, dialogue(env, **rules or {}), **changes)
    (group,) = made.collect([problem()], Student(write), seed=1)
    return group
