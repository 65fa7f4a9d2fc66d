"""Where numbers go: metrics.jsonl, TensorBoard events without TensorFlow, and Weights & Biases where asked for."""

import contextlib
import json
import math
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxvid.files import replacing, writing

METRICS_FILE = "metrics.jsonl"
FLUSH_EVERY = 30.0  # seconds until TensorBoard sees what was logged


class Writer:
    """Writes `workdir`/metrics.jsonl and TensorBoard events, under the method names of clu.metric_writers.

    Each `write_scalars` is one JSON object on a line: {"step": int, "time": seconds since 1970, name: float, ...},
    where values that are not finite are the strings "nan", "inf" and "-inf", so that every line is valid JSON. A line
    is in the operating system's hands when the call returns, so a killed run loses none. Only process 0 makes a Writer.

    The folder is made if missing. `resume_step` is the step of the restored state, 0 for a new run: what was logged
    after it is dropped. With the name of a `project`, Weights & Biases gets the same numbers and images, and `config`.

    Raises ValueError where wandb is not installed or cannot start; OSError, here and later, for a full disk.
    """

    def __init__(
        self, workdir: str | Path, resume_step: int = 0, project: str = "", config: Mapping[str, Any] | None = None
    ):
        self._wandb = _start_wandb(project, Path(workdir), resume_step, config) if project else None
        history = [record for record in _records(workdir) if record["step"] <= resume_step]
        path = Path(workdir) / METRICS_FILE
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")
        self._metrics = path.open("a", encoding="utf-8")
        folder = path.with_name("tensorboard")
        with writing(folder):
            folder.mkdir(exist_ok=True)
            # Not tensorboardX's SummaryWriter: on a full disk its thread dies, and the run waits for it for ever.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        # TensorBoard drops what was logged from this step on.
        self._flushed = time.monotonic()
        self._add(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers by name; "step" and "time" are no names of metrics, since every line holds these already."""
        finite_or_text = {name: value if math.isfinite(value) else str(value) for name, value in scalars.items()}
        line = json.dumps({"step": step, "time": round(time.time(), 3), **finite_or_text})
        with writing(self._metrics.name):
            self._metrics.write(line + "\n")
            self._metrics.flush()
        for name, value in scalars.items():
            self._add(Event(step=step, summary=summary.scalar(name, value)))
        if self._wandb:
            self._wandb.log(dict(scalars), step=step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image uint8 [H,W,3] to TensorBoard."""
        self._add(Event(step=step, summary=summary.image(name, image, dataformats="HWC")))
        if self._wandb:
            import wandb

            self._wandb.log({name: wandb.Image(image)}, step=step)

    def close(self) -> None:
        """Flushes and closes the files."""
        with contextlib.suppress(OSError):  # of a full disk, which was said when a line could not be written
            self._metrics.close()
            self._events.close()
        if self._wandb:
            self._wandb.finish()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._metrics.name.replace(METRICS_FILE, "tensorboard")):
            self._events.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._events.flush()
                self._flushed = time.monotonic()


def _start_wandb(project: str, workdir: Path, resume_step: int, config: Mapping[str, Any] | None) -> Any:
    """The run of Weights & Biases that belongs to the work folder, so that a resumed run goes on in the same curves."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "train.wandb names a project of Weights & Biases, which is not installed: pip install 'jaxvid[wandb]', or "
            "leave it out."
        ) from error
    file = workdir / "wandb" / "jaxvid_id"
    if not resume_step or not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(uuid.uuid4().hex[:8])
    try:
        return wandb.init(
            project=project, name=workdir.name, dir=workdir, id=file.read_text(), resume="allow", config=config
        )
    except wandb.Error as error:
        raise ValueError(
            f"Weights & Biases cannot start ({error}): `wandb login` first, or set WANDB_MODE=offline."
        ) from error


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
