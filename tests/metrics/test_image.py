"""PSNR and SSIM of images and videos."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.metrics.image import psnr, ssim

DISTORTIONS = ("brighter", "inverted", "shifted", "coarse", "other")
# From scikit-image 0.26.0, structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
# channel_axis=-1, data_range=255) of the images below in float64, in the order of DISTORTIONS.
EXPECTED = {
    (11, 11): (0.9541890624793429, -0.8049258159541409, 0.11551946227441856, 0.9409760361116938, 0.1777609005185042),
    (32, 48): (0.9474380376194227, -0.6269211536979332, 0.5204488210132592, 0.8572693738972109, -0.024542195034638007),
    (64, 64): (0.885489329487179, -0.45882684081917424, 0.3301565730813534, 0.6836291638719402, 0.09036095399002465),
}


def image(tag: str, height: int, width: int) -> np.ndarray:
    """uint8 [height,width,3]: colored cells and noise, from integers alone."""
    rng = np.random.default_rng(zlib.crc32(tag.encode()))
    grid, noise = rng.integers(0, 256, (5, 5, 3)), rng.integers(-20, 21, (height, width, 3))
    rows, columns = np.arange(height) * 4 // (height - 1), np.arange(width) * 4 // (width - 1)
    return np.clip(grid[rows][:, columns] + noise, 0, 255).astype(np.uint8)


def distorted(original: np.ndarray, name: str) -> np.ndarray:
    values = original.astype(int)
    changed = {
        "brighter": values + 30,
        "inverted": 255 - values,
        "shifted": np.roll(values, 2, 1),
        "coarse": values // 48 * 48,
        "other": image("ssim/other", *original.shape[:2]).astype(int),
    }[name]
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", EXPECTED)
def test_ssim_equals_scikit_image(size):
    original = image(f"ssim/{size[0]}x{size[1]}", *size)
    changed = np.stack([distorted(original, name) for name in DISTORTIONS])
    originals = np.stack([original] * len(DISTORTIONS))
    got = jax.jit(ssim, static_argnums=2)(changed, originals, 255)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, EXPECTED[size], atol=1e-6)
    # A range of 2 is the default; the values themselves count too, through the luminance.
    np.testing.assert_allclose(ssim(changed / 127.5, originals / 127.5), got, atol=1e-6)


def test_ssim_of_a_video_is_the_mean_of_its_frames():
    a, b = (np.stack([image(f"{tag}{i}", 16, 20) for i in range(6)]) for tag in "ab")
    frames = ssim(a, b, 255.0)
    np.testing.assert_allclose(
        ssim(*(x.reshape(2, 3, 16, 20, 3) for x in (a, b)), 255.0), frames.reshape(2, 3).mean(1), rtol=1e-5
    )
    np.testing.assert_allclose(ssim(b, a, 255.0), frames, atol=1e-6)


def test_ssim_of_constant_images_in_closed_form():
    """Only luminance differs. Flat images far from 0 leave no room for rounding in the variances."""
    a, b = (jnp.full((1, 12, 12, 1), value) for value in (200.0, 190.0))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 200 * 190 + c1) / (200**2 + 190**2 + c1)
    np.testing.assert_allclose(ssim(a, b, 255.0), [expected], atol=1e-6)
    np.testing.assert_allclose(ssim(a, a, 255.0), [1.0], atol=1e-6)


def test_ssim_has_a_gradient_where_the_images_are_equal():
    x = jnp.asarray(image("g", 16, 16)[None], jnp.float32)
    gradient_at = jax.jit(jax.grad(lambda y: ssim(y, x, 255.0).sum()))
    gradient = gradient_at(x)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-6  # the maximum
    assert np.abs(gradient_at(x + 20)).max() > 1e-5


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 10, 20, 3), (1, 10, 20, 3)), r"prediction is float32 \[1,10,20,3\], expected \[B,...,H>=11,W>=11,C\]"),
        (((1, 16, 16, 3), (1, 16, 16, 1)), r"prediction float32 \[1,16,16,3\] and target float32 \[1,16,16,1\]"),
        (((16, 16, 3), (16, 16, 3)), r"prediction is float32 \[16,16,3\], expected \[B,...,H>=11,W>=11,C\]"),
    ],
)
def test_ssim_names_wrong_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        ssim(*map(jnp.zeros, shapes))


def test_psnr_by_hand():
    """Mean squared errors of 0.25 and 0; the error of a video is averaged before the logarithm."""
    target = jnp.zeros((2, 2, 4, 4, 3))
    prediction = target.at[0, 0].set(np.sqrt(0.5))
    np.testing.assert_allclose(psnr(prediction, target), [10 * np.log10(4 / 0.25), 100], rtol=1e-5)
    np.testing.assert_allclose(psnr(prediction, target, data_range=1.0)[0], 10 * np.log10(4), rtol=1e-5)
    assert psnr(jnp.uint8(prediction), jnp.uint8(target), 255.0).dtype == jnp.float32
    with pytest.raises(ValueError, match="shapes differ"):
        psnr(prediction, target[:1])
