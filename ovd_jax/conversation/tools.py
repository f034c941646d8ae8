"""How the slow calls of conversations are carried out, many at a time."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from ovd_jax.conversation.env import Call, Conversation, Env, Observation
from ovd_jax.errors import EnvError, UserError
from ovd_jax.threads import Background, DaemonThreads


class Tools(Protocol):
    """Starts calls, and gives what they brought when somebody needs it.

    Several processes see those of the first one (`SharedCalls`): what is returned is of
    plain values.
    """

    def start(self, calls: Sequence[tuple[tuple, Call, Conversation]]) -> None:
        """Starts each (key, call, conversation); a key must not be under way."""
        ...

    def take(self, keys: Sequence[tuple]) -> list[tuple]:
        """What each call brought, as the fields of an `Observation`."""
        ...

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error`, now and from now on, rather than wait for a call.
        Safe to call from another thread."""
        ...

    def begin(self, step: int) -> None:
        """What is called from now on belongs to this step of training."""
        ...

    def metrics(self) -> dict[str, float]:
        """Counts and costs since the last call."""
        ...


class ThreadTools:
    """Runs `env.call` in threads, so that what is computed meanwhile hides it."""

    def __init__(self, env: Env, threads: DaemonThreads):
        self._env = env
        self._calls = Background(threads)
        self._counts: Counter = Counter()

    def start(self, calls: Sequence[tuple[tuple, Call, Conversation]]) -> None:
        """Starts each (key, call, conversation)."""
        if calls and not hasattr(self._env, "call"):
            raise UserError(
                f"{type(self._env).__name__}.step returned a Call, but the class has "
                "no `call`: see ovd_jax/conversation/env.py."
            )
        for key, call, conversation in calls:
            self._calls.start(key, functools.partial(self._run, call, conversation))
        self._counts.update(calls=len(calls))

    def take(self, keys: Sequence[tuple]) -> list[tuple]:
        """What each call brought, as the fields of an `Observation`. Raises EnvError
        where one raised."""
        return [
            (found.text, found.valid, found.documents)
            for found in self._calls.take(keys)
        ]

    def end(self, error: BaseException) -> None:
        """Has `take` raise `error` rather than wait."""
        self._calls.end(error)

    def begin(self, step: int) -> None:
        """Told to an environment that wants to know."""
        if begin := getattr(self._env, "begin", None):
            begin(step)

    def metrics(self) -> dict[str, float]:
        """How many calls were started, the seconds for which nothing but one was waited
        for, and the environment's own metrics, since the last call."""
        counts, self._counts = self._counts, Counter()
        own = {
            "tool_calls_started": float(counts["calls"]),
            "seconds_tool_waited": self._calls.seconds_waited(),
        }
        metrics = getattr(self._env, "metrics", dict)
        return own | metrics()

    def _run(self, call: Call, conversation: Conversation) -> Observation:
        found = guarded(self._env, "call", call.query, conversation)
        if not isinstance(found, Observation):
            raise UserError(
                f"{type(self._env).__name__}.call returned {found!r}; return an "
                "Observation."
            )
        return found


def guarded(env: Env, method: str, asked: object, *args: Any) -> Any:
    """`env.method(asked, *args)`. Raises EnvError where that raises."""
    try:
        return getattr(env, method)(asked, *args)
    except (UserError, EnvError):
        raise
    except Exception as error:
        shown = repr(asked)
        raise EnvError(
            f"{type(env).__name__}.{method} raised {type(error).__name__}: {error} "
            f"(on {shown if len(shown) <= 200 else shown[:200] + '...'}); an "
            "environment has an answer to anything."
        ) from error
