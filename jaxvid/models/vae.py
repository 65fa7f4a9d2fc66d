"""Variational autoencoders of video: every frame alone, frames tied over time, or a three-dimensional latent grid.

Latents have names, so that what belongs to the whole clip and what belongs to a frame can be told apart: swapping the
content of two clips is `{**z, "content": other["content"]}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import vqvae
from jaxvid.nn.compositing import eccentricity, ground, in_reach, place_over
from jaxvid.nn.conv import Conv, ConvTranspose

Latents = dict[str, jax.Array]
Conditions = Mapping[str, jax.Array]
SHARP = -4.0  # log variance about which posteriors start: learning begins with little noise
SLOPE = 0.2  # of the leaky ReLU, below 0
# There are no norms: they hide how bright a frame is, and made learning slower. So the variance of features must
# survive nine layers: a layer's activation halves it, and of the taps of a transposed convolution whose kernel is twice
# its stride one in four meets an output.
KEEP = nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_in", "truncated_normal")
KEEP_TRANSPOSED = nn.initializers.variance_scaling(4 * 2 / (1 + SLOPE**2), "fan_in", "truncated_normal")


class Gaussian(NamedTuple):
    """Independent normal distributions: means and logarithms of variances, of the same shape, float32."""

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """What standard normal `noise` of the same shape becomes; differentiable in both parameters."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


Gaussians = dict[str, Gaussian]


def standard_normal(shape: tuple[int, ...]) -> Gaussian:
    """Mean 0 and variance 1 everywhere."""
    return Gaussian(jnp.zeros(shape), jnp.zeros(shape))


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
        factor = math.prod(self.strides)
        if any(size % factor for size in video.shape[2:4]):
            raise ValueError(f"A frame's height and width must be multiples of {factor}, got {video.shape[2:4]}.")
        x = video
        for level, stride in enumerate(self.strides):
            kernel, strides = (1, 2 * stride, 2 * stride), (1, stride, stride)
            x = Conv(self.width * 2**level, kernel, strides, dtype=self.dtype, kernel_init=KEEP)(x)
            x = nn.leaky_relu(x, SLOPE)
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=KEEP)(x.reshape(*x.shape[:2], -1))
        return nn.leaky_relu(x, SLOPE)


class FrameEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"frames": Gaussian over [B,T,dim]}: no frame knows of another (Kingma and Welling 2014)."""

    dim: int
    width: int
    hidden: int
    strides: tuple[int, ...] = (2, 2, 2)
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, train: bool) -> Gaussians:
        features = FrameFeatures(self.width, self.hidden, self.strides, self.dtype)(video)
        return {"frames": GaussianDense(self.dim, self.dtype, SHARP)(features)}


class TemporalEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"content": Gaussian over [B,content], "motion": Gaussian over [B,T,motion]}.

    Features of frames attend to each other over the whole clip, to and fro in time. Content, one code a clip, is made
    of their mean; motion, one small code a frame, of each frame's. Any number of frames serves. Raises ValueError where
    `hidden` is no multiple of `heads`.
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
        x = FrameFeatures(self.width, self.hidden, self.strides, self.dtype)(video)
        placed = nn.LayerNorm(dtype=self.dtype)(x) + positions(x.shape[1], self.hidden).astype(x.dtype)
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, force_fp32_for_softmax=True)
        x = x + attention(placed)
        return {
            "content": GaussianDense(self.content, self.dtype, SHARP)(x.mean(1)),
            "motion": GaussianDense(self.motion, self.dtype, SHARP)(x),
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
            x = nn.leaky_relu(nn.Dense(features, dtype=self.dtype, kernel_init=KEEP)(x), SLOPE)
        x = x.reshape(*x.shape[:2], *shape)
        *inner, last = [((1, 2 * stride, 2 * stride), (1, stride, stride)) for stride in reversed(self.strides)]
        for halvings, (kernel, strides) in enumerate(inner, start=1):
            features = widest // 2**halvings
            x = ConvTranspose(features, kernel, strides, dtype=self.dtype, kernel_init=KEEP_TRANSPOSED)(x)
            x = nn.leaky_relu(x, SLOPE)
        return ConvTranspose(self.channels, *last, dtype=self.dtype)(x).astype(jnp.float32)


class LayeredDecoder(nn.Module):
    """{"content": [B,D], "motion": [B,T,M]} -> video [B,T,H,W,C], float32: an outline that moves over a still ground.

    The content (and a condition, where there is one) paints the outline, and says between which colours of their
    corners the picture within it and the ground lie; the motion says where in each frame the picture is, how large,
    and how turned. So the two are separate by construction, and outlines stay sharp while they move.

    Attributes:
      painter: of one square frame of one channel: how much the picture covers.
      size: height and width.
    """

    painter: FrameDecoder
    size: tuple[int, int]
    channels: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Latents, train: bool) -> jax.Array:
        def two_layers(features: int, x: jax.Array) -> jax.Array:
            hidden = nn.leaky_relu(nn.Dense(self.painter.hidden, dtype=self.dtype, kernel_init=KEEP)(x), SLOPE)
            return nn.Dense(features, dtype=self.dtype)(hidden).astype(jnp.float32)

        content = jnp.concatenate([part for name, part in sorted(z.items()) if name != "motion"], -1)
        corners = two_layers(2 * 4 * self.channels, content).reshape(-1, 2, 2, 2, self.channels)
        # It starts as a soft spot in the middle, from where every object is in reach.
        side = self.painter.size[0]
        spot = 2 - 6 * eccentricity(side)
        cover = nn.sigmoid(self.painter({"content": content[:, None]}, train)[:, 0] + spot)
        # Slowly: where the picture learns to move before it has colours, it moves out of the way, and stays there.
        poses = in_reach(two_layers(4, z["motion"]) / 8)
        front, behind = ground(corners[:, 0], (side, side)), ground(corners[:, 1], self.size)
        return place_over(behind, front[:, 0], cover, poses)


class GridEncoder(nn.Module):
    """Video [B,T,H,W,C] -> {"grid": Gaussian over [B,T/t,H/h,W/w,dim]}; `network` gives 2 `dim` features a place."""

    network: vqvae.Encoder

    def __call__(self, video: jax.Array, train: bool) -> Gaussians:
        parameters = self.network(video, train).astype(jnp.float32)
        return {"grid": Gaussian(*jnp.split(parameters, 2, axis=-1))}


class GridDecoder(nn.Module):
    """{"grid": [B,T/t,H/h,W/w,dim]} -> video [B,T,H,W,C], float32; a "condition" [B,F] is the same at every place."""

    network: vqvae.Decoder

    def __call__(self, z: Latents, train: bool) -> jax.Array:
        grid = z["grid"]
        if "condition" in z:
            everywhere = jnp.broadcast_to(
                z["condition"][:, None, None, None], (*grid.shape[:-1], z["condition"].shape[-1])
            )
            grid = jnp.concatenate([grid, everywhere], -1)
        return self.network(grid, train)


class StandardPrior(nn.Module):
    """Every latent is standard normal whatever the condition, and there is nothing to learn."""

    def __call__(self, z: Latents, told: jax.Array | None) -> Gaussians:
        """The prior at latents z, in their shapes."""
        return {name: standard_normal(part.shape) for name, part in z.items()}

    def draw(self, noise: Latents, told: jax.Array | None) -> Latents:
        """Latents made of standard normal noise: itself."""
        return noise


class RecurrentStep(nn.Module):
    """One step of `RecurrentPrior`: what is known of latents before they are seen, and remembered of them after."""

    memory: int

    @nn.compact
    def __call__(self, state: jax.Array, given: jax.Array, drawing: bool) -> tuple[jax.Array, tuple]:
        """Memory [B,memory] and either latents or their noise [B,D] -> new memory, and (their prior, they)."""
        prior = GaussianDense(given.shape[-1])(state)
        z = jnp.where(drawing, prior.sample(given), given)
        state, _ = nn.GRUCell(self.memory)(state, z)
        return state, (prior, z)


class RecurrentPrior(nn.Module):
    """p(content) p(motion), each one normal distribution after another, from a GRU that has read those before.

    That of motion z_t has read z_<t, the prior of Chung et al. 2015 (VRNN, eq. 5) with a memory of the latents alone:
    videos are drawn without decoding them on the way. That of the content goes through its dimensions in the same way,
    since encoders leave them correlated, and what is drawn as if they were not looks like no data. Content and motion
    are independent, so that either can be exchanged. A condition [B,F] decides what the GRUs remember at first.
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
        self.steps = {name: scan(self.memory) for name in ("content", "motion")}
        self.first = {name: nn.Dense(self.memory) for name in ("content", "motion")}

    def __call__(self, z: Latents, told: jax.Array | None) -> Gaussians:
        """The prior at latents z; each has read those before it alone."""
        return {name: Gaussian(*self._unroll(name, part, told, drawing=False)[:2]) for name, part in z.items()}

    def draw(self, noise: Latents, told: jax.Array | None) -> Latents:
        """Latents made of standard normal noise, one after another."""
        return {name: self._unroll(name, part, told, drawing=True)[2] for name, part in noise.items()}

    def _unroll(self, name: str, given: jax.Array, told: jax.Array | None, drawing: bool) -> list[jax.Array]:
        """Means, logarithms of variances, and latents, in the shape of what is given."""
        memory = jnp.zeros((len(given), self.memory)) if told is None else jnp.tanh(self.first[name](told))
        steps = given if name == "motion" else given[..., None]
        prior, z = self.steps[name](memory, steps, drawing)[1]
        return [x.reshape(given.shape) for x in (*prior, z)]


class VAE(nn.Module):
    """Encoder, decoder, prior (Kingma and Welling 2014); with conditions, what Sohn et al. (2015) make of it.

    Attributes:
      encoder: (video, train) -> posterior Gaussians; it sees what the condition says in the video.
      decoder: (latents, train) -> video, or logits of it.
      prior: (latents, told) -> prior Gaussians, and `draw`.
      condition: conditions -> what decoder and prior are told, [B,F]; None where there are none.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    condition: nn.Module | None = None

    def __call__(
        self, video: jax.Array, noise: Latents, train: bool, given: Conditions | None = None
    ) -> tuple[Gaussians, Gaussians, jax.Array]:
        """Video [B,T,H,W,C] in [-1, 1] -> posterior, prior, and what the decoder makes of a sample of the posterior.

        Args:
          noise: standard normal, in the shapes of the latents; zeros for the posterior's means.
          given: the conditions, where there are any.
        """
        posterior, told = self.encode(video, train), self.tell(given)
        z = {name: gaussian.sample(noise[name]) for name, gaussian in posterior.items()}
        return posterior, self.prior(z, told), self.decode(z, told, train)

    def tell(self, given: Conditions | None) -> jax.Array | None:
        """Conditions -> [B,F]; None without."""
        return self.condition(given) if self.condition else None

    def encode(self, video: jax.Array, train: bool = False) -> Gaussians:
        """Video [B,T,H,W,C] in [-1, 1] -> the posterior of each latent."""
        return self.encoder(video, train)

    def decode(self, z: Latents, told: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Latents -> video [B,T,H,W,C], or logits of it, not clipped."""
        return self.decoder(z if told is None else {**z, "condition": told}, train)

    def prior_of(self, z: Latents, told: jax.Array | None = None) -> Gaussians:
        """The prior of each latent, given those before it."""
        return self.prior(z, told)

    def sample_prior(self, noise: Latents, told: jax.Array | None = None) -> Latents:
        """Standard normal noise, in the shapes of the latents -> latents of the prior."""
        return self.prior.draw(noise, told)


def means(posterior: Gaussians) -> Latents:
    """The mean of every latent."""
    return {name: gaussian.mean for name, gaussian in posterior.items()}


def bind(model: VAE, params: Mapping[str, Any]) -> VAE:
    """The model with its parameters, those of the posterior under "encoder" and all others under "decoder"."""
    return model.bind({"params": {"encoder": params["encoder"], **params["decoder"]}})


def per_dimension(values: jax.Array) -> jax.Array:
    """Sums [B,...,D] over frames and places to [B,D]."""
    return values.reshape(len(values), -1, values.shape[-1]).sum(1)


def positions(frames: int, channels: int) -> jax.Array:
    """Sines and cosines [frames, channels] of the frame's number (Vaswani et al. 2017, section 3.5)."""
    rates = 10_000.0 ** (-jnp.arange((channels + 1) // 2) / ((channels + 1) // 2))
    angles = jnp.arange(frames)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)[:, :channels]
