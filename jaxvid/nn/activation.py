"""The leaky ReLU of all networks here, and initial kernels that preserve the variance of features through it."""

import flax.linen as nn
import jax

SLOPE = 0.2  # below 0


def leaky_relu(x: jax.Array) -> jax.Array:
    """x where it is above 0, SLOPE x below."""
    return nn.leaky_relu(x, SLOPE)


def variance_preserving(gain: float = 2 / (1 + SLOPE**2)) -> nn.initializers.Initializer:
    """Kernels that multiply the variance of their input by `gain`; the default makes up for what a leaky ReLU takes."""
    return nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
