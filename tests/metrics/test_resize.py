"""Resizes against PyTorch's and Pillow's numbers, and against their definitions written as loops."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rules
from PIL import Image

from jaxvid.metrics.resize import METHODS, resize, resize_and_crop

REFERENCES = {
    "torch_bilinear": "bilinear",
    "tf1_bilinear": "bilinear_tf1",
    "torch_bilinear_antialias": "bilinear_antialias",
    "pil_bilinear_f32_clip": "bilinear_antialias",
    "pil_bicubic_f32_clip": "bicubic_antialias",
}
PILLOW = {"bilinear_antialias": Image.Resampling.BILINEAR, "bicubic_antialias": Image.Resampling.BICUBIC}


def check(numbers) -> None:
    """PyTorch places the samples in float32: up to 1.3e-4 gray levels off the definition."""
    checked = set()
    for name in numbers:
        case, method = name.split("/")
        if method in REFERENCES:
            want = numbers[name]
            run = jax.jit(partial(resize, size=want.shape[:2], method=REFERENCES[method]))
            np.testing.assert_allclose(np.clip(run(numbers[f"{case}/input_u8"]), 0, 255), want, atol=3e-4, err_msg=name)
            checked.add(method)
    assert {REFERENCES[method] for method in checked} == set(METHODS)


def embedded():
    return np.load(Path(__file__).with_name("resize_expected.npz"))


def test_equals_the_reference_programs():
    check(embedded())


def test_equals_the_reference_programs_in_all_cases(shared):
    numbers = np.load(shared / "fixtures" / "evaluator" / "resize_expected.npz")
    cases = {name.split("/")[0] for name in numbers} - {name.split("/")[0] for name in embedded()}
    check({name: numbers[name] for name in numbers if name.split("/")[0] in cases})


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize("size", [(31, 9), (5, 40), (24, 17), (1, 1)])
def test_equals_pillow(method, size):
    image = rules.image("pillow", 24, 17).astype(np.float32)
    channels = [Image.fromarray(image[..., c]).resize(size[::-1], PILLOW[method]) for c in range(3)]
    np.testing.assert_allclose(resize(image, size, method), np.stack(channels, -1), atol=2e-4)


@pytest.mark.parametrize("method", ["bilinear", "bilinear_tf1"])
def test_bilinear_by_hand(method):
    image, size = rules.image("by hand", 7, 10).astype(np.float64), (12, 4)
    want = np.empty((*size, 3))
    for y, x in np.ndindex(*size):
        rows, columns = [], []
        for places, index, n, m in (rows, y, 7, 12), (columns, x, 10, 4):
            position = index * n / m if method == "bilinear_tf1" else max((index + 0.5) * n / m - 0.5, 0)
            low = int(position)
            places += [(low, 1 - position + low), (min(low + 1, n - 1), position - low)]
        want[y, x] = sum(image[i, j] * p * q for i, p in rows for j, q in columns)
    np.testing.assert_allclose(resize(image, size, method), want, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_keeps_equal_sizes_and_constants_exactly(method):
    image = rules.image("same", 9, 6)
    np.testing.assert_array_equal(resize(image, (9, 6), method), image)
    constant = resize(jnp.full((2, 3, 9, 6, 1), 7.0), (4, 11), method)
    assert constant.shape == (2, 3, 4, 11, 1) and constant.dtype == jnp.float32
    np.testing.assert_allclose(constant, 7.0, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (64, 64), (100, 100), (300, 224)])
def test_resize_and_crop_by_its_definition(height, width):
    scale = 224 / min(height, width)
    size = (224, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), 224)
    assert (size == (225, 224)) == (height == 100)  # 100 * (224 / 100) is a little over 224
    video = rules.image("crop", height, width)[None]
    top, left = ((n - 224) // 2 for n in size)
    want = resize(video, size, "bilinear")[:, top : top + 224, left : left + 224]
    np.testing.assert_allclose(resize_and_crop(video, 224), want, atol=1e-4)


def test_bad_input_is_named():
    image = jnp.zeros((4, 4, 3))
    with pytest.raises(ValueError, match='"nearest", expected one of bilinear, '):
        resize(image, (2, 2), "nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 pixel, got 4 to 0"):
        resize(image, (2, 0), "bilinear")
