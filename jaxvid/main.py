"""Trains a recipe: python -m jaxvid.main --config vqvae [--workdir DIR] [--config.train.steps=500 ...]."""

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import parallel, processes, recipe
from jaxvid.command import STOPPED, Parser, as_typed, interruptible, of_jax
from jaxvid.files import cache_folder
from jaxvid.names import nearest
from jaxvid.train import Interrupted, NotFinite, train

LIST = "list"  # in place of a recipe
OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigDict]:
    """The options of a command line, program name first, and the config that it asks for, empty where it names none.

    Fields of the config may stand before or behind --config, as --config.train.steps=5 or --config.train.steps 5.

    Raises ValueError, in one sentence, for what cannot work; ends the program where an option lacks its value.
    """
    words = joined(arguments[1:])
    fields = [match.groups() for match in map(OVERRIDE.fullmatch, words) if match]
    options, surplus = make_parser().parse_known_args([word for word in words if not OVERRIDE.fullmatch(word)])
    if surplus:
        raise not_understood(surplus[0])
    if options.config in (None, LIST):
        return options, ConfigDict()
    config = config_lib.recipe(options.config)
    for name, text in fields:
        recipe.set_field(config, name, text, options.config)
    return options, config.lock()


def make_parser() -> Parser:
    """The options, less the fields of the config."""
    parser = Parser("jaxvid.main", __doc__, add_help=False, allow_abbrev=False)
    named = f"vqvae, vqvae:tiny with a variant, or a file, configs/vqvae.py:tiny; {LIST} shows what there is"
    parser.add_argument("--config", metavar="RECIPE", help=named)
    parser.add_argument("--workdir", metavar="DIR", help="receives what is written (default: runs/NAME_OF_THE_RECIPE)")
    parser.add_argument("--distributed", action="store_true", help="this is one of several processes")
    parser.add_argument("-h", "--help", action="store_true", help="show this; with --config, the recipe's fields too")
    return parser


def not_understood(word: str) -> ValueError:
    """The error about a word of the command line that means nothing."""
    name = word.partition("=")[0].lstrip("-")
    if Path(word.partition(":")[0]).is_file() or word.partition(":")[0] in config_lib.recipes():
        return ValueError(f"{word} is given without its option: write --config {word}.")
    if name.partition(".")[0] in ("train", "data", "model", "optim", "loss", "condition", "sample", "eval"):
        return ValueError(f"{word} is not understood: did you mean --config.{word.lstrip('-')}?")
    if word.startswith("-"):
        near = nearest(name, ("config", "workdir", "distributed", "help"))
        return ValueError(
            f"There is no option --{name}; did you mean --{near}? A field is set as --config.train.steps=500."
        )
    return ValueError(f'"{word}" is not understood; a field is set as --config.train.steps=500.')


def joined(arguments: Sequence[str]) -> list[str]:
    """--config.train.steps 5 becomes --config.train.steps=5."""
    found: list[str] = []
    for argument in arguments:
        if found and re.fullmatch(r"--?config\.[^=]+", found[-1]) and not argument.startswith("--"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def inform(options: argparse.Namespace, config: ConfigDict) -> int:
    """Prints the help, or the recipes, which are the answer to a line without one too; returns the exit code."""
    if options.help:
        print(make_parser().format_help())
        print(recipe.described(config, options.config) if config else "")
        return 0
    print(recipe.listed())
    if options.config is None:  # a script whose line lacks it has failed
        print("jaxvid: --config is missing: name one of these recipes.", file=sys.stderr)
    return 0 if options.config else 2


def start_jax(distributed: bool) -> None:
    """Joins the other processes if there are any, and keeps compiled programs from one run to the next."""
    if distributed:
        # JAX detects TPU pods, Slurm and Open MPI by itself; elsewhere these variables describe the processes.
        variables = (os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID"))
        try:
            processes, number = (int(value) if value else None for value in variables)
            address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
            if address and address.rpartition(":")[2] not in map(str, range(1, 2**16)):
                raise ValueError(f"JAX_COORDINATOR_ADDRESS is {address}, without a port of 1 to 65535")
            # It ends this process by itself then, with a stack trace of C++.
            print("Looking for the other processes; JAX gives up after 5 minutes.", file=sys.stderr, flush=True)
            jax.distributed.initialize(num_processes=processes, process_id=number)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed cannot find the other processes ({str(error).rstrip('.')}): outside of Slurm, Open MPI "
                "and TPU pods set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) for "
                "each of them."
            ) from error
    parallel.check_devices()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        with contextlib.suppress(FileNotFoundError):  # a user without a home folder compiles anew each time
            jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code, and the sentence to print; raises again what is an error of the program, or SystemExit."""
    match error:
        case Interrupted():
            return 128 + error.signal_number, str(error)
        case KeyboardInterrupt():
            return 130, STOPPED
        case ValueError() | FileNotFoundError():
            return 2, f"jaxvid: {as_typed(str(error))}"
        case NotFinite() | OSError() | MemoryError():
            return 1, f"jaxvid: {error}"
        case RuntimeError():
            return 2, f"jaxvid: {of_jax(error)}"
    raise error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 2 if it cannot work, 1 if the run failed, 128 + n after signal n.

    Its arguments, sys.argv by default, begin with the name of the program.
    """
    try:
        interruptible()
        values, config = parse(arguments or sys.argv)
        if values.help or not config:
            return inform(values, config)
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        parallel.keep_memory()
        start_jax(values.distributed)
        with processes.together(ending, alike=(Interrupted, NotFinite)):
            workdir = config_lib.default_workdir(values.config) if values.workdir is None else values.workdir
            train(config, workdir)
    except BaseException as error:
        code, sentence = ending(error)
        print(sentence, file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
