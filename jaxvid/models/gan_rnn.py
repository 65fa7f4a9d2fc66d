"""Generators and discriminators that go through time frame by frame (MoCoGAN, Tulyakov et al., 2018)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.gan_blocks import Compositor, Critique, Head, Limited, Noise, Trunk, concatenate
from jaxvid.nn.activation import leaky_relu
from jaxvid.shapes import expect

CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class RecurrentGenerator(nn.Module):
    """Noise and a condition [B,F] or None -> video [B,T,H,W,C], for any T.

    The content code [B,content] is the same in all frames; a recurrent network turns noise [B,T,motion] into the motion
    code of each. Every frame is rendered from both, and from the condition, which the recurrent network reads too.
    """

    preserve_adopted_names = True  # a submodule's own name leads to its parameters

    compositor: Compositor  # whose renderer has factors 1 in time; its static frames depend on the content alone
    frames: int  # T where the noise is drawn by `noise_shapes`
    content: int = 50
    motion: int = 10
    memory: int = 64  # features of the recurrent network
    cell: str = "gru"  # "gru" or "lstm"
    dtype: Any = None

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"content": (self.content,), "motion": (self.frames, self.motion)}

    @nn.compact
    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        content, motion = self.codes(noise, condition)
        codes = jnp.concatenate([jnp.broadcast_to(content, (*motion.shape[:2], content.shape[-1])), motion], -1)
        return self.compositor(codes, self.compositor.static_codes(noise["content"], condition), train)

    def codes(self, noise: Noise, condition: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The content code [B,1,D] and the motion codes [B,T,memory]; both depend on the condition."""
        expect(f"[B,{self.content}]", float, content=noise["content"])
        expect(f"[B,T,{self.motion}]", float, motion=noise["motion"])
        content, motion = concatenate(noise["content"], condition)[:, None], noise["motion"]
        if condition is not None:
            repeated = jnp.broadcast_to(condition[:, None], (*motion.shape[:2], condition.shape[-1]))
            motion = jnp.concatenate([motion, repeated], -1)
        return content, run_cell(CELLS[self.cell](self.memory, dtype=self.dtype), motion)


class RecurrentDiscriminator(nn.Module):
    """Video [B,T,H,W,3] and a condition [B,F] or None -> a critique of the whole, from a GRU over its frames."""

    trunk: Trunk  # of factors 1 in time
    head: Head
    memory: int = 128  # features of a frame, and of the GRU
    dtype: Any = None

    @nn.compact
    def __call__(self, video: jax.Array, condition: jax.Array | None, train: bool) -> Critique:
        expect("[B,T,H,W,3]", float, video=video)
        features = self.trunk(video, train)
        rows = features[-1].reshape(*video.shape[:2], -1)
        dense = Limited(layer=nn.Dense(self.memory, dtype=self.dtype), spectral=self.head.spectral)
        states = run_cell(nn.GRUCell(self.memory, dtype=self.dtype), leaky_relu(dense(rows, train)))
        return Critique(*self.head(states[:, -1:], condition, train), (*features, states))


def run_cell(cell: nn.RNNCellBase, x: jax.Array) -> jax.Array:
    """The outputs [B,T,memory] of a recurrent cell after each frame of [B,T,D]."""
    states = nn.RNN(cell)(x)
    assert isinstance(states, jax.Array)
    return states
