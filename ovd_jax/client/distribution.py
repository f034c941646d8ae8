"""The exact probability of each label as an answer, from lists of likeliest tokens.

Servers show only the likeliest tokens (usually 20), so a label may be missing. An
answer constrained to the labels shows them all, but relative to one another. A token in
both answers gives the scale.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

# (text after the prompt, continuations allowed or None) -> next tokens: probability
NextTokens = Callable[[str, tuple[str, ...] | None], Awaitable[Mapping[str, float]]]

_NEGLIGIBLE = 1e-9  # beginnings less likely than this are not followed


class LabelReader:
    """Reads the distribution over `labels`, which may be several tokens long."""

    def __init__(self, labels: Sequence[str], *, constrained: bool):
        self._labels = tuple(labels)
        self._constrained = constrained  # True if the server can constrain answers
        # The tokens that continue each beginning of a label. Single characters are
        # tokens; otherwise constrained answers show them.
        self._tokens: dict[str, frozenset[str]] = {}

    async def masses(self, next_tokens: NextTokens) -> list[float]:
        """P(label) for each label; they sum to 1 or less.

        If one label begins another, the shorter one gets the probability that does not
        continue to the longer: P("1") = P(1) (1 - P(0 | 1)) if there is a label "10".
        """
        reached = {"": 1.0}  # the probability of each beginning
        masses = dict.fromkeys(self._labels, 0.0)
        while reached:
            prefix = min(reached, key=len)
            share = reached.pop(prefix)
            rests = [
                label[len(prefix) :]
                for label in self._labels
                if label.startswith(prefix) and label != prefix
            ]
            onward = {}
            if rests and share > _NEGLIGIBLE:
                onward = await self._onward(prefix, rests, next_tokens)
            for token, probability in onward.items():
                longer = prefix + token
                reached[longer] = reached.get(longer, 0.0) + share * probability
            if prefix in masses:
                masses[prefix] += share * max(0.0, 1 - sum(onward.values()))
        return list(masses.values())

    async def _onward(
        self, prefix: str, rests: Sequence[str], next_tokens: NextTokens
    ) -> dict[str, float]:
        """Probabilities of the tokens after `prefix` that begin a rest."""
        free = await next_tokens(prefix, None)
        found = leading(free, rests)
        if all(len(rest) == 1 for rest in rests):
            self._tokens.setdefault(prefix, frozenset(rests))
        if not self._constrained or self._tokens.get(prefix, {None}) <= found.keys():
            return found
        # A token in both answers, which gives the scale.
        plain = [token for token in free if token.isalnum()]
        anchor = max(found or plain, key=lambda token: free[token], default=None)
        allowed = rests if found or anchor is None else [*rests, anchor]
        relative = await next_tokens(prefix, tuple(allowed))
        shown = leading(relative, rests)
        self._tokens[prefix] = frozenset(shown)
        if anchor is not None and relative.get(anchor):
            scale = free[anchor] / relative[anchor]
        else:  # none is likelier than the last token shown
            scale = min(free.values()) / max(relative.values())
        return {token: scale * p for token, p in shown.items()} | found


def leading(tokens: Mapping[str, float], rests: Sequence[str]) -> dict[str, float]:
    """The `tokens` that begin one of the rests."""
    return {
        token: p
        for token, p in tokens.items()
        if token and any(rest.startswith(token) for rest in rests)
    }
