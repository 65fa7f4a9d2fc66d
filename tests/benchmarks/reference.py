"""SAME convolutions over video in float64 NumPy, with both gradients: (video, kernel, gradient of the output, strides)
-> output, gradient by video, gradient by kernel. Slow, and made of nothing that jaxvid is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

Triple = tuple[int, int, int]
Result = tuple[np.ndarray, np.ndarray, np.ndarray]


def conv(x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, strides: Triple) -> Result:
    """[B,T,H,W,I] and [kt,kh,kw,I,O] to [B, ceil(T/st), ceil(H/sh), ceil(W/sw), O]."""
    y, to_kernel = np.zeros_like(gradient), np.zeros_like(kernel)
    padded, crop = padded_like(x, kernel, strides)
    to_padded = np.zeros_like(padded)
    for tap, met in meetings(kernel, strides, gradient):
        y += padded[met] @ kernel[tap]
        to_padded[met] += gradient @ kernel[tap].T
        to_kernel[tap] = np.einsum("bthwi,bthwo->io", padded[met], gradient)
    return y, to_padded[crop], to_kernel


def conv_transpose(x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, strides: Triple) -> Result:
    """[B,T,H,W,I] and [kt,kh,kw,I,O] to [B, T*st, H*sh, W*sw, O]: the gradient by video of a strided convolution with
    the kernel turned round in space."""
    padded, crop = padded_like(gradient, kernel, strides)
    y, to_x, to_kernel = np.zeros_like(padded), np.zeros_like(x), np.zeros_like(kernel)
    for tap, met in meetings(kernel, strides, x):
        turned = tuple(size - 1 - index for size, index in zip(kernel.shape, tap, strict=False))
        y[met] += x @ kernel[turned]
        to_x += padded[met] @ kernel[turned].T
        to_kernel[turned] = np.einsum("bthwi,bthwo->io", x, padded[met])
    return y[crop], to_x, to_kernel


def padded_like(x: np.ndarray, kernel: np.ndarray, strides: Triple) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Video with the zeros of SAME padding around it, and where in it the video stands."""
    pads = [(0, 0)]
    for size, taps, stride in zip(x.shape[1:4], kernel.shape, strides, strict=False):
        missing = max((-(-size // stride) - 1) * stride + taps - size, 0)
        pads.append((missing // 2, missing - missing // 2))
    place = tuple(slice(low, low + size) for (low, _), size in zip(pads, x.shape, strict=False))
    return np.pad(x, [*pads, (0, 0)]), place


def meetings(
    kernel: np.ndarray, strides: Triple, coarse: np.ndarray
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each tap, and the places of the padded video that it meets, one for each place of the coarse grid."""
    for tap in itertools.product(*map(range, kernel.shape[:3])):
        slices = [
            slice(index, index + stride * (size - 1) + 1, stride)
            for index, stride, size in zip(tap, strides, coarse.shape[1:4], strict=True)
        ]
        yield tap, (slice(None), *slices)
