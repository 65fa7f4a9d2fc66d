"""The script for accelerators runs on the CPU, at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_the_smoke_run_measures_and_names_what_it_cannot(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "tests" / "benchmarks" / "accelerator.py"), "--smoke"]
    command = [*script, "--sections", "ceilings,priors,layers,deterministic", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "accelerator.json").read_text())
    assert {row["section"] for row in rows} == {"ceilings", "priors", "layers", "deterministic"}
    assert any(row.get("TFLOP/s", 0) > 0 for row in rows if row["section"] == "layers")
    priors = {row["what"]: row for row in rows if row["section"] == "priors"}
    assert priors["step, batch 2 of 8 tokens, float32"]["MFU"] > 0
    assert priors["sampling, batch 16, bfloat16"]["of copy"] > 0
    assert [row["equal bits"] for row in rows if "equal bits" in row] == [True]
    wrong = subprocess.run([*script, "--sections", "speed"], capture_output=True, text=True)
    assert wrong.returncode == 2 and 'no section "speed"' in wrong.stderr
