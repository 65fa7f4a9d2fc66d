"""Trains: `python -m jaxvid.main --config configs/vqvae.py [--workdir DIR] [--config.train.steps=500 ...]`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from jaxvid import config as config_lib
from jaxvid.train import Interrupted, NotFinite, train

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="the recipe, say configs/vqvae.py or configs/vqvae.py:tiny"
)
WORKDIR = flags.DEFINE_string("workdir", None, "where everything is written (default: runs/NAME of the recipe)")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "one of several processes: call jax.distributed.initialize first")


class UsageError(Exception):
    """A command line that cannot work."""


def default_workdir(recipe: str) -> Path:
    """configs/vqvae.py -> runs/vqvae, configs/vqvae.py:tiny -> runs/vqvae_tiny."""
    path, _, variant = recipe.partition(":")
    return Path("runs") / "_".join(filter(None, (Path(path).stem, variant)))


def parse(arguments: Sequence[str]) -> ConfigDict:
    """The config that the command line asks for; raises UsageError for what is wrong with it."""
    override = re.compile(r"--?(config\.[^=]+)")
    try:
        flags.FLAGS([argument for argument in arguments if not override.match(argument)])
        if not flags.FLAGS.config and not CONFIG.present:
            raise UsageError("--config is missing; name a recipe, say --config configs/vqvae.py.")
        recipe = flags.FLAGS["config"].config_filename.partition(":")[0]
        if not Path(recipe).is_file():
            raise UsageError(f"--config {recipe} does not exist; the recipes are in the folder configs/.")
        fields = config_lib.flatten({"config": CONFIG.value})
        for name in (match[1] for match in map(override.match, arguments) if match):
            if name not in fields and not any(field.startswith(name + ".") for field in fields):
                raise UsageError(f"--{name}: no such field; the nearest is --{config_lib.nearest(name, fields)}.")
        rest = flags.FLAGS(arguments)[1:]
    except (flags.Error, ValueError) as error:
        raise UsageError(str(error)) from error
    if rest:
        raise UsageError(f'"{rest[0]}" is not understood; a field is set as --config.train.steps=500.')
    return CONFIG.value


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code: 0, 2 for a command that cannot work, 1 for a run that failed."""
    try:
        config = parse(arguments)
        start_jax()
        train(config, WORKDIR.value or default_workdir(flags.FLAGS["config"].config_filename))
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


def start_jax() -> None:
    """Joins the other processes if there are any, and keeps compiled programs from one run to the next."""
    if DISTRIBUTED.value:
        number = {name: os.environ.get(f"JAX_{name.upper()}") for name in ("num_processes", "process_id")}
        jax.distributed.initialize(**{name: int(value) for name, value in number.items() if value})
    if not jax.config.jax_compilation_cache_dir:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxvid" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


if __name__ == "__main__":
    logging.use_absl_handler()
    sys.exit(main(sys.argv))
