"""The recipes as training steps on random batches, without a data pipeline: what the benchmarks of steps time."""

from __future__ import annotations

import math
import runpy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvid import parallel
from jaxvid.core import Method, find_method

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Sizes at which the steps have peers in PyTorch: clips of 16x16x16 pixels; 64 frames of 64x64 in all.
SIZES: dict[str, dict[str, Any]] = {
    "gan3d:dcgan": {"data.frames": 16, "data.resolution": 16, "train.batch_size": 64},
    "vae:frame": {"data.frames": 4, "data.resolution": 64, "train.batch_size": 16},
}
CLASSES = tuple("abcdefgh")


def recipe(name: str, fields: Mapping[str, Any] | None = None) -> Any:
    """The config of "gan3d:dcgan" from configs/, at the size of SIZES, with these fields changed; a ConfigDict."""
    stem, _, variant = name.partition(":")
    config = runpy.run_path(str(CONFIGS / f"{stem}.py"))["get_config"](variant)
    config.update_from_flattened_dict({**SIZES.get(name, {}), **(fields or {})})
    if labeled(config):
        config.condition.classes = CLASSES  # which data fill in
    return config


def labeled(config: Any) -> bool:
    return "label" in config.get("condition", {}).get("on", ())


def random_video(config: Any) -> np.ndarray:
    """A batch of uint8 videos [B,T,H,W,3]; what they show does not matter to the time."""
    size = config.data.resolution
    shape = (config.train.batch_size, config.data.frames, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def random_batch(config: Any) -> dict[str, np.ndarray]:
    """Videos, with the clip that is translated to each and their labels; no other conditions."""
    batch = {"video": random_video(config)}
    if config.method in ("pix2pix", "cyclegan"):
        batch["input"] = batch["video"][::-1]
    if labeled(config):
        batch["label"] = np.arange(len(batch["video"]), dtype=np.int32) % len(CLASSES)
    return batch


def started(config: Any) -> tuple[Method, Any, dict[str, jax.Array]]:
    """The method, its state at step 0, and a random batch, on the first device."""
    mesh, method = parallel.make_mesh(jax.devices()[:1]), find_method(config.method).make(config)
    batch = parallel.put_batch(random_batch(config), mesh)
    return method, parallel.make_init(method.init, mesh)(jax.random.key(0), batch), batch


def training_step(config: Any) -> Callable[..., Any]:
    """run(steps=1) -> metrics: trains so many steps on one batch, and blocks at the end; compiled and warm."""
    method, state, batch = started(config)
    step = parallel.make_step(method.train_step, parallel.make_mesh(jax.devices()[:1]))

    def run(steps: int = 1) -> Any:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        return jax.block_until_ready((state, metrics))[1]

    run()
    return run


def measured_step(config: Any) -> tuple[dict[str, float], Callable[[int], Any]]:
    """`measured`, of the training step of a recipe; what it computes a second time to save memory is not counted."""
    method, state, batch = started(config)
    facts, run = measured(method.train_step, state, batch)
    if config.model.get("remat"):
        config = config.copy_and_resolve_references()
        config.model.remat = False
        once = find_method(config.method).make(config).train_step
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        facts["operations"] = operations(jax.make_jaxpr(once)(shapes, batch).jaxpr)
    return facts, run


def measured(train_step: Callable, state: Any, batch: Any) -> tuple[dict[str, float], Callable[[int], Any]]:
    """Facts of the compiled step (operations of the program as it is written, MiB it needs, seconds of compilation),
    and run(steps)."""
    step = parallel.make_step(train_step, parallel.make_mesh(jax.devices()[:1]))
    start = time.perf_counter()
    lowered = step.lower(state, batch)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes  # the state is donated to the outputs
    facts = {"operations": operations(step.trace(state, batch).jaxpr), "MiB": needed / 2**20, "compile s": seconds}

    def run(steps: int = 1) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    run()
    return facts, run


def operations(jaxpr: Any) -> float:
    """Multiplications and additions of the products and convolutions of a program, what is nested in it included."""
    total = 0.0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in (*equation.invars[:2], *equation.outvars[:1]) if variable.aval]
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            total += 2 * math.prod(shapes[2]) * math.prod(shapes[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            features = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(shapes[2]) * math.prod(shapes[1]) / shapes[1][features]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inner = [
            getattr(each, "jaxpr", each) for each in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
        ]
        each = [operations(program) for program in inner if hasattr(program, "eqns")]
        if equation.primitive.name == "cond":
            each = [branch_taken(each, equation.params.get("branches_platforms"))]
        total += times * sum(each)
    return total


def branch_taken(branches: Sequence[float], platforms: Sequence[tuple[str, ...] | None] | None) -> float:
    """Of a choice by platform that of this one, of another choice the least: k-means sets codebooks at first alone."""
    if platforms is None:
        return min(branches)
    here = [index for index, names in enumerate(platforms) if names is None or jax.default_backend() in names]
    return branches[here[0]]


def is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def final_state(config: Any, steps: int) -> Any:
    """The state after so many steps, on the host."""
    method, state, batch = started(config)
    step = parallel.make_step(method.train_step, parallel.make_mesh(jax.devices()[:1]))
    for _ in range(steps):
        state, _ = step(state, batch)
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))
