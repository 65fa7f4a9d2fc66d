"""The Inception-v3 network behind FID, KID and the Inception Score (Szegedy et al. 2016; Heusel et al. 2017).

It is the network that TensorFlow published on 2015-12-05, as in pytorch-fid and torch-fidelity. It differs from
torchvision's: average pools exclude the padding, the last block has a max pool, and there are 1008 classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from jaxvid.names import choice
from jaxvid.shapes import expect

SIZE = 299
TAPS = ("64", "192", "768", "2048", "logits", "logits_unbiased")
Path = tuple[str, ...]
Layer = Callable[[jax.Array], jax.Array]
Branches = list[list[Layer]]  # in parallel; the layers of a branch in sequence


class Inception(nn.Module):
    """Features of images [B,299,299,3] in [-1,1]: a dict of the float32 arrays that `taps` names.

    "64" and "192" are the two max pools of the stem and "768" the block Mixed_6e, each averaged over space; "2048" is
    the feature of FID; "logits" [B,1008] are the class scores, and "logits_unbiased" those without the last bias, for
    the Inception Score. Under jit only what the taps need is computed. `dtype` is that of the convolutions: bfloat16 is
    faster on GPU and TPU, but its scores are not comparable with published ones.

    The parameters come from `from_torch`; those of `init` are random. Raises ValueError for a tap that is none of TAPS,
    or images of another shape.
    """

    taps: tuple[str, ...] = ("2048",)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        for tap in self.taps:
            choice("tap", tap, TAPS)
        expect(f"[B,{SIZE},{SIZE},3]", images=images)
        unit = partial(_unit, dtype=self.dtype)
        maps = {}
        x = unit("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")(images)
        x = unit("Conv2d_2a_3x3", 32, (3, 3), padding="VALID")(x)
        x = unit("Conv2d_2b_3x3", 64, (3, 3))(x)
        x = maps["64"] = _halve(x)
        x = unit("Conv2d_3b_1x1", 80)(x)
        x = unit("Conv2d_4a_3x3", 192, (3, 3), padding="VALID")(x)
        x = maps["192"] = _halve(x)
        for name, branches in BLOCKS.items():
            x = maps[name] = Mixed(branches, self.dtype, name=name)(x)
        maps |= {"768": maps["Mixed_6e"], "2048": x}
        outputs = {tap: jnp.mean(maps[tap], (1, 2), jnp.float32) for tap in TAPS if tap in maps}
        classifier = nn.Dense(1008, precision=lax.Precision.HIGHEST, name="fc")
        outputs["logits"] = classifier(outputs["2048"])
        outputs["logits_unbiased"] = outputs["logits"] - classifier.variables["params"]["bias"]
        return {tap: outputs[tap] for tap in self.taps}


class Mixed(nn.Module):
    """A block of parallel branches [B,H,W,I] -> [B,H',W',O], concatenated; `branches` takes what makes units."""

    branches: Callable[[Callable[..., Layer]], Branches]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _parallel(self.branches(partial(_unit, dtype=self.dtype)))(x)


class ConvUnit(nn.Module):
    """Convolution, batch normalization by the stored `mean` and `var`, and ReLU: [..., I] to [..., features].

    `convolve(x, kernel)` is the convolution with a kernel [*window, I, features].
    """

    features: int
    window: tuple[int, ...]
    convolve: Callable[[jax.Array, jax.Array], jax.Array]
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (*self.window, x.shape[-1], self.features))
        scale, var = (self.param(name, nn.initializers.ones, (self.features,)) for name in ("scale", "var"))
        bias, mean = (self.param(name, nn.initializers.zeros, (self.features,)) for name in ("bias", "mean"))
        y = self.convolve(x.astype(self.dtype), kernel.astype(self.dtype)).astype(jnp.float32)
        return nn.relu((y - mean) * (scale / jnp.sqrt(var + self.epsilon)) + bias).astype(self.dtype)


def torch_keys() -> dict[Path, str]:
    """Key in pytorch-fid's state dict of every parameter, by path: ("fc", "bias") etc."""
    paths = parameter_shapes(Inception(), (1, SIZE, SIZE, 3))
    return {path: FC.get(path) or f"{'.'.join(path[:-1])}.{UNIT[path[-1]]}" for path in paths}


def torch_shapes() -> dict[str, tuple[int, ...]]:
    """Shape in pytorch-fid's state dict of each of the 472 tensors, by key."""
    shapes = parameter_shapes(Inception(), (1, SIZE, SIZE, 3))
    return {key: in_torch(shapes[path]) for path, key in torch_keys().items()}


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The collection "params", float32, from pytorch-fid's state dict. Raises ValueError where a tensor is missing."""
    return converted(tensors, torch_keys())


@cache
def parameter_shapes(network: nn.Module, shape: tuple[int, ...]) -> dict[Path, tuple[int, ...]]:
    """Shapes of the network's parameters by path, for an input of this shape; nothing is computed."""
    variables = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def in_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[*window,I,O] as PyTorch has it, [O,I,*window]."""
    return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else shape


def converted(tensors: Mapping[str, np.ndarray], keys: Mapping[Path, str]) -> dict[str, Any]:
    """The tree of parameters, whose paths are `keys`: PyTorch's [O,I,*window] becomes [*window,I,O]."""
    if missing := [key for key in keys.values() if key not in tensors]:
        found = f"{len(missing)} of {len(keys)} tensors, such as {missing[0]}"
        raise ValueError(f"The weights lack {found}: wrong network?")
    tree = {path: np.asarray(tensors[key], np.float32) for path, key in keys.items()}
    return unflatten_dict({path: np.moveaxis(a, (0, 1), (-1, -2)) if a.ndim > 1 else a for path, a in tree.items()})


def max_pool(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: str) -> jax.Array:
    """Largest values in windows over all axes but the first and the last; padding is -inf.

    One axis at a time, which is several times faster in XLA:CPU.
    """
    lowest = np.array(-np.inf, x.dtype)
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), 1):
        if size > 1:
            x = _along(x, axis, size, stride, padding, lax.max, lowest)
    return x


def average_pool(x: jax.Array) -> jax.Array:
    """Means of the 3x3 windows around every pixel of [B,H,W,C], without the padding."""
    zero = np.array(0, x.dtype)
    for axis in (1, 2):
        shape = [n if i == axis else 1 for i, n in enumerate(x.shape)]
        sums, counts = (_along(y, axis, 3, 1, "SAME", lax.add, zero) for y in (x, jnp.ones(shape, x.dtype)))
        x = sums / counts
    return x


def _along(x: jax.Array, axis: int, size: int, stride: int, padding: str, operation: Any, start: Any) -> jax.Array:
    """`lax.reduce_window` along one axis."""
    window, strides = ([n if i == axis else 1 for i in range(x.ndim)] for n in (size, stride))
    return lax.reduce_window(x, start, operation, window, strides, padding)


def _unit(
    name: str, features: int, window: tuple[int, int] = (1, 1), stride: int = 1, padding: str = "SAME", *, dtype: Any
) -> ConvUnit:
    """A unit with the padding of PyTorch: "SAME" is used only with stride 1 and odd windows, where both agree."""
    settings: dict[str, Any] = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": lax.Precision.HIGHEST}
    convolve = partial(lax.conv_general_dilated, window_strides=(stride, stride), padding=padding, **settings)
    return ConvUnit(features, window, convolve, dtype=dtype, name=name)


def _parallel(branches: Branches) -> Layer:
    def run(x: jax.Array) -> jax.Array:
        return jnp.concatenate([reduce(lambda y, layer: layer(y), branch, x) for branch in branches], -1)

    return run


_halve = partial(max_pool, window=(3, 3), strides=(2, 2), padding="VALID")


def _block_a(unit: Callable[..., Layer], pooled: int) -> Branches:
    return [
        [unit("branch1x1", 64)],
        [unit("branch5x5_1", 48), unit("branch5x5_2", 64, (5, 5))],
        [unit("branch3x3dbl_1", 64), unit("branch3x3dbl_2", 96, (3, 3)), unit("branch3x3dbl_3", 96, (3, 3))],
        [average_pool, unit("branch_pool", pooled)],
    ]


def _block_b(unit: Callable[..., Layer]) -> Branches:
    third = unit("branch3x3dbl_3", 96, (3, 3), 2, "VALID")
    return [
        [unit("branch3x3", 384, (3, 3), 2, "VALID")],
        [unit("branch3x3dbl_1", 64), unit("branch3x3dbl_2", 96, (3, 3)), third],
        [_halve],
    ]


def _block_c(unit: Callable[..., Layer], width: int) -> Branches:
    row, column = (1, 7), (7, 1)
    double = [(width, (1, 1)), (width, column), (width, row), (width, column), (192, row)]
    return [
        [unit("branch1x1", 192)],
        [unit("branch7x7_1", width), unit("branch7x7_2", width, row), unit("branch7x7_3", 192, column)],
        [unit(f"branch7x7dbl_{number}", *layer) for number, layer in enumerate(double, 1)],
        [average_pool, unit("branch_pool", 192)],
    ]


def _block_d(unit: Callable[..., Layer]) -> Branches:
    last = unit("branch7x7x3_4", 192, (3, 3), 2, "VALID")
    return [
        [unit("branch3x3_1", 192), unit("branch3x3_2", 320, (3, 3), 2, "VALID")],
        [unit("branch7x7x3_1", 192), unit("branch7x7x3_2", 192, (1, 7)), unit("branch7x7x3_3", 192, (7, 1)), last],
        [_halve],
    ]


def _block_e(unit: Callable[..., Layer], pool: Layer) -> Branches:
    def fork(stem: str) -> Layer:
        return _parallel([[unit(f"{stem}a", 384, (1, 3))], [unit(f"{stem}b", 384, (3, 1))]])

    return [
        [unit("branch1x1", 320)],
        [unit("branch3x3_1", 384), fork("branch3x3_2")],
        [unit("branch3x3dbl_1", 448), unit("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")],
        [pool, unit("branch_pool", 192)],
    ]


BLOCKS: dict[str, Callable[[Callable[..., Layer]], Branches]] = {
    "Mixed_5b": partial(_block_a, pooled=32),
    "Mixed_5c": partial(_block_a, pooled=64),
    "Mixed_5d": partial(_block_a, pooled=64),
    "Mixed_6a": _block_b,
    "Mixed_6b": partial(_block_c, width=128),
    "Mixed_6c": partial(_block_c, width=160),
    "Mixed_6d": partial(_block_c, width=160),
    "Mixed_6e": partial(_block_c, width=192),
    "Mixed_7a": _block_d,
    "Mixed_7b": partial(_block_e, pool=average_pool),
    "Mixed_7c": partial(_block_e, pool=partial(max_pool, window=(3, 3), strides=(1, 1), padding="SAME")),
}
NORM = {"scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
UNIT = {"kernel": "conv.weight", **NORM}
FC: dict[Path, str] = {("fc", "kernel"): "fc.weight", ("fc", "bias"): "fc.bias"}
