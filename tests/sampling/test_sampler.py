"""The sampler: what it returns, what it may not depend on, and what it draws from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_cases import NEW_TOKENS, PROMPTS, Letters, forward, sample, tokens_of

from ovd_jax.sampling import batch
from ovd_jax.sampling.sampler import Sampler
from ovd_jax.shapes import compact


@pytest.fixture(scope="module")
def free(model):
    """Completions that nothing stops, in temperature 1."""
    return sample(model)


def assert_same_samples(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert [c.tokens for c in one] == [c.tokens for c in other]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def assert_logprobs_are_those_of_a_forward_pass(model, temperature):
    groups = sample(model, temperature=temperature)
    rows = [
        (*prompt, *completion.tokens)
        for prompt, group in zip(PROMPTS, groups, strict=True)
        for completion in group
    ]
    tokens_BT = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in enumerate(rows):
        tokens_BT[row, : len(tokens)] = tokens
    logprobs_BTV = jax.nn.log_softmax(forward(model, tokens_BT) / (temperature or 1.0))
    before_BTV, next_BT1 = logprobs_BTV[:, :-1], tokens_BT[:, 1:, None]
    logprobs_BT = jnp.take_along_axis(before_BTV, next_BT1, axis=-1)[..., 0]
    for row, completion in enumerate(c for group in groups for c in group):
        end = len(rows[row])
        expected = logprobs_BT[row, end - NEW_TOKENS - 1 : end - 1]
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
        assert np.std(expected) > 0.3 or temperature == 0


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
def test_logprobs_are_those_of_a_forward_pass(temperature, model):
    """Greedy completions carry log-probabilities at temperature 1."""
    assert_logprobs_are_those_of_a_forward_pass(model, temperature)


def test_logprobs_are_those_of_a_forward_pass_of_qwen3(config, make_model):
    qwen3 = dataclasses.replace(config, qkv_bias=False, qk_norm=True, head_dim=10)
    assert_logprobs_are_those_of_a_forward_pass(make_model(qwen3), 1.0)


def test_greedy_takes_the_argmax_of_a_full_forward(model):
    for prompt, group in zip(PROMPTS, sample(model, temperature=0.0), strict=True):
        tokens_1T = np.zeros((1, 32), np.int32)
        tokens_1T[0, : len(prompt)] = prompt
        for t in range(len(prompt), len(prompt) + NEW_TOKENS):
            tokens_1T[0, t] = np.argmax(forward(model, tokens_1T)[0, t - 1])
        expected = tuple(tokens_1T[0, len(prompt) : len(prompt) + NEW_TOKENS].tolist())
        assert [completion.tokens for completion in group] == [expected] * 2


def test_a_seed_fixes_the_samples_and_another_changes_them(model, free):
    assert_same_samples(sample(model, seed=0), free)
    assert not set(tokens_of(sample(model, seed=1))) & set(tokens_of(free))


def test_the_samples_of_a_prompt_differ(model, free):
    assert len(set(tokens_of(free))) == len(tokens_of(free))
    repeated = sample(model, [PROMPTS[2]] * 3)
    assert len(set(tokens_of(repeated))) == 6


def test_a_number_of_its_own_makes_a_row_s_draw_independent_of_its_place(model, free):
    """Row i is drawn from i where it is not said from what."""
    turned = [
        [completion.tokens for completion in reversed(group)]
        for group in reversed(free)
    ]
    found = sample(model, PROMPTS[::-1], draws=[[5, 4], [3, 2], [1, 0]], min_rows=8)
    assert [[c.tokens for c in group] for group in found] == turned
    (alone,) = sample(model, PROMPTS[1:2], draws=[[2]], samples=1)
    assert alone[0].tokens == free[1][0].tokens


@pytest.mark.parametrize("prompt_multiple", [8, 64])
def test_other_prompts_and_padding_change_no_sample(prompt_multiple, model, free):
    """`free` had a longer prompt in the batch, and one row more to fill it up."""
    alone = sample(model, PROMPTS[:1], prompt_multiple=prompt_multiple)
    assert_same_samples(alone, free[:1])


def test_a_smaller_budget_only_cuts(model, free):
    limits = (5, 1, 100)
    groups = sample(model, limits=limits)
    for group, whole, limit in zip(groups, free, limits, strict=True):
        assert [c.tokens for c in group] == [c.tokens[:limit] for c in whole]
        assert not any(c.stopped for c in group)
    assert {len(c.tokens) for c in groups[2]} == {NEW_TOKENS}
    assert tokens_of(sample(model, limits=(0, 2, 0)))[:3] == [
        (), (), free[1][0].tokens[:2]
    ]  # fmt: skip


@pytest.mark.parametrize("position", [6, NEW_TOKENS - 1])
def test_a_stop_id_ends_its_row_and_stays_in_it(position, model, free):
    """Other values of the same shape must not meet a program traced for the first."""
    stop = free[1][0].tokens[position]
    unused = next(t for t in range(26) if t not in free[1][0].tokens)
    cut = tokens_of(sample(model, stop_ids=(stop, 25)))
    kept = tokens_of(sample(model, stop_ids=(unused, unused)))
    for row, whole in enumerate(tokens_of(free)):
        assert cut[row] == until_first(whole, {stop, 25})
        assert kept[row] == until_first(whole, {unused})
    assert cut[2][-1] == stop
    assert kept[2] == free[1][0].tokens


def until_first(tokens, stops):
    ends = [index + 1 for index, token in enumerate(tokens) if token in stops]
    return tokens[: ends[0]] if ends else tokens


def test_a_stop_id_as_the_last_allowed_token_counts_as_stopped(model, free):
    tokens = free[0][0].tokens
    position = tokens.index(tokens[4])
    groups = sample(model, stop_ids=(tokens[4],), limits=(position + 1,) * 3)
    assert groups[0][0].stopped
    assert groups[0][0].tokens == tokens[: position + 1]
    stopped = [c.tokens[-1] == tokens[4] for group in groups for c in group]
    assert [c.stopped for group in groups for c in group] == stopped
    assert not all(stopped)


def stop_at_text(model, free, stop, **options):
    """Samples with a stop string, and where each row should end, found naively."""
    groups = sample(model, stop_strings=(stop, "never said"), **options)
    decode = Letters().decode
    ends = [
        next((n for n in range(len(t) + 1) if stop in decode(t[:n])), None)
        for t in tokens_of(free)
    ]
    return [c for group in groups for c in group], ends


@pytest.mark.parametrize(("first", "last"), [(4, 4), (3, 5), (14, 17)])
def test_a_stop_string_ends_a_row_at_the_token_that_completes_it(
    first, last, model, free
):
    """One of several tokens begins and ends inside a token; the last of the three
    spans two decoding strides."""
    row = 3
    text = Letters().decode(tokens_of(free)[row][first : last + 1])
    stop = text[1:-1] if last > first else text
    completions, ends = stop_at_text(model, free, stop)
    assert ends[row] is not None
    assert ends[row] <= last + 1
    for completion, whole, end in zip(completions, tokens_of(free), ends, strict=True):
        assert completion.tokens == whole[:end]
        assert len(completion.logprobs) == len(completion.tokens)
        assert completion.stopped == (end is not None)
    assert len(set(ends)) > 1


def test_a_stop_string_completed_by_the_last_allowed_token_counts_as_stopped(
    model, free
):
    stop = Letters().decode(tokens_of(free)[0][3:6])
    completions, ends = stop_at_text(model, free, stop, limits=(6, 6, 6))
    assert ends[0] == 6
    assert completions[0].stopped
    assert completions[0].tokens == tokens_of(free)[0][:6]
    assert not completions[5].stopped


def test_the_filling_after_a_finished_row_is_no_text(model, free):
    """It is token 0, which says "aA"."""
    limits = (4, 4, 4)
    completions, _ = stop_at_text(model, free, "aA" * 5, limits=limits)
    assert [c.tokens for c in completions] == [t[:4] for t in tokens_of(free)]
    assert not any(c.stopped for c in completions)


@pytest.mark.slow
@pytest.mark.parametrize("min_rows", [1, 4])
def test_rows_that_leave_and_room_that_grows_change_no_sample(
    min_rows, model, monkeypatch
):
    """16 rows that end between tokens 1 and 40, looked at every 3 tokens, and room
    that begins with 4 tokens."""
    options = dict(samples=4, max_new_tokens=40, stop_ids=(1, 12))
    expected = sample(model, **options, min_rows=64)
    monkeypatch.setattr(batch, "_POLL_EVERY", 3)
    monkeypatch.setattr(batch, "_MIN_SLOTS", 4)
    grids = []
    original = batch.regroup

    def regroup(state, cells_PG, *, slots):
        grids.append((*cells_PG.shape, slots))
        return original(state, cells_PG, slots=slots)

    monkeypatch.setattr(batch, "regroup", regroup)
    assert_same_samples(sample(model, **options, min_rows=min_rows), expected)
    lengths = {len(tokens) for tokens in tokens_of(expected)}
    assert len(lengths) > 4
    assert min_rows <= min(p * g for p, g, _ in grids) <= 4
    assert {slots for _, _, slots in grids} >= {8, 16}


@pytest.mark.parametrize(
    ("is_open", "stay", "alive"),
    [
        # More than half are needed: nothing moves.
        ([[1, 1], [1, 0]], [[0, 1], [2, 3]], [[1, 1], [1, 0]]),
        # One line left, and of it both rows.
        ([[0, 0], [1, 1]], [[2, 3]], [[1, 1]]),
        # A row in each line.
        ([[0, 1], [1, 0]], [[1], [2]], [[1], [1]]),
        # Three lines are padded to four; dead cells repeat one of their own line.
        (
            [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]],
            [[0, 2], [9, 10], [15, 15], [0, 0]],
            [[1, 1], [1, 1], [1, 0], [0, 0]],
        ),
        # Kept together, the longest line would cost the others three rows each.
        (
            [[1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]],
            [[0], [1], [2], [3], [4], [8], [12], [16]],
            [[1]] * 8,
        ),
    ],
)
def test_the_grid_of_what_is_left(is_open, stay, alive):
    stay_PG, alive_PG = compact(np.array(is_open, bool), min_rows=1)
    assert stay_PG.tolist() == stay
    assert alive_PG.tolist() == np.array(alive, bool).tolist()


def test_completions_are_handed_over_while_others_are_sampled(model, monkeypatch):
    monkeypatch.setattr(batch, "_POLL_EVERY", 2)
    calls = []
    original = batch.decode

    def decode(*arrays, **options):
        calls.append(int(arrays[3]))
        return original(*arrays, **options)

    monkeypatch.setattr(batch, "decode", decode)
    limits = (9, 2, 5)
    make = functools.partial(
        Sampler, tokenizer=None, stop_ids=(), max_new_tokens=NEW_TOKENS
    )
    stream = make().stream(model, PROMPTS, seed=0, limits=limits)
    seen = [(row, len(completion.tokens), calls[-1]) for row, completion in stream]
    # The next tokens are on their way when a completion is handed over.
    assert seen == [(1, 2, 5), (2, 5, 7), (0, 9, 9)]


def test_no_prompt_gives_nothing_and_an_empty_one_is_an_error(model):
    assert sample(model, []) == []
    with pytest.raises(ValueError, match="prompt is empty"):
        sample(model, [[1], []])
