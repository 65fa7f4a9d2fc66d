"""Makes the pictures of these pages from finished default runs: python docs/pictures.py runs [NAME ...].

docs/pictures/NAME.gif has eight columns of what runs/NAME makes of the synthetic data, and rows as ROWS says. Pictures
of runs that are not there stay as they are.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvid import data, run, sample, translate
from jaxvid.pixels import to_uint8
from jaxvid.run import Run

COLUMNS, SIZE, GAP = 8, 64, 2  # panels beside each other, their pixels, and those between them
FRAMES = 8  # of a picture: of longer clips every second one
LABELS = "square_left,circle_right,triangle_up,star_down,digit_left,square_spin,circle_grow,triangle_shrink".split(",")
COLORS = ("red", "yellow", "green", "blue")
TEXTS = [
    "a large red square moves left",
    "a green circle moves right",
    "a small blue triangle moves up, on a light background",
    "a yellow star moves down, on a dark background",
    "a cyan circle grows",
    "a purple square shrinks",
    "an orange triangle moves left",
    "a pink square moves up, on a light background",
]

Rows = list[np.ndarray]
"""Of videos [COLUMNS,T,H,W,3], uint8 or float in [-1, 1]."""


def held_out(trained: Run, name: str) -> np.ndarray:
    """`video`, `input` or `truth` of the first clips for evaluation."""
    source = data.make_source(trained.config.data, "eval")
    return np.stack([source[index][name] for index in range(COLUMNS)])


def tokenized(trained: Run) -> Rows:
    """Held-out clips above their reconstructions."""
    video = held_out(trained, "video")
    return [video, sample.reconstruct(trained, video)]


def autoencoded(trained: Run) -> Rows:
    """Held-out clips above their reconstructions, and new clips below."""
    return [*tokenized(trained), sample.draw(trained, COLUMNS)]


def of_classes(trained: Run) -> Rows:
    """Two samples, one below the other, of each of LABELS."""
    videos = sample.draw(trained, 2 * COLUMNS, label=LABELS)
    return [videos[:COLUMNS], videos[COLUMNS:]]


def guided(trained: Run) -> Rows:
    """A sample of each of LABELS, with guidance."""
    return [sample.draw(run.remake(trained, {"sample.guidance": 2.0}), COLUMNS, label=LABELS)]


def of_texts(trained: Run) -> Rows:
    """Two samples of each of TEXTS."""
    videos = sample.draw(trained, 2 * COLUMNS, text=TEXTS)
    return [videos[:COLUMNS], videos[COLUMNS:]]


def translated(trained: Run) -> Rows:
    """Outlines above their translations, and the truth below."""
    video, truth = held_out(trained, "input"), "truth" if trained.config.method == "cyclegan" else "video"
    return [video, translate.translate_video(trained, video, to="B"), held_out(trained, truth)]


def recolored(trained: Run) -> Rows:
    """Held-out clips above their translations to four colors."""
    video = held_out(trained, "video")
    return [video, *(translate.translate_video(trained, video, to=color) for color in COLORS)]


ROWS: dict[str, Callable[[Run], Rows]] = {
    "vqvae": tokenized,
    "vae": autoencoded,
    "gan3d": of_classes,
    "gan_text": of_texts,
    "transformer": guided,
    "pix2pix": translated,
    "cyclegan": translated,
    "stargan": recolored,
}


def picture(rows: Rows) -> np.ndarray:
    """One video uint8 [T,H',W',3]: the rows with a white gap between, panels enlarged by a whole factor to SIZE."""
    scale, stride = SIZE // rows[0].shape[2], rows[0].shape[1] // FRAMES
    grid = np.stack([to_uint8(row[:, ::stride]) for row in rows]).repeat(scale, 3).repeat(scale, 4)
    padded = np.pad(grid, [(0, 0)] * 3 + [(0, GAP)] * 2 + [(0, 0)], constant_values=255)  # [R,N,T,h,w,3]
    count, columns, frames, height, width, _ = padded.shape
    joined = padded.transpose(2, 0, 3, 1, 4, 5).reshape(frames, count * height, columns * width, 3)
    return joined[:, :-GAP, :-GAP]


def write(path: Path, video: np.ndarray) -> None:
    """A small GIF: one palette, and of each frame only what changes."""
    palette = Image.fromarray(video.reshape(-1, video.shape[2], 3)).quantize(256, Image.Quantize.FASTOCTREE)
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in video]
    first.save(path, save_all=True, append_images=others, duration=160, loop=0, optimize=True)


def main(folder: str, *names: str) -> None:
    for name in names or ROWS:
        workdir = Path(folder) / name
        if (workdir / "config.json").is_file():
            path = Path(__file__).parent / "pictures" / f"{name}.gif"
            write(path, picture(ROWS[name](run.load(workdir))))
            print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(*sys.argv[1:])
