"""Exports a run to give away: config, parameters, scores, report and a model card, without what only training needs.

    python -m jaxvid.export --workdir runs/acgan --output acgan
    python -m jaxvid.export --workdir runs/acgan --output hf://user/acgan --license apache-2.0

Whatever takes --workdir reads the result: a folder, or hf://user/acgan. In Python:

    from jaxvid import run

    run.export("runs/acgan", "acgan")
    trained = run.load("acgan")
"""

import argparse
import sys
from collections.abc import Sequence

from jaxvid import parallel
from jaxvid import run as run_lib
from jaxvid.command import Parser, attempt
from jaxvid.share import HUB, place


def main(words: Sequence[str] | None = None) -> int:
    """Exports a run and says where it is; returns 0, or 2 with one sentence on stderr."""

    def work() -> None:
        options = parse(words)
        parallel.check_devices()
        run_lib.export(options.workdir, options.output, options.license, not options.no_media, options.private)
        print(f"Exported to {options.output}: README.md is its card, config.json its config.")
        if not options.no_media:
            print("Its report and pictures show clips of the data; --no_media leaves them out.")

    return attempt(work)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""
    parser = Parser("jaxvid.export", __doc__)
    parser.add_argument("--workdir", type=place, metavar="DIR", required=True, help="the work folder of a run")
    parser.add_argument(
        "--output", type=place, metavar="DIR", required=True, help="a new folder, or hf://user/name on the hub"
    )
    parser.add_argument("--license", default="unknown", help="of the parameters, say apache-2.0 (default: unknown)")
    parser.add_argument("--no_media", action="store_true", help="leave out what shows clips of the data")
    parser.add_argument(
        "--private", action="store_true", help="if the repository on the hub is new, others see nothing"
    )
    options = parser.parse_args(words)
    if options.output.startswith(HUB):
        return options
    if options.private:
        parser.error("--private goes with --output hf://user/name")
    parser.check_writable("output", options.output, folder=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
