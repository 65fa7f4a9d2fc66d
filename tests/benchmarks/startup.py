"""Seconds from the command to the first step, with an empty and with a warm compilation cache, and their ratio.

python tests/benchmarks/startup.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def first_step(cache: str, recipe: str) -> float:
    """Starts a run and waits for the first line of its metrics."""
    with tempfile.TemporaryDirectory() as workdir:
        arguments = ["--config", recipe, "--workdir", workdir, "--config.train.log_every=1"]
        start = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-m", "jaxvid.main", *arguments],
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        metrics = Path(workdir) / "metrics.jsonl"
        while run.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        passed = time.perf_counter() - start
        run.kill()
        run.wait()
    return passed


def main(recipe: str = "configs/vqvae.py") -> None:
    """Prints both times; metrics come one step late, so that two steps are in each."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm, again = (first_step(cache, recipe) for _ in range(3))
    print(
        f"first step after {cold:.1f} s cold, {warm:.1f} s and {again:.1f} s warm, ratio {min(warm, again) / cold:.2f}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
