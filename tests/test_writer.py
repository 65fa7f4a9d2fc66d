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
    writer.write_scalars(3, {"train/loss": 0.5, "train/count": 7})
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


def test_images_reach_tensorboard(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    writer = Writer(tmp_path)
    writer.write_image(5, "eval/videos", image)
    writer.close()
    found = values(read_events(tmp_path)[0])
    png = Image.open(io.BytesIO(found[5, "eval/videos"].image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(png), image)


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
        writer.write_scalars(1, {"loss": value})
        writer.close()
    assert [record["loss"] for record in read_history(tmp_path)] == [2.0]


def test_resuming_keeps_values_that_are_not_finite(tmp_path):
    for resume_step in (0, 1):
        writer = Writer(tmp_path, resume_step)
        writer.write_scalars(resume_step + 1, {"loss": math.nan})
        writer.close()
    assert [math.isnan(record["loss"]) for record in read_history(tmp_path)] == [True, True]


class FakeWandb:
    """What `writer` needs of the package wandb: keeps what it is given."""

    Error = RuntimeError
    Image = staticmethod(lambda image: ("image", image.shape))

    def __init__(self):
        self.runs, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.runs.append(settings)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_weights_and_biases_get_the_same_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for resume_step in (0, 3, 0):
        writer = Writer(tmp_path, resume_step, "videos", {"train.steps": 4})
        writer.write_scalars(resume_step + 1, {"train/loss": 0.5})
        writer.write_image(resume_step + 1, "eval/videos", np.zeros((4, 6, 3), np.uint8))
        writer.close()
    assert [(run["project"], run["name"], run["resume"]) for run in fake.runs] == [
        ("videos", tmp_path.name, "allow")
    ] * 3
    first, resumed, afresh = (run["id"] for run in fake.runs)
    assert first == resumed != afresh and fake.runs[0]["config"] == {"train.steps": 4}
    assert fake.logged[2:4] == [(4, {"train/loss": 0.5}), (4, {"eval/videos": ("image", (4, 6, 3))})]
    assert fake.finished == 3


def test_weights_and_biases_that_cannot_start_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'jaxvid\[wandb\]'"):
        Writer(tmp_path, project="videos")
    fake = FakeWandb()
    monkeypatch.setattr(fake, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("No API key")))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(
        ValueError, match=r"cannot start \(No API key\): `wandb login` first, or set WANDB_MODE=offline"
    ):
        Writer(tmp_path, project="videos")


def test_a_full_disk_names_the_file_and_hangs_nobody(tmp_path):
    writer = Writer(tmp_path)
    writer._metrics = open("/dev/full", "a")
    with pytest.raises(OSError, match="/dev/full could not be written: No space left on device"):
        writer.write_scalars(1, {"loss": 1.0})
    writer.close()
    writer = Writer(tmp_path)
    writer._events._py_recordio_writer._writer = open("/dev/full", "wb")
    with pytest.raises(OSError, match="tensorboard could not be written: No space left on device"):
        for step in range(200):
            writer.write_image(step, "a", np.random.default_rng(step).integers(0, 256, (64, 64, 3), np.uint8))
    writer.close()


def test_history_without_a_log_is_empty_and_a_broken_line_is_named(tmp_path):
    assert read_history(tmp_path) == []
    for broken in ("{}", "[1]", "words", '{"step": 2'):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 0.0}\n' + broken + '\n{"step": 3, "time": 0.0}\n')
        with pytest.raises(ValueError, match="line 2"):
            read_history(tmp_path)
