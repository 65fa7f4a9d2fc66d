"""Files that the sources read, written here: digits of MNIST, and data sets of TFDS."""

from __future__ import annotations

import gzip
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def write_idx(folder, part, digits, compress=False):
    """Digit d is a square of brightness 20 d + 50."""
    images = np.repeat((20 * digits + 50).astype(np.uint8), 784).tobytes()
    header = np.array([0x803, len(digits), 28, 28], ">u4").tobytes()
    files = {
        f"{part}-images-idx3-ubyte": header + images,
        f"{part}-labels-idx1-ubyte": np.array([0x801, len(digits)], ">u4").tobytes()
        + digits.astype(np.uint8).tobytes(),
    }
    for name, data in files.items():
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(data) if compress else data)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def frame(clip, time, height=20, width=30):
    """A frame that encodes its clip, its time and the positions of its pixels."""
    pixels = np.full((height, width, 3), 10 * clip, np.uint8)
    pixels[..., 1] = time
    pixels[..., 2] = np.arange(width)
    return pixels


def builder(name, features, examples, splits):
    """A builder class of TFDS with `examples(i)` as its i-th example, and `splits` examples per split."""

    def generate(count):
        return ((i, examples(i)) for i in range(count))

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=features)

    def split_generators(self, _):
        return {split: generate(count) for split, count in splits.items()}

    body = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self: None,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), body, skip_registration=True)


def prepare(folder, name, features, examples, splits):
    builder(name, features, examples, splits)(data_dir=folder, file_format="array_record").download_and_prepare()
