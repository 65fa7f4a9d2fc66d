"""A convolutional video tokenizer: encoder, quantizer, decoder."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxvid.models.invertible import FOLDED, Invertible
from jaxvid.nn.attention import AxialAttention
from jaxvid.nn.causal import CausalConv, CausalConvTranspose, begins
from jaxvid.nn.conv import Conv, ConvTranspose, Triple, space_to_depth
from jaxvid.nn.norm import Normalization
from jaxvid.nn.quantize import Quantized
from jaxvid.shapes import expect

CAUSAL_NORMS = ("frame", "none")  # that see no other frames
CONVOLVED = "convolved"  # the name of what remat keeps: it took most of the time, and is small beside the rest


def latent_grid(size: Triple, factors: Triple, causal: bool, field: str) -> Triple:
    """Frames, rows and columns of the latents of a video of this size; of a causal one the first frame has its own.

    Raises ValueError, which names the `field` of the factors, where they do not divide the video.
    """
    for axis, length, factor in zip(("frames", "height", "width"), size, factors, strict=True):
        first = causal and axis == "frames"
        if factor < 1 or (length - first) % factor:
            way_out = f", after the first; {length // factor * factor + 1} would do" if first and factor > 0 else ""
            raise ValueError(f"{field} {factors} does not divide the video: {axis} {length} by {factor}{way_out}.")
    frames, height, width = size
    skipped = factors[0] - 1 if causal else 0
    return (frames + skipped) // factors[0], height // factors[1], width // factors[2]


class ResidualBlock(nn.Module):
    """x + convolutions 3x3x3 and 1x1x1, each behind norm and SiLU; then, with heads, x + axial attention.

    A causal one sees no later frames if its norm does not, and attends within frames alone.
    """

    heads: int = 0
    norm: str = "group"
    causal: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]

        def norm(h: jax.Array) -> jax.Array:
            return nn.silu(Normalization(kind=self.norm, axis_name=self.axis_name, dtype=self.dtype)(h, train))

        convolution = CausalConv if self.causal else Conv
        h = checkpoint_name(convolution(channels, (3, 3, 3), dtype=self.dtype)(norm(x)), CONVOLVED)
        x = x + Conv(channels, (1, 1, 1), dtype=self.dtype)(norm(h))
        axes = "hw" if self.causal else "thw"
        return x + AxialAttention(heads=self.heads, axes=axes, dtype=self.dtype)(norm(x)) if self.heads else x


class ResidualStack(nn.Module):
    """`blocks` residual blocks, which keep the shape of [B,T,H,W,C]."""

    blocks: int
    heads: int = 0
    norm: str = "group"
    causal: bool = False
    axis_name: str | None = None
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kept = jax.checkpoint_policies.save_only_these_names(CONVOLVED)
        block = nn.remat(ResidualBlock, static_argnums=(2,), policy=kept) if self.remat else ResidualBlock
        fields = {name: getattr(self, name) for name in ("heads", "norm", "causal", "axis_name", "dtype")}
        for index in range(self.blocks):
            # Named, since remat gives other names, and so other initial values and checkpoints.
            x = block(**fields, name=f"block_{index}")(x, train)
        return x


class Encoder(nn.Module):
    """Video [B,T,H,W,C] -> latents [B,T/t,H/h,W/w,features] for downsample (t,h,w).

    Blocks of t x h x w pixels become `width` channels at once, so that every other convolution runs on the small grid;
    then the residual stack, and a linear map to `features`. No norm or activation stands outside the stack: linear maps
    are learned within few steps. Raises ValueError where a size is no multiple of its factor.

    With a causal stack latents are of 1 + T' frames of the video of 1 + t T': the first of them by itself, as if it had
    been there t times. An image is a video of one frame. `nn.causal` encodes part after part.
    """

    stack: ResidualStack
    width: int
    features: int
    downsample: Triple
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> jax.Array:
        expect("[B,T,H,W,C]", float, video=video)
        if self.stack.causal and begins(self):
            video = jnp.concatenate([jnp.repeat(video[:, :1], self.downsample[0] - 1, 1), video], 1)
        blocks = space_to_depth(video, self.downsample)
        x = self.stack(Conv(self.width, (1, 1, 1), dtype=self.dtype)(blocks), train)
        return Conv(self.features, (1, 1, 1), dtype=self.dtype)(x)


class Decoder(nn.Module):
    """Latents [B,T/t,H/h,W/w,D] -> video [B,T,H,W,channels], float32, for upsample (t,h,w).

    A linear map to `width` channels, the residual stack, and one transposed convolution to pixels, whose kernel is
    twice its stride: the blocks of neighboring latents overlap, where blocks side by side would show their seams.

    With a causal stack latents of 1 + T' frames become 1 + t T' frames, as those of the `Encoder`.
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
        transposed = CausalConvTranspose if self.stack.causal else ConvTranspose
        to_pixels = transposed(self.channels, (time, height, width), self.upsample, dtype=self.dtype)
        video = to_pixels(x).astype(jnp.float32)
        return video[:, self.upsample[0] - 1 :] if self.stack.causal and begins(self) else video


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
        """Video [B,T,H,W,C] in [-1, 1] -> indices [B,T',H/h,W/w] int32."""
        return self.quantizer(self.encoder(self._fold(video)[0], False), False).indices

    def decode(self, indices: jax.Array) -> jax.Array:
        """Indices [B,T',H/h,W/w] -> video [B,T,H,W,C], about [-1, 1] (not clipped)."""
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
