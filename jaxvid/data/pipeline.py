"""From a source of clips to batches: shuffled, cropped, sharded over processes, and resumable at any step.

Every clip of a stream is a pure function of (source, seed, position), so that batches depend neither on threads nor on
worker processes nor on the number of hosts, and a run resumes at step k without reading the clips before it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, Protocol

import numpy as np
from absl import flags, logging

from jaxvid.data.augment import center_crop, random_crop

Clip = dict[str, np.ndarray]

ATTEMPTS = 16  # clips tried for one row of a batch before a source counts as broken


class Source(Protocol):
    """Clips by index: item `i` is a pure function of the source's settings and `i`.

    An item holds `video` uint8 [T,h,w,3] (an image is T=1; h and w may exceed the resolution, since clips are cropped),
    `label` int32 [], `text` str [], and, where the source has them, `action` float32 [T,A] and `input` uint8 [T,h,w,3]
    (the clip that is to be translated to `video`). An item that cannot be read raises DamagedClip. A source that knows
    its texts without reading clips may list them as `texts`.
    """

    classes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def summary(self) -> str:
        """One line: the kind of source, number of clips, frames x resolution, classes, and what was skipped."""
        ...


class DamagedClip(ValueError):
    """A clip that cannot be read; the pipeline logs its file once and takes another clip."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

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


class Batches(Iterator[Clip]):
    """Batches, and the threads or worker processes that make them; these end with `close`, `with`, or any exception.

    Attributes:
      damaged: the damaged files found so far (`len(damaged)`, `damaged.files`). Worker processes keep their own: with
        workers > 0 this one stays empty, and the workers log the files.
    """

    def __init__(self, iterator: Iterator[Clip], damaged: Damaged):
        self.damaged = damaged
        self._iterator: Iterator[Clip] = iterator

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

    def __enter__(self) -> Batches:
        return self

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
      process_index: this process, 0 <= p < process_count.
      process_count: processes that share each batch.

    Returns:
      Dicts of C-contiguous arrays: `video` uint8 [B/P,T,resolution,resolution,3] and the source's other keys.

    Raises:
      ValueError: at once, for arguments out of range; while iterating, for clips that cannot be batched, or for too
        many damaged ones.
    """
    damaged = Damaged()
    order = _Order(len(source), seed)
    clip_at = functools.partial(
        _training_clip, source=source, order=order, resolution=resolution, seed=seed, damaged=damaged
    )
    shares = _shares(batch_size, process_index, process_count)
    return _batches(source, clip_at, shares, start, sys.maxsize // batch_size, workers, threads, damaged)


def eval_batches(
    source: Source,
    batch_size: int,
    resolution: int,
    examples: int,
    workers: int = 0,
    threads: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """`examples` clips (or all, if fewer), always the same in the same order, center-cropped, in full batches.

    As train_batches, with `mask` float32 [B/P]: 0 for repeated clips that fill the last batch and for substitutes of
    damaged clips, so that no clip counts twice; 1 for all others.
    """
    examples = min(examples, len(source))
    damaged = Damaged()
    # Shuffled, since a folder's clips are sorted by class and file: so any part of them is a sample of the whole.
    order = _Order(len(source), seed=0)
    clip_at = functools.partial(
        _evaluation_clip, source=source, order=order, resolution=resolution, examples=examples, damaged=damaged
    )
    shares = _shares(batch_size, process_index, process_count)
    return _batches(source, clip_at, shares, 0, -(-examples // batch_size), workers, threads, damaged)


def _shares(batch_size: int, process_index: int, process_count: int) -> tuple[int, Callable[[int], int]]:
    """Rows of one process in a batch, and its i-th clip's position in the stream of all processes."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"a batch of {batch_size} cannot be shared equally by {process_count} processes")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, expected 0 to {process_count - 1}")
    rows = batch_size // process_count

    def position(index: int) -> int:
        batch, row = divmod(index, rows)
        return batch * batch_size + process_index * rows + row

    return rows, position


def _batches(
    source: Source,
    clip_at: Callable[[int], Clip],
    shares: tuple[int, Callable[[int], int]],
    start: int,
    stop: int,
    workers: int,
    threads: int | None,
    damaged: Damaged,
) -> Batches:
    """Batches start..stop of this process's share of `clip_at(0), clip_at(1), ...`, read ahead by grain."""
    import grain  # not at the top: grain imports JAX

    if len(source) == 0:
        raise ValueError(f"there is no clip to read: {source.summary()}")
    rows, position = shares
    clips = grain.MapDataset.range(start * rows, stop * rows).map(position).map(clip_at)
    stack = functools.partial(_stack, name=source.summary())
    if workers == 0:
        threads = min(16, 2 * (os.cpu_count() or 1)) if threads is None else threads
        # Threads share the clips of a batch: memory is about three batches for any number of threads.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2 * rows))
        return Batches(iter(clips.to_iter_dataset(options).batch(rows, batch_fn=stack)), damaged)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv[:1])  # grain reads flags to start workers; outside app.run they are not parsed
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    batches = clips.batch(rows, batch_fn=stack).to_iter_dataset(options)
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1))
    return Batches(_ignoring_interrupts(batches), damaged)


def _ignoring_interrupts(batches: Iterable[Clip]) -> Iterator[Clip]:
    """Batches of worker processes that ignore Ctrl-C: a terminal sends it to them too, but this process ends them."""
    resource_tracker.ensure_running()  # otherwise it starts with the workers, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by processes that start
    try:
        iterator: Any = iter(batches)
        first = next(iterator)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield first
        yield from iterator
    finally:
        iterator.close()


class _Order:
    """A new shuffle of `length` clips in each epoch: the clip at any position of an endless stream."""

    def __init__(self, length: int, seed: int):
        self._arguments = length, seed
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getitem__(self, position: int) -> int:
        length, seed = self._arguments
        epoch, place = divmod(position, length)
        with self._lock:
            if epoch not in self._epochs:
                while len(self._epochs) > 1:  # two are kept: threads may be reading the end of the previous epoch
                    del self._epochs[min(self._epochs)]
                # grain's index_shuffle takes milliseconds per call for a source of few clips.
                self._epochs[epoch] = np.random.default_rng([seed, epoch]).permutation(length).astype(np.uint32)
            return int(self._epochs[epoch][place])

    def __reduce__(self) -> tuple[Any, ...]:
        return _Order, self._arguments


def _training_clip(position: int, source: Source, order: _Order, resolution: int, seed: int, damaged: Damaged) -> Clip:
    rng = np.random.default_rng([seed, position, 1])  # 1: another stream than that of the shuffle of epoch `position`
    clip, _ = _read(source, order[position], resolution, rng, damaged)
    return random_crop(clip, resolution, rng)


def _evaluation_clip(
    position: int, source: Source, order: _Order, resolution: int, examples: int, damaged: Damaged
) -> Clip:
    index = order[position % examples]
    clip, substituted = _read(source, index, resolution, np.random.default_rng(position), damaged)
    mask = np.float32(position < examples and not substituted)
    return center_crop(clip, resolution) | {"mask": np.asarray(mask)}


def _read(source: Source, index: int, resolution: int, rng: np.random.Generator, damaged: Damaged) -> tuple[Clip, bool]:
    """Clip `index`, or a readable one among ATTEMPTS - 1 others drawn from `rng`, and whether it was replaced."""
    for attempt in range(ATTEMPTS):
        try:
            clip = source[index]
        except DamagedClip as error:
            damaged.add(error)
            last = error
            index = int(rng.integers(len(source)))
        else:
            _check(clip, resolution, index, source)
            return clip, attempt > 0
    raise ValueError(f"{ATTEMPTS} damaged clips in a row in {source.summary()}; the last one is {last}")


def _check(clip: Clip, resolution: int, index: int, source: Source) -> None:
    for key in ["video", "input"] if "input" in clip else ["video"]:
        video = np.asarray(clip.get(key))
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or min(video.shape[1:3]) < resolution:
            found = f"{video.dtype} {list(video.shape)}" if key in clip else "missing"
            expected = f"uint8 [T,h,w,3] with h and w of at least {resolution}"
            raise ValueError(f"{key!r} of clip {index} is {found}, expected {expected}, in {source.summary()}")


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
