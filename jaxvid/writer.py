"""Where numbers go: metrics.jsonl, TensorBoard events without TensorFlow, and one line of progress."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams as hparams_summaries

from jaxvid.viz import dotted, encode_gif, encode_png, grid, replacing

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
        """Writes images [H,W,C], or [N,H,W,C] as one grid, to TensorBoard; uint8 or float in [-1, 1]."""
        for name, image in images.items():
            pixels = np.asarray(image)
            self._add_image(step, name, encode_png(grid([pixels.reshape(-1, 1, *pixels.shape[-3:])])[0]))

    def write_videos(self, step: int, videos: Mapping[str, Any], fps: float = 8) -> None:
        """Writes videos [T,H,W,C], or [N,T,H,W,C] as one grid, to TensorBoard; uint8 or float in [-1, 1]."""
        for name, video in videos.items():
            pixels = np.asarray(video)
            # add_video needs moviepy and without it writes nothing; TensorBoard plays a GIF that comes as an image.
            self._add_image(step, name, encode_gif(grid([pixels.reshape(-1, *pixels.shape[-4:])]), fps))

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts, in Markdown, to TensorBoard."""
        for name, text in texts.items():
            self._events.add_text(name, text, step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes the settings of the run, nested or flat, to TensorBoard under dotted names."""
        flat = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in dotted(hparams).items()}
        for summary in hparams_summaries(flat, {}):
            self._events.file_writer.add_summary(summary)

    def flush(self) -> None:
        """Waits until everything written is on the disk."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._events.close()

    def _add_image(self, step: int, name: str, encoded: bytes) -> None:
        value = Summary.Value(tag=name, image=Summary.Image(encoded_image_string=encoded))
        self._events.file_writer.add_summary(Summary(value=[value]), step)


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


class ProgressLine:
    """Step, metrics, speed and time left, on one line.

    In a terminal or notebook the line is rewritten in place and never wraps. In a log file a plain line comes every 10
    seconds or 10 % of the run, whichever is first; past the first quarter of an hour every 1 % of the time passed, so
    that a week leaves some 700 lines.

    Args:
      total: the step at which the run ends.
      start_step: the step from which it starts or resumes.
      stream: where to write; None is stderr.
      unit: what is counted.
    """

    def __init__(self, total: int, start_step: int = 0, stream: TextIO | None = None, unit: str = "step"):
        self._total, self._unit = total, unit
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() or type(self._stream).__module__.startswith("ipykernel")
        self._shown = ""  # what stands on the line being rewritten
        self._start = self._printed = time.monotonic()
        self._printed_tenth = 10 * start_step // max(total, 1)
        self._seen: tuple[int, float] | None = None  # step and time of the last update
        self._seconds = self._steps = 0.0  # decayed sums, whose quotient is the present time per step

    def update(
        self, step: int, metrics: Mapping[str, Any], clips_per_second: float, waiting: float | None = None
    ) -> None:
        """Shows a step; `waiting` is the share of time, 0 to 1, spent waiting for data. Cheap enough for every step."""
        now = time.monotonic()
        self._measure(step, now)
        tenth = 10 * step // max(self._total, 1)
        interval = 0.1 if self._live else max(10.0, 0.01 * (now - self._start))
        if now - self._printed < interval and step < self._total and (self._live or tenth == self._printed_tenth):
            return
        self._printed, self._printed_tenth = now, tenth
        fields = [f"{self._unit} {step}/{self._total}"]
        fields += [f"{name} {float(value):.4g}" for name, value in metrics.items()]
        left = self._total - step
        fields.append(f"{_duration(left * self._seconds / self._steps) if self._steps else '?'} left")
        fields.append(f"{clips_per_second:.3g} clips/s")
        if waiting is not None:
            fields.append(f"waiting for data {waiting:.0%}")
        self._show(fields)

    def message(self, text: str) -> None:
        """Prints a line of its own, above the progress line."""
        shown = self._shown
        self._erase()
        self._stream.write(text + "\n")
        self._rewrite(shown)

    def close(self) -> None:
        """Ends the line, so that what is printed next starts on a new one."""
        if self._shown:
            self._stream.write("\n")
            self._stream.flush()
        self._shown = ""

    def _measure(self, step: int, now: float) -> None:
        """Counts the steps since the last update; the first update, which compiling delays, only starts the clock."""
        if self._seen is not None:
            seen_step, seen = self._seen
            decay = math.exp(-(now - seen) / 120)  # two minutes smooth over evaluations and checkpoints
            self._seconds = decay * self._seconds + now - seen
            self._steps = decay * self._steps + step - seen_step
        self._seen = step, now

    def _show(self, fields: list[str]) -> None:
        if not self._live:
            self._stream.write("  ".join(fields) + "\n")
            self._stream.flush()
            return
        room = shutil.get_terminal_size((100, 24)).columns - 1
        while len(fields) > 1 and len("  ".join(fields)) > room:
            fields = fields[:-1]
        self._erase()
        self._rewrite("  ".join(fields)[:room])

    def _erase(self) -> None:
        if self._shown:  # spaces, since notebooks ignore the escape that clears a line
            self._stream.write("\r" + " " * len(self._shown) + "\r")
        self._shown = ""

    def _rewrite(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()
        self._shown = line


def _duration(seconds: float) -> str:
    """3725 as 1h02m, 62 as 1m02s, 2 as 2s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
