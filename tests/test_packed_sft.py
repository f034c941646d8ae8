"""Examples that share rows are learned from as if each had its own."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import TOKENIZER

import configs.sft
from ovd_jax import sft
from ovd_jax.errors import UserError
from ovd_jax.learning.update import imitation_objective
from ovd_jax.tasks.data.examples import Branch, Example
from ovd_jax.toy import tokenizers

ROOT = Path(__file__).parents[1]
SHAPE = tokenizers.SIZES["student"](len(TOKENIZER))
EXAMPLES = [
    Example((("1+2=\n", 0.0), ("3", 1.0))),
    Example((("(4+5)*2=\n", 0.0), ("9*2\n", 1.0), ("18", 1.0))),
    Example((("7-3=\n", 0.0), ("4", 1.0))),
    Example((("2*3+1=\n", 0.0), ("6+1\n7", 1.0))),
]
BRANCHED = Example((("1+1=\n", 0.0), ("2", 1.0)), branches=(Branch(1, (("3", 1.0),)),))


def encoded(examples):
    return [sft.encode(TOKENIZER, example) for example in examples]


def loss_and_grads(model, rows, limit, *, full):
    part = jax.tree.map(jnp.asarray, sft.pad_rows(rows, limit, full=full))

    def loss(model):
        return imitation_objective(model, part, chunk=16, remat="none")[0]

    return jax.value_and_grad(loss)(model)


@pytest.mark.slow
def test_packed_examples_give_the_same_loss_and_gradients(model):
    rows = sft.packed(encoded(EXAMPLES), 24)
    assert len(rows) < len(EXAMPLES)
    together = loss_and_grads(model, rows, 24, full=True)
    apart = loss_and_grads(model, encoded(EXAMPLES), 24, full=False)
    np.testing.assert_allclose(together[0], apart[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        together[1], apart[1],
    )  # fmt: skip


def test_prompts_are_not_trained_on_packed_or_not():
    trained = []
    for rows in (sft.packed(encoded(EXAMPLES), 24), encoded(EXAMPLES)):
        counted = sorted(t for row in rows for t, weight, *_ in row if weight)
        trained.append(counted)
    assert trained[0] == trained[1]
    words = TOKENIZER.decode(trained[0])
    assert "=" not in words


def test_no_row_is_longer_than_the_limit_and_no_token_is_lost():
    for limit in (16, 24, 40, 100):
        rows = sft.packed(encoded(EXAMPLES), limit)
        assert all(len(row) <= limit for row in rows)
        assert sum(map(len, rows)) == sum(map(len, encoded(EXAMPLES)))


def test_an_example_with_branches_has_a_row_of_its_own():
    rows = sft.packed(encoded([*EXAMPLES, BRANCHED]), 100)
    (alone,) = encoded([BRANCHED])
    assert len(rows) == 2
    assert list(alone) in rows


def test_a_first_token_is_not_learned_from_the_example_before_it():
    whole = [Example((("1+2=3", 1.0),)), Example((("4", 1.0),))]
    (row,) = sft.packed(encoded(whole), 40)
    first = [weight for _, weight, position, *_ in row if position == 0]
    assert first[1:] == [0.0]


def test_an_example_over_the_limit_is_refused():
    rows = sft.packed(encoded(EXAMPLES), 8)
    with pytest.raises(ValueError, match=r"over config.max_tokens=8"):
        sft.pad_rows(rows, 8, full=True)


def test_a_batch_is_a_function_of_its_step_alone():
    """What was drawn for a window is kept; a run that goes on from any step sees the
    batches of one that never stopped."""
    config = configs.sft.get_config()
    config.batch_size, config.sort_window = 3, 4
    draws = []

    def examples(window, count):
        draws.append(window)
        rng = np.random.default_rng(window)
        numbers = rng.integers(1, 10**6, (count, 2))
        return [Example(((f"{a}+{b}=\n", 0.0), (str(a + b), 1.0))) for a, b in numbers]

    batches = sft.batch_source(config, TOKENIZER, examples, SHAPE)
    in_order = [batches(step) for step in range(8)]
    assert draws == [0, 1]
    for step in (6, 1, 5):
        fresh = sft.batch_source(config, TOKENIZER, examples, SHAPE)(step)
        for again in (fresh, batches(step)):
            chex.assert_trees_all_equal(again, in_order[step])
    rows = {row.tobytes() for tokens, *_ in in_order for row in tokens}
    assert len(rows) == 8 * config.batch_size


def test_a_task_without_examples_needs_a_file():
    config = configs.sft.get_config()
    config.task = f"{ROOT / 'examples' / 'own_task.py'}:Sums"
    with pytest.raises(UserError, match=r"own_task\.py.* no examples.* config\.data"):
        sft.example_source(config)
