"""The autoregressive method: a prior over the tokens of a frozen tokenizer, one token after another.

    p(tokens | conditions) = product over places, in raster order, of p(token | tokens before it, conditions)

Conditions of the kinds "vector" and "words" are left out of a share `model.unguided` of the training examples, so that
samples can be guided (Ho and Salimans, 2022). First frames are a grid of what is known, see `tokens.known_places`; how
many of them there are, up to `condition.first_frames`, is drawn for each training example.
"""

import functools
import math
import warnings
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import conditions as conditions_lib
from jaxvid import core, optim, parallel, pretrained
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState, normalize
from jaxvid.models.lstm import LSTM
from jaxvid.models.pixelcnn import GatedPixelCNN, MaskedPixelCNN
from jaxvid.models.prior import Grid, Prior, joined
from jaxvid.models.transformer import Transformer
from jaxvid.names import choice
from jaxvid.parallel import fold_keys
from jaxvid.tokens import PLAYER as TOKENIZER
from jaxvid.tokens import Drawing, Tokenizer, draw, guided, known_places, make_drawing, make_tokenizer

PRIOR = "prior"
NETWORKS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {  # and the fields of each, beside the width
    "transformer": (Transformer, ("layers", "heads")),
    "pixelcnn": (GatedPixelCNN, ("layers", "kernel")),
    "masked_pixelcnn": (MaskedPixelCNN, ("layers", "kernel")),
    "lstm": (LSTM, ("layers", "kernel", "heads")),
}
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


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a prior; `configs/transformer.py` documents the fields.

    Raises ValueError for what cannot work.
    """
    tokenizer = make_tokenizer(config)
    if not 0 <= config.model.unguided < 1:
        raise ValueError(f"model.unguided is {config.model.unguided}, expected a share from 0 to below 1.")
    setup = Setup(
        config=config,
        tokenizer=tokenizer,
        prior=make_prior(config, tokenizer),
        drawing=make_drawing(config.sample),
        optimizers=optim.make_optimizers(config.optim, {PRIOR: config.train.steps}),
        axis_name=axis_name,
    )
    if setup.drawing.guidance != 1 and (setup.prior.guide is None or not config.model.unguided):
        raise ValueError(
            f"sample.guidance is {setup.drawing.guidance}, and the model was trained without a label or a text to "
            "leave out: set it to 1."
        )
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, sample=sample)
    return Method(**bound, frozen={TOKENIZER: config.tokenizer}, headline=("bits",))


def make_prior(config: ConfigDict, tokenizer: Tokenizer) -> Prior:
    """The module of `config.model`. Raises ValueError where a field has no such value."""
    model, condition = config.model, config.condition
    conditions_lib.check(condition, config.data.frames)
    dtype = jnp.dtype(choice("model.dtype", model.dtype, ("float32", "bfloat16")))
    if "input" in condition.on:
        raise ValueError("condition.on has input, a clip to translate, which no prior reads: leave it out.")
    words = "text" in condition.on and not condition.embeddings
    make_encoder = functools.partial(conditions_lib.make_encoder, condition, dtype)
    return Prior(
        network=make_network(model, tokenizer.grid, dtype),
        grid=tokenizer.grid,
        digits=tokenizer.digits,
        width=model.width,
        features=condition.features,
        guide=make_encoder(("vector", "words") if words else ("vector",)) if guides(condition) else None,
        per_frame=make_encoder(("frames",)) if "action" in condition.on else None,
        dtype=dtype,
    )


def make_network(model: ConfigDict, grid: Grid, dtype: Any) -> nn.Module:
    """The network of `config.model`, for a grid of tokens. Raises ValueError where a field has no such value."""
    kind, fields = NETWORKS[choice("model.network", model.network, NETWORKS)]
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


def guides(condition: ConfigDict) -> list[str]:
    """The conditions that can be left out for guidance."""
    return [name for name in condition.on if conditions_lib.TABLE[name].kind in ("vector", "words")]


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    tokenizer_key, prior_key, key = jax.random.split(key, 3)
    one = jax.tree.map(lambda x: x[:1], dict(batch))
    params, collections = pretrained.init(setup.config.tokenizer, tokenizer_key, one)
    players = {TOKENIZER: params}
    state = core.new_state(key, players, {}, {TOKENIZER: collections})
    of_prior = setup.prior.init(prior_key, *inputs(setup, state, one, jnp.ones(1, int)))["params"]
    players[PRIOR] = of_prior
    return core.new_state(key, players, setup.optimizers, {TOKENIZER: collections}, averaged=(PRIOR,))


def inputs(setup: Setup, state: TrainState, batch: Batch, known: jax.Array | None = None) -> Inputs:
    """What the prior learns from: the tokens of a batch's videos, and their conditions.

    Args:
      known: [B], how many first frames are known, where the model is conditioned on them.
    """
    tokenizer, frozen = setup.tokenizer, pretrained.state_of(state, TOKENIZER)
    tokens = batch["tokens"] if "tokens" in batch else tokenizer.encode(frozen, normalize(batch["video"]))
    return Inputs(tokens, tokenizer.vectors(frozen)(tokens), *given(setup, state, batch, known))


def given(
    setup: Setup, state: TrainState, batch: Batch, count: jax.Array | None = None
) -> tuple[jax.Array | None, dict[str, jax.Array]]:
    """What is known at every place [B,t,h,w,D+1], and the other conditions."""
    conditions = conditions_lib.take(setup.config.condition, batch)
    first = conditions.pop("first_frames", None)
    if first is None:
        return None, conditions
    count = jnp.full(len(first), first.shape[1]) if count is None else count
    rest = setup.config.data.frames - first.shape[1]
    video = jnp.pad(first, [(0, 0), (0, rest), *[(0, 0)] * 3], mode="edge")
    return known_places(setup.tokenizer, pretrained.state_of(state, TOKENIZER), video, count), conditions


def cross_entropy(setup: Setup, params: Any, examples: Inputs, keep: jax.Array | None = None) -> jax.Array:
    """-log p of every token in nats, [B,t,h,w] float32; `keep` [B] is False where guides are left out."""
    logits = setup.prior.apply({"params": params}, *examples, keep)
    digits = setup.prior.split(examples.tokens)
    each = map(optax.softmax_cross_entropy_with_integer_labels, logits, digits)
    return functools.reduce(jnp.add, each)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    count = len(next(iter(batch.values())))
    keys = parallel.example_keys(core.step_key(state), count, setup.axis_name)
    most = setup.config.condition.first_frames
    known = jax.vmap(lambda key: jax.random.randint(key, (), 0, most + 1))(fold_keys(keys, 0))
    keep = jax.vmap(jax.random.uniform)(fold_keys(keys, 1)) >= setup.config.model.unguided
    examples = inputs(setup, state, batch, known)

    def objective(params: Any) -> jax.Array:
        return cross_entropy(setup, params, examples, keep).mean()

    loss, grads = jax.value_and_grad(objective)(state.params[PRIOR])
    state, norm = core.apply_gradients(state, PRIOR, grads, setup.optimizers[PRIOR], setup.axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), PRIOR, optim.ema_decay(setup.config.optim, PRIOR))
    loss = parallel.pmean(loss, setup.axis_name)
    return state, {"loss": loss, "bits": loss / math.log(2), "grad_norm": norm}


def generate(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """Tokens [B,t,h,w] under the conditions of a batch, those of each video drawn from its own of the B keys."""
    prior, drawing, tokenizer = setup.prior, setup.drawing, setup.tokenizer
    variables = {"params": core.sampled_params(state, PRIOR)}
    vectors = tokenizer.vectors(pretrained.state_of(state, TOKENIZER))
    known, conditions = given(setup, state, batch)
    count, copies = len(keys), 1 if drawing.guidance == 1 else 2

    def copied(x: jax.Array) -> jax.Array:
        return jnp.concatenate([x] * copies)

    known, conditions = jax.tree.map(copied, (known, conditions))
    under_conditions = jnp.arange(copies * count) < count
    apply: Any = functools.partial(prior.apply, variables)
    context = apply(known, conditions, under_conditions, method="context")
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (math.prod(tokenizer.grid), len(prior.digits))))(keys)

    def draw_token(features: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        digits: list[jax.Array] = []
        for number in range(len(prior.digits)):
            logits = apply(features, list(map(copied, digits)), method="logits")
            logits = guided(logits, drawing.guidance) if copies > 1 else logits
            digits.append(draw(logits, uniforms[:, place, number], drawing))
        token = joined(digits, prior.digits)
        embedded = apply(copied(token), copied(vectors(token)), method="embed")
        return token, embedded

    return prior.network.generate(functools.partial(apply, method="run"), context, draw_token)


def sample(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`. First frames come back as they were given."""
    video = setup.tokenizer.decode(pretrained.state_of(state, TOKENIZER), generate(setup, state, batch, keys))
    first = conditions_lib.take(setup.config.condition, batch).get("first_frames")
    return video if first is None else jnp.concatenate([first, video[:, first.shape[1] :]], 1)


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: bits for a token, and beside samples what the tokenizer and the prior make of the videos."""
    video, frozen = normalize(batch["video"]), pretrained.state_of(state, TOKENIZER)
    examples = inputs(setup, state, batch)
    bits = cross_entropy(setup, core.sampled_params(state, PRIOR), examples) / math.log(2)
    names = tuple(f"frame {frame}" for frame in range(bits.shape[1]))
    keys = parallel.example_keys(key, len(video))
    codes = math.prod(setup.prior.digits)
    rows = examples.tokens.reshape(len(video), -1)
    return Evaluated(
        scalars={
            "bits": bits.mean((1, 2, 3)),
            "bits_per_value": bits.sum((1, 2, 3)) / video[0].size,  # of a pixel's channel: a rate
        },
        counts={"codes": jax.vmap(lambda row: jnp.zeros(codes, jnp.int32).at[row].add(1))(rows)},
        profiles={"bits_by_frame": Profile(bits.mean((2, 3)), names)},
        panels={
            "original": video,
            "reconstruction": setup.tokenizer.decode(frozen, examples.tokens),
            "sample": sample(setup, state, batch, keys),
        },
    )
