"""The encoder of conditions: the same module for generators, discriminators, decoders and priors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.names import choice
from jaxvid.nn.activation import leaky_relu
from jaxvid.nn.conv import Conv
from jaxvid.nn.text import TextEncoder
from jaxvid.shapes import expect

# By the name of a condition, its layout and its kind of dtype; those of all others are float [B,E].
INPUTS: dict[str, tuple[str, type]] = {
    "label": ("[B]", int),
    "words": ("[B,L]", int),
    "action": ("[B,T,A]", float),
    "first_frames": ("[B,k,H,W,C]", float),
}


class Encoded(NamedTuple):
    """Conditions as a model reads them; None what it does not read, or what there is no condition for.

    vector: [B,F], of all conditions.
    words, mask: [B,L,F] of each word of a caption, and bool [B,L], False at padding.
    frames: [B,T,F], of the action at each frame.
    """

    vector: jax.Array | None = None
    words: jax.Array | None = None
    mask: jax.Array | None = None
    frames: jax.Array | None = None


class ConditionEncoder(nn.Module):
    """Conditions, by name -> `Encoded`.

    The vector is the sum of an embedding of each condition, over the root of their number: of about unit variance.
    Conditions, any of them:
      label: int [B], below `classes`.
      words: int [B,L] from `data.text.tokenize`, of a vocabulary of so many words.
      action: float [B,T,A]; A is the length of `action_scale`, by which each component is divided first.
      first_frames: float [B,k,H,W,C] in [-1, 1].
      embedding, or any other name: float [B,E], of a text or anything else.

    Attributes:
      features: F.
      reads: which of "vector", "words" and "frames" the model reads. There are parameters for these alone.

    Raises ValueError where there is no condition, where one has another shape, or where none of `reads` depends on it.
    """

    features: int = 64
    classes: int = 0
    vocabulary: int = 0
    action_scale: tuple[float, ...] = ()
    reads: tuple[str, ...] = ("vector",)
    dtype: Any = None

    @nn.compact
    def __call__(self, conditions: Mapping[str, jax.Array]) -> Encoded:
        self._check(conditions)
        text = TextEncoder(vocabulary=self.vocabulary, features=self.features, dtype=self.dtype, name="text")
        encoders: dict[str, Callable[[jax.Array], jax.Array]] = {
            "label": self._label,
            "words": text,
            "embedding": functools.partial(self._embedding, "embedding"),
            "action": self._action,
            "first_frames": self._first_frames,
        }
        others = sorted(conditions.keys() - encoders.keys())
        encoders |= {name: functools.partial(self._embedding, name) for name in others}
        vector = words = mask = frames = None
        if "vector" in self.reads:
            parts = [encode(conditions[name]) for name, encode in encoders.items() if name in conditions]
            vector = sum(parts[1:], parts[0]) / math.sqrt(len(parts))
        if "words" in self.reads and "words" in conditions:
            words, mask = text(conditions["words"], pool=False), conditions["words"] > 0
        if "frames" in self.reads and "action" in conditions:
            frames = self._action_of_frames(conditions["action"])
        return Encoded(vector, words, mask, frames)

    def _check(self, conditions: Mapping[str, jax.Array]) -> None:
        for output in self.reads:
            choice("an item of ConditionEncoder.reads", output, ("vector", "words", "frames"))
        if not conditions:
            raise ValueError("There is nothing to encode: a ConditionEncoder takes one condition at least, say label.")
        read = {"words": "words" in self.reads, "action": "frames" in self.reads}
        for name, value in conditions.items():
            layout, dtype = INPUTS.get(name, ("[B,E]", float))
            expect(layout.replace("A", str(len(self.action_scale))), dtype, **{name: value})
            if "vector" not in self.reads and not read.get(name):
                raise ValueError(f'Nothing depends on the condition {name}: ConditionEncoder.reads lacks "vector".')

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.features, dtype=self.dtype, name=name)

    def _label(self, label: jax.Array) -> jax.Array:
        unit = nn.initializers.normal(1.0)
        return nn.Embed(self.classes, self.features, dtype=self.dtype, embedding_init=unit, name="label")(label)

    def _embedding(self, name: str, x: jax.Array) -> jax.Array:
        return self._dense(name)(nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x))

    def _scaled(self, action: jax.Array) -> jax.Array:
        return action / jnp.asarray(self.action_scale, action.dtype)[None, None]

    def _action(self, action: jax.Array) -> jax.Array:
        x = self._dense("action_hidden")(self._scaled(action).reshape(len(action), -1))
        return self._dense("action")(leaky_relu(x))

    def _action_of_frames(self, action: jax.Array) -> jax.Array:
        return self._dense("action_frames")(leaky_relu(self._dense("action_frames_hidden")(self._scaled(action))))

    def _first_frames(self, frames: jax.Array) -> jax.Array:
        x, width = frames, 32
        while min(x.shape[2:4]) > 4:
            x = leaky_relu(Conv(width, (1, 4, 4), (1, 2, 2), dtype=self.dtype)(x))
            width = 64
        x = nn.LayerNorm(dtype=self.dtype, name="first_frames_norm")(x.reshape(len(x), -1))
        # Every pixel, too: what is learned from convolutions alone is long in learning to copy. The last frame, and the
        # changes before it, which are small, and would vanish beside the brightness of a background otherwise.
        last = frames[:, -1:]
        standard = (frames - last.mean((2, 3), keepdims=True)) / (last.std((2, 3), keepdims=True) + 0.02)
        pixels = jnp.concatenate([standard[:, -1:], 2 * jnp.diff(standard, axis=1)], 1).reshape(len(frames), -1)
        return (self._dense("first_frames")(x) + self._dense("first_pixels")(pixels)) / math.sqrt(2)
