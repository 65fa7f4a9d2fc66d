"""Moving MNIST: two handwritten digits that drift and bounce, as in Srivastava et al., "Unsupervised Learning of Video
Representations using LSTMs", ICML 2015, section 3.1 (https://arxiv.org/abs/1502.04681).

As in the paper, digits and positions are random, directions are uniform on the circle and speeds uniform over a range,
both constant within a clip, and digits bounce off the edges of a 64x64 frame and may overlap. The paper does not give
the range of speeds; here it is 2 to 5 pixels per frame. Where digits overlap, the brighter pixel counts.
"""

import contextlib
import gzip
import zlib
from pathlib import Path

import numpy as np

from jaxvid.data.synthetic import COSINE, TURN, random_draws, reflect
from jaxvid.data.tfds import TFDS

DIGIT = 28  # pixels
LENGTHS = {"train": 2**20, "eval": 10_000}
SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist"


class MovingMNIST:
    """Clips rendered on the fly from MNIST's digits: training digits for "train", test digits for "eval".

    An item holds `video` uint8 [T,R,R,3], gray; `label` int32 [], an index into the 55 unordered pairs in `classes`,
    such as "3_7"; and `text`, such as "digits 3 and 7". The same (seed, split, index) is the same clip.

    Args:
      frames, resolution: T >= 1 and R >= 32 (the paper: 20 and 64); digits keep their 28 pixels.
      split: "train" or "eval".
      path: a folder with MNIST's IDX files, plain or .gz; "" reads TFDS' `mnist`. If it contains only the test files,
        their last tenth is used for evaluation and the rest for training.
      seed: of digits and motions.

    Raises ValueError for frames or resolution too small, or a file that is no IDX file, and FileNotFoundError if `path`
    does not contain MNIST.
    """

    classes = [f"{a}_{b}" for a in range(10) for b in range(a, 10)]

    def __init__(self, frames: int, resolution: int, split: str = "train", path: str = "", seed: int = 0):
        if frames < 1 or resolution < 32:
            raise ValueError(f"moving MNIST has frames >= 1 and resolution >= 32, not {frames} and {resolution}")
        self.frames, self.resolution, self.split, self.seed = frames, resolution, split, seed
        self._images, self._labels, self._note = _read_idx(Path(path), split) if path else _read_tfds(split)

    def __len__(self) -> int:
        return LENGTHS[self.split]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        draw = random_draws(self.seed, LENGTHS, self.split, index)
        canvas = np.zeros((self.frames, self.resolution, self.resolution), np.uint8)
        room = self.resolution - DIGIT
        digits = []
        for _ in range(2):
            which, angle, speed = int(draw(0, len(self._labels))), int(draw(0, TURN)), draw(2, 5)
            start = np.array([draw(0, room), draw(0, room)])
            step = speed * np.array([COSINE[angle], COSINE[angle - TURN // 4]])
            corners = reflect(start + step * np.arange(self.frames)[:, None], 0, room)
            for frame, (x, y) in zip(canvas, np.floor(corners + 0.5).astype(int).tolist(), strict=True):
                window = frame[y : y + DIGIT, x : x + DIGIT]
                np.maximum(window, self._images[which], out=window)
            digits.append(int(self._labels[which]))
        low, high = sorted(digits)
        return {
            "video": np.repeat(canvas[..., None], 3, axis=-1),
            "label": np.asarray(self.classes.index(f"{low}_{high}"), np.int32),
            "text": np.asarray(f"digits {low} and {high}"),
        }

    def summary(self) -> str:
        """See `Source.summary`."""
        size = f"{self.frames} frames of {self.resolution}x{self.resolution}"
        digits = f"{len(self._labels):,} digits{self._note}"
        return f"moving MNIST {self.split}: {len(self):,} clips of {size} from {digits}, 55 classes, none skipped"


def _read_idx(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Images uint8 [N,28,28] and labels uint8 [N] of MNIST's own files, and a note for the summary."""
    only_test = not _files(folder, "train-images-idx3-ubyte") and bool(_files(folder, "t10k-images-idx3-ubyte"))
    digits = "train" if split == "train" and not only_test else "t10k"
    arrays = []
    for name, rank in ((f"{digits}-images-idx3-ubyte", 3), (f"{digits}-labels-idx1-ubyte", 1)):
        if not (files := _files(folder, name)):
            raise FileNotFoundError(f"there is no {name} or {name}.gz in {folder}: download it from {SOURCE}/{name}.gz")
        arrays.append(_idx(files[0], rank))
    images, labels = arrays
    if not only_test:
        return images, labels, ""
    cut = -(len(images) // 10)
    part = slice(None, cut) if split == "train" else slice(cut, None)
    return images[part], labels[part], " (a part of the test digits: train-images-idx3-ubyte is not there)"


def _files(folder: Path, name: str) -> list[Path]:
    return [file for file in (folder / name, folder / f"{name}.gz") if file.is_file()]


def _idx(file: Path, rank: int) -> np.ndarray:
    """The bytes of an IDX file: two zeros, type 8 (uint8), rank, big-endian sizes, values."""
    data, header = file.read_bytes(), 4 + 4 * rank
    with contextlib.suppress(OSError, EOFError, zlib.error):  # a truncated archive is reported below
        data = gzip.decompress(data) if file.suffix == ".gz" else data
    shape = np.frombuffer(data[4:header].ljust(header - 4), ">u4")
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) != header + shape.prod(dtype=np.int64):
        raise ValueError(f"{file} is not a whole IDX file of uint8 and rank {rank}: download it again from {SOURCE}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read_tfds(split: str) -> tuple[np.ndarray, np.ndarray, str]:
    digits = TFDS("mnist", frames=1, resolution=DIGIT, split=split)
    items = [digits[i] for i in range(len(digits))]
    return np.stack([i["video"][0, :, :, 0] for i in items]), np.stack([i["label"] for i in items]), " of TFDS"
