"""Videos in layers: a picture that moves over what lies behind it; differentiable, and without gathers."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def place_over(behind: jax.Array, picture: jax.Array, cover: jax.Array, poses: jax.Array) -> jax.Array:
    """Frames [B,1 or T,H,W,C] behind a picture [B,S,S,C] in poses [B,T,4], see `place`: video [B,T,H,W,C].

    `cover` [B,S,S,1] in [0, 1] says how much the picture hides. Colours are placed times their cover: otherwise the
    black that surrounds a picture would darken its edge.
    """
    placed = place(jnp.concatenate([cover * picture, cover], -1), poses, (behind.shape[2], behind.shape[3]))
    return placed[..., :-1] + (1 - placed[..., -1:]) * behind


def in_reach(poses: jax.Array) -> jax.Array:
    """Any numbers [..., 4] -> poses, see `place`, with the centre in the frame and a side of a seventh to one frame.

    Learning which pictures to place begins with pictures that are seen: a wrong one that can leave or shrink does so,
    and is never found again.
    """
    bounded = jnp.tanh(poses) - jnp.array([0.0, 0.0, 0.3, 0.0])
    return jnp.where(jnp.arange(4) < 3, bounded, poses)


def eccentricity(side: int) -> jax.Array:
    """Squared distances [side,side,1] of a square picture's pixels from its middle, in half sides."""
    axis = jnp.square((jnp.arange(side) + 0.5) * 2 / side - 1)
    return axis[:, None, None] + axis[:, None]


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
        return jax.nn.relu(1 - jnp.abs(places - jnp.arange(side)) / reach) / reach

    columns = jnp.einsum("btpj,bijc->btpic", weights(across * dx + along * dy), picture)
    pixels = jnp.einsum("btpi,btpic->btpc", weights(across * dy - along * dx), columns)
    return pixels.reshape(*poses.shape[:2], height, width, -1)
