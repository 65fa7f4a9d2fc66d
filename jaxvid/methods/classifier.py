"""A classifier of labeled videos, for the evaluation of generators: the classes of their samples, and features."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxvid import core, optim, parallel
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, normalize
from jaxvid.models.classifier import Classifier
from jaxvid.names import choice

PLAYER = "classifier"


def make_model(config: ConfigDict) -> Classifier:
    """The module of `config.model`. Raises ValueError where a field has no such value."""
    model = config.model
    choice("model.dtype", model.dtype, ("float32", "bfloat16"))
    classes = len(config.condition.classes)
    if classes < 2:
        raise ValueError(f"condition.classes has {classes} names: fill it in with conditions.complete.")
    if model.features < 1:
        raise ValueError(f"model.features is {model.features}, expected at least 1.")
    if not model.widths or any(width < 8 or width % 8 for width in model.widths):
        raise ValueError(f"model.widths is {model.widths}, expected multiples of 8, one per convolution.")
    if len(model.strides) != len(model.widths) or any(len(each) != 3 or min(each) < 1 for each in model.strides):
        raise ValueError(f"model.strides is {model.strides}, expected (time, height, width) for each of model.widths.")
    fields = {name: model[name] for name in ("widths", "strides", "features")}
    return Classifier(classes=classes, **fields, dtype=jnp.dtype(model.dtype))


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    model: Classifier
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a classifier, which generates no videos; `configs/classifier.py` documents the fields. Raises
    ValueError for what cannot work.
    """
    setup = Setup(
        config=config,
        model=make_model(config),
        optimizers=optim.make_optimizers(config.optim, {PLAYER: config.train.steps}),
        axis_name=axis_name,
    )
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step)
    return Method(**bound, headline=("loss", "accuracy"))


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    if "label" not in batch:
        raise ValueError("A classifier learns labels, and these clips have none: name a source with classes.")
    params_key, key = jax.random.split(key)
    params = setup.model.init(params_key, normalize(batch["video"][:1]))["params"]
    return core.new_state(key, {PLAYER: params}, setup.optimizers, averaged=(PLAYER,))


def scores(setup: Setup, params: Any, batch: Batch) -> Metrics:
    """Loss, and whether the class is the first, or among the first five, of those that are predicted: [B] each."""
    outputs: Any = setup.model.apply({"params": params}, normalize(batch["video"]))
    logits = outputs[1]
    rank = jnp.sum(logits > jnp.take_along_axis(logits, batch["label"][:, None], axis=1), axis=1)
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
        "accuracy": (rank < 1).astype(jnp.float32),
        "top5": (rank < 5).astype(jnp.float32),
    }


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""

    def objective(params: Any) -> tuple[jax.Array, Metrics]:
        metrics = jax.tree.map(jnp.mean, scores(setup, params, batch))
        return metrics["loss"], metrics

    grads, metrics = jax.grad(objective, has_aux=True)(state.params[PLAYER])
    state, norm = core.apply_gradients(state, PLAYER, grads, setup.optimizers[PLAYER], setup.axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), PLAYER, optim.ema_decay(setup.config.optim, PLAYER))
    return state, {**parallel.pmean(metrics, setup.axis_name), "grad_norm": norm}


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`."""
    return Evaluated(
        scalars=scores(setup, core.sampled_params(state, PLAYER), batch), panels={"original": normalize(batch["video"])}
    )


def reader(config: ConfigDict, state: TrainState) -> Callable[[jax.Array | np.ndarray], tuple[jax.Array, jax.Array]]:
    """The compiled classifier of a trained run: video [B,T,H,W,3], uint8 or in [-1, 1] -> features [B,D], logits [B,K].

    `reader(run.config, run.state)` with `run = jaxvid.run.load(workdir)`. Features are those of the penultimate layer.
    """
    model = make_model(config)

    @functools.partial(jax.jit, compiler_options=parallel.compiler_options())
    def read(params: Any, video: jax.Array) -> Any:
        return model.apply({"params": params}, normalize(video))

    # The parameters are an argument, since constants would be compiled into the program.
    return functools.partial(core.in_32_bits(read), core.sampled_params(state, PLAYER))
