"""What a request without an answer costs, by `teacher.on_failure`."""

from collections.abc import Awaitable, Callable
from typing import Any

from ovd_jax.client.accounting import Accounting
from ovd_jax.client.reminder import Refusals
from ovd_jax.client.replies import Denied, Refused, Unreadable
from ovd_jax.client.served_model import Question
from ovd_jax.errors import TeacherError, UserError

POLICIES = ("wait", "accept", "drop", "fail")


class FailurePolicy:
    """Decides which errors of a server end the program.

    `wait`: requests are repeated forever, which the transport does. `accept` and
    `drop`: a missing answer is passed on as the best score or as None. `fail`: it is a
    TeacherError. A request that the server refuses, such as one over the context
    length, ends the program only by `fail`, or if the server refuses all.
    """

    def __init__(self, on_failure: str, accounting: Accounting):
        if on_failure not in POLICIES:
            raise UserError(
                f"teacher.on_failure {on_failure!r} is not one of "
                f"{', '.join(POLICIES)}."
            )
        self._on_failure = on_failure
        self._accounting = accounting

    async def ask(
        self,
        refusals: Refusals,
        question: Question,
        ask: Callable[..., Awaitable],
        *arguments: Any,
    ) -> Any:
        """Awaits `ask(question, *arguments)`; returns its answer, or its error if the
        policy passes it on."""
        try:
            answer = await ask(question, *arguments)
        except Denied:
            raise
        except TeacherError as error:
            self._accounting.count(unanswered=1)
            hopeless = isinstance(error, Refused | Unreadable)
            passes = self._on_failure in ("accept", "drop") or (
                hopeless and self._on_failure != "fail"
            )
            if not passes:
                raise
            if hopeless:
                refusals.add(question.affinity, error)
            return error
        refusals.answered()
        return answer

    def accepts(self, error: TeacherError) -> bool:
        """True if a trajectory whose scoring ended with this error counts as best."""
        return self._on_failure == "accept" and not isinstance(error, Refused)
