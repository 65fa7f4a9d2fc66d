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


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_processes_take_the_same_steps_as_one(mode: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = [f"--config.train.parallel={mode}"]
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(tmp_path / "two", 1, *arguments, "--distributed", JAX_PROCESS_ID=str(number), **together)
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Finished" in outputs[0] and "Finished" not in outputs[1]
    alone = start(tmp_path / "one", 2, *arguments)
    output, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, output
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert len(two) == len(one) == 22
    for line, expected in zip(two, one, strict=True):
        assert line.keys() == expected.keys()
        for name in line.keys() - {"time", "train/clips_per_second", "train/waiting"}:
            np.testing.assert_allclose(line[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
