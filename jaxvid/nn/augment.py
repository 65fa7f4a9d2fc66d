"""Differentiable augmentations of video on the device, for real and generated videos before a discriminator.

After Zhao et al. (2020, DiffAugment). Random numbers are drawn once per video, so that all of its frames change alike.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvid.parallel import fold_keys

SHIFT = 0.125  # of height and width, at most
HOLE = 0.5  # side of the cutout, of height and width


def color(video: jax.Array, key: jax.Array) -> jax.Array:
    """Brightness by up to 0.5, saturation and contrast by factors of [0, 2) and [0.5, 1.5): [T,H,W,C] to the same."""
    brightness, saturation, contrast = jax.random.uniform(key, (3,))
    video = video + (brightness - 0.5)
    gray = video.mean(-1, keepdims=True)
    video = gray + (video - gray) * 2 * saturation
    mean = video.mean()
    return mean + (video - mean) * (contrast + 0.5)


def translation(video: jax.Array, key: jax.Array) -> jax.Array:
    """Shifts all frames by up to an eighth of their height and width, zeros coming in: [T,H,W,C] to the same."""
    _, height, width, _ = video.shape
    margins = [round(SHIFT * size) for size in (height, width)]
    padded = jnp.pad(video, [(0, 0), *((margin, margin) for margin in margins), (0, 0)])
    top, left = (jax.random.randint(jax.random.fold_in(key, i), (), 0, 2 * m + 1) for i, m in enumerate(margins))
    return jax.lax.dynamic_slice(padded, (0, top, left, 0), video.shape)


def cutout(video: jax.Array, key: jax.Array) -> jax.Array:
    """Zeros in a rectangle of half the height and width, about the same place in all frames: [T,H,W,C] to the same."""
    _, height, width, _ = video.shape
    outside = []
    for i, size in enumerate((height, width)):
        center = jax.random.randint(jax.random.fold_in(key, i), (), 0, size + 1)
        outside.append(jnp.abs(jnp.arange(size) + 0.5 - center) > HOLE * size / 2)
    return video * (outside[0][:, None] | outside[1][None, :])[None, :, :, None]


POLICIES = {"color": color, "translation": translation, "cutout": cutout}


def augment(video: jax.Array, keys: jax.Array, policies: Sequence[str]) -> jax.Array:
    """Applies some of POLICIES, in this order, to videos [B,T,H,W,C] in [-1, 1], with one key for each of them."""
    for index, name in enumerate(policies):
        video = jax.vmap(POLICIES[name])(video, fold_keys(keys, index))
    return video
