"""The one interface: a method is a record of pure functions over a state of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxvid import parallel

Batch = Mapping[str, jax.Array]
"""`video` [B,T,H,W,C], uint8 on the way to the device and float in [-1, 1] there; an image has T=1. Optional: `label`
[B], `action` [B,T,A], `source` (a paired video), `domain` [B], `mask` [B] (0 for rows that only pad a batch)."""

Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on: arrays only, keyed by player where several networks take part.

    A player owns one parameter subtree and at most one optimizer. A frozen player has no `opt_state`.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    opt_state: dict[str, Any]
    collections: dict[str, Any]  # BatchNorm statistics, EMA codebooks
    ema: dict[str, Any]  # averaged parameters of the players that are sampled from


def no_warnings(metrics: Mapping[str, float]) -> list[str]:
    """What a method says that has nothing to warn of."""
    return []


class Method(NamedTuple):
    """What `methods.x.make(config, axis_name)` returns; all are pure and know nothing of the loop.

    init: (key, batch) -> TrainState.
    train_step: (state, batch) -> (TrainState, metrics); metrics are scalars.
    eval_step: (state, batch, key) -> metrics with one value per example. Its rank says what it is: [B] is averaged over
      the evaluation set, [B,T,H,W,C] is drawn beside the batch's video; [B, K] is summed to a histogram where it holds
      integers, which are counts, and averaged to a profile where it holds floats (over those that are not nan). A name
      that ends in "_by_class" says that K counts the classes.
    sample: (state, batch, keys) -> video [B,T,H,W,C] in [-1, 1]; batch holds conditions only, and each video is drawn
      from its own of the B keys, so that it does not depend on the videos beside it.
    warnings: an evaluation's averages, by name -> sentences about what looks wrong.
    """

    init: Callable[[jax.Array, Batch], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[TrainState, Batch, jax.Array], Metrics]
    sample: Callable[[TrainState, Batch, jax.Array], jax.Array]
    warnings: Callable[[Mapping[str, float]], list[str]] = no_warnings


def normalize(video: jax.Array) -> jax.Array:
    """uint8 in [0, 255] -> float32 in [-1, 1]; float passes through."""
    if video.dtype == jnp.uint8:
        return video.astype(jnp.float32) / 127.5 - 1.0
    return video


def step_key(state: TrainState) -> jax.Array:
    """The key of this step. It depends on the seed and the step alone, so that a resumed run repeats it."""
    return jax.random.fold_in(state.key, state.step)


def apply_gradients(
    state: TrainState, player: str, grads: Any, tx: optax.GradientTransformation, axis_name: str | None
) -> tuple[TrainState, jax.Array]:
    """One optimizer step of one player; returns the new state and the global norm of the averaged gradient."""
    grads = parallel.pmean(grads, axis_name)
    updates, opt_state = tx.update(grads, state.opt_state[player], state.params[player])
    params = optax.apply_updates(state.params[player], updates)
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
    ema = optax.incremental_update(state.params[player], state.ema[player], step_size=1 - bounded)
    return state.replace(ema={**state.ema, player: ema})


def sampled_params(state: TrainState, player: str) -> Any:
    """The parameters to evaluate and sample with: the averaged ones where they are kept."""
    return state.ema.get(player, state.params[player])
