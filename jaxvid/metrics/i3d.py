"""The I3D network behind FVD (Carreira and Zisserman 2017; Unterthiner et al. 2018): Inception-v1 over video."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.metrics.inception import NORM, ConvUnit, Path, converted, in_torch, max_pool, parameter_shapes
from jaxvid.shapes import expect

SIZE = 224
MIN_FRAMES = 9  # the last pool needs two time steps, of 8 frames each
Triple = tuple[int, int, int]
# Channels of b0; b1a, b1b; b2a, b2b; b3b, and the max pool (window, strides) before a block that starts a new scale.
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLS: dict[str, tuple[Triple, Triple]] = {
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


class I3D(nn.Module):
    """Features of videos [B,T,224,224,3] in [-1,1], T >= 9: a dict of float32 arrays.

    "logits" [B,400] is the feature of FVD, "pooled" [B,1024] the layer before it; both are means over time. The
    network that FVD was published with has `epsilon` 1e-3; VideoGPT, TATS and cd-fvd run its weights with 1e-5.
    `dtype` is that of the convolutions: bfloat16 is faster on GPU and TPU, but its scores are not comparable with
    published ones.

    The parameters come from `from_torch`; those of `init` are random. Raises ValueError for videos of another shape.
    """

    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, videos: jax.Array) -> dict[str, jax.Array]:
        expect(f"[B,T>={MIN_FRAMES},{SIZE},{SIZE},3]", videos=videos)
        unit = partial(_unit, epsilon=self.epsilon, dtype=self.dtype)
        x = unit("Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2))(videos)
        x = max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
        x = unit("Conv3d_2b_1x1", 64)(x)
        x = unit("Conv3d_2c_3x3", 192, (3, 3, 3))(x)
        for name, channels in BLOCKS.items():
            x = max_pool(x, *POOLS[name], "SAME") if name in POOLS else x
            x = Mixed(channels, self.epsilon, self.dtype, name=name)(x)
        steps = jnp.mean(x, (2, 3), jnp.float32)
        pooled = jnp.mean((steps[:, :-1] + steps[:, 1:]) / 2, 1)
        # The last layer is linear, so the logits of the mean are the mean of the logits of each pair of time steps.
        logits = nn.Dense(400, precision=lax.Precision.HIGHEST, name="logits")(pooled)
        return {"logits": logits, "pooled": pooled}


class Mixed(nn.Module):
    """Four parallel branches [B,T,H,W,I] -> [B,T,H,W,O], concatenated; `channels` of their units."""

    channels: tuple[int, ...]
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        unit = partial(_unit, epsilon=self.epsilon, dtype=self.dtype)
        b0, b1a, b1b, b2a, b2b, b3b = self.channels
        branches = [
            unit("b0", b0)(x),
            unit("b1b", b1b, (3, 3, 3))(unit("b1a", b1a)(x)),
            unit("b2b", b2b, (3, 3, 3))(unit("b2a", b2a)(x)),
            unit("b3b", b3b)(max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")),
        ]
        return jnp.concatenate(branches, -1)


def convolve(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    """Convolves [B,T,H,W,I] with a kernel [kt,kh,kw,I,O], SAME padding: [B, ceil(T/st), ceil(H/sh), ceil(W/sw), O].

    XLA:CPU is slow with 3-D kernels: there the kt frames are concatenated along the channels, for a 2-D convolution.
    """
    convolution = partial(lax.conv_general_dilated, precision=lax.Precision.HIGHEST)
    if jax.default_backend() != "cpu":
        return convolution(x, kernel, strides, "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    stride, frames = strides[0], -(-x.shape[1] // strides[0])
    (before, after), *padding = lax.padtype_to_pads(x.shape[1:4], kernel.shape[:3], strides, "SAME")
    x = jnp.pad(x, [(0, 0), (before, after), (0, 0), (0, 0), (0, 0)])
    taps = range(kernel.shape[0])
    stacked = jnp.concatenate([x[:, tap : tap + stride * (frames - 1) + 1 : stride] for tap in taps], -1)
    frames_2d, kernel_2d = stacked.reshape(-1, *stacked.shape[2:]), jnp.concatenate(list(kernel), 2)
    numbers = ("NHWC", "HWIO", "NHWC")
    y = convolution(frames_2d, kernel_2d, strides[1:], padding, dimension_numbers=numbers)
    return y.reshape(-1, frames, *y.shape[1:])


def torch_keys() -> dict[Path, str]:
    """Key in the state dict of piergiaj's and VideoGPT's I3D of every parameter, by path: ("logits", "bias") etc."""
    kinds = {"kernel": "conv3d.weight", **NORM}
    keys = {path: f"{'.'.join(path[:-1])}.{kinds[path[-1]]}" for path in _shapes()}
    return {**keys, ("logits", "bias"): "logits.conv3d.bias"}


def torch_shapes() -> dict[str, tuple[int, ...]]:
    """Shape in that state dict of each of the 287 tensors, by key."""
    shapes = {**_shapes(), ("logits", "kernel"): (1, 1, 1, 1024, 400)}  # a 1x1x1 convolution there
    return {key: in_torch(shapes[path]) for path, key in torch_keys().items()}


def tf_names() -> dict[Path, str]:
    """Name in DeepMind's checkpoints and TF-Hub's module of every parameter but the scales, which are 1 there."""
    return {path: _tf_name(path) for path in _shapes() if path[-1] != "scale"}


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The collection "params", float32, from that state dict. Raises ValueError where a tensor is missing."""
    params = converted(tensors, torch_keys())
    params["logits"]["kernel"] = params["logits"]["kernel"].reshape(1024, 400)
    return params


def _shapes() -> dict[Path, tuple[int, ...]]:
    return parameter_shapes(I3D(), (1, MIN_FRAMES, SIZE, SIZE, 3))


def _tf_name(path: Path) -> str:
    *units, leaf = path
    kinds = {"kernel": "conv_3d/w", "bias": "batch_norm/beta"}
    kinds |= {"mean": "batch_norm/moving_mean", "var": "batch_norm/moving_variance"}
    if units == ["logits"]:
        place, kinds = "Logits/Conv3d_0c_1x1", {"kernel": "conv_3d/w", "bias": "conv_3d/b"}
    elif len(units) == 1:
        place = units[0]
    else:
        block, branch = units
        window = "3x3" if branch in ("b1b", "b2b") else "1x1"
        # An inconsistency of the checkpoints: only here the second unit of a branch is called a, like the first.
        letter = "a" if (block, branch) == ("Mixed_5b", "b2b") else branch[2:] or "a"
        place = f"{block}/Branch_{branch[1]}/Conv3d_0{letter}_{window}"
    return f"RGB/inception_i3d/{place}/{kinds[leaf]}"


def _unit(
    name: str, features: int, window: Triple = (1, 1, 1), strides: Triple = (1, 1, 1), *, epsilon: float, dtype: Any
) -> ConvUnit:
    return ConvUnit(features, window, partial(convolve, strides=strides), epsilon, dtype, name=name)
