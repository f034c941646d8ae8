"""How requests are written for servers that refuse some of the usual fields."""

import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ovd_jax.client.replies import Refused, Reply
from ovd_jax.errors import TeacherError

_BUDGET, _NEW_BUDGET = "max_tokens", "max_completion_tokens"
FIELDS = (_BUDGET, "temperature", "seed", "stop")  # that may be renamed or left out


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What is changed in each request; nothing at first."""

    renames_budget: bool = False  # max_tokens is called max_completion_tokens
    without: frozenset[str] = frozenset()  # fields that are left out
    temperatures: frozenset[float] = frozenset()  # these alone are left out

    def spoken(self, body: Mapping) -> dict:
        """The request as this server takes it."""
        kept = {k: v for k, v in body.items() if k not in self.without}
        if kept.get("temperature") in self.temperatures:
            del kept["temperature"]
        if self.renames_budget and _BUDGET in kept:
            kept[_NEW_BUDGET] = kept.pop(_BUDGET)
        return kept

    def changed(self, field: str, body: Mapping) -> "Dialect":
        """The dialect that also spares the server `field` of `body`."""
        if field == _BUDGET:
            return dataclasses.replace(self, renames_budget=True)
        if field == "temperature":
            spared = self.temperatures | {body["temperature"]}
            return dataclasses.replace(self, temperatures=spared)
        return dataclasses.replace(self, without=self.without | {field})

    def __str__(self) -> str:
        """What is changed, for the user."""
        changes = []
        if self.renames_budget:
            changes.append(f"{_BUDGET} is sent as {_NEW_BUDGET}")
        if self.temperatures:
            values = ", ".join(f"{value:g}" for value in sorted(self.temperatures))
            changes.append(
                f"temperature {values} is left out (the server draws at its own, which "
                "is 1 as a rule)"
            )
        if "seed" in self.without:
            changes.append("seed is left out (its draws cannot be repeated)")
        if "stop" in self.without:
            changes.append("stop is left out (its texts are cut here)")
        return "; ".join(changes)


async def learn(
    dialect: Dialect,
    body: Mapping,
    ask: Callable[[Mapping], Awaitable[Reply]],
    fields: Sequence[str] = FIELDS,
) -> tuple[Dialect, Reply]:
    """The dialect, with the fewest changes to `dialect`, in which the server takes
    `body`, and its reply; only `fields` may change. Raises TeacherError, with the first
    refusal, where there is none."""
    try:
        return dialect, await ask(dialect.spoken(body))
    except Refused as error:
        refusal = error
    # A field that the refusal names is the first to be tried.
    fields = sorted(
        (field for field in fields if field in dialect.spoken(body)),
        key=lambda field: field not in str(refusal),
    )
    for count in range(1, len(fields) + 1):
        for together in itertools.combinations(fields, count):
            tried = dialect
            for field in together:
                tried = tried.changed(field, body)
            try:
                return tried, await ask(tried.spoken(body))
            except Refused:
                continue
    raise TeacherError(
        f"{refusal} (to a request with {', '.join(sorted(body))} as this run makes "
        "them; no renaming or leaving out of its fields helps)"
    )
