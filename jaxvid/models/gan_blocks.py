"""What the networks of GANs are built of: stages of convolutions, renderers, compositors, trunks, heads, panels.

A network is a list of stages: `widths[i]` channels, and a factor (time, height, width) by which the grid changes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.activation import SLOPE, leaky_relu, variance_preserving
from jaxvid.nn.compositing import color_gradient
from jaxvid.nn.conv import Conv, ConvTranspose, Triple, depth_to_space
from jaxvid.nn.norm import Deviation, Normalization
from jaxvid.shapes import expect

INITIAL_VARIANCE = 1 / 16  # of the videos of an untrained generator, about
GRADIENT_FEATURES = 64  # of the layer before the colors of a `ColorGradient`
HEAD_FEATURES = 256  # of the layer before the logits, where there is one
Noise = dict[str, jax.Array]


def total_factor(factors: Sequence[Triple]) -> Triple:
    """The factor of all stages together."""
    time, height, width = (math.prod(axis) for axis in zip(*factors, strict=True))
    return time, height, width


def kernel_size(factor: Triple) -> Triple:
    """Twice the factor, so that every place is met equally often; where the size stays 3, and 1 in time."""
    time, height, width = (2 * f if f > 1 else least for f, least in zip(factor, (1, 3, 3), strict=True))
    return time, height, width


def mirrored(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """Kernels [kt,kh,kw,I,O] of the same variance that are their own mirror images, up and down, left and right."""

    def initialize(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        kernel = init(key, shape, dtype)
        kernel = kernel + kernel[:, ::-1]
        return (kernel + kernel[:, :, ::-1]) / 2

    return initialize


class Upsample(nn.Module):
    """Features [B,T,H,W,C] -> [B,T*t,H*h,W*w,features] for factor (t,h,w): a transposed convolution of that stride.

    Attributes:
      mirrored: kernels begin as mirror images, so that even features lead to an even output, not to a checkerboard
        (Odena et al., 2016).
    """

    features: int
    factor: Triple
    gain: float = 1.0  # of the variance, from leaky features to the output, before training
    mirrored: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Each output meets one tap in `places`: without their number the variance would fall with each layer, and
        # untrained samples would all be the same gray.
        places = math.prod(self.factor)
        init = variance_preserving(self.gain * places * 2 / (1 + SLOPE**2))
        init = mirrored(init) if self.mirrored else init
        shape = kernel_size(self.factor)
        return ConvTranspose(self.features, shape, self.factor, dtype=self.dtype, kernel_init=init)(x)


class Activation(nn.Module):
    """Features [B,T,H,W,C] -> a norm, a style where there are codes, and leaky ReLU.

    The style scales and shifts every channel (Karras et al., 2019, equation 1): each of the codes [B,N,D] sets those of
    its own T/N frames.
    """

    norm: str
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, codes: jax.Array | None, train: bool) -> jax.Array:
        x = Normalization(kind=self.norm, axis_name=self.axis_name, dtype=self.dtype)(x, train)
        if codes is not None:
            style = nn.Dense(2 * x.shape[-1], dtype=self.dtype)(codes)[:, :, None, None, None]
            scale, shift = jnp.split(style, 2, -1)
            parts = x.reshape(*codes.shape[:2], -1, *x.shape[2:])
            x = (parts * (1 + scale) + shift).reshape(x.shape)
        return leaky_relu(x)


class ResidualUpsample(nn.Module):
    """Upsampling by repetition, plus two 3x3x3 convolutions of which the first makes the new places.

    Features [B,T,H,W,C] -> [B,T*t,H*h,W*w,features] for factor (t,h,w). The repeated part passes a 1x1x1 convolution.
    Codes, or None, are those of `Activation`.
    """

    features: int
    factor: Triple
    norm: str
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, codes: jax.Array | None, train: bool) -> jax.Array:
        def activate(h: jax.Array) -> jax.Array:
            return Activation(norm=self.norm, axis_name=self.axis_name, dtype=self.dtype)(h, codes, train)

        places = math.prod(self.factor)
        skip = Conv(self.features, (1, 1, 1), dtype=self.dtype)(x)
        skip = depth_to_space(jnp.tile(skip, places), self.factor)
        h = Conv(self.features * places, (3, 3, 3), dtype=self.dtype)(activate(x))
        h = Conv(self.features, (3, 3, 3), dtype=self.dtype)(activate(depth_to_space(h, self.factor)))
        return skip + h


class Renderer(nn.Module):
    """Codes [B,N,D] -> video [B,T,H,W,channels] in [-1, 1], float32; each of the N codes makes T/N frames.

    A dense layer makes the coarsest grid, `widths[0]` channels each; each stage but the last brings it to the next
    width, the last to pixels.

    Attributes:
      widths, factors: of the stages, as many of each.
    """

    size: Triple  # (T, H, W), multiples of the product of the factors
    widths: Sequence[int]
    factors: Sequence[Triple]
    norm: str = "batch"  # one of `nn.norm.NORMS`
    residual: bool = False  # stages are `ResidualUpsample` instead of single transposed convolutions
    modulated: bool = False  # the codes also set the styles of every `Activation`
    channels: int = 3
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, codes: jax.Array, train: bool) -> jax.Array:
        expect("[B,N,D]", float, codes=codes)
        shared = {"norm": self.norm, "axis_name": self.axis_name, "dtype": self.dtype}
        styles = codes if self.modulated else None
        batch, count = codes.shape[:2]
        time, height, width = (n // f for n, f in zip(self.size, total_factor(self.factors), strict=True))
        grid = (time // count, height, width, self.widths[0])
        x = nn.Dense(math.prod(grid), dtype=self.dtype)(codes.reshape(batch * count, -1))
        x = x.reshape(batch, time, height, width, -1)
        for features, factor in zip(self.widths[1:], self.factors, strict=False):
            if self.residual:
                x = ResidualUpsample(features=features, factor=factor, **shared)(x, styles, train)
            else:
                x = Upsample(features=features, factor=factor, dtype=self.dtype)(Activation(**shared)(x, styles, train))
        # Within the straight part of tanh: black and white samples hardly get a gradient.
        to_pixels = Upsample(features=self.channels, factor=self.factors[-1], gain=INITIAL_VARIANCE, dtype=self.dtype)
        return nn.tanh(to_pixels(Activation(**shared)(x, styles, train)).astype(jnp.float32))


class ColorGradient(nn.Module):
    """Codes [B,1,D] -> a frame [B,1,H,W,3] in [-1, 1], float32: a bilinear gradient between the colors of its corners.

    Attributes:
      soft: softsign instead of tanh, whose gradient does not vanish at black and white: saturated colors come back, as
        they do by themselves where a condition says which are wanted.
    """

    size: tuple[int, int]  # (H, W)
    soft: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, codes: jax.Array, train: bool) -> jax.Array:
        to_hidden = nn.Dense(GRADIENT_FEATURES, dtype=self.dtype, kernel_init=variance_preserving())
        to_corners = nn.Dense(4 * 3, dtype=self.dtype, kernel_init=variance_preserving(0.3))
        corners = to_corners(leaky_relu(to_hidden(codes[:, 0]))).astype(jnp.float32)
        colors = nn.soft_sign(4 * corners) if self.soft else nn.tanh(corners)
        return color_gradient(colors.reshape(-1, 2, 2, 3), self.size)


class Compositor(nn.Module):
    """Codes [B,N,D] -> video [B,T,H,W,C]: as rendered, or a rendered mask between a foreground and a background.

    With a background these are the two streams of Vondrick et al. (2016, section 3.2).

    Attributes:
      renderer: of the video; with a background, of the foreground and, in one channel more, of the mask; with a
        foreground as well, of the mask alone.
      background, foreground: modules for static frames, from codes of the whole clip; None: there is no such layer.
      static_conditioned: these codes depend on the condition. Where colors may follow the class, all samples of a class
        become alike, and a discriminator that follows the colors teaches no outlines.
    """

    preserve_adopted_names = True  # a submodule's own name leads to its parameters

    renderer: nn.Module
    background: nn.Module | None = None
    foreground: nn.Module | None = None
    static_conditioned: bool = True

    def static_codes(self, noise: jax.Array, condition: jax.Array | None) -> jax.Array:
        """The codes [B,1,D] of the static frames, from noise [B,noise] and a condition [B,F] or None."""
        return concatenate(noise, condition if self.static_conditioned else None)[:, None]

    def __call__(self, codes: jax.Array, static_codes: jax.Array, train: bool) -> jax.Array:
        """Codes [B,N,D] of the renderer, and [B,1,D'] of the static frames -> video."""
        if self.background is None:
            return self.renderer(codes, train)
        foreground, mask, background = self.layers(codes, static_codes, train)
        return mask * foreground + (1 - mask) * background

    def layers(self, codes: jax.Array, static_codes: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The foreground, the mask [B,T,H,W,1] in [0, 1], and the background."""
        assert self.background is not None
        rendered = self.renderer(codes, train)
        foreground = self.foreground(static_codes, train) if self.foreground else rendered[..., :-1]
        return foreground, (rendered[..., -1:] + 1) / 2, self.background(static_codes, train)


def concatenate(noise: jax.Array, condition: jax.Array | None) -> jax.Array:
    """Noise [B,D] and a condition [B,F] as one code [B,D+F]; the noise where there is no condition."""
    return noise if condition is None else jnp.concatenate([noise, condition], -1)


class Critique(NamedTuple):
    """A discriminator's output for N parts of each video: the whole (N=1), or its frames."""

    logits: jax.Array  # [B,N], above 0 for real
    classes: jax.Array | None  # logits of the classes [B,N,K]; None without an auxiliary classifier
    features: tuple[jax.Array, ...]  # of all layers, for feature matching


class Limited(nn.Module):
    """A layer, or the same with its kernel divided by its largest singular value (Miyato et al., 2018)."""

    layer: nn.Module
    spectral: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.SpectralNorm(self.layer)(x, update_stats=train) if self.spectral else self.layer(x)


class Trunk(nn.Module):
    """Video [B,T,H,W,C] -> features after each stage; the last [B,T/t,H/h,W/w,widths[-1]].

    The mirror of `Renderer`: strided convolutions, each but the first behind a norm, all with leaky ReLU; `residual`
    adds the mean-pooled input, mapped by a 1x1x1 convolution. With `deviation` the last features have one channel more,
    see `nn.norm.Deviation`; `pooled` adds features [B,T/t,2*C], the mean and the maximum of these over space, which do
    not depend on where something is.
    """

    widths: Sequence[int]
    factors: Sequence[Triple]
    norm: str = "batch"
    residual: bool = False
    spectral: bool = False
    deviation: bool = False
    pooled: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        def convolve(h: jax.Array, **fields: Any) -> jax.Array:
            return Limited(layer=Conv(dtype=self.dtype, **fields), spectral=self.spectral)(h, train)

        x, features = video, []
        for index, (width, factor) in enumerate(zip(self.widths, self.factors, strict=True)):
            strided = {"kernel_size": kernel_size(factor), "strides": factor, "kernel_init": variance_preserving()}
            h = convolve(x, features=width, **strided)
            if index:
                h = Normalization(kind=self.norm, axis_name=self.axis_name, dtype=self.dtype)(h, train)
            h = leaky_relu(h)
            if self.residual:
                h = convolve(h, features=width, kernel_size=(3, 3, 3))
                h += convolve(nn.avg_pool(x, factor, factor), features=width, kernel_size=(1, 1, 1))
            x = h
            features.append(x)
        if self.deviation:
            features[-1] = Deviation(axis_name=self.axis_name)(x, train)
        if self.pooled:
            features.append(jnp.concatenate([features[-1].mean((2, 3)), features[-1].max((2, 3))], -1))
        return tuple(features)


class Head(nn.Module):
    """Features [B,N,D] and a condition [B,F] or None -> logits [B,N], and logits of `classes` [B,N,K] if there are any.

    A condition is either projected (Miyato and Koyama, 2018: its map's inner product with the features is added to the
    logit) or concatenated to the features, before one more dense layer.
    """

    classes: int = 0
    projection: bool = True
    spectral: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None, train: bool) -> tuple[jax.Array, jax.Array | None]:
        def dense(features: int, y: jax.Array) -> jax.Array:
            return Limited(layer=nn.Dense(features, dtype=self.dtype), spectral=self.spectral)(y, train)

        classes = dense(self.classes, x).astype(jnp.float32) if self.classes else None
        if condition is not None and not self.projection:
            repeated = jnp.broadcast_to(condition[:, None], (*x.shape[:2], condition.shape[-1]))
            x = leaky_relu(dense(HEAD_FEATURES, jnp.concatenate([x, repeated], -1)))
        logits = dense(1, x)[..., 0].astype(jnp.float32)
        if condition is not None and self.projection:
            projected = dense(x.shape[-1], condition)[:, None]
            logits += jnp.sum(x.astype(jnp.float32) * projected, -1) * x.shape[-1] ** -0.5
        return logits, classes


def sample_frames(video: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
    """[B,T,H,W,C] -> [B,count,H,W,C]: every (T/count)-th frame of each video, of the next video one later.

    So all times are equally frequent in a batch. Under pmap `axis_name` tells how many videos come before.
    """
    frames = video.shape[1]
    before: Any = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(video)
    times = (before + jnp.arange(len(video))[:, None] + jnp.arange(count) * frames // count) % frames
    return jnp.take_along_axis(video, times[..., None, None, None], axis=1)


class Discriminator(nn.Module):
    """Video [B,T,H,W,3] and a condition [B,F] or None -> a critique of the whole, or of each of its frames.

    Frames are judged by a trunk that keeps time: factors and kernels of 1 there. Pooled features pass one dense layer
    more.

    Attributes:
      frames: how many frames of each video are judged in training, see `sample_frames` (Tulyakov et al., 2018, judge
        one; outside training it is all of them); None: the video as a whole.
    """

    trunk: Trunk
    head: Head
    frames: int | None = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> Critique:
        expect("[B,T,H,W,3]", float, video=video)
        if self.frames and train:
            video = sample_frames(video, self.frames, self.trunk.axis_name)
        features = self.trunk(video, train)
        rows = features[-1].reshape(len(video), video.shape[1] if self.frames else 1, -1)
        if self.trunk.pooled:
            dense = nn.Dense(HEAD_FEATURES, dtype=self.head.dtype, kernel_init=variance_preserving())
            rows = leaky_relu(Limited(layer=dense, spectral=self.head.spectral)(rows, train))
        return Critique(*self.head(rows, condition, train), features)


class Conditioned(nn.Module):
    """A generator or a discriminator, and the encoder of its conditions (None where there are none)."""

    network: nn.Module
    encoder: nn.Module | None = None

    def __call__(self, x: Any, conditions: Mapping[str, jax.Array], train: bool) -> Any:
        """Noise or video, and conditions by name -> what the network makes of it and of the conditions' vector."""
        return self.network(x, self.encoder(conditions).vector if self.encoder else None, train)


class Panel(nn.Module):
    """Several discriminators, each with its own parameters, on the same videos."""

    members: Sequence[nn.Module]

    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> tuple[Critique, ...]:
        """Video [B,T,H,W,3] and a condition [B,F] or None -> a critique by each."""
        return tuple(member(video, condition, train) for member in self.members)
