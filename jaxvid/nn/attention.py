"""Attention over video."""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxvid.parallel import compute_capability

FEW_FRAMES = 8  # up to which attention over time is faster as products and sums than as tiny matrix products
LONGEST = 100.0  # of the periods of rotary attention, in places over 2 pi
CHUNKS = 4  # of the queries of causal attention, each of which meets no more keys than it may see
# Batch, two of t, h and w, and head n stay; q attends to k.
EQUATIONS = {
    "t": ("bqhwnd,bkhwnd->bhwnqk", "bhwnqk,bkhwnd->bqhwnd"),
    "h": ("btqwnd,btkwnd->btwnqk", "btwnqk,btkwnd->btqwnd"),
    "w": ("bthqnd,bthknd->bthnqk", "bthnqk,bthknd->bthqnd"),
}


class AxialAttention(nn.Module):
    """Sum of multi-head self-attentions along t, h and w (VideoGPT, Yan et al. 2021): [B,T,H,W,C] to the same shape.

    Each axis has its own queries, keys and values, from one product, and its own output projection, in one product with
    one bias. The softmax is float32. Raises ValueError where C is no multiple of `heads`.

    Attributes:
      axes: those along which it attends; "hw" leaves every frame alone.
      window: frames to each side that attention along t sees; None: all.
    """

    heads: int
    axes: str = "thw"
    window: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if channels % self.heads:
            raise ValueError(f"AxialAttention needs channels in a multiple of heads={self.heads}, got {channels}.")
        normal = nn.initializers.normal(channels**-0.5)
        inward = self.param("query_key_value", normal, (channels, 3 * len(self.axes) * channels))
        outward = self.param("output", normal, (len(self.axes) * channels, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x, inward, outward, bias = promote_dtype(x, inward, outward, bias, dtype=self.dtype)
        projected = x.reshape(-1, channels) @ inward  # rows first: the weight's gradient is faster on CPU
        parts = [
            part.reshape(*x.shape[:-1], self.heads, -1) for part in jnp.split(projected, 3 * len(self.axes), axis=-1)
        ]
        attended = [_attend(axis, self.window, *parts[3 * i : 3 * i + 3]) for i, axis in enumerate(self.axes)]
        stacked = jnp.concatenate([y.reshape(-1, channels) for y in attended], -1)
        return (stacked @ outward + bias).reshape(x.shape)


def _attend(axis: str, window: int | None, queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention along one axis of queries, keys and values [B,T,H,W,heads,D]; along t within a window of frames."""
    queries = queries * queries.shape[-1] ** -0.5
    if axis == "t" and window is not None:
        frames = jnp.arange(queries.shape[1])
        seen = frames[:, None] + jnp.arange(-window, window + 1)  # [T, 2 window + 1]
        inside = ((seen >= 0) & (seen < len(frames)))[None, :, :, None, None, None]
        keys, values = (x[:, seen.clip(0, len(frames) - 1)] for x in (keys, values))
        scores = (queries[:, :, None] * keys).sum(-1, dtype=jnp.float32)  # [B, T, 2 window + 1, H, W, heads]
        weights = jax.nn.softmax(jnp.where(inside, scores, -jnp.inf), axis=2).astype(values.dtype)
        return (weights[..., None] * values).sum(2)
    if axis == "t" and queries.shape[1] <= FEW_FRAMES:
        scores = (queries[:, :, None] * keys[:, None]).sum(-1, dtype=jnp.float32)  # [B, q, k, H, W, heads]
        weights = jax.nn.softmax(scores, axis=2).astype(values.dtype)
        return (weights[..., None] * values[:, None]).sum(2)
    score, combine = EQUATIONS[axis]
    scores = jnp.einsum(score, queries, keys, preferred_element_type=jnp.float32)
    return jnp.einsum(combine, jax.nn.softmax(scores).astype(values.dtype), values)


def rotary_angles(grid: tuple[int, int, int], dim: int) -> np.ndarray:
    """The angles of all places of a grid, for `rotated`: float32 [t*h*w, dim/2], a third of them for each axis.

    Those of an axis of n angles are its index times LONGEST^(-i/n), i from 0 (Su et al., 2021, equation 15; there the
    longest period is 10,000 places, which no axis of video has). Raises ValueError for an odd dim.
    """
    if dim % 2:
        raise ValueError(f"Rotary attention needs heads of an even size, got {dim}: change the width or the heads.")
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3)
    counts = (dim // 2 // 3, dim // 2 // 3, dim // 2 - 2 * (dim // 2 // 3))
    parts = [places[:, [axis]] * LONGEST ** (-np.arange(count) / max(count, 1)) for axis, count in enumerate(counts)]
    return np.concatenate(parts, 1).astype(np.float32)


def rotated(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Queries or keys [B,N,heads,D], whose halves are turned by angles [N,D/2] (Su et al., 2021, equation 34): products
    of queries and keys then depend on how far apart their places are.
    """
    cos, sin = (f(angles)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array, causal: bool) -> jax.Array:
    """Softmax attention: queries, keys and values [B,N,heads,D] of each place -> [B,N,heads,D] in their dtype.

    With `causal` each place attends to itself and to those before it. The softmax is float32.

    On NVIDIA's GPUs since Ampere, of 16-bit numbers, it is the fused kernel of cuDNN, which has no second derivatives.
    """
    if queries.dtype.itemsize == 2 and queries.shape[-1] <= 128 and compute_capability() >= 8:
        return _fused_attention(queries, keys, values, causal, "cudnn")
    return _attention(queries, keys, values, causal)


def _fused_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, causal: bool, implementation: Any
) -> jax.Array:
    """JAX's attention, which wants D in a multiple of 8: zeros are added."""
    wide = [jnp.pad(x, [(0, 0)] * 3 + [(0, -x.shape[-1] % 8)]) for x in (queries, keys, values)]
    attended = jax.nn.dot_product_attention(*wide, scale=1.0, is_causal=causal, implementation=implementation)
    return attended[..., : values.shape[-1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(queries: jax.Array, keys: jax.Array, values: jax.Array, causal: bool) -> jax.Array:
    """`attention`, of XLA's products.

    On CPU this takes some 0.6 of the time of what autodiff makes of the plain form. Scores stand as [keys, queries], so
    that all products read their factors along memory; exponentials are never normalized, what they weigh is, and their
    sum comes with the product, of values that are 1; and the gradient by scores needs no sum over keys, as
    sum(p dp) is the product of the output and its gradient (Dao et al., 2022, FlashAttention, appendix B).
    """
    return _attention_forward(queries, keys, values, causal)[0]


def _attention_forward(
    queries: jax.Array, keys: jax.Array, values: jax.Array, causal: bool
) -> tuple[jax.Array, tuple[Any, ...]]:
    queries, keys = (x.transpose(0, 2, 1, 3) for x in (queries, keys))  # [B,heads,N,D]
    values = jnp.pad(
        values.transpose(0, 2, 3, 1), [(0, 0)] * 2 + [(0, 1), (0, 0)], constant_values=1
    )  # [B,heads,D+1,N]
    weights, sums = [], []
    for start, end, seen in _chunks(queries.shape[2], causal):
        scores = _product(keys[:, :, :seen], queries[:, :, start:end], 3)
        weights.append(_exponentials(scores, start if causal else None).astype(values.dtype))
        sums.append(_product(values[..., :seen], weights[-1], 2))
    total = jnp.concatenate(sums, 3)
    attended, total = total[:, :, :-1] / total[:, :, -1:], total[:, :, -1:]
    output = attended.transpose(0, 3, 1, 2).astype(values.dtype)
    return output, (queries, keys, values, weights, attended, total)


def _attention_backward(causal: bool, saved: tuple[Any, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    queries, keys, values, weights, attended, total = saved
    count, dtype = queries.shape[2], queries.dtype
    columns = gradient.transpose(0, 2, 3, 1) / total  # [B,heads,D,N]
    mean = (columns * attended).sum(2, keepdims=True)
    columns = columns.astype(dtype)
    rows, keys, values = (jnp.swapaxes(x, 2, 3) for x in (columns, keys, values[:, :, :-1]))
    by_queries, by_keys, by_values = [], jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for (start, end, seen), weight in zip(_chunks(count, causal), weights, strict=True):
        by_weights = _product(values[:, :, :seen], columns[..., start:end], 2)
        by_scores = (weight * (by_weights - mean[..., start:end])).astype(dtype)
        by_queries.append(_product(keys[..., :seen], by_scores, 2))
        unseen = [(0, 0), (0, 0), (0, count - seen), (0, 0)]
        by_keys += jnp.pad(_product(by_scores, queries[:, :, start:end], 2), unseen)
        by_values += jnp.pad(_product(weight, rows[:, :, start:end], 2), unseen)
    first = jnp.concatenate(by_queries, 3).transpose(0, 3, 1, 2)
    others = (x.transpose(0, 2, 1, 3) for x in (by_keys, by_values))
    return tuple(x.astype(dtype) for x in (first, *others))


_attention.defvjp(_attention_forward, _attention_backward)


def _chunks(count: int, causal: bool) -> Iterator[tuple[int, int, int]]:
    """Of the queries: where each begins and ends, and how many keys it sees."""
    size = -(-count // CHUNKS) if causal else count
    for start in range(0, count, size):
        end = min(start + size, count)
        yield start, end, end


def _product(a: jax.Array, b: jax.Array, contracted: int) -> jax.Array:
    """[B,heads,I,J] and [B,heads,...], of which one axis is `contracted` with J -> float32 [B,heads,I,K]."""
    return lax.dot_general(a, b, (((3,), (contracted,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _exponentials(scores: jax.Array, start: int | None) -> jax.Array:
    """exp(scores - their maximum) of [B,heads,M,n] over M keys; `start`: where the first query stands, if causal."""
    if start is not None:
        later = jnp.tri(scores.shape[3], k=-1, dtype=bool)
        scores = scores.at[:, :, start:].set(jnp.where(later, -jnp.inf, scores[:, :, start:]))
    return jnp.exp(scores - scores.max(2, keepdims=True))
