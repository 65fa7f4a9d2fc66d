"""Weights, images, videos and features made by rules of integers, so that they are the same bits everywhere.

The reference numbers that the tests compare with came out of other programs on these inputs. A `salt` makes another
set of everything.
"""

from __future__ import annotations

import zlib

import numpy as np


def weights(key: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """The tensor of a PyTorch state dict: float32 in PyTorch's layout, or int64 zeros for a counter."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    r = _integers(_generator(key, salt), -32768, 32768, shape)
    if r.ndim < 2:
        spread = 0.1 * (r / 18918.0)  # 18918 is the standard deviation of r
        return (spread if key.endswith(("bias", "running_mean")) else 1.0 + spread).astype(np.float32)
    gain = 1.0 if key.startswith(("fc.", "logits.")) else 3.0
    n = r[0].size
    centered = r * n - r.sum(tuple(range(1, r.ndim)), keepdims=True)
    return (centered / (n * 18918.0) * np.sqrt(gain / n)).astype(np.float32)


def image(case: str, height: int, width: int, salt: str = "") -> np.ndarray:
    """uint8 [height, width, 3]: a grid of 7x7 random colors, interpolated, with noise."""
    generator = _generator(f"image/{case}", salt)
    grid = _integers(generator, 0, 256, (7, 7, 3))
    return _painted(grid, _integers(generator, -20, 21, (height, width, 3)))


def video(case: str, frames: int, height: int, width: int, salt: str = "") -> np.ndarray:
    """uint8 [frames, height, width, 3]: from one such grid to another, with new noise in every frame."""
    generator = _generator(f"video/{case}", salt)
    first, last = (_integers(generator, 0, 256, (7, 7, 3)) for _ in range(2))
    noise = _integers(generator, -20, 21, (frames, height, width, 3))
    n = frames - 1
    return np.stack([_painted((first * (n - i) + last * i + n // 2) // n, noise[i]) for i in range(frames)])


def features(tag: str, count: int, dim: int, shift: int, basis: str, salt: str = "") -> np.ndarray:
    """float32 [count, dim], not negative, like pooled activations; sets of one basis differ by their shift alone."""
    return (np.maximum(_mixtures(tag, count, dim, shift, basis, salt), 0) / 8192).astype(np.float32)


def logits(tag: str, count: int, dim: int, salt: str = "") -> np.ndarray:
    """float32 [count, dim]."""
    return (_mixtures(tag, count, dim, 0, tag, salt) / 4096).astype(np.float32)


def _mixtures(tag: str, count: int, dim: int, shift: int, basis: str, salt: str) -> np.ndarray:
    generator = _generator(f"basis/{basis}", salt)
    directions, offset = (_integers(generator, -128, 128, shape) for shape in ((8, dim), (dim,)))
    generator = _generator(f"features/{tag}", salt)
    coordinates, noise = (_integers(generator, -128, 128, (count, columns)) for columns in (8, dim))
    return coordinates @ directions + 64 * (noise + offset + shift)


def _painted(grid: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of the grid [7,7,3] in integers, rounded, plus noise [H,W,3]."""
    (top, fy), (left, fx) = (_cells(n) for n in noise.shape[:2])
    fy, fx = fy[:, None, None], fx[None, :, None]
    h, w = noise.shape[0] - 1, noise.shape[1] - 1
    rows = (h - fy) * grid[top] + fy * grid[top + 1]
    sums = (w - fx) * rows[:, left] + fx * rows[:, left + 1]
    return np.clip((sums + h * w // 2) // (h * w) + noise, 0, 255).astype(np.uint8)


def _cells(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell of every pixel along an axis of n, and its place in that cell in units of 1 / (n - 1)."""
    position = 6 * np.arange(n)
    cell = np.minimum(position // (n - 1), 5)
    return cell, position - cell * (n - 1)


def _generator(tag: str, salt: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32((salt + tag).encode()))


def _integers(generator: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    return generator.integers(low, high, size=shape, dtype=np.int64)
