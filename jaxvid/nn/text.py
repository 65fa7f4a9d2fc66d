"""A small encoder of captions that is trained along with the model that reads it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.activation import leaky_relu


def _word_init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    # Where the vocabulary has every word of the captions, the unknown word is never trained: it should mean nothing.
    return nn.initializers.normal(1.0)(key, shape, dtype).at[:2].set(0)


class TextEncoder(nn.Module):
    """Words int32 [B,L] -> [B,features]: word embeddings, two convolutions over words, mean over words (Kim 2014).

    The words are those of `data.text.tokenize`: 0 is padding, on which the result does not depend, and 1 a word that
    is not in the vocabulary. With `pool=False` the features of each word are not averaged: [B,L,features], zeros at
    padding, by the same parameters.
    """

    vocabulary: int  # words
    features: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, words: jax.Array, pool: bool = True) -> jax.Array:
        present = (words > 0)[..., None]
        embed = nn.Embed(self.vocabulary + 2, self.features, dtype=self.dtype, embedding_init=_word_init)
        x = embed(words) * present
        for _ in range(2):
            x = leaky_relu(nn.Conv(self.features, (3,), dtype=self.dtype)(x)) * present
        if pool:
            x = x.sum(1) / jnp.maximum(present.sum(1), 1).astype(x.dtype)
        x = nn.Dense(self.features, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        return x if pool else x * present
