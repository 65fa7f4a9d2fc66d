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
from jaxvid.data import Source
from jaxvid.models.prior import Grid, Known, Prior
from jaxvid.names import choice
from jaxvid.nn.quantize import code_counts
from jaxvid.parallel import fold_keys
from jaxvid.tokens import PLAYER as TOKENIZER
from jaxvid.tokens import Drawing, Tokenizer, make_drawing, make_tokenizer

PRIOR = "prior"
# By `model.network`: what makes the network, and the fields of `config.model` that it takes.
Networks = Mapping[str, tuple[Callable[..., nn.Module], tuple[str, ...]]]


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
    known: Known | None
    conditions: dict[str, jax.Array]


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """`pretrained.complete` of the tokenizer. Raises ValueError, too, where clips to learn from have another length."""
    config = pretrained.complete(config, source, TOKENIZER)
    entry, frames = config.tokenizer, config.data.frames
    if frames != entry.config.data.frames:
        raise ValueError(
            f"data.frames is {frames}, and the tokenizer in {entry.path} was trained with {entry.config.data.frames}: "
            "set it so (samples may be longer: jaxvid.sample --frames), or train another tokenizer."
        )
    return config


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
    if config.data.frames > tokenizer.frames and tokenizer.grid[0] < 2:
        raise ValueError(
            f"data.frames is {config.data.frames}, and the tokenizer makes one frame of tokens of a clip, and so none "
            "for a window to begin with: train a tokenizer with a smaller model.downsample of time."
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
    conditions_lib.check(condition, tokenizer.frames)
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
        missing=tokenizer.factors[0] - tokenizer.first,
        dtype=dtype,
    )


def make_network(model: ConfigDict, networks: Networks, grid: Grid, dtype: Any) -> nn.Module:
    """The network of `config.model`, for a grid of tokens. Raises ValueError where a field has no such value."""
    kind, fields = networks[choice("model.network", model.network, networks)]
    for field in ("width", *fields):
        if model[field] < 1:
            raise ValueError(f"model.{field} is {model[field]}, expected at least 1.")
    if "heads" in fields and model.width % (2 * model.heads):
        raise ValueError(f"model.width is {model.width}, expected a multiple of {2 * model.heads}: twice model.heads.")
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


def inputs_of(setup: Setup, state: TrainState, batch: Batch, known: Known | None) -> Inputs:
    """What the prior learns from: the tokens of a batch's videos and their conditions, `known` as is."""
    tokenizer, frozen = setup.tokenizer, pretrained.state_of(state, TOKENIZER)
    tokens = batch["tokens"] if "tokens" in batch else tokenizer.encode(frozen, normalize(batch["video"]))
    return Inputs(tokens, known, taken(setup, batch)[0])


def taken(setup: Setup, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array | None]:
    """The conditions of a batch that are encoded, and the first frames [B,k,H,W,3] in [-1, 1] where they are one."""
    found = conditions_lib.take(setup.config.condition, batch, shorter=True)
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


def sample(
    setup: Setup, state: TrainState, batch: Batch, keys: jax.Array, generate: Callable[..., jax.Array]
) -> jax.Array:
    """Videos of `data.frames` frames, of which first frames come back as they were given.

    Videos longer than the clips of training come from a window of tokens that moves on by half of its frames, and are
    decoded at once (as in Ge et al., 2022, TATS): each later window begins with the last half of the one before.

    Args:
      generate: (setup, state, batch, keys, prefix) -> tokens [B,t,h,w] of a window; the first frames of tokens `prefix`
        [B,p,h,w], or None, stay.
    """
    grid, factor, frames = setup.tokenizer.grid, setup.tokenizer.factors[0], setup.config.data.frames
    stride = grid[0] - grid[0] // 2  # of a window, in frames of tokens
    moves = max(0, -(-(frames - setup.tokenizer.frames) // (stride * factor)))
    tokens = generate(setup, state, window(setup, batch), keys, None)

    def move(prefix: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = number * stride * factor
        made = generate(setup, state, window(setup, batch, start), fold_keys(keys, number), prefix)
        return made[:, stride:], made[:, grid[0] - stride :]

    if moves:
        _, more = jax.lax.scan(move, tokens[:, stride:], 1 + jnp.arange(moves))
        tokens = jnp.concatenate([tokens, *more], 1)
    video, first = decode(setup, state, tokens), taken(setup, batch)[1]
    video = video if first is None else jnp.concatenate([first, video[:, first.shape[1] :]], 1)
    return video[:, :frames]


def window(setup: Setup, batch: Batch, start: jax.Array | None = None) -> Batch:
    """The batch with conditions by frame cut to a clip's length from frame `start`, where first frames are past.

    The default is the first window, whose first frames may be given.
    """
    found, options, length = dict(batch), setup.config.condition, setup.tokenizer.frames
    for name in options.on:
        key = conditions_lib.TABLE[name].key(options)
        if conditions_lib.TABLE[name].kind == "frames":
            values = jnp.pad(batch[key], ((0, 0), (0, length), (0, 0)), mode="edge")
            found[key] = jax.lax.dynamic_slice_in_dim(values, 0 if start is None else start, length, 1)
        elif name == "first_frames" and start is not None:
            found[key] = conditions_lib.take(options, batch, shorter=True)[key][:, :0]
    return found


def decode(setup: Setup, state: TrainState, tokens: jax.Array) -> jax.Array:
    """Tokens [B,t,h,w] -> video [B,T,H,W,3] in [-1, 1]."""
    return setup.tokenizer.decode(pretrained.state_of(state, TOKENIZER), tokens)


def evaluated(
    setup: Setup, state: TrainState, batch: Batch, tokens: jax.Array, bits: jax.Array, **panels: jax.Array
) -> Evaluated:
    """What an evaluation shows: bits [B] for a token in all and by class, how often each code is used, and beside other
    panels what the tokenizer makes of the videos, with tokens [B,t,h,w].
    """
    video, codes = normalize(batch["video"]), math.prod(setup.prior.digits)
    rows, classes = tokens.reshape(len(video), -1), tuple(setup.config.condition.classes)
    profiles = {}
    if classes and "label" in batch:
        is_class = jnp.arange(len(classes)) == batch["label"][:, None]
        profiles["bits_by_class"] = Profile(jnp.where(is_class, bits[:, None], jnp.nan), classes)
    return Evaluated(
        scalars={
            "bits": bits,
            "bits_uniform": jnp.full_like(bits, math.log2(codes)),  # if all codes were equally likely
            "bits_per_value": bits * rows[0].size / video[0].size,  # of a pixel's channel: a rate
        },
        counts={"codes": code_counts(rows, codes)},
        profiles=profiles,
        panels={"original": video, "reconstruction": decode(setup, state, tokens), **panels},
    )


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`: what the tokenizer makes of videos, which no sample is expected to beat."""
    frozen = pretrained.state_of(state, TOKENIZER)
    return setup.tokenizer.decode(frozen, setup.tokenizer.encode(frozen, normalize(batch["video"])))
