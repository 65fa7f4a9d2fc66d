"""Full-reference image quality."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def psnr(prediction: jax.Array, target: jax.Array, data_range: float = 2.0) -> jax.Array:
    """Peak signal-to-noise ratio in dB over all but the first axis: [B, ...], [B, ...] -> float32 [B].

    10 log10(data_range^2 / mean squared error). A whole video counts as one signal: its error is averaged over all
    frames before the logarithm, which never gives more than the mean of its frames' PSNRs. The error is at least 1e-10.

    Args:
      data_range: peak to peak; 2 for [-1, 1], 255 for uint8 values.
    """
    error = (prediction.astype(jnp.float32) - target.astype(jnp.float32)) / data_range
    mse = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
    return -10.0 * jnp.log10(jnp.maximum(mse, 1e-10))
