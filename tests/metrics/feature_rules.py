"""Feature arrays made by integer arithmetic, equal on every machine, for which reference programs gave numbers."""

import zlib

import numpy as np


def features(tag: str, count: int, dim: int, shift: int = 0, scale: int = 8192) -> np.ndarray:
    """float32 [count,dim], at least 0, for a tag "case/1" or "case/2"; both sets of a case share their directions."""
    return (np.maximum(_integers(tag, tag.split("/")[0], count, dim, shift), 0) / scale).astype(np.float32)


def logits(tag: str, count: int, classes: int) -> np.ndarray:
    """float32 [count,classes]."""
    return (_integers(tag, tag, count, classes, 0) / 4096).astype(np.float32)


def _integers(tag: str, basis: str, count: int, dim: int, shift: int) -> np.ndarray:
    def generator(name: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(name.encode()))

    directions, samples = generator(f"basis/{basis}"), generator(f"features/{tag}")
    weights, bias = directions.integers(-128, 128, (8, dim)), directions.integers(-128, 128, dim)
    factors, noise = samples.integers(-128, 128, (count, 8)), samples.integers(-128, 128, (count, dim))
    return factors @ weights + 64 * (noise + bias + shift)
