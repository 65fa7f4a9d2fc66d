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
from jaxvid.measure import PAIRED, Features, Meter, Score, paired_scores

SEED = 0  # of the noise in evaluations: the same for every run


class Evaluation(NamedTuple):
    """What one pass found.

    scalars: {name: mean over the examples}; for each histogram `<name>_used` (the share of its K bins that are not
      empty) and `<name>_perplexity` (exp of its entropy; K when all are equally full).
    histograms: {name: counts [K]} over all examples.
    profiles: {name: mean over the examples [K]}.
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
        # Counts times a mask of floats would be exact only up to 2^24.
        sums = {
            name: jnp.sum(value * mask) if value.ndim == 1 else jnp.sum(jnp.where(mask[:, None] > 0, value, 0), 0)
            for name, value in values.items()
            if value.ndim <= 2
        }
        return mask.sum(), sums, {name: value for name, value in values.items() if value.ndim == 5}

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, rows, whole),
        out_shardings=(whole, whole, rows),
        compiler_options=parallel.compiler_options(),
    )


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
    histograms = {name: value for name, value in sums.items() if value.ndim == 1 and value.dtype.kind == "i"}
    profiles = {name: value / count for name, value in sums.items() if value.ndim == 1 and value.dtype.kind == "f"}
    for name, counts in histograms.items():
        share = counts[counts > 0] / counts.sum()
        scalars[f"{name}_used"] = float(np.mean(counts > 0))
        scalars[f"{name}_perplexity"] = float(np.exp(-np.sum(share * np.log(share))))
    return Evaluation(scalars, histograms, profiles, videos)


def make_scorer(
    metrics: Sequence[str],
    method: Method,
    batches: Callable[[], AbstractContextManager[Iterator[dict]]],
    mesh: Mesh,
    meter: Meter,
) -> Callable[[TrainState], list[Score]]:
    """A function from a state to the scores of its samples, and of its reconstructions, against the held-out clips.

    Args:
      metrics: names in `measure.METRICS`.
      method: made without a mapped axis.
      batches: makes the batches of `data.eval_batches` anew. The features of their videos are computed once.
      mesh: of one process.
      meter: of these metrics.
    """

    def draw(state: TrainState, batch: Batch, key: jax.Array) -> jax.Array:
        return method.sample(state, batch, parallel.example_keys(key, len(batch["video"])))

    sample = _drawing(draw, mesh)

    def reconstruction(state: TrainState, batch: Batch, key: jax.Array) -> jax.Array:
        values = method.eval_step(state, batch, key)
        if "reconstruction" not in values:
            raise ValueError("psnr and ssim are of reconstructions, and this method makes none: leave them out.")
        return values["reconstruction"]

    reconstruct = _drawing(reconstruction, mesh)

    def real() -> Iterator[np.ndarray]:
        with batches() as held_out:
            for batch in held_out:
                yield batch["video"][batch["mask"] > 0]

    def fake(draw: Callable, state: TrainState) -> Iterator[np.ndarray]:
        with batches() as held_out:
            for index, batch in enumerate(held_out):
                drawn = np.asarray(draw(state, parallel.put_batch(batch, mesh), np.uint32(index)))
                yield np.round((drawn[batch["mask"] > 0].clip(-1, 1) + 1) * 127.5).astype(np.uint8)

    @functools.cache
    def real_features() -> Features:
        return meter.features(real())

    def score(state: TrainState) -> list[Score]:
        scores = meter.scores(real_features(), meter.features(fake(sample, state))) if meter.taps else []
        if set(metrics) & set(PAIRED):
            scores += paired_scores(metrics, zip(real(), fake(reconstruct, state), strict=True))
        return scores

    return score


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
