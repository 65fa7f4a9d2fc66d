"""Conditions: one mechanism for every method that makes videos of what it is told.

A recipe says what with `config.condition = jaxvid.config.condition(("label", "text"))`. Before a run begins, `complete`
fills in what the training data decide (class names, words, size of an action), so that it is stored with the run. The
method picks its conditions out of each batch with `take` and encodes them with `make_encoder`; who samples makes them
with `from_user`.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.core import Batch, normalize
from jaxvid.data import Source
from jaxvid.data import text as text_lib
from jaxvid.names import choice, nearest
from jaxvid.nn.condition import ConditionEncoder

LISTED = 60  # names in an error


def check(options: ConfigDict, frames: int) -> None:
    """Raises ValueError for a `config.condition` that cannot work with videos of so many frames."""
    if not isinstance(options.on, tuple):
        raise ValueError(f"condition.on is {options.on!r}, expected a tuple of names, such as ('label', 'text').")
    for name in options.on:
        choice("condition.on", name, config_lib.CONDITIONS)
    for field in ("features", "words"):
        if options[field] < 1:
            raise ValueError(f"condition.{field} is {options[field]}, expected at least 1.")
    if not 0 <= options.left_out <= 1:
        raise ValueError(f"condition.left_out is {options.left_out}, expected a share from 0 to 1.")
    if options.left_out and options.embeddings:
        raise ValueError(
            "condition.left_out shortens texts, and condition.embeddings has whole ones: set left_out to 0."
        )
    if "first_frames" in options.on and not 1 <= options.first_frames < frames:
        raise ValueError(
            f"condition.first_frames is {options.first_frames}, expected at least 1 and fewer than the {frames} of "
            "data.frames."
        )


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """A copy of the config with the classes, the vocabulary and the actions of its training source in `condition`.

    A config without conditions is returned as it is. Texts are asked of the source, or read from up to 1024 clips.

    Raises:
      ValueError: the condition cannot work, or the source does not have what it needs.
    """
    if not config.get("condition"):
        return config
    check(config.condition, config.data.frames)
    config = config.copy_and_resolve_references()
    options = config.condition
    options.classes = tuple(source.classes)
    if "label" in options.on and len(options.classes) < 2:
        raise ValueError(_lacks("label", "at least two classes", source))
    if "text" in options.on:
        captions = text_lib.captions(source)
        if not any(map(text_lib.words, captions)):
            raise ValueError(_lacks("text", "captions", source))
        if not options.embeddings:
            options.vocabulary = text_lib.build_vocabulary(captions)
            _warn_if_cut(captions, options.words)
    if "action" in options.on:
        actions = [clip["action"] for clip in text_lib.sampled(source) if "action" in clip]
        if not actions:
            raise ValueError(_lacks("action", "actions", source))
        scale = np.sqrt(np.square(np.stack(actions)).mean((0, 1)))
        options.actions = len(scale)
        # Rounded, so that a run can go on on a machine whose sums differ in the last bit.
        options.action_scale = tuple(float(f"{component:.3g}") or 1.0 for component in scale)
    return config


def wrap(config: ConfigDict, source: Source, train: bool = False) -> Source:
    """The source with `tokens` int32 [L] or `embedding` float32 [E] in its clips, where the condition has texts.

    To train on, texts lose some of their clauses, as `condition.left_out` says.

    Raises:
      ValueError: the table of embeddings has no row for one of the captions.
    """
    options = config.get("condition")
    if not options or "text" not in options.on:
        return source
    key, encode = _text_encoder(options)
    if options.embeddings:
        for caption in text_lib.captions(source):
            encode(caption)
    return text_lib.TextSource(source, key, encode, options.left_out if train else 0.0)


def take(options: ConfigDict, batch: Batch) -> dict[str, jax.Array]:
    """The conditions of a batch, by the names that `nn.condition.ConditionEncoder` knows, on the device.

    Frames come from `batch["first_frames"]` [B,k,H,W,C], or else are the first ones of the video; in [-1, 1].

    Raises:
      ValueError: the batch lacks one.
    """
    found = {}
    for name in options.on:
        key = _key(options, name)
        if name == "first_frames" and key not in batch and "video" in batch:
            found[key] = normalize(batch["video"][:, : options.first_frames])
        elif key in batch:
            found[key] = normalize(batch[key]) if name == "first_frames" else batch[key]
        else:
            raise ValueError(
                f'The condition "{name}" needs "{key}" in the batch, which has {", ".join(batch)}: wrap the source '
                "with methods.condition.wrap, or make the batch with methods.condition.from_user."
            )
    return found


def make_encoder(options: ConfigDict, dtype: Any = None) -> ConditionEncoder:
    """The module that makes [B, condition.features] of what `take` returns.

    Raises:
      ValueError: the config has not been through `complete`.
    """
    needed = {"label": "classes", "text": "vocabulary", "action": "action_scale"}
    for name, field in needed.items():
        if name in options.on and not options[field] and not (name == "text" and options.embeddings):
            raise ValueError(f"condition.{field} is empty: fill it in with methods.condition.complete(config, source).")
    return ConditionEncoder(
        options.features, len(options.classes), len(options.vocabulary), tuple(options.action_scale), dtype
    )


def from_user(
    config: ConfigDict,
    count: int,
    label: str | Sequence[str] | None = None,
    text: str | Sequence[str] | None = None,
    embedding: np.ndarray | None = None,
    first_frames: np.ndarray | None = None,
    action: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The conditions of `count` videos to be sampled; where fewer are given, they are taken in turn.

    Args:
      config: of the run, with what `complete` filled in.
      count: N, the number of videos.
      label: names of classes; all of them in turn if not given.
      text: captions.
      embedding: [E] or [n,E], in place of texts, where the model was trained with embeddings.
      first_frames: [k,H,W,3] or [n,k,H,W,3], uint8 or float in [-1, 1]; frames beyond those that the model takes are
        left out.
      action: [T,A] or [n,T,A].

    Returns:
      Arrays [N, ...] by name, for a batch: label, tokens or embedding, first_frames, action.

    Raises:
      ValueError: something is unknown, lacking, of another shape, or not what the model was trained with.
    """
    options = config.get("condition") or config_lib.condition()
    given = {"label": label, "text": text, "embedding": embedding, "first_frames": first_frames, "action": action}
    given = {name: value for name, value in given.items() if value is not None}
    accepted = {*options.on} | ({"embedding"} if "text" in options.on and options.embeddings else set())
    if surplus := [name for name in given if name not in accepted]:
        told = f"with {', '.join(options.on)}" if options.on else "without conditions"
        raise ValueError(f"The model was trained {told}, and not with {', '.join(surplus)}: leave that out.")
    if {"text", "embedding"} <= given.keys():
        raise ValueError("Both text and embedding are given: leave one out.")
    data = config.data
    found: dict[str, Any] = {}
    if "label" in options.on:
        names = options.classes[:count] if label is None else _listed(label)
        found["label"] = [_class(name, options.classes) for name in names]
    if "text" in options.on:
        found[_key(options, "text")] = _texts(options, text, embedding)
    if "first_frames" in options.on:
        k, side = options.first_frames, data.resolution
        frames = _array(first_frames, "first_frames", (None, side, side, 3))
        if frames.shape[1] < k:
            raise ValueError(f"first_frames has {frames.shape[1]} frames, and the model was trained with {k}.")
        if frames.dtype != np.uint8 and np.abs(frames).max() > 1:
            raise ValueError("first_frames has values beyond [-1, 1]: give uint8, or floats in that range.")
        found["first_frames"] = frames[:, :k]
    if "action" in options.on:
        found["action"] = _array(action, "action", (data.frames, options.actions)).astype(np.float32)
    return {name: _in_turn(name, rows, count) for name, rows in found.items()}


def _key(options: ConfigDict, name: str) -> str:
    """The name of a condition in a batch."""
    return name if name != "text" else "embedding" if options.embeddings else "tokens"


def _text_encoder(options: ConfigDict) -> tuple[str, Callable[[str], np.ndarray]]:
    """The name of encoded texts in a batch, and what encodes one."""
    if options.embeddings:
        return "embedding", text_lib.Embeddings(options.embeddings)
    return "tokens", functools.partial(text_lib.tokenize, vocabulary=options.vocabulary, length=options.words)


def _lacks(name: str, what: str, source: Source) -> str:
    return f'condition.on has "{name}", which needs {what}, and the data have none of that: {source.summary()}.'


def _warn_if_cut(captions: Sequence[str], length: int) -> None:
    counts = [len(text_lib.words(caption)) for caption in captions]
    if (cut := sum(count > length for count in counts)) > 0:
        warnings.warn(
            f"{cut} of {len(counts)} captions have more than the {length} words that are read (condition.words); "
            f"the longest has {max(counts)}.",
            stacklevel=3,
        )


def _class(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        nearest = difflib.get_close_matches(name, classes, n=LISTED, cutoff=0.0)
        others = f" and {len(classes) - LISTED} more" if len(classes) > LISTED else ""
        raise ValueError(f'There is no class "{name}"; the nearest of those there are: {", ".join(nearest)}{others}.')
    return classes.index(name)


def _texts(options: ConfigDict, text: str | Sequence[str] | None, embedding: np.ndarray | None) -> Sequence[np.ndarray]:
    """Tokens [L] or embeddings [E] of what was given; says which words are not known."""
    if embedding is not None:
        features = text_lib.Embeddings(options.embeddings).features
        return list(_array(embedding, "embedding", (features,)).astype(np.float32))
    if text is None:
        raise ValueError("The model was trained with texts: give one (--text).")
    key, encode = _text_encoder(options)
    texts = _listed(text)
    if key == "tokens":
        if not all(map(text_lib.words, texts)):
            raise ValueError("A text without a word says nothing: give one with words (--text).")
        _warn_if_cut(texts, options.words)
        unknown = sorted(set(text_lib.build_vocabulary(texts)) - set(options.vocabulary))
        if unknown:
            near = [f"{word} (nearest: {nearest(word, options.vocabulary)})" for word in unknown]
            warnings.warn(
                f"not among the words that the model knows, so that it reads an unknown word there: {', '.join(near)}",
                stacklevel=3,
            )
    return [encode(each) for each in texts]


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _array(value: np.ndarray | None, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """[n, *shape] of an array of that shape with or without n; None in the shape stands for any size."""
    if value is None:
        raise ValueError(f"The model was trained with {name}: give it (--{name}).")
    value = np.asarray(value)
    rows = value if value.ndim == len(shape) + 1 else value[None]
    if rows.ndim != len(shape) + 1 or any(a not in (None, b) for a, b in zip(shape, rows.shape[1:], strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {list(value.shape)}, expected [{expected}], or [n, {expected}] for several.")
    return rows


def _in_turn(name: str, rows: Sequence[Any], count: int) -> np.ndarray:
    """[count, ...]: the rows over and over."""
    if not 1 <= len(rows) <= count:
        raise ValueError(
            f"There are {len(rows)} of {name} for {count} videos, expected at least 1 and at most {count}."
        )
    array = np.asarray(rows)
    dtype = {"i": np.int32, "f": np.float32}.get(array.dtype.kind, array.dtype)
    return array[np.arange(count) % len(rows)].astype(dtype)
