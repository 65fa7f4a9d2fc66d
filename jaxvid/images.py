"""Images and videos as files and in notebooks: tiled grids, film strips, PNG, GIF and MP4. All on the host."""

import base64
import math
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvid.files import replacing
from jaxvid.pixels import to_uint8

FPS = 8  # of what a run and its samples are written as
COLUMNS = 4  # examples in a row of a grid
READABLE = 128  # pixels: smaller panels are enlarged by a whole factor to at least this
SEPARATOR = 128  # mid-gray tells dark and bright frames apart
FILM_FRAMES = 8
MP4 = {"movflags": "+faststart"}  # a browser starts before it has the whole file


def grid(videos: Sequence[Any]) -> np.ndarray:
    """One video uint8 [T,H',W',3] of many: the panels of an example beside one another, at most 4 examples in a row.

    Panels, say original and reconstruction, are [N,T,H,W,C] of one N, T, H and W, C 1 or 3, uint8 or float in [-1, 1];
    those whose longer side is under 128 pixels are enlarged by a whole factor. Raises ValueError for others.
    """
    cells = _join(_panels(videos), axis=3, gap=2, fill=SEPARATOR)
    columns = min(COLUMNS, len(cells))
    cells = np.pad(cells, [(0, -len(cells) % columns)] + [(0, 0)] * 4, constant_values=SEPARATOR)
    rows = [_join(cells[i : i + columns], axis=2, gap=4, fill=SEPARATOR) for i in range(0, len(cells), columns)]
    return _join(rows, axis=1, gap=4, fill=SEPARATOR)


def film_strip(videos: Sequence[Any], labels: Sequence[str] = (), title: str = "") -> np.ndarray:
    """One image uint8 [H',W',3] of many videos: each example a block, each of its panels a row of at most 8 frames.

    The panels are as in `grid`. Each has a label, written before its rows, or none has; the title is a line above.
    Raises ValueError as `grid`, and for another number of labels.
    """
    panels = _panels(videos)
    if labels and len(labels) != len(panels):
        raise ValueError(f"{len(labels)} labels for {len(panels)} panels: pass one label per panel, or none.")
    count, frames, height, width, _ = panels[0].shape
    chosen = np.linspace(0, frames - 1, min(frames, FILM_FRAMES)).round().astype(int)
    rows = [[_join(panel[n, chosen], axis=1, gap=2, fill=255) for panel in panels] for n in range(count)]
    pixels = _join([_join(block, axis=0, gap=2, fill=255) for block in rows], axis=0, gap=14, fill=255)

    font, margin = ImageFont.load_default(size=13), 10
    left = margin + max((int(font.getlength(label)) + margin for label in labels), default=0)
    top = margin + (24 if title else 0) + 18
    wide = max(pixels.shape[1], int(font.getlength(title)))
    canvas = Image.new("RGB", (left + wide + margin, top + pixels.shape[0] + margin), "white")
    canvas.paste(Image.fromarray(pixels), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((left, margin), title, "black", font)
    for i, frame in enumerate(chosen):
        draw.text((left + i * (width + 2), top - 4), f"frame {frame}", "#777", ImageFont.load_default(size=11), "ls")
    for n in range(count):
        for i, label in enumerate(labels):
            y = top + n * (len(panels) * (height + 2) + 12) + i * (height + 2)
            draw.text((left - margin, y + height // 2), label, "black", font, "rm")
    return np.asarray(canvas)


class Inline:
    """HTML that Jupyter, Colab and Kaggle show where it is the value of a cell."""

    def __init__(self, html: str):
        self.html = html

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:  # notebooks ask for it too, and the HTML holds whole videos
        return f"<HTML of {len(self.html):,} characters for a notebook>"


def show(*videos: Any, captions: Sequence[str] = (), fps: float | Fraction = FPS) -> Inline:
    """Videos inside a notebook, each played in an endless loop; neither IPython nor a program ffmpeg is needed.

    Args:
      *videos: one [T,H,W,C] or many [N,T,H,W,C], C 1 or 3, uint8 or float in [-1, 1]. Several of one shape, say
        originals and reconstructions, are panels, side by side in one picture for each of the N.
      captions: a line below each of the N, or none.
      fps: frames per second.

    Returns what a notebook shows as the value of a cell. Pictures are MP4, of one frame PNG, embedded; those whose
    longer side is under 128 pixels are enlarged by a whole factor. Raises ValueError for other shapes, dtypes and
    numbers.
    """
    panels = [video[None] if video.ndim == 4 else video for video in map(np.asarray, videos)]
    cells = _join(_panels(panels), axis=3, gap=2, fill=SEPARATOR)
    captions = [captions] if isinstance(captions, str) else captions
    if captions and len(captions) != len(cells):
        raise ValueError(f"{len(captions)} captions for {len(cells)} videos: pass one caption per video, or none.")
    figures = (
        f'<figure style="margin:0 8px 8px 0">{_embedded(cell, fps)}'
        f'<figcaption style="max-width:{cell.shape[2]}px">{escape(str(caption))}</figcaption></figure>'
        for cell, caption in zip(cells, captions or [""] * len(cells), strict=True)
    )
    return Inline(f'<div style="display:flex;flex-wrap:wrap">{"".join(figures)}</div>')


def _embedded(video: np.ndarray, fps: float | Fraction) -> str:
    """A video uint8 [T,H,W,3] as an HTML element that holds all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        if len(video) == 1:
            write_png(path, video[0])
        else:
            write_mp4(path, video, fps)
        content = base64.b64encode(path.read_bytes()).decode()
    if len(video) == 1:
        return f'<img src="data:image/png;base64,{content}">'
    return f'<video src="data:video/mp4;base64,{content}" autoplay loop muted playsinline controls></video>'


def _panels(videos: Sequence[Any]) -> list[np.ndarray]:
    """The panels as uint8 [N,T,H,W,3] of one shape, enlarged by a whole factor to a readable size."""
    panels = [to_uint8(video) for video in videos]
    shapes = [panel.shape for panel in panels]
    if not shapes or any(len(s) != 5 or s[:4] != shapes[0][:4] or s[4] not in (1, 3) or 0 in s for s in shapes):
        raise ValueError(f"Panels of shape {shapes}, expected [N,T,H,W,C], all of one N, T, H, W, and C 1 or 3.")
    scale = -(-READABLE // max(shapes[0][2:4]))
    return [np.broadcast_to(p, (*p.shape[:4], 3)).repeat(scale, axis=2).repeat(scale, axis=3) for p in panels]


def _join(blocks: Sequence[np.ndarray] | np.ndarray, axis: int, gap: int, fill: int) -> np.ndarray:
    """Concatenates blocks of one shape along `axis` with `gap` separator pixels between them."""
    line = np.full([gap if i == axis else n for i, n in enumerate(blocks[0].shape)], fill, np.uint8)
    return np.concatenate([part for block in blocks for part in (line, block)][1:], axis)


def write_png(path: str | Path, image: Any) -> None:
    """Writes an image [H,W,C], C 1 or 3, uint8 or float in [-1, 1]."""
    with replacing(path) as temporary:
        Image.fromarray(_frames(np.asarray(image)[None])[0]).save(temporary, "PNG")


def write_gif(path: str | Path, video: Any, fps: float | Fraction) -> None:
    """Writes a video [T,H,W,C], C 1 or 3, uint8 or float in [-1, 1], as an endless GIF.

    One palette serves all frames, so that static areas do not flicker. GIF counts in hundredths of a second: times of
    frames are rounded so that the sum stays right, and are 0.02 s or more, which is the least that browsers respect.
    """
    frames, rate = _frames(video), _rate(fps)
    ends = [round(100 * (i + 1) / rate) for i in range(len(frames))]
    durations = [10 * max(2, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    sample = frames.reshape(-1, frames.shape[2], 3)[:: -(-frames.size // 3_000_000)]
    palette = Image.fromarray(np.ascontiguousarray(sample)).quantize(256)
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        # Pillow merges equal neighbors and adds up their durations, so the playing time survives.
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)


def write_mp4(path: str | Path, video: Any, fps: float | Fraction) -> None:
    """Writes a video [T,H,W,C], C 1 or 3, uint8 or float in [-1, 1], as H.264 in yuv420p, which every browser plays.

    Odd heights and widths, which yuv420p cannot hold, grow by one repeated row or column.
    """
    import av

    frames, rate = even(_frames(video)), _rate(fps)
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=MP4) as container:
        stream = add_h264(container, frames.shape[1], frames.shape[2], rate)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def even(frames: np.ndarray) -> np.ndarray:
    """Frames [...,H,W,C] with odd heights and widths grown by one repeated row or column."""
    height, width = frames.shape[-3:-1]
    if not (height % 2 or width % 2):
        return frames
    return np.pad(frames, [(0, 0)] * (frames.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")


def add_h264(container: Any, height: int, width: int, rate: Fraction) -> Any:
    """A new stream of an output container of PyAV, for RGB frames of even height and width."""
    from av.video.reformatter import Colorspace

    stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.codec_context.colorspace = Colorspace.SMPTE170M  # what swscale makes; untagged, players guess by size
    return stream


def _frames(video: Any) -> np.ndarray:
    """A video as uint8 [T,H,W,3]."""
    frames = to_uint8(video)
    if frames.ndim != 4 or frames.shape[3] not in (1, 3) or 0 in frames.shape:
        raise ValueError(f"A video of shape {frames.shape}: pass [T,H,W,C] with at least one frame, and C 1 or 3.")
    return np.ascontiguousarray(np.broadcast_to(frames, (*frames.shape[:3], 3)))


def _rate(fps: float | Fraction) -> Fraction:
    rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) else Fraction(0)
    if rate <= 0:
        raise ValueError(f"fps is {fps}: pass a positive number of frames per second.")
    return rate
