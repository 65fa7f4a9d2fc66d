"""Generators of videos in layers: a picture that moves, in front of one that does not (Yang et al., 2017)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan3d import SLOPE, Noise, Painter, keep
from jaxvid.models.gan_rnn import CELLS, content_and_motion


class LayeredGenerator(nn.Module):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code [B,content] paints both pictures and says where the first one starts; a recurrent network turns
    noise [B,T,motion] into how it moves, grows and turns from each frame to the next. What a clip shows thus stays the
    same by construction, and its place costs no convolutions.

    Attributes:
      painter: of a square picture of one frame, with one channel more: how much it covers.
      background: a painter of one whole frame; None: a smooth ground between the colours of its four corners.
      size: (T, H, W).
      cell: "gru" or "lstm".
    """

    painter: Painter
    background: Painter | None = None
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
        start = nn.Dense(4, dtype=self.dtype)(hidden).astype(jnp.float32)[:, None]
        changes = nn.Dense(4, dtype=self.dtype)(codes).astype(jnp.float32) / 4
        picture = self.painter(content[:, None], train)[:, 0]
        cover = (picture[..., -1:] + 1) / 2
        # Colours are placed times what they cover: otherwise the black that surrounds a picture would darken its edge.
        covering = jnp.concatenate([cover * picture[..., :-1], cover], -1)
        placed = place(covering, start + jnp.cumsum(changes, 1) - changes, self.size[1:])
        if self.background:
            behind = self.background(content[:, None], train)
        else:
            colours = self.painter.channels - 1
            corners = nn.Dense(4 * colours, dtype=self.dtype, kernel_init=keep(0.3))(hidden).astype(jnp.float32)
            behind = ground(nn.tanh(corners).reshape(-1, 2, 2, colours), self.size[1:])
        return placed[..., :-1] + (1 - placed[..., -1:]) * behind


def ground(corners: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Colours of the corners [B,2,2,C] -> a frame [B,1,H,W,C] between them, by bilinear interpolation."""
    down, right = (jnp.stack([1 - at, at]) for at in ((jnp.arange(n) + 0.5) / n for n in size))
    return jnp.einsum("ih,jw,bijc->bhwc", down, right, corners)[:, None]


def place(picture: jax.Array, poses: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A picture [B,S,S,C] seen in frames of size (H, W), in poses [B,T,4]: [B,T,H,W,C], 0 where the picture is not.

    A pose is (right, down, size, angle): the picture's centre in half frames from the frame's, the logarithm of its
    side over half the frame's, and its clockwise turn in radians. Bilinear sampling (Jaderberg et al., 2015, equation
    5) as two products of matrices, without gathers; where the picture shrinks, over as wide a part of it as a pixel of
    the frame covers.
    """
    side, (height, width) = picture.shape[1], size
    down, right = jnp.meshgrid(*((jnp.arange(n) + 0.5) * 2 / n - 1 for n in size), indexing="ij")
    dx, dy = right.ravel() - poses[..., :1], down.ravel() - poses[..., 1:2]
    scale, angle = jnp.exp(poses[..., 2:3]) / 2, poses[..., 3:]
    across, along = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    reach = jnp.maximum(1.0, side / (width * scale))[..., None]

    def weights(at: jax.Array) -> jax.Array:
        """Of the picture's S rows, or columns, for each pixel of the frame: [B,T,H*W,S]."""
        places = (at[..., None] + 1) * side / 2 - 0.5
        return nn.relu(1 - jnp.abs(places - jnp.arange(side)) / reach) / reach

    columns = jnp.einsum("btpj,bijc->btpic", weights(across * dx + along * dy), picture)
    pixels = jnp.einsum("btpi,btpic->btpc", weights(across * dy - along * dx), columns)
    return pixels.reshape(*poses.shape[:2], height, width, -1)
