"""Videos as clips: sources with random access, and the pipeline that batches them.

A source is anything with `__len__`, `__getitem__`, `classes` and `summary` (`jaxvid.data.pipeline.Source`), so that
one's own data set is a class of twenty lines. This package imports no other part of jaxvid and no JAX: it can be
used alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from jaxvid.data.pipeline import Batches, DamagedClip, Source, eval_batches, train_batches

__all__ = ["Batches", "DamagedClip", "Source", "eval_batches", "make_source", "train_batches"]

# The fields that each source reads, besides frames and resolution, and what the others leave them at.
READ_BY = {
    "synthetic": ("stride",),
    "moving_mnist": ("path",),
    "folder": ("path", "stride", "fps"),
    "records": ("path",),
    "tfds": ("path", "dataset", "stride"),
}
UNSET = {"path": "", "dataset": "", "stride": 1, "fps": 0}


def make_source(options: Mapping[str, Any], split: str) -> Source:
    """The source that `config.data` names.

    Args:
      options: name (one of READ_BY), path, dataset (the TFDS name), frames, resolution, stride, fps (0: by stride, else
        frames per second of the clip), holdout (share of a folder without an eval part that is kept for evaluation).
      split: "train" or "eval".

    Raises:
      ValueError: an unknown name or split, a field that this source does not read, or what the source itself says.
    """
    if split not in ("train", "eval"):
        raise ValueError(f"a split is 'train' or 'eval', not {split!r}")
    name, path, frames, resolution = (options[key] for key in ("name", "path", "frames", "resolution"))
    for field, unset in UNSET.items():
        if name in READ_BY and field not in READ_BY[name] and options[field] != unset:
            readers = ", ".join(source for source, fields in READ_BY.items() if field in fields)
            raise ValueError(
                f"data.{field} is {options[field]!r}, which the source {name!r} does not read: leave it at {unset!r} "
                f"or set data.name to one that does ({readers})"
            )
    if name == "synthetic":
        from jaxvid.data.synthetic import Synthetic

        return Synthetic(frames, resolution, split, stride=options["stride"])
    if name == "moving_mnist":
        from jaxvid.data.moving_mnist import MovingMNIST

        return MovingMNIST(frames, resolution, split, path)
    if name == "folder":
        from jaxvid.data.folder import Folder

        return Folder(path, frames, resolution, options["stride"], options["fps"], split, options["holdout"])
    if name == "records":
        from jaxvid.data.records import Records

        return Records(path, frames, resolution, split)
    if name == "tfds":
        from jaxvid.data.tfds import TFDS

        return TFDS(options["dataset"], frames, resolution, options["stride"], split, path)
    nearest = difflib.get_close_matches(str(name), READ_BY, n=1, cutoff=0.0)[0]
    raise ValueError(f"no data source is called {name!r}: did you mean {nearest!r}? There are {', '.join(READ_BY)}")
