"""From a source of clips to batches: shuffled, cropped, sharded over processes, and resumable at any step."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Source(Protocol):
    """Clips by index: item `i` is a pure function of the source's settings and `i`.

    An item holds `video` uint8 [T,h,w,3] (an image is T=1; h and w may exceed the resolution, a crop follows), `label` int32 [],
    `text` str [], and, where the source has them, `action` float32 [T,A], `source` uint8 [T,h,w,3] (a paired video) and
    `domain` int32 []. An item that cannot be read raises DamagedClip.
    """

    classes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def summary(self) -> str:
        """One line for people: what it is, how many clips, frames x resolution, classes, what was skipped."""
        ...


class DamagedClip(ValueError):
    """A clip that cannot be read; the pipeline names its file once and takes another clip."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Batches: ...


def train_batches(): ...


def eval_batches(): ...
