"""Every pixel has a normal distribution of its own; a clip's reconstruction is its mean over time.

A method and its recipe in one file outside of jaxvid, which no file of jaxvid mentions: every command works with it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import core, losses, optim, parallel
from jaxvid.core import Evaluated, Method, Metrics, Profile, TrainState


class Setup(NamedTuple):
    config: ConfigDict
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    setup = Setup(config, optim.make_optimizers(config.optim, {"pixels": config.train.steps}), axis_name)
    functions = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, sample=draw)
    return Method(**functions, reconstruct=reconstruct, warnings=warnings, headline=("nll",))


def init(setup: Setup, key: jax.Array, batch: dict) -> TrainState:
    params = {"mean": jnp.zeros(batch["video"].shape[1:]), "log_scale": jnp.zeros(batch["video"].shape[1:])}
    return core.new_state(key, {"pixels": params}, setup.optimizers, extra={"brightness": jnp.zeros(())})


def nll(params: dict, video: jax.Array) -> jax.Array:
    mean = jnp.broadcast_to(params["mean"], video.shape)
    return losses.gaussian_nll(mean, video, params["log_scale"]) / video[0].size


def train_step(setup: Setup, state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
    video = core.normalize(batch["video"]) + 0.01 * jax.random.normal(core.step_key(state), ())
    loss, grads = jax.value_and_grad(lambda params: nll(params, video).mean())(state.params["pixels"])
    state, _ = core.apply_gradients(state, "pixels", grads, setup.optimizers["pixels"], setup.axis_name)
    extra = {"brightness": parallel.pmean(video.mean(), setup.axis_name)}
    return state.replace(step=state.step + 1, extra=extra), {"nll": parallel.pmean(loss, setup.axis_name)}


def reconstruct(state: TrainState, batch: dict) -> jax.Array:
    video = core.normalize(batch["video"])
    return jnp.broadcast_to(video.mean(1, keepdims=True), video.shape)


def draw(setup: Setup, state: TrainState, batch: dict, keys: jax.Array) -> jax.Array:
    params = state.params["pixels"]
    noise = jax.vmap(lambda key: jax.random.normal(key, params["mean"].shape))(keys)
    return jnp.clip(params["mean"] + setup.config.sample.temperature * jnp.exp(params["log_scale"]) * noise, -1, 1)


def eval_step(setup: Setup, state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
    video = core.normalize(batch["video"])
    bright = jnp.digitize(video.mean((1, 2, 3, 4)), jnp.array([-0.5, 0, 0.5]))
    return Evaluated(
        scalars={"nll": nll(state.params["pixels"], video), "contrast": video.std((1, 2, 3, 4))},
        counts={"brightness": jax.nn.one_hot(bright, 4, dtype=jnp.int32)},
        profiles={"channel_mean": Profile(video.mean((1, 2, 3)), ("red", "green", "blue"))},
        panels={"original": video, "mean_over_time": reconstruct(state, batch)},
    )


def warnings(metrics: Mapping[str, float]) -> list[str]:
    return ["the clips have little contrast"] if metrics["contrast"] < 0.5 else []


def get_config(variant: str = "") -> ConfigDict:
    config = config_lib.base()
    config_lib.tiny(config)
    config.method = "tests.own_method"
    config.optim = config_lib.optimizer(0.05)
    config.sample = ConfigDict({"temperature": 1.0})
    config.train.update(steps=6, save_every=3)
    config.eval.update(every=3, examples=8)
    return config
