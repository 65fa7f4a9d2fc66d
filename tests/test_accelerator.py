"""The script for accelerators runs on the CPU, at tiny sizes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

BENCHMARKS = ROOT / "tests" / "benchmarks"


def test_the_smoke_run_measures_and_names_what_it_cannot(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--smoke"]
    command = [*script, "--sections", "ceilings,tokenizers,trace,forms", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "accelerator.json").read_text())
    (measured,), (traced,) = ([row for row in rows if row["section"] == name] for name in ("tokenizers", "trace"))
    assert measured["MFU"] > 0 and traced["what"] == measured["what"] == "vqvae:tiny, bfloat16"
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    figures = {row["what"]: row for row in rows}
    assert figures["matrix product, bfloat16"]["TFLOP/s"] > 0 and figures["sums of codes, products"]["ms"] > 0
    wrong = subprocess.run([*script, "--sections", "speed"], capture_output=True, text=True)
    assert wrong.returncode == 2 and 'no section "speed"' in wrong.stderr


def test_the_recipes_that_it_measures_are_there(monkeypatch) -> None:
    """With these fields and sizes, of every family; nothing is computed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    accelerator, workloads = (importlib.import_module(name) for name in ("accelerator", "workloads"))
    for table in (accelerator.STEPS, accelerator.TINY_STEPS):
        for step in (step for steps in table.values() for step in steps):
            config = workloads.recipe(step.recipe, {"model.dtype": step.dtype, **step.fields})
            assert workloads.find_method(config.method).make(config).train_step
    assert {*accelerator.WORK} | {"trace"} == {*accelerator.SECTIONS}
