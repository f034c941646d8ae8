"""A search engine as an environment: a turn is a thought, then a query or an answer."""

from collections.abc import Mapping, Sequence

from ovd_jax.conversation.env import Call, Conversation, Done, Observation
from ovd_jax.errors import UserError
from ovd_jax.search.base import Query
from ovd_jax.search.observation import NOTHING_FOUND, WRAPPER, check_message
from ovd_jax.search.pool import SearchBatch, SearchThreads
from ovd_jax.search.tags import ANSWER, SEARCH, contents
from ovd_jax.tasks.base import Problem, Task
from ovd_jax.tasks.grading.qa_metrics import exact_match, f1, retrieval_recall


class SearchEnv:
    """What a turn does by its first closing tag; one that was not opened before, or
    with nothing in it, does nothing and is answered by `correction`."""

    turn_ends: tuple[str, ...] = (f"</{SEARCH}>", f"</{ANSWER}>")
    observation_tags: tuple[str, str] = WRAPPER
    thinks = True  # a thought in its tags is a part of a turn
    graded_whole = True  # the task measures what was found as well
    by_source = ("em", "searches")

    def __init__(self, task: Task, *, correction: str):
        check_message(correction)
        self._task = task
        self.correction = correction
        self.uncut = (correction, NOTHING_FOUND)

    def reset(self, problem: Problem) -> str:
        """The task's prompt, which says how to search."""
        return self._task.prompt(problem)

    def step(self, text: str) -> Observation | Done | Call:
        """The query in the search tag, or the end with an answer tag."""
        found = [(text.find(tag), tag) for tag in self.turn_ends if tag in text]
        if found:
            end, tag = min(found)
            is_search = tag == self.turn_ends[0]
            name = SEARCH if is_search else ANSWER
            (inside, *_) = contents(text[: end + len(tag)], name) or ("",)
            if inside:
                return Call(inside) if is_search else Done()
        return Observation(self.correction, valid=False)

    def measure(
        self, problem: Problem, turns: Sequence[str], observations: Sequence[str]
    ) -> Mapping[str, float]:
        """Of one conversation; `retrieval_recall` is whether a gold answer was read."""
        steps = [self.step(turn) for turn in turns]
        ends = [t for t, x in zip(turns, steps, strict=True) if isinstance(x, Done)]
        answer = contents(ends[0], ANSWER)[0] if ends else None
        return {
            "em": exact_match(answer, problem.golds),
            "f1": f1(answer, problem.golds),
            "retrieval_recall": retrieval_recall(observations, problem.golds),
            "searches": float(sum(isinstance(step, Call) for step in steps)),
        }


class SearchTools:
    """Carries out the calls of a `SearchEnv` with the engine in `pool`.

    `with_golds` shows a simulator the question and its gold answers: for training, and
    for nothing else.
    """

    def __init__(self, pool: SearchThreads | SearchBatch, *, with_golds: bool):
        self.pool = pool
        self._with_golds = with_golds

    def start(self, calls: Sequence[tuple[tuple, Call, Conversation]]) -> None:
        """Starts the search of each (key, call, conversation)."""
        self.pool.start(
            [
                (key, self._query(call.query, conversation.problem), conversation.seed)
                for key, call, conversation in calls
            ]
        )

    def take(self, keys: Sequence[tuple]) -> list[tuple]:
        """What was found under each key, as the fields of an Observation."""
        return [("", True, documents) for documents in self.pool.take(keys)]

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error` rather than wait."""
        self.pool.end(error)

    def begin(self, step: int) -> None:
        """Tells a simulated engine how far the training is."""
        self.pool.begin(step)

    def metrics(self) -> dict[str, float]:
        """What searches cost since the last call."""
        return self.pool.metrics()

    def _query(self, text: str, problem: Problem | None) -> Query:
        if not self._with_golds:
            return Query(text)
        if problem is None:
            raise UserError("A simulator in training needs the problems.")
        return Query(text, problem.question, problem.golds)
