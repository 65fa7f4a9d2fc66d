"""A small convolutional classifier of videos, whose penultimate layer serves as a feature space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.conv import Conv
from jaxvid.nn.norm import GroupNorm


class Classifier(nn.Module):
    """Video [B,T,H,W,C] in [-1, 1] -> features [B,features] and logits [B,classes], both float32.

    The colours of a clip are centred and scaled first. Then comes one convolution of stride 2 per entry of `widths`,
    with group norm and SiLU; the first keeps the frames, so that slow motion is not lost. What remains is flattened
    rather than averaged, since a motion is where things are.

    Attributes:
      classes: how many.
      widths: channels of each convolution, multiples of 8.
      features: size of the penultimate layer.
      dtype: of the convolutions.
    """

    classes: int
    widths: Sequence[int] = (64, 128, 256)
    features: int = 256
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        centred = video - video.mean((1, 2, 3), keepdims=True)
        x = centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 2, 3, 4), keepdims=True) + 1e-4)
        for index, width in enumerate(self.widths):
            strides = (2, 2, 2) if index else (1, 2, 2)
            x = nn.silu(GroupNorm(8, self.dtype)(Conv(width, (3, 4, 4), strides, dtype=self.dtype)(x)))
        features = nn.silu(nn.Dense(self.features)(x.reshape(len(x), -1).astype(jnp.float32)))
        return features, nn.Dense(self.classes)(features)
