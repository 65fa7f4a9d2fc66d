"""One line of progress, in a terminal, a notebook or a log file."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TextIO, TypeVar

PATIENCE = 3.0  # seconds
Batch = TypeVar("Batch")


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
        line = self._shown
        self._erase()
        self._stream.write(text + "\n")
        self._rewrite(line)

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


def counted(
    batches: Iterable[Batch], total: int, unit: str, size: Callable[[Batch], int]
) -> Generator[Batch, None, None]:
    """The batches, and, if they take longer than 3 seconds, a line that says how many of their examples are done.

    Args:
      batches: of `total` examples in all.
      total: the number of examples.
      unit: what an example is called, say "clip".
      size: how many examples a batch has.
    """
    line, start, done = ProgressLine(total, unit=unit), time.monotonic(), 0
    with contextlib.closing(line):
        line.update(0, {}, 0.0)  # shows nothing yet: the time that is left counts from here
        for batch in batches:
            yield batch
            done += size(batch)
            if (passed := time.monotonic() - start) > PATIENCE:
                line.update(done, {}, done / passed)


def _duration(seconds: float) -> str:
    """3725 as 1h02m, 62 as 1m02s, 2 as 2s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
