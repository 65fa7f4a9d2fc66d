"""Generators and discriminators that go through time frame by frame (MoCoGAN, Tulyakov et al., 2018)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import SLOPE, Critique, Head, Layers, Limited, Noise, Trunk, joined

CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class RecurrentGenerator(nn.Module):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code [B,content] is the same in all frames; a recurrent network turns noise [B,T,motion] into the motion
    code of each. Every frame is painted from both, and from the condition, which the recurrent network reads too.

    Attributes:
      layers: whose painter has factors 1 in time; those that do not move are made of the content alone.
      cell: "gru" or "lstm".
    """

    layers: Layers
    content: int = 50
    motion: int = 10
    memory: int = 64
    cell: str = "gru"
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"content": (self.content,), "motion": (self.layers.painter.size[0], self.motion)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        content, codes = content_and_motion(noise, condition, CELLS[self.cell](self.memory, dtype=self.dtype))
        of_frames = jnp.concatenate([over_time(content, codes.shape[1]), codes], -1)
        return self.layers(of_frames, self.layers.still(noise["content"], condition), train)


class RecurrentDiscriminator(nn.Module):
    """Video [B,T,H,W,C] and a condition [B,F] or None -> a critique of the whole, from frames read one by one.

    Attributes:
      trunk: of factors 1 in time.
      memory: features of a frame, and of the recurrent network that reads them.
    """

    trunk: Trunk
    head: Head
    memory: int = 128
    cell: str = "gru"
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> Critique:
        features = self.trunk(video, train)
        rows = features[-1].reshape(*video.shape[:2], -1)
        rows = nn.leaky_relu(Limited(nn.Dense(self.memory, dtype=self.dtype), self.head.spectral)(rows, train), SLOPE)
        states = read(CELLS[self.cell](self.memory, dtype=self.dtype), rows)
        return Critique(*self.head(states[:, -1:], condition, train), (*features, states))


def content_and_motion(noise: Noise, condition: jax.Array | None, cell: nn.RNNCellBase) -> tuple[jax.Array, jax.Array]:
    """The content code [B,D] and, from a recurrent cell, the motion codes [B,T,memory]; both know the condition."""
    content, motion = joined(noise["content"], condition), noise["motion"]
    if condition is not None:
        motion = jnp.concatenate([motion, over_time(condition, motion.shape[1])], -1)
    return content, read(cell, motion)


def read(cell: nn.RNNCellBase, x: jax.Array) -> jax.Array:
    """What a recurrent cell remembers after each frame of [B,T,D]: [B,T,memory]."""
    states = nn.RNN(cell)(x)
    assert isinstance(states, jax.Array)
    return states


def over_time(x: jax.Array, frames: int) -> jax.Array:
    """[B,D] -> [B,frames,D], the same in all frames."""
    return jnp.broadcast_to(x[:, None], (len(x), frames, x.shape[-1]))
