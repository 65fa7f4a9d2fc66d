"""A trained run as a value: loading, exporting, remaking it under a changed config, and claiming a work folder."""

import argparse
import errno
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.errors import ScopeParamShapeError
from ml_collections import ConfigDict

from jaxvid import checkpoint, parallel, share
from jaxvid import config as config_lib
from jaxvid.core import Batch, Method, TrainState, make_method
from jaxvid.data import Source
from jaxvid.files import local_path, write_json
from jaxvid.names import plural
from jaxvid.shapes import expect

TRANSLATES = ": it translates those of others (python -m jaxvid.translate)"
DATA = "data.json"  # in the work folder: the account of the data
PLACES = ("path", "tokens", "images")  # fields of `config.data` that say where data lie, which may move


class Run(NamedTuple):
    """A trained run: its config, its method, and its newest state."""

    config: ConfigDict
    method: Method
    state: TrainState


class Output(NamedTuple):
    """What a mode of `jaxvid.sample` returns."""

    panels: dict[str, np.ndarray]  # uint8 [N,T,H,W,3], drawn side by side; the last is the model's, and names the files
    captions: dict[str, list[str]] = {}  # by name, what is written beside each of the N
    note: str = ""  # a sentence to print


class Mode(NamedTuple):
    """What `jaxvid.sample --mode` does with a run; a method's module exports its own by name as `MODES`."""

    make: Callable[[Run, argparse.Namespace], Output]  # from the run and the command line
    videos: int = 0  # how many --video it needs
    takes: tuple[str, ...] = ()  # which of the options num, seed, frames and batch_size it reads
    options: Mapping[str, Mapping[str, Any]] = {}  # those of its own, as keyword arguments of `add_argument`


def saved_config(workdir: str | Path) -> ConfigDict:
    """The config of the run in a work folder, or an exported one.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
      OSError: it is on the hub, and cannot be downloaded.
    """
    folder = share.located(workdir)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} has no config.json; expected the work folder of a run of jaxvid.main.")
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict) or "method" not in fields:
            raise ValueError("it holds no config")
        return share.embeddings_in(folder, config_lib.from_dict(fields))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: put back what it was, or name another --workdir.") from error


def load(workdir: str | Path) -> Run:
    """Loads a run onto one device, whatever it was trained on.

    Args:
      workdir: the work folder of `jaxvid.main`, of which the newest whole checkpoint is taken; or a folder of `export`,
        or its address on the hub, hf://user/name or hf://user/name@revision, whose state has no optimizers' states, and
        the averaged parameters in place of those that they average.

    Raises:
      FileNotFoundError: there is no config or no checkpoint in it.
      ValueError: all its checkpoints, or what was exported, are damaged, another version wrote them, or a frozen player
        is not what was loaded when the run began; or huggingface_hub is needed, and not installed.
      OSError: it is on the hub, and cannot be downloaded.
    """
    workdir = share.located(workdir)
    config = saved_config(workdir)
    try:
        described = json.loads((workdir / "batch.json").read_text())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"{workdir} has no batch.json: put back that of the run, or export it again."
        ) from error
    except ValueError as error:
        raise ValueError(f"batch.json in {workdir} is damaged: {error}.") from error
    try:
        method = make_method(config)
        abstract = checkpoint.abstract_state(method, described)
    except (TypeError, AttributeError, LookupError) as error:
        why = str(error).partition("\n")[0][:160].rstrip(".")
        raise ValueError(
            f"config.json or batch.json in {workdir} is damaged ({type(error).__name__}: {why}): put back what it was, "
            "or export it again."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"config.json in {workdir} is not for this version of jaxvid: {error} Use the version that wrote it, or "
            "train anew."
        ) from error
    if share.exported(workdir):
        state = share.read_arrays(workdir / share.ARRAYS, share.sampled(abstract, method))
    elif (restored := checkpoint.restore_newest(workdir, abstract)) is not None:
        state = restored
    else:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet, and no {share.ARRAYS} of an exported run.")
    checkpoint.verify(state, method.frozen)
    return Run(config, method, state)


def export(
    workdir: str | Path, output: str | Path, license: str = "unknown", media: bool = True, private: bool = False
) -> None:
    """Writes a run to give away, whole or not at all: `load`, and all that takes --workdir, read it like the run.

    It holds the config, the parameters that are sampled with and their collections (`model.safetensors`, no pickle),
    frozen players too, the scores, the report, pictures of the last evaluation and a model card, README.md. Of paths in
    them the last name remains. Training cannot go on from it, for want of the optimizers' states.

    Args:
      workdir: of the run, or of one that was exported.
      output: a folder, which must not exist, or be empty; or hf://user/name, a repository of the hub, which is made
        where there is none.
      license: of the parameters, as the hub spells it: "apache-2.0", "cc-by-4.0".
      media: whether the report and the pictures are part of it, which show clips of the data.
      private: whether a new repository is.

    Raises:
      FileNotFoundError, ValueError: as `load`; or `output` is not empty, or scores.json in `workdir` is damaged.
      OSError: the folder cannot be written, or the hub not be reached.
    """
    folder = share.located(workdir)
    run = load(folder)
    state = share.sampled(run.state, run.method)
    job = share.Export(folder, run.config, run.method, state, license, media)
    if str(output).startswith(share.HUB):
        share.upload(job, str(output), private)
    else:
        share.write(job, Path(local_path(output)))


def remake(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with a method that is made anew under some changed fields: {"sample.temperature": 0.8}.

    Raises ValueError: the method cannot be made so.
    """
    if not changes:
        return run
    config = run.config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return Run(config, make_method(config), run.state)


def with_options(run: Run, arguments: argparse.Namespace) -> Run:
    """The run, remade under the options of `config.sample` that a command line names. Raises as `remake` does."""
    options = {name: getattr(arguments, name) for name in run.config.get("sample", {})}
    given = {name: value for name, value in options.items() if value is not None}
    return remake(run, {f"sample.{n}": tuple(v) if isinstance(v, list) else v for n, v in given.items()})


def account(options: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, Any]:
    """What a run keeps of its data, to compare them with those that it resumes with.

    Args:
      options: `config.data`.
      sources: of `data.make_source` by split, wrapped or not.

    Returns by split the numbers of clips and classes and the digest, and PLACES in one form for all ways to write them.
    """
    places = {name: options.get(name, "") for name in PLACES}
    found: dict[str, Any] = {k: os.path.realpath(os.path.expanduser(v)) if v else "" for k, v in places.items()}
    for split, source in sources.items():
        digest = getattr(source, "sha256", "")
        found[split] = {"clips": len(source), "classes": len(source.classes), "sha256": digest}
    return found


def check_data(workdir: Path, saved: ConfigDict, found: Mapping[str, Any]) -> dict[str, Any]:
    """Compares an account of data with that of the run in a work folder, and warns, with the numbers, of changes.

    Args:
      saved: the config of the run.
      found: from `account`.

    Returns the account of the run, without the splits if it has none.
    Raises ValueError: the data lie elsewhere, and the numbers are others or unknown; or the account is damaged.
    """
    file, before = workdir / DATA, account(saved.data, {})
    try:
        before |= json.loads(file.read_text()) if file.is_file() else {}
        now = {name: split for name, split in found.items() if name not in PLACES and split != before.get(name)}
        numbers = {name: (_numbers(before.get(name)), _numbers(split)) for name, split in now.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is damaged: delete it, if the data are those of the run.") from error
    changes = "; ".join(
        f"{name} had {was} and has {are}" if was != are else f"{name} has {are} as before, but not the same ones"
        for name, (was, are) in numbers.items()
    )
    moved = [name for name in PLACES if before[name] != found[name]]
    if moved and any(was != are for was, are in numbers.values()):
        undo = " and ".join(
            f"set data.{name} to what was in {before[name]}" if before[name] else f"leave data.{name} empty"
            for name in moved
        )
        raise ValueError(f"{workdir} holds a run with other data: {changes}; name another --workdir, or {undo}.")
    if changes and any(found[name] for name in PLACES):
        known = "have changed" if file.is_file() else "may have changed"
        warnings.warn(f"the data {known} since the run in {workdir} began: {changes}.", stacklevel=3)
    return before


def _numbers(split: Mapping[str, Any] | None) -> str:
    if split is None:
        return "a number of clips that was not kept"
    return f"{plural(split['clips'], 'clip')} ({plural(split['classes'], 'class', 'classes')})"


def refuse_exported(workdir: Path) -> None:
    """Raises ValueError for the folder of an exported run, in which none can be trained."""
    if share.exported(workdir):
        raise ValueError(
            f"{workdir} holds an exported run, without the optimizers' states that training goes on with: name the "
            "work folder that it was exported from, or another --workdir to begin anew."
        )


def claim(workdir: Path, config: ConfigDict, sources: Mapping[str, Source]) -> None:
    """Makes the work folder, or checks that the run in it has this config, and warns where its data have changed.

    Args:
      sources: of the data, by split.

    Raises:
      ValueError: the folder holds a run with another config, one line per field, or with other data.
      OSError: the folder cannot be made or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the work folder {workdir} cannot be made ({error.strerror}): name another one.") from error
    if not os.access(workdir, os.W_OK):
        raise PermissionError(errno.EACCES, "the work folder cannot be written; name another --workdir", str(workdir))
    found = account(config.data, sources)
    if (workdir / "config.json").is_file():
        saved = saved_config(workdir)
        changed = config_lib.differences(config_lib.to_dict(saved), config_lib.to_dict(config))
        if changed:
            undo = "\n".join(changed)
            raise ValueError(f"{workdir} holds a run with another config. Name another --workdir, or undo:\n{undo}")
        found = {**found, **check_data(workdir, saved, found), **{name: found[name] for name in PLACES}}
    elif any((workdir / "checkpoints").glob("[0-9]*")):
        raise ValueError(f"{workdir} has checkpoints but no config.json to compare with: name another --workdir.")
    write_json(workdir / DATA, found)


def samples(
    run: Run, conditions: Mapping[str, np.ndarray], num: int, seed: int, batch_size: int
) -> Iterator[np.ndarray]:
    """New videos in batches, float32 [n,T,H,W,3] in [-1, 1], under conditions [num,...], by all devices of the process.

    Conditions are as `conditions.from_user` makes them. Video i depends on the run, the seed, i and its condition; the
    last batch is filled up, and cut.
    """
    if run.method.sample is None:
        instead = ": it reconstructs videos (--mode reconstruct)" if run.method.reconstruct else ""
        instead = TRANSLATES if run.method.translation else instead
        raise ValueError(f"This model makes no videos of its own{instead}.")
    try:
        one = {name: value[:1] for name, value in conditions.items()}
        jax.eval_shape(run.method.sample, run.state, one, jax.random.key(0)[None])
    except ScopeParamShapeError as error:
        frames = run.config.data.frames
        raise ValueError(f"This model makes videos of its training length alone, and none of {frames}.") from error
    program, key, mesh = sampler(run.method.sample), jax.random.key(seed), parallel.local_mesh(batch_size)
    state = jax.device_put(run.state, parallel.replicated(mesh))
    for numbers, count in batches_of(num, batch_size):
        rows = {name: value[numbers % num] for name, value in conditions.items()}
        video = program(state, *jax.device_put((rows, numbers), parallel.sharded(mesh)), key)
        size = run.config.data.resolution
        expect(f"[{batch_size},{run.config.data.frames},{size},{size},1|3]", float, sample=video)
        yield np.asarray(video)[:count]


def batches_of(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """The numbers [batch_size] of the examples in each batch, and how many of them belong to the `count`."""
    for start in range(0, count, batch_size):
        yield np.arange(start, start + batch_size, dtype=np.uint32), min(batch_size, count - start)


@functools.lru_cache(maxsize=4)
def sampler(sample: Callable) -> Callable:
    """A method's `sample`, compiled, where video `number` is drawn from `fold_in(key, number)`."""

    def step(state: TrainState, batch: Batch, numbers: jax.Array, key: jax.Array) -> jax.Array:
        return sample(state, batch, jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))

    return compiled(step)


@functools.lru_cache(maxsize=4)
def compiled(function: Callable) -> Callable:
    """A function under jit, kept, so that the next call of the same method compiles nothing."""
    return jax.jit(function, compiler_options=parallel.compiler_options())
