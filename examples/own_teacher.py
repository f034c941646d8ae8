"""A teacher of your own: a calculator, which judges arithmetic without a mistake.

python launch/train.py --config=quickstart \
    --config.teacher.model=examples/own_teacher.py:Calculator
"""

from ovd_jax.tasks.arithmetic import evaluate, solve
from ovd_jax.teacher.base import Score


class Calculator:
    """See `Teacher` in ovd_jax/teacher/base.py for what each member is for."""

    levels = 10  # scores are 0 to 9

    def __init__(self, config):
        self._asked = 0

    def score(self, requests, *, seed, request_keys=None):
        """9 where no line changes the value of the one before it, else 0."""
        self._asked += len(requests)
        return [certain(9 if self._is_right(x) else 0) for x in requests]

    def demonstrate(self, requests, *, seed, request_keys=None):
        """The lines from the prefix to the answer; None where it leads nowhere."""
        self._asked += len(requests)
        return [self._rest(request) for request in requests]

    def feedback(self, requests, *, seed):
        """In words, what is wrong."""
        return ["A line has another value than the one before it." for _ in requests]

    def metrics(self):
        """What was asked since the last call."""
        asked, self._asked = self._asked, 0
        return {"teacher_requests": asked}

    def _is_right(self, request):
        written = request.text.strip().split("\n")
        lines = [request.question, *request.previous.split(), *written]
        start = 0 if request.whole else -len(written) - 1
        values = [evaluate(line) for line in lines[start:]]
        return None not in values and len({value for value, _ in values}) == 1

    def _rest(self, request):
        last = (request.prefix.split("\n")[:-1] or [request.question])[-1]
        if evaluate(last) is None:
            return None
        rest = "\n".join(solve(last.strip()))
        return rest.partition("\n")[0] + "\n" if request.stop in rest[1:] else rest


def certain(level):
    """A score that is drawn from nothing."""
    probs = [0.0] * 10
    probs[level] = 1.0
    return Score(float(level), tuple(probs), outside=0.0)
