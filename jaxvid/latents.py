"""Uses of a model with continuous latents: functions of its codec and of latents, dicts of arrays by name.

codec = vae.codec(run.config, run.state)  # jaxvid.methods.vae; run = jaxvid.run.load(workdir)
z = means(codec.encode(video))
codec.decode(swap(content=z, motion=other))
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from jaxvid import losses
from jaxvid.core import normalize
from jaxvid.metrics.image import psnr
from jaxvid.models.vae import Gaussians, Latents, means, per_dimension
from jaxvid.names import choice

PIXEL_BITS = 8


class Codec(NamedTuple):
    """A trained VAE as compiled functions, for any number of frames; of a grid, multiples of its factor.

    Latents are "content" [D] and "motion" [T,D], or "frames" [T,D], or "grid" [T,H,W,D].
    """

    latents: dict[str, tuple[int, ...]]  # {name: shape of one clip's}
    encode: Callable[[jax.Array], Gaussians]  # video [B,T,H,W,3], uint8 or float in [-1, 1] -> the posterior of each
    decode: Callable[[Latents], jax.Array]  # latents -> video [B,T,H,W,3] float32 in [-1, 1]
    prior: Callable[[Latents], Gaussians]  # latents -> the prior of each, that of a frame after those before it
    draw: Callable[[jax.Array, int], Latents]  # (keys [B], frames) -> latents of the prior, a clip's from its own key


def information(codec: Codec, video: jax.Array) -> dict[str, jax.Array]:
    """Nats about a clip in each dimension [D] of each latent, on average: KL(posterior || prior) over all frames.

    Dimensions of next to none change nothing visible: leave them out of traversals.
    """
    posterior = codec.encode(video)
    prior = codec.prior(means(posterior))
    kl = {name: losses.gaussian_kl(*posterior[name], *prior[name]) for name in posterior}
    return {name: per_dimension(part).mean(0) for name, part in kl.items()}


def interpolate(first: Latents, second: Latents, weight: float) -> Latents:
    """Latents on the straight line between those of two clips: `first` at weight 0, `second` at 1."""
    return jax.tree.map(lambda a, b: (1 - weight) * a + weight * b, first, second)


def fill_in(codec: Codec, first: jax.Array, last: jax.Array, frames: int) -> Latents:
    """Latents of clips that go from one frame to another.

    What the whole clip shares is read from both; the latents of the frames between lie on a straight line in time.

    Args:
      codec: with latents of frames.
      first, last: images [B,H,W,3], uint8 or float in [-1, 1].
      frames: at least 2, the two of the user included.

    Raises ValueError: a latent grid, or fewer than two frames.
    """
    if "grid" in codec.latents:
        raise ValueError("A latent grid has no latents of single frames to fill in: train the recipe vae or vae:frame.")
    if frames < 2:
        raise ValueError(f"frames is {frames}, expected at least 2: the first and the last.")
    images = jnp.stack([normalize(first), normalize(last)], 1)
    halves = jnp.repeat(images, jnp.array([frames // 2, frames - frames // 2]), 1, total_repeat_length=frames)
    weight = jnp.linspace(0, 1, frames)[:, None]
    return {
        name: z if z.ndim == 2 else (1 - weight) * z[:, :1] + weight * z[:, -1:]
        for name, z in means(codec.encode(halves)).items()
    }


def traverse(z: Latents, name: str, dimension: int, offsets: Sequence[float]) -> Latents:
    """Latents [1,...] of a clip once for each offset [N], which is added to one dimension in all frames and places.

    Offsets are in units of the latents: a standard normal prior has a standard deviation of 1, a learned one its own.

    Raises ValueError: no such latent or dimension.
    """
    choice("the latent", name, z)
    size = z[name].shape[-1]
    if not 0 <= dimension < size:
        raise ValueError(f"dimension is {dimension}, expected 0 to {size - 1}: {name} has {size} dimensions.")
    copies = {key: jnp.repeat(part, len(offsets), 0) for key, part in z.items()}
    columns = jnp.asarray(offsets).reshape(-1, *(1,) * (z[name].ndim - 2))
    return {**copies, name: copies[name].at[..., dimension].add(columns)}


def swap(content: Latents, motion: Latents) -> Latents:
    """Latents of clips with the content of the first and the motion of the second.

    Raises ValueError: the model does not separate content from motion.
    """
    if content.keys() != {"content", "motion"}:
        names = ", ".join(content)
        raise ValueError(f"The latents of this model are {names}: only the recipe vae separates content from motion.")
    return {"content": content["content"], "motion": motion["motion"]}


class Compression(NamedTuple):
    """What compressing clips came to."""

    file_bits: int  # of the whole file
    ideal_bits: np.ndarray  # that an arithmetic coder with the model's prior would need, [B]
    raw_bits: int  # of the clips as uint8
    psnr: np.ndarray  # in dB of what `decompress` makes of it, [B]


def compress(codec: Codec, video: jax.Array, path: str | Path, step: float = 1.0) -> Compression:
    """Writes the posterior means of clips to a `.npz` file as whole multiples of a width for each dimension.

    Args:
      codec: of the model that will decompress them.
      video: [B,T,H,W,3], uint8 or float in [-1, 1].
      path: of the file.
      step: that width, in units of the dimension's posterior standard deviation, averaged over clips and frames: what
        the model itself does not tell apart need not be stored. Smaller is larger and better.

    Raises ValueError: step is not above 0.
    """
    if step <= 0:
        raise ValueError(f"step is {step}, expected a number above 0.")
    video = normalize(jnp.asarray(video))
    arrays: dict[str, Any] = {"frames": np.int64(video.shape[1])}
    for name, (mean, log_variance) in codec.encode(video).items():
        width = step * jnp.exp(0.5 * log_variance).mean(range(mean.ndim - 1))
        codes = np.asarray(jnp.round(mean / width), np.int32)
        fitting = next(t for t in (np.int8, np.int16, np.int32) if np.abs(codes).max() <= np.iinfo(t).max)
        arrays |= {f"{name}.width": np.asarray(width), f"{name}.codes": codes.astype(fitting)}
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)
    return Compression(
        file_bits=8 * Path(path).stat().st_size,
        ideal_bits=np.asarray(_ideal_bits(codec, arrays)),
        raw_bits=PIXEL_BITS * video.size,
        psnr=np.asarray(psnr(decompress(codec, path), video)),
    )


def decompress(codec: Codec, path: str | Path) -> jax.Array:
    """The clips [B,T,H,W,3] in [-1, 1] of a file that `compress` wrote.

    Raises ValueError: the file holds latents of another model.
    """
    with np.load(path) as file:
        arrays = dict(file)
    expected = {name: shape[-1:] for name, shape in codec.latents.items()}
    if {key: array.shape for key, array in arrays.items() if key.endswith(".width")} != {
        f"{name}.width": shape for name, shape in expected.items()
    }:
        raise ValueError(f"{path} does not hold the latents of this model ({', '.join(expected)}): compress with it.")
    return codec.decode(_latents(codec, arrays))[:, : arrays.get("frames")]


def _latents(codec: Codec, arrays: dict[str, np.ndarray]) -> Latents:
    return {name: jnp.asarray(arrays[f"{name}.codes"] * arrays[f"{name}.width"]) for name in codec.latents}


def _ideal_bits(codec: Codec, arrays: dict[str, np.ndarray]) -> jax.Array:
    """-log2 of the prior's probability of each clip's codes, conditioned on those before them: [B]."""
    z, bits = _latents(codec, arrays), jnp.zeros(())
    for name, (mean, log_variance) in codec.prior(z).items():
        scale = jnp.exp(-0.5 * log_variance)
        near = jnp.abs(z[name] - mean) * scale
        half = 0.5 * arrays[f"{name}.width"] * scale
        # The mass of an interval in the lower tail, where its logarithm is exact: log(Phi(upper) - Phi(lower)).
        upper, lower = log_ndtr(half - near), log_ndtr(-half - near)
        log_mass = upper + jnp.log(-jnp.expm1(jnp.minimum(lower - upper, -1e-7)))
        bits -= log_mass.reshape(len(mean), -1).sum(1) / jnp.log(2.0)
    return bits
