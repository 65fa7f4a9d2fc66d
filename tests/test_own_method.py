"""A method and its recipe in one file outside of jaxvid, which no file of jaxvid mentions: every command works with it.

Every pixel has a normal distribution of its own; a clip's reconstruction is its mean over time. This is also the
example of a method in docs/design.md.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import losses, optim, parallel, sample
from jaxvid import run as run_lib
from jaxvid.core import Evaluated, Method, Metrics, Profile, TrainState, apply_gradients, new_state, normalize, step_key
from jaxvid.evaluate.__main__ import main as evaluate
from jaxvid.main import main as train

ROOT = Path(__file__).resolve().parents[1]


class Setup(NamedTuple):
    config: ConfigDict
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    setup = Setup(config, optim.make_optimizers(config.optim, {"pixels": config.train.steps}), axis_name)
    bind = functools.partial
    return Method(
        init=bind(init, setup),
        train_step=bind(train_step, setup),
        eval_step=bind(eval_step, setup),
        sample=bind(draw, setup),
        reconstruct=reconstruct,
        warnings=lambda metrics: ["the scale is small"] if metrics["scale"] < 10 else [],
        headline=("nll",),
    )


def init(setup: Setup, key: jax.Array, batch: dict) -> TrainState:
    params = {"mean": jnp.zeros(batch["video"].shape[1:]), "log_scale": jnp.zeros(batch["video"].shape[1:])}
    return new_state(key, {"pixels": params}, setup.optimizers, extra={"brightness": jnp.zeros(())})


def nll(params: dict, video: jax.Array) -> jax.Array:
    mean = jnp.broadcast_to(params["mean"], video.shape)
    return losses.gaussian_nll(mean, video, params["log_scale"]) / video[0].size


def train_step(setup: Setup, state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
    video = normalize(batch["video"]) + 0.01 * jax.random.normal(step_key(state), ())
    loss, grads = jax.value_and_grad(lambda params: nll(params, video).mean())(state.params["pixels"])
    state, _ = apply_gradients(state, "pixels", grads, setup.optimizers["pixels"], setup.axis_name)
    extra = {"brightness": parallel.pmean(video.mean(), setup.axis_name)}
    return state.replace(step=state.step + 1, extra=extra), {"nll": parallel.pmean(loss, setup.axis_name)}


def reconstruct(state: TrainState, batch: dict) -> jax.Array:
    video = normalize(batch["video"])
    return jnp.broadcast_to(video.mean(1, keepdims=True), video.shape)


def draw(setup: Setup, state: TrainState, batch: dict, keys: jax.Array) -> jax.Array:
    params = state.params["pixels"]
    noise = jax.vmap(lambda key: jax.random.normal(key, params["mean"].shape))(keys)
    return jnp.clip(params["mean"] + setup.config.sample.temperature * jnp.exp(params["log_scale"]) * noise, -1, 1)


def eval_step(setup: Setup, state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
    video = normalize(batch["video"])
    bright = jnp.digitize(video.mean((1, 2, 3, 4)), jnp.array([-0.5, 0, 0.5]))
    return Evaluated(
        scalars={"nll": nll(state.params["pixels"], video), "scale": video.std((1, 2, 3, 4))},
        counts={"brightness": jax.nn.one_hot(bright, 4, dtype=jnp.int32)},
        profiles={"channel_mean": Profile(video.mean((1, 2, 3)), ("red", "green", "blue"))},
        panels={"original": video, "mean_over_time": reconstruct(state, batch)},
    )


def get_config(variant: str = "") -> ConfigDict:
    config = config_lib.base()
    config_lib.tiny(config)
    config.method = "tests.test_own_method"
    config.optim = config_lib.optimizer(0.05)
    config.sample = ConfigDict({"temperature": 1.0})
    config.train.update(steps=6, save_every=3)
    config.eval.update(every=3, examples=8)
    return config


pytestmark = pytest.mark.xdist_group("own_method")
RECIPE = ["main", "--config", str(Path(__file__))]


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
    for text in ("mean_over_time", "channel_mean", "green", "brightness", "the scale is small"):
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
