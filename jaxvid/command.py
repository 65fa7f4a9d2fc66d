"""What the commands share: one parser, one form of errors, plain logs."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn


def attempt(work: Callable[[], None]) -> int:
    """Does the work of a command; returns its exit code, with one sentence on stderr where that is not 0."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        work()
    except (ValueError, OSError) as error:
        print(f"jaxvid: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jaxvid: {message}; --help says what is possible.\n")


def plain_logs() -> None:
    """Plain lines for warnings, none of Orbax: what fails in its threads arrives as an exception, in one sentence."""
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    logging.root.handlers[0].addFilter(lambda record: "orbax" not in record.pathname)
