"""A PixelCNN whose stack over frames is recurrent, as a network of `models.prior`.

Attention among the frames before and an LSTM (Hochreiter and Schmidhuber, 1997) tell of all of them, so that no depth
is needed to see far back. Rows and columns are those of the gated PixelCNN.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.models.pixelcnn import GatedPixelCNN
from jaxvid.models.transformer import attend
from jaxvid.nn.conv import Conv

RECURRENT = 3  # LSTM layers
SIZE = 4  # features of a frame, in widths of the network


class Past(NamedTuple):
    """What the frames so far leave to the next one."""

    so_far: jax.Array  # int [], their number
    keys: jax.Array  # [B,T,heads,D], with room for T frames
    values: jax.Array
    states: list[tuple[jax.Array, jax.Array]]  # of each LSTM layer, [B,F] twice


class OverFrames(nn.Module):
    """Every frame from those before it; in place of the stack of a gated PixelCNN over frames.

    A frame becomes a vector [F] of its places at a quarter of the width. Masked multi-head attention among these, three
    LSTM layers, and back to places, beside a convolution of the frame before.

    Attributes:
      layers: of the stack over rows, which all get the same.
      kernel: of the convolution.
      heads: of attention; F is `SIZE` times the width W. Raises ValueError where F is no multiple of them.
    """

    layers: int
    kernel: int
    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, vector: jax.Array, above: Any = None, past: Past | None = None
    ) -> tuple[jax.Array, list[jax.Array], Past]:
        """See `pixelcnn.Stack`. x [B,t,h,w,W] holds for each frame the embedded tokens of the one before it.

        The first has none, and its places alone make the vector to start from: there is always something to attend to.
        """
        (batch, length, *grid, width), size = x.shape, SIZE * x.shape[-1]
        if size % self.heads:
            raise ValueError(
                f"Attention to frames needs {SIZE} widths in a multiple of heads={self.heads}, got {size}."
            )
        quarter = max(1, width // 4)
        places = self._dense("to_quarter", quarter, x).reshape(batch, length, -1)
        frames = self._dense("to_vector", size, nn.gelu(places)) + self._dense("context", size, vector)[:, None]
        attended, count, keys, values = self._attend(nn.LayerNorm(dtype=self.dtype, name="norm")(frames), past)
        frames += self._dense("attended", size, attended)
        states = []
        for layer in range(RECURRENT):
            cell = nn.OptimizedLSTMCell(size, dtype=self.dtype, name=f"cell_{layer}")
            state, moved = nn.RNN(cell, return_carry=True, name=f"lstm_{layer}")(
                frames, initial_carry=None if past is None else past.states[layer]
            )
            states.append(state)
            frames += moved
        spread = nn.gelu(self._dense("from_vector", grid[0] * grid[1] * quarter, frames))
        spread = self._dense("from_quarter", 2 * width, spread.reshape(batch, length, *grid, quarter))
        spread += Conv(2 * width, (1, self.kernel, self.kernel), dtype=self.dtype, name="frame_before")(x)
        return x, [spread] * self.layers, Past(count, keys, values, states)

    def _attend(self, x: jax.Array, past: Past | None) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """[B,t,F] -> the same, each from itself and those before it; and the first three fields of `Past`."""
        projected = self._dense("query_key_value", 3 * x.shape[-1], x)
        queries, keys, values = (part.reshape(*x.shape[:2], self.heads, -1) for part in jnp.split(projected, 3, -1))
        count = jnp.zeros((), jnp.int32)
        if past is not None:
            count = past.so_far
            keys, values = (
                lax.dynamic_update_slice_in_dim(old, new, count, 1)
                for old, new in ((past.keys, keys), (past.values, values))
            )
        mask = jnp.arange(keys.shape[1]) <= count + jnp.arange(x.shape[1])[:, None]
        attended = attend(queries * queries.shape[-1] ** -0.5, keys, values, mask)
        return attended, count + x.shape[1], keys, values

    def _dense(self, name: str, features: int, x: jax.Array) -> jax.Array:
        return nn.Dense(features, dtype=self.dtype, name=name)(x)


class LSTM(GatedPixelCNN):
    """`GatedPixelCNN` with `OverFrames` in place of its stack over frames; `layers` are those of the other two."""

    heads: int = 4

    def over_frames(self) -> nn.Module:
        """The first stack."""
        return OverFrames(self.layers, self.kernel, self.heads, self.dtype)

    def reach(self) -> tuple[float, int]:
        """As of `GatedPixelCNN`: all frames back, and so far within a frame."""
        return float("inf"), super().reach()[1]

    def pasts(self, axis: int, shape: Sequence[int], length: int) -> Any:
        """As of `GatedPixelCNN`: what comes before the first slice along an axis."""
        if axis > 1:
            return super().pasts(axis, shape, length)
        batch, size = shape[0], SIZE * shape[-1]
        empty = jnp.zeros((batch, length, self.heads, size // self.heads), self.dtype or jnp.float32)
        states = [(jnp.zeros((batch, size)),) * 2] * RECURRENT
        return Past(jnp.zeros((), jnp.int32), empty, empty, states)
