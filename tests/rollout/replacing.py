"""A problem, its solutions, and short ways to collect its rollouts."""

from fakes import (
    FakeStudent,
    collector,
    problem,
)

QUESTION = "((3+4)*2)-5"


PROBLEM = problem(QUESTION, "9")


FIRST, SECOND, LAST = "(7*2)-5\n", "14-5\n", "#### 9"


RIGHT = FIRST + SECOND + LAST


SLIP = FIRST + "15-5\n#### 10"  # the second step is wrong by one: a score of 2


def after(prefix: str, solution: str) -> str:
    """What `solution` says after `prefix`, or after as many lines."""
    return "".join(solution.splitlines(keepends=True)[prefix.count("\n") :])


def says(*solutions: str | None):
    """A demonstrator that begins with the first solution and ends with the last."""
    left = list(solutions)

    def demonstrate(request, rng):
        solution = left.pop(0) if len(left) > 1 else left[0]
        return solution and after(request.prefix, solution)

    return demonstrate


def collect(student, teacher, *, seed=0, **changes):
    """The rollouts of one problem; `student` is a `generate`, or a text a sample."""
    if isinstance(student, list):
        texts = student
        student = FakeStudent(lambda prompt, sample, rng: texts[sample])
    options = {"samples": 1} | changes
    (group,) = collector(teacher, **options).collect([PROBLEM], student, seed=seed)
    return group.rollouts


def goes_on_right(prompt, sample, rng):
    """Slips in a new solution, but goes on rightly from another's step."""
    solution = prompt.removeprefix(QUESTION + "=\n")
    return after(solution, RIGHT) if solution else SLIP
