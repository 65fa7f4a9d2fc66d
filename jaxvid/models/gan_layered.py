"""Generators of videos in layers: a picture that moves, in front of one that does not (Yang et al., 2017)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import SLOPE, Layers, Noise, keep
from jaxvid.models.gan_rnn import CELLS, content_and_motion
from jaxvid.nn.compositing import eccentricity, in_reach, place_over


class LayeredGenerator(nn.Module):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code [B,content] paints both pictures and says where the first one starts; a recurrent network turns
    noise [B,T,motion] into how it moves, grows and turns from each frame to the next. What a clip shows thus stays the
    same by construction, and its place costs no convolutions.

    Attributes:
      layers: whose painter makes a square picture of one frame and, as the mask, how much it covers; whose background
        is of a whole frame.
      size: (T, H, W).
      cell: "gru" or "lstm".
    """

    layers: Layers
    size: tuple[int, int, int] = (8, 16, 16)
    content: int = 50
    motion: int = 10
    memory: int = 64
    cell: str = "gru"
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"content": (self.content,), "motion": (self.size[0], self.motion)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        content, codes = content_and_motion(noise, condition, CELLS[self.cell](self.memory, dtype=self.dtype))
        hidden = nn.leaky_relu(nn.Dense(self.memory, dtype=self.dtype, kernel_init=keep())(content), SLOPE)
        start = nn.Dense(4, dtype=self.dtype, kernel_init=keep(0.1))(hidden).astype(jnp.float32)[:, None]
        changes = nn.Dense(4, dtype=self.dtype)(codes).astype(jnp.float32) / 4
        still = self.layers.still(noise["content"], condition)
        picture, cover, behind = self.layers.split(content[:, None], still, train)
        poses = start + jnp.cumsum(changes, 1) - changes
        # The picture fades towards its corners, so that what is placed at first is no square.
        window = jnp.clip(1.5 - eccentricity(cover.shape[2]), 0, 1)
        return place_over(behind, picture[:, 0], cover[:, 0] * window, in_reach(poses))
