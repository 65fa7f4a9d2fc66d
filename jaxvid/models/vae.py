"""Variational autoencoders of video: every frame alone, frames tied over time, or a three-dimensional latent grid.

Latents have names, which keep those of the whole clip and those of a frame apart: swapping the content of two clips is
`{**z, "content": other["content"]}`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import vqvae
from jaxvid.nn.activation import SLOPE, leaky_relu, variance_preserving
from jaxvid.nn.compositing import bounded_poses, color_gradient, composite, squared_radius
from jaxvid.nn.conv import Conv, ConvTranspose
from jaxvid.shapes import expect, expect_equal

Latents = dict[str, jax.Array]
Conditions = Mapping[str, jax.Array]
SHARP = -4.0  # log variance about which posteriors start: learning begins with little noise
# There are no norms: they hide how bright a frame is, and made learning slower. So the variance of features must
# survive nine layers: a layer's activation halves it, and of the taps of a transposed convolution whose kernel is twice
# its stride one in four meets an output.
INIT = variance_preserving()
TRANSPOSED_INIT = variance_preserving(4 * 2 / (1 + SLOPE**2))


class Gaussian(NamedTuple):
    """Independent normal distributions: means and logarithms of variances, of the same shape, float32."""

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """Standard normal `noise` of the same shape -> a sample; differentiable in both parameters."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


Gaussians = dict[str, Gaussian]


class GaussianDense(nn.Module):
    """Features [..., F] -> Gaussian over [..., features], by one dense layer; log variances start about `shift`."""

    features: int
    dtype: Any = None
    shift: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> Gaussian:
        parameters = nn.Dense(2 * self.features, dtype=self.dtype)(x).astype(jnp.float32)
        mean, log_variance = jnp.split(parameters, 2, axis=-1)
        return Gaussian(mean, log_variance + self.shift)


class FrameFeatures(nn.Module):
    """Video [B,T,H,W,C] -> features [B,T,hidden] of each frame by itself.

    One convolution for each of the strides, its kernel twice as large, to `width`, 2 `width`, 4 `width` ... channels;
    then a dense layer. Raises ValueError for frames that the strides' product does not divide.
    """

    width: int
    hidden: int
    strides: tuple[int, ...] = (2, 2, 2)
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        expect("[B,T,H,W,C]", float, video=video)
        factor = math.prod(self.strides)
        if any(size % factor for size in video.shape[2:4]):
            raise ValueError(f"A frame's height and width must be multiples of {factor}, got {video.shape[2:4]}.")
        x = video
        for level, stride in enumerate(self.strides):
            kernel, strides = (1, 2 * stride, 2 * stride), (1, stride, stride)
            x = Conv(self.width * 2**level, kernel, strides, dtype=self.dtype, kernel_init=INIT)(x)
            x = leaky_relu(x)
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=INIT)(x.reshape(*x.shape[:2], -1))
        return leaky_relu(x)


class FrameEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"frames": Gaussian over [B,T,dim]}: every frame by itself (Kingma and Welling 2014)."""

    dim: int
    width: int
    hidden: int
    strides: tuple[int, ...] = (2, 2, 2)
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> Gaussians:
        to_features = FrameFeatures(width=self.width, hidden=self.hidden, strides=self.strides, dtype=self.dtype)
        to_gaussian = GaussianDense(features=self.dim, dtype=self.dtype, shift=SHARP)
        return {"frames": to_gaussian(to_features(video))}


class TemporalEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"content": Gaussian over [B,content], "motion": Gaussian over [B,T,motion]}.

    Features of frames attend to each other over the whole clip, to and fro in time. Content, one code a clip, is read
    from their mean; motion, one small code a frame, from each frame's. Any number of frames serves. Raises ValueError
    where `hidden` is no multiple of `heads`.
    """

    content: int
    motion: int
    heads: int
    width: int
    hidden: int
    strides: tuple[int, ...] = (2, 2, 2)
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> Gaussians:
        x = FrameFeatures(width=self.width, hidden=self.hidden, strides=self.strides, dtype=self.dtype)(video)
        placed = nn.LayerNorm(dtype=self.dtype)(x) + positions(x.shape[1], self.hidden).astype(x.dtype)
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, force_fp32_for_softmax=True)
        x = x + attention(placed)
        return {
            "content": GaussianDense(features=self.content, dtype=self.dtype, shift=SHARP)(x.mean(1)),
            "motion": GaussianDense(features=self.motion, dtype=self.dtype, shift=SHARP)(x),
        }


class FrameDecoder(nn.Module):
    """Latents -> video [B,T,H,W,channels], float32, every frame from its own latents and those of the clip.

    The mirror of `FrameFeatures`: two dense layers, then a transposed convolution for each of the strides, from the
    last to the first. Latents [B,D] serve all frames of the clip, latents [B,T,D] one frame each; at least one is such.
    A condition is one more of the former.
    """

    size: tuple[int, int]  # height and width
    width: int
    hidden: int
    strides: tuple[int, ...] = (2, 2, 2)
    channels: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Latents, train: bool) -> jax.Array:
        frames = max(part.shape[1] for part in z.values() if part.ndim == 3)
        parts = [z[name] for name in sorted(z)]
        over_time = [part if part.ndim == 3 else jnp.repeat(part[:, None], frames, 1) for part in parts]
        x = jnp.concatenate(over_time, -1)
        factor, widest = math.prod(self.strides), self.width * 2 ** (len(self.strides) - 1)
        shape = (*(size // factor for size in self.size), widest)
        for features in (self.hidden, math.prod(shape)):
            x = leaky_relu(nn.Dense(features, dtype=self.dtype, kernel_init=INIT)(x))
        x = x.reshape(*x.shape[:2], *shape)
        *inner, last = [((1, 2 * stride, 2 * stride), (1, stride, stride)) for stride in reversed(self.strides)]
        for halvings, (kernel, strides) in enumerate(inner, start=1):
            features = widest // 2**halvings
            x = ConvTranspose(features, kernel, strides, dtype=self.dtype, kernel_init=TRANSPOSED_INIT)(x)
            x = leaky_relu(x)
        return ConvTranspose(self.channels, *last, dtype=self.dtype)(x).astype(jnp.float32)


class LayeredDecoder(nn.Module):
    """{"content": [B,D], "motion": [B,T,M]} -> video [B,T,H,W,C], float32: a foreground over a static background.

    From the content (and a condition, where there is one) come the mask of the foreground, and the corner colors of
    foreground and background; from the motion the place, the size and the turn of the foreground in each frame. So
    appearance and motion are separate by construction, and outlines stay sharp while they move.
    """

    preserve_adopted_names = True  # a submodule's own name leads to its parameters

    renderer: FrameDecoder  # of one square frame of one channel: logits of the mask
    size: tuple[int, int]  # height and width
    channels: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Latents, train: bool) -> jax.Array:
        def two_layers(features: int, x: jax.Array) -> jax.Array:
            hidden = leaky_relu(nn.Dense(self.renderer.hidden, dtype=self.dtype, kernel_init=INIT)(x))
            return nn.Dense(features, dtype=self.dtype)(hidden).astype(jnp.float32)

        content = jnp.concatenate([part for name, part in sorted(z.items()) if name != "motion"], -1)
        corners = two_layers(2 * 4 * self.channels, content).reshape(-1, 2, 2, 2, self.channels)
        # Before training the mask is a soft spot in the middle, near every object.
        side = self.renderer.size[0]
        spot = 2 - 6 * squared_radius(side)
        mask = nn.sigmoid(self.renderer({"content": content[:, None]}, train)[:, 0] + spot)
        # Slowly: where the foreground learns to move before it has colors, it moves out of the way, and stays there.
        poses = bounded_poses(two_layers(4, z["motion"]) / 8)
        foreground, background = (
            color_gradient(corners[:, index], size) for index, size in enumerate(((side, side), self.size))
        )
        return composite(background, foreground[:, 0], mask, poses)


class GridEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"grid": Gaussian over [B,T/t,H/h,W/w,dim]}; `network` gives 2 `dim` features a place."""

    network: vqvae.Encoder

    def __call__(self, video: jax.Array, train: bool) -> Gaussians:
        """Video -> the posterior."""
        parameters = self.network(video, train).astype(jnp.float32)
        return {"grid": Gaussian(*jnp.split(parameters, 2, axis=-1))}


class GridDecoder(nn.Module):
    """{"grid": [B,T/t,H/h,W/w,dim]} -> video [B,T,H,W,C], float32; a "condition" [B,F] is the same at every place."""

    network: vqvae.Decoder

    @property
    def channels(self) -> int:
        """Of the video."""
        return self.network.channels

    def __call__(self, z: Latents, train: bool) -> jax.Array:
        """Latents -> video."""
        grid = z["grid"]
        if "condition" in z:
            condition = z["condition"][:, None, None, None]
            repeated = jnp.broadcast_to(condition, (*grid.shape[:-1], condition.shape[-1]))
            grid = jnp.concatenate([grid, repeated], -1)
        return self.network(grid, train)


class StandardPrior(nn.Module):
    """Every latent is standard normal whatever the condition, and there is nothing to learn."""

    def __call__(self, z: Latents, condition: jax.Array | None) -> Gaussians:
        """The prior at latents z, in their shapes."""
        return {name: Gaussian(jnp.zeros(part.shape), jnp.zeros(part.shape)) for name, part in z.items()}

    def sample(self, noise: Latents, condition: jax.Array | None) -> Latents:
        """Standard normal noise -> latents: itself."""
        return noise


class RecurrentStep(nn.Module):
    """One step of `RecurrentPrior`: the prior of latents given those before, and the memory of them after."""

    memory: int

    @nn.compact
    def __call__(self, state: jax.Array, inputs: jax.Array, sampling: bool) -> tuple[jax.Array, tuple]:
        """Memory [B,memory] and latents or, sampling, their noise [B,D] -> new memory, and (the prior, the latents)."""
        prior = GaussianDense(features=inputs.shape[-1])(state)
        z = jnp.where(sampling, prior.sample(inputs), inputs)
        state, _ = nn.GRUCell(self.memory)(state, z)
        return state, (prior, z)


class RecurrentPrior(nn.Module):
    """p(content) p(motion), each one normal distribution after another, from a GRU that has read those before.

    That of motion z_t has read z_<t, the prior of Chung et al. 2015 (VRNN, eq. 5) with a memory of the latents alone:
    videos are sampled without decoding them on the way. That of the content goes through its dimensions in the same
    way: encoders leave them correlated, and samples of independent ones look unlike the data. Content and motion are
    independent, so that either can be exchanged. The initial memory depends on the condition [B,F].
    """

    memory: int

    def setup(self) -> None:
        scan = nn.scan(
            RecurrentStep,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(1, nn.broadcast),
            out_axes=1,
        )
        self.steps = {name: scan(memory=self.memory) for name in ("content", "motion")}
        self.first = {name: nn.Dense(self.memory) for name in ("content", "motion")}

    def __call__(self, z: Latents, condition: jax.Array | None) -> Gaussians:
        """The prior at latents z; each given those before it alone."""
        return {name: Gaussian(*self._unroll(name, part, condition, sampling=False)[:2]) for name, part in z.items()}

    def sample(self, noise: Latents, condition: jax.Array | None) -> Latents:
        """Standard normal noise -> latents, one after another."""
        return {name: self._unroll(name, part, condition, sampling=True)[2] for name, part in noise.items()}

    def _unroll(self, name: str, inputs: jax.Array, condition: jax.Array | None, sampling: bool) -> list[jax.Array]:
        """Means, logarithms of variances, and latents, in the shape of the inputs."""
        memory = jnp.zeros((len(inputs), self.memory))
        if condition is not None:
            memory = jnp.tanh(self.first[name](condition))
        steps = inputs if name == "motion" else inputs[..., None]
        prior, z = self.steps[name](memory, steps, sampling)[1]
        return [x.reshape(inputs.shape) for x in (*prior, z)]


class VAE(nn.Module):
    """Encoder, decoder, prior (Kingma and Welling 2014); conditional as by Sohn et al. (2015).

    Attributes:
      prior: (latents, condition) -> prior Gaussians, each given the latents before it; `sample`: (standard normal noise
        in the shapes of the latents, condition) -> latents.
      condition_encoder: conditions -> `nn.condition.Encoded`, whose vector [B,F] decoder and prior depend on; None
        where there are no conditions.
    """

    preserve_adopted_names = True  # a submodule's own name leads to its parameters

    encoder: nn.Module  # (video, train) -> posterior Gaussians; not of the condition, which shows in the video
    decoder: nn.Module  # (latents, train) -> video, or logits of it
    prior: nn.Module
    condition_encoder: nn.Module | None = None

    def __call__(
        self, video: jax.Array, noise: Latents, train: bool, conditions: Conditions | None = None
    ) -> tuple[Gaussians, Gaussians, jax.Array]:
        """Video [B,T,H,W,C] in [-1, 1] -> posterior, prior, and the decoder's output for a sample of the posterior.

        Args:
          noise: standard normal, in the shapes of the latents; zeros for the posterior's means.
          conditions: by name, where there are any.
        """
        posterior, condition = self.encode(video, train), self.encode_conditions(conditions)
        for name, gaussian in posterior.items():
            expect_equal("[...]", float, **{name: gaussian.mean, f"noise of {name}": noise[name]})
        z = {name: gaussian.sample(noise[name]) for name, gaussian in posterior.items()}
        return posterior, self.prior(z, condition), self.decode(z, condition, train)

    def encode_conditions(self, conditions: Conditions | None) -> jax.Array | None:
        """Conditions by name -> [B,F]; None without."""
        return self.condition_encoder(conditions).vector if self.condition_encoder else None

    def encode(self, video: jax.Array, train: bool = False) -> Gaussians:
        """Video [B,T,H,W,C] in [-1, 1] -> the posterior of each latent."""
        expect(f"[B,T,H,W,{getattr(self.decoder, 'channels', 'C')}]", float, video=video)
        return self.encoder(video, train)

    def decode(self, z: Latents, condition: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Latents and a condition [B,F] or None -> video [B,T,H,W,C], or logits of it, not clipped."""
        return self.decoder(z if condition is None else {**z, "condition": condition}, train)


def means(posterior: Gaussians) -> Latents:
    """The mean of every latent."""
    return {name: gaussian.mean for name, gaussian in posterior.items()}


def bind(model: VAE, params: Mapping[str, Any]) -> VAE:
    """The model with its parameters, those of the posterior under "encoder" and all others under "decoder"."""
    return model.bind(variables(params))


def variables(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model, from its parameters by player."""
    return {"params": {"encoder": params["encoder"], **params["decoder"]}}


def per_dimension(values: jax.Array) -> jax.Array:
    """Sums [B,...,D] over frames and places to [B,D]."""
    return values.reshape(len(values), -1, values.shape[-1]).sum(1)


def positions(frames: int, channels: int) -> jax.Array:
    """Sines and cosines [frames, channels] of the frame's number (Vaswani et al. 2017, section 3.5)."""
    rates = 10_000.0 ** (-jnp.arange((channels + 1) // 2) / ((channels + 1) // 2))
    angles = jnp.arange(frames)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)[:, :channels]
