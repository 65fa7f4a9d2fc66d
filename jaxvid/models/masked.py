"""Distributions of hidden tokens given the others (Chang et al., 2022, MaskGIT; for video Yu et al., 2023), and the
orders in which tokens are revealed.

An order is a rank for each place, 0 for the first that is revealed. How many tokens a step reveals does not depend on
the order: `remaining`.
"""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.models.prior import INIT, Context, Grid, Known, Prior


class MaskedPrior(Prior):
    """p(each hidden token | the tokens that are not hidden, conditions), over a network that sees all places.

    A hidden token is a learned embedding of its own. `tasks` is the number of tasks, see `jaxvid.completion`; the other
    attributes are those of `Prior`.
    """

    tasks: int = 1

    def setup(self) -> None:
        super().setup()
        self.mask = self.param("mask", nn.initializers.normal(self.width**-0.5), (self.width,))
        self.task = nn.Embed(self.tasks, self.features, dtype=self.dtype, embedding_init=INIT)

    def __call__(
        self,
        tokens: jax.Array,
        known: Known | None = None,
        conditions: Mapping[str, jax.Array] | None = None,
        guided: jax.Array | None = None,
        hidden: jax.Array | None = None,
        task: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Tokens int [B,t,h,w] -> float32 logits [B,t,h,w,K] of each digit, given the digits before it.

        Args:
          known, conditions, guided: as of `Prior`.
          hidden: bool [B,t,h,w], the tokens that are not seen (default: all).
          task: int [B] (default: 0).
        """
        hidden = jnp.ones(tokens.shape, bool) if hidden is None else hidden
        task = jnp.zeros(len(tokens), int) if task is None else task
        guided = jnp.ones(len(tokens), bool) if guided is None else guided
        context = self.task_context(known, conditions or {}, guided, task)
        features = self.see(tokens, hidden, context)
        digits = self.split(tokens)
        return [self.logits(features, digits[:number]) for number in range(len(digits))]

    def task_context(
        self, known: Known | None, conditions: Mapping[str, jax.Array], guided: jax.Array, task: jax.Array
    ) -> Context:
        """What all places depend on: `Prior.context`, and the task int [B]."""
        context = self.context(known, conditions, guided)
        return context._replace(vector=context.vector + self.task(task))

    def see(self, tokens: jax.Array, hidden: jax.Array, context: Context) -> jax.Array:
        """Features [B,t,h,w,W] of all places, with the hidden tokens behind the mask."""
        embedded = self.embed(tokens)
        return self.network(jnp.where(hidden[..., None], self.mask.astype(embedded.dtype), embedded), context)


def hidden_at_random(key: jax.Array, count: jax.Array, places: int) -> jax.Array:
    """bool [places], True at so many places."""
    return random_ranks(key, (places, 1, 1)) < count


def cosine_count(share: jax.Array, places: int) -> jax.Array:
    """How many of the tokens of an example are hidden, at least one: ceil(N cos(pi r / 2)), r [] uniform in [0, 1)."""
    return jnp.ceil(places * jnp.cos(math.pi / 2 * share)).astype(int).clip(1, places)


def remaining(total: jax.Array, steps: int) -> jax.Array:
    """How many of `total` [B] hidden tokens are left after each of so many steps: [steps,B], the last 0.

    floor(total cos(pi s / 2 steps)) after s steps (Chang et al., 2022, section 3.3), but a step reveals at least one
    token until there are none.
    """
    numbers = np.arange(1, steps + 1)
    shares = np.cos(math.pi / 2 * numbers / steps) * (numbers < steps)
    left = jnp.floor(jnp.asarray(shares, jnp.float32)[:, None] * total).astype(int)
    return jnp.minimum(left, total - numbers[:, None]).clip(0)


def revealed(scores: jax.Array, hidden: jax.Array, left: jax.Array) -> jax.Array:
    """Which of the hidden [B,N] are revealed so that `left` [B] stay hidden: those with the highest scores [B,N]."""
    ordered = jnp.argsort(jnp.where(hidden, -scores, jnp.inf), axis=-1)
    ranks = jnp.argsort(ordered, axis=-1)  # hidden ones first
    return hidden & (ranks < (hidden.sum(-1) - left)[:, None])


def random_ranks(key: jax.Array, grid: Grid) -> jax.Array:
    """A random order: [N]."""
    return jax.random.permutation(key, math.prod(grid))


def halton_ranks(key: jax.Array, grid: Grid) -> jax.Array:
    """The order of `halton`, shifted around the grid by whole places, at random: [N]."""
    shifts = [jax.random.randint(fold, (), 0, size) for fold, size in zip(jax.random.split(key, 3), grid, strict=True)]
    return jnp.roll(jnp.asarray(halton(grid)).reshape(grid), jnp.stack(shifts), (0, 1, 2)).reshape(-1)


def halton(grid: Grid) -> np.ndarray:
    """The rank [N] of each place in the order in which points of the Halton sequence first fall into it.

    Bases 2, 3 and 5 are those of frames, rows and columns. Places that follow one another are far apart (Besnier et
    al., 2025, for images), so that tokens of one step, which do not see each other, depend little on each other.
    """
    places, count = math.prod(grid), 0
    found: dict[int, None] = {}
    while len(found) < places:
        cells = np.zeros(places, np.int64)
        for base, size in zip((2, 3, 5), grid, strict=True):
            cells = size * cells + (size * radical_inverse(np.arange(count, count + places), base)).astype(int)
        found |= dict.fromkeys(cells.tolist())
        count += places
    return np.argsort(np.fromiter(found, np.int64))


def radical_inverse(numbers: np.ndarray, base: int) -> np.ndarray:
    """The digits of whole numbers, mirrored at the point: values in [0, 1) (van der Corput, 1935)."""
    value, scale, numbers = np.zeros(len(numbers)), 1.0, numbers.copy()
    while numbers.any():
        scale /= base
        value += scale * (numbers % base)
        numbers //= base
    return value


RANKS: dict[str, Callable[[jax.Array, Grid], jax.Array]] = {"halton": halton_ranks, "random": random_ranks}
