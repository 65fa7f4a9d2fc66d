"""Where numbers go: metrics.jsonl and TensorBoard events without TensorFlow."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from jaxvid.files import replacing

METRICS_FILE = "metrics.jsonl"


class Writer:
    """Writes `workdir`/metrics.jsonl and TensorBoard events, under the method names of clu.metric_writers.

    Each `write_scalars` is one JSON object on a line: {"step": int, "time": seconds since 1970, name: float, ...},
    where values that are not finite are the strings "nan", "inf" and "-inf", so that every line is valid JSON. A line
    is in the operating system's hands when the call returns, so a killed run loses none. Only process 0 makes a Writer.

    The folder is made if missing. `resume_step` is the step of the restored state, 0 for a new run: what was logged
    after it is dropped.
    """

    def __init__(self, workdir: str | Path, resume_step: int = 0):
        history = [record for record in _records(workdir) if record["step"] <= resume_step]
        path = Path(workdir) / METRICS_FILE
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")
        self._metrics = path.open("a", encoding="utf-8")
        # TensorBoard drops the purge step too.
        self._events = SummaryWriter(str(path.with_name("tensorboard")), purge_step=resume_step + 1, flush_secs=10)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers by name; "step" and "time" are no names of metrics, since every line holds these already."""
        finite_or_text = {name: value if math.isfinite(value) else str(value) for name, value in scalars.items()}
        line = json.dumps({"step": step, "time": round(time.time(), 3), **finite_or_text})
        self._metrics.write(line + "\n")
        self._metrics.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image uint8 [H,W,3] to TensorBoard."""
        self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._events.close()


def read_history(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl: {"step": int, "time": float, name: float, ...}, nan and inf as floats; [] if absent.

    A last line without its end, left by a killed run or still being written, is left out.

    Raises ValueError: any other line that is not such an object.
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
