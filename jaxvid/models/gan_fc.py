"""Fully connected generators and discriminators: every pixel has weights of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import FIRST_VARIANCE, SLOPE, Critique, Head, Limited, Noise, keep


class DenseGenerator(nn.Module):
    """{"video": noise [B,noise]} and a condition [B,F] or None -> video [B,*size] in [-1, 1], float32.

    One dense layer of `width` features for the noise, one for the condition, and one from their sum to all pixels.

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
        x = nn.Dense(self.width, dtype=self.dtype, name="of_noise")(noise["video"])
        if condition is not None:
            x += nn.Dense(self.width, dtype=self.dtype, name="of_condition")(condition)
        to_pixels = nn.Dense(math.prod(self.size), dtype=self.dtype, kernel_init=keep(self.first), name="pixels")
        pixels = to_pixels(nn.leaky_relu(x, SLOPE)).astype(jnp.float32)
        return nn.tanh(pixels).reshape(-1, *self.size)


class Continuation(nn.Module):
    """Noise and conditions with first_frames [B,k,H,W,C] -> these and what follows them: video [B,k+T,H,W,C].

    What `network` makes, [B,T,H,W,C] in [-1, 1], is the change from the last given frame, since a fully connected
    network is long in learning to copy. Its unit is twice the range of that frame's values in a channel: so a faint
    shape moves by the same numbers as a bright one. In training values may leave [-1, 1], where clipping would stop the
    gradients.
    """

    network: DenseGenerator
    encoder: nn.Module

    def __call__(self, noise: Noise, conditions: Mapping[str, jax.Array], train: bool) -> jax.Array:
        known = conditions["first_frames"]
        last = known[:, -1:]
        contrast = last.max((2, 3), keepdims=True) - last.min((2, 3), keepdims=True)
        made = last + 2 * contrast * self.network(noise, self.encoder(conditions), train)
        return jnp.concatenate([known, made if train else jnp.clip(made, -1, 1)], 1)


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
