"""The distribution of a model's next word over a few labels, such as scores 0-9."""

from collections.abc import Sequence

import jax
import numpy as np

from ovd_jax.models.transformer import Transformer, empty_cache
from ovd_jax.sampling.decode import next_logits
from ovd_jax.sampling.shapes import left_pad

_MULTIPLE = 16  # prompts are padded to a multiple of this many tokens


def label_probabilities(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    rows: int = 64,
) -> np.ndarray:
    """P(label | prompt), [prompts, labels] float64; what is missing to 1 went
    elsewhere.

    A label of several tokens costs one more pass for each of its prefixes: with labels
    "1" and "10", P("10") = P("1") P("0" | "1") and P("1") = P("1") (1 - P("0" | "1")).
    `rows` prompts are read at a time, the last ones with padding.
    """
    labels = [tuple(label) for label in labels]
    if not labels or len(set(labels)) != len(labels) or not all(labels):
        raise ValueError(f"Labels must be distinct and not empty, got {labels}.")
    if not all(map(len, prompts)):
        raise ValueError("A prompt is empty; give it at least a start token.")
    mass = {(): np.ones(len(prompts))}
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


def inner_prefixes(labels) -> set[tuple[int, ...]]:
    """Everything that some label goes on from."""
    return {label[:length] for label in labels for length in range(len(label))}


def goes_on(label, prefix) -> bool:
    """Whether `label` is longer than `prefix` and begins with it."""
    return len(label) > len(prefix) and label[: len(prefix)] == prefix


def next_probabilities(model, prompts, token_ids, *, rows: int) -> np.ndarray:
    """Softmax over the whole vocabulary, read at `token_ids`: [prompts, ids] float64.

    Prompts are read in order of length, so that short ones are not padded to long ones.
    """
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    result = np.zeros((len(prompts), len(token_ids)))
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        tokens, valid = left_pad([prompts[index] for index in part], rows, _MULTIPLE)
        probs = _last_probabilities(model, tokens, valid, np.asarray(token_ids))
        result[part] = np.asarray(probs)[: len(part)]
    return result


@jax.jit
def _last_probabilities(model, tokens_BT, valid_BT, token_ids):
    cache = empty_cache(model.config, *tokens_BT.shape, model.dtype)
    hidden_BTD, _ = model.extend(tokens_BT, valid_BT, cache)
    return jax.nn.softmax(next_logits(model, hidden_BTD[:, -1]))[:, token_ids]
