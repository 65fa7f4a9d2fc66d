"""Times training steps beside PyTorch's in the same rounds: 2 threads each, float32, the same layers and work.

    python tests/benchmarks/steps.py [--rounds 9] [--seconds 1] [RECIPE ...]

RECIPE is a name such as `gan3d:dcgan`: one of workloads.SIZES (all of them by default), or any other of configs/
without conditions. Prints the median milliseconds of both, the share that their useful operations reach of the rate of
a large matrix product in the same rounds, and the median of the paired ratios (jaxvid's time to PyTorch's) with its
range. Without PyTorch jaxvid's step alone is timed. On CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

import jax
from timing import PRODUCT_FLOP, interleaved, paired, product
from workloads import SIZES, random_video, recipe, training_step

from jaxvid.parallel import keep_memory

THREADS = 2
INSTALL = (
    "PyTorch is not installed: jaxvid's step alone is timed. For the comparison: pip install -e '.[bench]', or the CPU "
    "build alone: pip install torch --index-url https://download.pytorch.org/whl/cpu"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each step")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each step in a round")
    parser.add_argument("recipes", nargs="*", default=list(SIZES), help="of configs/")
    arguments = parser.parse_args()
    limit_threads()
    torch, peers = find_peers()
    versions = f"JAX {jax.__version__}" + (f", PyTorch {torch.__version__}" if torch else "")
    print(f"{versions}, float32, {THREADS} threads, medians of {arguments.rounds} rounds by turns")
    heads = ("jaxvid ms", "of product", "PyTorch ms", "of product")
    print(f"{'recipe':<16}" + "".join(f"{head:>12}" for head in heads) + f"{'jaxvid / PyTorch':>20}")
    for name in arguments.recipes:
        config = recipe(name)
        forms = {"jaxvid": training_step(config), "product": product()}
        operations = 0.0
        if name in peers:
            forms["PyTorch"] = peers[name](torch.from_numpy(random_video(config)))
            operations = count_operations(forms["PyTorch"])
        print_row(name, interleaved(forms, arguments.rounds, arguments.seconds), operations)


def limit_threads() -> None:
    """THREADS threads on the CPU for both; before JAX starts its backend, which takes as many as there are cores."""
    keep_memory()  # as jaxvid.main does
    jax.config.update("jax_platforms", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def find_peers() -> tuple[Any, dict[str, Callable]]:
    """PyTorch and the peers by recipe; None and no peers where it is not installed, which is said."""
    try:
        import torch
        from peers import PEERS
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(INSTALL)
        return None, {}
    torch.set_num_threads(THREADS)
    return torch, PEERS


def count_operations(step: Callable[[], Any]) -> float:
    """Multiplications and additions of the convolutions and products of a PyTorch step."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def print_row(name: str, times: dict[str, list[float]], operations: float) -> None:
    middle = {form: statistics.median(each) for form, each in times.items()}
    row = ""
    for form in ("jaxvid", "PyTorch"):
        if form in middle:
            share = operations / middle[form] / (PRODUCT_FLOP / middle["product"])
            row += f"{1e3 * middle[form]:>12.1f}{f'{share:.0%}' if operations else '-':>12}"
    if "PyTorch" in times:
        row += f"{paired(times['jaxvid'], times['PyTorch']):>20}"
    print(f"{name:<16}{row}", flush=True)


if __name__ == "__main__":
    main()
