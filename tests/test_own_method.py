"""Every command works with own_method.py, which the documentation shows in docs/own_method.md."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT

from jaxvid import run as run_lib
from jaxvid import sample
from jaxvid.evaluate.__main__ import main as evaluate
from jaxvid.main import main as train

pytestmark = pytest.mark.xdist_group("own_method")
RECIPE = ["main", "--config", str(ROOT / "tests" / "own_method.py")]


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "own"
    assert train([*RECIPE, "--workdir", str(workdir), "--config.optim.learning_rate=0.1"]) == 0
    return workdir


def bits(workdir: Path) -> list[bytes]:
    state = run_lib.load(workdir).state
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def test_it_trains_evaluates_and_reports(workdir: Path, capsys) -> None:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "eval/nll" in line]
    assert [line["step"] for line in scores] == [3, 6] and scores[1]["eval/nll"] < scores[0]["eval/nll"]
    assert "eval/brightness_perplexity" in scores[0] and "train/nll" in lines[0]
    report = (workdir / "report.html").read_text()
    for text in ("mean_over_time", "channel_mean", "green", "brightness", "the clips have little contrast"):
        assert text in report, text
    assert run_lib.load(workdir).config.optim.learning_rate == 0.1


def test_it_goes_on_to_the_same_bits(workdir: Path, tmp_path: Path) -> None:
    for steps in (4, 6):
        more = [f"--config.train.steps={steps}", "--config.optim.learning_rate=0.1", "--workdir", str(tmp_path)]
        assert train([*RECIPE, *more]) == 0
    assert bits(tmp_path) == bits(workdir)


def test_it_is_sampled_and_reconstructs(workdir: Path, tmp_path: Path, capsys) -> None:
    def made(*arguments: str) -> dict:
        assert sample.main(["--workdir", str(workdir), "--output", str(tmp_path), *arguments]) == 0
        return dict(np.load(max(tmp_path.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)))

    videos = made("--num=3")["video"]
    assert videos.shape == (3, 8, 16, 16, 3) and (videos[0] != videos[1]).any()
    cold = made("--num=3", "--temperature=0.0")["video"]
    assert (cold[0] == cold[1]).all() and (cold != videos).any()
    np.save(tmp_path / "clip.npy", videos[0])
    found = made("--mode=reconstruct", f"--video={tmp_path / 'clip.npy'}")
    np.testing.assert_allclose(found["video"][0, 0], videos[0].mean(0), atol=1)


def test_it_is_evaluated(workdir: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "scores.json"
    assert evaluate(["--workdir", str(workdir), "--metrics=psnr,motion", f"--output={output}", "--num=8"]) == 0
    printed = capsys.readouterr().out
    assert "nll" in printed and "psnr" in printed and "motion" in printed
