"""A small convolutional classifier of videos, whose penultimate layer serves as a feature space."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.conv import Conv, Triple
from jaxvid.nn.norm import GroupNorm
from jaxvid.shapes import expect


class Classifier(nn.Module):
    """Video [B,T,H,W,C] in [-1, 1] -> features [B,features] and logits [B,classes], both float32.

    The colors of a clip are centered and scaled. Then come convolutions with group norm and SiLU, and the mean and the
    maximum of every channel over space, but not over time: a shape is the same wherever it is, but a turn from left to
    up is another motion than one from up to left. Two dense layers follow.
    """

    classes: int  # how many
    widths: Sequence[int]  # channels of each convolution, multiples of 8
    strides: Sequence[Triple]  # (time, height, width) of each convolution
    features: int = 256  # size of the penultimate layer
    dtype: Any = None  # of the convolutions

    @nn.compact
    def __call__(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        expect("[B,T,H,W,C]", float, video=video)
        centered = video - video.mean((1, 2, 3), keepdims=True)
        x = centered * jax.lax.rsqrt(jnp.square(centered).mean((1, 2, 3, 4), keepdims=True) + 1e-4)
        for width, strides in zip(self.widths, self.strides, strict=True):
            kernel = (3, strides[1] + 2, strides[2] + 2)
            x = nn.silu(GroupNorm(groups=8, dtype=self.dtype)(Conv(width, kernel, strides, dtype=self.dtype)(x)))
        pooled = jnp.concatenate([x.mean((2, 3)), x.max((2, 3))], -1).astype(jnp.float32)
        features = nn.silu(nn.Dense(self.features)(pooled.reshape(len(x), -1)))
        return features, nn.Dense(self.classes)(features)
