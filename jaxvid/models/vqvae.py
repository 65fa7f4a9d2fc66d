"""A convolutional video tokenizer: encoder, quantizer, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.attention import AxialAttention
from jaxvid.nn.conv import Conv, ConvTranspose
from jaxvid.nn.norm import BatchNorm, GroupNorm
from jaxvid.nn.quantize import Quantized

NORMS = ("group", "batch")


def stages(downsample: Sequence[int]) -> list[tuple[int, int, int]]:
    """Strides per stage, each 1 or 2 per axis: (4, 4, 2) -> [(2, 2, 1), (2, 2, 2)], time last to shrink.

    Raises:
      ValueError: a factor is not a power of two.
    """
    for factor in downsample:
        if factor < 1 or factor & (factor - 1):
            raise ValueError(f"model.downsample is {tuple(downsample)}; every factor must be a power of two.")
    exponents = [factor.bit_length() - 1 for factor in downsample]
    count = max(exponents)
    t, h, w = ([1] * (count - e) + [2] * e for e in exponents)
    return list(zip(t, h, w, strict=True))


class Normalization(nn.Module):
    """Group norm (no statistics over examples) or batch norm, by name."""

    kind: str
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.kind == "batch":
            return BatchNorm(axis_name=self.axis_name, dtype=self.dtype)(x, train)
        return GroupNorm(groups=8, dtype=self.dtype)(x)


class ResidualBlock(nn.Module):
    """x + convolutions 3x3x3 and 1x1x1, each behind norm and SiLU; then, if asked, x + axial attention."""

    heads: int = 0
    norm: str = "group"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]

        def norm(h: jax.Array) -> jax.Array:
            return nn.silu(Normalization(self.norm, self.axis_name, self.dtype)(h, train))

        h = Conv(channels, (3, 3, 3), dtype=self.dtype)(norm(x))
        h = Conv(channels, (1, 1, 1), dtype=self.dtype)(norm(h))
        x = x + h
        if self.heads:
            x = x + AxialAttention(self.heads, dtype=self.dtype)(norm(x))
        return x


class Encoder(nn.Module):
    """[B,T,H,W,3] -> [B,T/t,H/h,W/w,dim] for downsample (t,h,w).

    A strided convolution per stage, `width` channels in the last and half as many in each one before, then `blocks`
    residual blocks.
    """

    width: int
    dim: int
    downsample: Sequence[int]
    blocks: int
    heads: int = 0
    norm: str = "group"
    axis_name: str | None = None
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        strides = stages(self.downsample)
        for i, stride in enumerate(strides):
            kernel = tuple(4 if s == 2 else 3 for s in stride)
            x = Conv(self.width >> (len(strides) - 1 - i), kernel, stride, dtype=self.dtype)(x)
            x = nn.silu(x) if i + 1 < len(strides) else x
        block = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
        for _ in range(self.blocks):
            x = block(self.heads, self.norm, self.axis_name, self.dtype)(x, train)
        x = nn.silu(Normalization(self.norm, self.axis_name, self.dtype)(x, train))
        return Conv(self.dim, (1, 1, 1), dtype=self.dtype)(x)


class Decoder(nn.Module):
    """[B,T/t,H/h,W/w,dim] -> [B,T,H,W,3]: the encoder mirrored, float32 at the end."""

    width: int
    upsample: Sequence[int]
    blocks: int
    heads: int = 0
    norm: str = "group"
    axis_name: str | None = None
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        strides = stages(self.upsample)[::-1]
        x = Conv(self.width, (1, 1, 1), dtype=self.dtype)(x)
        block = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
        for _ in range(self.blocks):
            x = block(self.heads, self.norm, self.axis_name, self.dtype)(x, train)
        x = nn.silu(Normalization(self.norm, self.axis_name, self.dtype)(x, train))
        for i, stride in enumerate(strides):
            kernel = tuple(4 if s == 2 else 3 for s in stride)
            last = i + 1 == len(strides)
            x = ConvTranspose(3 if last else self.width >> (i + 1), kernel, stride, dtype=self.dtype)(x)
            x = x if last else nn.silu(x)
        return x.astype(jnp.float32)


class VQVAE(nn.Module):
    """Encoder, quantizer, decoder (van den Oord et al., 2017; for video Yan et al., 2021).

    Attributes:
      encoder, decoder: z = encoder(video, train), video = decoder(z, train).
      quantizer: one of `nn.quantize`.
    """

    encoder: nn.Module
    decoder: nn.Module
    quantizer: nn.Module

    def __call__(self, video: jax.Array, train: bool) -> tuple[jax.Array, Quantized]:
        """Video [B,T,H,W,C] in [-1, 1] -> its reconstruction and what the quantizer says."""
        quantized = self.quantizer(self.encoder(video, train), train)
        return self.decoder(quantized.quantized, train), quantized

    def encode(self, video: jax.Array) -> jax.Array:
        """Video [B,T,H,W,C] in [-1, 1] -> indices [B,T/t,H/h,W/w] int32."""
        return self.quantizer(self.encoder(video, False), False).indices

    def decode(self, indices: jax.Array) -> jax.Array:
        """Indices [B,T/t,H/h,W/w] -> video [B,T,H,W,C], about [-1, 1] (not clipped)."""
        return self.decoder(self.quantizer.lookup(indices), False)
