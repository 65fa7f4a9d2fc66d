"""Convolutions over video [B, T, H, W, C] that are fast on every backend, forward and backward.

XLA:CPU is 20 to 1,000 times too slow for the gradient of a strided convolution and for a transposed one, and GPUs are
slow for 3-D transposed ones, so neither reaches XLA there. The forms used instead equal the plain `lax` convolutions to
1e-5, values and gradients, and the gradient of each is made of operations of the same kind:

* space: a strided convolution is space-to-depth, then a stride-1 convolution; a transposed one is a stride-1
  convolution to `sh * sw * O` channels, then depth-to-space (the sub-pixel convolution, Shi et al. 2016);
* time, on CPU: the sum over the kernel's time taps of 2-D convolutions of the frames that the tap meets.

Products of bfloat16 are summed in float32: GPUs and TPUs do so by themselves, on CPU the arrays are cast first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

Triple = tuple[int, int, int]
Padding = Sequence[tuple[int, int]]
VIDEO = ("NDHWC", "DHWIO", "NDHWC")
FRAMES = ("NHWC", "HWIO", "NHWC")
FEW = 32  # channels up to which the 2-D convolution of one time tap is so thin that the taps are better joined


def conv(x: jax.Array, kernel: jax.Array, strides: Triple = (1, 1, 1)) -> jax.Array:
    """Convolves video [B,T,H,W,I] with a kernel [kt,kh,kw,I,O] to [B, ceil(T/st), ceil(H/sh), ceil(W/sw), O].

    Equals `lax.conv_general_dilated` with SAME padding. Raises ValueError for shapes that do not fit.
    """
    _check(x, kernel)
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=VIDEO)
    return _bilinear(partial(_conv_on_cpu, strides=strides), x, kernel)


def _conv_on_cpu(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    dtype, x, kernel = x.dtype, x.astype(jnp.float32), kernel.astype(jnp.float32)
    frames = -(-x.shape[1] // strides[0])
    (before, _), *padding = lax.padtype_to_pads(x.shape[1:4], kernel.shape[:3], strides, "SAME")
    if strides[1:] != (1, 1):
        factors = (1, *strides[1:])
        split = _split_taps(kernel, factors)
        kernel = split.reshape(*split.shape[:3], -1, split.shape[-1])
        sizes, blocks = x.shape[2:4], kernel.shape[1:3]
        covered = [(-(-n // s) + m - 1) * s for n, m, s in zip(sizes, blocks, strides[1:], strict=True)]
        margins = [(low, c - n - low) for (low, _), c, n in zip(padding, covered, sizes, strict=True)]
        x = space_to_depth(jnp.pad(x, [(0, 0), (0, 0), *margins, (0, 0)]), factors)
        padding = [(0, 0), (0, 0)]
    return _convolve_in_time(x, kernel, padding, frames, before, strides[0], upsample=False).astype(dtype)


def conv_transpose(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    """Upsamples video [B,T,H,W,I] with a kernel [kt,kh,kw,I,O] to [B, T*st, H*sh, W*sw, O].

    Equals `lax.conv_transpose` with SAME padding. Raises ValueError for shapes that do not fit.
    """
    _check(x, kernel)
    if jax.default_backend() == "tpu":
        return lax.conv_transpose(x, kernel, strides, "SAME", dimension_numbers=VIDEO)
    return _bilinear(partial(_conv_transpose_by_parts, strides=strides), x, kernel)


def _conv_transpose_by_parts(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    backend = jax.default_backend()
    # Output o meets input i in tap j of the flipped kernel where o = stride * i + j - before.
    before = [max(k - s, 0) // 2 for k, s in zip(kernel.shape, strides, strict=False)]
    sizes = [n * s for n, s in zip(x.shape[1:4], strides, strict=True)]
    factors = (1, *strides[1:]) if backend == "cpu" else strides
    split = _split_taps(kernel[::-1, ::-1, ::-1], factors)[::-1, ::-1, ::-1]
    kernel = jnp.moveaxis(split, 3, 4).reshape(*split.shape[:3], x.shape[-1], -1)
    margins = [(m - 1, m - 1) for m in kernel.shape[:3]]
    if backend == "cpu":
        dtype, x, kernel = x.dtype, x.astype(jnp.float32), kernel.astype(jnp.float32)
        # Padded beforehand: XLA:CPU's weight gradient is slow where padding makes the output larger than the input.
        x = jnp.pad(x, [(0, 0), (0, 0), *margins[1:], (0, 0)])
        y = _convolve_in_time(x, kernel, [(0, 0), (0, 0)], sizes[0], before[0], strides[0], upsample=True).astype(dtype)
        before[0] = 0
    else:
        y = lax.conv_general_dilated(x, kernel, (1, 1, 1), margins, dimension_numbers=VIDEO)
    (t, h, w), (frames, height, width) = before, sizes
    return depth_to_space(y, factors)[:, t : t + frames, h : h + height, w : w + width]


class Conv(nn.Module):
    """`conv` with a learned kernel and bias: [B,T,H,W,I] to [B, ceil(T/st), ceil(H/sh), ceil(W/sw), features]."""

    features: int
    kernel_size: Triple = (3, 3, 3)
    strides: Triple = (1, 1, 1)
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = self.convolve(x, kernel)
        return y if bias is None else y + bias

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution of this layer, without its bias."""
        return conv(x, kernel, self.strides)


class ConvTranspose(Conv):
    """`conv_transpose` with a learned kernel and bias: [B,T,H,W,I] to [B, T*st, H*sh, W*sw, features]."""

    kernel_size: Triple = (4, 4, 4)
    strides: Triple = (2, 2, 2)

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv_transpose(x, kernel, self.strides)


def space_to_depth(x: jax.Array, factors: Triple) -> jax.Array:
    """Moves blocks of ft x fh x fw pixels into channels: [B,T,H,W,C] to [B, T/ft, H/fh, W/fw, ft*fh*fw*C].

    Raises ValueError where a size is no multiple of its factor.
    """
    batch, *sizes, channels = x.shape
    if any(n % f for n, f in zip(sizes, factors, strict=True)):
        raise ValueError(
            f"space_to_depth needs [T, H, W] in multiples of {factors}, got {sizes}: pad or crop the video."
        )
    (t, h, w), (ft, fh, fw) = (n // f for n, f in zip(sizes, factors, strict=True)), factors
    x = x.reshape(batch, t, ft, h, fh, w, fw, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(batch, t, h, w, ft * fh * fw * channels)


def depth_to_space(x: jax.Array, factors: Triple) -> jax.Array:
    """Inverse of `space_to_depth`: [B,T,H,W,ft*fh*fw*C] to [B, T*ft, H*fh, W*fw, C].

    Raises ValueError where the channels are no multiple of the block's pixels.
    """
    (batch, t, h, w, depth), (ft, fh, fw) = x.shape, factors
    if depth % (ft * fh * fw):
        raise ValueError(f"depth_to_space needs channels in a multiple of {ft * fh * fw} for {factors}, got {depth}.")
    x = x.reshape(batch, t, h, w, ft, fh, fw, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(batch, t * ft, h * fh, w * fw, -1)


def _bilinear(f: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array) -> jax.Array:
    """f(x, kernel), whose derivatives of every order are made of f and its two transposes, which are all fast.

    Left to itself, JAX differentiates what it made of the transposes, and meets the slow forms again: the gradient of a
    gradient penalty took 18 times as long.
    """

    @jax.custom_vjp
    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return f(x, kernel)

    @jax.custom_vjp
    def to_input(y: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: f(x, kernel), x_like)(y)[0]

    @jax.custom_vjp
    def to_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: f(x, kernel), kernel_like)(y)[0]

    x_like, kernel_like = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, kernel))
    product.defvjp(lambda x, k: (product(x, k), (x, k)), lambda xk, y: (to_input(y, xk[1]), to_kernel(xk[0], y)))
    to_input.defvjp(lambda y, k: (to_input(y, k), (y, k)), lambda yk, x: (product(x, yk[1]), to_kernel(x, yk[0])))
    to_kernel.defvjp(lambda x, y: (to_kernel(x, y), (x, y)), lambda xy, k: (to_input(xy[1], k), product(xy[0], k)))
    return product(x, kernel)


def _check(x: jax.Array, kernel: jax.Array) -> None:
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3]:
        raise ValueError(
            f"A convolution takes video [B,T,H,W,I] and a kernel [kt,kh,kw,I,O], got {x.shape} and {kernel.shape}: "
            "give an image a time axis of 1."
        )


def _split_taps(kernel: jax.Array, factors: Triple) -> jax.Array:
    """Kernel [kt,kh,kw,I,O], padded at the end to whole blocks: [blocks of t, of h, of w, taps of a block, I, O]."""
    (bt, bh, bw), (ft, fh, fw) = (-(-k // f) for k, f in zip(kernel.shape, factors, strict=False)), factors
    pads = [(0, b * f - k) for b, f, k in zip((bt, bh, bw), factors, kernel.shape, strict=False)]
    kernel = jnp.pad(kernel, [*pads, (0, 0), (0, 0)]).reshape(bt, ft, bh, fh, bw, fw, *kernel.shape[3:])
    return kernel.transpose(0, 2, 4, 1, 3, 5, 6, 7).reshape(bt, bh, bw, ft * fh * fw, *kernel.shape[-2:])


def _convolve_in_time(
    x: jax.Array, kernel: jax.Array, padding: Padding, frames: int, before: int, stride: int, *, upsample: bool
) -> jax.Array:
    """Sums over the kernel's time taps the 2-D convolutions of the frames they meet: [B, frames, H', W', O].

    Input frame i and output frame o meet in tap i - stride * o + before, or, upsampling, where o = stride * i + flipped
    tap - before. Planes that are all padding are not computed.
    """
    taps, inputs, outputs = kernel.shape[0], *kernel.shape[-2:]

    def meetings(tap: int) -> list[tuple[int, int]]:
        """(input frame, output frame) of every meeting, in order."""
        if upsample:
            pairs = [(i, stride * i + taps - 1 - tap - before) for i in range(x.shape[1])]
        else:
            pairs = [(stride * o + tap - before, o) for o in range(frames)]
        return [(i, o) for i, o in pairs if 0 <= i < x.shape[1] and 0 <= o < frames]

    met = {tap: pairs for tap in range(taps) if (pairs := meetings(tap))}

    def taken(tap: int, source: jax.Array) -> jax.Array:
        pairs = met[tap]
        return source[:, pairs[0][0] : pairs[-1][0] + 1 : 1 if upsample else stride]

    def placed(tap: int, y: jax.Array) -> jax.Array:
        first, last, between = met[tap][0][1], met[tap][-1][1], stride - 1 if upsample else 0
        none = (0, 0, 0)
        return lax.pad(y, jnp.zeros((), y.dtype), [none, (first, frames - 1 - last, between), none, none, none])

    if inputs <= FEW and not upsample:
        joined = jnp.concatenate([placed(tap, taken(tap, x)) for tap in met], -1)
        rows = jnp.concatenate([kernel[tap] for tap in met], 2)
        return _convolve_frames(joined, rows, padding)
    if outputs <= FEW and (upsample or stride == 1):
        columns = jnp.concatenate([kernel[tap] for tap in met], 3)
        parts = jnp.split(_convolve_frames(x, columns, padding), len(met), -1)
        return reduce(jnp.add, [placed(tap, taken(tap, part)) for tap, part in zip(met, parts, strict=True)])
    return reduce(jnp.add, [placed(tap, _convolve_frames(taken(tap, x), kernel[tap], padding)) for tap in met])


def _convolve_frames(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Stride-1 2-D convolution [kh,kw,I,O] of every frame of [B,T,H,W,I]; a 1x1 kernel is one matrix product."""
    if kernel.shape[:2] == (1, 1):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
    y = lax.conv_general_dilated(x.reshape(-1, *x.shape[2:]), kernel, (1, 1), padding, dimension_numbers=FRAMES)
    return y.reshape(*x.shape[:2], *y.shape[1:])
