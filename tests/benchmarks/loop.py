"""What the loop costs: clips/s of `train` on records against the bare compiled step on one batch, by turns.

python tests/benchmarks/loop.py [RECIPE]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timing import interleaved
from workloads import recipe, training_step

from jaxvid.data.records import write_records
from jaxvid.data.synthetic import Synthetic
from jaxvid.train import train


class Subset(Synthetic):
    """256 clips of moving shapes."""

    def __len__(self) -> int:
        return 256


def on_records(config: Any, folder: str) -> Any:
    """The config with records of moving shapes as its data, written to the folder."""
    clips = Subset(config.data.frames, config.data.resolution)
    for split in ("train", "eval"):
        write_records(clips, f"{folder}/{split}", shards=4)
    config.data.update(name="records", dataset="", path=folder, stride=1)
    return config


def whole_loop(config: Any, steps: int) -> tuple[float, float]:
    """Clips per second of `train` with its data, logs and transfers, without checkpoints and evaluations; and the share
    of its time spent waiting for data."""
    config.train.update(steps=steps, save_every=10 * steps, log_every=max(1, steps // 15))
    config.eval.update(every=10 * steps, examples=config.train.batch_size)
    with tempfile.TemporaryDirectory() as workdir:
        train(config, workdir)
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "train/loss" in line]
    first, last = lines[1], lines[-1]
    clips = (last["step"] - first["step"]) * config.train.batch_size
    return clips / (last["time"] - first["time"]), last["train/waiting"]


def compare(
    name: str, rounds: int, steps: int, fields: Mapping[str, Any] | None = None
) -> tuple[list[float], list[float], list[float]]:
    """Clips/s of the loop and of the bare step, and the shares of time that the loop waited, by rounds."""
    loop, bare, waited = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        config = on_records(recipe(name, fields), folder)
        run = training_step(config)
        for _ in range(rounds):
            clips, waiting = whole_loop(config.copy_and_resolve_references(), steps)
            loop.append(clips)
            waited.append(waiting)
            (seconds,) = interleaved({"step": run}, 1, seconds=1.0)["step"]
            bare.append(config.train.batch_size / seconds)
    return loop, bare, waited


def main(name: str = "vqvae", rounds: int = 3, steps: int = 25) -> None:
    loop, bare, waited = compare(name, rounds, steps)
    ratios = sorted(a / b for a, b in zip(loop, bare, strict=True))
    print(
        f"{name}: loop {statistics.median(loop):.1f} clips/s, bare step {statistics.median(bare):.1f} clips/s, "
        f"loop / bare {statistics.median(ratios):.3f} [{ratios[0]:.3f}-{ratios[-1]:.3f}], "
        f"waiting {statistics.median(waited):.0%}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
