"""Networks that translate videos: generators of any height, width and length, and discriminators of patches.

A generator is an `Encoder`, a `Trunk` of residual blocks and a `Decoder` (Johnson et al., 2016; Zhu et al., 2017,
section 7.1, which have images). All convolutions are within a frame, but for those over three frames in each block of a
trunk with `taps`; none is strided in time, so that a video may have any number of frames. Norms are over each frame:
the translation of a part of a video is a part of the translation (Ulyanov et al., 2016, for images).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import Activation, Critique, Panel, Upsample
from jaxvid.models.gan_blocks import Trunk as Stages
from jaxvid.names import choice
from jaxvid.nn.activation import leaky_relu, variance_preserving
from jaxvid.nn.attention import AxialAttention
from jaxvid.nn.conv import Conv, Triple
from jaxvid.shapes import expect

HALF: Triple = (1, 2, 2)  # the factor of a stage
INITIAL_MASK = -2.0  # its logit before training: an eighth of a frame is new
INITIAL_VARIANCE = 1e-3  # of the colors, and of what taps in time add, before training
COLOR_FEATURES = 16  # of mean colors, which a discriminator judges by themselves
NORMS = ("frame", "none")  # those that look at no other frame
OUTPUTS = ("direct", "masked", "residual")


class Encoder(nn.Module):
    """Video [B,T,H,W,3] -> features at each scale: [B,T,H,W,widths[0]], half as high and wide with each further width.

    Raises ValueError where H or W is no multiple of 2^(len(widths) - 1).
    """

    widths: Sequence[int]
    kernel: int = 3  # pixels of the first convolution
    norm: str = "frame"
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        features: list[jax.Array] = []
        x = video
        for index, width in enumerate(self.widths):
            size, strides = (4, HALF) if index else (self.kernel, (1, 1, 1))
            x = Conv(width, (1, size, size), strides, dtype=self.dtype, kernel_init=variance_preserving())(x)
            x = Activation(norm=self.norm, dtype=self.dtype)(x, None, train)
            features.append(x)
        return tuple(features)


class Block(nn.Module):
    """x + two 3x3 convolutions of each frame, the first behind a norm that a code [B,D] or None modulates.

    With `taps` a convolution over three frames stands between them.
    """

    norm: str = "frame"
    taps: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array | None, train: bool) -> jax.Array:
        def convolve(h: jax.Array, shape: Triple, gain: float = 1.0) -> jax.Array:
            return Conv(x.shape[-1], shape, dtype=self.dtype, kernel_init=variance_preserving(gain))(h)

        codes = None if code is None else code[:, None]
        h = convolve(x, (1, 3, 3))
        h = Activation(norm=self.norm, dtype=self.dtype)(h, codes, train)
        if self.taps:
            h = h + convolve(h, (3, 1, 1), INITIAL_VARIANCE)
        return x + convolve(h, (1, 3, 3), 0.1)


class Trunk(nn.Module):
    """Features [B,T,h,w,C] and a code [B,D] or None -> the same shape: residual blocks.

    Attributes:
      window: of the axial attention in the middle, in frames to each side; 0: there is none. It is added behind a
        factor that is 0 before training (Zhang et al., 2019, equation 3).
    """

    blocks: int
    norm: str = "frame"
    taps: bool = False
    window: int = 0
    heads: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array | None, train: bool) -> jax.Array:
        for index in range(self.blocks):
            x = Block(norm=self.norm, taps=self.taps, dtype=self.dtype)(x, code, train)
            if self.window and index == self.blocks // 2:
                attended = AxialAttention(heads=self.heads, window=self.window, dtype=self.dtype)(x)
                x = x + self.param("gate", nn.initializers.zeros, ()).astype(x.dtype) * attended
        return x

    @property
    def radius(self) -> int:
        """How many frames to each side a frame depends on."""
        return self.blocks * self.taps + self.window


class Decoder(nn.Module):
    """Features of the trunk, those of the encoder, the video and a code [B,D] or None -> video [B,T,H,W,3] in [-1, 1].

    Attributes:
      skips: each stage also reads the encoder's features of its scale, and the last one the video (U-Net, Ronneberger
        et al., 2015; Isola et al., 2017).
      output: "direct"; "residual", what is added to the video, small at first; or "masked", a mask m between new colors
        p and the video, m p + (1 - m) x, with m small at first (Chen et al., 2018, Attention-GAN): what the mask leaves
        out cannot flicker.
    """

    widths: Sequence[int]
    kernel: int = 3  # pixels of the last convolution
    norm: str = "frame"
    skips: bool = False
    output: str = "direct"
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, features: Sequence[jax.Array], video: jax.Array, code: jax.Array | None, train: bool
    ) -> jax.Array:
        codes = None if code is None else code[:, None]
        for index in reversed(range(len(self.widths) - 1)):
            x = Upsample(features=self.widths[index], factor=HALF, mirrored=True, dtype=self.dtype)(x)
            x = Activation(norm=self.norm, dtype=self.dtype)(x, codes, train)
            if self.skips:
                x = jnp.concatenate([x, features[index]], -1)
        if self.skips:
            x = jnp.concatenate([x, video.astype(x.dtype)], -1)
        shape: Triple = (1, self.kernel, self.kernel)
        pixels = Conv(
            3 + (self.output == "masked"), shape, dtype=self.dtype, kernel_init=variance_preserving(INITIAL_VARIANCE)
        )(x)
        pixels = pixels.astype(jnp.float32)
        if self.output == "direct":
            return nn.tanh(pixels)
        if self.output == "residual":
            return (video + pixels).clip(-1, 1)
        mask = nn.sigmoid(pixels[..., 3:] + INITIAL_MASK)
        return mask * nn.tanh(pixels[..., :3]) + (1 - mask) * video


class Generator(nn.Module):
    """Video [B,T,H,W,3] and a code [B,D] or None -> video of that shape, in [-1, 1], float32; any T, H and W.

    A video whose sides are no multiples of the encoder's factor is reflected at the right and lower edges, and cut
    again; one too small for this is repeated at its edges.
    """

    encoder: Encoder
    trunk: Trunk
    decoder: Decoder

    def __call__(self, video: jax.Array, code: jax.Array | None = None, train: bool = False) -> jax.Array:
        return translate(self, self, self, video, code, train)

    def encode(self, video: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """See `Encoder`."""
        return self.encoder(video, train)

    def transform(self, x: jax.Array, code: jax.Array | None, train: bool) -> jax.Array:
        """See `Trunk`."""
        return self.trunk(x, code, train)

    def decode(
        self, x: jax.Array, features: Sequence[jax.Array], video: jax.Array, code: jax.Array | None, train: bool
    ) -> jax.Array:
        """See `Decoder`."""
        return self.decoder(x, features, video, code, train)


def translate(
    first: Generator, middle: Generator, last: Generator, video: jax.Array, code: jax.Array | None, train: bool
) -> jax.Array:
    """What the encoder of the first, the trunk of the middle and the decoder of the last generator make of a video."""
    expect("[B,T,H,W,3]", float, video=video)
    height, width = video.shape[2:4]
    padded = pad_to_multiple(video, 2 ** (len(first.encoder.widths) - 1))
    features = first.encode(padded, train)
    x = middle.transform(features[-1], code, train)
    return last.decode(x, features, padded, code, train)[:, :, :height, :width]


class TwoDomains(nn.Module):
    """Generators between two domains, 0 and 1.

    Attributes:
      generators: one for each domain to which videos are translated (Zhu et al., 2017). With `shared` they have one
        trunk, and the encoders belong to the domains that they read: both directions go through one trunk between two
        ends, and a video may also be translated to its own domain.
    """

    generators: Sequence[Generator]
    shared: bool = False

    def __call__(self, video: jax.Array, origin: int, target: int, train: bool = False) -> jax.Array:
        """A video [B,T,H,W,3] of the domain `origin` -> the domain `target`, which may be the same."""
        last = self.generators[target]
        first, middle = (self.generators[1 - origin], self.generators[0]) if self.shared else (last, last)
        return translate(first, middle, last, video, None, train)

    def both(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A video translated in both directions, by all parameters."""
        return self(video, 0, 1), self(video, 1, 0)


class PatchDiscriminator(nn.Module):
    """Video [B,T,H,W,C] -> a critique of its patches (Isola et al., 2017, section 2.2.2), each of some frames.

    Frames are stacked in channels, so that convolutions are within frames: `frames` of them, `stride` apart, from each
    frame on. With `classes` the features, averaged over all patches, are classified as well.

    Convolutions see each frame without its mean color, which layers of their own judge. Where it differs much from
    video to video (day and night, exposure) it hides all else: of outlines and filled shapes on random backgrounds 59 %
    were told apart after 200 steps, and 89 % without it.
    """

    stages: Stages
    frames: int = 1
    stride: int = 1
    classes: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: None = None, train: bool = False) -> Critique:
        count = video.shape[1] - (self.frames - 1) * self.stride
        if count < 1:
            needed = (self.frames - 1) * self.stride + 1
            raise ValueError(f"A discriminator of {self.frames} frames, {self.stride} apart, needs {needed}.")
        means = video.mean((2, 3), keepdims=True)
        stacked, colors = (
            jnp.concatenate([x[:, i * self.stride : i * self.stride + count] for i in range(self.frames)], -1)
            for x in (video - means, means)
        )
        features = self.stages(stacked, train)
        last = features[-1].astype(jnp.float32)
        colors = leaky_relu(nn.Dense(COLOR_FEATURES)(colors))

        def of_colors(count: int) -> jax.Array:
            return nn.Dense(count, use_bias=False, kernel_init=nn.initializers.zeros)(colors)

        logits = Conv(1, (1, 3, 3), dtype=self.dtype)(features[-1]).astype(jnp.float32) + of_colors(1)
        classes = None
        if self.classes:
            classes = nn.Dense(self.classes)(last.mean((1, 2, 3))) + of_colors(self.classes).mean((1, 2, 3))
            classes = classes[:, None]
        return Critique(logits.reshape(len(video), -1), classes, features)


def pad_to_multiple(video: jax.Array, factor: int) -> jax.Array:
    """[B,T,H,W,C] with H and W enlarged to multiples of `factor`, as `Generator` says."""
    for axis in (2, 3):
        size = video.shape[axis]
        missing = -size % factor
        pads = [(0, missing if each == axis else 0) for each in range(5)]
        video = jnp.pad(video, pads, mode="reflect" if missing < size else "edge")
    return video


def make_generator(options: Mapping[str, Any], dtype: Any = None) -> Generator:
    """A generator from `config.model.generator`; configs/cyclegan.py documents the fields.

    Raises ValueError: a field has no such value, or sizes do not fit.
    """
    field = "model.generator"
    name = choice(f"{field}.name", options["name"], ("resnet", "unet"))
    norm = choice(f"{field}.norm", options["norm"], NORMS)
    output = choice(f"{field}.output", options["output"], OUTPUTS)
    widths, window, heads = tuple(options["widths"]), options["window"], options["heads"]
    if not widths or min(*widths, options["blocks"], options["kernel"], heads) < 1 or window < 0:
        raise ValueError(f"{field} is {dict(options)}, expected widths, blocks, kernel and heads of at least 1.")
    if window and widths[-1] % heads:
        raise ValueError(f"{field}.widths end with {widths[-1]}, expected a multiple of {field}.heads={heads}.")
    shared = {"norm": norm, "dtype": dtype}
    return Generator(
        encoder=Encoder(widths=widths, kernel=options["kernel"], **shared),
        trunk=Trunk(blocks=options["blocks"], taps=options["taps"], window=window, heads=heads, **shared),
        decoder=Decoder(widths=widths, kernel=options["kernel"], skips=name == "unet", output=output, **shared),
    )


def make_discriminator(panel: Mapping[str, Any], frames: int, classes: int = 0, dtype: Any = None) -> Panel:
    """A panel of `PatchDiscriminator`s from `config.model.discriminators`, of videos of so many frames.

    Images (one frame) are judged by the members that look at single frames alone.

    Raises ValueError: nobody judges, a field has no such value, or a member looks at more frames than a video has.
    """
    judges = {name: options for name, options in panel.items() if frames > 1 or options["frames"] == 1}
    if not judges:
        empty = "empty" if not panel else f"without one of single frames, and data.frames is {frames}"
        raise ValueError(f"model.discriminators is {empty}: expected one at least, say frames.")
    members = []
    for name, options in judges.items():
        field = f"model.discriminators.{name}"
        widths, count, stride = tuple(options["widths"]), options["frames"], options["stride"]
        if not widths or min(*widths, count, stride) < 1:
            raise ValueError(f"{field} is {dict(options)}, expected numbers of at least 1.")
        if (needed := (count - 1) * stride + 1) > frames:
            raise ValueError(f"{field} looks at {needed} frames, and data.frames is {frames}: set its frames lower.")
        norm = choice(f"{field}.norm", options["norm"], NORMS)
        stages = Stages(widths=widths, factors=(HALF,) * len(widths), norm=norm, dtype=dtype)
        members.append(PatchDiscriminator(stages=stages, frames=count, stride=stride, classes=classes, dtype=dtype))
    return Panel(members=tuple(members))
