"""Scores of the videos that a method makes of held-out clips."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvid import parallel
from jaxvid.core import Batch, Method, TrainState
from jaxvid.evaluate.heldout import noise_key
from jaxvid.evaluate.meter import Features, Meter
from jaxvid.evaluate.suite import CLASSES, Score
from jaxvid.pixels import to_uint8


class Scorer:
    """Scores of the videos that a method makes of held-out clips.

    Metrics of sets judge its samples, each made under the conditions of a held-out clip, or its reconstructions where
    it makes no samples (a Frechet video distance is then called rFVD). Metrics of pairs compare its reconstructions
    with their originals.

    Args:
      meter: of the metrics.
      method: made without a mapped axis.
      batches: makes the batches of `data.eval_batches` anew. The features of their videos are computed once.
      mesh: of one process.

    Raises:
      ValueError: the method does not make the videos that a metric judges.
    """

    def __init__(
        self, meter: Meter, method: Method, batches: Callable[[], AbstractContextManager[Iterator[dict]]], mesh: Mesh
    ):
        sample, reconstruct = method.sample, method.reconstruct
        if meter.of_pairs and reconstruct is None:
            names = " and ".join(meter.of_pairs)
            raise ValueError(f"{names} compare reconstructions, and this method makes none: leave them out.")
        if meter.of_sets and sample is None and reconstruct is None:
            names = " and ".join(meter.of_sets)
            raise ValueError(
                f"{names} judge samples or reconstructions, and this method makes neither: leave them out."
            )
        self._meter, self._batches, self._mesh = meter, batches, mesh
        self._reconstruct = reconstruct and _drawing(lambda state, batch, keys: reconstruct(state, batch), mesh)
        self._generate = _drawing(sample, mesh) if sample else self._reconstruct
        self._generated = "samples" if sample else "reconstructions"

    def __call__(self, state: TrainState) -> list[Score]:
        """All scores of a state."""
        scores = self._of_sets(self._drawn(self._generate, state), self._generated)
        if self._meter.of_pairs:
            pairs = ((batch["video"], made) for batch, made in self._drawn(self._reconstruct, state))
            scores += _of(self._meter.paired_scores(pairs), "reconstructions")
        return scores

    def references(self, untrained: TrainState, others: Iterable[dict]) -> list[Score]:
        """Scores of an untrained state's videos, and of other real clips, which no generator is expected to beat."""
        real = ((batch, batch["video"]) for batch in map(_without_padding, others) if len(batch["video"]))
        compared = {f"untrained {self._generated}": self._drawn(self._generate, untrained), "other real clips": real}
        return [
            score._replace(name=f"{score.name} of {what}")
            for what, pairs in compared.items()
            for score in self._of_sets(pairs, what)
        ]

    @functools.cached_property
    def _real(self) -> Features:
        with self._batches() as held_out:
            return self._meter.features(_without_padding(batch)["video"] for batch in held_out)

    def _of_sets(self, pairs: Iterable[tuple[dict, np.ndarray]], what: str) -> list[Score]:
        """Scores of generated clips uint8 [B,T,H,W,3], each batch with the held-out one whose conditions it has."""
        if not self._meter.of_sets:
            return []
        asked: list[np.ndarray] = []

        def clips() -> Iterator[np.ndarray]:
            for batch, made in pairs:
                if CLASSES in self._meter.taps:
                    asked.append(batch["label"])
                yield made

        fake, real = self._meter.features(clips()), self._real
        if asked:
            real = {**real, CLASSES: np.concatenate(asked)[:, None, None]}
        return _of(self._meter.scores(real, fake), what)

    def _drawn(self, draw: Callable | None, state: TrainState) -> Iterator[tuple[dict, np.ndarray]]:
        """Batches without their padding, and what is drawn for them, uint8."""
        assert draw is not None
        with self._batches() as held_out:
            for index, batch in enumerate(held_out):
                drawn = np.asarray(draw(state, parallel.put_batch(batch, self._mesh), np.uint32(index)))
                yield _without_padding(batch), to_uint8(drawn[batch["mask"] > 0])


def _of(scores: Iterable[Score], what: str) -> list[Score]:
    """Scores with a note of what they judge."""
    return [score._replace(details={**score.details, "generated": what}) for score in scores]


def _without_padding(batch: dict) -> dict:
    return {name: rows[batch["mask"] > 0] for name, rows in batch.items()}


def _drawing(draw: Callable[[TrainState, Batch, jax.Array], jax.Array], mesh: Mesh) -> Callable:
    """(state, batch, batch's index) -> videos [B,T,H,W,C] in [-1, 1], over the mesh."""

    def step(state: TrainState, batch: Batch, index: jax.Array) -> jax.Array:
        return draw(state, batch, parallel.example_keys(noise_key(index), len(batch["video"])))

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return jax.jit(
        step, in_shardings=(whole, rows, whole), out_shardings=rows, compiler_options=parallel.compiler_options()
    )
