"""The distribution of a model's next word over a few labels, such as scores 0-9."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovd_jax.errors import UserError
from ovd_jax.models.sharding import fetch, row_shards
from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling.decoder import next_logits
from ovd_jax.sampling.prefix_tree import grow, to_arrays
from ovd_jax.shapes import round_up


def label_probabilities(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    rows: int = 64,
) -> np.ndarray:
    """P(label | prompt), [prompts, labels] float64; rows sum to 1 or less.

    A label of several tokens costs one more pass for each of its prefixes: with labels
    "1" and "10", P("10") = P("1") P("0" | "1") and P("1") = P("1") (1 - P("0" | "1")).
    Common beginnings are computed once, `rows` sequences at a time.
    """
    labels = [tuple(label) for label in labels]
    if not labels or len(set(labels)) != len(labels) or not all(labels):
        raise UserError(f"Labels must be distinct and not empty, got {labels}.")
    if not all(map(len, prompts)):
        raise UserError("A prompt is empty; give it at least a start token.")
    longest = max(map(len, prompts), default=0) + max(map(len, labels))
    model.config.check_length(longest, "A prompt with a label")
    model.config.check_tokens(map(max, [*prompts, *labels]), "A prompt or a label")
    mass: dict[tuple[int, ...], np.ndarray] = {(): np.ones(len(prompts))}
    for prefix in sorted(inner_prefixes(labels), key=len):
        nexts = sorted(
            {label[len(prefix)] for label in labels if goes_on(label, prefix)}
        )
        extended = [[*prompt, *prefix] for prompt in prompts]
        probs = next_probabilities(model, extended, nexts, rows=rows)
        for column, token in enumerate(nexts):
            mass[*prefix, token] = mass[prefix] * probs[:, column]
        mass[prefix] = mass[prefix] * np.maximum(1 - probs.sum(1), 0)
    return np.stack([mass[label] for label in labels], axis=1)


def inner_prefixes(labels: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """All proper prefixes of the labels."""
    return {label[:length] for label in labels for length in range(len(label))}


def goes_on(label: tuple[int, ...], prefix: tuple[int, ...]) -> bool:
    """True if `prefix` is a proper prefix of `label`."""
    return len(label) > len(prefix) and label[: len(prefix)] == prefix


def next_probabilities(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    *,
    rows: int,
) -> np.ndarray:
    """Softmax over the whole vocabulary, read at `token_ids`: [prompts, ids] float64.

    Common beginnings are computed once, `rows` sequences at a time.
    """
    rows = round_up(rows, row_shards())
    trees = sorted(grow(prompts), key=lambda tree: len(tree.tokens))
    result = np.zeros((len(prompts), len(token_ids)))
    for start in range(0, len(trees), rows):
        part = trees[start : start + rows]
        tokens, layout, ends = to_arrays(part, rows)
        probs = fetch(
            _probabilities_at(model, tokens, layout, ends, np.asarray(token_ids))
        )
        for row, tree in enumerate(part):
            for column, (index, _) in enumerate(tree.ends):
                result[index] = probs[row, column]
    return result


@jax.jit
def _probabilities_at(model, tokens_BT, layout, ends_BP, token_ids):
    hidden_BTD = model.hidden(tokens_BT, layout)
    hidden_BPD = jnp.take_along_axis(hidden_BTD, ends_BP[:, :, None], axis=1)
    hidden_MD = hidden_BPD.reshape(-1, hidden_BPD.shape[-1])
    logits_MV = next_logits(hidden_MD, model.head_VD)
    return jax.nn.softmax(logits_MV)[:, token_ids].reshape(*ends_BP.shape, -1)
