"""What the commands share: how they start, read their line, report an error and end. The standard library is enough."""

import argparse
import io
import logging
import os
import re
import signal
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

STOPPED = "Stopped; what was written before stays."

# By the word behind `jaxvid`: the module, which is the same behind `python -m`, and what it does.
COMMANDS = {
    "train": ("jaxvid.main", "train a recipe: --config vqvae, or --config list"),
    "data": ("jaxvid.data", "check a folder of videos, or convert it: PATH"),
    "tokenize": ("jaxvid.tokenize", "cache the tokens of a tokenizer, for priors: --workdir DIR --output DIR"),
    "sample": ("jaxvid.sample", "make videos with a trained run: --workdir runs/acgan"),
    "translate": ("jaxvid.translate", "translate videos of any size: --workdir DIR --input PATH --output DIR"),
    "evaluate": ("jaxvid.evaluate", "score videos, or a run: --real PATH --fake PATH, or --workdir DIR"),
    "export": ("jaxvid.export", "give a run away, as a folder or on the Hugging Face hub: --workdir DIR --output DIR"),
    "weights": ("jaxvid.metrics.weights", "fetch the weights that FVD, FID and their kin need: URL"),
}


def as_typed(text: str) -> str:
    """The text with its commands in the form that was typed: `jaxvid data` for `python -m jaxvid.data` after `jaxvid`.

    The form that was typed is in sys.argv[0], see `jaxvid/__main__.py`.
    """
    if typed := re.fullmatch(r"((python -m )?jaxvid) \w+", sys.argv[0]):
        for name, (module, _) in COMMANDS.items():
            text = re.sub(rf"python -m {re.escape(module)}(?!\.?\w)", f"{typed[1]} {name}", text)
    return text


class _Help(argparse.RawDescriptionHelpFormatter):
    """`about` as it stands, and lines that break between words alone, not within names."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """The command line of a module, one of COMMANDS, which reports in one line what is wrong with it."""

    def __init__(self, module: str, about: str | None, **settings: Any):
        settings["formatter_class"] = _Help
        super().__init__(prog=as_typed(f"python -m {module}"), description=about and as_typed(about), **settings)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"jaxvid: {message}; --help says what is possible.\n")

    def check_least(self, options: argparse.Namespace, **least: int) -> None:
        """Ends the program where one of the named options is given and below its least value."""
        for name, bound in least.items():
            if (value := getattr(options, name)) is not None and value < bound:
                self.error(f"--{name} is {value}, expected at least {bound}")

    def check_writable(self, option: str, path: str, folder: bool = False) -> None:
        """Ends the program, before it works for hours, where it could not write a file, or make a folder, at `path`."""
        another = "another folder" if folder else "a file in a folder that exists"
        try:
            target = Path(path).absolute()
            parents = (each for each in (target, *target.parents) if each.exists())
            with tempfile.TemporaryDirectory(dir=next(parents) if folder else target.parent):  # permissions may deceive
                writable = folder or not target.is_dir()
        except (OSError, ValueError):
            writable = False
        if not writable:
            self.error(f"--{option} {path} cannot be written: name {another}")


def names(text: str) -> list[str]:
    """The `type` of an option that takes names: "a,b" -> ["a", "b"]."""
    return [name for name in text.split(",") if name]


class _Lasting(io.TextIOWrapper):
    """A standard stream that outlives its reader: the work goes on where `head` or the terminal has gone."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return self._forget(len(text))

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._forget(0)

    def _forget(self, written: int) -> int:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        return written


def start() -> None:
    """What a command does before anything else is imported, see `jaxvid/__init__.py` and `jaxvid/__main__.py`.

    Its streams take every character and outlive their reader, warnings of logs are plain lines, and Ctrl-C ends the
    program while it imports, where an exception would be printed at length, or swallowed.
    """
    while (last := os.open(os.devnull, os.O_RDWR)) <= 2:  # what is opened later must not become a closed stream
        pass
    os.close(last)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name) or open(number, "w", closefd=False)
        if isinstance(stream, io.TextIOWrapper):
            encoding, lines, through = stream.encoding, stream.line_buffering, stream.write_through
            lasting = _Lasting(stream.detach(), encoding, "backslashreplace", None, lines, through)
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> NoReturn:
    print("Stopped; nothing was written.", file=sys.stderr, flush=True)
    os._exit(130)


def interruptible() -> None:
    """Ctrl-C raises KeyboardInterrupt again, after the imports."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def attempt(work: Callable[[], None]) -> int:
    """Does the work of a command and returns its exit code: 0, or 2 with one sentence on stderr, or 130 after Ctrl-C.

    Warnings are lines on stderr meanwhile.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            interruptible()
            work()
        except (ValueError, OSError) as error:
            print(f"jaxvid: {as_typed(str(error))}", file=sys.stderr)
            return 2
        except RuntimeError as error:
            print(f"jaxvid: {of_jax(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(STOPPED, file=sys.stderr)
            return 130
    return 0


def of_jax(error: RuntimeError) -> str:
    """The sentence for a device's memory that runs out, which its user can mend; raises any other error again."""
    if not str(error).startswith("RESOURCE_EXHAUSTED"):
        raise error
    why = str(error).partition("\n")[0][:160]
    return f"the device's memory does not suffice ({why}): lower the batch size, the frames or the resolution."
