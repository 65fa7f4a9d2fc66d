"""Generators of layered videos: a foreground that moves over a static background (Yang et al., 2017)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import Compositor, Noise
from jaxvid.models.gan_rnn import CELLS, content_and_motion
from jaxvid.nn.activation import leaky_relu, variance_preserving
from jaxvid.nn.compositing import bounded_poses, composite, squared_radius
from jaxvid.shapes import expect


class LayeredGenerator(nn.Module):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code [B,content] renders foreground and background, and places the foreground in the first frame; a
    recurrent network turns noise [B,T,motion] into how it moves, grows and turns from each frame to the next. So the
    appearance stays the same over a clip by construction, and motion costs no convolutions.

    Attributes:
      compositor: whose renderer makes one frame of a square foreground and its mask; whose background is of a whole
        frame.
      frames: T where the noise is drawn by `noise_shapes`.
      memory: features of the recurrent network.
      cell: "gru" or "lstm".
    """

    preserve_adopted_names = True  # of submodules: they stand in the names of parameters

    compositor: Compositor
    frames: int
    content: int = 50
    motion: int = 10
    memory: int = 64
    cell: str = "gru"
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"content": (self.content,), "motion": (self.frames, self.motion)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        expect(f"[B,{self.content}]", float, content=noise["content"])
        expect(f"[B,T,{self.motion}]", float, motion=noise["motion"])
        content, motion = content_and_motion(noise, condition, CELLS[self.cell](self.memory, dtype=self.dtype))
        hidden = leaky_relu(nn.Dense(self.memory, dtype=self.dtype, kernel_init=variance_preserving())(content))
        to_start = nn.Dense(4, dtype=self.dtype, kernel_init=variance_preserving(0.1))
        start = to_start(hidden).astype(jnp.float32)[:, None]
        changes = nn.Dense(4, dtype=self.dtype)(motion).astype(jnp.float32) / 4
        static_codes = self.compositor.static_codes(noise["content"], condition)
        foreground, mask, background = self.compositor.layers(content[:, None], static_codes, train)
        poses = start + jnp.cumsum(changes, 1) - changes
        # The mask fades towards its corners, so that an untrained foreground is no square.
        window = jnp.clip(1.5 - squared_radius(mask.shape[2]), 0, 1)
        return composite(background, foreground[:, 0], mask[:, 0] * window, bounded_poses(poses))
