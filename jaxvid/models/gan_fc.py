"""Fully connected generators and discriminators: every pixel has weights of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan3d import FIRST_VARIANCE, SLOPE, Critique, Head, Limited, Noise, keep


class DenseGenerator(nn.Module):
    """{"video": noise [B,noise]} and a condition [B,F] or None -> video [B,*size] in [-1, 1], float32.

    One dense layer of `width` features for the noise, one for the condition, and one from both to all pixels.

    Attributes:
      first: variance of first samples, about. It takes long to unlearn what noise has made black and white.
    """

    size: tuple[int, int, int, int]  # T, H, W, C
    noise: int = 100
    width: int = 512
    first: float = FIRST_VARIANCE
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"video": (self.noise,)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        parts = [nn.Dense(self.width, dtype=self.dtype, name="of_noise")(noise["video"])]
        if condition is not None:
            parts.append(nn.Dense(self.width, dtype=self.dtype, name="of_condition")(condition))
        x = nn.leaky_relu(jnp.concatenate(parts, -1), SLOPE)
        pixels = nn.Dense(math.prod(self.size), dtype=self.dtype, kernel_init=keep(self.first), name="pixels")(x)
        return nn.tanh(pixels.astype(jnp.float32)).reshape(-1, *self.size)


class DenseDiscriminator(nn.Module):
    """Video [B,T,H,W,C] and a condition [B,F] or None -> a critique of the whole, by dense layers of `widths`."""

    widths: Sequence[int]
    head: Head
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> Critique:
        x, features = video.reshape(len(video), -1), []
        for width in self.widths:
            dense = Limited(nn.Dense(width, dtype=self.dtype), self.head.spectral)
            x = nn.leaky_relu(dense(x, train), SLOPE)
            features.append(x)
        return Critique(*self.head(x[:, None], condition, train), tuple(features))
