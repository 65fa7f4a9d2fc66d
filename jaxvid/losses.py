"""Losses: small and unreduced over the batch, so that callers mask and average."""

from __future__ import annotations

import math

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


def gaussian_nll(mean: jax.Array, target: jax.Array, log_scale: jax.Array | float = 0.0) -> jax.Array:
    """-log N(target; mean, exp(log_scale)^2) in nats, summed over all but the first axis: [B, ...], [B, ...] -> [B].

    (x - m)^2 / (2 s^2) + log s + log(2 pi) / 2 for each value. One `log_scale` [] for all of them; learned, it settles
    at the logarithm of the root mean squared error (Rybkin et al. 2021, sigma-VAE, section 3).
    """
    scaled = (mean.astype(jnp.float32) - target.astype(jnp.float32)) * jnp.exp(-log_scale)
    return _summed(0.5 * jnp.square(scaled) + log_scale + 0.5 * math.log(2 * math.pi))


def laplace_nll(mean: jax.Array, target: jax.Array, log_scale: jax.Array | float = 0.0) -> jax.Array:
    """-log Laplace(target; mean, exp(log_scale)) in nats, summed over all but the first axis: [B, ...] -> [B].

    |x - m| / s + log(2 s) for each value: the likelihood behind the L1 loss.
    """
    scaled = (mean.astype(jnp.float32) - target.astype(jnp.float32)) * jnp.exp(-log_scale)
    return _summed(jnp.abs(scaled) + log_scale + math.log(2))


def bernoulli_nll(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-x log p - (1 - x) log(1 - p), p = sigmoid(logits), summed over all but the first axis: [B, ...] -> [B] nats.

    Targets lie in [0, 1]. For those between the ends this is a cross entropy and no density (Loaiza-Ganem and
    Cunningham 2019): compare it with itself alone.
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    return _summed(jax.nn.softplus(logits) - target * logits)


def gaussian_kl(
    mean: jax.Array, log_variance: jax.Array, prior_mean: jax.Array, prior_log_variance: jax.Array
) -> jax.Array:
    """KL(N(mean, variance) || N(prior_mean, prior_variance)) in nats for each dimension by itself, in their shape.

    (log(v_p / v_q) + (v_q + (m_q - m_p)^2) / v_p - 1) / 2; of a standard normal prior, Kingma and Welling 2014,
    appendix B.
    """
    difference = log_variance - prior_log_variance
    distance = jnp.square(mean - prior_mean) * jnp.exp(-prior_log_variance)
    return 0.5 * (jnp.exp(difference) - difference - 1 + distance)


def _summed(values: jax.Array) -> jax.Array:
    """Sums over all but the first axis."""
    return values.reshape(len(values), -1).sum(1)
