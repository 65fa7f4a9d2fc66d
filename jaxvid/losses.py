"""Losses: small and unreduced over the batch, so that callers mask and average."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of squares over all but the first axis, in float32: [B, ...], [B, ...] -> [B]."""
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))


def mean_absolute_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of absolute values over all but the first axis, in float32: [B, ...], [B, ...] -> [B]."""
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.abs(error), axis=tuple(range(1, error.ndim)))


RECONSTRUCTION = {"mse": mean_squared_error, "mae": mean_absolute_error}
