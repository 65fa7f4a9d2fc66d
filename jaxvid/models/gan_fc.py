"""Fully connected generators and discriminators: every pixel has weights of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import INITIAL_VARIANCE, Critique, Head, Limited, Noise, concatenate
from jaxvid.nn.activation import leaky_relu, variance_preserving
from jaxvid.shapes import expect


class DenseGenerator(nn.Module):
    """{"video": noise [B,noise]} and a condition [B,F] or None -> video [B,*size] in [-1, 1], float32.

    One dense layer of `width` features for the noise, one for the condition, and one from their sum to all pixels; of
    width 0, one dense layer alone, from the noise and the condition side by side to all pixels.

    Attributes:
      variance: of the videos before training, about. Pixels that start black or white are long in changing.
    """

    size: tuple[int, int, int, int]  # (T, H, W, C)
    noise: int = 100
    width: int = 512
    variance: float = INITIAL_VARIANCE
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"video": (self.noise,)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        expect(f"[B,{self.noise}]", float, noise=noise["video"])
        if self.width:
            x = nn.Dense(self.width, dtype=self.dtype, name="of_noise")(noise["video"])
            if condition is not None:
                x += nn.Dense(self.width, dtype=self.dtype, name="of_condition")(condition)
            x = leaky_relu(x)
        else:
            x = concatenate(noise["video"], condition)
        init = variance_preserving(self.variance)
        to_pixels = nn.Dense(math.prod(self.size), dtype=self.dtype, kernel_init=init, name="pixels")
        return nn.tanh(to_pixels(x).astype(jnp.float32)).reshape(-1, *self.size)


class Continuation(nn.Module):
    """Noise and conditions with first_frames [B,k,H,W,C] -> these and the frames that follow: video [B,k+T,H,W,C].

    The output of `network`, [B,T,H,W,C] in [-1, 1], is the change from the last given frame, since a fully connected
    network is long in learning to copy. Its unit is twice the range of that frame's values in a channel: so a faint
    shape moves by the same numbers as a bright one. In training values may leave [-1, 1], where clipping would stop the
    gradients.
    """

    network: DenseGenerator
    encoder: nn.Module

    def __call__(self, noise: Noise, conditions: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """Noise and conditions by name -> video."""
        given = conditions["first_frames"]
        last = given[:, -1:]
        contrast = last.max((2, 3), keepdims=True) - last.min((2, 3), keepdims=True)
        following = last + 2 * contrast * self.network(noise, self.encoder(conditions).vector, train)
        return jnp.concatenate([given, following if train else jnp.clip(following, -1, 1)], 1)


class DenseDiscriminator(nn.Module):
    """Video [B,T,H,W,3] and a condition [B,F] or None -> a critique of the whole, by dense layers of `widths`."""

    widths: Sequence[int]
    head: Head
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> Critique:
        expect("[B,T,H,W,3]", float, video=video)
        x, features = video.reshape(len(video), -1), []
        for width in self.widths:
            dense = Limited(layer=nn.Dense(width, dtype=self.dtype), spectral=self.head.spectral)
            x = leaky_relu(dense(x, train))
            features.append(x)
        return Critique(*self.head(x[:, None], condition, train), tuple(features))
