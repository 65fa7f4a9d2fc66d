"""Where numbers go: metrics.jsonl and TensorBoard events without TensorFlow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from jaxvid.files import replacing
from jaxvid.images import encode_png

METRICS_FILE = "metrics.jsonl"


class Writer:
    """Writes `workdir`/metrics.jsonl and TensorBoard events, under the method names of clu.metric_writers.

    Each `write_scalars` is one JSON object on a line: {"step": int, "time": seconds since 1970, name: float, ...},
    where values that are not finite are the strings "nan", "inf" and "-inf", so that every line is valid JSON. A line
    is in the operating system's hands when the call returns, so a killed run loses none. Only process 0 makes a Writer.

    Args:
      workdir: the folder of the run, made if missing.
      resume_step: the step of the restored state; what is logged after it is dropped, since it comes again. None starts
        afresh and drops everything an earlier run logged here.
    """

    def __init__(self, workdir: str | Path, resume_step: int | None = None):
        history = [] if resume_step is None else [r for r in _records(workdir) if r["step"] <= resume_step]
        path = Path(workdir) / METRICS_FILE
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")
        self._metrics = path.open("a", encoding="utf-8")
        # TensorBoard purges the purge step too; only what comes after the restored state is repeated.
        purge_step = 0 if resume_step is None else resume_step + 1
        self._events = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=purge_step)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes numbers or arrays of one element; ValueError for larger arrays and for the names "step" and "time"."""
        values = {name: _scalar(name, value) for name, value in scalars.items()}
        finite_or_text = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = json.dumps({"step": int(step), "time": round(time.time(), 3), **finite_or_text})
        self._metrics.write(line + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Writes images [H,W,C], uint8 or float in [-1, 1], to TensorBoard."""
        for name, image in images.items():
            value = Summary.Value(tag=name, image=Summary.Image(encoded_image_string=encode_png(image)))
            self._events.file_writer.add_summary(Summary(value=[value]), step)

    def flush(self) -> None:
        """Waits until everything written is on the disk."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._events.close()


def read_history(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl: {"step": int, "time": float, name: float, ...}, nan and inf as floats; [] if absent.

    A last line without its end, left by a killed run or still being written, is left out.

    Raises:
      ValueError: any other line that is not such an object.
    """
    return [{name: v if name == "step" else float(v) for name, v in record.items()} for record in _records(workdir)]


def _records(workdir: str | Path) -> list[dict[str, Any]]:
    path = Path(workdir) / METRICS_FILE
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], start=1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}, is not a record of metrics: delete the line.") from error
        records.append(record)
    return records


def _scalar(name: str, value: Any) -> float:
    if name in ("step", "time"):
        raise ValueError(f"A metric cannot be called {name!r}, which every line holds already: rename it.")
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"Metric {name!r} has shape {array.shape}, but a scalar has one element: reduce it first.")
    return float(array.reshape(()))
