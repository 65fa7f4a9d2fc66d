"""What a model is told of a video, as one vector: the same module for generators, discriminators, encoders, priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.conv import Conv
from jaxvid.nn.text import TextEncoder


class ConditionEncoder(nn.Module):
    """The sum of an embedding of each condition, over the root of their number: [B,features], of about unit variance.

    Conditions, by name, any of them (ValueError where there is none):
      label: int32 [B], below `classes`.
      words: int32 [B,L] from `data.text.tokenize`, of a vocabulary of so many words.
      embedding: float [B,E], of a text or anything else.
      action: float [B,T,A]; A is the length of `action_scale`, by which each component is divided first.
      first_frames: float [B,k,H,W,C] in [-1, 1].
    """

    features: int = 64
    classes: int = 0
    vocabulary: int = 0
    action_scale: tuple[float, ...] = ()
    dtype: Any = None

    @nn.compact
    def __call__(self, conditions: Mapping[str, jax.Array]) -> jax.Array:
        encoders: dict[str, Callable[[jax.Array], jax.Array]] = {
            "label": self._label,
            "words": TextEncoder(self.vocabulary, self.features, self.dtype, name="text"),
            "embedding": lambda x: self._dense("embedding")(nn.LayerNorm(dtype=self.dtype, name="embedding_norm")(x)),
            "action": self._action,
            "first_frames": self._first_frames,
        }
        parts = [encode(conditions[name]) for name, encode in encoders.items() if name in conditions]
        if not parts:
            raise ValueError(f"There is nothing to encode: a ConditionEncoder takes some of {', '.join(encoders)}.")
        return sum(parts[1:], parts[0]) / math.sqrt(len(parts))

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.features, dtype=self.dtype, name=name)

    def _label(self, label: jax.Array) -> jax.Array:
        unit = nn.initializers.normal(1.0)
        return nn.Embed(self.classes, self.features, dtype=self.dtype, embedding_init=unit, name="label")(label)

    def _action(self, action: jax.Array) -> jax.Array:
        scaled = action / jnp.asarray(self.action_scale, action.dtype)[None, None]
        x = nn.leaky_relu(self._dense("action_hidden")(scaled.reshape(len(action), -1)), 0.2)
        return self._dense("action")(x)

    def _first_frames(self, frames: jax.Array) -> jax.Array:
        x, width = frames, 32
        while min(x.shape[2:4]) > 4:
            x = nn.leaky_relu(Conv(width, (1, 4, 4), (1, 2, 2), dtype=self.dtype)(x), 0.2)
            width = 64
        x = nn.LayerNorm(dtype=self.dtype, name="first_frames_norm")(x.reshape(len(x), -1))
        # Every pixel, too: what is learned from convolutions alone is long in learning to copy. The last frame, and the
        # changes before it, which are small, and hidden otherwise behind how bright a ground is.
        last = frames[:, -1:]
        standard = (frames - last.mean((2, 3), keepdims=True)) / (last.std((2, 3), keepdims=True) + 0.02)
        pixels = jnp.concatenate([standard[:, -1:], 2 * jnp.diff(standard, axis=1)], 1).reshape(len(frames), -1)
        return (self._dense("first_frames")(x) + self._dense("first_pixels")(pixels)) / math.sqrt(2)
