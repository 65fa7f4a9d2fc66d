"""The one interface: a method is a record of pure functions over a state of arrays."""

import functools
import importlib
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from jaxvid import parallel
from jaxvid.names import nearest

Batch = Mapping[str, jax.Array]
"""`video` [B,T,H,W,C], uint8 on the way to the device and float in [-1, 1] there; an image has T=1. Optional: `label`
[B], `attributes` [B,K] (1 for what is true of the clip, 0 for what is not), `words` int [B,L] or `embedding` [B,E] (of
the caption), `action` [B,T,A], `input` (the clip to translate, whether `video` shows the same scene or not)
[B,T,H,W,C], `image` (of any other scene, to learn beside the clips) [B,1,H,W,C], `target` [B] (the label to translate
to), `truth` [B,T,H,W,C] (the true translation, where it is known and is not `video`) and `mask` [B] (0 for rows that
only pad a batch)."""

Metrics = dict[str, jax.Array]
Function = TypeVar("Function", bound=Callable)


class TrainState(struct.PyTreeNode):
    """Everything a run needs to resume: arrays only, the middle four keyed by player (network).

    A player owns one parameter subtree and at most one optimizer. A frozen player has neither `opt_state` nor `ema`.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    opt_state: dict[str, Any]
    collections: dict[str, Any]  # Flax variables that are no parameters: BatchNorm statistics, EMA codebooks
    ema: dict[str, Any]  # averaged parameters of the players that are sampled from
    extra: dict[str, Any]  # what is no Flax variable: moving averages of losses, a history pool


class Profile(struct.PyTreeNode):
    """Numbers by class or by dimension: [B,K], nan where an example has no value; the names of the K, or none."""

    values: jax.Array
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())


class Evaluated(NamedTuple):
    """What an `eval_step` returns about each of B examples.

    Attributes:
      scalars: {name: [B]}, averaged over the evaluation set.
      counts: {name: int [B,K]}, summed to a histogram.
      profiles: {name: Profile}, averaged by entry over the examples that are not nan there.
      panels: {name: video [B,T,H,W,C]}, drawn side by side in this order, the original included.
    """

    scalars: Metrics
    counts: Metrics = {}
    profiles: dict[str, Profile] = {}
    panels: dict[str, jax.Array] = {}


class Translation(NamedTuple):
    """How a method translates videos.

    Attributes:
      apply: (state, video [B,T,H,W,3] in [-1, 1] of any T, H and W, target int [B]) -> video of the same shape; a
        target is an index into `targets`, the same for all videos of a call.
      targets: names of the domains that it translates to.
      origins: for each of them the domain that the videos must come from; "" for any.
      radius: frame t of a translation depends on no frames of the video further away than this.
    """

    apply: Callable[[TrainState, jax.Array, jax.Array], jax.Array]
    targets: tuple[str, ...]
    origins: tuple[str, ...]
    radius: int = 0


def no_warnings(metrics: Mapping[str, float]) -> list[str]:
    """The `warnings` of a method that has nothing to warn of."""
    return []


def own_labels(batch: Batch) -> jax.Array | None:
    """The `asked` of a method whose videos have the labels [B] of the batch, where it has any."""
    return batch.get("label")


class Method(NamedTuple):
    """What `make(config, axis_name)` of a method's module returns; all are pure and independent of the loop.

    Attributes:
      init: (key, batch) -> TrainState.
      train_step: (state, batch) -> (TrainState, metrics); metrics are scalars.
      eval_step: (state, batch, key) -> Evaluated.
      sample: (state, batch, keys) -> video [B,T,H,W,C] in [-1, 1]; the batch holds conditions only, and each video is
        drawn from its own of the B keys, so that it does not depend on the videos beside it. None: the method generates
        no videos.
      reconstruct: (state, batch) -> video [B,T,H,W,C] in [-1, 1] to compare with `batch["truth"]`, where there is one,
        or else `batch["video"]` (see `heldout.has_truth`); None: there is none.
      asked: batch -> the labels [B] that what `sample` or `reconstruct` makes should show, where there are any.
      translation: how videos of any size and length are translated; None: the method translates none.
      frozen: {player: its part of the config, see `jaxvid.pretrained`} of the players that are loaded and not trained.
      warnings: an evaluation's averages, by name -> sentences about what looks wrong.
      headline: names of the metrics that the progress line shows.
      tokens_per_frame: how many tokens `sample` draws for a frame of video; 0: it draws none.
      training_only: names in `TrainState.extra` that `train_step` alone reads; an exported run is without them.
    """

    init: Callable[[jax.Array, Batch], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[TrainState, Batch, jax.Array], Evaluated]
    sample: Callable[[TrainState, Batch, jax.Array], jax.Array] | None = None
    reconstruct: Callable[[TrainState, Batch], jax.Array] | None = None
    asked: Callable[[Batch], jax.Array | None] = own_labels
    translation: Translation | None = None
    frozen: Mapping[str, Any] = {}
    warnings: Callable[[Mapping[str, float]], list[str]] = no_warnings
    headline: tuple[str, ...] = ("loss",)
    tokens_per_frame: float = 0.0
    training_only: tuple[str, ...] = ()


def bind(setup: Any, **functions: Callable) -> dict[str, Any]:
    """The fields of a `Method` that are functions of a setup: {name: its function with the setup as first argument}."""
    return {name: functools.partial(function, setup) for name, function in functions.items()}


def find_method(name: str) -> ModuleType:
    """The module of `config.method`: one of `jaxvid.methods`, or else one on the Python path (package.module).

    It exports `make(config, axis_name=None) -> Method`. It may export `complete(config, source) -> config`, which fills
    in what the data decide before the method is made (default: `jaxvid.conditions.complete`), and `MODES`, uses of a
    trained run that `jaxvid.sample` offers (`jaxvid.run.Mode`).

    Raises ValueError: there is no such module, it cannot be imported, or it has no `make`.
    """
    methods = [each.name for each in pkgutil.iter_modules(importlib.import_module("jaxvid.methods").__path__)]
    path = f"jaxvid.methods.{name}" if name in methods else name
    try:
        module = importlib.import_module("" if path.startswith(".") else path)
    except SyntaxError as error:
        raise ValueError(f'method "{name}" cannot be imported: {error}.') from error
    except (ImportError, ValueError) as error:  # ValueError: an empty name, or a relative one
        missing = getattr(error, "name", None) or ""
        if missing and not f"{path}.".startswith(f"{missing}."):
            raise ValueError(f'method "{name}" cannot be imported: {error}.') from error
        raise ValueError(
            f'method is "{name}", expected one of {", ".join(methods)}, or a module on the Python path such as '
            f"package.module; did you mean {nearest(name, methods)}?"
        ) from error
    if not callable(getattr(module, "make", None)):
        raise ValueError(f'method is "{name}", and the module {path} has no function make(config, axis_name).')
    return module


def make_method(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The method of a config. Raises ValueError as `find_method` does, for what the method refuses, and for a config
    without a field that it reads.
    """
    module = find_method(config.method)
    try:
        method = module.make(config, axis_name)
    except (AttributeError, KeyError) as error:
        *_, last = traceback.walk_tb(error.__traceback__)
        if not last[0].f_globals["__name__"].startswith("ml_collections"):
            raise
        field = str(error.args[0]).partition("\n")[0].strip("\"'")
        raise ValueError(f'the config lacks a field, {field}, that the method "{config.method}" reads.') from error
    if not isinstance(method, Method):
        raise ValueError(f'make of the method "{config.method}" returned {type(method).__name__}, not core.Method.')
    functions = {name: each for name, each in method._asdict().items() if callable(each) and name != "warnings"}
    return method._replace(**{name: in_32_bits(each) for name, each in functions.items()})


def in_32_bits(function: Function) -> Function:
    """The function, computed as if JAX_ENABLE_X64 were not set: the same numbers in every process."""

    @functools.wraps(function)
    def narrow(*arguments: Any, **named: Any) -> Any:
        with jax.enable_x64(False):
            return function(*arguments, **named)

    return cast(Function, narrow)


def normalize(video: jax.Array) -> jax.Array:
    """uint8 in [0, 255] -> float32 in [-1, 1]; float passes through."""
    if video.dtype == jnp.uint8:
        return video.astype(jnp.float32) / 127.5 - 1.0
    return video


def step_key(state: TrainState) -> jax.Array:
    """The key of this step. It depends on the seed and the step alone, so that a resumed run repeats it."""
    return jax.random.fold_in(state.key, state.step)


def new_state(
    key: jax.Array,
    params: Mapping[str, Any],
    optimizers: Mapping[str, optax.GradientTransformation],
    collections: Mapping[str, Any] | None = None,
    averaged: tuple[str, ...] = (),
    extra: Mapping[str, Any] | None = None,
) -> TrainState:
    """The state at step 0.

    Args:
      key: of the noise of all steps.
      params, collections: by player.
      optimizers: by player; a player without one is frozen.
      averaged: the players whose parameters are averaged for sampling, see `update_ema`.
      extra: what is no Flax variable.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=dict(params),
        opt_state={player: optimizer.init(params[player]) for player, optimizer in optimizers.items()},
        collections=dict(collections or {}),
        ema={player: params[player] for player in averaged},
        extra=dict(extra or {}),
    )


def apply_gradients(
    state: TrainState, player: str, grads: Any, tx: optax.GradientTransformation, axis_name: str | None
) -> tuple[TrainState, jax.Array]:
    """One optimizer step of one player; returns the new state and the global norm of the averaged gradient.

    Where the optimizer's state is distributed over the devices, each of them computes its part of the new parameters.
    """
    grads = parallel.scattered(parallel.pmean(grads, axis_name))
    updates, opt_state = tx.update(grads, state.opt_state[player], state.params[player])
    params = parallel.gathered(optax.apply_updates(state.params[player], updates))
    state = state.replace(
        params={**state.params, player: params},
        opt_state={**state.opt_state, player: opt_state},
    )
    return state, optax.tree.norm(grads)


def update_ema(state: TrainState, player: str, decay: float) -> TrainState:
    """Moves a player's averaged parameters: ema <- d ema + (1 - d) params, d = min(decay, (1 + step) / (10 + step)).

    The bound lets the average forget the initial parameters within the first steps.
    """
    bounded = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    ema = optax.incremental_update(parallel.scattered(state.params[player]), state.ema[player], step_size=1 - bounded)
    return state.replace(ema={**state.ema, player: ema})


def sampled_params(state: TrainState, player: str) -> Any:
    """The parameters to evaluate and sample with: the averaged ones where they are kept."""
    return state.ema.get(player, state.params[player])
