"""Frames per second of every source, bare and through the pipeline: `python tests/benchmarks/data.py`.

The folder stands against a plain decode of the same file from first to last frame, which no random access can beat; the
others against their own `source[i]` in one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

from jaxvid.data import Source, train_batches
from jaxvid.data.moving_mnist import MovingMNIST
from jaxvid.data.records import Records, write_records
from jaxvid.data.synthetic import Synthetic
from jaxvid.data.tfds import TFDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))  # with written.py

SECONDS = flags.DEFINE_float("seconds", 2.0, "time for each number")
WORKERS = flags.DEFINE_integer("workers", 0, "worker processes of the pipeline; 0 means threads")

FRAMES, SIZE, BATCH = 16, 64, 16


def rate(step: Callable[[], object], frames: int) -> float:
    """Frames per second of `step`, which makes `frames` of them; the first call does not count."""
    step()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS.value:
        step()
        count += frames
    return count / (time.perf_counter() - began)


def bare(source: Source) -> float:
    order = iter(np.random.default_rng(0).integers(len(source), size=10**6).tolist())
    return rate(lambda: source[next(order)], FRAMES)


def piped(source: Source) -> float:
    with train_batches(source, BATCH, SIZE, seed=0, workers=WORKERS.value) as batches:
        for _ in range(4):
            next(batches)  # what was read ahead must not count
        return rate(lambda: next(batches), FRAMES * BATCH)


def write_video(file: Path) -> None:
    """300 frames of 320x240 in H.264: the synthetic world, enlarged, with noise so that it is no easy prey."""
    import av

    noise = np.random.default_rng(0).integers(0, 24, (240, 320, 3), np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for image in Synthetic(300, 240)[4]["video"]:
            wide = np.pad(image, ((0, 0), (40, 40), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.roll(noise, int(wide[0, 0, 0]), 1) // 2 + wide // 2 + 40, "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def decode_all(file: Path) -> float:
    import av

    def whole() -> None:
        with av.open(str(file)) as container:
            for picture in container.decode(video=0):
                picture.to_ndarray(format="rgb24")

    return rate(whole, 300)


def write_tfds(folder: Path) -> None:
    import tensorflow_datasets as tfds
    from written import frame, png, prepare

    features = tfds.features.FeaturesDict({"video": tfds.features.Sequence(tfds.features.Image(shape=(SIZE, SIZE, 3)))})

    def example(i: int) -> dict[str, list]:
        return {"video": [png(frame(i % 25, t, SIZE, SIZE)) for t in range(FRAMES)]}

    prepare(str(folder), "Pictures", features, example, {"train": 64, "test": 1})


def report(name: str, base: str, base_rate: float, source: Source) -> None:
    pipeline = piped(source)
    one = bare(source)
    print(
        f"{name:13} {base:12} {base_rate or one:9,.0f}   source[i] {one:9,.0f}   pipeline {pipeline:9,.0f} frames/s"
        f"   pipeline/{base} {pipeline / (base_rate or one):5.2f}",
        flush=True,
    )


def main(_: list[str]) -> None:
    from written import write_idx

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        world = Synthetic(FRAMES, SIZE)
        report("synthetic", "source[i]", 0, world)
        for split in ("train", "t10k"):
            write_idx(folder, split, np.arange(10))
        report("moving_mnist", "source[i]", 0, MovingMNIST(FRAMES, SIZE, "train", str(folder)))
        subset = type("Subset", (Synthetic,), {"__len__": lambda self: 512})(FRAMES, SIZE)
        write_records(subset, str(folder / "records" / "train"), shards=4)
        report("records", "source[i]", 0, Records(str(folder / "records"), FRAMES, SIZE))
        write_tfds(folder / "tfds")
        report("tfds (png)", "source[i]", 0, TFDS("pictures", FRAMES, SIZE, path=str(folder / "tfds")))
        (folder / "videos").mkdir()
        for i in range(2):
            write_video(folder / "videos" / f"{i}.mp4")
        from jaxvid.data import folder as module

        whole = decode_all(folder / "videos" / "0.mp4")
        module.KEPT_BYTES, kept = 0, module.KEPT_BYTES  # as if there were too many clips to keep
        report("folder", "plain decode", whole, module.Folder(str(folder / "videos"), FRAMES, SIZE))
        module.KEPT_BYTES = kept
        report("folder, kept", "plain decode", whole, module.Folder(str(folder / "videos"), FRAMES, SIZE))


if __name__ == "__main__":
    app.run(main)
