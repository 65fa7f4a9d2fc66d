"""A causal tokenizer encodes and decodes clips, beside PyTorch, by turns; and a long video, part by part and at once.

    python tests/benchmarks/causal.py [--rounds 7]

The network of vqvae:causal, of random parameters, on 8 clips of 17x64x64, float32, 2 threads on the CPU. Prints
milliseconds of each form, and the median of the paired ratios with its range.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from steps import THREADS, find_peers, limit_threads
from timing import interleaved, paired
from workloads import random_video, recipe, started

from jaxvid.methods import vqvae

CLIPS, LONG = 8, 401  # clips at once, and frames of the long video


def coding(config: Any, video: np.ndarray, frames: int | None = None) -> Callable[[], Any]:
    """Encodes a video and decodes it, `frames` at a time, to arrays on the host; compiled and warm."""
    encode, decode = vqvae.codec(config, started(config)[1], frames)

    def run() -> Any:
        return decode(encode(video))

    run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each form")
    arguments = parser.parse_args()
    limit_threads()
    torch, _ = find_peers()
    versions = f"JAX {jax.__version__}" + (f", PyTorch {torch.__version__}" if torch else "")
    print(f"{versions}, float32, {THREADS} threads, medians of {arguments.rounds} rounds by turns")
    config = recipe("vqvae:causal", {"train.batch_size": CLIPS})
    video = random_video(config)
    long = np.random.default_rng(1).integers(0, 256, (1, LONG, *video.shape[2:]), np.uint8)
    forms = {"jaxvid": coding(config, video)}
    if torch:
        from peers import causal_tokenizer

        forms["PyTorch"] = causal_tokenizer(torch.from_numpy(video))
        forms["PyTorch"]()
    times = interleaved(forms, arguments.rounds, seconds=0.5)
    times |= interleaved({"in parts": coding(config, long), "at once": coding(config, long, LONG)}, arguments.rounds)
    for name, each in times.items():
        reference = times["at once" if name in ("in parts", "at once") else "jaxvid"]
        print(f"{name:<10}{1e3 * statistics.median(each):>10.0f} ms{paired(each, reference):>20}", flush=True)
    if torch:
        print(f"jaxvid / PyTorch {paired(times['jaxvid'], times['PyTorch'])}")


if __name__ == "__main__":
    main()
