"""What a method's author may get wrong is one sentence that names it, before anything is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import core, sample
from jaxvid import run as run_lib
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, new_state, normalize
from jaxvid.train import train

pytestmark = pytest.mark.xdist_group("wrong_method")
KEPT = {"count": jnp.zeros((), jnp.int32), "key": jax.random.key(3)}


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """A method that learns nothing and makes gray videos, with the fault that the config names."""
    fault = config.fault
    if fault == "method":
        return {"init": None}  # type: ignore[return-value]

    def init(key: jax.Array, batch: Batch) -> TrainState:
        return new_state(key, {"gray": {"level": jnp.zeros(())}}, {}, extra=KEPT)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        changed = {"shape": {"count": jnp.zeros(2, jnp.int32)}, "dtype": {"count": jnp.zeros(())}, "new": {"more": 1}}
        extra = {**state.extra, **changed.get(fault, {})}
        loss = normalize(batch["video"]).mean((1, 2, 3, 4) if fault == "vector" else None)
        state = state.replace(step=state.step + (fault != "step"), extra=extra)
        return state if fault == "alone" else (state, {"loss": loss})  # type: ignore[return-value]

    def eval_step(state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
        return Evaluated({"loss": normalize(batch["video"]).mean((1, 2, 3, 4))})

    def draw(state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
        if fault == "none":
            return None  # type: ignore[return-value]
        levels = jnp.asarray(config.sample.levels) + state.params["gray"]["level"]
        return jnp.broadcast_to(levels, (1 if fault == "few" else len(keys), 8, 16, 16, 3))

    def reconstruct(state: TrainState, batch: Batch) -> jax.Array:
        return None if fault == "none" else normalize(batch["video"])[:, :3]  # type: ignore[return-value]

    found = {"sentence": "all is wrong", "forgotten": None}.get(fault, [])
    return Method(init, train_step, eval_step, draw, reconstruct, warnings=lambda averages: found)  # type: ignore


def config_of(fault: str = "") -> ConfigDict:
    config = recipe("vqvae:tiny")
    config.method, config.fault = __name__, fault
    config.sample = ConfigDict({"levels": (0.0, 0.0, 0.0)})
    config.train.update(steps=2, save_every=1)
    config.eval.examples = 8
    return config


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("method", "make of the method .* returned dict, not core.Method"),
        ("shape", r"train_step made of extra/count, \[\[\], 'int32'\], \[\[2\], 'int32'\]"),
        ("dtype", r"train_step made of extra/count, \[\[\], 'int32'\], \[\[\], 'float32'\]"),
        ("new", "train_step made of extra/more, absent"),
        ("alone", "train_step returned TrainState, expected"),
        ("vector", r"the metric loss of train_step is float32 \[8\], expected \[\]"),
        ("step", "train_step left state.step at 0 after step 1"),
        ("sentence", "warnings returned str, expected a list of sentences"),
        ("forgotten", "warnings returned NoneType, expected a list"),
    ],
)
def test_training_is_refused(fault: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(config_of(fault), tmp_path)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "gray"
    train(config_of(), folder)
    return folder


def test_panels_may_be_left_out_and_keys_kept(workdir: Path) -> None:
    assert "loss" in (workdir / "report.html").read_text()
    state = run_lib.load(workdir).state
    assert (jax.random.key_data(state.extra["key"]) == jax.random.key_data(KEPT["key"])).all()


def test_what_is_no_video_of_that_size_is_refused(workdir: Path, tmp_path: Path) -> None:
    run = run_lib.load(workdir)
    with pytest.raises(ValueError, match=r"sample is float32 \[16,8,16,16,3\], expected float \[16,4,16,16"):
        sample.draw(run, 2, frames=4)
    with pytest.raises(ValueError, match=r"sample is float32 \[1,8,16,16,3\], expected float \[16,8,16,16"):
        sample.draw(run_lib.remake(run, {"fault": "few"}), 2)
    with pytest.raises(
        ValueError, match=r"reconstruction is float32 \[16,3,16,16,3\], expected float \[16,8,16,16,3\]"
    ):
        sample.reconstruct(run, np.zeros((2, 8, 16, 16, 3), np.uint8))


def test_a_method_that_returns_nothing_is_refused(workdir: Path) -> None:
    run = run_lib.remake(run_lib.load(workdir), {"fault": "none"})
    with pytest.raises(ValueError, match=r"sample is a NoneType, expected float \[16,8,16,16,1\|3\]"):
        sample.draw(run, 2)
    with pytest.raises(ValueError, match=r"reconstruction is a NoneType, expected float \[16,8,16,16,3\]"):
        sample.reconstruct(run, np.zeros((2, 8, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("modes", "sentence"),
    [
        (["dream"], "MODES of the method \"test_wrong_method\" is ['dream'], expected {name: jaxvid.run.Mode}"),
        ({"dream": print}, "MODES of the method"),
        ({"dream": run_lib.Mode(lambda run, arguments: None)}, "--mode dream returned NoneType, expected jaxvid.run."),  # type: ignore
    ],
)
def test_modes_that_are_none_are_refused(modes, sentence: str, workdir: Path, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(sys.modules[__name__], "MODES", modes, raising=False)
    assert sample.main(["--workdir", str(workdir), "--mode=dream", "--output", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_an_option_that_is_open_takes_any_value(workdir: Path, tmp_path: Path, monkeypatch) -> None:
    config = run_lib.saved_config(workdir)
    config.sample.level = None
    monkeypatch.setattr(run_lib, "saved_config", lambda workdir: config)
    words = ["--workdir", str(workdir), "--output", str(tmp_path), "--level"]
    assert [sample.parse([*words, word])[0].level for word in ("0.5", "true", "high")] == [0.5, True, "high"]


def test_options_of_several_values(workdir: Path, tmp_path: Path, capsys) -> None:
    words = ["--workdir", str(workdir), "--output", str(tmp_path), "--num=1"]
    assert sample.main([*words, "--levels", "1", "0", "-1"]) == 0
    assert np.load(tmp_path / "samples.npz")["video"][0, 0, 0, 0].tolist() == [255, 128, 0]
    with pytest.raises(SystemExit):
        sample.main([*words, "--levels", "high"])
    assert "invalid float value" in capsys.readouterr().err
    path = workdir / "config.json"
    saved = path.read_text()
    path.write_text(json.dumps({**json.loads(saved), "sample": {"seed": 1}}))
    assert sample.main(words) == 2
    assert "config.sample.seed has the name of another option" in capsys.readouterr().err
    path.write_text(saved)


def test_modules_that_cannot_be_imported(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "unfinished_method.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="unfinished_method.* cannot be imported: invalid syntax"):
        core.find_method("unfinished_method")
    with pytest.raises(ValueError, match='method is ".gan", expected one of'):
        core.find_method(".gan")
