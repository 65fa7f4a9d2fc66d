"""A tokenizer as a frozen player of another run: loaded once, kept with the run, never moved, always recognized."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import checkpoint, core, losses, optim, parallel, pretrained, sample
from jaxvid import run as run_lib
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, apply_gradients, new_state, normalize
from jaxvid.data.synthetic import Synthetic
from jaxvid.train import train

pytestmark = pytest.mark.xdist_group("pretrained")
complete = functools.partial(pretrained.complete, player="tokenizer")


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """Learns a brightness for what a frozen tokenizer reconstructs."""
    tokenizer = core.make_method(config.tokenizer.config)
    optimizers = optim.make_optimizers(config.optim, {"gain": config.train.steps})

    def init(key: jax.Array, batch: Batch) -> TrainState:
        params, collections = pretrained.init(config.tokenizer, key, batch)
        players = {"gain": {"gain": jnp.ones(())}, "tokenizer": params}
        return new_state(key, players, optimizers, {"tokenizer": collections}, averaged=("gain",))

    def reconstruct(state: TrainState, batch: Batch) -> jax.Array:
        video = tokenizer.reconstruct(pretrained.state_of(state, "tokenizer"), batch)
        return jnp.clip(state.params["gain"]["gain"] * video, -1, 1)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def objective(params: dict) -> jax.Array:
            moved = state.replace(params={**state.params, "gain": params})
            return losses.mean_squared_error(reconstruct(moved, batch), normalize(batch["video"])).mean()

        loss, grads = jax.value_and_grad(objective)(state.params["gain"])
        state, _ = apply_gradients(state, "gain", grads, optimizers["gain"], axis_name)
        return state.replace(step=state.step + 1), {"loss": parallel.pmean(loss, axis_name)}

    def eval_step(state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
        video = normalize(batch["video"])
        return Evaluated(
            {"loss": losses.mean_squared_error(reconstruct(state, batch), video)}, panels={"original": video}
        )

    frozen = {"tokenizer": config.tokenizer}
    return Method(init, train_step, eval_step, reconstruct=reconstruct, frozen=frozen)


def config_of(path: Path, **train: int | str) -> ConfigDict:
    config = recipe("vqvae:tiny")
    config.method = __name__
    config.tokenizer = pretrained.reference(str(path))
    config.train.update(steps=4, save_every=2, **train)
    config.eval.examples = 8
    return config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    config = recipe("vqvae:tiny")
    config.train.steps, config.eval.examples = 2, 8
    folder = tmp_path_factory.mktemp("runs") / "tokenizer"
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def trained(tokenizer: Path, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "gain"
    train(config_of(tokenizer), workdir)
    return workdir


def arrays(run: run_lib.Run) -> list[bytes]:
    parts = [run.state.params["tokenizer"], run.state.collections["tokenizer"]]
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(jax.device_get(parts))]


def test_it_is_loaded_and_does_not_move_by_a_bit(tokenizer: Path, trained: Path) -> None:
    source, run = run_lib.load(tokenizer), run_lib.load(trained)
    parts = [source.state.ema, source.state.collections]
    assert arrays(run) == [np.asarray(x).tobytes() for x in jax.tree.leaves(jax.device_get(parts))]
    assert float(run.state.params["gain"]["gain"]) != 1
    assert run.state.opt_state.keys() == run.state.ema.keys() == {"gain"}
    entry = run.config.tokenizer
    assert entry.step == 2 and entry.config.method == "vqvae" and len(entry.sha256) == 64
    video = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    expected = np.clip(run.state.params["gain"]["gain"] * sample.reconstruct(source, video), -1, 1)
    np.testing.assert_allclose(sample.reconstruct(run, video), expected, atol=1e-5)


def test_the_run_does_without_the_folder(tokenizer: Path, trained: Path, tmp_path: Path) -> None:
    copy, workdir = tmp_path / "tokenizer", tmp_path / "run"
    shutil.copytree(tokenizer, copy)
    train(config_of(copy, parallel="pmap"), workdir)
    shutil.rmtree(copy)
    longer = config_of(copy)
    longer.train.steps = 6
    assert int(train(longer, workdir).step) == 6
    assert arrays(run_lib.load(workdir)) == arrays(run_lib.load(trained))


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tokenizer.path is .*nowhere, and no trained run .*--config.tokenizer"):
        train(config_of(tmp_path / "nowhere"), tmp_path / "run")


def test_another_one_is_refused_by_name(tokenizer: Path, tmp_path: Path) -> None:
    copy, workdir = tmp_path / "tokenizer", tmp_path / "run"
    shutil.copytree(tokenizer, copy)
    train(config_of(copy), workdir)
    config = recipe("vqvae:tiny")
    config.train.steps, config.eval.examples = 3, 8
    train(config, copy)
    with pytest.raises(ValueError, match="tokenizer.sha256: the run has .* the config now says"):
        train(config_of(copy), workdir)


def test_a_changed_digest_or_array_is_noticed_on_restore(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    saved["tokenizer"]["sha256"] = "0" * 64
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="the frozen tokenizer in the checkpoint is not the one of .* at step 2"):
        run_lib.load(tmp_path / "run")
    run = run_lib.load(trained)
    nudged = jax.tree.map(lambda x: x + 1e-7, run.state.params["tokenizer"])
    with pytest.raises(ValueError, match="the frozen tokenizer"):
        checkpoint.verify(run.state.replace(params={**run.state.params, "tokenizer": nudged}), run.method.frozen)
    gone = {"gain": run.state.params["gain"]}
    with pytest.raises(ValueError, match="no frozen player tokenizer"):
        checkpoint.verify(run.state.replace(params=gone), run.method.frozen)


def test_a_step_that_the_config_names_is_the_one_that_is_loaded(tokenizer: Path, tmp_path: Path) -> None:
    config = config_of(tokenizer)
    config.tokenizer.step = 1
    with pytest.raises(ValueError, match="tokenizer.step is 1, and the newest checkpoint in .* has 2"):
        train(config, tmp_path)


def test_one_that_has_not_come_to_its_end_is_taken_where_its_step_is_named(tokenizer: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    saved = json.loads(path.read_text())
    saved["train"]["steps"] = 9
    path.write_text(json.dumps(saved))
    config, source = config_of(tmp_path / "copy"), Synthetic(8, 16)
    with pytest.raises(
        ValueError, match="copy, a run that stopped at step 2 of 9: let it finish, or .*tokenizer.step=2"
    ):
        complete(config, source)
    config.tokenizer.step = 2
    assert complete(config, source).tokenizer.config.train.steps == 9


def test_a_folder_that_was_emptied_is_not_needed_either(tokenizer: Path, tmp_path: Path) -> None:
    copy, workdir = tmp_path / "tokenizer", tmp_path / "run"
    shutil.copytree(tokenizer, copy)
    train(config_of(copy), workdir)
    shutil.rmtree(copy)
    copy.mkdir()
    assert int(train(config_of(copy), workdir).step) == 4


def test_one_that_cannot_be_loaded_is_named(tokenizer: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer, tmp_path / "copy")
    for damaged in ("{", "[]", "3", "{}"):
        (tmp_path / "copy" / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match="tokenizer.path is .*copy, which cannot be loaded: .* is damaged"):
            train(config_of(tmp_path / "copy"), tmp_path / "run")
