"""Videos whose frames carry their own number, as twelve black or white blocks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROWS, COLUMNS, BLOCK = 3, 4, 16


def picture(number: int, color: Sequence[int] = (255, 255, 255)) -> np.ndarray:
    """uint8 [48,64,3]: bit 0 of the number is the block at the top left, bit 3 the one at the top right."""
    bits = (number >> np.arange(ROWS * COLUMNS)) & 1
    blocks = bits.reshape(ROWS, COLUMNS, 1) * np.asarray(color)
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1).astype(np.uint8)


def numbers(clip: np.ndarray) -> list[int]:
    """What the frames [T,h,w,3] of any size say."""
    _, height, width, _ = clip.shape
    rows = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    columns = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    bits = clip.max(-1)[:, rows][:, :, columns].reshape(len(clip), -1) > 127
    return [int(value) for value in bits @ (1 << np.arange(ROWS * COLUMNS))]


def write_video(
    path: Path | str,
    count: int = 60,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    milliseconds: Sequence[int] | None = None,
    rotation: int = 0,
    noise: int = 0,
    layout: dict[str, str] | None = None,
    title: str = "",
    **options: str,
) -> str:
    """Frames 0 to count-1; at these presentation times, where they are given; `rotation` is metadata only.

    Noise of so many gray levels gives the frames something to encode; `layout` are options of the container.
    """
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options=layout or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.codec_context.thread_count = 1  # the same bytes each time
        stream.width, stream.height, stream.pix_fmt = COLUMNS * BLOCK, ROWS * BLOCK, pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            speckle = generator.integers(0, noise + 1, (ROWS * BLOCK, COLUMNS * BLOCK, 3))
            frame = av.VideoFrame.from_ndarray(np.abs(picture(number) - speckle).astype(np.uint8), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)
