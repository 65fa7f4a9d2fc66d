"""One pass over held-out clips: means, histograms and pictures of whatever a method's `eval_step` returns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvid import parallel
from jaxvid.core import Batch, Method, Metrics, TrainState
from jaxvid.evaluate.suite import CLASSES, PAIRED, Features, Meter, Score, paired_scores
from jaxvid.pixels import to_uint8

SEED = 0  # of the noise in evaluations: the same for every run


class Evaluation(NamedTuple):
    """What one pass found.

    scalars: {name: mean over the examples}; for each histogram `<name>_used` (the share of its K bins that are not
      empty) and `<name>_perplexity` (exp of its entropy; K when all are equally full).
    histograms: {name: counts [K]} over all examples.
    profiles: {name: mean over the examples that are not nan there [K]}; nan where all are.
    videos: {name: [N,T,H,W,C]} of the first batch, "original" first, padding left out.
    """

    scalars: dict[str, float]
    histograms: dict[str, np.ndarray]
    profiles: dict[str, np.ndarray]
    videos: dict[str, np.ndarray]


def make_eval(eval_step: Callable[[TrainState, Batch, jax.Array], Metrics], mesh: Mesh) -> Callable:
    """(state, batch, batch's index) -> (examples, sums of what is averaged or counted, videos), over the mesh."""

    def step(state: TrainState, batch: Batch, index: jax.Array) -> tuple[jax.Array, Metrics, Metrics]:
        values = eval_step(state, batch, jax.random.fold_in(jax.random.key(SEED), index))
        mask = batch["mask"]
        sums = {name: masked_sum(value, mask) for name, value in values.items() if value.ndim <= 2}
        return mask.sum(), sums, {name: value for name, value in values.items() if value.ndim == 5}

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, rows, whole),
        out_shardings=(whole, whole, rows),
        compiler_options=parallel.compiler_options(),
    )


def masked_sum(value: jax.Array, mask: jax.Array) -> jax.Array:
    """Over the examples that count: the sum [] of [B]; counts [K] of integers [B,K]; of floats [B,K] the sums and the
    numbers of those that are not nan, [2,K].
    """
    if value.ndim == 1:
        return jnp.sum(value * mask)
    counted = mask[:, None] > 0  # counts times a mask of floats would be exact only up to 2^24
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jnp.sum(jnp.where(counted, value, 0), 0)
    counted &= ~jnp.isnan(value)
    return jnp.stack([jnp.sum(jnp.where(counted, value, 0), 0), counted.sum(0).astype(value.dtype)])


def evaluate(step: Callable, state: TrainState, batches: Iterable[dict], mesh: Mesh) -> Evaluation:
    """Runs a step from `make_eval` over all batches of `data.eval_batches`.

    The result does not depend on the number of devices: rows that pad the last batch count for nothing.
    """
    sums: dict[str, np.ndarray] = {}
    wide = {"i": np.int64, "u": np.int64, "f": np.float64}
    count = 0.0
    videos: dict[str, np.ndarray] = {}
    for index, batch in enumerate(batches):
        examples, found, drawn = step(state, parallel.put_batch(batch, mesh), np.uint32(index))
        examples, found = jax.device_get((examples, found))
        count += float(examples)
        sums = {name: sums.get(name, 0) + value.astype(wide[value.dtype.kind]) for name, value in found.items()}
        if index == 0:
            real = batch["mask"] > 0
            videos = {"original": batch["video"][real]} | {name: _local(v)[real] for name, v in drawn.items()}
    scalars = {name: float(value) / count for name, value in sums.items() if value.ndim == 0}
    histograms = {name: value for name, value in sums.items() if value.ndim == 1}
    with np.errstate(invalid="ignore"):
        profiles = {name: value[0] / value[1] for name, value in sums.items() if value.ndim == 2}
    for name, counts in histograms.items():
        share = counts[counts > 0] / counts.sum()
        scalars[f"{name}_used"] = float(np.mean(counts > 0))
        scalars[f"{name}_perplexity"] = float(np.exp(-np.sum(share * np.log(share))))
    return Evaluation(scalars, histograms, profiles, videos)


class Scorer:
    """Scores of a state's samples, and of its reconstructions, against the held-out clips.

    Args:
      metrics: names in `suite.METRICS`.
      method: made without a mapped axis.
      batches: makes the batches of `data.eval_batches` anew. The features of their videos are computed once.
      mesh: of one process.
      meter: of these metrics.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        method: Method,
        batches: Callable[[], AbstractContextManager[Iterator[dict]]],
        mesh: Mesh,
        meter: Meter,
    ):
        self._metrics, self._batches, self._mesh, self._meter = metrics, batches, mesh, meter

        def sample(state: TrainState, batch: Batch, key: jax.Array) -> jax.Array:
            return method.sample(state, batch, parallel.example_keys(key, len(batch["video"])))

        def reconstruct(state: TrainState, batch: Batch, key: jax.Array) -> jax.Array:
            values = method.eval_step(state, batch, key)
            if "reconstruction" not in values:
                raise ValueError("psnr and ssim are of reconstructions, and this method makes none: leave them out.")
            return values["reconstruction"]

        self._sample, self._reconstruct = _drawing(sample, mesh), _drawing(reconstruct, mesh)

    def __call__(self, state: TrainState) -> list[Score]:
        """All scores of a state."""
        return self.samples(state) + self.reconstructions(state)

    def samples(self, state: TrainState) -> list[Score]:
        """Scores of one sample for each held-out clip, under the clip's own conditions."""
        return self._compare(self._drawn(self._sample, state)) if self._meter.taps else []

    def reconstructions(self, state: TrainState) -> list[Score]:
        """Scores of the metrics that compare pairs."""
        if not set(self._metrics) & set(PAIRED):
            return []
        pairs = ((batch["video"], drawn) for batch, drawn in self._drawn(self._reconstruct, state))
        return paired_scores(self._metrics, pairs)

    def real_clips(self, batches: Iterable[dict]) -> list[Score]:
        """Scores of other real clips in the place of samples, which no generator should be expected to beat."""
        rows = (_without_padding(batch) for batch in batches if batch["mask"].any())
        return self._compare((batch, batch["video"]) for batch in rows) if self._meter.taps else []

    @functools.cached_property
    def _real(self) -> Features:
        with self._batches() as held_out:
            return self._meter.features(_without_padding(batch)["video"] for batch in held_out)

    def _compare(self, pairs: Iterable[tuple[dict, np.ndarray]]) -> list[Score]:
        """Scores of clips uint8 [B,T,H,W,3], each batch behind the one whose labels were asked for."""
        asked: list[np.ndarray] = []

        def clips() -> Iterator[np.ndarray]:
            for batch, made in pairs:
                if CLASSES in self._meter.taps:
                    asked.append(batch["label"])
                yield made

        fake, real = self._meter.features(clips()), self._real
        return self._meter.scores({**real, CLASSES: np.concatenate(asked)[:, None, None]} if asked else real, fake)

    def _drawn(self, draw: Callable, state: TrainState) -> Iterator[tuple[dict, np.ndarray]]:
        """Batches without their padding, and what is drawn for them, uint8."""
        with self._batches() as held_out:
            for index, batch in enumerate(held_out):
                drawn = np.asarray(draw(state, parallel.put_batch(batch, self._mesh), np.uint32(index)))
                yield _without_padding(batch), to_uint8(drawn[batch["mask"] > 0])


def _without_padding(batch: dict) -> dict:
    return {name: rows[batch["mask"] > 0] for name, rows in batch.items()}


def _drawing(draw: Callable[[TrainState, Batch, jax.Array], jax.Array], mesh: Mesh) -> Callable:
    """(state, batch, batch's index) -> videos [B,T,H,W,C] in [-1, 1], over the mesh."""

    def step(state: TrainState, batch: Batch, index: jax.Array) -> jax.Array:
        return draw(state, batch, jax.random.fold_in(jax.random.key(SEED), index))

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return jax.jit(
        step, in_shardings=(whole, rows, whole), out_shardings=rows, compiler_options=parallel.compiler_options()
    )


def _local(array: jax.Array) -> np.ndarray:
    """This process's rows of a sharded batch."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([jax.device_get(shard.data) for shard in shards])
