"""Arguments that fit pass, others are refused by name, also while a function is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.shapes import expect, expect_equal

VIDEO = np.zeros((2, 4, 8, 6, 3), np.uint8)


@pytest.mark.parametrize(
    "layout", ["[B,T,H,W,C]", "[B,T>=4,H,W,3]", "[2,T,H,W,1|3]", "[B,...]", "[...,H,W>=6,C]", "[...]"]
)
def test_what_fits_passes(layout: str) -> None:
    expect(layout, video=VIDEO)
    expect(layout, "uint8", video=VIDEO)
    expect(layout, int, video=jnp.asarray(VIDEO))


@pytest.mark.parametrize(
    ("layout", "dtype", "array", "message"),
    [
        ("[B,T,H,W,C]", None, VIDEO[0], r"^video is uint8 \[4,8,6,3\], expected \[B,T,H,W,C\]\.$"),
        ("[B,T,H,W,C]", np.uint8, VIDEO[..., 0], r"^video is uint8 \[2,4,8,6\], expected uint8 \[B,T,H,W,C\]\.$"),
        ("[B,T,H,W,3]", None, VIDEO[..., :1], r"is uint8 \[2,4,8,6,1\], expected \[B,T,H,W,3\]"),
        ("[B,T,H,W,1|3]", None, VIDEO[..., :2], r"is uint8 \[2,4,8,6,2\], expected \[B,T,H,W,1\|3\]"),
        ("[B,T>=5,H,W,C]", None, VIDEO, r"is uint8 \[2,4,8,6,3\], expected \[B,T>=5,H,W,C\]"),
        ("[B,...,H,W>=7,C]", None, VIDEO, r"expected \[B,...,H,W>=7,C\]"),
        ("[B,...]", None, np.float32(1), r"is float32 \[\], expected \[B,...\]"),
        ("[]", None, VIDEO, r"expected \[\]"),
        ("[...]", float, VIDEO, r"expected float \[...\]"),
        ("[...]", "float32", VIDEO, r"expected float32 \[...\]"),
        ("[B]", None, [1, 2], r"is a list, expected \[B\]"),
        ("[B,...]", None, VIDEO[:0], r"uint8 \[0,4,8,6,3\], expected \[B,...\], of one example at least\.$"),
    ],
)
def test_what_does_not_fit_is_named(layout: str, dtype, array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expect(layout, dtype, video=array)


def test_shapes_that_have_to_be_equal() -> None:
    expect_equal("[B,...]", prediction=np.zeros((2, 3)), target=np.ones((2, 3)))
    message = r"^The shapes differ: prediction float32 \[2\] and target float32 \[2,1\], expected the same \[B,...\]\.$"
    with pytest.raises(ValueError, match=message):
        expect_equal("[B,...]", prediction=np.zeros(2, np.float32), target=np.zeros((2, 1), np.float32))


def test_it_works_on_tracers() -> None:
    def energy(x: jax.Array) -> jax.Array:
        expect("[N,3]", float, x=x)
        return (x**2).sum()

    x = jnp.arange(24.0).reshape(4, 2, 3)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(energy)))(x), 2 * x)
    for transformed in (jax.jit(energy), jax.grad(energy), jax.vmap(jax.vmap(energy))):
        with pytest.raises(ValueError, match=r"x is float32 \[.*3\], expected float \[N,3\]"):
            transformed(x)
