"""PSNR and SSIM of images and videos."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.metrics.image import change_error, psnr, ssim, standing_still, still_flicker

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


def moving_square(frames: int = 4, size: int = 64) -> np.ndarray:
    """A bright square that moves right by two pixels a frame on a dark ground, [1,T,H,W,3] in [-1, 1]."""
    video = np.full((1, frames, size, size, 3), -0.8, np.float32)
    for frame in range(frames):
        video[0, frame, 8:16, 8 + 2 * frame : 16 + 2 * frame] = 0.9
    return video


def test_change_error_is_0_of_the_truth_and_the_mean_change_of_a_frozen_video():
    truth = moving_square()
    brighter = np.clip(truth + 0.1, -1, 1)
    frozen = np.repeat(truth[:, :1], 4, 1)
    assert float(change_error(truth, truth)[0]) == 0
    np.testing.assert_allclose(change_error(brighter, truth), 0, atol=1e-4)
    pixels = 2 * 2 * 8 / 64**2  # two columns of the square come, and two go
    np.testing.assert_allclose(change_error(frozen, truth), 127.5 * 1.7 * pixels, rtol=1e-4)


@pytest.mark.parametrize(("size", "reach"), [(64, 8), (32, 4)])
def test_what_stands_still_is_beyond_the_window_of_what_moves(size, reach):
    still = np.asarray(standing_still(moving_square(size=size)))[0, 0]
    rows, columns = np.nonzero(~still)
    assert (rows.min(), rows.max()) == (max(0, 8 - reach), 15 + reach)
    assert (columns.min(), columns.max()) == (max(0, 8 - reach), 17 + reach)


def test_flicker_counts_where_the_source_stands_still_alone():
    source = moving_square()
    made = source.copy()
    made[0, 1, 40:44] += 0.2  # four rows of one frame: they come and go
    made[0, 2, 8:16, 12:20] = 0.0  # where the source moves
    still = np.asarray(standing_still(source))
    expected = 127.5 * 0.2 * 2 * 4 * 64 / still.sum()
    np.testing.assert_allclose(still_flicker(made, source), [expected], rtol=1e-4)
    assert float(still_flicker(source, source)[0]) == 0
    noise = np.random.default_rng(0).normal(0, 3 / 127.5, source.shape).astype(np.float32)
    np.testing.assert_allclose(still_flicker(source + noise, source), 3 * 2 / np.sqrt(np.pi), rtol=0.02)  # of sd 3
