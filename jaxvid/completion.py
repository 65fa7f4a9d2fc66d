"""Videos of which a part is known: the tasks of one model (Yu et al., 2023, section 3.2), and modes of `jaxvid.sample`.

A task draws the known pixels of a training example: bool [T,H,W], or of a shape that broadcasts to it.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import conditions
from jaxvid import run as run_lib
from jaxvid.data.paths import read_longest
from jaxvid.names import choice
from jaxvid.pixels import to_uint8
from jaxvid.run import Mode, Output, Run

Size = tuple[int, int, int]  # frames, height and width
GENERATION, PREDICTION = "generation", "prediction"


def nothing(key: jax.Array, size: Size) -> jax.Array:
    """Generation."""
    return jnp.zeros((1, 1, 1), bool)


def first_frames(key: jax.Array, size: Size) -> jax.Array:
    """Prediction, from any number of first frames."""
    return ends(size, jax.random.randint(key, (), 1, size[0]), 0)


def first_and_last_frames(key: jax.Array, size: Size) -> jax.Array:
    """Interpolation, from any number of first and of last frames."""
    first = jax.random.randint(jax.random.fold_in(key, 0), (), 1, size[0] - 1)
    return ends(size, first, size[0] - jax.random.randint(jax.random.fold_in(key, 1), (), first + 1, size[0]))


def around_a_box(key: jax.Array, size: Size) -> jax.Array:
    """Inpainting: all but a box, in all frames, of a quarter to three quarters of the height and of the width."""
    lows, highs = [], []
    for axis, side in enumerate(size[1:]):
        length, place = jax.random.uniform(
            jax.random.fold_in(key, axis), (2,), minval=jnp.array([0.25, 0.0]), maxval=jnp.array([0.75, 1.0])
        )
        lows.append(jnp.round(side * place * (1 - length)))
        highs.append(lows[-1] + jnp.round(side * length).clip(1))
    return ~box(size, lows, highs)


def within_a_box(key: jax.Array, size: Size) -> jax.Array:
    """Outpainting: such a box."""
    return ~around_a_box(key, size)


def ends(size: Size, first: jax.Array | int, last: jax.Array | int) -> jax.Array:
    """True in so many first and last frames: bool [T,1,1]."""
    frames = jnp.arange(size[0])[:, None, None]
    return (frames < first) | (frames >= size[0] - last)


def box(size: Size, lows: Sequence[jax.Array | float], highs: Sequence[jax.Array | float]) -> jax.Array:
    """True from `lows` to below `highs`, rows and columns: bool [1,H,W]."""
    rows, columns = jnp.arange(size[1])[None, :, None], jnp.arange(size[2])
    inside = (rows >= lows[0]) & (rows < highs[0])
    return inside & (columns >= lows[1]) & (columns < highs[1])


TASKS: dict[str, Callable[[jax.Array, Size], jax.Array]] = {
    GENERATION: nothing,
    PREDICTION: first_frames,
    "interpolation": first_and_last_frames,
    "inpainting": around_a_box,
    "outpainting": within_a_box,
}


def check(tasks: Sequence[str], frames: int) -> None:
    """Raises ValueError for a `config.model.tasks` that cannot work with videos of so many frames."""
    if not isinstance(tasks, tuple) or not tasks or len({*tasks}) < len(tasks):
        raise ValueError(f"model.tasks is {tasks!r}, expected a tuple of different tasks, as ('generation',).")
    for task in tasks:
        choice("an item of model.tasks", task, TASKS)
    for task, least in {PREDICTION: 2, "interpolation": 3}.items():
        if task in tasks and frames < least:
            raise ValueError(f"model.tasks has {task}, which needs {least} frames, and data.frames is {frames}.")


def known_at_random(key: jax.Array, tasks: Sequence[str], size: Size) -> tuple[jax.Array, jax.Array]:
    """A task drawn from those of a model: its index int [], and what it knows of a video, bool [T,H,W]."""
    task = jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(tasks))
    masks = [jnp.broadcast_to(TASKS[name](jax.random.fold_in(key, 1), size), size) for name in tasks]
    return task, jnp.stack(masks)[task]


def complete_videos(run: Run, arguments: argparse.Namespace, task: str) -> Output:
    """Videos of the user, where they are whole, their known part, and what the model makes of it."""
    tasks, size = run.config.model.tasks, (run.config.data.frames, *[run.config.data.resolution] * 2)
    if task not in tasks:
        raise ValueError(f"This model was trained for {', '.join(tasks)}, and not for {task}, see model.tasks.")
    run = run_lib.with_options(run, arguments)
    known = np.broadcast_to(KNOWN[task](arguments, size), size)
    least = int(np.flatnonzero(known.any((1, 2)))[-1]) + 1  # frames: a prediction needs no more than the first ones
    video = read_longest(arguments.video[0], size[0], run.config.data, least)
    missing = size[0] - video.shape[1]
    video = video[np.arange(arguments.num) % len(video)]
    video = np.pad(video, [(0, 0), (0, missing), (0, 0), (0, 0), (0, 0)], "edge")
    values = conditions.from_arguments(arguments, run.config)
    if "first_frames" in values:
        raise ValueError("The known part comes from --video: leave --first_frames out.")
    if "first_frames" in run.config.condition.on:
        values["first_frames"] = video[:, :0]
    rows = {
        **conditions.from_user(run.config, len(video), **values),
        "given": video,
        "known": np.broadcast_to(known, video.shape[:-1]),
        "task": np.full(len(video), tasks.index(task)),
    }
    made = run_lib.samples(run, rows, arguments.num, arguments.seed, arguments.batch_size)
    completed = np.concatenate([to_uint8(batch) for batch in made])
    shown = np.where(known[..., None], video, np.uint8(128))
    captions = conditions.captions(run.config, values, rows)
    original = {} if missing else {"original": video}
    return Output({**original, "given": shown, task: completed}, captions)


def known_frames(arguments: argparse.Namespace, size: Size, last: bool) -> jax.Array:
    """The first frames that --keep says, and if `last` as many of the last ones: bool [T,1,1]."""
    keep = 1 if arguments.keep is None else arguments.keep
    if not 1 <= keep * (1 + last) < size[0]:
        raise ValueError(f"--keep is {keep}, expected at least 1, and a frame of the {size[0]} that is not known.")
    return ends(size, keep, keep * last)


def known_around(arguments: argparse.Namespace, size: Size) -> jax.Array:
    """All but the box of --box: bool [1,H,W]."""
    top, left, bottom, right = edges = arguments.box or (0.25, 0.25, 0.75, 0.75)
    given = f"--box is {' '.join(map(str, edges))}"
    if not all(0 <= edge <= 1 for edge in edges):
        raise ValueError(f"{given}, expected top, left, bottom and right, from 0 to 1.")
    lows, highs = [[round(share * size[1]) for share in pair] for pair in ((top, left), (bottom, right))]
    if lows[0] >= highs[0] or lows[1] >= highs[1]:
        raise ValueError(f"{given}, which holds no pixel of {size[1]}x{size[2]}: make it larger.")
    return ~box(size, lows, highs)


KNOWN: dict[str, Callable[[argparse.Namespace, Size], jax.Array]] = {
    PREDICTION: functools.partial(known_frames, last=False),
    "interpolation": functools.partial(known_frames, last=True),
    "inpainting": known_around,
    "outpainting": lambda arguments, size: ~known_around(arguments, size),
}
KEEP = {"keep": {"type": int, "help": "known first frames, and with interpolate as many last ones (default: 1)"}}
BOX = {
    "box": {"type": float, "nargs": 4, "help": "top, left, bottom and right, from 0 to 1 (default: .25 .25 .75 .75)"}
}


def make_modes(takes: tuple[str, ...]) -> dict[str, Mode]:
    """Modes of `jaxvid.sample` for a method whose `sample` reads "given" [B,T,H,W,3], "known" bool [B,T,H,W], and
    "task" int [B] in a batch; `takes` are the fields of `config.sample` that count in them.
    """
    options = {"predict": KEEP, "interpolate": KEEP, "inpaint": BOX, "outpaint": BOX}
    names = dict(zip(options, KNOWN, strict=True))
    takes = ("num", "seed", "batch_size", *takes)
    return {
        mode: Mode(functools.partial(complete_videos, task=task), 1, takes, options[mode])
        for mode, task in names.items()
    }
