"""Videos as clips: sources with random access, and the pipeline that makes batches of them.

A source is anything with `__len__`, `__getitem__`, `classes` and `summary` (`jaxvid.data.pipeline.Source`), so that
one's own data set is a class of twenty lines. This package needs neither JAX nor the rest of jaxvid, but for two small
modules without dependencies (names, files): it can be used alone.
"""

import importlib
import os
import warnings
from collections.abc import Mapping
from typing import Any

from jaxvid.data.pipeline import (
    Batches,
    DamagedClip,
    Source,
    Swapped,
    WithImages,
    eval_batches,
    first_clip,
    is_paired,
    leave_if_rerun,
    train_batches,
)
from jaxvid.names import choice, left_out

__all__ = [
    "Batches",
    "DamagedClip",
    "Source",
    "eval_batches",
    "first_clip",
    "is_paired",
    "leave_if_rerun",
    "make_source",
    "train_batches",
]

# The module of each source, its class there, and the fields that it reads besides frames and resolution.
SOURCES = {
    "synthetic": ("synthetic", "Synthetic", "stride", "label", "layout"),
    "moving_mnist": ("moving_mnist", "MovingMNIST", "path"),
    "folder": ("layouts", "make_folder", "path", "stride", "fps", "holdout", "layout", "attributes"),
    "records": ("records", "Records", "path"),
    "tfds": ("tfds", "TFDS", "path", "dataset", "stride"),
}
# Of fields that a source does not read.
DEFAULTS: dict[str, Any] = {"path": "", "dataset": "", "stride": 1, "fps": 0, "label": "class"}
DEFAULTS |= {"layout": "classes", "attributes": ()}


def make_source(options: Mapping[str, Any], split: str) -> Source:
    """The source that `config.data` names.

    Args:
      options: name (of SOURCES), frames, resolution, holdout (share of a folder without an eval part that is kept for
        evaluation), and, where they are not as in DEFAULTS, path, dataset (the TFDS name), stride, fps (0: by stride,
        else frames per second of the clip), label (of the synthetic source: class, color or style), layout (of
        `layouts.LAYOUTS`; the synthetic source has some of them), attributes (of a folder of that layout) and direction
        (of two sides: "AtoB", or "BtoA" to swap `input` and `video`), and images (a folder of images, or of their
        records, one of which is the `image` [1,h,w,3] of each clip to train with).
      split: "train" or "eval".

    Files that a source for training cannot use are warned of, the first ten by name.

    Raises ValueError for an unknown name or split, a field that this source does not read, or what it itself refuses.
    """
    choice("split", split, ("train", "eval"))
    direction = choice("data.direction", options.get("direction", "AtoB"), ("AtoB", "BtoA"))
    name = choice("data.name", options["name"], SOURCES)
    module, made, *read = SOURCES[name]
    fields = {**DEFAULTS, **options}
    for field, default in DEFAULTS.items():
        if field not in read and fields[field] != default:
            readers = ", ".join(source for source, (_, _, *others) in SOURCES.items() if field in others)
            raise ValueError(
                f"data.{field} is {fields[field]!r}, which the source {name!r} does not read: leave it at {default!r} "
                f"or set data.name to one that does ({readers})"
            )
    make = getattr(importlib.import_module(f"jaxvid.data.{module}"), made)
    source = make(split=split, **{field: fields[field] for field in ("frames", "resolution", *read)})
    if split == "train" and (skipped := getattr(source, "skipped", ())):
        warnings.warn(left_out(skipped), stacklevel=2)
    source = Swapped(source) if direction == "BtoA" else source
    return WithImages(source, _images(options)) if split == "train" and options.get("images") else source


def _images(options: Mapping[str, Any]) -> Source:
    """Those for training in the folder `data.images`."""
    path = os.path.expanduser(options["images"])
    if not os.path.isdir(path):
        raise ValueError(f"data.images is {path}, and there is no such folder: name one of images, or of their records")
    name = "records" if os.path.isfile(os.path.join(path, "train", "records.json")) else "folder"
    fields = {"name": name, "path": path, "frames": 1, "resolution": options["resolution"]}
    return make_source({**DEFAULTS, "holdout": options["holdout"], **fields}, "train")
