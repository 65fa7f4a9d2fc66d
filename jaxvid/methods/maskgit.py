"""MaskGIT: a prior over the tokens of a frozen tokenizer that draws many tokens at once (Chang et al., 2022; for video
MAGVIT, Yu et al., 2023).

It learns p(each hidden token | the others, conditions), where a random part of the tokens is hidden, and samples from
all hidden in a few steps, each of which reveals some. With `model.tasks` one model completes videos of which a part is
known, see `jaxvid.completion`: what is known is a grid beside the tokens (`tokens.known_grid`), all tokens are drawn,
and known pixels come back as given. What else is shared with other priors is in `jaxvid.priors`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid import completion, core, parallel, pretrained, priors
from jaxvid.completion import GENERATION, PREDICTION
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState, normalize
from jaxvid.models.masked import RANKS, MaskedPrior, cosine_count, halton, hidden_at_random, remaining, revealed
from jaxvid.models.prior import Known
from jaxvid.models.transformer import Transformer
from jaxvid.names import choice
from jaxvid.parallel import fold_keys
from jaxvid.priors import PRIOR, TOKENIZER, Inputs, Setup, complete
from jaxvid.tokens import Drawing, copied, draw_token, known_grid, under_conditions

__all__ = ["MODES", "complete", "exact_bits", "make"]
NETWORKS: priors.Networks = {"transformer": (functools.partial(Transformer, causal=False), ("layers", "heads"))}
CONFIDENCE = "confidence"
PARTS = 4  # of the shares of hidden tokens, each of which an evaluation looks at
MODES = completion.make_modes((*Drawing._fields, "steps", "order", "noise"))


class Completion(NamedTuple):
    """What a model is to complete."""

    task: jax.Array  # int [B], of `config.model.tasks`
    video: jax.Array  # [B,T,H,W,3] in [-1, 1]
    known: jax.Array  # bool, of a shape that broadcasts to [B,T,H,W]


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of MaskGIT; `configs/maskgit.py` documents the fields. Raises ValueError for what cannot be."""
    setup = make_setup(config, axis_name)
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, sample=sample)
    bound |= core.bind(setup, reconstruct=priors.reconstruct)
    return Method(
        **bound,
        frozen={TOKENIZER: config.tokenizer},
        headline=("bits",),
        tokens_per_frame=setup.tokenizer.tokens_per_frame,
    )


def make_setup(config: ConfigDict, axis_name: str | None = None) -> Setup:
    """The setup of a config. Raises ValueError as `make` does."""
    tasks, options = config.model.tasks, config.sample
    completion.check(tasks, config.data.frames)
    if (task := default_task(config)) not in tasks:
        raise ValueError(f"model.tasks is {tasks} and condition.on {config.condition.on}: add {task} to model.tasks.")
    if options.steps < 1:
        raise ValueError(f"sample.steps is {options.steps}, expected at least 1.")
    choice("sample.order", options.order, (*RANKS, CONFIDENCE))
    if config.data.tokens and tasks != (GENERATION,):
        raise ValueError(
            f"model.tasks is {tasks}, which needs videos, and data.tokens names tokens alone: leave it empty."
        )
    if not 0 <= options.noise < math.inf:
        raise ValueError(f"sample.noise is {options.noise}, expected 0 or more.")
    return priors.make_setup(config, axis_name, NETWORKS, functools.partial(MaskedPrior, tasks=len(tasks)))


def default_task(config: ConfigDict) -> str:
    """The task of samples, and of evaluations."""
    return PREDICTION if "first_frames" in config.condition.on else GENERATION


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    return priors.init(setup, key, batch, lambda state, one: inputs(setup, state, one, asked(setup, one, 1)))


def inputs(setup: Setup, state: TrainState, batch: Batch, part: Completion | None) -> Inputs:
    """What the prior learns from, where this part of the videos is known."""
    return priors.inputs_of(setup, state, batch, known(setup, state, part))


def known(setup: Setup, state: TrainState, part: Completion | None) -> Known | None:
    """What is known at every place; None where the model completes no videos."""
    if part is None:
        return None
    return known_grid(setup.tokenizer, pretrained.state_of(state, TOKENIZER), part.video, part.known)


def drawn(setup: Setup, batch: Batch, keys: jax.Array) -> Completion | None:
    """Tasks drawn for training examples."""
    tasks = setup.config.model.tasks
    if tasks == (GENERATION,):
        return None
    video = normalize(batch["video"])
    _, frames, height, width, _ = video.shape
    draw = functools.partial(completion.known_at_random, tasks=tasks, size=(frames, height, width))
    task, mask = jax.vmap(draw)(keys)
    return Completion(task, video, mask)


def asked(setup: Setup, batch: Batch, count: int) -> Completion | None:
    """What is asked for of `count` videos: what the batch says is known of them, or else the default task."""
    tasks, side = setup.config.model.tasks, setup.config.data.resolution
    if tasks == (GENERATION,):
        return None
    if "known" in batch:
        return Completion(batch["task"], normalize(batch["given"]), batch["known"])
    first, length = priors.taken(setup, batch)[1], setup.tokenizer.frames
    video = jnp.zeros((count, 0, side, side, 3)) if first is None else first
    task = default_task(setup.config) if video.shape[1] or GENERATION not in tasks else GENERATION
    frames = jnp.broadcast_to(jnp.arange(length) < video.shape[1], (count, length))[:, :, None, None]
    video = jnp.pad(video, [(0, 0), (0, length - video.shape[1]), *[(0, 0)] * 3])
    return Completion(jnp.full(count, tasks.index(task)), video, frames)


def cross_entropy(
    setup: Setup,
    params: Any,
    examples: Inputs,
    hidden: jax.Array,
    part: Completion | None,
    keep: jax.Array | None = None,
) -> jax.Array:
    """-log p in nats of every token given those that are not hidden, [B,t,h,w]; that of a hidden one does not see it.

    `hidden` is bool [B,N]; `keep` [B] is False where guides are left out.
    """
    hidden = hidden.reshape(examples.tokens.shape)
    logits: Any = setup.prior.apply({"params": params}, *examples, keep, hidden, None if part is None else part.task)
    return priors.cross_entropy(setup, logits, examples.tokens)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`: the mean over the hidden tokens of each example (Chang et al., 2022, equation 1, by their
    number, so that examples with few of them count as much as others).
    """
    count, places = len(next(iter(batch.values()))), math.prod(setup.tokenizer.grid)
    keys = parallel.example_keys(core.step_key(state), count, setup.axis_name)
    part = drawn(setup, batch, fold_keys(keys, 0))
    examples, keep = inputs(setup, state, batch, part), priors.kept(setup, keys)
    numbers = cosine_count(jax.vmap(jax.random.uniform)(fold_keys(keys, 2)), places)
    hidden = jax.vmap(functools.partial(hidden_at_random, places=places))(fold_keys(keys, 3), numbers)

    def objective(params: Any) -> jax.Array:
        nats = cross_entropy(setup, params, examples, hidden, part, keep)
        sums = jnp.where(hidden, nats.reshape(hidden.shape), 0).sum(-1)
        return (sums / hidden.sum(-1)).mean()

    return priors.learn(setup, state, objective)


def generate(
    setup: Setup,
    state: TrainState,
    batch: Batch,
    keys: jax.Array,
    tokens: jax.Array | None = None,
    hidden: jax.Array | None = None,
) -> jax.Array:
    """Tokens [B,t,h,w] under the conditions of a batch, those of each video drawn from its own of the B keys.

    At temperature 0 nothing depends on the keys.

    Args:
      tokens: int [B,t,h,w], of which those that are not `hidden` bool [B,t,h,w] stay (default: all are hidden).
    """
    prior, drawing, grid = setup.prior, setup.drawing, setup.tokenizer.grid
    count, places = len(keys), math.prod(grid)
    keys = keys if drawing.temperature else jnp.broadcast_to(jax.random.key(0), (count,))
    apply: Any = functools.partial(prior.apply, {"params": core.sampled_params(state, PRIOR)})
    part = asked(setup, batch, count)
    task = jnp.zeros(count, int) if part is None else part.task
    known_part, conditions, task = copied((known(setup, state, part), priors.taken(setup, batch)[0], task), drawing)
    context = apply(known_part, conditions, under_conditions(count, drawing), task, method="task_context")
    tokens = jnp.zeros((count, *grid), jnp.int32) if tokens is None else tokens.astype(jnp.int32)
    hidden = jnp.ones((count, *grid), bool) if hidden is None else hidden
    steps = min(setup.config.sample.steps, places)
    score = scores(setup, fold_keys(keys, 0), steps)

    def reveal(carry: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (tokens, hidden), (number, left) = carry, step
        features = apply(*copied((tokens, hidden), drawing), context, method="see")
        logits = functools.partial(apply, features.reshape(-1, prior.width), method="logits")
        own = fold_keys(fold_keys(keys, 1), number)
        uniforms = jax.vmap(lambda key: jax.random.uniform(key, (places, len(prior.digits))))(own)
        found, log_p = draw_token(logits, prior.digits, uniforms.reshape(-1, len(prior.digits)), drawing)
        ordered = score(log_p.reshape(count, places), number)
        chosen = revealed(ordered, hidden.reshape(count, places), left).reshape(hidden.shape)
        return (jnp.where(chosen, found.reshape(tokens.shape), tokens), hidden & ~chosen), None

    left = remaining(hidden.sum((1, 2, 3)), steps)
    (drawn_tokens, _), _ = jax.lax.scan(reveal, (tokens, hidden), (jnp.arange(steps), left))
    return drawn_tokens


def scores(setup: Setup, keys: jax.Array, steps: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """What says which tokens are revealed first: a function of the log-probabilities [B,N] of what was drawn, and of
    the number of the step -> [B,N], higher ones first.
    """
    options, grid = setup.config.sample, setup.tokenizer.grid
    if options.order != CONFIDENCE:
        ranks = jax.vmap(lambda key: RANKS[options.order](key, grid))(keys)
        return lambda log_p, number: -ranks.astype(log_p.dtype)
    amount = options.noise if setup.drawing.temperature else 0.0

    def confidence(log_p: jax.Array, number: jax.Array) -> jax.Array:
        noise = jax.vmap(lambda key: jax.random.gumbel(key, log_p.shape[1:]))(fold_keys(keys, number))
        return log_p + amount * (1 - (number + 1) / steps) * noise

    return confidence


def sample(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`; see `priors.sample`. Known pixels come back as they were given.

    Beside the conditions, a batch may say what is known: `given` [B,T,H,W,3], `known` bool [B,T,H,W], and the `task`
    int [B], an index of `config.model.tasks`.
    """
    video = priors.sample(setup, state, batch, keys, fill_in)
    if "known" in batch:
        return jnp.where(batch["known"][..., None], normalize(batch["given"]), video)
    return video


def fill_in(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array, prefix: jax.Array | None) -> jax.Array:
    """Tokens [B,t,h,w], of which the first frames of tokens are those of the `prefix` [B,p,h,w]."""
    if prefix is None:
        return generate(setup, state, batch, keys)
    rest = [(0, 0), (0, setup.tokenizer.grid[0] - prefix.shape[1]), (0, 0), (0, 0)]
    hidden = jnp.pad(jnp.zeros(prefix.shape, bool), rest, constant_values=True)
    return generate(setup, state, batch, keys, jnp.pad(prefix, rest), hidden)


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: bits for a token, and beside samples what the tokenizer makes of the videos.

    One to all of the tokens are hidden, each number as often. So the bits, of those that are hidden, are on average
    those of tokens that are revealed one by one in random order (Hoogeboom et al., 2022, equation 3): comparable with
    the bits of an autoregressive prior. The profile has them by the share of hidden tokens. Beside them are the exact
    bits of `sample.steps` steps in a fixed order: `exact_bits`.
    """
    video, places = normalize(batch["video"]), math.prod(setup.tokenizer.grid)
    keys, params = parallel.example_keys(key, len(video)), core.sampled_params(state, PRIOR)
    part = asked(setup, batch, len(video))
    examples = inputs(setup, state, batch, part)

    def bits_of_part(index: jax.Array) -> jax.Array:
        own = fold_keys(fold_keys(keys, 1), index)
        share = (index + jax.vmap(jax.random.uniform)(fold_keys(own, 0))) / PARTS
        numbers = 1 + jnp.floor(share * places).astype(int).clip(0, places - 1)
        hidden = jax.vmap(functools.partial(hidden_at_random, places=places))(fold_keys(own, 1), numbers)
        nats = cross_entropy(setup, params, examples, hidden, part).reshape(hidden.shape)
        return jnp.where(hidden, nats, 0).sum(1) / hidden.sum(1) / math.log(2)

    bits = jax.lax.map(bits_of_part, jnp.arange(PARTS)).T
    names = tuple(f"{100 * low // PARTS} to {100 * (low + 1) // PARTS} % hidden" for low in range(PARTS))
    made = sample(setup, state, batch, fold_keys(keys, 0))
    found = priors.evaluated(setup, state, batch, examples.tokens, bits.mean(1), sample=made)
    exact = bits_in_steps(setup, state, examples, part, setup.config.sample.steps).mean((1, 2, 3))
    return found._replace(
        scalars={**found.scalars, "bits_in_steps": exact},
        profiles={"bits_by_hidden": Profile(bits, names), **found.profiles},
    )


def exact_bits(config: ConfigDict, state: TrainState, batch: Batch, steps: int = 0) -> jax.Array:
    """-log2 p of the tokens of videos, exactly, where they are revealed in the order of `models.masked.halton`.

    In as many steps as tokens this is an autoregressive model in that order. In fewer, the tokens of a step do not see
    each other, which is the price of speed in bits: what sampling with `sample.order = "halton"` at temperature 1 has.

    Args:
      config, state: of a run, `jaxvid.run.load`.
      batch: of videos and conditions; see `sample`.
      steps: at least 1 (default: one for each token). Each takes one pass through the network.

    Returns float32 [B,t,h,w], whose sum is that of a video. Raises ValueError for fewer steps than 0.
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 1, or 0 for one to each token.")
    setup = make_setup(config)

    @functools.partial(jax.jit, compiler_options=parallel.compiler_options())
    def program(state: TrainState, batch: Batch) -> jax.Array:
        part = asked(setup, batch, len(next(iter(batch.values()))))
        return bits_in_steps(setup, state, inputs(setup, state, batch, part), part, steps)

    return program(state, batch)


def bits_in_steps(
    setup: Setup, state: TrainState, examples: Inputs, part: Completion | None, steps: int = 0
) -> jax.Array:
    """`exact_bits` of examples, of which this part of the videos is known."""
    grid, count = setup.tokenizer.grid, len(examples.tokens)
    places, params = math.prod(grid), core.sampled_params(state, PRIOR)
    ranks = jnp.asarray(halton(grid))

    def step(bits: jax.Array, left: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        hidden, later = (ranks >= places - number for number in left)
        nats = cross_entropy(setup, params, examples, jnp.tile(hidden, (count, 1)), part)
        return jnp.where((hidden & ~later).reshape(grid), nats / math.log(2), bits), None

    left = remaining(jnp.array([places]), min(steps or places, places))[:, 0]
    before = jnp.concatenate([jnp.array([places]), left[:-1]])
    return jax.lax.scan(step, jnp.zeros((count, *grid)), (before, left))[0]
