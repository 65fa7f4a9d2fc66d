"""A trained run as a frozen player of another: the tokenizer of a prior.

A recipe names it, `config.tokenizer = pretrained.reference("runs/vqvae")`; the method's module completes it,
`complete = functools.partial(pretrained.complete, player="tokenizer")`, adds `init(config.tokenizer, key, batch)` to
its own arrays, and lists it in `Method.frozen`. From then on the run holds all of it: config, step and digest in its
own config, arrays in its own checkpoints. The folder of the trained run is not needed again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid import checkpoint, conditions, core
from jaxvid import config as config_lib
from jaxvid import run as run_lib
from jaxvid.core import Batch, TrainState, sampled_params
from jaxvid.data import Source


def reference(path: str) -> ConfigDict:
    """The fields of a frozen player: the work folder that it comes from, and what `complete` fills in."""
    return ConfigDict({"path": path, "config": {}, "step": 0, "sha256": ""})


def complete(config: ConfigDict, source: Source, player: str) -> ConfigDict:
    """A copy of the config with the config, step and SHA-256 of the run at `config[player].path`, and its conditions.

    Raises:
      FileNotFoundError: there is no trained run.
      ValueError: it cannot be loaded, has not come to its end, or the conditions cannot work. One that has not is taken
        where the config names its step.
    """
    config = conditions.complete(config, source).copy_and_resolve_references()
    entry = config[player]
    if entry.config:  # from the run that resumes, see `recall`
        return config
    run = _load(player, entry.path)
    step, steps = int(run.state.step), run.config.train.steps
    if step < steps and not entry.step:
        raise ValueError(
            f"{player}.path is {entry.path}, a run that stopped at step {step} of {steps}: let it finish, or take it "
            f"as it is with --config.{player}.step={step}."
        )
    for field, found in {"step": step, "sha256": digest(run)}.items():
        if entry[field] not in (found, 0, ""):
            newest = f"the newest checkpoint in {entry.path}"
            raise ValueError(f"{player}.{field} is {entry[field]}, and {newest} has {found}.")
        entry[field] = found
    entry.config = run.config
    return config


def digest(run: run_lib.Run) -> str:
    """The SHA-256 of what a run is sampled with, by which it is recognized as a frozen player."""
    return checkpoint.sha256(_sampled(run.state), run.state.collections)


def recall(config: ConfigDict, workdir: str | Path) -> ConfigDict:
    """A copy of the config in which frozen players whose folder is gone are those of the run in the work folder."""
    config = config.copy_and_resolve_references()
    if not (Path(workdir) / "config.json").is_file():
        return config
    for player, saved in run_lib.saved_config(workdir).items():
        entry = config.get(player)
        if _is_reference(saved) and _is_reference(entry) and saved.path == entry.path:
            if not (Path(saved.path) / "config.json").exists():
                config[player] = saved
    return config


def init(entry: ConfigDict, key: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """Parameters and collections of the player, arbitrary: in the shapes into which `adopt` puts those of the run."""
    state = core.make_method(entry.config).init(key, batch)
    return _sampled(state), state.collections


def adopt(state: TrainState, frozen: Mapping[str, ConfigDict]) -> TrainState:
    """The state with the arrays of the trained runs in place of those of `init`, on the same devices.

    Args:
      state: at step 0.
      frozen: of the method.

    Raises:
      FileNotFoundError, ValueError: a run is gone, or not the one that the config was completed with.
    """
    for player, entry in frozen.items():
        run = _load(player, entry.path)
        found = {"params": _sampled(run.state), "collections": run.state.collections}
        present = {"params": state.params[player], "collections": state.collections[player]}
        arrays = jax.tree.map(_put_as, found, present)
        state = state.replace(
            params={**state.params, player: arrays["params"]},
            collections={**state.collections, player: arrays["collections"]},
        )
    checkpoint.verify(state, frozen)
    return state


def state_of(state: TrainState, player: str) -> TrainState:
    """The frozen player's part of a state as a state of its own, for the functions of its method."""
    empty: dict[str, Any] = {}
    params, collections = state.params[player], state.collections[player]
    return TrainState(state.step, state.key, params, empty, collections, empty, empty)


def _sampled(state: TrainState) -> dict[str, Any]:
    """The parameters of all players, averaged where averages are kept."""
    return {player: sampled_params(state, player) for player in state.params}


def _put_as(new: jax.Array, old: jax.Array) -> jax.Array:
    """An array of one device where another array is; by the host, since devices of other processes are out of reach."""
    return jax.make_array_from_process_local_data(old.sharding, np.asarray(new), old.shape)


def _is_reference(entry: Any) -> bool:
    return isinstance(entry, ConfigDict) and {"path", "config", "step", "sha256"} <= set(entry)


def _load(player: str, path: str) -> run_lib.Run:
    try:
        return run_lib.load(path)
    except FileNotFoundError as error:
        recipe = config_lib.recipe_of(path)
        train = f" with `python -m jaxvid.main --config {recipe}`" if recipe else ""
        raise FileNotFoundError(
            f"{player}.path is {path or 'empty'}, and no trained run is there: train one{train}, or name another with "
            f"--config.{player}.path=DIR."
        ) from error
    except ValueError as error:
        raise ValueError(f"{player}.path is {path}, which cannot be loaded: {error}") from error
