"""Optimizers and schedules: optax's own, by name."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvid.names import choice, nearest


def _optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The functions of optax that take a learning rate and make an optimizer."""
    functions = {n: f for n, f in vars(optax).items() if inspect.isfunction(f) and not n.startswith(("_", "scale_by"))}
    return {n: f for n, f in functions.items() if "learning_rate" in inspect.signature(f).parameters}


def _schedules() -> dict[str, Callable[..., optax.Schedule]]:
    """The functions of optax that make a schedule out of numbers."""
    functions = {n: f for n, f in vars(optax.schedules).items() if inspect.isfunction(f)}
    return {n: f for n, f in functions.items() if n.endswith(("_schedule", "_decay"))}


def _call(functions: dict[str, Callable], field: str, name: str, arguments: Mapping[str, Any], **defaults: Any) -> Any:
    """Calls one of the functions by name, with the config's arguments over those defaults that it takes."""
    if name not in functions:
        raise ValueError(
            f'{field} is "{name}", which optax does not have; the nearest is "{nearest(name, functions)}".'
        )
    known = inspect.signature(functions[name]).parameters
    for argument in arguments:
        if argument not in known:
            near = nearest(argument, known)
            raise ValueError(f'{field} {name} has no argument "{argument}"; the nearest is "{near}".')
    arguments = {**{k: v for k, v in defaults.items() if k in known}, **arguments}
    missing = [k for k, v in known.items() if v.default is v.empty and k not in arguments]
    if missing:
        raise ValueError(f'{field} {name} needs "{missing[0]}"; give it among its arguments in the config.')
    try:
        return functions[name](**arguments)
    except TypeError as error:
        raise ValueError(f"{field} {name} cannot work with the arguments {dict(arguments)}: {error}.") from error


def for_player(options: Mapping[str, Any], player: str) -> dict[str, Any]:
    """The fields of a player's optimizer: those of all players, and before them its own in `options["players"]`.

    Raises ValueError: one of the player's own fields is unknown.
    """
    shared = {name: value for name, value in options.items() if name != "players"}
    own = options["players"].get(player, {})
    for name in own:
        choice(f"a field of optim.players.{player}", name, shared)
    return {**shared, **own}


def make_schedule(options: Mapping[str, Any], steps: int, field: str = "optim.schedule") -> optax.Schedule:
    """The learning rate over optimizer steps.

    Args:
      options: `learning_rate` (the peak), `schedule` (the name of a function in `optax.schedules`) and
        `schedule_arguments` for it; those that only other schedules have are left out, so that a recipe's schedule can
        be changed by its name alone (--config.optim.schedule=constant_schedule). Unless given a length, a warm-up takes
        1/20 of the run, and a decay ends with it. Lengths and beginnings between 0 and 1 are shares of the run.
      steps: optimizer steps of the run.
      field: where the schedule stands in the config, for errors.

    Raises ValueError: optax has no such schedule or argument.
    """
    rate, name, known = options["learning_rate"], options["schedule"], _schedules()
    taken = {each: inspect.signature(function).parameters for each, function in known.items()}
    foreign = {argument for each in taken.values() for argument in each} - {*taken.get(name, ())}
    arguments = {
        argument: round(value * steps) if argument.endswith(("_steps", "_begin")) and is_share(value) else value
        for argument, value in options["schedule_arguments"].items()
        if argument not in foreign
    }
    return _call(
        known,
        field,
        name,
        arguments,
        value=rate,
        init_value=0.0 if name.startswith("warmup") else rate,
        peak_value=rate,
        warmup_steps=steps // 20,
        decay_steps=steps,
        transition_steps=steps - arguments.get("transition_begin", 0),
    )


def is_share(value: Any) -> bool:
    """Whether a length is a share of a run."""
    return isinstance(value, float) and 0 < value < 1


def make_optimizer(options: Mapping[str, Any], steps: int, player: str = "") -> optax.GradientTransformation:
    """Clipping, the optimizer and gradient accumulation of one player.

    Args:
      options: `config.optim`: as for `make_schedule`; `name` (a function in optax), `arguments` for it, `clip` (the
        global norm that gradients are clipped to; 0 for none), `accumulate` (train steps per optimizer step),
        `ema_decay`, and by player the fields in which it differs in `players`.
      steps: train steps of the run in which the player learns.
      player: whose optimizer.

    Raises ValueError: optax has no such function or argument, or a number is out of its range.
    """
    fields = for_player(options, player)

    def place(field: str) -> str:
        return f"optim.players.{player}.{field}" if field in options["players"].get(player, {}) else f"optim.{field}"

    name, every = fields["name"], fields["accumulate"]
    for field, wanted, holds in (
        ("accumulate", f"1 to the {steps} train.steps", 1 <= every <= steps),
        ("learning_rate", "0 or more, and finite", 0 <= fields["learning_rate"] < math.inf),
        ("clip", "a norm above 0, or 0 for none", fields["clip"] >= 0),
        ("ema_decay", "0 <= decay < 1", 0 <= fields["ema_decay"] < 1),
    ):
        if not holds:
            raise ValueError(f"{place(field)} is {fields[field]}, expected {wanted}.")
    schedule = make_schedule(fields, max(1, steps // every), place("schedule"))
    optimizer = _call(_optimizers(), place("name"), name, fields["arguments"], learning_rate=schedule)
    try:
        number = jax.ShapeDtypeStruct((1, 1), jnp.float32)
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), number)
    except TypeError as error:
        others = f", or other arguments than {dict(fields['arguments'])}" if fields["arguments"] else ""
        raise ValueError(
            f"{place('name')} {name} needs more than gradients, which no method here gives it{others}."
        ) from error
    if fields["clip"] > 0:
        optimizer = optax.chain(clip_by_global_norm(fields["clip"]), optimizer)
    if every > 1:
        return optax.MultiSteps(optimizer, every_k_schedule=every).gradient_transformation()
    return optimizer


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Gradients times min(1, limit / their global norm), as optax's does in twice the passes over memory."""

    def scale(grads: optax.Updates, _: Any) -> optax.Updates:
        return optax.tree.scale(limit / jnp.maximum(optax.tree.norm(grads), limit), grads)

    return optax.stateless(scale)


def make_optimizers(options: Mapping[str, Any], steps: Mapping[str, int]) -> dict[str, optax.GradientTransformation]:
    """`make_optimizer` for every player of a method: `steps` by player.

    Raises ValueError: as `make_optimizer`, or `options["players"]` has a player that the method does not train.
    """
    for player in options["players"]:
        choice("a player in optim.players", player, steps)
    return {player: make_optimizer(options, count, player) for player, count in steps.items()}


def ema_decay(options: Mapping[str, Any], player: str = "") -> float:
    """The decay per train step that amounts to a player's `ema_decay` per optimizer step."""
    fields = for_player(options, player)
    return fields["ema_decay"] ** (1 / fields["accumulate"])
