"""Distributions over grids of tokens, one token after another: what all networks for it share.

Tokens are in raster order: frames, then rows, then columns. A network turns embeddings of tokens [B,t,h,w,W] into
features [B,t,h,w,W], of which those at a place depend on tokens before it alone, and on the `Context`. It has

* `__call__(embedded, context) -> features`, of all places at once, for training;
* `generate(call, context, draw) -> tokens`, place by place, with what it keeps from one place to the next:
  `call(name, *arguments)` runs its method of that name, and `draw(features [B,W], place [])` gives the token [B] at a
  place and its embedding [B,W].
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.nn.condition import ConditionEncoder
from jaxvid.shapes import expect

Grid = tuple[int, int, int]  # frames, rows and columns of tokens
Call = Callable[..., Any]
Draw = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
MOST_EMBEDDED = 4096  # values of a digit of a token, each of which has an embedding
INIT = nn.initializers.normal(0.02)


class Known(NamedTuple):
    """What is known of a video: the tokens int [B,t,h,w] of what it is filled in to, and the known share of each place,
    float [B,t,h,w]; where that is 0 in all of a video, nothing is known.
    """

    tokens: jax.Array
    share: jax.Array


class Context(NamedTuple):
    """What all places depend on, beside the tokens before them.

    Attributes:
      places: [B,t,h,w,W], or [1,t,h,w,W]: where a place is, what is known there, and what happens in its frame.
      vector: [B,F].
      words, mask: [B,L,F] and bool [B,L], or None without texts. The first word is always there.
    """

    places: jax.Array
    vector: jax.Array
    words: jax.Array | None = None
    mask: jax.Array | None = None


class Prior(nn.Module):
    """p(tokens | conditions) = product over places of p(token | tokens before it, conditions).

    Attributes:
      network: see the top of this file.
      grid: t, h and w.
      digits: sizes of the digits of a token, the first one the fastest; their product is the number of codes.
      width: W, of the network.
      guide: encoder of the conditions that are left out now and then, for guidance: of the label, the text.
      per_frame: encoder of conditions that are one vector a frame of the video: actions. Those of frame t move it to
        t + 1, so that a frame of tokens sees those before each of its frames.
      missing: how many frames of the video fewer than the others the first frame of tokens has.
    """

    network: nn.Module
    grid: Grid
    digits: tuple[int, ...]
    width: int
    features: int = 64
    guide: ConditionEncoder | None = None
    per_frame: ConditionEncoder | None = None
    missing: int = 0
    dtype: Any = None

    def setup(self) -> None:
        t, h, w = self.grid
        self.codes = [nn.Embed(size, self.width, dtype=self.dtype) for size in self.digits]
        self.known = nn.Dense(self.width, dtype=self.dtype)
        self.of_frames = nn.Dense(self.width, dtype=self.dtype, kernel_init=INIT)
        shapes = {"frames": (t, 1, 1), "rows": (1, h, 1), "columns": (1, 1, w)}
        normal = nn.initializers.normal(self.width**-0.5)  # as of `codes`: none hides the other
        self.positions = [self.param(name, normal, (*shape, self.width)) for name, shape in shapes.items()]
        self.null = self.param("null", INIT, (self.features,))
        self.null_word = self.param("null_word", INIT, (self.features,))
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.later = [nn.Dense(self.width, dtype=self.dtype) for _ in self.digits[1:]]
        zeros = nn.initializers.zeros
        self.biases = [self.param(f"bias_{n}", zeros, (size,)) for n, size in enumerate(self.digits)]

    def __call__(
        self,
        tokens: jax.Array,
        known: Known | None = None,
        conditions: Mapping[str, jax.Array] | None = None,
        guided: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Tokens int [B,t,h,w] -> float32 logits [B,t,h,w,K] of each digit, given the tokens and digits before it.

        `known`, `conditions` and `guided` are as of `context`.
        """
        expect(f"[B,{','.join(map(str, self.grid))}]", int, tokens=tokens)
        context = self.context(known, conditions or {}, jnp.ones(len(tokens), bool) if guided is None else guided)
        features = self.network(self.embed(tokens), context)
        digits = self.split(tokens)
        return [self.logits(features, digits[:number]) for number in range(len(digits))]

    def context(self, known: Known | None, conditions: Mapping[str, jax.Array], guided: jax.Array) -> Context:
        """What all places depend on.

        Args:
          conditions: by name, of `guide` and of `per_frame`.
          guided: bool [B], False where the conditions of `guide` are left out.
        """
        count = len(guided)
        places = sum(self.positions, jnp.zeros((1, *self.grid, self.width)))
        if known is not None:
            share = known.share[..., None].astype(places.dtype)
            seen = self.known(jnp.concatenate([self.embed(known.tokens), share], -1))
            places += seen * (share > 0).any((1, 2, 3), keepdims=True)
        if self.per_frame is not None:
            moved: Any = self.per_frame({n: x for n, x in conditions.items() if n in self.per_frame.frames})
            before = jnp.pad(moved.frames[:, :-1], ((0, 0), (1 + self.missing, 0), (0, 0)))
            places += self.of_frames(before.reshape(count, self.grid[0], 1, 1, -1))
        vector = jnp.broadcast_to(self.null, (count, self.features))
        words = mask = None
        if self.guide is not None:
            encoded: Any = self.guide({n: x for n, x in conditions.items() if n not in self.guide.frames})
            vector = jnp.where(guided[:, None], encoded.vector, vector)
            if encoded.words is not None:
                null = jnp.broadcast_to(self.null_word, (count, 1, self.features)).astype(encoded.words.dtype)
                words = jnp.concatenate([null, encoded.words], 1)
                mask = jnp.pad(encoded.mask & guided[:, None], ((0, 0), (1, 0)), constant_values=True)
        return Context(places, vector, words, mask)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Tokens [...] -> [...,W]."""
        return functools.reduce(
            jnp.add, (table(digit) for table, digit in zip(self.codes, self.split(tokens), strict=True))
        )

    def logits(self, features: jax.Array, digits: Sequence[jax.Array]) -> jax.Array:
        """Features [...,W] of the network, and the first digits [...] -> float32 logits [...,K] of the next digit.

        They are products with the embeddings of its values (Press and Wolf, 2017), so that a neighbor's token is easily
        copied.
        """
        features, number = self.norm(features), len(digits)
        for embed, digit in zip(self.codes, digits, strict=False):
            features += embed(digit)
        if number:
            features += self.later[number - 1](nn.gelu(features))
        rows = features.reshape(-1, self.width)  # rows first: the gradient is faster on CPU
        logits = self.codes[number].attend(rows) + self.biases[number].astype(rows.dtype)
        # XLA:CPU would sum the bias's gradient column by column, within that of the softmax.
        return lax.optimization_barrier(logits).reshape(*features.shape[:-1], -1).astype(jnp.float32)

    def split(self, tokens: jax.Array) -> list[jax.Array]:
        """Tokens [...] -> their digits [...]."""
        found = []
        for size in self.digits:
            found.append(tokens % size)
            tokens = tokens // size
        return found

    def run(self, name: str, *arguments: Any) -> Any:
        """A method of the network."""
        return getattr(self.network, name)(*arguments)


def joined(digits: Sequence[jax.Array], sizes: Sequence[int]) -> jax.Array:
    """Digits [...] -> tokens [...]: the inverse of `Prior.split`."""
    tokens, place = jnp.zeros_like(digits[0]), 1
    for digit, size in zip(digits, sizes, strict=True):
        tokens, place = tokens + place * digit, place * size
    return tokens
