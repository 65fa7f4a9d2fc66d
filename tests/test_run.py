"""A work folder is claimed by one run, whose data may move, and are compared with what they were."""

import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import images, train
from jaxvid import run as run_lib
from jaxvid.evaluate import __main__ as evaluate
from jaxvid.files import write_json


class Clips:
    """So many clips of so many classes; where they hold something else, the digest differs."""

    def __init__(self, clips: int, classes: int, sha256: str = "x"):
        self.classes, self.sha256, self._clips = [str(number) for number in range(classes)], sha256, clips

    def __len__(self) -> int:
        return self._clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def summary(self) -> str:
        return "clips"


BEGUN = {"train": Clips(22, 4), "eval": Clips(5, 4)}


def claim(workdir: Path, path: str, data: dict[str, Clips]) -> list[str]:
    """Claims a work folder for a run on data at a path, as training does, and returns the warnings."""
    config = config_lib.base()
    config.method = "vqvae"
    config.data.update(name="folder", path=path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_lib.claim(workdir, config, data)
    write_json(workdir / "config.json", config_lib.to_dict(config))
    return [str(each.message) for each in caught]


def test_changed_data_are_warned_of_with_the_numbers_of_the_beginning(tmp_path: Path) -> None:
    assert claim(tmp_path, "videos", BEGUN) == [] == claim(tmp_path, "videos", BEGUN)
    for _ in range(2):
        (sentence,) = claim(tmp_path, "videos", {"train": Clips(16, 3, "y"), "eval": Clips(5, 4)})
        changes = "train had 22 clips (4 classes) and has 16 clips (3 classes)."
        assert sentence == f"the data have changed since the run in {tmp_path} began: {changes}"
    (sentence,) = claim(tmp_path, "videos", {"train": Clips(22, 4), "eval": Clips(5, 4, "y")})
    assert sentence.endswith("began: eval has 5 clips (4 classes) as before, but not the same ones.")
    assert claim(tmp_path, "videos", BEGUN) == []


def test_the_path_may_be_written_otherwise_and_the_data_may_move(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "link").symlink_to("videos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    run, fewer = tmp_path / "run", {"train": Clips(16, 3, "y"), "eval": Clips(5, 4)}
    ways = ("videos", "videos/", "./videos", str(tmp_path / "videos"), "~/videos", "link", "link/../videos")
    assert [claim(run, path, BEGUN) for path in ways] == [[]] * len(ways)
    assert all("have changed" in claim(run, path, fewer)[0] for path in ways)
    assert claim(run, "elsewhere", BEGUN) == []
    other = {"train": Clips(22, 4), "eval": Clips(5, 4, "y")}
    assert "not the same ones" in claim(run, "third", other)[0]
    undo = re.escape(f"name another --workdir, or set data.path to what was in {tmp_path}/third")
    with pytest.raises(ValueError, match=rf"other data: train had 22 clips \(4 .* and has 16 clips .*; {undo}"):
        claim(run, "videos", fewer)
    assert json.loads((run / "config.json").read_text())["data"]["path"] == "third"


def test_a_run_that_kept_no_account_of_its_data_says_so_once(tmp_path: Path) -> None:
    claim(tmp_path, "videos", BEGUN)
    (tmp_path / "data.json").unlink()
    with pytest.raises(ValueError, match=r"train had a number of clips that was not kept and has 22 clips \(4 classes"):
        claim(tmp_path, "elsewhere", BEGUN)
    assert "may have changed" in claim(tmp_path, "videos", BEGUN)[0]
    assert claim(tmp_path, "videos", BEGUN) == []
    (tmp_path / "data.json").write_text('{"path": "x", "train": 7}')
    with pytest.raises(ValueError, match="data.json is damaged: delete it"):
        claim(tmp_path, "videos", BEGUN)


def test_the_account_of_a_run_that_never_began_is_written_anew(tmp_path: Path) -> None:
    claim(tmp_path, "videos", BEGUN)
    (tmp_path / "config.json").unlink()
    assert claim(tmp_path, "elsewhere", {"train": Clips(7, 1), "eval": Clips(1, 1)}) == []
    assert json.loads((tmp_path / "data.json").read_text())["train"]["clips"] == 7


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> ConfigDict:
    """A recipe of two steps on a folder of two classes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    for name in ("cats/a", "cats/b", "cats/c", "dogs/d", "dogs/e"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        images.write_mp4(tmp_path / "videos" / f"{name}.mp4", pixels, 8)
    config = recipe("vqvae:tiny")
    config.data.update(name="folder", path=str(tmp_path / "videos"))
    config.train.steps = 1
    return config


def test_training_and_evaluation_compare_the_data(config: ConfigDict, tmp_path: Path, capsys) -> None:
    workdir = tmp_path / "run"
    train.train(config, workdir)
    os.rename(tmp_path / "videos", tmp_path / "moved")
    config.data.path = os.path.relpath(tmp_path / "moved") + "/"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the data")
        train.train(config, workdir)
    (tmp_path / "moved" / "dogs" / "d.mp4").unlink()
    (tmp_path / "moved" / "dogs" / "e.mp4").unlink()
    with pytest.warns(UserWarning, match=r"train had 3 clips \(2 classes\) and has 2 clips \(1 class\)"):
        train.train(config, workdir)
    files = [tmp_path / f"{name}.json" for name in ("run", "exported")]
    assert evaluate.main([f"--workdir={workdir}", "--metrics=psnr", f"--output={files[0]}"]) == 0
    assert "warning: the data have changed" in capsys.readouterr().err
    run_lib.export(workdir, tmp_path / "exported")
    words = [f"--workdir={tmp_path / 'exported'}", "--metrics=psnr"]
    assert evaluate.main(words) == 2
    assert "data.path is moved, and nothing is there: name where it is with --path" in capsys.readouterr().err
    assert evaluate.main([*words, f"--path={tmp_path / 'moved'}", f"--output={files[1]}"]) == 0
    assert "warning: the data have changed since the run" in capsys.readouterr().err
    here, there = (json.loads(file.read_text()) for file in files)
    assert here["heldout"] == there["heldout"] and here["scores"][0]["value"] == there["scores"][0]["value"]
