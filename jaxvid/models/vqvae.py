"""A convolutional video tokenizer: encoder, quantizer, decoder."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxvid.models.invertible import FOLDED, Invertible
from jaxvid.nn.attention import AxialAttention
from jaxvid.nn.conv import Conv, ConvTranspose, Triple, space_to_depth
from jaxvid.nn.norm import Normalization
from jaxvid.nn.quantize import Quantized
from jaxvid.shapes import expect

CONVOLVED = "convolved"  # the name of what remat keeps: it took most of the time, and is small beside the rest


class ResidualBlock(nn.Module):
    """x + convolutions 3x3x3 and 1x1x1, each behind norm and SiLU; then, with heads, x + axial attention."""

    heads: int = 0
    norm: str = "group"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]

        def norm(h: jax.Array) -> jax.Array:
            return nn.silu(Normalization(kind=self.norm, axis_name=self.axis_name, dtype=self.dtype)(h, train))

        h = checkpoint_name(Conv(channels, (3, 3, 3), dtype=self.dtype)(norm(x)), CONVOLVED)
        x = x + Conv(channels, (1, 1, 1), dtype=self.dtype)(norm(h))
        return x + AxialAttention(heads=self.heads, dtype=self.dtype)(norm(x)) if self.heads else x


class ResidualStack(nn.Module):
    """`blocks` residual blocks, which keep the shape of [B,T,H,W,C]."""

    blocks: int
    heads: int = 0
    norm: str = "group"
    axis_name: str | None = None
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kept = jax.checkpoint_policies.save_only_these_names(CONVOLVED)
        block = nn.remat(ResidualBlock, static_argnums=(2,), policy=kept) if self.remat else ResidualBlock
        fields = {"heads": self.heads, "norm": self.norm, "axis_name": self.axis_name, "dtype": self.dtype}
        for index in range(self.blocks):
            # Named, since remat gives other names, and so other initial values and checkpoints.
            x = block(**fields, name=f"block_{index}")(x, train)
        return x


class Encoder(nn.Module):
    """Video [B,T,H,W,C] -> latents [B,T/t,H/h,W/w,features] for downsample (t,h,w).

    Blocks of t x h x w pixels become `width` channels at once, so that every other convolution runs on the small grid;
    then the residual stack, and a linear map to `features`. No norm or activation stands outside the stack: linear maps
    are learned within few steps. Raises ValueError where a size is no multiple of its factor.
    """

    stack: ResidualStack
    width: int
    features: int
    downsample: Triple
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> jax.Array:
        expect("[B,T,H,W,C]", float, video=video)
        blocks = space_to_depth(video, self.downsample)
        x = self.stack(Conv(self.width, (1, 1, 1), dtype=self.dtype)(blocks), train)
        return Conv(self.features, (1, 1, 1), dtype=self.dtype)(x)


class Decoder(nn.Module):
    """Latents [B,T/t,H/h,W/w,D] -> video [B,T,H,W,channels], float32, for upsample (t,h,w).

    A linear map to `width` channels, the residual stack, and one transposed convolution to pixels, whose kernel is
    twice its stride: the blocks of neighboring latents overlap, where blocks side by side would show their seams.
    """

    stack: ResidualStack
    width: int
    upsample: Triple
    channels: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, latents: jax.Array, train: bool) -> jax.Array:
        expect("[B,T,H,W,D]", float, latents=latents)
        x = self.stack(Conv(self.width, (1, 1, 1), dtype=self.dtype)(latents), train)
        time, height, width = (2 * factor if factor > 1 else 1 for factor in self.upsample)
        to_pixels = ConvTranspose(self.channels, (time, height, width), self.upsample, dtype=self.dtype)
        return to_pixels(x).astype(jnp.float32)


class VQVAE(nn.Module):
    """Encoder, quantizer, decoder (van den Oord et al., 2017; for video Yan et al., 2021).

    Attributes:
      encoder, decoder: z = encoder(video, train), video = decoder(z, train).
      flows: if given, the encoder sees `flows(video)`, the decoder makes such a thing, and `flows.inverse` makes the
        video of it. The metrics then have the `log_determinant`.
    """

    encoder: nn.Module
    decoder: nn.Module
    quantizer: nn.Module  # one of `nn.quantize`
    flows: Invertible | None = None

    def __call__(self, video: jax.Array, train: bool) -> tuple[jax.Array, Quantized]:
        """Video [B,T,H,W,C] in [-1, 1] -> its reconstruction and the quantizer's output."""
        folded, log_determinant = self._fold(video)
        quantized = self.quantizer(self.encoder(folded, train), train)
        if self.flows is not None:
            metrics = {**quantized.metrics, "log_determinant": log_determinant.mean()}
            quantized = quantized._replace(metrics=metrics)
        return self._decode(quantized.quantized, train), quantized

    def encode(self, video: jax.Array) -> jax.Array:
        """Video [B,T,H,W,C] in [-1, 1] -> indices [B,T/t,H/h,W/w] int32."""
        return self.quantizer(self.encoder(self._fold(video)[0], False), False).indices

    def decode(self, indices: jax.Array) -> jax.Array:
        """Indices [B,T/t,H/h,W/w] -> video [B,T,H,W,C], about [-1, 1] (not clipped)."""
        expect("[B,T,H,W]", int, indices=indices)
        return self._decode(self.quantizer.lookup(indices), False)

    def log_determinant(self, video: jax.Array) -> jax.Array:
        """Video [B,T,H,W,C] in [-1, 1] -> the log-determinant [B] of `flows` there, divided by T*H*W*C."""
        return self._fold(video)[1]

    def _fold(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the encoder sees, and `log_determinant`."""
        channels: Any = getattr(self.decoder, "channels", "C")
        if self.flows is not None:
            channels //= math.prod(FOLDED)
        expect(f"[B,T,H,W,{channels}]", float, video=video)
        if self.flows is None:
            return video, jnp.zeros(len(video))
        folded, log_determinant = self.flows(video)
        return folded, log_determinant / video[0].size

    def _decode(self, latents: jax.Array, train: bool) -> jax.Array:
        decoded = self.decoder(latents, train)
        return decoded if self.flows is None else self.flows.inverse(decoded)
