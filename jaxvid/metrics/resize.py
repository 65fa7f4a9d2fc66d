"""The resizing methods of published FID and FVD numbers; each changes the score, so each has a name.

A resize is a product with two small matrices, computed in float64 and applied in float32. METHODS:

* "bilinear": between the two nearest pixels, pixel centers at i + 1/2 (PyTorch's `interpolate`, no antialiasing);
* "bilinear_tf1": the same with centers at i (TensorFlow 1, and the graphs of the first FID and FVD programs);
* "bilinear_antialias": the triangle filter, widened for downsampling (Pillow; PyTorch with `antialias=True`);
* "bicubic_antialias": the same with the cubic filter with a = -1/2 (Pillow). It overshoots: clip to the images' range.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.names import choice
from jaxvid.shapes import expect

Method = Literal["bilinear", "bilinear_tf1", "bilinear_antialias", "bicubic_antialias"]
METHODS: tuple[str, ...] = get_args(Method)


def resize(images: jax.Array, size: tuple[int, int], method: Method) -> jax.Array:
    """Resizes images of any real dtype and range [..., H, W, C] to float32 [..., *size, C]; equal sizes change nothing.

    Raises ValueError for another shape or method, or sizes below 1.
    """
    expect("[...,H,W,C]", images=images)
    rows, columns = (_matrix(n, m, method) for n, m in zip(images.shape[-3:-1], size, strict=True))
    return _apply(images, rows, columns)


def resize_and_crop(images: jax.Array, size: int) -> jax.Array:
    """Resizes the shorter side of images [..., H, W, C] to `size` ("bilinear"), and crops the center square.

    This is the preprocessing of VideoGPT (Yan et al. 2021) and of the FVD programs derived from it; the longer side is
    rounded up. Takes any real dtype and range, returns float32 [..., size, size, C]. Raises ValueError for another
    shape or a size below 1.
    """
    expect("[...,H,W,C]", images=images)
    height, width = images.shape[-3:-1]
    scale = size / min(height, width)
    # In floating point, as in those programs: a side that divides evenly may be rounded up, even that of a square.
    resized = (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)
    rows, columns = (_matrix(n, m, "bilinear") for n, m in zip((height, width), resized, strict=True))
    top, left = ((n - size) // 2 for n in resized)
    return _apply(images, rows[top : top + size], columns[left : left + size])


def _apply(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Rows [h,H] and columns [w,W] of images [..., H, W, C]."""
    x = images.astype(jnp.float32)
    for matrix, product in ((rows, "hH,...HWc->...hWc"), (columns, "wW,...HWc->...Hwc")):
        if not np.array_equal(matrix, np.eye(len(matrix))):
            x = jnp.einsum(product, jnp.float32(matrix), x, precision=lax.Precision.HIGHEST)
    return x


def _matrix(inputs: int, outputs: int, method: str) -> np.ndarray:
    """Weights float64 [outputs, inputs]; every row sums to 1."""
    choice("method", method, METHODS)
    if inputs < 1 or outputs < 1:
        raise ValueError(f"A resize goes from and to sizes of at least 1 pixel, got {inputs} to {outputs}.")
    scale, pixels, indices = inputs / outputs, np.arange(inputs), np.arange(outputs)
    if method in ("bilinear", "bilinear_tf1"):
        positions = indices * scale if method == "bilinear_tf1" else (indices + 0.5) * scale - 0.5
        distances = np.clip(positions, 0, inputs - 1)[:, None] - pixels  # beyond the last centers, the last pixels
        return _triangle(distances)
    distances = ((indices[:, None] + 0.5) * scale - (pixels + 0.5)) / max(scale, 1.0)
    weights = _triangle(distances) if method == "bilinear_antialias" else _cubic(distances)
    return weights / weights.sum(-1, keepdims=True)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys 1981, equation 4 with the free parameter a."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
