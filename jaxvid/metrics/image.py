"""Full-reference image quality."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.shapes import expect_equal

STILL = 2.0  # gray levels by which a window that stands still changes at most
NEAR = 17  # pixels of its height and width, and 9 where frames have fewer than 48
WINDOW = 11  # pixels of SSIM's window,
SIGMA = 1.5  # a Gaussian of this standard deviation


def psnr(prediction: jax.Array, target: jax.Array, data_range: float = 2.0) -> jax.Array:
    """Peak signal-to-noise ratio in dB over all but the first axis: [B, ...], [B, ...] -> float32 [B].

    10 log10(data_range^2 / mean squared error). A whole video counts as one signal: its error is averaged over all
    frames before the logarithm, which never gives more than the mean of its frames' PSNRs. The error is at least 1e-10;
    `data_range` is peak to peak, 2 for [-1, 1], 255 for uint8 values. Raises ValueError if the shapes differ.
    """
    expect_equal("[B,...]", prediction=prediction, target=target)
    error = (prediction.astype(jnp.float32) - target.astype(jnp.float32)) / data_range
    mse = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
    return -10.0 * jnp.log10(jnp.maximum(mse, 1e-10))


def ssim(prediction: jax.Array, target: jax.Array, data_range: float = 2.0) -> jax.Array:
    """Structural similarity (Wang et al. 2004) in [-1, 1]: [B, ..., H, W, C], [B, ..., H, W, C] -> float32 [B].

    The mean of eq. 13 over all windows that lie within the frame, over channels and frames, with the paper's 11x11
    Gaussian of sigma 1.5, K1 = 0.01 and K2 = 0.03. Unlike in some programs, large frames are not downsampled first.
    `data_range` is as in `psnr`. Raises ValueError if the shapes differ, are no batch of images or videos, or have
    frames smaller than 11x11.
    """
    expect_equal(f"[B,...,H>={WINDOW},W>={WINDOW},C]", prediction=prediction, target=target)
    shape = prediction.shape
    scaled = (jnp.moveaxis(x.astype(jnp.float32) / data_range, -1, -3) for x in (prediction, target))
    planes = [x.reshape(-1, *shape[-3:-1]) for x in scaled]
    # Variances are differences of means, which lose fewer digits around zero.
    center = jnp.mean(planes[1], axis=(1, 2), keepdims=True)
    x, y = (plane - center for plane in planes)
    mean_x, mean_y, mean_squares, mean_product = _gaussian(jnp.stack([x, y, x * x + y * y, x * y]))
    covariance = mean_product - mean_x * mean_y
    variances = mean_squares - mean_x**2 - mean_y**2
    luminance_x, luminance_y = mean_x + center, mean_y + center
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * luminance_x * luminance_y + c1) / (luminance_x**2 + luminance_y**2 + c1)
    similarity = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity.reshape(shape[0], -1).mean(axis=1)


def _gaussian(planes: jax.Array) -> jax.Array:
    """Gaussian means [...,H-10,W-10] over the windows of [...,H,W]."""
    weights = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    weights /= weights.sum()
    for axis in (-2, -1):
        size = planes.shape[axis] - WINDOW + 1
        # Sums of slices are float32 on every device, and on CPU 20 times as fast as convolutions of one channel.
        slices = [lax.slice_in_dim(planes, i, i + size, axis=axis) * float(weights[i]) for i in range(WINDOW)]
        planes = sum(slices[1:], slices[0])
    return planes


def change_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean |change of the prediction - change of the target| from frame to frame, in gray levels of 255: [B].

    Args:
      prediction, target: videos [B,T>=2,H,W,C] in [-1, 1].

    A video that stands still has the target's own mean change; the smaller, the better motion and its steadiness are.
    Raises ValueError if the shapes differ.
    """
    expect_equal("[B,T>=2,H,W,C]", float, prediction=prediction, target=target)
    error = jnp.abs(jnp.diff(prediction, axis=1) - jnp.diff(target, axis=1))
    return 127.5 * error.mean((1, 2, 3, 4))


def standing_still(video: jax.Array) -> jax.Array:
    """Where a video [B,T>=2,H,W,C] in [-1, 1] stands still from each frame to the next: bool [B,T-1,H,W].

    There no pixel of the window around it changes by more than STILL gray levels in any channel.
    """
    change = 127.5 * jnp.abs(jnp.diff(video.astype(jnp.float32), axis=1)).max(-1)
    size = NEAR if min(change.shape[2:]) >= 48 else NEAR // 2 + 1
    largest = lax.reduce_window(change, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, 1, 1), "SAME")
    return largest <= STILL


def still_flicker(prediction: jax.Array, source: jax.Array) -> jax.Array:
    """Mean change of a translation from frame to frame where its source stands still, in gray levels of 255: [B].

    Args:
      prediction, source: videos [B,T>=2,H,W,C] in [-1, 1].

    0 where nothing stands still. A frozen video passes it: read it beside `change_error` or `psnr`.
    Raises ValueError if the shapes differ.
    """
    expect_equal("[B,T>=2,H,W,C]", float, prediction=prediction, source=source)
    still = standing_still(source)
    change = 127.5 * jnp.abs(jnp.diff(prediction, axis=1)).mean(-1)
    return (change * still).sum((1, 2, 3)) / jnp.maximum(still.sum((1, 2, 3)), 1)
