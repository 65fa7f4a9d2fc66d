"""Two processes that share each batch take the same steps as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

pytestmark = pytest.mark.xdist_group("distributed")  # which computes the run of one process once
# SGD, since rounding flips the signs that Adam's first steps are made of.
ARGUMENTS = ["--config", "configs/vqvae.py:tiny", "--config.optim.name=sgd", "--config.optim.learning_rate=0.01"]


def start(workdir: Path, devices: int, *arguments: str, **environment: str) -> subprocess.Popen:
    environment |= {"NPROC": "16", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "jaxvid.main", *ARGUMENTS, "--workdir", str(workdir), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The run of one process with two devices under jit."""
    workdir = tmp_path_factory.mktemp("one")
    process = start(workdir, 2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return workdir


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_processes_take_the_same_steps_as_one(mode: str, one: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(tmp_path, 1, f"--config.train.parallel={mode}", "--distributed", JAX_PROCESS_ID=str(number), **together)
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Finished" in outputs[0] and "Finished" not in outputs[1]
    assert len(metrics(tmp_path)) == 22
    for line, expected in zip(metrics(tmp_path), metrics(one), strict=True):
        assert line.keys() == expected.keys()
        for name in line.keys() - {"time", "train/clips_per_second", "train/waiting"}:
            np.testing.assert_allclose(line[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
