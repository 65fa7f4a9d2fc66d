"""What the loop costs: clips/s of `train` against the bare compiled step on one batch.

python tests/benchmarks/loop.py
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import recipe

from jaxvid import data, parallel
from jaxvid.methods import METHODS
from jaxvid.train import train


def bare_step(config, steps: int) -> float:
    """Clips per second of the step alone, on a batch that stays on the device."""
    mesh = parallel.make_mesh()
    method = METHODS[config.method](config)
    source = data.make_source(config.data, "train")
    with data.train_batches(source, config.train.batch_size, config.data.resolution, seed=0) as batches:
        batch = parallel.put_batch(next(batches), mesh)
    state = parallel.make_init(method.init, mesh)(jax.random.key(0), batch)
    step = parallel.make_step(method.train_step, mesh)
    state, metrics = jax.block_until_ready(step(state, batch))
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return steps * config.train.batch_size / (time.perf_counter() - start)


def whole_loop(config, steps: int) -> float:
    """Clips per second that `train` logs, with its data, logs and transfers, without checkpoints and evaluations."""
    config.train.update(steps=steps, save_every=10 * steps, log_every=1)
    config.eval.update(every=10 * steps, examples=config.train.batch_size)
    with tempfile.TemporaryDirectory() as workdir:
        train(config, workdir)
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    times = [line["time"] for line in lines if "train/loss" in line]
    return (len(times) - 2) * config.train.batch_size / (times[-1] - times[1])


def main(rounds: int = 3, steps: int = 25) -> None:
    """Interleaves both, and prints the ratio of the medians."""
    found: dict = {bare_step: [], whole_loop: []}
    for _ in range(rounds):
        for measure, results in found.items():
            results.append(measure(recipe("vqvae"), steps))
    bare, loop = (sorted(results)[rounds // 2] for results in found.values())
    print(f"bare step {bare:.1f} clips/s, loop {loop:.1f} clips/s, ratio {loop / bare:.3f}")


if __name__ == "__main__":
    main()
