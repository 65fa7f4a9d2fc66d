"""Decoded clips in ArrayRecord shards: written once, then read at the speed of memory, on one machine or on many.

A folder contains one split: `clips-00000-of-00016.array_record`, ... and `records.json`, which lists the shards with
their clips and bytes, frames, resolution, classes, and damaged files. A record is a little-endian uint32 n, n bytes of
JSON ([[key, dtype, shape], ...]), and the concatenated bytes of the arrays; ArrayRecord adds checksums.
"""

import hashlib
import json
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from jaxvid.data.augment import resize_short_side
from jaxvid.data.pipeline import Clip, Damaged, DamagedClip, Source, is_paired

DESCRIPTION = "records.json"
FORMAT = 1


def write_records(source: Source, path: str, shards: int = 16, workers: int = 4) -> dict[str, Any]:
    """Writes all clips of `source` to the folder `path`, whole or not at all.

    Args:
      source: clips, all of the same number of frames. A DamagedClip is logged, counted, and left out.
      path: the folder of one split: <data.path>/train or <data.path>/eval.
      shards: number of files; several times the number of hosts that will read them.
      workers: threads that read clips and write shards.

    Returns the content of `records.json`.
    Raises ValueError if `path` exists already, clips differ in their number of frames, or none can be read.
    """
    folder = Path(path)
    partial = folder.with_name(f"{folder.name}.partial")
    check_new(folder)
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    partial.mkdir(parents=True)
    shards = max(1, min(shards, len(source)))
    damaged, stop = Damaged(), threading.Event()

    with ThreadPoolExecutor(workers) as pool:
        work = [pool.submit(_write_shard, source, partial, shard, shards, damaged, stop) for shard in range(shards)]
        try:
            wait(work, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # neither an error nor an interrupt waits for whole shards
    written, lengths, sides = zip(*(future.result() for future in work), strict=True)
    frames = sorted(set().union(*lengths))
    if len(frames) != 1:
        what = f"clips of {frames} frames, which cannot share a batch" if frames else "no clip that can be read"
        raise ValueError(f"nothing written to {folder}: it would hold {what}; the source is {source.summary()}")
    clips = sum(shard["clips"] for shard in written)
    description = {
        "format": FORMAT,
        "source": source.summary(),
        "clips": clips,
        "left_out": len(source) - clips,
        "frames": frames[0],
        "resolution": min(sides),
        "classes": list(source.classes),
        "attributes": list(getattr(source, "attributes", ())),
        "paired": is_paired(source),
        "shards": written,
        "damaged": damaged.files,
    }
    (partial / DESCRIPTION).write_text(json.dumps(description, indent=1))
    partial.rename(folder)
    return description


class Records:
    """Clips of `write_records`, as they came from their source.

    An item has the keys of the source's items, with `video`, `input` and `truth` uint8 [T,h,w,3] resized to a shorter
    side of `resolution`. Resizing takes time: write them at that size if possible.

    Args:
      path: the folder that contains `train/` and `eval/`.
      frames, resolution: at most those of the stored clips, of which the first T frames are taken.
      split: "train" or "eval".

    Raises FileNotFoundError if there are no records, ValueError if they are too short or too small, or damaged.
    """

    def __init__(self, path: str, frames: int, resolution: int, split: str = "train"):
        self._folder = Path(path) / split
        if not (self._folder / DESCRIPTION).is_file():
            raise FileNotFoundError(
                f"there is no {self._folder / DESCRIPTION}: `python -m jaxvid.data VIDEOS --convert {path}` writes"
                " it from a folder of videos, jaxvid.data.records.write_records from any source"
            )
        self._about = json.loads((self._folder / DESCRIPTION).read_text())
        if self._about["format"] != FORMAT:
            raise ValueError(f"{self._folder} has format {self._about['format']}, this version reads format {FORMAT}")
        for name, asked in (("frames", frames), ("resolution", resolution)):
            if asked > self._about[name]:
                raise ValueError(
                    f"{self._folder} contains clips of {name} {self._about[name]}, less than the requested {asked}:"
                    f" lower data.{name} or write the records again"
                )
        self.frames, self.resolution, self.classes = frames, resolution, list(self._about["classes"])
        self.attributes = list(self._about.get("attributes", ()))
        self.paired = self._about.get("paired", True)
        self._clips = Shards(self._folder, self._about["shards"])

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self._clips[index]
        for key in {"video", "input", "truth", "action"} & set(clip):
            clip[key] = clip[key][: self.frames]
        for key in {"video", "input", "truth"} & set(clip):
            clip[key] = resize_short_side(clip[key], self.resolution)
        return clip

    def summary(self) -> str:
        """See `Source.summary`."""
        about = self._about
        size = f"{self.frames} frames of short side {about['resolution']}"
        clips = f"{len(self):,} clips of {size} in {len(about['shards'])} shards, {len(self.classes)} classes"
        origin = f"{about['left_out']} damaged clips left out; written from {about['source']}"
        return f"records {self._folder}: {clips}, {origin}"

    @property
    def sha256(self) -> str:
        """See `Source`: of the sizes of the shards."""
        return hashlib.sha256(json.dumps([self._about["shards"], self.classes]).encode()).hexdigest()


class Shards:
    """The records of some shards of a folder, by number.

    Args:
      folder: holds the shards.
      shards: what `write_shard` returned of each, in the order of their records.

    Raises ValueError if a shard is missing, or has another size.
    """

    def __init__(self, folder: Path, shards: Sequence[Mapping[str, Any]]):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._folder, self._shards = folder, shards
        self._ends = np.cumsum([shard["clips"] for shard in shards])
        self._records = ArrayRecordDataSource([str(self._checked(shard)) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Clip:
        """What `decode` returns; DamagedClip, or IndexError past the last record."""
        index = range(len(self))[index]
        try:
            return decode(self._records[index])
        except RuntimeError as error:  # ArrayRecord's error for a wrong checksum
            shard = self._shards[int(np.searchsorted(self._ends, index, side="right"))]
            raise DamagedClip(str(self._folder / shard["file"]), f"clip {index}: {error}") from error

    def _checked(self, shard: Mapping[str, Any]) -> Path:
        file = self._folder / shard["file"]
        if not file.is_file():
            raise ValueError(f"shard {file} is missing: copy the whole folder again, or write the records again")
        if (size := file.stat().st_size) != shard["bytes"]:
            wrong = f"{size:,} bytes in place of {shard['bytes']:,}"
            raise ValueError(f"shard {file} has {wrong}: copy it again, or write the records again")
        return file


def check_new(folder: Path) -> None:
    """Raises ValueError where there is something that a folder of records would replace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty: choose another path, or delete it to write it again")


def encode(clip: Mapping[str, np.ndarray]) -> bytes:
    """One clip as the bytes of a record."""
    arrays = {key: np.asarray(value) for key, value in clip.items()}
    for key, value in arrays.items():
        if value.dtype.hasobject:
            raise ValueError(f"{key!r} contains Python objects ({value.dtype}), which records cannot store")
    header = json.dumps([[key, value.dtype.str, value.shape] for key, value in arrays.items()]).encode()
    return b"".join([struct.pack("<I", len(header)), header, *(value.tobytes() for value in arrays.values())])


def decode(record: bytes) -> Clip:
    """The clip of a record; its arrays share the record's memory and cannot be written to."""
    (length,) = struct.unpack_from("<I", record)
    offset, clip = 4 + length, {}
    for key, dtype, shape in json.loads(record[4:offset]):
        clip[key] = np.ndarray(shape, dtype, record, offset)
        offset += clip[key].nbytes
    return clip


def _write_shard(
    source: Source, folder: Path, shard: int, shards: int, damaged: Damaged, stop: threading.Event
) -> tuple[dict[str, Any], set[int], int]:
    """Writes every `shards`-th clip from `shard` on, so that each shard is a sample of the whole.

    Returns its entry in `records.json`, the numbers of frames of its clips, and their shortest side.
    """
    file = folder / f"clips-{shard:05d}-of-{shards:05d}.array_record"
    side, frames = 2**31, set[int]()

    def clips() -> Iterator[Clip]:
        nonlocal side
        for index in range(shard, len(source), shards):
            if stop.is_set():
                return
            try:
                clip = source[index]
            except DamagedClip as error:
                damaged.add(error)
                continue
            frames.add(clip["video"].shape[0])
            side = min(side, *clip["video"].shape[1:3])
            yield clip

    entry = write_shard(file, clips())
    logging.info("wrote shard %d of %d: %d clips", shard + 1, shards, entry["clips"])
    return entry, frames, side


def write_shard(file: Path, clips: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Writes a record for each clip, and returns the name, clips and bytes of the file. Raises OSError if it cannot."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")  # group 1: each clip is read on its own
    count = 0
    for record in map(encode, clips):
        count += 1
        with _writing(file):
            writer.write(record)
    with _writing(file):
        writer.close()
    return {"file": file.name, "clips": count, "bytes": file.stat().st_size}


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turns ArrayRecord's errors, as that of a full disk, into OSError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0].removeprefix("write() failed: ").removeprefix("close() failed: ")
        raise OSError(f"{file} could not be written: {reason}.") from error
