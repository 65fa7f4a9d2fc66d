"""Two processes with two devices each take the steps of one device, end together, and go on where they ended."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict
from pixel_method import get_config

from jaxvid import checkpoint, parallel
from jaxvid import run as run_lib
from jaxvid import train as train_lib
from jaxvid.core import TrainState

pytestmark = pytest.mark.xdist_group("distributed")  # which starts the processes once
DEADLINE = 280  # seconds for two processes, on a machine that is busy with other tests
SCORED = {"eval.metrics": ("motion", "psnr")}
COMPARED = 3  # steps
# Neither needs PyTorch, which TensorBoard's writer imports where it is there, at a third of the time of the rest.
START = "import sys; sys.modules['torch'] = None; import jaxvid.main as main, jaxvid.train as train\n"
RUN = "sys.exit(main.main(sys.argv))"
# The second process fails after its fourth step.
FAIL = """
finite = train.finite
def failing(step, metrics):
    if step == 4 and train.jax.process_index() == 1:
        raise ValueError("its disk is gone.")
    return finite(step, metrics)
train.finite = failing
"""


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))  # for the method, tests.pixel_method
        yield


class Ended(NamedTuple):
    """Two processes that have ended."""

    codes: list[int]
    outputs: list[str]


def places(cluster: str) -> list[dict[str, str]]:
    """The variables by which two processes of this machine find each other: of JAX, or those that Slurm sets."""
    with contextlib.ExitStack() as tried:
        while True:  # Slurm's port follows from the number of the job
            free = tried.enter_context(socket.socket())
            port = random.randrange(61440, 65536)
            with contextlib.suppress(OSError):
                free.bind(("localhost", port))
                break
    if cluster == "slurm":
        job = {"SLURM_JOB_ID": str(port - 61440), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
        return [job | {"SLURM_PROCID": place, "SLURM_LOCALID": place} for place in "01"]
    job = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    return [job | {"JAX_PROCESS_ID": place} for place in "01"]


def together(
    workdirs: list[Path],
    settings: dict,
    act: Callable = lambda running: None,
    patch: str = "",
    cluster: str = "",
) -> Ended:
    """Runs two processes of two devices to their end; `act` may send them signals. Both are dead afterwards."""
    fields = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-c", START + patch + RUN, "--config", "tests/pixel_method.py", "--distributed", *fields]
    shared = {"NPROC": "16", "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")}
    logs = [workdir.with_name(f"{workdir.name}.{number}.log") for number, workdir in enumerate(workdirs)]
    running = []
    for place, workdir, log in zip(places(cluster), workdirs, logs, strict=True):
        with log.open("w") as file:
            options = {"cwd": ROOT, "env": os.environ | shared | place, "stdout": file, "stderr": subprocess.STDOUT}
            running.append(subprocess.Popen([*command, "--workdir", str(workdir)], **options))
    until = time.monotonic() + DEADLINE
    try:
        act(running)
        codes = [process.wait(max(1, until - time.monotonic())) for process in running]
    except subprocess.TimeoutExpired:
        pytest.fail("\n".join(log.read_text() for log in logs))
    finally:
        for process in running:
            process.kill()
    return Ended(codes, [log.read_text() for log in logs])


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same(line: dict, expected: dict) -> None:
    assert line.keys() == expected.keys()
    for name in line.keys() - {"time", "train/clips_per_second", "train/waiting"}:
        np.testing.assert_allclose(line[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def steps_of(workdir: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").glob("[0-9]*") if folder.name.isdigit())


def config_of(**settings) -> ConfigDict:
    config = get_config()
    config.update_from_flattened_dict(settings)
    return config


@contextlib.contextmanager
def devices(count: int) -> Iterator[None]:
    """Training takes so many devices of this process."""
    mesh = parallel.make_mesh(jax.devices()[:count])
    with mock.patch.object(parallel, "make_mesh", lambda: mesh):
        yield


class Stepped(NamedTuple):
    """Some steps in this process."""

    state: TrainState
    metrics: list[dict]


@pytest.fixture(scope="module")
def stepped() -> Callable[[int, bool], Stepped]:
    """The first steps on so many devices, sharded or not."""

    def run(count: int, shard: bool) -> Stepped:
        with devices(count):
            job = train_lib.prepare(config_of(**{"train.shard": shard}))
        with job.train_batches(0) as batches:
            found = [parallel.put_batch(batch, job.mesh) for batch in itertools.islice(batches, COMPARED)]
        abstract = jax.eval_shape(job.plain.init, jax.random.key(0), found[0])
        shardings = parallel.state_sharding(abstract, job.mesh, shard)
        state = parallel.make_init(job.plain.init, job.mesh, shardings)(jax.random.key(0), found[0])
        step = train_lib.compiled(job, state, found[0], mock.Mock())
        metrics = []
        for batch in found:
            state, values = step(state, batch)
            metrics.append({f"train/{name}": float(value) for name, value in values.items()})
        distributed = [leaf for leaf in jax.tree.leaves((state.opt_state, state.ema)) if not leaf.is_fully_replicated]
        assert len(distributed) == (4 if shard else 0)
        return Stepped(plain(state), metrics)

    return run


def plain(state: TrainState) -> TrainState:
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


def assert_states_agree(state: TrainState, expected: TrainState) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain(state), plain(expected))


class Story(NamedTuple):
    """A run that was stopped by a signal to one process, damaged, and resumed with a sharded state."""

    begun: Path
    stopped: Ended
    at: int  # the step
    resumed: Ended
    workdir: Path


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    folder = tmp_path_factory.mktemp("two")
    workdir, begun, other = folder / "run", folder / "begun", folder / "other"

    def stop_the_second(running: list[subprocess.Popen]) -> None:
        until = time.monotonic() + DEADLINE
        while not (workdir / "checkpoints" / str(COMPARED)).is_dir() and time.monotonic() < until:
            time.sleep(0.1)
        running[1].send_signal(signal.SIGTERM)

    stopped = together([workdir, workdir], {}, stop_the_second)
    assert stopped.codes == [143, 143], stopped.outputs
    at = max(steps_of(workdir))
    file = max(
        (p for p in (workdir / "checkpoints" / str(at) / "state").rglob("*") if p.is_file()), key=os.path.getsize
    )
    file.write_bytes(file.read_bytes()[:100])
    # The first process alone sees that the step before is evaluated already.
    with (workdir / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": at - 1, "time": 0.0, "eval/loss": 0.0}) + "\n")
    other.mkdir()
    for entry in workdir.iterdir():
        if entry.name != "metrics.jsonl":
            (other / entry.name).symlink_to(entry)
    shutil.copytree(workdir, begun)
    settings = {"train.shard": True, "train.steps": at + 1, "eval.every": at - 1, **SCORED}
    return Story(begun, stopped, at, together([workdir, other], settings), workdir)


def test_processes_take_the_steps_of_one_device_sharded_or_not(story, stepped) -> None:
    one, whole, sharded = stepped(1, False), stepped(4, False), stepped(4, True)
    for line, *found in zip(lines(story.begun), one.metrics, whole.metrics, sharded.metrics, strict=False):
        line = {name: value for name, value in line.items() if name in found[0]}
        for values in found:
            assert_same(values, line)
    for each in (whole, sharded):
        assert_states_agree(each.state, one.state)


def test_a_signal_to_one_process_ends_both_after_a_saved_step(story) -> None:
    assert all(f"Stopped after step {story.at}, which is saved" in output for output in story.stopped.outputs)
    assert [line["step"] for line in lines(story.begun)] == [*range(1, story.at + 1), story.at - 1]
    assert steps_of(story.begun) == [story.at - 1, story.at]


@pytest.mark.filterwarnings("ignore:.* a singular covariance")
def test_both_resume_from_the_whole_checkpoint_and_evaluate_what_the_first_owes(story, tmp_path) -> None:
    assert story.resumed.codes == [0, 0], story.resumed.outputs
    assert "Finished" in story.resumed.outputs[0] and "Finished" not in story.resumed.outputs[1]
    assert f"Resuming from step {story.at - 1}." in story.resumed.outputs[0]
    assert (story.workdir / "damaged_checkpoints" / f"{story.at}-0").is_dir()
    # As one process with one device does, scores included.
    config = config_of(**{"train.steps": story.at + 1, "eval.every": story.at - 1, **SCORED})
    with devices(1):
        state = train_lib.train(config, story.begun)
    for line, expected in zip(lines(story.workdir)[story.at :], lines(story.begun)[story.at :], strict=True):
        assert_same(line, expected)
    assert {"eval/motion", "eval/psnr"} <= lines(story.begun)[-1].keys()
    # What four devices have saved, each its part, one and four restore.
    assert_states_agree(run_lib.load(story.workdir).state, state)
    for shard in (False, True):
        abstract = jax.eval_shape(lambda: state)
        shardings = parallel.state_sharding(abstract, parallel.make_mesh(jax.devices()[:4]), shard)
        restored = checkpoint._restore_newest(story.workdir / "checkpoints", checkpoint.placed(abstract, shardings))[0]
        assert_states_agree(restored, state)


def test_one_that_fails_ends_both_with_its_sentence(tmp_path, stepped) -> None:
    ended = together([tmp_path / "run"] * 2, {"train.parallel": "pmap"}, patch=FAIL, cluster="slurm")
    assert ended.codes == [2, 2], ended.outputs
    assert "jaxvid: its disk is gone." in ended.outputs[1]
    assert "Ended with process 1, which says: jaxvid: its disk is gone." in ended.outputs[0]
    for line, expected in zip(lines(tmp_path / "run"), stepped(1, False).metrics, strict=False):
        assert_same({name: value for name, value in line.items() if name in expected}, expected)
