"""The autoregressive method: a prior over the tokens of a frozen tokenizer, one token after another.

    p(tokens | conditions) = product over places, in raster order, of p(token | tokens before it, conditions)

First frames are a grid of what is known, see `tokens.known_places`; how many of them there are, up to
`condition.first_frames`, is drawn for each training example. What else is shared with other priors is in
`jaxvid.priors`.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid import core, parallel, pretrained, priors
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState
from jaxvid.models.lstm import LSTM
from jaxvid.models.pixelcnn import GatedPixelCNN, MaskedPixelCNN
from jaxvid.models.prior import Known, joined
from jaxvid.models.transformer import Transformer
from jaxvid.parallel import fold_keys
from jaxvid.priors import PRIOR, TOKENIZER, Inputs, Setup, complete
from jaxvid.tokens import copied, draw_token, known_places, under_conditions

__all__ = ["complete", "make"]
NETWORKS: priors.Networks = {
    "transformer": (Transformer, ("layers", "heads")),
    "pixelcnn": (GatedPixelCNN, ("layers", "kernel")),
    "masked_pixelcnn": (MaskedPixelCNN, ("layers", "kernel")),
    "lstm": (LSTM, ("layers", "kernel", "heads")),
}


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a prior; `configs/transformer.py` documents the fields. Raises ValueError for what cannot be."""
    setup = priors.make_setup(config, axis_name, NETWORKS)
    bound = core.bind(
        setup, init=init, train_step=train_step, eval_step=eval_step, sample=sample, reconstruct=priors.reconstruct
    )
    return Method(
        **bound,
        frozen={TOKENIZER: config.tokenizer},
        headline=("bits",),
        tokens_per_frame=setup.tokenizer.tokens_per_frame,
    )


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    return priors.init(setup, key, batch, functools.partial(inputs, setup))


def inputs(setup: Setup, state: TrainState, batch: Batch, count: jax.Array | None = None) -> Inputs:
    """What the prior learns from; `count` as of `known`."""
    return priors.inputs_of(setup, state, batch, known(setup, state, batch, count))


def known(setup: Setup, state: TrainState, batch: Batch, count: jax.Array | None = None) -> Known | None:
    """What is known at every place, of `count` [B] of the first frames (default: all of the batch's)."""
    _, first = priors.taken(setup, batch)
    if first is None:
        return None
    count = jnp.full(len(first), first.shape[1]) if count is None else count
    rest = setup.tokenizer.frames - first.shape[1]
    video = jnp.pad(first, [(0, 0), (0, rest), *[(0, 0)] * 3])
    return known_places(setup.tokenizer, pretrained.state_of(state, TOKENIZER), video, count)


def predict(setup: Setup, params: Any, examples: Inputs, keep: jax.Array | None = None) -> list[jax.Array]:
    """Logits [B,t,h,w,K] of each digit, given what comes before; `keep` [B] is False where guides are left out."""
    logits: Any = setup.prior.apply({"params": params}, *examples, keep)
    return logits


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    count = len(next(iter(batch.values())))
    keys = parallel.example_keys(core.step_key(state), count, setup.axis_name)
    most = setup.config.condition.first_frames
    examples = inputs(
        setup, state, batch, jax.vmap(lambda key: jax.random.randint(key, (), 0, most + 1))(fold_keys(keys, 0))
    )
    keep = priors.kept(setup, keys)

    def objective(params: Any) -> jax.Array:
        return priors.cross_entropy(setup, predict(setup, params, examples, keep), examples.tokens).mean()

    return priors.learn(setup, state, objective)


def generate(
    setup: Setup, state: TrainState, batch: Batch, keys: jax.Array, prefix: jax.Array | None = None
) -> jax.Array:
    """Tokens [B,t,h,w] under the conditions of a batch, those of each video drawn from its own of the B keys.

    The first frames of tokens are those of the `prefix` [B,p,h,w].
    """
    prior, drawing, tokenizer = setup.prior, setup.drawing, setup.tokenizer
    apply: Any = functools.partial(prior.apply, {"params": core.sampled_params(state, PRIOR)})
    given = copied((known(setup, state, batch), priors.taken(setup, batch)[0]), drawing)
    context = apply(*given, under_conditions(len(keys), drawing), method="context")
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (math.prod(tokenizer.grid), len(prior.digits))))(keys)

    given_tokens = jnp.zeros((len(keys), 0), int) if prefix is None else prefix.reshape(len(keys), -1)

    def draw(features: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = functools.partial(apply, features, method="logits")
        token, _ = draw_token(logits, prior.digits, uniforms[:, place], drawing)
        if given_tokens.size:
            token = jnp.where(place < given_tokens.shape[1], given_tokens[:, place].astype(token.dtype), token)
        return token, apply(copied(token, drawing), method="embed")

    return prior.network.generate(functools.partial(apply, method="run"), context, draw)


def sample(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`; see `priors.sample`."""
    return priors.sample(setup, state, batch, keys, generate)


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: bits for a token, and as panels samples, and of each token the likeliest after the true ones
    before it ("teacher-forced").
    """
    examples = inputs(setup, state, batch)
    logits = predict(setup, core.sampled_params(state, PRIOR), examples)
    bits = priors.cross_entropy(setup, logits, examples.tokens) / math.log(2)
    likeliest = joined([each.argmax(-1) for each in logits], setup.prior.digits)
    panels = {
        "teacher-forced": priors.decode(setup, state, likeliest),
        "sample": sample(setup, state, batch, parallel.example_keys(key, len(bits))),
    }
    found = priors.evaluated(setup, state, batch, examples.tokens, bits.mean((1, 2, 3)), **panels)
    frames = Profile(bits.mean((2, 3)), tuple(f"frame {frame}" for frame in range(bits.shape[1])))
    return found._replace(profiles={"bits_by_frame": frames, **found.profiles})
