"""Conversations on the device: rows that read and go on with the cache they have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ovd_jax.models.transformer import Transformer
from ovd_jax.sampling import batch
from ovd_jax.sampling.sampler import Sampler

PROMPTS = ([3], [7, 1, 4], [5, 9, 2, 6, 8, 0, 11, 12, 13, 14])
READ = (20, 21, 22, 23, 24, 25, 1, 2)
forward = jax.jit(Transformer.__call__)


class Library:
    """After each turn of a row but its last: the first tokens of READ, by their number.

    `turns` is how many turns a row may have; `sizes[i]` how many tokens row i reads.
    """

    def __init__(self, *, turns: int = 3, sizes=(1, 3, 8, 2, 5, 4)):
        self._turns, self._sizes = turns, sizes
        self.ends: list[list[int]] = []  # rows, call by call
        self.asked: list[list[int]] = []
        self.turns: dict[int, list] = {}

    def ended(self, turns):
        self.ends.append([row for row, _, _ in turns])
        for row, turn, left in turns:
            self.turns.setdefault(row, []).append((turn, left))
        return [
            len(self.turns[row]) < self._turns and left > self.size(row)
            for row, _, left in turns
        ]

    def observations(self, rows):
        self.asked.append(list(rows))
        return [READ[: self.size(row)] for row in rows]

    def size(self, row: int) -> int:
        return self._sizes[row % len(self._sizes)]


def converse(model, library, prompts=PROMPTS, *, samples=2, limits=None, **changes):
    plain = Sampler(tokenizer=None, stop_ids=(4, 9), max_new_tokens=12)
    generate = dataclasses.replace(plain, **changes)
    return generate(
        model, prompts, seed=0, samples=samples, limits=limits, environment=library
    )


def rows_of(groups):
    return [completion for group in groups for completion in group]


@pytest.fixture(params=[1, 16])
def look_every(request, monkeypatch):
    """Rows join again after each token, or after many."""
    monkeypatch.setattr(batch, "_POLL_EVERY", request.param)


@pytest.mark.slow
def test_logprobs_are_those_of_a_fresh_forward_pass(model, look_every):
    library = Library()
    groups = converse(model, library)
    assert len(library.asked) >= 2
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            whole = np.array([[*prompt, *completion.tokens]])
            padded = np.pad(whole, ((0, 0), (0, 96 - whole.shape[1])))
            logprobs_TV = jax.nn.log_softmax(forward(model, padded)[0])
            places = np.arange(len(prompt) - 1, whole.shape[1] - 1)
            expected = logprobs_TV[places, whole[0, len(prompt) :]]
            own = ~np.array(completion.observed)
            np.testing.assert_allclose(
                np.array(completion.logprobs)[own], expected[own], atol=1e-5
            )
            assert not np.array(completion.logprobs)[~own].any()


def test_what_a_row_reads_stands_between_its_turns(model, look_every):
    library = Library()
    for row, completion in enumerate(rows_of(converse(model, library))):
        expected, observed = (), ()
        turns = library.turns[row]
        for index, (turn, _) in enumerate(turns):
            read = READ[: library.size(row)] if index < len(turns) - 1 else ()
            expected += (*turn.tokens, *read)
            observed += (False,) * len(turn.tokens) + (True,) * len(read)
            assert turn.stopped == (turn.tokens[-1] in (4, 9))
            assert len(turn.tokens) == 12 or turn.stopped
        assert completion.tokens == expected
        assert completion.observed == observed
        assert completion.stopped == turns[-1][0].stopped
    assert {len(turns) for turns in library.turns.values()} == {3}


def test_neither_other_rows_nor_the_moment_of_a_search_change_a_row(model, monkeypatch):
    """Rows alone, or joined by others at other times, draw the same."""
    together = rows_of(converse(model, Library()))
    monkeypatch.setattr(batch, "_POLL_EVERY", 5)
    monkeypatch.setattr(batch, "_RESUME_SHARE", 1.0)
    late = rows_of(converse(model, Library()))
    monkeypatch.setattr(batch, "_RESUME_SHARE", 0.0)
    early = rows_of(converse(model, Library(), min_rows=1))
    alone = rows_of(converse(model, Library(), PROMPTS[:1]))
    for others in (late, early):
        assert [c.tokens for c in others] == [c.tokens for c in together]
    assert [c.tokens for c in alone] == [c.tokens for c in together[:2]]


def test_a_conversation_of_one_turn_is_a_completion(model):
    plain = Sampler(tokenizer=None, stop_ids=(4, 9), max_new_tokens=12)
    expected = rows_of(plain(model, PROMPTS, seed=0, samples=2))
    found = rows_of(converse(model, Library(turns=1)))
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    assert not any(any(c.observed) for c in found)


def test_stop_ids_among_what_is_read_end_no_turn(model):
    library = Library(sizes=(8,))
    read = (4, 9, 4, 9, 4, 9, 4, 9)
    library.observations = lambda rows: [read] * len(rows)
    for row, completion in enumerate(rows_of(converse(model, library))):
        first, second, _ = (turn for turn, _ in library.turns[row])
        size = len(first.tokens)
        assert completion.tokens[size : size + 8] == read
        assert completion.observed[size : size + 8] == (True,) * 8
        assert second.tokens == completion.tokens[size + 8 :][: len(second.tokens)]


def test_limits_are_of_turns_and_readings_together(model):
    library = Library(turns=9, sizes=(3,))
    groups = converse(model, library, limits=(20, 1, 40))
    for limit, group in zip((20, 1, 40), groups, strict=True):
        for completion in group:
            assert len(completion.tokens) <= limit
            if not completion.stopped:
                assert (
                    len(completion.tokens) == limit
                    or limit - len(completion.tokens) <= 3
                )  # no room to read and to write
    for turns in library.turns.values():
        assert turns[-1][1] <= 3 or len(turns) == 9


def test_others_are_sampled_before_a_search_is_waited_for(model, monkeypatch):
    """Unless none are left: then there is nothing to do but wait."""
    monkeypatch.setattr(batch, "_POLL_EVERY", 2)
    sampled, original = [], batch.decode  # rows that were sampled, call by call

    def decode(decoder, state, *rest, **options):
        sampled.append(int((~state.done_PG).sum()))
        return original(decoder, state, *rest, **options)

    class Watched(Library):
        def __init__(self):
            super().__init__()
            self.began, self.meanwhile = {}, []

        def ended(self, turns):
            self.began |= {row: len(sampled) for row, _, _ in turns}
            return super().ended(turns)

        def observations(self, rows):
            self.meanwhile += [sum(sampled[self.began[row] :]) for row in rows]
            return super().observations(rows)

    monkeypatch.setattr(batch, "decode", decode)
    library = Watched()
    converse(model, library, [[token] for token in range(12)], samples=1)
    assert len(library.meanwhile) == 24
    assert sum(others > 0 for others in library.meanwhile) > 12


@pytest.mark.slow
def test_a_bfloat16_model_and_adapters_converse_too(config, make_model):
    model = make_model(config, dtype=jnp.bfloat16)
    rows = rows_of(converse(model, Library()))
    assert all(any(completion.observed) for completion in rows)
