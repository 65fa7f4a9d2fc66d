"""Videos as clips: sources with random access, and the pipeline that makes batches of them.

A source is anything with `__len__`, `__getitem__`, `classes` and `summary` (`jaxvid.data.pipeline.Source`), so that
one's own data set is a class of twenty lines. This package needs neither JAX nor the rest of jaxvid, but for two small
modules without dependencies (names, files): it can be used alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxvid.data.pipeline import Batches, DamagedClip, Source, eval_batches, train_batches
from jaxvid.names import choice

__all__ = ["Batches", "DamagedClip", "Source", "eval_batches", "make_source", "train_batches"]

# The fields that each source reads, besides frames and resolution, and the defaults that the others leave them at.
READ_BY = {
    "synthetic": ("stride", "label"),
    "moving_mnist": ("path",),
    "folder": ("path", "stride", "fps"),
    "records": ("path",),
    "tfds": ("path", "dataset", "stride"),
}
DEFAULTS = {"path": "", "dataset": "", "stride": 1, "fps": 0, "label": "class"}


def make_source(options: Mapping[str, Any], split: str) -> Source:
    """The source that `config.data` names.

    Args:
      options: name (one of READ_BY), frames, resolution, holdout (share of a folder without an eval part that is kept
        for evaluation), and, where they are not as in DEFAULTS, path, dataset (the TFDS name), stride, fps (0: by
        stride, else frames per second of the clip), label (of the synthetic source: class, color or style).
      split: "train" or "eval".

    Raises:
      ValueError: an unknown name or split, a field that this source does not read, or what the source itself refuses.
    """
    choice("split", split, ("train", "eval"))
    name = choice("data.name", options["name"], READ_BY)
    frames, resolution = options["frames"], options["resolution"]
    fields = {field: options.get(field, default) for field, default in DEFAULTS.items()}
    for field, default in DEFAULTS.items():
        if field not in READ_BY[name] and fields[field] != default:
            readers = ", ".join(source for source, read in READ_BY.items() if field in read)
            raise ValueError(
                f"data.{field} is {fields[field]!r}, which the source {name!r} does not read: leave it at {default!r} "
                f"or set data.name to one that does ({readers})"
            )
    if name == "synthetic":
        from jaxvid.data.synthetic import Synthetic

        return Synthetic(frames, resolution, split, stride=fields["stride"], label=fields["label"])
    if name == "moving_mnist":
        from jaxvid.data.moving_mnist import MovingMNIST

        return MovingMNIST(frames, resolution, split, fields["path"])
    if name == "folder":
        from jaxvid.data.folder import Folder

        return Folder(fields["path"], frames, resolution, fields["stride"], fields["fps"], split, options["holdout"])
    if name == "records":
        from jaxvid.data.records import Records

        return Records(fields["path"], frames, resolution, split)
    from jaxvid.data.tfds import TFDS

    return TFDS(fields["dataset"], frames, resolution, fields["stride"], split, fields["path"])
