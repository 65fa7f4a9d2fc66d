"""The command `jaxvid`, or `python -m jaxvid`: names the commands that there are, or runs the one that is asked for."""

import importlib
import os
import sys
from collections.abc import Sequence

import jaxvid
from jaxvid.command import COMMANDS, start
from jaxvid.names import nearest


def main(program: str, words: Sequence[str]) -> int:
    """Runs the command that the first word names, and returns its exit code.

    Args:
      program: what the user typed before the words, "jaxvid" or "python -m jaxvid".
    """
    name, *rest = words or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"{program} {name}", *rest]
        module = importlib.import_module(COMMANDS[name][0])
        return (module if hasattr(module, "main") else importlib.import_module(f"{module.__name__}.__main__")).main()
    if name in ("-h", "--help"):
        print(usage(program))
    elif name == "--version":
        print(f"jaxvid {jaxvid.__version__}")
    else:
        near = nearest(name, COMMANDS)
        print(f'jaxvid: there is no command "{name}"; did you mean {program} {near}?', file=sys.stderr)
        return 2
    return 0


def usage(program: str) -> str:
    """The commands, each with the module that is the same behind `python -m`, and what it does."""
    lines = [f"usage: {program} COMMAND ...; each command says with --help what it takes.", ""]
    lines += [f"  {name:<11}{f'python -m {module}':<34}{about}" for name, (module, about) in COMMANDS.items()]
    return "\n".join(lines)


def console() -> int:
    """The installed command `jaxvid`, for which is done here what `python -m` and `jaxvid/__init__.py` do otherwise."""
    start()
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # where a user's own methods are, behind what is installed
    return main("jaxvid", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main("python -m jaxvid", sys.argv[1:]))
