"""What all methods share that learn a prior over the tokens of a frozen tokenizer: the setup, the inputs, a step, and
what an evaluation shows.

Conditions of the kinds "vector" and "words" are left out of a share `model.unguided` of the training examples, so that
samples can be guided (Ho and Salimans, 2022).
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import conditions as conditions_lib
from jaxvid import core, optim, parallel, pretrained
from jaxvid.core import Batch, Evaluated, Metrics, Profile, TrainState, normalize
from jaxvid.models.prior import Grid, Prior
from jaxvid.names import choice
from jaxvid.parallel import fold_keys
from jaxvid.tokens import PLAYER as TOKENIZER
from jaxvid.tokens import Drawing, Tokenizer, make_drawing, make_tokenizer

PRIOR = "prior"
# By `model.network`: what makes the network, and the fields of `config.model` that it takes.
Networks = Mapping[str, tuple[Callable[..., nn.Module], tuple[str, ...]]]
complete = functools.partial(pretrained.complete, player=TOKENIZER)


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    tokenizer: Tokenizer
    prior: Prior
    drawing: Drawing
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


class Inputs(NamedTuple):
    """Of the prior, for each example."""

    tokens: jax.Array  # [B,t,h,w]
    vectors: jax.Array  # [B,t,h,w,D]
    known: jax.Array | None  # [B,t,h,w,D+1]
    conditions: dict[str, jax.Array]


def make_setup(
    config: ConfigDict, axis_name: str | None, networks: Networks, kind: Callable[..., Prior] = Prior
) -> Setup:
    """The setup of a config, with a prior of this kind over one of the networks.

    Raises ValueError: a field has no such value, or the tokenizer does not fit.
    """
    tokenizer = make_tokenizer(config)
    if not 0 <= config.model.unguided < 1:
        raise ValueError(f"model.unguided is {config.model.unguided}, expected a share from 0 to below 1.")
    setup = Setup(
        config=config,
        tokenizer=tokenizer,
        prior=make_prior(config, tokenizer, networks, kind),
        drawing=make_drawing(config.sample),
        optimizers=optim.make_optimizers(config.optim, {PRIOR: config.train.steps}),
        axis_name=axis_name,
    )
    if setup.drawing.guidance != 1 and (setup.prior.guide is None or not config.model.unguided):
        raise ValueError(
            f"sample.guidance is {setup.drawing.guidance}, and the model was trained without a label or a text to "
            "leave out: set it to 1."
        )
    return setup


def make_prior(config: ConfigDict, tokenizer: Tokenizer, networks: Networks, kind: Callable[..., Prior]) -> Prior:
    """The module of `config.model`. Raises ValueError where a field has no such value."""
    model, condition = config.model, config.condition
    conditions_lib.check(condition, config.data.frames)
    dtype = jnp.dtype(choice("model.dtype", model.dtype, ("float32", "bfloat16")))
    if "input" in condition.on:
        raise ValueError("condition.on has input, a clip to translate, which no prior reads: leave it out.")
    words = "text" in condition.on and not condition.embeddings
    guides = [name for name in condition.on if conditions_lib.TABLE[name].kind in ("vector", "words")]
    make_encoder = functools.partial(conditions_lib.make_encoder, condition, dtype)
    return kind(
        network=make_network(model, networks, tokenizer.grid, dtype),
        grid=tokenizer.grid,
        digits=tokenizer.digits,
        width=model.width,
        features=condition.features,
        guide=make_encoder(("vector", "words") if words else ("vector",)) if guides else None,
        per_frame=make_encoder(("frames",)) if "action" in condition.on else None,
        dtype=dtype,
    )


def make_network(model: ConfigDict, networks: Networks, grid: Grid, dtype: Any) -> nn.Module:
    """The network of `config.model`, for a grid of tokens. Raises ValueError where a field has no such value."""
    kind, fields = networks[choice("model.network", model.network, networks)]
    for field in ("width", *fields):
        if model[field] < 1:
            raise ValueError(f"model.{field} is {model[field]}, expected at least 1.")
    if model.width % model.get("heads", 1):
        raise ValueError(f"model.width is {model.width}, expected a multiple of the {model.heads} model.heads.")
    if "kernel" in fields and (model.kernel < 3 or model.kernel % 2 == 0):
        raise ValueError(f"model.kernel is {model.kernel}, expected an odd number of at least 3.")
    network = kind(**{field: model[field] for field in fields}, dtype=dtype)
    warn_of_reach(network, grid)
    return network


def warn_of_reach(network: Any, grid: Grid) -> None:
    """Warns where a network whose layers look so far, and no further, has too few of them for a grid of tokens."""
    if not hasattr(network, "reach"):
        return
    (frames, away), (t, h, w) = network.reach(), grid
    if frames < t - 1 or away < max(h, w) - 1:
        warnings.warn(
            f"The network sees {min(frames, t - 1)} frames back and {away} rows and columns away, not all tokens "
            f"before a place in a grid of {t} frames, {h} rows and {w} columns: raise model.layers or model.kernel.",
            stacklevel=2,
        )


def init(
    setup: Setup, key: jax.Array, batch: Batch, inputs: Callable[[TrainState, Batch], tuple[Any, ...]]
) -> TrainState:
    """`Method.init`, of a prior whose arguments `inputs` makes of one example and a state of the tokenizer."""
    tokenizer_key, prior_key, key = jax.random.split(key, 3)
    one = jax.tree.map(lambda x: x[:1], dict(batch))
    params, collections = pretrained.init(setup.config.tokenizer, tokenizer_key, one)
    players = {TOKENIZER: params}
    state = core.new_state(key, players, {}, {TOKENIZER: collections})
    players[PRIOR] = setup.prior.init(prior_key, *inputs(state, one))["params"]
    return core.new_state(key, players, setup.optimizers, {TOKENIZER: collections}, averaged=(PRIOR,))


def inputs_of(setup: Setup, state: TrainState, batch: Batch, known: jax.Array | None) -> Inputs:
    """What the prior learns from: the tokens of a batch's videos and their conditions, `known` [B,t,h,w,D+1] as is."""
    tokenizer, frozen = setup.tokenizer, pretrained.state_of(state, TOKENIZER)
    tokens = batch["tokens"] if "tokens" in batch else tokenizer.encode(frozen, normalize(batch["video"]))
    return Inputs(tokens, tokenizer.vectors(frozen)(tokens), known, taken(setup, batch)[0])


def taken(setup: Setup, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array | None]:
    """The conditions of a batch that are encoded, and the first frames [B,k,H,W,3] in [-1, 1] where they are one."""
    found = conditions_lib.take(setup.config.condition, batch)
    first = found.pop("first_frames", None)
    return found, first


def kept(setup: Setup, keys: jax.Array) -> jax.Array:
    """Which training examples keep the conditions that guide samples: bool [B]."""
    return jax.vmap(jax.random.uniform)(fold_keys(keys, 1)) >= setup.config.model.unguided


def learn(setup: Setup, state: TrainState, objective: Callable[[Any], jax.Array]) -> tuple[TrainState, Metrics]:
    """One step on an objective of the prior's parameters, in nats for a token."""
    loss, grads = jax.value_and_grad(objective)(state.params[PRIOR])
    state, norm = core.apply_gradients(state, PRIOR, grads, setup.optimizers[PRIOR], setup.axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), PRIOR, optim.ema_decay(setup.config.optim, PRIOR))
    loss = parallel.pmean(loss, setup.axis_name)
    return state, {"loss": loss, "bits": loss / math.log(2), "grad_norm": norm}


def cross_entropy(setup: Setup, logits: list[jax.Array], tokens: jax.Array) -> jax.Array:
    """-log p of tokens [B,t,h,w] in nats, float32, from the logits [B,t,h,w,K] of each digit."""
    each = map(optax.softmax_cross_entropy_with_integer_labels, logits, setup.prior.split(tokens))
    return functools.reduce(jnp.add, each)


def decode(setup: Setup, state: TrainState, tokens: jax.Array) -> jax.Array:
    """Tokens [B,t,h,w] -> video [B,T,H,W,3] in [-1, 1]."""
    return setup.tokenizer.decode(pretrained.state_of(state, TOKENIZER), tokens)


def evaluated(
    setup: Setup,
    state: TrainState,
    batch: Batch,
    tokens: jax.Array,
    bits: jax.Array,
    profiles: dict[str, Profile],
    sample: jax.Array,
) -> Evaluated:
    """What an evaluation shows: bits [B] for a token, how often each code is used, and beside samples what the
    tokenizer makes of the videos, with tokens [B,t,h,w].
    """
    video, codes = normalize(batch["video"]), math.prod(setup.prior.digits)
    rows = tokens.reshape(len(video), -1)
    return Evaluated(
        scalars={"bits": bits, "bits_per_value": bits * rows[0].size / video[0].size},  # of a pixel's channel: a rate
        counts={"codes": jax.vmap(lambda row: jnp.zeros(codes, jnp.int32).at[row].add(1))(rows)},
        profiles=profiles,
        panels={"original": video, "reconstruction": decode(setup, state, tokens), "sample": sample},
    )
