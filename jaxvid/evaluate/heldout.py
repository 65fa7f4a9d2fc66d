"""One pass over held-out clips: means, histograms and panels of what a method's `eval_step` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvid import parallel
from jaxvid.core import Batch, Evaluated, Profile, TrainState

# Of the entries of Evaluated.
FORMS = {"scalars": "[B]", "counts": "int [B,K]", "profiles": "a Profile of [B,K]", "panels": "[B,T,H,W,C]"}


class Evaluation(NamedTuple):
    """What one pass found.

    scalars: {name: mean over the examples}; for each histogram `<name>_used` (the share of its K bins that are not
      empty) and `<name>_perplexity` (exp of its entropy; K when all are equally full).
    histograms: {name: counts [K]} over all examples.
    profiles: {name: Profile} of means [K] over the examples that are not nan there; nan where all are.
    panels: {name: [N,T,H,W,C]} of the first batch, padding left out.
    """

    scalars: dict[str, float]
    histograms: dict[str, np.ndarray]
    profiles: dict[str, Profile]
    panels: dict[str, np.ndarray]


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

        def profile(values: jax.Array) -> jax.Array:
            counted = real[:, None] & ~jnp.isnan(values)
            return jnp.stack([total(values, counted), counted.sum(0).astype(jnp.float32)])

        sums = Evaluated(
            {name: total(value.astype(jnp.float32), real) for name, value in found.scalars.items()},
            {name: total(value, real[:, None]) for name, value in found.counts.items()},
            {
                name: Profile(profile(each.values.astype(jnp.float32)), each.names)
                for name, each in found.profiles.items()
            },
            dict(found.panels),
        )
        return real.sum(), sums

    whole, rows = parallel.replicated(mesh), parallel.sharded(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, rows, whole),
        out_shardings=(whole, Evaluated(whole, whole, whole, rows)),  # type: ignore[arg-type]
        compiler_options=parallel.compiler_options(),
    )


def check(found: Evaluated, examples: int) -> None:
    """Raises ValueError, which names the entry, for what an `eval_step` may not return of so many examples."""
    if not isinstance(found, Evaluated):
        raise ValueError(f"eval_step returned {type(found).__name__}, expected core.Evaluated.")
    for field, form in FORMS.items():
        for name, entry in getattr(found, field).items():
            profile = isinstance(entry, Profile)
            values = jnp.asarray(entry.values if profile else entry)
            fits = values.ndim == 1 + form.count(",") and len(values) == examples and profile == (field == "profiles")
            if not fits or (field == "counts" and not jnp.issubdtype(values.dtype, jnp.integer)):
                shape = f"{'a Profile of ' if profile else ''}{values.dtype} {list(values.shape)}"
                raise ValueError(f"eval_step returned {field} {name} as {shape}, expected {form} with B={examples}.")
            if profile and entry.names and len(entry.names) != values.shape[1]:
                raise ValueError(
                    f"eval_step returned {len(entry.names)} names for profiles {name} of {values.shape[1]}."
                )
    for name in found.counts:
        for taken in {f"{name}_used", f"{name}_perplexity"} & set(found.scalars):
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
            panels = {name: _local(video)[batch["mask"] > 0] for name, video in found.panels.items()}
        examples, sums = jax.device_get((examples, found._replace(panels={})))
        sums = jax.tree.map(lambda x: x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), sums)
        total, count = jax.tree.map(np.add, total, sums) if index else sums, count + int(examples)
    scalars = {name: float(value) / count for name, value in total.scalars.items()}
    for name, counts in total.counts.items():
        share = counts[counts > 0] / counts.sum()
        scalars[f"{name}_used"] = float(np.mean(counts > 0))
        scalars[f"{name}_perplexity"] = float(np.exp(-np.sum(share * np.log(share))))
    with np.errstate(invalid="ignore"):
        profiles = {name: each.replace(values=each.values[0] / each.values[1]) for name, each in total.profiles.items()}
    return Evaluation(scalars, dict(total.counts), profiles, panels)


def noise_key(index: jax.Array) -> jax.Array:
    """The key of the noise in the batch of this number: the same in every evaluation of every run."""
    return jax.random.fold_in(jax.random.key(0), index)


def _local(array: jax.Array) -> np.ndarray:
    """This process's rows of a sharded batch."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([jax.device_get(shard.data) for shard in shards])
