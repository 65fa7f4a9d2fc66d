"""Video generation in JAX and Flax: one training loop, and one record of pure functions per method."""

import sys

__version__ = "0.1.0"

# While Python looks for the module of `python -m jaxvid.main` and its like: before anything else is imported.
if sys.argv[:1] == ["-m"] and any(each.removeprefix("-m").partition(".")[0] == "jaxvid" for each in sys.orig_argv):
    from jaxvid.command import start

    start()
