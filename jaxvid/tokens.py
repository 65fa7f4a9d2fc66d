"""What all priors over tokens share beside their networks: the tokenizer as functions, known frames, drawing tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid.core import TrainState, find_method
from jaxvid.models.prior import MOST_EMBEDDED, Grid, Known, joined
from jaxvid.shapes import expect

PLAYER = "tokenizer"
Tree = TypeVar("Tree")


class Tokenizer(NamedTuple):
    """A trained tokenizer as pure functions of its state; `tokenizer(config)` of its method's module makes it.

    Attributes:
      grid: frames, rows and columns of tokens.
      factors: of frames, rows and columns of pixels to those of tokens.
      causal: whether tokens depend on no later frames, the first ones on the first frame of the video alone.
      digits: of a token, the fastest first; their product is the number of codes.
      encode: (state, video [B,T,H,W,3] in [-1, 1]) -> tokens int [B,t,h,w].
      decode: (state, tokens [B,t,h,w]) -> video in [-1, 1]; of any t.
    """

    grid: Grid
    factors: Grid
    causal: bool
    digits: tuple[int, ...]
    encode: Callable[[TrainState, jax.Array], jax.Array]
    decode: Callable[[TrainState, jax.Array], jax.Array]

    @property
    def first(self) -> int:
        """Frames of video in the first frame of tokens; in each other there are as many as the factor says."""
        return 1 if self.causal else self.factors[0]

    @property
    def frames(self) -> int:
        """T, of the clips that it was trained with."""
        return self.first + (self.grid[0] - 1) * self.factors[0]

    def by_frame(self, values: jax.Array) -> jax.Array:
        """Values [B,T,...] of frames of video -> [B,t,factor,...] of frames of tokens, the first value repeated."""
        repeated = jnp.repeat(values[:, :1], self.factors[0] - self.first, 1)
        return jnp.concatenate([repeated, values], 1).reshape(len(values), self.grid[0], -1, *values.shape[2:])

    @property
    def tokens_per_frame(self) -> float:
        """Of video."""
        return math.prod(self.grid) / self.frames


def make_tokenizer(config: ConfigDict) -> Tokenizer:
    """That of `config.tokenizer`, see `jaxvid.pretrained`.

    Raises ValueError: it has no tokens, or was trained on clips of another size.
    """
    entry = config.tokenizer
    if not entry.config:
        raise ValueError("config.tokenizer is empty: fill it in with complete(config, source) of the method's module.")
    make = getattr(find_method(entry.config.method), "tokenizer", None)
    if make is None:
        raise ValueError(
            f"tokenizer.path is {entry.path}, a run of the method {entry.config.method}, which makes no tokens: name a "
            "run of the recipe vqvae:prior."
        )
    for field in ("resolution", "stride", "fps"):
        if config.data[field] != entry.config.data[field]:
            raise ValueError(
                f"data.{field} is {config.data[field]}, and the tokenizer in {entry.path} was trained with "
                f"{entry.config.data[field]}: set it so, or train another tokenizer."
            )
    return make(entry.config)


def grouped(digits: Sequence[int]) -> tuple[int, ...]:
    """The same digits, the fastest first, in as few groups of up to `MOST_EMBEDDED` values as their order allows."""
    groups: list[int] = []
    for digit in digits:
        if groups and groups[-1] * digit <= MOST_EMBEDDED:
            groups[-1] *= digit
        else:
            groups.append(digit)
    return tuple(groups)


def known_places(tokenizer: Tokenizer, state: TrainState, video: jax.Array, count: jax.Array) -> Known:
    """What the first frames tell about every place: `known_grid`.

    Args:
      tokenizer, state: of it alone.
      video: [B,T,H,W,3] in [-1, 1], of which the first `count` [B] frames are read. Where that is 0, nothing is known.
    """
    known = jnp.arange(video.shape[1]) < count[:, None]
    return known_grid(tokenizer, state, video, known[:, :, None, None])


def known_grid(tokenizer: Tokenizer, state: TrainState, video: jax.Array, known: jax.Array) -> Known:
    """What the known pixels of a video tell about every place.

    The tokenizer sees the whole clip, so that the tokens of known pixels carry the others. So the others are filled in
    (`filled`; as in Yu et al., 2023, section 3.2), and the clip is tokenized.

    Args:
      tokenizer, state: of it alone.
      video: [B,T,H,W,3] in [-1, 1].
      known: bool, of a shape that broadcasts to [B,T,H,W]; where all is False, nothing is known.
    """
    pixels = tokenizer.by_frame(jnp.broadcast_to(known, video.shape[:-1]).astype(jnp.float32))
    sizes = (size for pair in zip(tokenizer.grid, tokenizer.factors, strict=True) for size in pair)
    share = pixels.reshape(len(video), *sizes).mean((2, 4, 6))
    return Known(tokenizer.encode(state, filled(video, known)), share)


def filled(video: jax.Array, known: jax.Array) -> jax.Array:
    """The video [B,T,H,W,3] with each unknown pixel as in the nearest frame in which it is known, of two the earlier.

    A pixel that is known in no frame gets the average color of the known ones. `known` is as of `known_grid`.
    """
    known, frames = jnp.broadcast_to(known, video.shape[:-1]), jnp.arange(video.shape[1])[:, None, None]
    none = 2 * video.shape[1]  # further away than any frame
    before = jax.lax.cummax(jnp.where(known, frames, -none), axis=1)
    after = jax.lax.cummin(jnp.where(known, frames, none), axis=1, reverse=True)
    nearest = jnp.where(frames - before <= after - frames, before, after).clip(0, video.shape[1] - 1)
    near = jnp.take_along_axis(video, jnp.broadcast_to(nearest, video.shape[:-1])[..., None], 1)
    weight = jnp.broadcast_to(known, video.shape[:-1])[..., None]
    average = (video * weight).sum((1, 2, 3), keepdims=True) / weight.sum((1, 2, 3), keepdims=True).clip(1)
    return jnp.where(known.any(1, keepdims=True)[..., None], near, average)


class Drawing(NamedTuple):
    """How tokens are drawn from logits; the fields of `config.sample`."""

    temperature: float = 1.0  # divides logits; 0: the likeliest
    top_k: int = 0  # draws from the k likeliest; 0: from all
    top_p: float = 1.0  # draws from the likeliest that together have this probability
    guidance: float = 1.0  # conditional + (guidance - 1) (conditional - unconditional)


def make_drawing(options: Mapping[str, Any]) -> Drawing:
    """Of `config.sample`. Raises ValueError where a number is out of its range."""
    drawing = Drawing(**{field: options[field] for field in Drawing._fields})
    for field, expected, holds in (
        ("temperature", "0 (the likeliest) or more", 0 <= drawing.temperature < math.inf),
        ("top_k", "0 (all) or more", drawing.top_k >= 0),
        ("top_p", "above 0, and at most 1 (all)", 0 < drawing.top_p <= 1),
        ("guidance", "0 or more; 1 is none", 0 <= drawing.guidance < math.inf),
    ):
        if not holds:
            raise ValueError(f"sample.{field} is {getattr(drawing, field)}, expected {expected}.")
    return drawing


def draw(logits: jax.Array, uniform: jax.Array, drawing: Drawing) -> jax.Array:
    """Logits [B,K], numbers [B] in [0, 1) -> indices int32 [B], by the inverse of the cumulative distribution."""
    expect("[B,K]", float, logits=logits)
    if drawing.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    weights = jax.nn.softmax(
        filtered((logits - logits.max(-1, keepdims=True)) / drawing.temperature, drawing.top_k, drawing.top_p)
    )
    cumulative = jnp.cumsum(weights, -1)
    below = cumulative <= uniform[:, None] * cumulative[:, -1:]
    return below.sum(-1, dtype=jnp.int32)


def filtered(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits [...,K], -inf but for the likeliest: `top_k` of them (0: all), and those that together reach `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if top_p < 1:
        ordered = jnp.sort(logits, -1, descending=True)
        weights = jax.nn.softmax(ordered)
        before = jnp.cumsum(weights, -1) - weights
        least = jnp.where(before < top_p, ordered, jnp.inf).min(-1, keepdims=True)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return logits


def guided(logits: jax.Array, guidance: float) -> jax.Array:
    """Logits [2B,K], first under the conditions and then without them -> [B,K]."""
    conditional, unconditional = jnp.split(logits, 2)
    return conditional + (guidance - 1) * (conditional - unconditional)


def copied(tree: Tree, drawing: Drawing) -> Tree:
    """[B,...] -> [2B,...], the same twice, where samples are guided: first under the conditions, then without them."""
    return tree if drawing.guidance == 1 else jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)


def under_conditions(count: int, drawing: Drawing) -> jax.Array:
    """Which of the `copied` B are under the conditions: bool [B] or [2B]."""
    return jnp.arange(count if drawing.guidance == 1 else 2 * count) < count


def draw_token(
    logits: Callable[[list[jax.Array]], jax.Array], sizes: Sequence[int], uniforms: jax.Array, drawing: Drawing
) -> tuple[jax.Array, jax.Array]:
    """Tokens int32 [B] drawn digit by digit, and their log-probabilities [B] at temperature 1, guided but unfiltered.

    Args:
      logits: of the next digit, [B,K] or if guided [2B,K], from those so far, [B] or [2B] each, see `copied`.
      sizes: of the digits.
      uniforms: [B,digits] in [0, 1).
    """
    digits: list[jax.Array] = []
    log_p = jnp.zeros(len(uniforms))
    for number in range(len(sizes)):
        found = logits(copied(digits, drawing))
        found = found if drawing.guidance == 1 else guided(found, drawing.guidance)
        digits.append(draw(found, uniforms[:, number], drawing))
        log_p += jnp.take_along_axis(jax.nn.log_softmax(found), digits[-1][:, None], 1)[:, 0]
    return joined(digits, sizes), log_p
