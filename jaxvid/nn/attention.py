"""Attention over video."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

FEW_FRAMES = 8  # up to which attention over time is faster as products and sums than as tiny matrix products
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
    """

    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if channels % self.heads:
            raise ValueError(f"AxialAttention needs channels in a multiple of heads={self.heads}, got {channels}.")
        normal = nn.initializers.normal(channels**-0.5)
        inward = self.param("query_key_value", normal, (channels, 9 * channels))
        outward = self.param("output", normal, (3 * channels, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x, inward, outward, bias = promote_dtype(x, inward, outward, bias, dtype=self.dtype)
        projected = x.reshape(-1, channels) @ inward  # rows first: the weight's gradient is faster on CPU
        parts = [part.reshape(*x.shape[:-1], self.heads, -1) for part in jnp.split(projected, 9, axis=-1)]
        attended = [_attend(axis, *parts[3 * i : 3 * i + 3]) for i, axis in enumerate("thw")]
        stacked = jnp.concatenate([y.reshape(-1, channels) for y in attended], -1)
        return (stacked @ outward + bias).reshape(x.shape)


def _attend(axis: str, queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention along one axis of queries, keys and values [B,T,H,W,heads,D]."""
    queries = queries * queries.shape[-1] ** -0.5
    if axis == "t" and queries.shape[1] <= FEW_FRAMES:
        scores = (queries[:, :, None] * keys[:, None]).sum(-1, dtype=jnp.float32)  # [B, q, k, H, W, heads]
        weights = jax.nn.softmax(scores, axis=2).astype(values.dtype)
        return (weights[..., None] * values[:, None]).sum(2)
    score, combine = EQUATIONS[axis]
    scores = jnp.einsum(score, queries, keys, preferred_element_type=jnp.float32)
    return jnp.einsum(combine, jax.nn.softmax(scores).astype(values.dtype), values)
