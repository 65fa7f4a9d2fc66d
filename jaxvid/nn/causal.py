"""Convolutions of which no frame sees a later one, over a whole video or over one part of it after another.

Where the Flax collection PAST is mutable, a call keeps there what the next part of the video has to see of this one,
and a call that is given it goes on from there:

    y, past = model.apply(variables, first_part, mutable=[PAST])
    z, past = model.apply({**variables, **past}, next_part, mutable=[PAST])

The parts together equal the whole (`in_parts`). What is kept does not grow with the video.
"""

import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.nn.conv import Conv, ConvTranspose, conv, conv_transpose

PAST = "past"
Step = Callable[[Any, Any], tuple[Any, Any]]


def in_parts(step: Step, x: Any, first: int, rest: int) -> Any:
    """What a causal model makes of arrays x [B,T,...], one part after another: arrays [B,T',...] on the host.

    Devices hold one part at a time, whatever T is.

    Args:
      step: (past, part) -> (what is made of the part, past for the next); past is an empty dict at first.
      x: array or a tree of arrays, frames on the second axis.
      first, rest: how many frames of x the first part has, and each other.
    """
    frames = jax.tree.leaves(x)[0].shape[1]
    past: Any = {}
    made, start = [], 0
    for end in (*range(first, frames, rest), frames):
        y, past = step(past, jax.tree.map(operator.itemgetter((slice(None), slice(start, end))), x))
        made.append(jax.tree.map(np.asarray, y))
        start = end
    return jax.tree.map(lambda *parts: np.concatenate(parts, 1), *made)


def codec_in_parts(encode: Step, decode: Step, frames: int, factor: int) -> tuple[Callable, Callable]:
    """Encode and decode videos [B,T,...] of any length, from steps as of `in_parts`.

    Lengths other than 1 + a multiple of the factor are filled up with the last frame.

    Args:
      frames: of video, how many are encoded at a time: 1 + a multiple of the factor; at least 1 + factor are.
      factor: frames of video to each of latents after the first.
    """
    latents = max(1, (frames - 1) // factor)

    def whole(video: Any) -> Any:
        video = np.asarray(video)
        missing = (1 - video.shape[1]) % factor
        filled = np.concatenate([video, np.repeat(video[:, -1:], missing, 1)], 1)
        return in_parts(encode, filled, 1 + latents * factor, latents * factor)

    return whole, lambda z: in_parts(decode, z, 1 + latents, latents)


def begins(module: nn.Module) -> bool:
    """Whether a call of this module begins a video: no call before has kept anything."""
    first = module.get_variable(PAST, "begun") is None
    _keep(module, "begun", jnp.ones(()))
    return first


class CausalConv(Conv):
    """`Conv` of each frame of [B,T,H,W,I] and those before it; before the first are zeros. Strides of time are 1."""

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """As of `Conv`."""
        before, behind = kernel.shape[0] - 1, _behind(self, x, kernel.shape[0] - 1)
        return conv(behind, kernel, self.strides, (before + x.shape[1] - behind.shape[1], 0))


class CausalConvTranspose(ConvTranspose):
    """`ConvTranspose` of [B,T,H,W,I] to [B,T*st,...], whose frames from t*st on, st of them, see none after t of x."""

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """As of `Conv`."""
        taps, stride = kernel.shape[0], self.strides[0]
        before = -(-taps // stride) - 1
        behind = _behind(self, x, before)
        missing = before + x.shape[1] - behind.shape[1]
        y = conv_transpose(jnp.pad(behind, [(0, 0), (missing, 0), *[(0, 0)] * 3]), kernel, self.strides)
        start = stride * before - max(taps - stride, 0) // 2  # SAME padding centers kernels
        return y[:, start : start + stride * x.shape[1]]


def _behind(module: nn.Module, x: jax.Array, frames: int) -> jax.Array:
    """x [B,T,H,W,C] with the `frames` before it in front; by itself where it begins a video."""
    past: Any = module.get_variable(PAST, "frames")
    x = x if past is None else jnp.concatenate([past, x], 1)
    if frames:
        _keep(module, "frames", jnp.pad(x, [(0, 0), (frames, 0), *[(0, 0)] * 3])[:, -frames:])
    return x


def _keep(module: nn.Module, name: str, value: jax.Array) -> None:
    if module.is_mutable_collection(PAST) and not module.is_initializing():
        module.put_variable(PAST, name, value)
