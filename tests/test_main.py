"""The program as its users run it: real processes, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import QUICK, ROOT
from PIL import Image

from jaxvid.core import TrainState
from jaxvid.main import main, parse
from jaxvid.run import load

pytestmark = pytest.mark.xdist_group("main")  # one worker, one compilation cache
RECIPE = ("--config", "configs/vqvae.py:tiny")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """One device, and one compilation cache for all runs of this file."""
    kept = {name: value for name, value in os.environ.items() if name != "NPROC"}
    return kept | {"XLA_FLAGS": QUICK, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def start(arguments: Sequence[str], environment: dict[str, str], **kwargs) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxvid.main", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
    )


def run(arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    process = start(arguments, environment)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def bits(state: TrainState) -> list[bytes]:
    raw = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(raw)]


def numbers(workdir: Path) -> list[dict]:
    """What was logged, less what depends on the time of day."""
    clock = ("time", "train/clips_per_second", "train/waiting")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def logged(workdir: Path) -> int:
    """The last step in metrics.jsonl, 0 if there is none."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


@pytest.fixture(scope="module")
def uninterrupted(environment, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, output = run([*RECIPE, "--workdir", str(workdir)], environment)
    assert code == 0, output
    return workdir


def test_a_run_leaves_everything_that_it_says(uninterrupted: Path, environment) -> None:
    code, output = run([*RECIPE, "--workdir", str(uninterrupted)], environment)
    assert code == 0 and "Finished at step 20" in output
    for name in ("report.html", "samples", "metrics.jsonl", "tensorboard", "checkpoints", "config.json"):
        assert name in output and (uninterrupted / name).exists()
    assert json.loads((uninterrupted / "config.json").read_text())["train"]["steps"] == 20
    assert {p.name for p in (uninterrupted / "samples").iterdir()} == {
        f"step_{step:07d}.{kind}" for step in (10, 20) for kind in ("png", "gif", "mp4")
    }
    assert Image.open(uninterrupted / "samples" / "step_0000020.png").size[0] > 200
    assert "<video" in (uninterrupted / "report.html").read_text()
    assert re.search(r"tokenizer: [\d,]+ parameters, decoder [\d,]+, encoder [\d,]+\n", output), output
    assert "kernel" not in output and "encoder/Conv_0/kernel" in (uninterrupted / "report.html").read_text()
    evaluations = [line for line in numbers(uninterrupted) if "eval/psnr" in line]
    assert [line["step"] for line in evaluations] == [10, 20]
    assert evaluations[1]["eval/psnr"] > evaluations[0]["eval/psnr"]


def test_killed_at_random_moments_it_ends_with_the_same_bits(uninterrupted: Path, environment, tmp_path: Path) -> None:
    random = np.random.default_rng()
    arguments = [*RECIPE, "--workdir", str(tmp_path), "--config.train.save_every=3"]
    # Once while it starts, then at random steps and at any moment of them, whatever is being written.
    for step in [None, *sorted(random.integers(2, 16, 2))]:
        process = start(arguments, environment)
        if step is None:
            time.sleep(random.uniform(0.5, 4))
        while step is not None and process.poll() is None and logged(tmp_path) < step:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, output
    code, output = run(arguments, environment)
    assert code == 0, output
    assert bits(load(tmp_path).state) == bits(load(uninterrupted).state)
    assert numbers(tmp_path) == numbers(uninterrupted)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 0)])
def test_a_signal_saves_first_and_the_same_command_goes_on(
    number, workers, uninterrupted, environment, tmp_path: Path
) -> None:
    arguments = [*RECIPE, "--workdir", str(tmp_path), "--config.train.save_every=1000"]
    process = start([*arguments, f"--config.train.workers={workers}"], environment, start_new_session=True)
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.02)
    os.killpg(process.pid, number)  # a terminal sends Ctrl-C to the worker processes too
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + number and "Traceback" not in output, output
    step = int(output.rsplit("Stopped after step ", 1)[1].split(",")[0])
    assert 2 <= step < 20 and int(load(tmp_path).state.step) == step
    assert step <= 10 or f"<b>stopped at step {step}</b>" in (tmp_path / "report.html").read_text()
    code, output = run(arguments, environment)
    assert code == 0 and f"Resuming from step {step}." in output
    assert bits(load(tmp_path).state) == bits(load(uninterrupted).state)


def test_it_goes_on_under_the_other_parallel_mode_on_other_devices_and_for_longer(
    environment, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(ROOT)
    arguments = [*RECIPE, "--workdir", str(tmp_path)]
    assert main(["main", *arguments, "--config.train.steps=10"]) == 0  # on the eight devices of the tests
    assert main(["main", *arguments, "--config.train.parallel=pmap"]) == 0
    told = capsys.readouterr().err
    assert "8 x cpu (cpu) under pmap" in told and "Resuming from step 10." in told
    code, output = run([*arguments, "--config.train.steps=22"], environment)
    assert code == 0 and "Resuming from step 20." in output, output


def test_any_player_may_differ_in_any_field_of_its_optimizer() -> None:
    words = ["--config.optim.players.encoder.learning_rate=2e-4", "--config.optim.players.encoder.accumulate=2"]
    _, config = parse(["main", "--config", str(ROOT / "configs" / "vae.py:tiny"), *words])
    assert config.optim.players.to_dict() == {"encoder": {"learning_rate": 2e-4, "accumulate": 2}}


def test_a_changed_config_is_refused_with_a_line_per_field(uninterrupted: Path, environment) -> None:
    changed = ("--config.train.seed=5", "--config.model.dim=16", "--config.train.log_every=7")
    code, output = run([*RECIPE, "--workdir", str(uninterrupted), *changed], environment)
    assert code == 2 and "Traceback" not in output
    assert "train.seed: the run has 0, the config now says 5" in output and "model.dim" in output
    assert "log_every" not in output and "--workdir" in output


def test_a_loss_that_is_not_finite_stops_the_run(environment, tmp_path: Path) -> None:
    # The warm-up's first rate is 0, the second moves the parameters to where the third loss overflows.
    arguments = [*RECIPE, "--workdir", str(tmp_path), "--config.optim.name=sgd", "--config.optim.clip=0.0"]
    code, output = run([*arguments, "--config.optim.learning_rate=1e30", "--config.train.save_every=1"], environment)
    assert code == 1 and "Traceback" not in output
    assert " is nan at step 3" in output or " is inf at step 3" in output, output
    assert int(load(tmp_path).state.step) == 2


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("localhost", "JAX_COORDINATOR_ADDRESS is localhost, without a port"),
        ("localhost:", "without a port"),
        ("localhost:99999", "without a port of 1 to 65535"),
        ("localhost:1234", "other processes .*: outside of Slurm, .* set JAX_COORDINATOR_ADDRESS=HOST:PORT"),
    ],
)
def test_processes_that_are_not_described_are_one_sentence(address: str, sentence: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: [][0])  # what JAX itself ends with
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2" if address != "localhost:1234" else "x")
    monkeypatch.chdir(ROOT)
    assert main(["main", *RECIPE, "--distributed"]) == 2
    output = capsys.readouterr().err
    assert re.search(sentence, output) and output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "configs/vqvea.py"], "--config configs/vqvea.py is no recipe and no file"),
        (["--config", "README.md"], "README.md is no recipe in Python"),
        ([*RECIPE, "--config.train.step=5"], "--config.train.step: no such field; the nearest is --config.train.steps"),
        ([*RECIPE, "--config.trian.steps=5"], "the nearest is --config.train.steps"),
        ([*RECIPE, "--config.train.steps=many"], "--config.train.steps=many: expected a whole number"),
        ([*RECIPE, "--wokdir=x"], "There is no option --wokdir; did you mean --workdir?"),
        ([*RECIPE, "more"], '"more" is not understood; a field is set as --config.train.steps=500'),
        (
            [*RECIPE, "--config.data.resolution=18"],
            "model.downsample (4, 4, 4) does not divide the video: height 18 by 4",
        ),
        ([*RECIPE, "--config.model.downsample=(4,3,4)"], "does not divide the video: height 16 by 3"),
        ([*RECIPE, "--config.model.downsample=(4,4)"], "expected whole factors of time, height and width"),
        ([*RECIPE, "--train.steps=5"], "did you mean --config.train.steps=5?"),
        ([*RECIPE, "--config.data.path=shared"], "data.path is 'shared', which the source 'synthetic' does not read"),
        ([*RECIPE, "--config.train.steps", "5", "--config.optim.accumulate=6"], "expected 1 to the 5 train.steps"),
        ([*RECIPE, "--config.data.name=foldr"], "folder"),
        ([*RECIPE, "--config.data.name=folder", "--config.data.path=nowhere"], "nowhere"),
        ([*RECIPE, "--config.model.quantizer.name=emma"], "did you mean ema?"),
        ([*RECIPE, "--config.optim.name=adamm"], 'the nearest is "adam"'),
        ([*RECIPE, "--config.train.parallel=pjit"], 'expected "jit" or "pmap"'),
        ([*RECIPE, "--config.method=vqgan"], "method"),
        ([*RECIPE, "--workdir", "README.md/run"], "README.md"),
        ([*RECIPE, "--workdir=gs://bucket/run"], "gs:// is not supported"),
        ([*RECIPE, "--workdir="], "an empty path names no file and no folder"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(arguments: list[str], sentence: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["main", *arguments]) in (1, 2)
    output = "".join(capsys.readouterr())
    assert sentence in output and "Traceback" not in output, output
    assert len(output.strip().splitlines()) <= 3
