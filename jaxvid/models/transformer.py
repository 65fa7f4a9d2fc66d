"""A transformer over tokens (Vaswani et al., 2017; for video Yan et al., 2021), as a network of `models.prior`.

Blocks are pre-norm, with norms of queries and keys (Henry et al., 2020), which are rotated by their place in three axes
(Su et al., 2021), and shifted, scaled and gated by the context's vector (Peebles and Xie, 2023); where there are words,
each attends to them, too.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.models.prior import Call, Context, Draw
from jaxvid.nn.attention import attention, rotary_angles, rotated

Pair = tuple[jax.Array, jax.Array]  # keys and values [B,M,heads,D]


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Queries [B,N,heads,D], keys and values [B,M,heads,D] -> [B,N,heads*D]; the mask broadcasts to [B,heads,N,M]."""
    scores = jnp.einsum("bnhd,bmhd->bhnm", queries, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -jnp.inf)).astype(values.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, values).reshape(*queries.shape[:2], -1)


class Block(nn.Module):
    """Attention to the other places, attention to words, and two dense layers.

    Raises ValueError where the width is no multiple of `heads`.
    """

    heads: int
    causal: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, context: Context, angles: Any, cache: Pair | None = None, place: Any = None
    ) -> tuple[jax.Array, Pair]:
        """x [B,N,W] -> the same, and its keys and values; `angles` [N,D/2] are those of the places.

        With a cache, of the M places so far, x [B,1,W] is that of `place`, and the cache is returned with it.
        """
        width = x.shape[-1]
        modulation = nn.Dense(6 * width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="modulation")
        shift, scale, gate, shift_2, scale_2, gate_2 = jnp.split(modulation(nn.silu(context.vector))[:, None], 6, -1)
        norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=self.dtype, name="norm")
        projected = self._dense("query_key_value", 3 * width, norm(x) * (1 + scale) + shift)
        queries, keys, values = self._heads("", *jnp.split(projected, 3, -1))
        queries, keys = rotated(queries, angles), rotated(keys, angles)
        if cache is not None:
            keys, values = (
                lax.dynamic_update_slice_in_dim(old, new, place, 1)
                for old, new in zip(cache, (keys, values), strict=True)
            )
            attended = attend(queries, keys, values, jnp.arange(keys.shape[1]) <= place)
        else:
            attended = attention(queries, keys, values, self.causal).reshape(x.shape)
        x += (1 + gate) * self._dense("attended", width, attended)
        if context.words is not None:
            x += self._to_words(x, context.words, context.mask)
        hidden = self._dense("hidden", 4 * width, norm(x) * (1 + scale_2) + shift_2)
        return x + (1 + gate_2) * self._dense("output", width, nn.gelu(hidden)), (keys, values)

    def _to_words(self, x: jax.Array, words: jax.Array, mask: jax.Array | None) -> jax.Array:
        """What attention to words [B,L,F] with mask [B,L] adds to x."""
        asked = self._dense("word_query", x.shape[-1], nn.LayerNorm(dtype=self.dtype, name="word_norm")(x))
        keys, values = jnp.split(self._dense("word_key_value", 2 * x.shape[-1], words), 2, -1)
        queries, keys, values = self._heads("word_", asked, keys, values)
        attended = attend(queries, keys, values, None if mask is None else mask[:, None, None])
        return self._dense("word_attended", x.shape[-1], attended)

    def _dense(self, name: str, features: int, x: jax.Array) -> jax.Array:
        rows = nn.Dense(features, dtype=self.dtype, name=name)(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], features)  # rows first: the weight's gradient is faster on CPU

    def _heads(self, name: str, queries: jax.Array, keys: jax.Array, values: jax.Array) -> list[jax.Array]:
        """[B,N,W] -> [B,N,heads,D] each, queries and keys normed."""
        width = queries.shape[-1]
        if width % self.heads:
            raise ValueError(f"Attention needs a width in a multiple of heads={self.heads}, got {width}.")
        queries, keys, values = (x.reshape(*x.shape[:2], self.heads, -1) for x in (queries, keys, values))
        queries = nn.RMSNorm(dtype=self.dtype, name=f"{name}query_norm")(queries) * queries.shape[-1] ** -0.5
        return [queries, nn.RMSNorm(dtype=self.dtype, name=f"{name}key_norm")(keys), values]


class Transformer(nn.Module):
    """`layers` blocks of attention among all places: to those before, or with `causal=False` to all."""

    layers: int
    heads: int
    causal: bool = True
    dtype: Any = None

    def setup(self) -> None:
        self.blocks = [Block(heads=self.heads, causal=self.causal, dtype=self.dtype) for _ in range(self.layers)]

    def __call__(self, embedded: jax.Array, context: Context) -> jax.Array:
        """[B,t,h,w,W] -> features [B,t,h,w,W]: where it is causal, of the places before each."""
        x = embedded.reshape(len(embedded), -1, embedded.shape[-1])
        if self.causal:
            x = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        x, angles = x + context.places.reshape(len(context.places), *x.shape[1:]), self._angles(context)
        for block in self.blocks:
            x, _ = block(x, context, angles)
        return x.reshape(embedded.shape)

    def step(
        self, embedded: jax.Array, place: jax.Array, caches: list[Pair], context: Context
    ) -> tuple[jax.Array, list[Pair]]:
        """The embedding [B,W] of the token before a place, zeros before the first -> the place's features, and caches.

        `caches` [B,M,heads,D] of all layers have room for places below M alone.
        """
        places = context.places.reshape(len(context.places), -1, embedded.shape[-1])
        x, found = embedded[:, None] + lax.dynamic_slice_in_dim(places, place, 1, 1), []
        angles = lax.dynamic_slice_in_dim(self._angles(context), place, 1, 0)
        for block, cache in zip(self.blocks, caches, strict=True):
            x, pair = block(x, context, angles, cache, place)
            found.append(pair)
        return x[:, 0], found

    def _angles(self, context: Context) -> jax.Array:
        t, h, w, width = context.places.shape[1:]
        return jnp.asarray(rotary_angles((t, h, w), width // self.heads))

    def generate(self, call: Call, context: Context, draw: Draw) -> jax.Array:
        """Tokens [B,t,h,w]; see `models.prior`."""
        t, h, w, width = context.places.shape[1:]
        batch, tokens, embedded = len(context.vector), [], jnp.zeros((len(context.vector), width), context.places.dtype)
        empty = jnp.zeros((batch, h * w, self.heads, width // self.heads), self.dtype or jnp.float32)
        caches = [(empty[:, :0], empty[:, :0])] * self.layers

        def place_by_place(carry: Any, place: jax.Array) -> tuple[Any, jax.Array]:
            embedded, caches = carry
            features, caches = call("step", embedded, place, caches, context)
            token, embedded = draw(features, place)
            return (embedded.astype(context.places.dtype), caches), token

        for frame in range(t):  # keys of later frames do not exist yet
            caches = jax.tree.map(lambda cache: jnp.concatenate([cache, empty], 1), caches)
            places = h * w * frame + jnp.arange(h * w)
            (embedded, caches), found = lax.scan(place_by_place, (embedded, caches), places)
            tokens.append(found.reshape(h, w, -1).transpose(2, 0, 1))
        return jnp.stack(tokens, 1)
