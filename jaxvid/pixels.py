"""Pixels as bytes: the one conversion from floats in [-1, 1] to uint8."""

from typing import Any

import numpy as np

EXPECTED = "expected uint8 in [0, 255], or floats in [-1, 1]"


def to_uint8(pixels: Any, name: str = "pixels", strict: bool = False) -> np.ndarray:
    """Pixels of any shape as uint8: floats in [-1, 1] are rounded to the nearest of 256 levels, uint8 passes through.

    What models generate is clipped to the range. `strict` is for what users provide: values outside of [-1, 1] are
    refused, and so are values that look like another range ([0, 1], or uint8 that are all 0 or 1).

    Raises ValueError, under the pixels' `name`, for another dtype, NaN, or, if strict, another range.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 and array.dtype.kind not in "fV":  # "V" is bfloat16
        raise ValueError(f"{name} holds {array.dtype}, {EXPECTED}.")
    # Unless it is strict, any range passes.
    low, high = (float(array.min()), float(array.max())) if strict and array.size else (-1.0, 1.0)
    if array.dtype == np.uint8:
        if low >= 0 and high == 1:
            raise ValueError(f"{name} holds uint8 that are 0 or 1, {EXPECTED}: multiply by 255.")
        return array
    found = f"{name} holds {array.dtype} from {low:.4g} to {high:.4g}"
    if not (low >= -1 and high <= 1):
        raise ValueError(f"{found}, {EXPECTED}.")
    if low > -0.05:  # resizing may leave a little less than 0
        raise ValueError(f"{found}, which looks like [0, 1]; {EXPECTED}: multiply by 255 and round to uint8.")
    array = array.astype(np.float32)
    if np.isnan(array).any():
        raise ValueError(f"{np.isnan(array).sum()} of {array.size} {name} are NaN: the model that made them diverged.")
    return ((array.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
