"""Held-out clips: means, histograms and panels of a method's `eval_step`, and scores of its videos."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import global_array_to_host_local_array
from jax.sharding import Mesh, PartitionSpec

from jaxvid import parallel
from jaxvid.core import Batch, Evaluated, Method, Profile, TrainState, own_labels
from jaxvid.data import Source, first_clip, is_paired
from jaxvid.evaluate.meter import Features, Meter
from jaxvid.evaluate.suite import CLASSES, Score
from jaxvid.pixels import to_uint8
from jaxvid.shapes import expect

LAYOUTS = {"scalars": "[B]", "counts": "[B,K]", "profiles": "[B,K]", "panels": "[B,T,H,W,C]"}  # of Evaluated


class Evaluation(NamedTuple):
    """The result of one pass over held-out clips.

    Attributes:
      scalars: {name: mean over the examples}; for each histogram `<name>_used` (the share of its K bins that are not
        empty), `<name>_entropy` in bits and `<name>_perplexity` (2 to the power of it; K when all are equally full).
      histograms: {name: counts [K]} over all examples.
      profiles: {name: Profile} of means [K] over the examples that are not nan there; nan where all are.
      panels: {name: [N,T,H,W,C]} of the first batch, padding left out.
    """

    scalars: dict[str, float]
    histograms: dict[str, np.ndarray]
    profiles: dict[str, Profile]
    panels: dict[str, np.ndarray]

    def with_scores(self, scores: Iterable[Score]) -> "Evaluation":
        """With the scores among the scalars; where the method has a scalar of that name: `psnr_of_reconstructions`."""
        named = {f"{s.name}_of_{s.details['generated']}" if s.name in self.scalars else s.name: s.value for s in scores}
        return self._replace(scalars=self.scalars | named)


def make_eval(eval_step: Callable[[TrainState, Batch, jax.Array], Evaluated], mesh: Mesh) -> Callable:
    """(state, batch, batch's index) -> (number of examples, their Evaluated), over the mesh.

    Padding left out, scalars [] and counts [K] are summed over the examples, and a profile [2,K] holds the sums and the
    numbers of those that are not nan; panels keep all rows. The first call raises ValueError as `check` does.
    """

    def step(state: TrainState, batch: Batch, index: jax.Array) -> tuple[jax.Array, Evaluated]:
        found = eval_step(state, batch, noise_key(index))
        check(found, len(batch["mask"]))
        real = batch["mask"] > 0

        def total(values: jax.Array, counted: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(counted, values, 0), 0)

        def profile(each: Profile) -> Profile:
            counted = real[:, None] & ~jnp.isnan(each.values)
            values = each.values.astype(jnp.float32)
            return each.replace(values=jnp.stack([total(values, counted), counted.sum(0).astype(jnp.float32)]))

        scalars = {name: total(value.astype(jnp.float32), real) for name, value in found.scalars.items()}
        counts = {name: total(value, real[:, None]) for name, value in found.counts.items()}
        profiles = {name: profile(each) for name, each in found.profiles.items()}
        panels = OrderedDict(found.panels)  # of which jit does not sort the names
        return real.sum(), Evaluated(scalars, counts, profiles, panels)

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return _over(mesh, step, (whole, Evaluated(whole, whole, whole, rows)))  # type: ignore[arg-type]


def check(found: Evaluated, examples: int) -> None:
    """Raises ValueError, which names the entry, for what an `eval_step` may not return of so many examples."""
    if not isinstance(found, Evaluated):
        raise ValueError(f"eval_step returned {type(found).__name__}, expected core.Evaluated.")
    for field, layout in LAYOUTS.items():
        for name, entry in getattr(found, field).items():
            what = f"{name} of eval_step's {field}"
            if isinstance(entry, Profile) != (field == "profiles"):
                raise ValueError(f"{what} is {type(entry).__name__}, but profiles are core.Profile, others are arrays.")
            values = jnp.asarray(entry.values if field == "profiles" else entry)
            expect(layout.replace("B", str(examples)), int if field == "counts" else None, **{what: values})
            if field == "profiles" and len(entry.names) not in (0, values.shape[1]):
                raise ValueError(f"{what} has {len(entry.names)} names for {values.shape[1]} entries.")
    for name in found.counts:
        for taken in {f"{name}_used", f"{name}_entropy", f"{name}_perplexity"} & set(found.scalars):
            raise ValueError(f"eval_step returned scalars {taken}, which is computed from counts {name}: rename one.")


def evaluate(step: Callable, state: TrainState, batches: Iterable[dict], mesh: Mesh) -> Evaluation:
    """Runs a step from `make_eval` over all batches of `data.eval_batches`; of none, the result is empty.

    The result does not depend on the number of devices, nor on the rows that pad the last batch.
    """
    total: Any = Evaluated({})
    count, panels = 0, {}
    for index, batch in enumerate(batches):
        examples, found = step(state, parallel.put_batch(batch, mesh), np.uint32(index))
        if index == 0:
            panels = {name: _own_rows(video, mesh)[batch["mask"] > 0] for name, video in found.panels.items()}
        examples, sums = jax.device_get((examples, found._replace(panels={})))
        sums = jax.tree.map(lambda x: x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), sums)
        total, count = jax.tree.map(np.add, total, sums) if index else sums, count + int(examples)
    scalars = {name: float(value) / count for name, value in total.scalars.items()}
    for name, counts in total.counts.items():
        share = counts[counts > 0] / counts.sum()
        scalars[f"{name}_used"] = float(np.mean(counts > 0))
        scalars[f"{name}_entropy"] = entropy = float(-np.sum(share * np.log2(share)))
        scalars[f"{name}_perplexity"] = 2**entropy
    with np.errstate(invalid="ignore"):
        profiles = {name: each.replace(values=each.values[0] / each.values[1]) for name, each in total.profiles.items()}
    return Evaluation(scalars, dict(total.counts), profiles, panels)


def has_truth(method: Method, source: Source) -> bool:
    """Whether held-out clips hold what `reconstruct` is to be compared with.

    A translation is not compared with `video` where that is of another scene than `input`, or is itself what is
    translated, as by a method whose videos may come from any domain.
    """
    if method.translation is None or "truth" in first_clip(source):
        return True
    return any(method.translation.origins) and is_paired(source)


class Scorer:
    """Scores of the videos that a method makes of held-out clips.

    Metrics of sets judge its samples, each made under the conditions of a held-out clip, or its reconstructions where
    it makes no samples (a Frechet video distance is then called rFVD). Metrics of pairs compare its reconstructions
    with their originals.

    The method is made without a mapped axis. `batches` makes the batches of `data.eval_batches` anew, of this process's
    rows; the features of their videos are computed once. Every process returns the scores of all rows.

    Raises ValueError where the method does not make the videos that a metric judges.
    """

    def __init__(
        self, meter: Meter, method: Method, batches: Callable[[], AbstractContextManager[Iterator[dict]]], mesh: Mesh
    ):
        sample, reconstruct = method.sample, method.reconstruct
        for metrics, able, lacking in (
            (meter.of_pairs, reconstruct, "compare reconstructions, and this method makes none"),
            (meter.of_sets, sample or reconstruct, "judge samples or reconstructions, and this method makes neither"),
        ):
            if metrics and not able:
                raise ValueError(f"{' and '.join(metrics)} {lacking}: leave them out.")
        self._meter, self._batches, self._mesh, self._asked = meter, batches, mesh, method.asked
        self._reconstruct = reconstruct and self._compiled(lambda state, batch, keys: reconstruct(state, batch))
        self._generate = self._compiled(sample) if sample else self._reconstruct
        self._generated = "samples" if sample else "reconstructions"

    def __call__(self, state: TrainState) -> list[Score]:
        """All scores of a state, each with what it judges in `details["generated"]`.

        Those of samples come with those of reconstructions, which samples decoded alike are not expected to beat.
        """
        scores = self._of_sets(self._drawn(self._generate, state), self._generated)
        if self._reconstruct and self._generate is not self._reconstruct:
            floor = self._of_sets(self._drawn(self._reconstruct, state), "reconstructions")
            scores += [score._replace(name=f"{score.name} of reconstructions") for score in floor]
        if self._meter.of_pairs:
            drawn = self._drawn(self._reconstruct, state)
            pairs = ((batch.get("truth", batch["video"]), made) for batch, made in drawn)
            scores += self._meter.paired_scores(pairs, generated="reconstructions")
        return scores

    def references(self, untrained: TrainState, others: Iterable[dict]) -> list[Score]:
        """Scores of an untrained state's videos, and of other real clips, which no generator is expected to beat."""
        real = ((batch, batch["video"]) for batch in map(_without_padding, others) if len(batch["video"]))
        made, what = self._drawn(self._generate, untrained), f"untrained {self._generated}"
        compared = {what: self._of_sets(made, what), "other real clips": self._of_sets(real, "other real clips", True)}
        named = [(score, what) for what, scores in compared.items() for score in scores]
        return [score._replace(name=f"{score.name} of {what}") for score, what in named]

    @functools.cached_property
    def _real(self) -> Features:
        with self._batches() as held_out:
            return self._meter.features(_without_padding(batch)["video"] for batch in held_out)

    def _of_sets(self, pairs: Iterable[tuple[dict, np.ndarray]], what: str, real: bool = False) -> list[Score]:
        """Scores of generated clips uint8 [B,T,H,W,3], each batch with the held-out one whose conditions it has.

        Real ones show the labels of their batch, and others those that the method was asked for.
        """
        if not self._meter.of_sets:
            return []
        labels: list[Any] = []

        def clips() -> Iterator[np.ndarray]:
            for batch, made in pairs:
                labels.append(own_labels(batch) if real else self._asked(batch))
                yield made

        fake, held_out = self._meter.features(clips()), self._real
        if CLASSES in self._meter.taps:
            held_out = {**held_out, CLASSES: np.concatenate(labels)[:, None, None]}
        return self._meter.scores(held_out, fake, generated=what)

    def _drawn(self, draw: Any, state: TrainState) -> Iterator[tuple[dict, np.ndarray]]:
        """Batches without their padding, and what is drawn for them, uint8."""
        with self._batches() as held_out:
            for index, batch in enumerate(held_out):
                drawn = _own_rows(draw(state, parallel.put_batch(batch, self._mesh), np.uint32(index)), self._mesh)
                yield _without_padding(batch), to_uint8(drawn[batch["mask"] > 0])

    def _compiled(self, draw: Callable[[TrainState, Batch, jax.Array], jax.Array]) -> Callable:
        """(state, batch, batch's index) -> videos [B,T,H,W,C] in [-1, 1], over the mesh."""

        def step(state: TrainState, batch: Batch, index: jax.Array) -> jax.Array:
            return draw(state, batch, parallel.example_keys(noise_key(index), len(batch["video"])))

        return _over(self._mesh, step, parallel.sharded(self._mesh))


def noise_key(index: jax.Array) -> jax.Array:
    """The key of the noise in the batch of this number: the same in every evaluation of every run."""
    return jax.random.fold_in(jax.random.key(0), index)


def _over(mesh: Mesh, step: Callable, out: Any) -> Callable:
    """A function of (state, batch, batch's index), compiled for states of any sharding."""
    whole, rows, options = parallel.replicated(mesh), parallel.sharded(mesh), parallel.compiler_options()
    step = parallel.with_whole_state(step, mesh)
    return jax.jit(step, in_shardings=(None, rows, whole), out_shardings=out, compiler_options=options)


def _own_rows(rows: jax.Array, mesh: Mesh) -> np.ndarray:
    """This process's rows of an array over the mesh."""
    return np.asarray(global_array_to_host_local_array(rows, mesh, PartitionSpec(parallel.AXIS)))


def _without_padding(batch: dict) -> dict:
    return {name: rows[batch["mask"] > 0] for name, rows in batch.items()}
