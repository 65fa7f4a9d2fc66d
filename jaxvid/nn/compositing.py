"""Compositing of videos: a foreground that moves over a background; differentiable, and without gathers."""

import jax
import jax.numpy as jnp


def composite(background: jax.Array, foreground: jax.Array, mask: jax.Array, poses: jax.Array) -> jax.Array:
    """A foreground [B,S,S,C] in poses [B,T,4], see `warp`, over a background [B,1 or T,H,W,C]: video [B,T,H,W,C].

    The mask [B,S,S,1] in [0, 1] is the opacity of the foreground. Colors are warped times their opacity: otherwise the
    zeros around the foreground would darken its edge.
    """
    warped = warp(jnp.concatenate([mask * foreground, mask], -1), poses, (background.shape[2], background.shape[3]))
    return warped[..., :-1] + (1 - warped[..., -1:]) * background


def bounded_poses(poses: jax.Array) -> jax.Array:
    """Any numbers [..., 4] -> poses, see `warp`, with the center in the frame and a side of a seventh to one frame.

    A generator first has to place its foreground where it is visible: one that can leave the frame or vanish does so
    while it is wrong, and gets no gradient any more.
    """
    bounded = jnp.tanh(poses) - jnp.array([0.0, 0.0, 0.3, 0.0])
    return jnp.where(jnp.arange(4) < 3, bounded, poses)


def squared_radius(side: int) -> jax.Array:
    """Squared distances [side,side,1] of the pixels of a square image from its center, in half sides."""
    axis = jnp.square((jnp.arange(side) + 0.5) * 2 / side - 1)
    return axis[:, None, None] + axis[:, None]


def color_gradient(corners: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Colors of the four corners [B,2,2,C] -> a frame [B,1,H,W,C] between them, by bilinear interpolation."""
    down, right = (jnp.stack([1 - at, at]) for at in ((jnp.arange(n) + 0.5) / n for n in size))
    return jnp.einsum("ih,jw,bijc->bhwc", down, right, corners)[:, None]


def warp(image: jax.Array, poses: jax.Array, size: tuple[int, int]) -> jax.Array:
    """An image [B,S,S,C] in frames of size (H, W), in poses [B,T,4]: [B,T,H,W,C], 0 outside of the image.

    A pose is (right, down, size, angle): the image's center in half frames from the frame's, the logarithm of its side
    over half the frame's, and its clockwise turn in radians. Bilinear sampling (Jaderberg et al., 2015, equation 5) as
    two products of matrices, without gathers; where the image shrinks, over as wide a part of it as a pixel of the
    frame covers.
    """
    side, (height, width) = image.shape[1], size
    down, right = jnp.meshgrid(*((jnp.arange(n) + 0.5) * 2 / n - 1 for n in size), indexing="ij")
    dx, dy = right.ravel() - poses[..., :1], down.ravel() - poses[..., 1:2]
    scale, angle = jnp.exp(poses[..., 2:3]) / 2, poses[..., 3:]
    across, along = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    reach = jnp.maximum(1.0, side / (width * scale))[..., None]

    def weights(at: jax.Array) -> jax.Array:
        """Of the image's S rows, or columns, for each pixel of the frame: [B,T,H*W,S]."""
        places = (at[..., None] + 1) * side / 2 - 0.5
        return jax.nn.relu(1 - jnp.abs(places - jnp.arange(side)) / reach) / reach

    columns = jnp.einsum("btpj,bijc->btpic", weights(across * dx + along * dy), image)
    pixels = jnp.einsum("btpi,btpic->btpc", weights(across * dy - along * dx), columns)
    return pixels.reshape(*poses.shape[:2], height, width, -1)
