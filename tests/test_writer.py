"""Logs: every line of JSON parses, resumed runs repeat nothing, TensorBoard's files hold what was written."""

import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from jaxvid import writer as writer_module
from jaxvid.progress import ProgressLine
from jaxvid.writer import Writer, read_history


def read_events(workdir: Path) -> list[list[Event]]:
    """The events of each TensorBoard file of a run, oldest file first."""
    files = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, events, position = path.read_bytes(), [], 0
        while position < len(data):  # a record is its length, a checksum, the data, a checksum
            (length,) = struct.unpack_from("<Q", data, position)
            events.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += length + 16
        files.append(events)
    return files


def values(events: list[Event]) -> dict:
    return {(event.step, value.tag): value for event in events for value in event.summary.value}


def test_scalars_reach_both_files(tmp_path):
    writer = Writer(tmp_path)
    writer.write_scalars(3, {"train/loss": np.float32(0.5), "train/count": np.array([7])})
    writer.write_scalars(4, {"train/loss": 0.25})
    writer.close()
    history = read_history(tmp_path)
    assert [{k: v for k, v in record.items() if k != "time"} for record in history] == [
        {"step": 3, "train/loss": 0.5, "train/count": 7.0},
        {"step": 4, "train/loss": 0.25},
    ]
    assert history[0]["time"] <= history[1]["time"]
    (events,) = read_events(tmp_path)
    assert {key: value.simple_value for key, value in values(events).items()} == {
        (3, "train/loss"): 0.5,
        (3, "train/count"): 7.0,
        (4, "train/loss"): 0.25,
    }


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    writer = Writer(tmp_path)
    writer.write_scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (record["a"], record["b"], record["c"]) == ("nan", "inf", "-inf")
    (back,) = read_history(tmp_path)
    assert math.isnan(back["a"]) and back["b"] == math.inf and back["c"] == -math.inf
    assert math.isnan(values(read_events(tmp_path)[0])[1, "a"].simple_value)


@pytest.mark.parametrize("scalars, words", [({"a": np.zeros(2)}, "one element"), ({"time": 1.0}, "rename")])
def test_scalars_refuse_arrays_and_reserved_names(tmp_path, scalars, words):
    writer = Writer(tmp_path)
    with pytest.raises(ValueError, match=words):
        writer.write_scalars(1, scalars)
    writer.close()
    assert read_history(tmp_path) == []


def test_videos_images_texts_and_settings_reach_tensorboard(tmp_path):
    video = np.zeros((6, 128, 128, 3), np.uint8)
    video[3:, :, :, 0] = 255
    writer = Writer(tmp_path)
    writer.write_videos(5, {"one": video, "two": np.stack([video, video])}, fps=10)
    writer.write_images(5, {"image": video[3], "images": video[:2]})
    writer.write_texts(5, {"note": "words"})
    writer.write_hparams({"optim": {"rate": 0.1, "name": "adam"}, "sizes": (1, 2)})
    writer.close()
    found = values(read_events(tmp_path)[0])
    with Image.open(io.BytesIO(found[5, "one"].image.encoded_image_string)) as gif:
        assert gif.format == "GIF" and gif.size == (128, 128) and gif.n_frames == 2  # equal frames are merged
        gif.seek(1)
        assert gif.convert("RGB").getpixel((9, 9)) == (255, 0, 0) and gif.info["duration"] == 300
    assert Image.open(io.BytesIO(found[5, "two"].image.encoded_image_string)).size == (2 * 128 + 4, 128)
    png = Image.open(io.BytesIO(found[5, "image"].image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(png), video[3])
    assert Image.open(io.BytesIO(found[5, "images"].image.encoded_image_string)).size == (2 * 128 + 4, 128)
    assert found[5, "note/text_summary"].tensor.string_val == [b"words"]
    settings = b"".join(value.metadata.plugin_data.content for value in found.values())
    assert all(word in settings for word in (b"optim.rate", b"optim.name", b"adam", b"sizes", b"(1, 2)"))


KILLED = """
import os, signal, sys
from jaxvid.writer import Writer
writer = Writer(sys.argv[1])
for step in range(1, 8):
    writer.write_scalars(step, {"loss": 1 / step})
with open(sys.argv[1] + "/metrics.jsonl", "a") as file:
    file.write('{"step": 8, "lo')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_resuming_a_killed_run_repeats_nothing(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert killed.returncode == -signal.SIGKILL
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]

    writer = Writer(tmp_path, resume_step=5)
    writer.write_scalars(6, {"loss": 2.0})
    writer.close()
    assert [(r["step"], r["loss"]) for r in read_history(tmp_path)] == [(s, 1 / s) for s in range(1, 6)] + [(6, 2.0)]
    resumed = read_events(tmp_path)[-1]
    # TensorBoard drops earlier events from the step of a start event on
    assert [event.step for event in resumed if event.session_log.status == 1] == [6]


def test_starting_afresh_drops_an_earlier_log(tmp_path):
    for value in (1.0, 2.0):
        writer = Writer(tmp_path)
        writer.write_scalars(0, {"loss": value})
        writer.close()
    assert [record["loss"] for record in read_history(tmp_path)] == [2.0]


def test_resuming_keeps_values_that_are_not_finite(tmp_path):
    for resume_step in (None, 1):
        writer = Writer(tmp_path, resume_step)
        writer.write_scalars(1 if resume_step is None else 2, {"loss": math.nan})
        writer.close()
    assert [math.isnan(record["loss"]) for record in read_history(tmp_path)] == [True, True]


def test_history_without_a_log_is_empty_and_a_broken_line_is_named(tmp_path):
    assert read_history(tmp_path) == []
    for broken in ("{}", "[1]", "words", '{"step": 2'):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 0.0}\n' + broken + '\n{"step": 3, "time": 0.0}\n')
        with pytest.raises(ValueError, match="line 2"):
            read_history(tmp_path)


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
    """A clock that stands still until its only element is changed."""
    now = [100.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    return now


def run(line: ProgressLine, clock: list[float], steps: range, seconds: float) -> None:
    for step in steps:
        clock[0] += seconds
        line.update(step, {"loss": 0.12345, "psnr": 20.0}, clips_per_second=64.0, waiting=0.031)


def test_progress_in_a_log_file_is_a_line_every_ten_seconds_or_ten_percent(clock):
    log = io.StringIO()
    run(ProgressLine(1000, stream=log), clock, range(1, 1001), seconds=0.01)
    assert [line.split()[1] for line in log.getvalue().splitlines()] == [f"{s}/1000" for s in range(100, 1001, 100)]
    assert "\r" not in log.getvalue()

    log = io.StringIO()
    run(ProgressLine(1000, stream=log), clock, range(1, 51), seconds=1.0)
    assert [line.split()[1] for line in log.getvalue().splitlines()] == [f"{s}/1000" for s in range(10, 51, 10)]


def test_progress_of_a_week_is_no_flood(clock):
    log = io.StringIO()
    run(ProgressLine(7 * 24 * 3600 // 2, stream=log), clock, range(1, 7 * 24 * 3600 // 2 + 1), seconds=2.0)
    assert 500 < len(log.getvalue().splitlines()) < 900


def test_progress_shows_the_fields_and_the_time_left_since_resuming(clock):
    log = io.StringIO()
    line = ProgressLine(2000, start_step=1000, stream=log)
    clock[0] += 500  # compiling does not count
    run(line, clock, range(1001, 1101), seconds=2.0)
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
    run(line, clock, range(0, 1000), seconds=2.0)
    run(line, clock, range(1000, 9000), seconds=0.5)
    run(line, clock, range(9000, 10_000), seconds=0.5)
    assert "step 9000/10000  loss 0.1235  psnr 20  8m20s left" in log.getvalue()


def test_progress_in_a_terminal_keeps_to_one_line_beneath_messages(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    terminal = Terminal()
    line = ProgressLine(100, stream=terminal)
    run(line, clock, range(1, 100), seconds=1.0)
    line.message("saved")
    assert terminal.screen() == ["saved", "step 99/100  loss 0.1235  psnr 20  1s left"]
    line.update(100, {"loss": 0.1}, 64.0, 0.0)
    line.close()
    terminal.write("next")
    assert terminal.screen() == ["saved", "step 100/100  loss 0.1  0s left  64 clips/s", "next"]
    assert max(len(part) for part in terminal.getvalue().replace("\r", "\n").split("\n")) < 50
    assert terminal.getvalue().count("\n") == 2


def test_progress_in_a_notebook_is_rewritten_in_place(clock):
    stream_class = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    stream = stream_class()
    run(ProgressLine(100, stream=stream), clock, range(1, 50), seconds=1.0)
    assert "\n" not in stream.getvalue() and stream.getvalue().count("step 49/100") == 1


@pytest.mark.parametrize("seconds, text", [(0.4, "0s"), (62, "1m02s"), (3725, "1h02m"), (3599.7, "1h00m")])
def test_duration(seconds, text):
    assert writer_module._duration(seconds) == text
