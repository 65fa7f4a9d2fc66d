"""Convolutions over video [B, T, H, W, C] that are fast on every backend, forward and backward.

XLA:CPU is 20 to 1,000 times too slow for the gradient of a strided convolution and for a transposed one, and GPUs are
slow for 3-D transposed ones, so neither reaches XLA there. The forms used instead equal the plain `lax` convolutions to
1e-5, values and gradients, and the gradient of each is made of operations of the same kind:

* space: a strided convolution is space-to-depth, then a stride-1 convolution; a transposed one is a stride-1
  convolution to `sh * sw * O` channels, then depth-to-space (the sub-pixel convolution, Shi et al. 2016);
* time, on CPU: the sum over the kernel's time taps of 2-D convolutions of the frames that the tap meets;
* the kernel's gradient, on CPU: the sum of those of parts of a large frame, each so small that XLA's form is fast.

The form is chosen while a program is traced, for the device it is traced on: unlike `lax.platform_dependent`, which
chooses when it is lowered, that does not trace all forms, nor keep what the gradients of all need. A program that is
lowered for another platform is right, and slow.

Products of bfloat16 are summed in float32: GPUs and TPUs do so by themselves, on CPU the arrays are cast first.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxvid.nn.norm import sum_over_rows
from jaxvid.parallel import platform

Triple = tuple[int, int, int]
Padding = Sequence[tuple[int, int]]
Convolve = Callable[[jax.Array, jax.Array, Sequence[int], Padding], jax.Array]
whole = lax.optimization_barrier  # what stands within is compiled by itself, and stays in the form that is fast
VIDEO = ("NDHWC", "DHWIO", "NDHWC")
FRAMES = ("NHWC", "HWIO", "NHWC")
PLACES = 2048  # of an output frame, beyond which the gradient of a 2-D kernel takes up to 8 times as long as in parts
THIN = 32  # channels up to which the 2-D convolution of one time tap is so thin that the taps are concatenated


def conv(
    x: jax.Array, kernel: jax.Array, strides: Triple = (1, 1, 1), padding: tuple[int, int] | None = None
) -> jax.Array:
    """Convolves video [B,T,H,W,I] with a kernel [kt,kh,kw,I,O] to [B, ceil(T/st), ceil(H/sh), ceil(W/sw), O].

    Equals `lax.conv_general_dilated` with SAME padding, or with so many frames of zeros before and after the video.
    Raises ValueError for shapes that do not fit.
    """
    _check(x, kernel)
    around = padding or _same(x.shape[1], kernel.shape[0], strides[0])
    if platform() != "cpu":
        pads = (around, *lax.padtype_to_pads(x.shape[2:4], kernel.shape[1:3], strides[1:], "SAME"))
        return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=VIDEO)
    x, kernel, dtype = whole(x.astype(jnp.float32)), whole(kernel.astype(jnp.float32)), x.dtype
    return whole(_gather(x, kernel, strides, around)).astype(dtype)


def conv_transpose(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    """Upsamples video [B,T,H,W,I] with a kernel [kt,kh,kw,I,O] to [B, T*st, H*sh, W*sw, O].

    Equals `lax.conv_transpose` with SAME padding. Raises ValueError for shapes that do not fit.
    """
    _check(x, kernel)
    if platform() == "tpu":
        return lax.conv_transpose(x, kernel, strides, "SAME", dimension_numbers=VIDEO)
    if platform() != "cpu":
        return _subpixel(x, kernel, strides)
    time, height, width = (n * s for n, s in zip(x.shape[1:4], strides, strict=True))
    flipped = jnp.swapaxes(whole(kernel.astype(jnp.float32))[::-1, ::-1, ::-1], 3, 4)
    around = _same(time, kernel.shape[0], strides[0])
    y = _spread(whole(x.astype(jnp.float32)), flipped, strides, (time, height, width), around)
    return whole(y).astype(x.dtype)


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
        return y if bias is None else add_bias(y, bias)

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution of this layer, without its bias."""
        return conv(x, kernel, self.strides)


class ConvTranspose(Conv):
    """`conv_transpose` with a learned kernel and bias: [B,T,H,W,I] to [B, T*st, H*sh, W*sw, features]."""

    kernel_size: Triple = (4, 4, 4)
    strides: Triple = (2, 2, 2)

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv_transpose(x, kernel, self.strides)


@jax.custom_vjp
def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """[..., C] + [C], with a gradient of the bias that XLA:CPU sums fast."""
    return y + bias


add_bias.defvjp(
    lambda y, bias: (y + bias, bias),
    lambda bias, g: (g, sum_over_rows(g.reshape(1, -1, g.shape[-1]).astype(jnp.float32))[0].astype(bias.dtype)),
)


def space_to_depth(x: jax.Array, factors: Triple) -> jax.Array:
    """Moves blocks of ft x fh x fw pixels into channels: [B,T,H,W,C] to [B, T/ft, H/fh, W/fw, ft*fh*fw*C].

    Raises ValueError where a size is no multiple of its factor.
    """
    batch, *sizes, channels = x.shape
    if any(n % f for n, f in zip(sizes, factors, strict=True)):
        raise ValueError(f"space_to_depth needs [T, H, W] in multiples of {factors}, got {sizes}: pad or crop it.")
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


def _subpixel(x: jax.Array, kernel: jax.Array, strides: Triple) -> jax.Array:
    """`conv_transpose` as a stride-1 convolution to st * sh * sw * O channels, which become places of the output."""
    # Output o meets input i in tap j of the flipped kernel where o = stride * i + j - before.
    t, h, w = (max(k - s, 0) // 2 for k, s in zip(kernel.shape, strides, strict=False))
    time, height, width = (n * s for n, s in zip(x.shape[1:4], strides, strict=True))
    split = _split_taps(kernel[::-1, ::-1, ::-1], strides)[::-1, ::-1, ::-1]
    kernel = jnp.moveaxis(split, 3, 4).reshape(*split.shape[:3], x.shape[-1], -1)
    margins = [(m - 1, m - 1) for m in kernel.shape[:3]]
    y = lax.conv_general_dilated(x, kernel, (1, 1, 1), margins, dimension_numbers=VIDEO)
    return depth_to_space(y, strides)[:, t : t + time, h : h + height, w : w + width]


class _Meeting(NamedTuple):
    """The frames that meet in one time tap, in order."""

    tap: int
    first: int  # of the input,
    last: int  # with the stride between them
    start: int  # of the output
    end: int


def _same(length: int, taps: int, stride: int) -> tuple[int, int]:
    """How many zeros SAME padding puts before and after."""
    return lax.padtype_to_pads((length,), (taps,), (stride,), "SAME")[0]


def _frames(length: int, taps: int, stride: int, around: tuple[int, int]) -> int:
    """Of the output."""
    return (length + sum(around) - taps) // stride + 1


def _meetings(taps: int, stride: int, length: int, around: tuple[int, int]) -> list[_Meeting]:
    """For each time tap that meets a frame: input i and output o meet in tap i - stride * o + the zeros before."""
    found, before = [], around[0]
    for tap in range(taps):
        frames = range(_frames(length, taps, stride, around))
        outputs = [o for o in frames if 0 <= stride * o + tap - before < length]
        if outputs:
            first, last = (stride * o + tap - before for o in (outputs[0], outputs[-1]))
            found.append(_Meeting(tap, first, last, outputs[0], outputs[-1]))
    return found


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gather(x: jax.Array, kernel: jax.Array, strides: Triple, around: tuple[int, int]) -> jax.Array:
    """The convolution of [B,T,H,W,I], as strided 2-D convolutions of the frames that each time tap meets."""
    return _sum_over_taps(x, kernel, strides, around, _convolve_frames)


def _sum_over_taps(
    x: jax.Array, kernel: jax.Array, strides: Triple, around: tuple[int, int], convolve: Convolve
) -> jax.Array:
    """`_gather` with a form of `_convolve_frames`. Planes that are all padding are not computed."""
    frames = _frames(x.shape[1], kernel.shape[0], strides[0], around)
    padding = lax.padtype_to_pads(x.shape[2:4], kernel.shape[1:3], strides[1:], "SAME")

    def taken(meeting: _Meeting, source: jax.Array) -> jax.Array:
        return source[:, meeting.first : meeting.last + 1 : strides[0]]

    def placed(meeting: _Meeting, y: jax.Array) -> jax.Array:
        return jnp.pad(y, [(0, 0), (meeting.start, frames - 1 - meeting.end), (0, 0), (0, 0), (0, 0)])

    met = _meetings(kernel.shape[0], strides[0], x.shape[1], around)
    if kernel.shape[3] <= THIN:
        stacked = jnp.concatenate([placed(each, taken(each, x)) for each in met], -1)
        rows = jnp.concatenate([kernel[each.tap] for each in met], 2)
        return convolve(stacked, rows, strides[1:], padding)
    if kernel.shape[4] <= THIN and strides[0] == 1:
        columns = jnp.concatenate([kernel[each.tap] for each in met], 3)
        parts = jnp.split(convolve(x, columns, strides[1:], padding), len(met), -1)
        return reduce(jnp.add, [placed(each, taken(each, part)) for each, part in zip(met, parts, strict=True)])
    parts = [convolve(taken(each, x), kernel[each.tap], strides[1:], padding) for each in met]
    return reduce(jnp.add, [placed(each, part) for each, part in zip(met, parts, strict=True)])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _spread(y: jax.Array, kernel: jax.Array, strides: Triple, size: Triple, around: tuple[int, int]) -> jax.Array:
    """The transpose of `_gather` by its video: [B,T',H',W',O] to [B,*size,I].

    Where it is strided in space, a product of each place with all taps, which are then added where they overlap.
    """
    if strides[1:] == (1, 1):
        x = jax.ShapeDtypeStruct((len(y), *size, kernel.shape[3]), y.dtype)
        return jax.linear_transpose(lambda x: _gather.fun(x, kernel, strides, around), x)(y)[0]
    met = _meetings(kernel.shape[0], strides[0], size[0], around)
    (top, _), (left, _) = lax.padtype_to_pads(size[1:], kernel.shape[1:3], strides[1:], "SAME")
    split = _split_taps(kernel, (1, *strides[1:]))  # [kt, blocks of h, of w, taps of a block, I, O]
    rows, columns = split.shape[1:3]

    def added(products: jax.Array) -> jax.Array:
        """Products [B,T',H',W',rows,columns,C] added where blocks meet: [B,T',H'+rows-1,W'+columns-1,C]."""
        places = [(i, j) for i in range(rows) for j in range(columns)]
        none, shifted = (0, 0), [((i, rows - 1 - i), (j, columns - 1 - j)) for i, j in places]
        parts = [products[..., i, j, :] for i, j in places]
        return reduce(jnp.add, [jnp.pad(x, [none, none, *at, none]) for x, at in zip(parts, shifted, strict=True)])

    def placed(meeting: _Meeting, part: jax.Array) -> jax.Array:
        none, between = (0, 0, 0), (meeting.first, size[0] - 1 - meeting.last, strides[0] - 1)
        return lax.pad(part, jnp.zeros((), part.dtype), [none, between, none, none, none])

    parts = []
    for each in met:
        source = y[:, each.start : each.end + 1]
        products = jnp.einsum("bthwo,ijkco->bthwijkc", source, split[each.tap])
        parts.append(placed(each, added(products.reshape(*products.shape[:-2], -1))))
    video = depth_to_space(reduce(jnp.add, parts), (1, *strides[1:]))
    return video[:, :, top : top + size[1], left : left + size[2]]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _correlate(x: jax.Array, y: jax.Array, strides: Triple, window: Triple, around: tuple[int, int]) -> jax.Array:
    """The transpose of `_gather` by its kernel: [B,T,H,W,I] and [B,T',H',W',O] to [*window,I,O]."""
    # Of few channels at the output: XLA's form packs many rows for them, and takes up to 8 times as long.
    if 4 * y.shape[-1] <= x.shape[-1] and strides == (1, 1, 1) and all(n % 2 for n in window):
        mirrored = tuple(window[0] - 1 - n for n in around)
        return jnp.swapaxes(_correlate(y, x, strides, window, mirrored)[::-1, ::-1, ::-1], 3, 4)
    kernel = jax.ShapeDtypeStruct((*window, x.shape[-1], y.shape[-1]), x.dtype)
    gather = partial(_sum_over_taps, x, strides=strides, around=around, convolve=_convolve_in_parts)
    return jax.linear_transpose(gather, kernel)(y)[0]


# The three are the derivatives of each other, so that those of every order are fast. Left to itself, JAX differentiates
# what it made of the transposes, and meets the slow forms: the gradient of a gradient penalty took 18 times as long.
_gather.defvjp(
    lambda x, k, strides, around: (_gather(x, k, strides, around), (x, k)),
    lambda strides, around, xk, y: (
        _spread(y, xk[1], strides, xk[0].shape[1:4], around),
        _correlate(xk[0], y, strides, xk[1].shape[:3], around),
    ),
)
_spread.defvjp(
    lambda y, k, strides, size, around: (_spread(y, k, strides, size, around), (y, k)),
    lambda strides, size, around, yk, x: (
        _gather(x, yk[1], strides, around),
        _correlate(x, yk[0], strides, yk[1].shape[:3], around),
    ),
)
_correlate.defvjp(
    lambda x, y, strides, window, around: (_correlate(x, y, strides, window, around), (x, y)),
    lambda strides, window, around, xy, k: (
        _spread(xy[1], k, strides, xy[0].shape[1:4], around),
        _gather(xy[0], k, strides, around),
    ),
)


def _convolve_frames(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """2-D convolution [kh,kw,I,O] of every frame of [B,T,H,W,I]; a 1x1 kernel is one matrix product."""
    if kernel.shape[:2] == tuple(strides) == (1, 1):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
    y = lax.conv_general_dilated(x.reshape(-1, *x.shape[2:]), kernel, strides, padding, dimension_numbers=FRAMES)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _convolve_in_parts(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """`_convolve_frames`, where they are large in parts of some rows, whose transposes by the kernel are fast."""
    height, width = (
        (n + sum(p) - k) // s + 1 for n, p, k, s in zip(x.shape[2:4], padding, kernel.shape, strides, strict=False)
    )
    count = min(-(-height * width // PLACES), height)
    if count == 1 or kernel.shape[:2] == (1, 1):
        return _convolve_frames(x, kernel, strides, padding)
    padded = jnp.pad(x, [(0, 0), (0, 0), *padding, (0, 0)])
    stride, taps = strides[0], kernel.shape[0]
    rows = np.array_split(np.arange(height), count)
    seen = [padded[:, :, stride * each[0] : stride * each[-1] + taps] for each in rows]
    return jnp.concatenate([_convolve_frames(part, kernel, strides, ((0, 0), (0, 0))) for part in seen], 2)
