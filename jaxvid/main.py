"""Trains: `python -m jaxvid.main --config configs/vqvae.py [--workdir DIR] [--config.train.steps=500 ...]`."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxvid import config as config_lib
from jaxvid import parallel
from jaxvid.command import plain_logs
from jaxvid.files import cache_folder
from jaxvid.names import nearest
from jaxvid.train import Interrupted, NotFinite, train

OVERRIDE = re.compile(r"--?(config\.[^=]+)")
PLAYER = re.compile(r"--?config\.optim\.players\.(\w+)\.(\w+)=(.*)")


class UsageError(Exception):
    """A command line that cannot work."""


def define(arguments: Sequence[str]) -> flags.FlagValues:
    """The program's flags, of its own rather than the process's, parsed from `arguments` (program name first)."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "the recipe, say configs/vqvae.py or configs/vqvae.py:tiny", values, sys_argv=list(arguments)
    )
    flags.DEFINE_string("workdir", None, "receives what is written; runs/NAME OF THE RECIPE if not given", values)
    flags.DEFINE_bool("distributed", False, "call jax.distributed.initialize: one of several processes", values)
    flags.DEFINE_bool("help", False, "show this and end", values, short_name="h")
    rest = values(list(arguments))[1:]
    if rest:
        raise UsageError(f'"{rest[0]}" is not understood; a field is set as --config.train.steps=500.')
    return values


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, ConfigDict]:
    """The flags, and the config that they ask for; raises UsageError in one sentence."""
    arguments = joined(arguments)
    try:
        # Without the overrides first, so that a misspelled field can be compared with those of the recipe.
        plain = define([argument for argument in arguments if not OVERRIDE.match(argument)])
        if plain.help:
            return plain, ConfigDict()
        if not plain["config"].present:
            raise UsageError("--config is missing; name a recipe, say --config configs/vqvae.py.")
        recipe = recipe_of(plain).partition(":")[0]
        if not Path(recipe).is_file():
            raise UsageError(f"--config {recipe} is no file; the recipes are in the folder configs/.")
        if not isinstance(plain.config, ConfigDict):
            raise UsageError(f"--config {recipe} is a recipe whose get_config returns no ConfigDict.")
        arguments, players = own_fields(arguments, plain.config)
        fields = config_lib.flatten({"config": plain.config})
        for name in (match[1] for match in map(OVERRIDE.match, arguments) if match):
            if name not in fields and not any(field.startswith(f"{name}.") for field in fields):
                raise UsageError(f"--{name}: no such field; the nearest is --{nearest(name, fields)}.")
        values = define(arguments)
        for (player, field), value in players.items():
            with values.config.unlocked():
                options = values.config.optim.players
                options[player] = ConfigDict({**options.get(player, {}), field: value})
    except SyntaxError as error:
        where = f"line {error.lineno}, {error.msg}"
        raise UsageError(f"--config {error.filename} is no recipe in Python: {where}.") from error
    except flags.Error as error:
        raise UsageError(plainly(str(error))) from error
    except (AttributeError, ImportError, LookupError, TypeError) as error:
        raise UsageError(f"--config is a recipe that fails with {type(error).__name__}: {error}.") from error
    return values, values.config


def own_fields(arguments: Sequence[str], config: ConfigDict) -> tuple[list[str], dict[tuple[str, str], Any]]:
    """The arguments without those fields of a player's optimizer that the recipe leaves to the shared ones, and these.

    --config.optim.players.encoder.clip=2 gives {("encoder", "clip"): 2.0}; the method checks the player's name.
    """
    rest, found, optim = [], {}, config.get("optim", {})
    for argument in arguments:
        match = PLAYER.fullmatch(argument)
        shared = optim.get(match[2]) if match else None
        named = match and match[2] in optim.get("players", {}).get(match[1], {})
        if not match or named or not isinstance(shared, int | float | str):
            rest.append(argument)
            continue
        try:
            found[match[1], match[2]] = type(shared)(match[3])
        except ValueError as error:
            raise UsageError(f"{argument}: expected a number.") from error
    return rest, found


def plainly(error: str) -> str:
    """An error of absl about a flag, in words that do not need Python."""
    for pattern, words in (
        (r"(?s).*\nValueError: ", ""),  # a recipe's own comes wrapped, behind its traceback
        (r"(?s).*\nTypeError: ", "--config is a recipe that fails with TypeError: "),
        (r"invalid literal for int\(\).*", "expected a whole number"),
        (r"could not convert string to float.*", "expected a number"),
        (r"\('Non-boolean argument.*", "expected true or false"),
        (r"Failed to parse .* as a ConfigDict.*", "these are several fields, set one of them"),
        (r"^Unknown command line flag '((train|data|model|optim|eval)\..*?)'.*", r"--\1: did you mean --config.\1?"),
    ):
        error = re.sub(pattern, words, error)
    return error.strip()


def joined(arguments: Sequence[str]) -> list[str]:
    """--config.train.steps 5 becomes --config.train.steps=5."""
    found: list[str] = []
    for argument in arguments:
        if found and re.fullmatch(r"--?config\.[^=]+", found[-1]) and not argument.startswith("--"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def recipe_of(values: flags.FlagValues) -> str:
    """What was given as --config."""
    return config_flags.get_config_filename(values["config"])


def default_workdir(recipe: str) -> Path:
    """configs/vqvae.py -> runs/vqvae, configs/vqvae.py:tiny -> runs/vqvae_tiny."""
    path, _, variant = recipe.partition(":")
    return Path("runs") / "_".join(filter(None, (Path(path).stem, variant)))


def start_jax(distributed: bool) -> None:
    """Joins the other processes if there are any, and keeps compiled programs from one run to the next."""
    if distributed:
        # JAX detects TPU pods, Slurm and Open MPI by itself; elsewhere these variables describe the processes.
        variables = (os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID"))
        processes, number = (int(value) if value else None for value in variables)
        jax.distributed.initialize(num_processes=processes, process_id=number)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = cache_folder() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code: 2 if it cannot work, 1 if the run failed, 128 + n after signal n."""
    try:
        values, config = parse(arguments)
        if values.help:
            print(__doc__, *(f"  --{n}  {values[n].help}" for n in ("config", "workdir", "distributed")), sep="\n")
            return 0
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        parallel.keep_memory()
        start_jax(values.distributed)
        train(config, values.workdir or default_workdir(recipe_of(values)))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("Stopped; what was saved stays.", file=sys.stderr)
        return 130
    except (UsageError, ValueError, FileNotFoundError) as error:
        print(f"jaxvid: {error}", file=sys.stderr)
        return 2
    except (NotFinite, OSError) as error:
        print(f"jaxvid: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    plain_logs()
    sys.exit(main(sys.argv))
