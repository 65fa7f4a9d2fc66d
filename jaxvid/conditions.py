"""Conditions: one table of what a video may be generated from, for every method.

A recipe names some of them: `config.condition = jaxvid.config.condition(("label", "text"))`. Before a run begins,
`complete` fills in what the training data decide (class names, vocabulary, size of an action), so that it is stored
with the run. A method takes its conditions out of each batch with `take` and encodes them with `make_encoder`; for
sampling `from_user` makes them from Python values and `from_arguments` from the command line.
"""

import argparse
import functools
import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.core import Batch, normalize
from jaxvid.data import Source
from jaxvid.data import text as text_lib
from jaxvid.data.paths import read_longest, read_videos
from jaxvid.files import load_array
from jaxvid.names import choice, closest, composed, nearest
from jaxvid.nn.condition import ConditionEncoder

LISTED = 60  # names in an error
# Fields of `config.condition` that `complete` fills in.
OF_DATA = ("classes", "attributes", "vocabulary", "actions", "action_scale")
Arrays = dict[str, np.ndarray]


class Condition:
    """An entry of the table: how one condition gets from the data, or from a user, to the model.

    The encoder makes a part of the vector [B,F] of it, and by its `kind`: "vector" no more; "words" [B,L,F] with their
    mask [B,L]; "frames" [B,T,F]; "video" no more, since the method reads the clip as it is. `option`, `metavar` and
    `help` are those of the command line.
    """

    kind = "vector"
    option, metavar, help = "", "FILE", ""

    def __init__(self, name: str):
        self.name = name
        self.option = self.option or name

    def key(self, options: ConfigDict) -> str:
        """The name in a batch."""
        return self.name

    def check(self, options: ConfigDict, frames: int) -> None:
        """Raises ValueError for fields of `config.condition` that cannot work with videos of so many frames."""

    def complete(self, options: ConfigDict, source: Source) -> None:
        """Fills in fields of `config.condition`; raises ValueError where the source lacks the condition."""
        if not any(self.key(options) in clip for clip in text_lib.sampled(source)):
            raise lacking(self.name, f'"{self.key(options)}" in the clips', source)

    def wrap(self, options: ConfigDict, source: Source, train: bool) -> Source:
        """The source, with the condition as numbers in its clips."""
        return source

    def take(self, options: ConfigDict, batch: Batch) -> jax.Array | None:
        """The condition [B, ...] out of a batch; None where it is missing."""
        value = batch.get(self.key(options))
        return normalize(value) if value is not None and self.kind == "video" else value

    def read(self, values: Sequence[str], config: ConfigDict) -> Any:
        """The argument of `from_user` that the words of the command line stand for."""
        return load_array(one_path(values, self.option))

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        """[n, ...] for the batch of what a user gives; None: nothing. Raises ValueError where it does not fit."""
        raise NotImplementedError

    def captions(self, value: Any, rows: np.ndarray, options: ConfigDict) -> list[str] | None:
        """What to write beside each of N videos that were sampled with these rows [N, ...]; None: nothing."""
        return None


class Label(Condition):
    """A class, by its name. All classes in turn where a user names none."""

    metavar, help = "NAMES", "classes, in turn (default: all): a,b, or repeated where names have commas"

    def complete(self, options: ConfigDict, source: Source) -> None:
        if len(options.classes) < 2:
            raise lacking(self.name, "at least two classes", source)

    def read(self, values: Sequence[str], config: ConfigDict) -> list[str]:
        """Commas separate names, but in what as a whole is the name of a class."""
        classes = {composed(name) for name in config.condition.classes}
        lists = [[value] if composed(value) in classes else value.split(",") for value in values]
        return [name for names in lists for name in names if name]

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        classes = [composed(name) for name in config.condition.classes]
        names = classes if value is None else [composed(name) for name in listed(value)]
        return [place("class", name, classes) for name in names]

    def captions(self, value: Any, rows: np.ndarray, options: ConfigDict) -> list[str]:
        return [options.classes[label] for label in rows]


class Attributes(Condition):
    """What is true of a picture, and what is not: float32 [K] of 1 and 0, by the names of K attributes."""

    metavar = "NAMES"
    help = 'all attributes that a video has: a,b, or "" for none of them; may be repeated, taken in turn'

    def complete(self, options: ConfigDict, source: Source) -> None:
        options.attributes = tuple(getattr(source, "attributes", ()))
        if not options.attributes:
            raise lacking(self.name, "a list of attributes (of a folder: data.layout=attributes)", source)

    def read(self, values: Sequence[str], config: ConfigDict) -> list[str]:
        return list(values)

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        names = [composed(name) for name in config.condition.attributes]
        if value is None:
            raise ValueError(f"The model was trained with attributes: give some (--attributes {','.join(names[:2])}).")
        given = np.asarray(value)
        if given.dtype.kind != "U":
            given = array_of(given.astype(np.float32) if given.dtype.kind == "b" else given, self.name, (len(names),))
            if given.min() < 0 or given.max() > 1:
                found = f"from {given.min():g} to {given.max():g}"
                raise ValueError(f"attributes has values {found}, expected 1 for what a video has, 0 for what not.")
            return list(given.astype(np.float32))
        rows = np.zeros((len(listed(value)), len(names)), np.float32)
        for row, each in zip(rows, listed(value), strict=True):
            row[[place("attribute", composed(name.strip()), names) for name in each.split(",") if name.strip()]] = 1
        return list(rows)

    def captions(self, value: Any, rows: np.ndarray, options: ConfigDict) -> list[str]:
        names = np.array(options.attributes)
        return [", ".join(names[row > 0.5]) or "none" for row in rows]


class Text(Condition):
    """A caption: its words, or an embedding of it from a file (`condition.embeddings`)."""

    kind = "words"
    metavar, help = "TEXT", "a caption; may be repeated, taken in turn"

    def key(self, options: ConfigDict) -> str:
        return "embedding" if options.embeddings else "words"

    def check(self, options: ConfigDict, frames: int) -> None:
        if options.left_out and options.embeddings:
            raise ValueError("condition.left_out shortens texts, and condition.embeddings has whole ones: set it to 0.")

    def complete(self, options: ConfigDict, source: Source) -> None:
        captions = text_lib.captions(source)
        if not any(map(text_lib.words, captions)):
            raise lacking(self.name, "captions", source)
        if not options.embeddings:
            options.vocabulary = text_lib.build_vocabulary(captions)
            warn_of_cut(captions, options.words)

    def wrap(self, options: ConfigDict, source: Source, train: bool) -> Source:
        encode = self._encoder(options)
        if options.embeddings:
            for caption in text_lib.captions(source):
                encode(caption)
        return text_lib.TextSource(source, self.key(options), encode, options.left_out if train else 0.0)

    def read(self, values: Sequence[str], config: ConfigDict) -> list[str]:
        return list(values)

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        options = config.condition
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            features = embeddings_of(options).features
            return list(array_of(value, "embedding", (features,)).astype(np.float32))
        if value is None:
            raise ValueError("The model was trained with texts: give one (--text).")
        if not options.embeddings:
            self._warn_of_unknown(listed(value), options)
        return list(map(self._encoder(options), listed(value)))

    def captions(self, value: Any, rows: np.ndarray, options: ConfigDict) -> list[str]:
        return list(itertools.islice(itertools.cycle(map(str, listed(value))), len(rows)))

    def _encoder(self, options: ConfigDict) -> Any:
        if options.embeddings:
            return embeddings_of(options)
        return functools.partial(text_lib.tokenize, vocabulary=options.vocabulary, length=options.words)

    def _warn_of_unknown(self, texts: Sequence[str], options: ConfigDict) -> None:
        if not all(map(text_lib.words, texts)):
            raise ValueError("A text without a word is no condition: give one with words (--text).")
        warn_of_cut(texts, options.words)
        if unknown := sorted(set(text_lib.build_vocabulary(texts)) - set(options.vocabulary)):
            near = ", ".join(f"{word} (nearest: {nearest(word, options.vocabulary)})" for word in unknown)
            warnings.warn(f"not in the model's vocabulary, which reads them as unknown: {near}", stacklevel=3)


class Video(Condition):
    """A clip to translate, as long as its translation; its pixels have the same name in a batch."""

    kind = "video"
    shorter = False  # whether a user may give fewer frames
    metavar, help = "PATH", "video, image, folder of them, or .npy [T,H,W,3]"

    def length(self, config: ConfigDict) -> int:
        """Frames that the model takes."""
        return config.data.frames

    def read(self, values: Sequence[str], config: ConfigDict) -> np.ndarray:
        return read_videos(one_path(values, self.option), self.length(config), config.data)

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        length, side = self.length(config), config.data.resolution
        frames = array_of(value, self.name, (None, side, side, 3))
        if frames.shape[1] < length and not self.shorter:
            raise ValueError(f"{self.name} has {frames.shape[1]} frames, and the model was trained with {length}.")
        if frames.dtype != np.uint8 and np.abs(frames).max(initial=0) > 1:
            raise ValueError(f"{self.name} has values beyond [-1, 1]: give uint8, or floats in that range.")
        return list(frames[:, :length])


class FirstFrames(Video):
    """The first `condition.first_frames` frames of the video itself; a prior over tokens takes fewer, too, or none."""

    shorter = True

    def length(self, config: ConfigDict) -> int:
        return config.condition.first_frames

    def read(self, values: Sequence[str], config: ConfigDict) -> np.ndarray:
        return read_longest(one_path(values, self.option), self.length(config), config.data)

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        side = config.data.resolution
        return super().rows(np.zeros((0, side, side, 3), np.uint8) if value is None else value, config)

    def check(self, options: ConfigDict, frames: int) -> None:
        if not 1 <= options.first_frames < frames:
            expected = f"expected at least 1 and fewer than the {frames} of data.frames"
            raise ValueError(f"condition.first_frames is {options.first_frames}, {expected}.")

    def complete(self, options: ConfigDict, source: Source) -> None:
        """Every clip has first frames."""

    def take(self, options: ConfigDict, batch: Batch) -> jax.Array | None:
        if self.name not in batch and "video" in batch:
            return normalize(batch["video"][:, : options.first_frames])
        return super().take(options, batch)


class Action(Condition):
    """Numbers for every frame, such as the velocity of the object."""

    kind = "frames"
    option, help = "actions", ".npy [T,A] or [n,T,A]"

    def complete(self, options: ConfigDict, source: Source) -> None:
        actions = [clip["action"] for clip in text_lib.sampled(source) if "action" in clip]
        if not actions:
            raise lacking(self.name, "actions", source)
        scale = np.sqrt(np.square(np.stack(actions)).mean((0, 1)))
        options.actions = len(scale)
        # Rounded, so that a run can resume on a machine whose sums differ in the last bit.
        options.action_scale = tuple(float(f"{component:.3g}") or 1.0 for component in scale)

    def rows(self, value: Any, config: ConfigDict) -> Sequence[Any]:
        shape = (config.data.frames, config.condition.actions)
        return list(array_of(value, self.name, shape).astype(np.float32))


ENTRIES = (
    Label("label"),
    Attributes("attributes"),
    Text("text"),
    FirstFrames("first_frames"),
    Action("action"),
    Video("input"),
)
TABLE: dict[str, Condition] = {entry.name: entry for entry in ENTRIES}


def check(options: ConfigDict, frames: int) -> None:
    """Raises ValueError for a `config.condition` that cannot work with videos of so many frames."""
    if not isinstance(options.on, tuple) or len({*options.on}) < len(options.on):
        raise ValueError(f"condition.on is {options.on!r}, expected a tuple of different names, as ('label', 'text').")
    for name in options.on:
        choice("condition.on", name, TABLE)
    for field in ("features", "words"):
        if options[field] < 1:
            raise ValueError(f"condition.{field} is {options[field]}, expected at least 1.")
    if not 0 <= options.left_out <= 1:
        raise ValueError(f"condition.left_out is {options.left_out}, expected a share from 0 to 1.")
    for name in options.on:
        TABLE[name].check(options, frames)


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """A copy of the config with the classes, attributes, vocabulary and actions of its training source in `condition`.

    A config without conditions is returned as it is. Texts are asked of the source, or read from up to 1024 clips.

    Raises ValueError: the condition cannot work, the source does not have what it needs, or a field that it would fill
    in has another value already.
    """
    if not config.get("condition"):
        return config
    check(config.condition, config.data.frames)
    given, config = config.condition, config.copy_and_resolve_references()
    config.condition.classes = tuple(source.classes)
    for name in config.condition.on:
        TABLE[name].complete(config.condition, source)
    for field in OF_DATA:
        if given[field] and given[field] != (found := config.condition[field]):
            was, now = map(config_lib.abbreviated, (given[field], found))
            raise ValueError(f"condition.{field} is {was}, and the training data have {now}: leave it to them.")
    return config


def wrap(config: ConfigDict, source: Source, train: bool = False) -> Source:
    """The source with `words` int32 [L] or `embedding` float32 [E] in its clips, where the condition has texts.

    In training, a share `condition.left_out` of the clauses of texts is left out.

    Raises ValueError: the table of embeddings has no row for one of the captions.
    """
    for name in config.condition.on if config.get("condition") else ():
        source = TABLE[name].wrap(config.condition, source, train)
    return source


def take(options: ConfigDict, batch: Batch, shorter: bool = False) -> dict[str, jax.Array]:
    """The conditions of a batch, by the names that `nn.condition.ConditionEncoder` knows, on the device.

    Frames come from `batch["first_frames"]` [B,k,H,W,C], or else are the first ones of the video; in [-1, 1].

    Args:
      shorter: whether there may be fewer first frames than `condition.first_frames`, down to none.

    Raises ValueError: the batch lacks one, or there are too few frames.
    """
    found = {}
    for name in options.on:
        key = TABLE[name].key(options)
        value = TABLE[name].take(options, batch)
        if value is None:
            raise ValueError(
                f'The condition "{name}" needs "{key}" in the batch, which has {", ".join(batch)}: wrap the source '
                "with jaxvid.conditions.wrap, or make the batch with jaxvid.conditions.from_user."
            )
        if name == "first_frames" and value.shape[1] != options.first_frames and not shorter:
            if not value.shape[1]:
                array_of(None, name, ())  # raises
            raise ValueError(
                f"first_frames has {value.shape[1]} frames, and the model was trained with {options.first_frames}."
            )
        found[key] = value
    return found


def make_encoder(options: ConfigDict, dtype: Any = None, reads: tuple[str, ...] = ("vector",)) -> ConditionEncoder:
    """The module that encodes what `take` returns; `reads` are those of `ConditionEncoder`.

    Raises ValueError: the config has not been through `complete`.
    """
    filled_in = {"label": "classes", "attributes": "attributes", "text": "vocabulary", "action": "action_scale"}
    for name, field in filled_in.items():
        if name in options.on and not options[field] and not (name == "text" and options.embeddings):
            raise ValueError(f"condition.{field} is empty: fill it in with jaxvid.conditions.complete(config, source).")
    return ConditionEncoder(
        frames=tuple(name for name, entry in TABLE.items() if entry.kind == "frames"),
        videos=tuple(name for name, entry in TABLE.items() if entry.kind == "video"),
        features=options.features,
        classes=len(options.classes),
        vocabulary=len(options.vocabulary),
        action_scale=tuple(options.action_scale),
        reads=reads,
        dtype=dtype,
    )


def from_user(config: ConfigDict, count: int, **values: Any) -> Arrays:
    """The conditions of `count` videos to be sampled; where fewer are given, they are taken in turn.

    Args:
      config: of the run, with what `complete` filled in.
      count: N, the number of videos.
      **values: by condition, None for nothing: `label`, names of classes (all of them in turn if not given);
        `attributes`, for each video the names of those that it has, "Male,Smiling", or an array [K] or [n,K] in [0, 1];
        `text`, captions; `embedding` [E] or [n,E] in place of texts, where the model was trained with embeddings;
        `first_frames` and `input` [k,H,W,3] or [n,k,H,W,3], uint8 or float in [-1, 1], of which frames beyond those
        that the model takes are left out; `action` [T,A] or [n,T,A].

    Returns:
      Arrays [N, ...] by their names in a batch: label, attributes, words or embedding, first_frames, action, input.

    Raises ValueError: something is unknown, lacking, of another shape, or not what the model was trained with.
    """
    options = config.get("condition") or config_lib.condition()
    values = {name: value for name, value in values.items() if value is not None}
    accepted = {*options.on} | ({"embedding"} if "text" in options.on and options.embeddings else set())
    if surplus := [name for name in values if name not in accepted]:
        conditions = f"with {', '.join(options.on)}" if options.on else "without conditions"
        raise ValueError(f"The model was trained {conditions}, and not with {', '.join(surplus)}: leave that out.")
    if {"text", "embedding"} <= values.keys():
        raise ValueError("Both text and embedding are given: leave one out.")
    if "embedding" in values:
        values["text"] = np.asarray(values.pop("embedding"))
    found = {}
    for name in options.on:
        rows = TABLE[name].rows(values.get(name), config)
        if name not in values:  # defaults, of which no more than needed
            rows = rows[:count]
        found[TABLE[name].key(options)] = in_turn(name, rows, count)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds an option for every condition, for `from_arguments`."""
    for entry in TABLE.values():
        parser.add_argument(f"--{entry.option}", action="append", metavar=entry.metavar, help=entry.help)


def from_arguments(arguments: argparse.Namespace, config: ConfigDict) -> dict[str, Any]:
    """The values for `from_user` that a command line names."""
    options = {name: getattr(arguments, entry.option) for name, entry in TABLE.items()}
    if surplus := [name for name, values in options.items() if values and not config.get("condition")]:
        raise ValueError(f"The model was trained without conditions, and not with {', '.join(surplus)}.")
    return {name: TABLE[name].read(values, config) for name, values in options.items() if values}


def captions(config: ConfigDict, values: Mapping[str, Any], arrays: Arrays) -> dict[str, list[str]]:
    """By condition, what to write beside each of N videos: `values` went into `from_user`, `arrays` came out."""
    options = config.get("condition") or config_lib.condition()
    entries = {name: (TABLE[name], arrays[TABLE[name].key(options)]) for name in options.on}
    found = {name: entry.captions(values.get(name), rows, options) for name, (entry, rows) in entries.items()}
    return {name: texts for name, texts in found.items() if texts is not None}


def place(what: str, name: str, names: Sequence[str]) -> int:
    """The number of a name, which is that of a class or an attribute; ValueError with the nearest if it is none."""
    if name in names:
        return names.index(name)
    near = ", ".join(closest(name, names, LISTED))
    others = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    raise ValueError(f'There is no {what} "{name}"; the nearest of those there are: {near}{others}.')


def lacking(name: str, what: str, source: Source) -> ValueError:
    """The error for a source without what a condition needs."""
    return ValueError(f'condition.on has "{name}", which needs {what}, and the data have none: {source.summary()}.')


def embeddings_of(options: ConfigDict) -> text_lib.Embeddings:
    """The table at `condition.embeddings`; ValueError, which names the field, where it cannot be read."""
    try:
        return text_lib.Embeddings(options.embeddings)
    except OSError as error:
        what = f"condition.embeddings is {options.embeddings}, which cannot be read ({error.strerror})"
        raise ValueError(f"{what}: name an .npz with text [N] and embedding [N,E].") from error
    except ValueError as error:
        raise ValueError(f"condition.embeddings: {error}") from error


def warn_of_cut(texts: Sequence[str], length: int) -> None:
    """Warns where texts have more words than are read."""
    counts = [len(text_lib.words(text)) for text in texts]
    if (cut := sum(count > length for count in counts)) > 0:
        longer = f"{cut} of {len(counts)} captions have more than the {length} words that are read (condition.words)"
        warnings.warn(f"{longer}; the longest has {max(counts)}.", stacklevel=3)


def one_path(values: Sequence[str], option: str) -> str:
    """The only path that an option names; ValueError where there are several, or where it does not exist."""
    if len(values) > 1:
        raise ValueError(f"--{option} is given {len(values)} times: put the files into one folder or array.")
    if not os.path.exists(values[0]):
        raise ValueError(f"there is no {values[0]} (--{option}).")
    return values[0]


def listed(value: str | Sequence[str]) -> Sequence[str]:
    """A list of one name or text, or of several."""
    return [value] if isinstance(value, str) else value


def array_of(value: Any, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """[n, *shape] of an array of that shape with or without n; None in the shape stands for any size."""
    if value is None:
        raise ValueError(f"The model was trained with {name}: give it (--{TABLE[name].option}).")
    value = np.asarray(value)
    rows = value if value.ndim == len(shape) + 1 else value[None]
    if rows.ndim != len(shape) + 1 or any(a not in (None, b) for a, b in zip(shape, rows.shape[1:], strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {list(value.shape)}, expected [{expected}], or [n, {expected}] for several.")
    if not len(rows):
        raise ValueError(f"{name} is {list(value.shape)}, which holds none: expected at least one.")
    if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise ValueError(f"{name} holds {value.dtype}, some of it not finite or not real, expected finite numbers.")
    return rows


def in_turn(name: str, rows: Sequence[Any], count: int) -> np.ndarray:
    """[count, ...]: the rows over and over."""
    if not 1 <= len(rows) <= count:
        raise ValueError(f"There are {len(rows)} of {name} for {count} videos, expected 1 to {count}.")
    array = np.asarray(rows)
    dtype = {"i": np.int32, "f": np.float32}.get(array.dtype.kind, array.dtype)
    return array[np.arange(count) % len(rows)].astype(dtype)
