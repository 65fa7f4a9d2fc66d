"""A small method with everything a state can hold, whose programs compile at once: colors through 256 numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import core, optim, parallel
from jaxvid.core import Evaluated, Method, Metrics, TrainState

PLAYER = "colors"


class Setup(NamedTuple):
    config: ConfigDict
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    setup = Setup(config, optim.make_optimizers(config.optim, {PLAYER: config.train.steps}), axis_name)
    return Method(**core.bind(setup, init=init, train_step=train_step, eval_step=eval_step), reconstruct=reconstruct)


def init(setup: Setup, key: jax.Array, batch: dict) -> TrainState:
    shapes = {"encoder": (3, 256), "bias": (256,), "decoder": (256, 3)}
    keys = jax.random.split(key, len(shapes))
    params = {name: 0.1 * jax.random.normal(k, shapes[name]) for name, k in zip(shapes, keys, strict=True)}
    collections = {PLAYER: {"average": jnp.zeros(256)}}
    extra = {"brightness": jnp.zeros((), jnp.bfloat16), "seen": jnp.zeros(5, jnp.uint8)}
    return core.new_state(key, {PLAYER: params}, setup.optimizers, collections, averaged=(PLAYER,), extra=extra)


def decoded(params: dict, video: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden = jnp.tanh(video @ params["encoder"] + params["bias"])
    return jnp.tanh(hidden @ params["decoder"]), hidden


def train_step(setup: Setup, state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
    video = core.normalize(batch["video"])
    keys = parallel.example_keys(core.step_key(state), len(video), setup.axis_name)
    noisy = video + 0.1 * jax.vmap(lambda key: jax.random.normal(key, video.shape[1:]))(keys)

    def loss_of(params: dict) -> tuple[jax.Array, jax.Array]:
        made, hidden = decoded(params, noisy)
        return jnp.mean(jnp.square(made - video)), hidden.mean((0, 1, 2, 3))

    (loss, mean), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params[PLAYER])
    loss, mean = parallel.pmean((loss, mean), setup.axis_name)
    state, norm = core.apply_gradients(state, PLAYER, grads, setup.optimizers[PLAYER], setup.axis_name)
    average = 0.9 * state.collections[PLAYER]["average"] + 0.1 * mean
    extra = {"brightness": mean.mean().astype(jnp.bfloat16), "seen": state.extra["seen"] + jnp.uint8(1)}
    state = state.replace(step=state.step + 1, collections={PLAYER: {"average": average}}, extra=extra)
    return core.update_ema(state, PLAYER, 0.9), {"loss": loss, "norm": norm}


def reconstruct(state: TrainState, batch: dict) -> jax.Array:
    return decoded(core.sampled_params(state, PLAYER), core.normalize(batch["video"]))[0]


def eval_step(setup: Setup, state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
    video, made = core.normalize(batch["video"]), reconstruct(state, batch)
    return Evaluated({"error": jnp.square(video - made).mean((1, 2, 3, 4))}, panels={"original": video, "made": made})


def get_config(variant: str = "") -> ConfigDict:
    config = config_lib.base()
    config_lib.tiny(config)
    config.method = "tests.pixel_method"
    # SGD, since rounding flips the signs that Adam's first steps are made of; its momentum is a state to distribute.
    config.optim = config_lib.optimizer(0.1, name="sgd", arguments=ConfigDict({"momentum": 0.9}))
    config.train.update(steps=1000, save_every=1)
    config.eval.update(every=1000)
    return config
