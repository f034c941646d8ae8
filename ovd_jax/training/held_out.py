"""Accuracy on held-out problems during training."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from ovd_jax.conversation.collect import solve
from ovd_jax.conversation.dialogue import Dialogue
from ovd_jax.evaluation.attempts import Direct, evaluate
from ovd_jax.evaluation.conversing import Conversing
from ovd_jax.evaluation.measures import accuracy, grade_metrics
from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.seeds import derive
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.teacher.base import DemonstrationRequest, Teacher
from ovd_jax.text import Tokenizer
from ovd_jax.training.prefetch import LockedSampler


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Evaluates student and teacher on the task's held-out problems."""

    task: Task
    tokenizer: Tokenizer
    sampler: Sampler | LockedSampler  # locked while a thread collects rollouts
    make_dialogue: Callable[[], Dialogue | None]  # None in a single turn
    problems: int
    samples: int  # a problem
    rows: int  # problems sampled at a time
    greedy: bool
    seed: int

    def measure(self, model: Transformer) -> dict[str, float]:
        """The student's accuracy, the task's own metrics and the costs of searches, all
        named `eval_...`."""
        dialogue = self.make_dialogue()
        solver = (
            functools.partial(Conversing, dialogue=dialogue) if dialogue else Direct
        )
        results = evaluate(
            self._problems(),
            task=self.task,
            solver=solver(
                functools.partial(self.sampler.stream, model),
                tokenizer=self.tokenizer,
                rows=self.rows,
                identity={},
                greedy=self.greedy,
            ),
            tokenizer=self.tokenizer,
            samples=self.samples,
            seed=self.seed,
        )
        row = {"accuracy": accuracy(results)} | grade_metrics(results)
        row |= dialogue.metrics() if dialogue is not None else {}
        return {f"eval_{name}": value for name, value in row.items()}

    def teacher_accuracy(self, teacher: Teacher) -> float:
        """The accuracy of the teacher's demonstrations, as the student would get
        them."""
        problems = self._problems()
        seed = derive(self.seed, "teacher accuracy")
        if (dialogue := self.make_dialogue()) is not None:
            texts = solve(teacher, dialogue, problems, seed=seed)
        else:
            requests = [DemonstrationRequest(problem.asked, "") for problem in problems]
            texts = teacher.demonstrate(requests, seed=seed)
        texts = [text or "" for text in texts]
        return float(np.mean(self.task.rewards(list(problems), texts)))

    def _problems(self) -> Sequence[Problem]:
        return self.task.held_out(self.problems)
