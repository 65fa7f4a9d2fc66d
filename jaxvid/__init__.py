"""Video generation in JAX and Flax: one training loop, and one record of pure functions per method."""

__version__ = "0.1.0"
