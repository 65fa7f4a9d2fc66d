"""One line of progress, in a terminal, a notebook or a log file."""

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, TextIO, TypeVar

PATIENCE = 3.0  # seconds
Batch = TypeVar("Batch")


class ProgressLine:
    """Step, metrics, speed and time left, on one line.

    In a terminal or notebook the line is rewritten in place and never wraps. In a log file a plain line comes every 10
    seconds or 10 % of the run, whichever is first; past the first quarter of an hour every 1 % of the time passed, so
    that a week leaves some 700 lines. It starts or resumes from `start_step`, ends at `total`, counts steps or another
    `unit`, and is written to `stream` (default: stderr, or in a notebook, which paints that red, stdout); a stream that
    takes nothing stops no work.
    """

    def __init__(self, total: int, start_step: int = 0, stream: TextIO | None = None, unit: str = "step"):
        notebook = type(sys.stderr).__module__.startswith("ipykernel")
        self._total, self._unit, self._stream = total, unit, stream or (sys.stdout if notebook else sys.stderr)
        self._counted = "clip" if unit == "step" else unit
        self._live = type(self._stream).__module__.startswith("ipykernel")
        with contextlib.suppress(AttributeError, ValueError):  # it has no such method, or is closed
            self._live |= self._stream.isatty()
        self._shown = ""  # what stands on the line being rewritten
        self._start = self._printed = time.monotonic()
        self._printed_tenth = 10 * start_step // max(total, 1)
        self._seen: tuple[int, float] | None = None  # step and time of the last update
        self._seconds = self._steps = 0.0  # decayed sums, whose quotient is the present time per step

    def update(self, step: int, metrics: dict[str, Any], clips_per_second: float, waiting: float | None = None) -> None:
        """Shows a step; `waiting` is the share of time, 0 to 1, spent waiting for data. Cheap enough for every step."""
        now = time.monotonic()
        if self._seen:  # the first update, which compiling delays, only starts the clock
            decay = math.exp(-(now - self._seen[1]) / 120)  # two minutes smooth over evaluations and checkpoints
            self._seconds = decay * self._seconds + now - self._seen[1]
            self._steps = decay * self._steps + step - self._seen[0]
        self._seen = step, now
        tenth = 10 * step // max(self._total, 1)
        interval = 0.1 if self._live else max(10.0, 0.01 * (now - self._start))
        if now - self._printed < interval and step < self._total and (self._live or tenth == self._printed_tenth):
            return
        self._printed, self._printed_tenth = now, tenth
        left = _duration((self._total - step) * self._seconds / self._steps) if self._steps else "?"
        fields = [f"{self._unit} {step}/{self._total}", *(f"{name} {float(v):.4g}" for name, v in metrics.items())]
        fields += [f"{left} left", f"{clips_per_second:.3g} {self._counted}s/s"]
        if waiting is not None:
            fields.append(f"waiting for data {waiting:.0%}")
        if not self._live:
            self._write("  ".join(fields) + "\n")
            return
        room = shutil.get_terminal_size((100, 24)).columns - 1
        while len(fields) > 1 and len("  ".join(fields)) > room:
            fields.pop()
        self._write("  ".join(fields)[:room])

    def message(self, text: str) -> None:
        """Prints a line of its own, above the progress line."""
        self._write(f"{text}\n{self._shown}")

    def close(self) -> None:
        """Ends the line, so that what is printed next starts on a new one."""
        if self._shown:
            self._write(f"{self._shown}\n")

    def _write(self, text: str) -> None:
        """Writes over what is shown; what follows the last end of a line is shown from now on."""
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it is closed, or its reader has gone
            if self._shown:  # spaces, since notebooks ignore the escape that clears a line
                self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._stream.write(text)
            self._stream.flush()
        self._shown = text.rpartition("\n")[2]


def counted(
    batches: Iterable[Batch], total: int, unit: str, size: Callable[[Batch], int]
) -> Generator[Batch, None, None]:
    """The batches, and, if they take longer than 3 seconds, a line that says how many of `total` examples are done.

    An example is called `unit`, say "clip", and `size` tells how many of them a batch has.
    """
    start, done = time.monotonic(), 0
    with contextlib.closing(ProgressLine(total, unit=unit)) as line:
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
