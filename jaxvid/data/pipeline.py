"""From a source of clips to batches: shuffled, cropped, sharded over processes, and resumable at any step.

Every clip of a stream is a pure function of (source, seed, position), so that batches depend neither on threads nor on
worker processes nor on the number of hosts, and a run resumes at step k without reading the clips before it.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Protocol

import numpy as np
from absl import flags, logging

from jaxvid.data.augment import center_crop, random_crop

Clip = dict[str, np.ndarray]

UNGUARDED = 75  # exit code of a worker process that began to run the script of its user
ATTEMPTS = 16  # clips tried for one row of a batch before a source counts as broken


class Source(Protocol):
    """Clips by index: item `i` is a pure function of the source's settings and `i`.

    An item holds `video` uint8 [T,h,w,3] (an image is T=1; h and w may exceed the resolution, since clips are cropped),
    `label` int32 [], `text` str [], and, where the source has them, `attributes` float32 [K] (1 for what is true of the
    clip, 0 for what is not), `action` float32 [T,A], `input` uint8 [T,h,w,3] (the clip to translate), `target` int32 []
    (the label to translate to) and `truth` uint8 [T,h,w,3] (the true translation, where it is known and is not
    `video`). One that holds `tokens`, see `jaxvid.data.tokens`, needs no `video`. An item that cannot be read raises
    DamagedClip.

    A source with `attributes` in its items lists their K names as `attributes`. One that knows its texts without
    reading clips may list them as `texts`, files that it leaves out as `skipped` [(name, reason)], and a digest of what
    it holds, by which a run notices other data, as `sha256`. Where `video` is not the true translation of `input`, its
    attribute `paired` is False: then they may differ in size.
    """

    classes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def summary(self) -> str:
        """One line: the kind of source, number of clips, frames x resolution, classes, and what was skipped."""
        ...


def is_paired(source: Source) -> bool:
    """Whether `video` is the true translation of `input`, where the source has one."""
    return getattr(source, "paired", True)


def first_clip(source: Source) -> Clip:
    """The first clip that can be read of the first ATTEMPTS, by which one tells what a source has.

    Raises DamagedClip where none of them can be read.
    """
    for index in range(min(ATTEMPTS, len(source)) - 1):
        with contextlib.suppress(DamagedClip):  # training logs it
            return source[index]
    return source[min(ATTEMPTS, len(source)) - 1]


class Swapped:
    """A source with its two sides swapped: `video` is its input, and `input` its video; without `truth`.

    Raises ValueError for a source without two sides.
    """

    def __init__(self, source: Source):
        if "input" not in first_clip(source):
            raise ValueError(
                f"data.direction is 'BtoA', and {source.summary()} has no two sides: leave it at 'AtoB', or set "
                "data.layout to pairs, side_by_side or two_sides"
            )
        self.classes, self.paired, self._source = source.classes, is_paired(source), source
        self.sha256 = hashlib.sha256(f"BtoA {getattr(source, 'sha256', '')}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        clip = {name: value for name, value in self._source[index].items() if name != "truth"}
        return {**clip, "input": clip["video"], "video": clip["input"]}

    def summary(self) -> str:
        """See `Source.summary`."""
        return f"{self._source.summary()}, from B to A"


class WithImages:
    """A source each of whose clips has an `image` [1,h,w,3] beside it, of another source: of any scene.

    It is as long as the longer of both, and goes through the other again.
    """

    def __init__(self, source: Source, images: Source):
        self.classes, self.paired, self._source, self._images = source.classes, is_paired(source), source, images
        digests = [getattr(each, "sha256", "") for each in (source, images)]
        self.sha256 = hashlib.sha256(" with ".join(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return max(len(self._source), len(self._images))

    def __getitem__(self, index: int) -> Clip:
        clip = self._source[index % len(self._source)]
        return {**clip, "image": self._images[index % len(self._images)]["video"]}

    def summary(self) -> str:
        """See `Source.summary`."""
        return f"{self._source.summary()}, with images: {self._images.summary()}"


class DamagedClip(ValueError):
    """A clip that cannot be read; the pipeline logs its file once and takes another clip."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Damaged:
    """The damaged files found so far: path -> reason. Safe to share between threads; each file is logged once."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.files)

    def add(self, error: DamagedClip) -> None:
        """Adds the file of a damaged clip."""
        with self._lock:
            known = error.path in self.files
            self.files[error.path] = error.reason
        if not known:
            logging.warning("Damaged clip, replaced by another: %s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        return Damaged, ()  # each worker process has its own


class Batches(Iterator[Clip], AbstractContextManager["Batches"]):
    """Batches, and the threads or worker processes that make them; these end with `close`, `with`, or any exception.

    `damaged` holds the damaged files found so far (`len(damaged)`, `damaged.files`). Worker processes keep their own:
    with workers > 0 this one stays empty, and the workers log the files.
    """

    def __init__(self, iterator: Iterator[Clip], damaged: Damaged):
        self.damaged, self._iterator = damaged, iterator

    def __next__(self) -> Clip:
        try:
            batch = next(self._iterator)
        except BaseException:
            self.close()
            raise
        return {key: np.asarray(value) for key, value in batch.items()}

    def close(self) -> None:
        """Ends the threads or worker processes; there are no further batches."""
        iterator, self._iterator = self._iterator, iter(())
        if hasattr(iterator, "close"):
            iterator.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def train_batches(
    source: Source,
    batch_size: int,
    resolution: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless batches: reshuffled each epoch, every clip once per epoch, a seeded random crop for each clip.

    Args:
      source: the clips.
      batch_size: rows of a global batch. Process p of P gets the rows [p*B/P, (p+1)*B/P) of each.
      resolution: height and width of the crops.
      seed: of order, crops and substitutes.
      start: number of the first batch; nothing before it is read.
      workers: worker processes; 0 means threads in this process, which suffice if decoding releases the GIL.
      threads: threads when workers is 0; None for two per core, at most 16; 0 reads in the caller's thread.
      process_index, process_count: p and P, 0 <= p < P.

    Returns dicts of C-contiguous arrays: `video` uint8 [B/P,T,resolution,resolution,3] and the source's other keys.
    Raises ValueError at once for arguments out of range, and while iterating for clips that cannot be batched, or for
    too many damaged ones.
    """
    reader = _Reader(source, batch_size, resolution, process_index, process_count, Damaged(), seed)
    return _batches(reader, start, workers, threads)


def eval_batches(
    source: Source,
    batch_size: int,
    resolution: int,
    examples: int,
    workers: int = 0,
    threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle: bool = True,
) -> Batches:
    """`examples` clips (or all, if fewer), always the same in the same order, center-cropped, in full batches.

    As train_batches, with `mask` float32 [B/P]: 0 for repeated clips that fill the last batch and for substitutes of
    damaged clips, so that no clip counts twice; 1 for all others. Without `shuffle` they come in the source's order.
    """
    # Shuffled, since a folder's clips are sorted by class and file: so any part of them is a sample of the whole.
    examples = min(examples, len(source))
    shares = (process_index, process_count)
    reader = _Reader(source, batch_size, resolution, *shares, Damaged(), 0, examples, shuffle)
    return _batches(reader, 0, workers, threads)


def _batches(reader: "_Reader", start: int, workers: int, threads: int | None) -> Batches:
    """This process's share of the reader's clips, from batch `start` on, read ahead by grain."""
    import grain  # not at the top: grain imports JAX

    source, batch_size = reader.source, reader.batch_size
    if batch_size < 1 or batch_size % reader.process_count:
        raise ValueError(f"a batch of {batch_size} cannot be shared equally by {reader.process_count} processes")
    if not 0 <= reader.process_index < reader.process_count:
        raise ValueError(f"process_index is {reader.process_index}, expected 0 to {reader.process_count - 1}")
    if len(source) == 0:
        raise ValueError(f"there is no clip to read: {source.summary()}")
    rows = batch_size // reader.process_count
    stop = 2**62 if reader.examples is None else -(-reader.examples // batch_size) * rows
    clips = grain.MapDataset.range(start * rows, stop).map(reader.clip_at)
    stack = functools.partial(_stack, name=source.summary())
    leave_if_rerun()
    if workers == 0:
        threads = min(16, 2 * (os.cpu_count() or 1)) if threads is None else threads
        # Threads share the clips of a batch: memory is about three batches for any number of threads.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2 * rows))
        return Batches(iter(clips.to_iter_dataset(options).batch(rows, batch_fn=stack)), reader.damaged)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv[:1])  # grain reads flags to start workers; outside app.run they are not parsed
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    batches = clips.batch(rows, batch_fn=stack).to_iter_dataset(options)
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1))
    return Batches(_ignoring_interrupts(batches, reader.process_count > 1), reader.damaged)


def _ignoring_interrupts(batches: Iterable[Clip], several: bool) -> Iterator[Clip]:
    """Batches of worker processes that ignore what a terminal sends to them too: this process ends them.

    Where it is one of `several`, which have to agree on their last step, they ignore what a cluster sends as well.

    Raises ValueError where one of them dies.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # inherited by processes that start
    sys.warnoptions.append("ignore:resource_tracker")  # which counts at length what a dead worker leaves behind
    resource_tracker.ensure_running()  # otherwise it starts with the workers, and unblocks the next signal
    sys.warnoptions.pop()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *([signal.SIGTERM] if several else [])})
    iterator: Any = iter(batches)
    try:
        try:
            first = next(iterator)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield first
        yield from iterator
    except RuntimeError as error:
        if not (ended := re.search(r"Worker process was terminated unexpectedly with exit code (-?\d+)", str(error))):
            raise
        raise ValueError(_why_a_worker_ended(int(ended[1]))) from None
    finally:
        iterator.close()


def leave_if_rerun() -> None:
    """Ends a worker process that runs the script of its user, as it does on its way where nothing guards the script.

    It would train by itself, and start workers of its own. The process that started it says so.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself asks
        os._exit(UNGUARDED)


def _why_a_worker_ended(code: int) -> str:
    """The sentence for an exit code, which is negative after a signal."""
    if code == UNGUARDED:
        return (
            "worker processes of the data run your script too, up to where it trains: put that part under "
            '`if __name__ == "__main__":`, or set train.workers=0.'
        )
    if code >= 0:
        return f"a worker process of the data ended with exit code {code}, and said why: train.workers=0 needs none."
    number, name = -code, signal.Signals(-code).name
    if number == signal.SIGBUS:
        return (
            f"a worker process of the data died of {name}: /dev/shm, which workers pass batches through, is full, "
            "as in many containers; start yours with --shm-size=8g, or set train.workers=0."
        )
    memory = ", most likely for want of memory" if number == signal.SIGKILL else ""
    return f"a worker process of the data died of {name}{memory}: lower train.workers; 0 uses threads alone."


@functools.lru_cache(maxsize=4)  # threads may be reading the end of the previous epoch, and evaluation has its own
def shuffled(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `length` clips in an epoch, uint32 [length]."""
    # grain's index_shuffle takes milliseconds per call for a source of few clips.
    return np.random.default_rng([seed, epoch]).permutation(length).astype(np.uint32)


class _Reader(NamedTuple):
    """What gives each clip of this process's share of a stream."""

    source: Source
    batch_size: int
    resolution: int
    process_index: int
    process_count: int
    damaged: Damaged
    seed: int
    examples: int | None = None  # of evaluation; None for training
    shuffle: bool = True

    def clip_at(self, number: int) -> Clip:
        rows = self.batch_size // self.process_count
        position = number // rows * self.batch_size + self.process_index * rows + number % rows
        place = position if self.examples is None else position % self.examples
        epoch, place = divmod(place, len(self.source))
        index = int(shuffled(len(self.source), self.seed, epoch)[place]) if self.shuffle else place
        if self.examples is None:
            rng = np.random.default_rng([self.seed, position, 1])  # 1: not the stream of the shuffle of that epoch
            clip, _ = self.read(index, rng)
            return random_crop(clip, self.resolution, rng, is_paired(self.source)) if "video" in clip else clip
        clip, replaced = self.read(index, np.random.default_rng(position))
        mask = np.float32(position < self.examples and not replaced)
        return center_crop(clip, self.resolution, is_paired(self.source)) | {"mask": np.asarray(mask)}

    def read(self, index: int, rng: np.random.Generator) -> tuple[Clip, bool]:
        """Clip `index`, or a readable one among ATTEMPTS - 1 others drawn from `rng`, and whether it was replaced."""
        for attempt in range(ATTEMPTS):
            try:
                clip = self.source[index]
            except DamagedClip as error:
                self.damaged.add(error)
                last = error
                index = int(rng.integers(len(self.source)))
            else:
                self.check(clip, index)
                return clip, attempt > 0
        raise ValueError(f"{ATTEMPTS} damaged clips in a row in {self.source.summary()}; the last one is {last}")

    def check(self, clip: Clip, index: int) -> None:
        needed = [] if "tokens" in clip else ["video"]
        for key in needed + [key for key in ("input", "truth", "image") if key in clip]:
            video = np.asarray(clip.get(key))
            shape, least = video.shape, self.resolution
            if video.dtype != np.uint8 or video.ndim != 4 or shape[-1] != 3 or min(shape[1:3]) < least:
                found = f"{video.dtype} {list(shape)}" if key in clip else "missing"
                expected = f"uint8 [T,h,w,3] with h and w of at least {least}"
                raise ValueError(f"{key!r} of clip {index} is {found}, expected {expected}, in {self.source.summary()}")


def _stack(clips: Sequence[Clip], name: str) -> Clip:
    """Clips as one batch; strings are padded to the longest."""
    batch = {}
    for key in dict.fromkeys(key for clip in clips for key in clip):
        if any(key not in clip for clip in clips):
            raise ValueError(f"some clips have {key!r} and others do not, in {name}")
        values = [np.asarray(clip[key]) for clip in clips]
        kinds = sorted({f"{'str' if value.dtype.kind == 'U' else value.dtype} {value.shape}" for value in values})
        if len(kinds) > 1:
            raise ValueError(f"clips differ in {key!r} and cannot share a batch ({' and '.join(kinds)}), in {name}")
        batch[key] = np.stack(values)
    return batch
