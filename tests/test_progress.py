"""The progress line, on a screen and in a log file."""

import io

import pytest

from jaxvid import progress
from jaxvid.progress import ProgressLine, counted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What stands on the screen: a carriage return goes back, and later text covers earlier."""
        lines = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            lines.append("".join(cells).rstrip())
        return lines


@pytest.fixture
def clock(monkeypatch):
    """A clock that stops until its only element is changed."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def advance(line: ProgressLine, clock: list[float], steps: range, seconds: float) -> None:
    for step in steps:
        clock[0] += seconds
        line.update(step, {"loss": 0.12345, "psnr": 20.0}, clips_per_second=64.0, waiting=0.031)


def test_progress_in_a_log_file_is_a_line_every_ten_seconds_or_ten_percent(clock):
    log = io.StringIO()
    advance(ProgressLine(1000, stream=log), clock, range(1, 1001), seconds=0.01)
    assert [line.split()[1] for line in log.getvalue().splitlines()] == [f"{s}/1000" for s in range(100, 1001, 100)]
    assert "\r" not in log.getvalue()

    log = io.StringIO()
    advance(ProgressLine(1000, stream=log), clock, range(1, 51), seconds=1.0)
    assert [line.split()[1] for line in log.getvalue().splitlines()] == [f"{s}/1000" for s in range(10, 51, 10)]


def test_progress_of_a_week_is_no_flood(clock):
    log = io.StringIO()
    advance(ProgressLine(7 * 24 * 3600 // 2, stream=log), clock, range(1, 7 * 24 * 3600 // 2 + 1), seconds=2.0)
    assert 500 < len(log.getvalue().splitlines()) < 900


def test_progress_shows_the_fields_and_the_time_left_since_resuming(clock):
    log = io.StringIO()
    line = ProgressLine(2000, start_step=1000, stream=log)
    clock[0] += 500  # compiling does not count
    advance(line, clock, range(1001, 1101), seconds=2.0)
    assert log.getvalue().splitlines()[0].endswith("? left  64 clips/s  waiting for data 3%")
    assert log.getvalue().splitlines()[-1].split("  ")[:4] == [
        "step 1096/2000",
        "loss 0.1235",
        "psnr 20",
        "30m08s left",
    ]


def test_progress_follows_a_change_of_speed(clock):
    log = io.StringIO()
    line = ProgressLine(10_000, stream=log)
    advance(line, clock, range(0, 1000), seconds=2.0)
    advance(line, clock, range(1000, 9000), seconds=0.5)
    advance(line, clock, range(9000, 10_000), seconds=0.5)
    assert "step 9000/10000  loss 0.1235  psnr 20  8m20s left" in log.getvalue()


def test_progress_in_a_terminal_keeps_to_one_line_beneath_messages(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    terminal = Terminal()
    line = ProgressLine(100, stream=terminal)
    advance(line, clock, range(1, 100), seconds=1.0)
    line.message("saved")
    assert terminal.screen() == ["saved", "step 99/100  loss 0.1235  psnr 20  1s left"]
    line.update(100, {"loss": 0.1}, 64.0, 0.0)
    line.close()
    terminal.write("next")
    assert terminal.screen() == ["saved", "step 100/100  loss 0.1  0s left  64 clips/s", "next"]
    assert max(len(part) for part in terminal.getvalue().replace("\r", "\n").split("\n")) < 50
    assert terminal.getvalue().count("\n") == 2


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


class Bare:
    """A stream that can only be written to."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def test_progress_survives_streams_that_take_nothing_or_know_little(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(progress.sys, "stderr", None)
    for stream in (None, closed, Gone()):
        line = ProgressLine(100, stream=stream)
        advance(line, clock, range(1, 101), seconds=1.0)
        line.message("saved")
        line.close()
    bare = Bare()
    advance(ProgressLine(100, stream=bare), clock, range(1, 101), seconds=1.0)
    assert bare.text.count("\n") == 10


def test_progress_in_a_notebook_is_rewritten_in_place(clock):
    stream_class = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    stream = stream_class()
    advance(ProgressLine(100, stream=stream), clock, range(1, 50), seconds=1.0)
    assert "\n" not in stream.getvalue() and stream.getvalue().count("step 49/100") == 1


def test_progress_in_a_notebook_goes_to_stdout_which_is_not_painted_red(clock, monkeypatch):
    stream_class = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    out, err = stream_class(), stream_class()
    monkeypatch.setattr(progress.sys, "stdout", out)
    monkeypatch.setattr(progress.sys, "stderr", err)
    ProgressLine(100).message("saved")
    assert out.getvalue() == "saved\n" and not err.getvalue()


@pytest.mark.parametrize("seconds, text", [(0.4, "0s"), (62, "1m02s"), (3725, "1h02m"), (3599.7, "1h00m")])
def test_duration(seconds, text):
    assert progress._duration(seconds) == text


def test_counted_batches_show_a_line_only_where_they_take_long(clock, capsys):
    for seconds, shown in (
        (0.1, []),
        (4.0, ["frame 3/6  4s left  0.75 frames/s", "frame 6/6  0s left  0.75 frames/s"]),
    ):
        found = []
        for batch in counted(["abc", "def"], 6, "frame", len):
            found.append(batch)
            clock[0] += seconds
        assert found == ["abc", "def"] and capsys.readouterr().err.splitlines() == shown
