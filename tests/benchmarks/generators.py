"""Times the training steps of generators beside PyTorch's, each with a large matrix product in the same rounds.

    python tests/benchmarks/generators.py [--rounds 7] [RECIPE ...]

RECIPE is a name such as `gan3d:dcgan`, one of STEPS or any other of configs/; all of STEPS by default. The figures of
PyTorch 2.13 were measured on two CPU cores on which the best products ran at about 260 GFLOP/s: where the product of
this run is slower or faster, compare the shares of it rather than the seconds. On an H100 (JAX 0.11.2) a step of
gan3d:dcgan took 3.7 ms (64.6 TFLOP/s), one of vae:frame 1.6 ms (10.5).
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from layers import PRODUCT, compiled, medians, normal

from jaxvid import data, parallel
from jaxvid.methods import METHODS


class Step(NamedTuple):
    """What a step works on, and what is known of it; 0 where nothing is."""

    fields: dict[str, Any]
    gflop: float = 0.0  # useful multiplications and additions, 10^9
    pytorch: float = 0.0  # seconds


STEPS = {
    # Generator z 100 -> 4x4x4x256 -> 8x8x8x128 -> 16x16x16x3, the discriminator mirrored; both take their step.
    "gan3d:dcgan": Step({"data.frames": 16, "data.resolution": 16, "train.batch_size": 64}, 242, 1.32),
    # 64 frames in all, to 32, 64 and 128 channels by strides of 2, then 512 units; mirrored.
    "vae:frame": Step({"data.frames": 16, "data.resolution": 64, "train.batch_size": 4}, 17.2, 0.20),
}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LIMIT = 260.0  # GFLOP/s of the best products where PyTorch was measured


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each step")
    parser.add_argument("recipes", nargs="*", default=list(STEPS), help="of configs/")
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__}, {jax.default_backend()}, float32, medians of {arguments.rounds} rounds")
    heads = ("step ms", "GFLOP/s", "of product", "PyTorch ms", "of product", "its time")
    print(f"{'recipe':<16}" + "".join(f"{head:>12}" for head in heads))
    square = normal(0, (PRODUCT, PRODUCT))
    for name in arguments.recipes:
        step = STEPS.get(name, Step({}))
        forms = {"step": training_step(name, step.fields), "product": compiled(jnp.matmul, square, square)}
        print_row(name, step, medians(forms, arguments.rounds))


def training_step(name: str, fields: dict[str, Any]) -> Callable[[], Any]:
    """A function that trains one step on a batch that stays on the device, compiled and warm."""
    stem, _, variant = name.partition(":")
    config = runpy.run_path(str(CONFIGS / f"{stem}.py"))["get_config"](variant)
    config.update_from_flattened_dict(fields)
    mesh, method = parallel.make_mesh(jax.devices()[:1]), METHODS[config.method](config)
    source = data.make_source(config.data, "train")
    with data.train_batches(source, config.train.batch_size, config.data.resolution, seed=0) as batches:
        batch = parallel.put_batch(next(batches), mesh)
    state = parallel.make_init(method.init, mesh)(jax.random.key(0), batch)
    step = parallel.make_step(method.train_step, mesh)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    run()
    return run


def print_row(name: str, step: Step, times: dict[str, float]) -> None:
    row = [f"{1e3 * times['step']:.1f}"]
    if step.gflop:
        rates = step.gflop / times["step"], step.gflop / step.pytorch
        limits = 2e-9 * PRODUCT**3 / times["product"], LIMIT
        ours, theirs = (f"{rate / limit:.0%}" for rate, limit in zip(rates, limits, strict=True))
        ratio = f"{times['step'] / step.pytorch:.2f}"
        row += [f"{rates[0]:.0f}", ours, f"{1e3 * step.pytorch:.1f}", theirs, ratio]
    print(f"{name:<16}" + "".join(f"{cell:>12}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
