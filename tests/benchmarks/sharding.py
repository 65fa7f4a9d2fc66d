"""Sharded states beside replicated ones: memory of a state, transfers of a step and its time, on simulated devices.

    python tests/benchmarks/sharding.py [--devices 4] [--rounds 10] [--recipes gan3d:tiny vqvae:tiny]

Prints for each recipe KiB of the state on each device, the collective operations of the compiled step, and the median
of the paired ratios of the times of a step, sharded over replicated, with their range. Simulated devices share the
cores of the machine and pass arrays through its memory: the times tell of added work, not of a network.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

MOVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
Fields = dict[str, Any]


def batch_of(config: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The config with the conditions of its data, and its first batch of numbers."""
    from jaxvid import conditions, data

    source = data.make_source(config.data, "train")
    config = conditions.complete(config, source)
    shape = config.train.batch_size, config.data.resolution
    with data.train_batches(conditions.wrap(config, source), *shape, seed=0, threads=2) as batches:
        return config, {name: rows for name, rows in next(batches).items() if rows.dtype.kind in "biuf"}


def training_step(config: Any, numbers: dict[str, np.ndarray], devices: int, shard: bool) -> tuple[Fields, Callable]:
    """Facts of the compiled step, and a function that trains a step and blocks at the end."""
    import jax

    from jaxvid import parallel
    from jaxvid.core import make_method

    method, mesh = make_method(config), parallel.make_mesh(jax.devices()[:devices])
    batch = parallel.put_batch(numbers, mesh)
    shardings = parallel.state_sharding(jax.eval_shape(method.init, jax.random.key(0), batch), mesh, shard)
    state = parallel.make_init(method.init, mesh, shardings)(jax.random.key(0), batch)
    kept = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(state)) / 1024
    step = parallel.make_step(method.train_step, mesh, state=shardings if shard else None).lower(state, batch).compile()
    moves = collections.Counter(re.findall(rf" ({MOVES})(?:-start)?\(", step.as_text()))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    run()
    return {"KiB": round(kept), **dict(sorted(moves.items()))}, run


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--recipes", nargs="+", default=["gan3d:tiny", "vqvae:tiny"])
    options = parser.parse_args()
    os.environ.setdefault("NPROC", str(2 * options.devices))  # or simulated devices wait for each other for ever
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={options.devices}")
    from timing import interleaved, paired  # this imports JAX, which reads the variables

    from jaxvid.config import recipe

    for name in options.recipes:
        config, numbers = batch_of(recipe(name))
        forms = {
            form: training_step(config, numbers, options.devices, form == "sharded")
            for form in ("replicated", "sharded")
        }
        for form, (facts, _) in forms.items():
            print(f"{name}, {form}: {facts}", flush=True)
        times = interleaved({form: run for form, (_, run) in forms.items()}, options.rounds)
        print(f"{name}, sharded / replicated: {paired(times['sharded'], times['replicated'])}", flush=True)


if __name__ == "__main__":
    main()
