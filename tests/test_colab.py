"""The notebooks of colab/: their form, what their set-up decides, and what they do, executed at tiny sizes."""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from conftest import QUICK, ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement

pytestmark = pytest.mark.xdist_group("colab")  # one worker: they share compiled programs
NOTEBOOKS = {path.stem: nbformat.read(path, 4) for path in sorted((ROOT / "colab").glob("*.ipynb"))}


def cell_of(notebook: Any, name: str) -> Any:
    (found,) = [cell for cell in notebook.cells if cell.id == name]
    return found


def test_there_are_four_notebooks() -> None:
    assert set(NOTEBOOKS) == {"quickstart", "own_videos", "tpu", "sample_and_score"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_short_clean_and_begins_with_the_same_set_up(name: str) -> None:
    notebook = NOTEBOOKS[name]
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15 and notebook.cells[0].cell_type == "markdown"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert cell_of(notebook, "setup").source == cell_of(NOTEBOOKS["quickstart"], "setup").source
    order = [cell.id for cell in notebook.cells]
    assert order.index("parameters") == order.index("setup") + 1
    assert [cell.id for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])] == ["parameters"]
    # A second process could not reach a TPU beside the kernel, which holds it.
    assert not any(line.lstrip().startswith(("!", "%")) for cell in code for line in cell.source.splitlines())


class Machine:
    """A kernel's surroundings, of which the set-up sees this much; `calls` are the commands that it has run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], backend: str, gpu: bool = False):
        self.calls: list[list[str]] = []

        def version(package: str) -> str:
            if package not in installed:
                raise metadata.PackageNotFoundError(package)
            return installed[package]

        jax = SimpleNamespace(
            __version__="1",
            default_backend=lambda: backend,
            device_count=lambda: 1,
            devices=lambda: [SimpleNamespace(device_kind=backend)],
        )
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
        monkeypatch.setattr(subprocess, "run", lambda command, check: self.calls.append(command))
        monkeypatch.setitem(sys.modules, "jax", jax)
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
        monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)

    def set_up(self) -> list[list[str]]:
        exec(cell_of(NOTEBOOKS["quickstart"], "setup").source, {})
        return self.calls


TPU, GPU = {"numpy": "2.1.3", "libtpu": "0.0.20"}, {"numpy": "2.0.2", "jax-cuda12-plugin": "0.7.2"}


@pytest.mark.parametrize(
    "installed, gpu, backend, extra",
    [
        (TPU, False, "tpu", "tpu"),
        (GPU, True, "gpu", "cuda12"),
        (GPU, False, "cpu", ""),  # an image with the plugin on a machine without a card
        ({"numpy": "2.0.2"}, False, "cpu", ""),
    ],
)
@pytest.mark.parametrize("host", ["colab", "kaggle"])
def test_the_set_up_installs_for_the_accelerator_and_keeps_numpy(
    monkeypatch, host: str, installed: dict[str, str], gpu: bool, backend: str, extra: str
) -> None:
    machine = Machine(monkeypatch, installed, backend, gpu)
    if host == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    else:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    numpy = f"numpy=={installed['numpy']}"
    ((*pip, package, pinned),) = machine.set_up()
    assert (pip, pinned) == ([sys.executable, "-m", "pip", "install", "--quiet"], numpy)
    requirement = Requirement(package)
    assert (requirement.name, requirement.extras) == ("jaxvid", {extra} - {""})
    assert requirement.url == "git+https://github.com/jaxvid/jaxvid"


def test_the_set_up_refuses_an_accelerator_that_jax_does_not_see(monkeypatch) -> None:
    machine = Machine(monkeypatch, GPU, "cpu", gpu=True)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    with pytest.raises(AssertionError, match="runs on cpu, expected gpu: restart the session"):
        machine.set_up()


def test_the_set_up_changes_nothing_on_another_machine(monkeypatch) -> None:
    assert Machine(monkeypatch, TPU, "cpu").set_up() == []


def executed(
    name: str,
    folder: Path,
    lines: Sequence[str],
    devices: int = 1,
    stopped: Sequence[str] = (),
    then: Sequence[Any] = (),
) -> Any:
    """The notebook after a run in a new kernel, with `lines` after its parameters and the cells `then` at its end.

    The cells `stopped` may be interrupted, and are then run again: what they printed at first is in their metadata.
    """
    notebook = copy.deepcopy(NOTEBOOKS[name])
    notebook.cells += then
    place = notebook.cells.index(cell_of(notebook, "parameters")) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell("\n".join(lines)))
    flags = f"--xla_force_host_platform_device_count={devices} {QUICK}"
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "NPROC": str(2 * devices)}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, coalesce_streams=True)
    with client.setup_kernel(env=surroundings):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError:
                if cell.id not in stopped:
                    raise
                cell.metadata.first = cell.outputs
                client.execute_cell(cell, index)
    return notebook


def printed(notebook: Any, name: str) -> str:
    """What a cell printed, as a notebook shows it: what stands behind a carriage return is written over the line."""
    text = "".join(output.text for output in cell_of(notebook, name).outputs if output.output_type == "stream")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines())


def html(notebook: Any, name: str) -> str:
    return cell_of(notebook, name).outputs[-1].data["text/html"]


# Recipes for a few steps, and of what takes long to compile the simpler form.
FEW_STEPS = [
    "from jaxvid import config as config_lib",
    "def few_steps(name, recipe=config_lib.recipe):",
    "    config = recipe(name)",
    "    config.train.update(steps=4, save_every=4, log_every=1)",
    "    config.eval.update(every=4, examples=8)",
    "    if config.method == 'vqvae':",
    "        config.model.blocks = 0",
    "    if name.startswith('transformer'):",
    "        config.model.layers = 1",
    "    if name.startswith('acgan'):",
    "        config.loss.r1 = 0.0",
    "        del config.model.discriminators['frames']",
    "    return config",
    "config_lib.recipe = few_steps",
]
# What the stop button does, once the first step is recorded: the kernel gets SIGINT.
STOPPED = [
    "from jaxvid.recorder import Recorder",
    "def interrupted(self, number, metrics, step=Recorder.step):",
    "    step(self, number, metrics)",
    "    if number == 1 and Recorder.step is interrupted:",
    "        Recorder.step = step",
    "        os.kill(os.getpid(), __import__('signal').SIGINT)",
    "Recorder.step = interrupted",
]


def test_quickstart_trains_stops_resumes_and_shows(tmp_path) -> None:
    lines = ['TOKENIZER, PRIOR = "vqvae:tiny", "transformer:tiny"', *FEW_STEPS, *STOPPED]
    notebook = executed("quickstart", tmp_path, lines, stopped=["train-tokenizer"])
    *_, stop = cell_of(notebook, "train-tokenizer").metadata.first
    assert stop.output_type == "error" and re.fullmatch(
        "Stopped after step [1-3], which is saved; running the cell again resumes there.", "\n".join(stop.traceback)
    )
    again = printed(notebook, "train-tokenizer")
    assert re.search("^Resuming from step [1-3].$", again, re.MULTILINE) and "Finished at step 4." in again
    for name in ("report-tokenizer", "train-prior"):
        assert html(notebook, name).startswith("<iframe") and "finished" in html(notebook, name)
    assert "A clip (8, 16, 16, 3) of 6,144 bytes is (2, 4, 4) tokens, 20 bytes." in printed(notebook, "codec")
    assert html(notebook, "codec").count("data:video/mp4") == 4
    assert html(notebook, "samples").count("data:video/mp4") == 8 and "square_left</f" in html(notebook, "samples")


def test_own_videos_come_back_after_the_machine_is_lost(tmp_path) -> None:
    lines = ['RECIPE = "vqvae:tiny"', "FRAMES, RESOLUTION = 8, 16", *FEW_STEPS]
    notebook = NOTEBOOKS["own_videos"]
    lost = nbformat.v4.new_code_cell("shutil.rmtree(workdir)\nshutil.rmtree(records)", id="lost")
    again = [nbformat.from_dict({**cell_of(notebook, name), "id": f"{name}-again"}) for name in ("convert", "train")]
    notebook = executed("own_videos", tmp_path, lines, then=[lost, *again])
    assert "none yet" in printed(notebook, "drive")
    assert re.search("found +64 readable videos in 5 folders", printed(notebook, "check"))
    assert re.search("wrote [0-9]+ clips to runs/records/train, 0 left out", printed(notebook, "convert"))
    assert "Finished at step 4." in printed(notebook, "train") and html(notebook, "train").startswith("<iframe")
    assert html(notebook, "reconstruct").count("data:video/mp4") == 4
    resumed = printed(notebook, "train-again")
    assert "Resuming from step 4." in resumed and "changed" not in resumed  # the records are as they were
    assert (tmp_path / "runs/kept/own_videos/checkpoints/4").is_dir()


def test_the_step_is_timed_in_every_form(tmp_path) -> None:
    lines = ["CLIPS, STEPS = 4, 2", *FEW_STEPS]
    notebook = executed("tpu", tmp_path, lines, devices=2)
    table = "\n".join(printed(notebook, name) for name in ("dtype", "shard"))
    rows = {line[:22].strip(): [float(cell.strip("%")) for cell in line[22:].split()] for line in table.splitlines()}
    assert list(rows) == ["float32, jit", "bfloat16, jit", "bfloat16, pmap", "bfloat16, jit, sharded"]
    for milliseconds, clips, speed, share, _ in rows.values():
        assert abs(clips - 8000 / milliseconds) < 0.1 + 0.01 * clips  # two devices of four clips each, rounded
        assert speed > 0 and 0 <= share < 100
    operations = [speed * milliseconds for milliseconds, _, speed, *_ in rows.values()]
    assert max(operations) < 1.1 * min(operations)  # of a device, whatever the form
    *whole, parts = (state for *_, state in rows.values())
    assert len(set(whole)) == 1 and 0.5 < parts / whole[0] < 0.7  # parameters whole, all else in halves
    assert "clips/s" in printed(notebook, "loop") and "2 x cpu (cpu) under jit" in printed(notebook, "loop")


def test_samples_and_translations_are_scored(tmp_path) -> None:
    lines = ['GAN, TRANSLATOR, CLIPS = "acgan:tiny", "pix2pix:tiny", 8', *FEW_STEPS]
    notebook = executed("sample_and_score", tmp_path, [*lines, "os.environ['XDG_CACHE_HOME'] = os.getcwd()"])
    assert html(notebook, "samples").count("data:video/mp4") == 8
    assert re.search(r"motion +[\d.]+ +[\d.]+ to [\d.]+ +8 +8", printed(notebook, "score-run"))
    assert printed(notebook, "fetch") == "Metrics: motion"  # no weights are there, and none are fetched
    citation = r"^motion [\d.]+ \[[\d.]+, [\d.]+\]: Frechet motion distance .*; 8 real and 8 fake clips, frames 16"
    assert re.search(citation, printed(notebook, "score-sets"), re.MULTILINE)
    assert re.search(r"psnr +[\d.]+ +[\d.]+ to [\d.]+", printed(notebook, "train-translator"))
    assert html(notebook, "translate").count("data:video/mp4") == 4
