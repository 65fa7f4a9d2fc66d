"""What the commands share: how they read their line, report an error and end. The standard library is enough."""

import argparse
import io
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


class _Help(argparse.RawDescriptionHelpFormatter):
    """`about` as it stands, and lines that break between words alone, not within names."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """The command line of `python -m MODULE`, which reports in one line what is wrong with it."""

    def __init__(self, module: str, about: str | None, **settings: Any):
        settings["formatter_class"] = _Help
        super().__init__(prog=f"python -m {module}", description=about, **settings)

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
        target = Path(path).absolute()
        parents = (each for each in (target, *target.parents) if each.exists())
        holder = next(parents) if folder else target.parent
        if not holder.is_dir() or not os.access(holder, os.W_OK) or (target.is_dir() and not folder):
            another = "another folder" if folder else "a file in a folder that exists"
            self.error(f"--{option} {path} cannot be written: name {another}")


def names(text: str) -> list[str]:
    """The `type` of an option that takes names: "a,b" -> ["a", "b"]."""
    return [name for name in text.split(",") if name]


def attempt(work: Callable[[], None]) -> int:
    """Does the work of a command and returns its exit code: 0, or 2 with one sentence on stderr, or 130 after Ctrl-C.

    Warnings are lines on stderr meanwhile. What stdout cannot encode, such as names of files, is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            work()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, OSError) as error:
            print(f"jaxvid: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("Stopped; nothing was written.", file=sys.stderr)
            return 130
    return 0


def plain_logs() -> None:
    """Plain lines for warnings, none of Orbax: what fails in its threads arrives as an exception, in one sentence."""
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    logging.root.handlers[0].addFilter(lambda record: "orbax" not in record.pathname)
