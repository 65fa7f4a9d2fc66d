"""Clips as tokens of a trained tokenizer: written once by `python -m jaxvid.tokenize`, read in place of the videos.

A folder holds shards of records, as `jaxvid.data.records` has them, and `tokens.json`, written last, which says of
which tokenizer, data and clips they are. A record has `tokens` [t,h,w], `first_frames` uint8 [k,H,W,3] where the cache
has them, and what the source gives beside the pictures: label, text, action.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.data.augment import random_crop
from jaxvid.data.pipeline import Clip, Source, is_paired, shuffled
from jaxvid.data.records import Shards, check_new, write_shard
from jaxvid.names import plural

DESCRIPTION = "tokens.json"
FORMAT = 1
PICTURES = ("video", "input", "truth")  # which no cache holds


class Crops:
    """The clips that a cache stands for: `count` clips of a source, cropped to squares, each always in the same way.

    They are in the source's order: all its clips as often as `count` allows, each time with other crops, and then a
    sample of the rest. Damaged clips raise DamagedClip as in the source.
    """

    def __init__(self, source: Source, resolution: int, count: int):
        self.classes, self._source, self._resolution = source.classes, source, resolution
        self.paired = is_paired(source)
        whole, rest = divmod(count, len(source))
        sample = np.sort(shuffled(len(source), 0, whole)[:rest])
        self._indices = np.concatenate([np.tile(np.arange(len(source)), whole), sample]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> Clip:
        number = range(len(self))[number]
        clip = self._source[int(self._indices[number])]
        return random_crop(clip, self._resolution, np.random.default_rng([0, number, 2]), self.paired)

    def summary(self) -> str:
        """See `Source.summary`."""
        return f"{plural(len(self), 'clip')} of {self._source.summary()}"


class Tokens:
    """The clips of a cache, a source: `tokens` int32 [t,h,w], and what the source of the videos gives beside these.

    Args:
      path: the folder.
      first_frames: k, of which the cache has as many at least.

    Attributes:
      about: the content of `tokens.json`.
      numbers: int64 [clips], of each clip in `Crops`.

    Raises FileNotFoundError if there is no whole cache, ValueError if it is damaged.
    """

    def __init__(self, path: str, first_frames: int = 0):
        self._folder, self._first_frames = Path(path), first_frames
        file = self._folder / DESCRIPTION
        if not file.is_file():
            raise FileNotFoundError(f"there is no {file}, which python -m jaxvid.tokenize writes when all is done")
        try:
            self.about = json.loads(file.read_text())
            if self.about["format"] != FORMAT:
                raise ValueError(f"it has format {self.about['format']}, and this version reads format {FORMAT}")
            self.classes: list[str] = self.about["source"]["classes"]
            self.numbers = np.delete(np.arange(self.about["planned"]), self.about["left_out"])
            self._clips = Shards(self._folder, self.about["shards"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{file} is damaged") from error

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self._clips[index]
        first = clip.pop("first_frames", np.empty(0, np.uint8))[: self._first_frames]
        return {**clip, "tokens": clip["tokens"].astype(np.int32)} | ({"first_frames": first} if len(first) else {})

    @property
    def sha256(self) -> str:
        """See `Source`: of the tokens, and of what the source of the videos says of itself."""
        return self.about["sha256"]

    def summary(self) -> str:
        """See `Source.summary`."""
        grid = "x".join(map(str, self.about["grid"]))
        clips = f"{plural(len(self), 'clip')} of {grid} tokens in {plural(len(self.about['shards']), 'shard')}"
        origin = f"{len(self.about['left_out'])} damaged clips left out; made of {self.about['source']['summary']}"
        return f"tokens {self._folder}: {clips}, {origin}"


def write_tokens(
    clips: Iterable[tuple[int, Clip]], about: Mapping[str, Any], path: str, shards: int = 16
) -> dict[str, Any]:
    """Writes clips of tokens to the folder `path`, whole or not at all.

    Args:
      clips: (number, clip) in ascending order of the numbers in `Crops`; those that are missing count as left out.
      about: entries of `tokens.json`, with `planned`, the number of clips if none is left out, and of the `source` of
        the videos its `summary`, `clips`, `classes` and `sha256`.
      path: the folder.
      shards: number of files, if there are as many clips.

    Returns the content of `tokens.json`.
    Raises ValueError if there is no clip, OSError if it cannot be written.
    """
    folder = Path(path)
    partial = folder.with_name(f"{folder.name}.partial")
    check_new(folder)
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    partial.mkdir(parents=True)
    numbers: list[int] = []
    digest = hashlib.sha256(json.dumps([about["source"][field] for field in ("clips", "classes", "sha256")]).encode())

    def tokens() -> Iterator[Clip]:
        for number, clip in clips:
            numbers.append(number)
            digest.update(np.int64(number).tobytes() + clip["tokens"].tobytes())
            yield clip

    written = _write_shards(partial, tokens(), -(-about["planned"] // max(shards, 1)))
    if not written:
        raise ValueError(f"nothing written to {folder}: no clip can be read of {about['source']['summary']}")
    left_out = np.setdiff1d(np.arange(about["planned"]), numbers).tolist()
    found = {"left_out": left_out, "sha256": digest.hexdigest(), "shards": written}
    description = {"format": FORMAT, **about, "clips": len(numbers), **found}
    (partial / DESCRIPTION).write_text(json.dumps(description, indent=1))
    partial.rename(folder)
    return description


def _write_shards(folder: Path, clips: Iterator[Clip], size: int) -> Sequence[dict[str, Any]]:
    """Writes shards of `size` clips each."""
    written: list[dict[str, Any]] = []
    for clip in clips:
        file = folder / f"tokens-{len(written):05d}.array_record"
        written.append(write_shard(file, islice(chain([clip], clips), size)))
    return written
