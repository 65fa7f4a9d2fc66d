"""Pixels as bytes: the one conversion from floats in [-1, 1] to uint8."""

from typing import Any

import ml_dtypes
import numpy as np

EXPECTED = "expected uint8 in [0, 255], or floats in [-1, 1]"


def to_uint8(pixels: Any, name: str = "pixels", strict: bool = False) -> np.ndarray:
    """Pixels of any shape as uint8: floats in [-1, 1] are rounded to the nearest of 256 levels, uint8 passes through.

    What models generate is clipped to the range. `strict` is for what users provide: values outside of [-1, 1] are
    refused, and so are values that look like another range, see `check_range`.

    Raises ValueError, under the pixels' `name`, for another dtype, NaN, or, if strict, another range.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 and array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{name} holds {array.dtype}, {EXPECTED}.")
    if strict and array.size:
        check_range(float(array.min()), float(array.max()), array.dtype, name)
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float32)
    if np.isnan(array).any():
        raise ValueError(f"{np.isnan(array).sum()} of {array.size} {name} are NaN: the model that made them diverged.")
    return ((array.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def check_range(low: float, high: float, dtype: Any, name: str, part: bool = False) -> None:
    """Raises ValueError where the extremes of floats are outside of [-1, 1], or pixels are of another kind.

    Those kinds are floats in [0, 1], and uint8 that are all 0 or 1: a `part` of what a user gives cannot tell.
    """
    if dtype == np.uint8:
        if high == 1 and not part:
            raise ValueError(f"{name} holds uint8 that are 0 or 1, {EXPECTED}: multiply by 255.")
        return
    found = f"{name} holds {dtype} from {low:.4g} to {high:.4g}"
    if not (low >= -1 and high <= 1):
        raise ValueError(f"{found}, {EXPECTED}.")
    if low > -0.05 and not part:  # resizing may leave a little less than 0
        raise ValueError(f"{found}, which looks like [0, 1]; {EXPECTED}: multiply by 255 and round to uint8.")
