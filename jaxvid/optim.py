"""Optimizers and schedules: optax's own, by name."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def _optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The functions of optax that take a learning rate and make an optimizer."""
    functions = {n: f for n, f in vars(optax).items() if inspect.isfunction(f) and not n.startswith(("_", "scale_by"))}
    return {n: f for n, f in functions.items() if "learning_rate" in inspect.signature(f).parameters}


def _schedules() -> dict[str, Callable[..., optax.Schedule]]:
    """The functions of optax that make a schedule out of numbers."""
    functions = {n: f for n, f in vars(optax.schedules).items() if inspect.isfunction(f)}
    return {n: f for n, f in functions.items() if n.endswith(("_schedule", "_decay"))}


def _call(functions: Mapping[str, Callable], field: str, name: str, given: Mapping[str, Any], **defaults: Any) -> Any:
    """Calls one of the functions by name, with the config's arguments over those defaults that it takes."""
    if name not in functions:
        nearest = difflib.get_close_matches(name, functions, n=1, cutoff=0.0)[0]
        raise ValueError(f'{field} is "{name}", which optax does not have; the nearest is "{nearest}".')
    known = inspect.signature(functions[name]).parameters
    for argument in given:
        if argument not in known:
            nearest = difflib.get_close_matches(argument, known, n=1, cutoff=0.0)[0]
            raise ValueError(f'{field} {name} has no argument "{argument}"; the nearest is "{nearest}".')
    arguments = {**{k: v for k, v in defaults.items() if k in known}, **given}
    missing = [k for k, v in known.items() if v.default is v.empty and k not in arguments]
    if missing:
        raise ValueError(f'{field} {name} needs "{missing[0]}"; give it among its arguments in the config.')
    return functions[name](**arguments)


def make_schedule(options: Mapping[str, Any], steps: int, field: str = "optim") -> optax.Schedule:
    """The learning rate over optimizer steps.

    Args:
      options: `learning_rate` (the peak), `schedule` (the name of a function in `optax.schedules`) and
        `schedule_arguments` for it. Unless given a length, a warm-up takes 1/20 of the run, and a decay ends with it.
      steps: optimizer steps of the run.
      field: where the options stand in the config, for errors.
    """
    rate = options["learning_rate"]
    return _call(
        _schedules(),
        f"{field}.schedule",
        options["schedule"],
        options["schedule_arguments"],
        value=rate,
        init_value=0.0 if options["schedule"].startswith("warmup") else rate,
        peak_value=rate,
        warmup_steps=steps // 20,
        decay_steps=steps,
        transition_steps=steps,
    )


def make_optimizer(options: Mapping[str, Any], steps: int, field: str = "optim") -> optax.GradientTransformation:
    """Clipping, the optimizer and gradient accumulation, from a config.

    Args:
      options: as for `make_schedule`; besides `name` (a function in optax), `arguments` for it, `clip` (the global norm
        that gradients are clipped to; 0 for none) and `accumulate` (train steps per optimizer step).
      steps: train steps of the run.
      field: where the options stand in the config, for errors.

    Raises:
      ValueError: optax has no such function or argument, or a number is out of its range.
    """
    every = options["accumulate"]
    for name, wanted, holds in (
        ("accumulate", f"1 to the {steps} train.steps", 1 <= every <= steps),
        ("learning_rate", "0 or more, and finite", 0 <= options["learning_rate"] < math.inf),
        ("clip", "a norm above 0, or 0 for none", options["clip"] >= 0),
        ("ema_decay", "0 <= decay < 1", 0 <= options["ema_decay"] < 1),
    ):
        if not holds:
            raise ValueError(f"{field}.{name} is {options[name]}, expected {wanted}.")
    schedule = make_schedule(options, max(1, steps // every), field)
    name, arguments = options["name"], options["arguments"]
    optimizer = _call(_optimizers(), f"{field}.name", name, arguments, learning_rate=schedule)
    try:
        number = jax.ShapeDtypeStruct((1, 1), jnp.float32)
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), number)
    except TypeError as error:
        raise ValueError(f"{field}.name {name} needs more than gradients, which no method here gives it.") from error
    if options["clip"] > 0:
        optimizer = optax.chain(optax.clip_by_global_norm(options["clip"]), optimizer)
    if every > 1:
        return optax.MultiSteps(optimizer, every_k_schedule=every).gradient_transformation()
    return optimizer


def ema_decay(options: Mapping[str, Any]) -> float:
    """The decay per train step that amounts to `options["ema_decay"]` per optimizer step."""
    return options["ema_decay"] ** (1 / options["accumulate"])
