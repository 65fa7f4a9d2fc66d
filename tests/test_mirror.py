"""A run's copy: whole checkpoints, nothing stale, and a run that comes back from it."""

import json
import shutil
import time
from pathlib import Path

import pytest

from jaxvid import mirror
from jaxvid.mirror import mirrored


def write(folder: Path, step: int, content: str = "") -> None:
    """A finished checkpoint, and the log up to it, of a stand-in for a run."""
    path = folder / "checkpoints" / str(step) / "state"
    path.mkdir(parents=True)
    (path / "array").write_text(content or f"state {step}")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{step}\n")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_holds_the_finished_checkpoints_that_the_run_keeps(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "drive" / "run"
    with mirrored(run, copy):
        write(run, 10)
        (run / "samples").mkdir()
        (run / "samples" / "a.png").write_text("picture")
        (run / ".lock").write_text("process 1")
        (run / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir()
    kept = {"checkpoints/10/state/array": "state 10", "metrics.jsonl": "10\n", "samples/a.png": "picture"}
    assert files(copy) == kept and not list(copy.rglob("20*"))
    with mirrored(run, copy):
        write(run, 20)
        shutil.rmtree(run / "checkpoints" / "10")
    assert files(copy) == {
        "checkpoints/20/state/array": "state 20",
        "metrics.jsonl": "10\n20\n",
        "samples/a.png": "picture",
    }


def test_it_copies_while_the_run_trains_and_after_it_has_failed(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    with pytest.raises(RuntimeError, match="stop"), mirrored(run, copy, every=0.01):
        write(run, 10)
        deadline = time.monotonic() + 30
        while not (copy / "checkpoints" / "10").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (copy / "checkpoints" / "10" / "state" / "array").read_text() == "state 10"
        write(run, 20)
        raise RuntimeError("stop")
    assert files(copy) == files(run)


def test_a_lost_run_comes_back_from_its_copy(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    with mirrored(run, copy):
        write(run, 10)
    before = files(run)
    shutil.rmtree(run)
    with mirrored(run, copy):
        assert files(run) == before


@pytest.mark.parametrize("target", ["run", "run/copy", ".", "run/../run/copy"])
def test_a_copy_and_its_run_lie_apart(target, tmp_path):
    write(tmp_path / "run", 10)
    before = files(tmp_path)
    with (
        pytest.raises(ValueError, match="lie one in the other"),
        mirrored(tmp_path / "run", tmp_path / target, every=0.01),
    ):
        time.sleep(0.1)
    assert files(tmp_path) == before


def test_a_place_that_is_none_is_said_before_the_run_begins(tmp_path):
    (tmp_path / "drive").touch()
    with pytest.raises(OSError, match="drive could not be written"), mirrored(tmp_path / "run", tmp_path / "drive"):
        raise AssertionError("it began")
    with (
        pytest.raises(OSError, match="drive/run could not be written"),
        mirrored(tmp_path / "run", tmp_path / "drive/run"),
    ):
        raise AssertionError("it began")


def test_a_copy_that_has_come_further_is_not_replaced(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    write(run, 10)
    write(copy, 500)
    with pytest.raises(ValueError, match="holds a run at step 500, and .* at step 10: delete"), mirrored(run, copy):
        pass
    assert set(mirror.checkpoints(copy)) == {500}


def test_a_copy_of_another_run_is_not_replaced(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    write(run, 500)
    write(copy, 10)
    for folder, method, steps in ((run, "vae", 500), (copy, "vqvae", 10)):
        (folder / "config.json").write_text(json.dumps({"method": method, "train": {"steps": steps}}))
    with pytest.raises(ValueError, match="copy holds a run with another config than .*: name another target") as error:
        with mirrored(run, copy):
            pass
    assert set(mirror.checkpoints(copy)) == {10} and "train.steps" not in str(error.value)  # which may change


def test_nothing_is_copied_of_a_run_that_did_not_begin(tmp_path, recwarn):
    with mirrored(tmp_path / "run", tmp_path / "copy"):
        pass
    assert not list(tmp_path.iterdir()) and not recwarn


def test_a_drive_that_fails_is_a_warning_and_leaves_no_part_of_a_checkpoint(tmp_path, monkeypatch):
    run, copy = tmp_path / "run", tmp_path / "copy"
    copytree = shutil.copytree

    def broken(source, target, *options):
        copytree(source, target, *options)
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(shutil, "copytree", broken)
    with pytest.warns(UserWarning, match="not connected"), mirrored(run, copy):
        write(run, 10)
    assert not list((copy / "checkpoints").glob("*"))
    monkeypatch.undo()
    with mirrored(run, copy):
        pass
    assert files(copy) == files(run)


def test_a_checkpoint_that_the_run_deletes_meanwhile_is_left_out(tmp_path, monkeypatch):
    run, copy = tmp_path / "run", tmp_path / "copy"
    copytree = shutil.copytree

    def slow(source, target, *options):
        copytree(source, target, *options)
        if Path(source).name == "10":
            shutil.rmtree(source)

    monkeypatch.setattr(shutil, "copytree", slow)
    with mirrored(run, copy):
        write(run, 10)
        write(run, 20)
    assert set(mirror.checkpoints(copy)) == {20}
