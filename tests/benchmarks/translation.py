"""Translators: CycleGAN's training step beside PyTorch's, by turns, and the frames/s of a translated video.

    python tests/benchmarks/translation.py [--rounds 5] [--compiled]

The generator of the literature (Zhu et al., 2017: 9 blocks, width 64) on frames of 128x128, float32, 2 threads on the
CPU; a step of one frame of each domain, with identity losses, without a history. The video is 640x360.
Prints milliseconds of each form, the median of the paired ratios with its range, and frames/s.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from steps import THREADS, find_peers, limit_threads
from timing import interleaved, paired, repeated
from workloads import recipe

from jaxvid import parallel
from jaxvid.methods import cyclegan

WIDTH, BLOCKS, SIZE = 64, 9, 128
VIDEO = (1, 4, 360, 640, 3)  # frames translated at once


def fields(width: int, blocks: int, size: int) -> Mapping[str, Any]:
    """Of configs/cyclegan.py: the literature's networks on single frames."""
    patches = {"frames": 1, "stride": 1, "widths": (width, 2 * width, 4 * width, 8 * width), "norm": "frame"}
    generator = {"name": "resnet", "norm": "frame", "output": "direct", "blocks": blocks, "kernel": 7}
    generator["widths"] = (width, 2 * width, 4 * width)
    return {
        **{f"model.generator.{name}": value for name, value in generator.items()},
        "model.discriminators": {"frames": patches},
        "data.frames": 1,
        "data.resolution": size,
        "loss.pool": 0,
        "train.batch_size": 1,
    }


def workload(width: int, blocks: int, size: int) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """The method, its state at step 0, and a batch of two random frames."""
    method = cyclegan.make(recipe("cyclegan", fields(width, blocks, size)))
    videos = np.random.default_rng(0).integers(0, 256, (2, 1, 1, size, size, 3), np.uint8)
    batch = dict(zip(("input", "video"), videos, strict=True))
    state = parallel.make_init(method.init, parallel.make_mesh(jax.devices()[:1]))(jax.random.key(0), batch)
    return method, state, batch


def training_step(width: int, blocks: int, size: int) -> Callable[[], Any]:
    """Trains a step, and blocks at the end; compiled and warm."""
    method, state, batch = workload(width, blocks, size)
    step = parallel.make_step(method.train_step, parallel.make_mesh(jax.devices()[:1]))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    run()
    return run


def translating(width: int, blocks: int, shape: tuple[int, ...]) -> Callable[..., Any]:
    """Translates a random video; compiled and warm."""
    method, state, _ = workload(width, blocks, 16)
    video = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    target = np.ones(len(video), np.int32)
    return repeated(method.translation.apply, state, video, target, options=parallel.compiler_options())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each form")
    parser.add_argument("--compiled", action="store_true", help="PyTorch's compiled step, too; needs a C++ compiler")
    arguments = parser.parse_args()
    limit_threads()
    torch, _ = find_peers()
    versions = f"JAX {jax.__version__}" + (f", PyTorch {torch.__version__}" if torch else "")
    print(f"{versions}, float32, {THREADS} threads, medians of {arguments.rounds} rounds by turns")
    forms: dict[str, Callable[[], Any]] = {"jaxvid": training_step(WIDTH, BLOCKS, SIZE)}
    if torch:
        from peers import cyclegan as peer

        videos = [torch.from_numpy(video) for video in workload(8, 1, SIZE)[2].values()]
        for name in ("PyTorch", "PyTorch, compiled")[: 1 + arguments.compiled]:
            forms[name] = peer(tuple(videos), WIDTH, BLOCKS, compiled="compiled" in name)
            forms[name]()
    times = interleaved(forms, arguments.rounds)
    for name, each in times.items():
        print(
            f"step, {name:<20}{1e3 * statistics.median(each):>10.0f} ms{paired(times['jaxvid'], each):>20}", flush=True
        )
    for width, blocks in ((WIDTH, BLOCKS), (16, 4)):
        (each,) = interleaved({"": translating(width, blocks, VIDEO)}, arguments.rounds).values()
        rate = VIDEO[1] / statistics.median(each)
        print(f"translating {VIDEO[3]}x{VIDEO[2]}, width {width}, {blocks} blocks: {rate:.2f} frames/s", flush=True)


if __name__ == "__main__":
    main()
