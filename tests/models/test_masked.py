"""Hidden tokens: what is seen of them, how many a step reveals, and in which order."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_prior import shaken

from jaxvid.models.masked import (
    RANKS,
    MaskedPrior,
    cosine_count,
    halton,
    hidden_at_random,
    remaining,
    revealed,
)
from jaxvid.models.transformer import Transformer

GRID = (2, 3, 2)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 24, 31, 32, 33, 100])
def test_the_steps_reveal_all_tokens_and_each_at_least_one_until_there_are_none(steps: int) -> None:
    total = np.array([0, 1, 2, 7, 32, 256])
    left = np.asarray(remaining(jnp.asarray(total), steps))
    assert left.shape == (steps, 6) and not left[-1].any()
    revealed_then = -np.diff(np.concatenate([total[None], left]), axis=0)
    assert (revealed_then.sum(0) == total).all()
    before = np.concatenate([total[None], left[:-1]])
    assert ((revealed_then >= 1) | (before == 0)).all() and (revealed_then >= 0).all()
    if steps >= 32:  # one by one
        assert (revealed_then[:, total <= 32] <= 1).all()
    if steps == 3:  # cosines of 30, 60 and 90 degrees
        assert left[:, 5].tolist() == [int(256 * 3**0.5 / 2), 128, 0]


def test_the_number_of_hidden_tokens_is_a_cosine_and_at_least_one() -> None:
    share = jnp.linspace(0, 1, 5000, endpoint=False)
    counts = np.asarray(cosine_count(share, 32))
    np.testing.assert_array_equal(counts, np.maximum(1, np.ceil(32 * np.cos(np.pi / 2 * np.asarray(share)) - 1e-5)))
    assert counts.min() == 1 and counts.max() == 32
    assert abs(counts.mean() / 32 - 2 / np.pi) < 0.02
    keys = jax.random.split(jax.random.key(0), 5000)
    hidden = np.asarray(jax.vmap(lambda key, count: hidden_at_random(key, count, 32))(keys, counts))
    np.testing.assert_array_equal(hidden.sum(1), counts)
    np.testing.assert_allclose(hidden.mean(0), 2 / np.pi, atol=0.05)  # each place as often


def mirrored(number: int, base: int) -> Fraction:
    value, scale = Fraction(0), Fraction(1, base)
    while number:
        number, digit = divmod(number, base)
        value, scale = value + scale * digit, scale / base
    return value


@pytest.mark.parametrize("grid", [(4, 8, 8), (1, 3, 5), (5, 1, 1), (3, 2, 7)])
def test_the_halton_order_is_that_of_exact_fractions(grid: tuple[int, int, int]) -> None:
    places: list[tuple[int, ...]] = []
    for number in itertools.count():
        if len(places) == np.prod(grid):
            break
        place = tuple(int(mirrored(number, base) * size) for base, size in zip((2, 3, 5), grid, strict=True))
        places += [place] if place not in places else []
    ranks = halton(grid).reshape(grid)
    assert [int(ranks[place]) for place in places] == list(range(len(places)))


@pytest.mark.parametrize("order", RANKS)
def test_an_order_is_a_permutation_of_all_places_and_another_for_each_key(order: str) -> None:
    ranks = np.asarray(jax.vmap(lambda key: RANKS[order](key, (4, 8, 8)))(jax.random.split(jax.random.key(0), 50)))
    np.testing.assert_array_equal(np.sort(ranks, 1), np.tile(np.arange(256), (50, 1)))
    assert len(np.unique(ranks.argmin(1))) > 30  # the first place is anywhere


def test_those_with_the_highest_scores_are_revealed_and_hidden_ones_alone() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    hidden = np.random.default_rng(1).random((3, 10)) < 0.6
    left = hidden.sum(1) - np.array([0, 2, hidden[2].sum()])
    chosen = np.asarray(revealed(jnp.asarray(scores), jnp.asarray(hidden), jnp.asarray(left)))
    for row in range(3):
        best = sorted(np.flatnonzero(hidden[row]), key=lambda place: -scores[row, place])  # noqa: B023
        assert set(np.flatnonzero(chosen[row])) == set(best[: hidden[row].sum() - left[row]])


def test_nothing_depends_on_a_hidden_token_and_all_on_every_other_one() -> None:
    model = MaskedPrior(
        network=Transformer(layers=2, heads=2, causal=False), grid=GRID, digits=(5,), width=16, features=8, tasks=3
    )
    tokens = jax.random.randint(jax.random.key(0), (1, *GRID), 0, 5)
    hidden = jax.random.bernoulli(jax.random.key(1), 0.5, (1, *GRID))
    variables = shaken(jax.jit(model.init)(jax.random.key(0), tokens))

    @jax.jit
    def logits(tokens: jax.Array, hidden: jax.Array, task: int = 0) -> jax.Array:
        return model.apply(variables, tokens, hidden=hidden, task=jnp.full(1, task))[0]

    plain = logits(tokens, hidden)
    for place in np.ndindex(1, *GRID):
        other = logits(tokens.at[place].set((tokens[place] + 1) % 5), hidden)
        if hidden[place]:
            np.testing.assert_array_equal(other, plain)
        else:
            assert (np.abs(other - plain).max(-1) > 0).all()
    # The mask is no code: code 0 does not look like it.
    seen = logits(jnp.zeros_like(tokens), jnp.zeros_like(hidden))
    assert np.abs(seen - logits(tokens, jnp.ones_like(hidden))).max() > 1e-3
    assert np.abs(logits(tokens, hidden, 2) - plain).max() > 1e-3
