"""Floats in [-1, 1] become the nearest byte; what cannot be meant is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.pixels import to_uint8

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("strict", [False, True])
def test_floats_are_rounded_to_the_nearest_level(strict: bool) -> None:
    exact = LEVELS / 127.5 - 1
    for floats in (exact, (exact + 0.0038).clip(-1, 1), (exact - 0.0038).clip(-1, 1), exact.astype(np.float32)):
        np.testing.assert_array_equal(to_uint8(floats, strict=strict), LEVELS)
    assert to_uint8(LEVELS, strict=strict) is LEVELS
    assert to_uint8(np.zeros((0, 4), np.float32), strict=strict).shape == (0, 4)


def test_outputs_of_models_are_clipped() -> None:
    assert to_uint8([-3.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.002, 1.0, 3.0]).tolist() == [
        *(0, 0, 0, 1, 128, 255, 255)
    ]
    assert to_uint8(jnp.asarray([-1.5, 0.0, 1.5], jnp.bfloat16)).tolist() == [0, 128, 255]
    assert to_uint8(np.zeros(3, np.float32)).tolist() == [128] * 3  # a gray frame, not a range of [0, 1]


@pytest.mark.parametrize(
    ("strict", "pixels", "message"),
    [
        (False, np.array([0.0, np.nan]), "^1 of 2 clips are NaN"),
        (False, np.arange(3), "^clips holds int64, expected uint8 in"),
        (False, np.array([True]), "^clips holds bool, expected uint8 in"),
        (True, np.array([0.0, np.nan]), "clips holds float64 from nan to nan, expected"),
        (True, np.array([-1, 1.01]), "clips holds float64 from -1 to 1.01, expected"),
        (True, np.array([-0.04, 1.0]), r"looks like \[0, 1\]; expected"),
        (True, LEVELS // 128, "clips holds uint8 that are 0 or 1, expected"),
        (True, np.arange(3), "^clips holds int64, expected uint8 in"),
        (True, np.zeros(3, "V2"), r"^clips holds \|V2, expected uint8 in"),
        (True, np.zeros(3, [("a", "u1")]), "^clips holds .*'a'.*, expected uint8 in"),
        (True, np.zeros(3, complex), "^clips holds complex128, expected uint8 in"),
    ],
)
def test_what_cannot_be_pixels_is_refused(strict: bool, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_uint8(pixels, "clips", strict)
