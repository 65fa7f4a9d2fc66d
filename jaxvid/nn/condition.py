"""The encoder of conditions: the same module for generators, discriminators, decoders and priors."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.names import choice
from jaxvid.nn.activation import leaky_relu
from jaxvid.nn.conv import Conv
from jaxvid.nn.text import TextEncoder
from jaxvid.shapes import expect

LAYOUTS = {  # of conditions, by their kind
    "label": ("[B]", int),
    "attributes": ("[B,K]", float),
    "words": ("[B,L]", int),
    "frames": ("[B,T,A]", float),
    "video": ("[B,k>=1,H,W,C]", float),
    "vector": ("[B,E]", float),
}


class Encoded(NamedTuple):
    """Conditions as a model reads them; None what it does not read, or what there is no condition for.

    vector: [B,F], of all conditions.
    words, mask: [B,L,F] of each word of a caption, and bool [B,L], False at padding.
    frames: [B,T,F], of what there is for each frame.
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
      attributes: float [B,K], 1 for each that an example has, 0 for the others.
      words: int [B,L] from `data.text.tokenize`, of a vocabulary of so many words.
      those of `frames`: float [B,T,A].
      those of `videos`: float [B,k,H,W,C] in [-1, 1].
      embedding, or any other name: float [B,E], of a text or anything else.

    Attributes:
      frames, videos: names of conditions that are one vector a frame, or videos.
      reads: which of "vector", "words" and "frames" the model reads. There are parameters for these alone.

    Raises ValueError where there is no condition, where one has another shape or another B than the rest, or where none
    of `reads` depends on it. A label that is no class is refused where its value is known, and encoded as nan under
    `jit`, where it is not.
    """

    features: int = 64  # F
    classes: int = 0
    vocabulary: int = 0
    frames: tuple[str, ...] = ("action",)
    videos: tuple[str, ...] = ("first_frames", "input")
    action_scale: tuple[float, ...] = ()  # divides the A components of "action"
    reads: tuple[str, ...] = ("vector",)
    dtype: Any = None

    @nn.compact
    def __call__(self, conditions: Mapping[str, jax.Array]) -> Encoded:
        self._check(conditions)
        text = TextEncoder(vocabulary=self.vocabulary, features=self.features, dtype=self.dtype, name="text")
        encoders: dict[str, Callable[[jax.Array], jax.Array]] = {
            "label": self._label,
            "attributes": self._attributes,
            "words": text,
        }
        for name in sorted(conditions.keys() - {*encoders, *self.frames, *self.videos}):
            encoders[name] = functools.partial(self._embedding, name)
        encoders |= {name: functools.partial(self._all_frames, name) for name in self.frames}
        encoders |= {name: functools.partial(self._video, name) for name in self.videos}
        vector = words = mask = frames = None
        if "vector" in self.reads:
            parts = [encode(conditions[name]) for name, encode in encoders.items() if name in conditions]
            vector = sum(parts[1:], parts[0]) / math.sqrt(len(parts))
        if "words" in self.reads and "words" in conditions:
            words, mask = text(conditions["words"], pool=False), conditions["words"] > 0
        present = [name for name in self.frames if name in conditions and "frames" in self.reads]
        if each := [self._each_frame(name, conditions[name]) for name in present]:
            frames = sum(each[1:], each[0]) / math.sqrt(len(each))
        return Encoded(vector, words, mask, frames)

    def _check(self, conditions: Mapping[str, jax.Array]) -> None:
        for output in self.reads:
            choice("an item of ConditionEncoder.reads", output, ("vector", "words", "frames"))
        if not conditions:
            raise ValueError("There is nothing to encode: a ConditionEncoder takes one condition at least, as label.")
        for name, value in conditions.items():
            kind = "frames" if name in self.frames else "video" if name in self.videos else name
            layout, dtype = LAYOUTS.get(kind, LAYOUTS["vector"])
            if name == "action":
                layout = layout.replace("A", str(len(self.action_scale)))
            expect(layout, dtype, **{name: value})
            if "vector" not in self.reads and kind not in self.reads:
                raise ValueError(f'Nothing depends on the condition {name}: ConditionEncoder.reads lacks "vector".')
        sizes = {name: len(value) for name, value in conditions.items()}
        if len({*sizes.values()}) > 1:
            raise ValueError(
                f"The conditions are of different numbers of examples: {sizes}, expected the same of each."
            )
        label: Any = conditions.get("label")
        if isinstance(label, jax.core.Tracer | None):
            return
        label = np.asarray(label)  # also of a constant under `jit`, where an operation of JAX would be traced
        if ((label < 0) | (label >= self.classes)).any():
            raise ValueError(f"label has {label.min()} to {label.max()}, and the {self.classes} classes begin at 0.")

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.features, dtype=self.dtype, name=name)

    def _label(self, label: jax.Array) -> jax.Array:
        unit = nn.initializers.normal(1.0)
        table = nn.Embed(self.classes, self.features, dtype=self.dtype, embedding_init=unit, name="label")
        return table(jnp.where(label < 0, self.classes, label))  # beyond the table is nan; -1 would be the last class

    def _attributes(self, x: jax.Array) -> jax.Array:
        return self._dense("attributes")(2 * x - 1)  # a norm as of embeddings would take away how many there are

    def _embedding(self, name: str, x: jax.Array) -> jax.Array:
        return self._dense(name)(nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x))

    def _scaled(self, name: str, x: jax.Array) -> jax.Array:
        return x / jnp.asarray(self.action_scale, x.dtype)[None, None] if name == "action" else x

    def _all_frames(self, name: str, x: jax.Array) -> jax.Array:
        x = self._dense(f"{name}_hidden")(self._scaled(name, x).reshape(len(x), -1))
        return self._dense(name)(leaky_relu(x))

    def _each_frame(self, name: str, x: jax.Array) -> jax.Array:
        return self._dense(f"{name}_frames")(leaky_relu(self._dense(f"{name}_frames_hidden")(self._scaled(name, x))))

    def _video(self, name: str, frames: jax.Array) -> jax.Array:
        x, width = frames, 32
        while min(x.shape[2:4]) > 4:
            x = leaky_relu(Conv(width, (1, 4, 4), (1, 2, 2), dtype=self.dtype)(x))
            width = 64
        x = nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x.reshape(len(x), -1))
        # Every pixel, too: convolutions alone learn to copy slowly. The last frame, and the
        # changes before it, which are small, and would vanish beside the brightness of a background otherwise.
        last = frames[:, -1:]
        standard = (frames - last.mean((2, 3), keepdims=True)) / (last.std((2, 3), keepdims=True) + 0.02)
        pixels = jnp.concatenate([standard[:, -1:], 2 * jnp.diff(standard, axis=1)], 1).reshape(len(frames), -1)
        of_pixels = "first_pixels" if name == "first_frames" else f"{name}_pixels"
        return (self._dense(name)(x) + self._dense(of_pixels)(pixels)) / math.sqrt(2)
