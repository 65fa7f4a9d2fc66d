"""Generators of layered videos: a foreground that moves over a static background (Yang et al., 2017)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import Noise
from jaxvid.models.gan_rnn import RecurrentGenerator
from jaxvid.nn.activation import leaky_relu, variance_preserving
from jaxvid.nn.compositing import bounded_poses, composite, squared_radius


class LayeredGenerator(RecurrentGenerator):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code renders foreground and background, and places the foreground in the first frame; the motion codes
    of `RecurrentGenerator` move, scale and turn it from each frame to the next. So the appearance stays the same over a
    clip by construction, and motion costs no convolutions. The compositor's renderer makes one frame of a square
    foreground and its mask, its background is of a whole frame.
    """

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        content, motion = self.codes(noise, condition)
        to_hidden = nn.Dense(self.memory, dtype=self.dtype, kernel_init=variance_preserving())
        to_start = nn.Dense(4, dtype=self.dtype, kernel_init=variance_preserving(0.1))
        start = to_start(leaky_relu(to_hidden(content))).astype(jnp.float32)
        changes = nn.Dense(4, dtype=self.dtype)(motion).astype(jnp.float32) / 4
        static_codes = self.compositor.static_codes(noise["content"], condition)
        foreground, mask, background = self.compositor.layers(content, static_codes, train)
        poses = start + jnp.cumsum(changes, 1) - changes
        # The mask fades towards its corners, so that an untrained foreground is no square.
        window = jnp.clip(1.5 - squared_radius(mask.shape[2]), 0, 1)
        return composite(background, foreground[:, 0], mask[:, 0] * window, bounded_poses(poses))
