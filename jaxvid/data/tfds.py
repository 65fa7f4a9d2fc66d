"""Named data sets of TensorFlow Datasets (https://www.tensorflow.org/datasets), read without TensorFlow.

All that was prepared as ArrayRecord can be read: `tfds build ucf101 --file_format=array_record` writes it once.
"""

import functools
import importlib
import importlib.util
import io
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from jaxvid.data.augment import resize_short_side
from jaxvid.data.pipeline import DamagedClip
from jaxvid.names import nearest

VIDEO_NAMES = ("video", "frames", "image_main", "image")  # in order of preference
TEXT_NAMES = ("caption", "text", "description")


class TFDS:
    """Clips of a prepared TFDS data set: the middle T frames of each video, or each image as a video of one frame.

    An item has `video` uint8 [T,h,w,3] with the shorter side resized to `resolution` (gray repeated in three channels),
    `label` int32 [] (0 if the set has no classes), `text` (a caption, else the class name, else ""), `action` float32
    [T,A] if the set has one vector "action" per frame, and `attributes` float32 [K] (1 or 0) if it has a dict of them,
    as celeb_a; the source's `attributes` are their names, sorted. Shorter videos raise DamagedClip. Evaluation reads
    the split validation or test; if there is neither, the last tenth of train, which training leaves out.

    Args:
      dataset: name in TFDS, with optional config and version: "ucf101/ucf101_1:2.0.0"; "" if `path` is the folder of a
        prepared data set.
      frames, resolution, stride: T, pixels of the shorter side, and the step between frames, each >= 1.
      split: "train" or "eval".
      path: TFDS' data_dir ("": its default), or the folder of one prepared data set.

    Raises ValueError if the data set is unknown, not prepared (for random access), or has neither video nor image.
    """

    def __init__(
        self, dataset: str, frames: int, resolution: int, stride: int = 1, split: str = "train", path: str = ""
    ):
        self._arguments = (dataset, frames, resolution, stride, split, path)
        self.frames, self.resolution, self.stride = frames, resolution, stride
        builder = _open(dataset, path)
        self._name = builder.info.full_name
        self._features = _find_features(builder.info.features, self._name)
        if frames > 1 and not self._features.sequence:
            raise ValueError(f"{self._name} contains images, which are videos of 1 frame; frames is {frames}")
        self.classes = list(self._features.classes)
        self.attributes = ["/".join(path[1:]) for path in self._features.attributes]
        self._split, self._note = _choose_split(builder, split)
        self._source = _random_access(builder, self._split, self._features)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example, features = self._source[index], self._features
        images = _value(example, features.video)
        span = (self.frames - 1) * self.stride + 1
        if len(images) < span:
            raise DamagedClip(f"{self._name} {self._split}[{index}]", f"{len(images)} frames, the clip needs {span}")
        first = (len(images) - span) // 2
        chosen = slice(first, first + span, self.stride)
        try:
            video = np.stack([_rgb(image) for image in images[chosen]])
        except OSError as error:  # Pillow's error for bytes that are no image
            raise DamagedClip(f"{self._name} {self._split}[{index}]", str(error)) from error
        label = int(_value(example, features.label)) if features.label else 0
        text = _value(example, features.text) if features.text else self.classes[label] if features.label else ""
        clip = {
            "video": resize_short_side(video, self.resolution),
            "label": np.asarray(label, np.int32),
            "text": np.asarray(text.decode() if isinstance(text, bytes) else str(text)),
        }
        if features.action:
            clip["action"] = np.asarray(_value(example, features.action)[chosen], np.float32)
        if features.attributes:
            clip["attributes"] = np.array([_value(example, path) for path in features.attributes], np.float32)
        return clip

    def summary(self) -> str:
        """See `Source.summary`."""
        clips = f"{len(self):,} clips of {self.frames} frames of short side {self.resolution}"
        others = f" (not {', '.join(map('/'.join, self._features.others))})" if self._features.others else ""
        rest = f"{others}, {len(self.classes)} classes{self._note}; shorter videos are skipped"
        return f"TFDS {self._name} {self._split}: {clips} from {'/'.join(self._features.video)!r}{rest}"

    def __reduce__(self) -> tuple[Any, ...]:
        return TFDS, self._arguments  # each worker process opens the files


Keys = tuple[str, ...]


class _Features(NamedTuple):
    """Paths of features in an example."""

    video: Keys
    encoded: bool  # stored as image files, so that only the chosen frames need decoding
    sequence: bool  # frames, not one image
    others: list[Keys]
    label: Keys | None
    classes: list[str]
    text: Keys | None
    action: Keys | None
    attributes: list[Keys]


class _Encoded:
    """A TFDS decoder that does not decode image files."""

    def setup(self, *, feature: Any) -> None:
        pass

    def decode_example_np(self, image: bytes) -> list[bytes]:
        return [image]

    def decode_batch_example_np(self, images: Any) -> list[bytes]:
        return list(images)


def _video_type_of_numpy() -> AbstractContextManager[Any]:
    """`tfds.features.Video` needs two number types of TensorFlow when it is constructed; NumPy provides them here."""
    from tensorflow_datasets.core.features import video_feature

    numbers = SimpleNamespace(dtypes=SimpleNamespace(as_dtype=np.dtype), uint8=np.uint8, uint16=np.uint16)
    return mock.patch.object(video_feature, "tf", numbers)


def _open(dataset: str, path: str) -> Any:
    """The builder of a prepared data set, from its files alone."""
    import tensorflow_datasets as tfds
    from etils import epath

    name = dataset.split("/")[0].split(":")[0]
    if name and importlib.util.find_spec(f"tensorflow_datasets.video.{name}"):
        importlib.import_module(f"tensorflow_datasets.video.{name}")  # which registers the video set
    with _video_type_of_numpy():
        if path and (epath.Path(path) / "dataset_info.json").exists():
            return tfds.builder_from_directory(path)
        if not dataset:
            raise ValueError("the TFDS data set is missing: set dataset (in a config, data.dataset), say to ucf101")
        with suppress(tfds.core.registered.DatasetNotFoundError):
            return tfds.core.read_only_builder.builder_from_files(dataset, data_dir=path or None)
    known = tfds.list_builders(with_community_datasets=False)
    folder = path or tfds.core.constants.DATA_DIR
    if name in known:
        build = f"tfds build {dataset} --file_format=array_record --data_dir={folder}"
        remedy = f"run `{build}` once (that needs TensorFlow; training does not), or set data.path to its data_dir"
        raise ValueError(f"TFDS data set {dataset!r} is not prepared in {folder}: {remedy}")
    others = f"did you mean {nearest(name, known)!r}? All are listed in https://www.tensorflow.org/datasets/catalog"
    raise ValueError(f"TFDS knows no data set {dataset!r}, nor is one prepared in {folder}: {others}")


def _leaves(feature: Any, path: Keys = (), sequence: int = 0) -> Iterator[tuple[Keys, Any, int]]:
    """Every single feature with its path and the number of sequences around it, by name.

    A prepared set lists its features in another order in each process.
    """
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Sequence):  # Video is one of them
        yield from _leaves(feature.feature, path, sequence + 1)
    elif isinstance(feature, tfds.features.FeaturesDict):
        for key, value in sorted(feature.items()):
            yield from _leaves(value, (*path, key), sequence)
    else:
        yield path, feature, sequence


def _find_features(features: Any, name: str) -> _Features:
    import tensorflow_datasets as tfds

    leaves = list(_leaves(features))
    videos = []
    for path, feature, sequence in leaves:
        if isinstance(feature, tfds.features.Image) and sequence <= 1:
            videos.append((path, True, sequence == 1))
        elif isinstance(feature, tfds.features.Tensor) and feature.np_dtype == np.uint8 and feature.shape:
            if len(feature.shape) + sequence == 4 and feature.shape[-1] in (1, 3, 4):
                videos.append((path, False, True))
    if not videos:
        raise ValueError(f"{name} has neither a video nor an image; its features are {features}")
    rank = {key: place for place, key in enumerate(VIDEO_NAMES)}
    videos.sort(key=lambda found: (not found[2], rank.get(found[0][-1], len(rank))))
    labels = [leaf[:2] for leaf in leaves if isinstance(leaf[1], tfds.features.ClassLabel) and leaf[2] == 0]
    labels.sort(key=lambda found: found[0] != ("label",))
    texts = [path for path, feature, n in leaves if isinstance(feature, tfds.features.Text) and path[-1] in TEXT_NAMES]
    actions = [path for path, feature, n in leaves if path[-1:] == ("action",) and n + len(feature.shape or ()) == 2]
    label, classes = (labels[0][0], labels[0][1].names) if labels else (None, [])
    others, text, action = [path for path, *_ in videos[1:]], next(iter(texts), None), next(iter(actions), None)
    flags = [leaf[:2] for leaf in leaves if leaf[0][0] == "attributes" and len(leaf[0]) > 1 and leaf[2] == 0]
    attributes = [path for path, feature in flags if feature.np_dtype == np.bool_ and feature.shape == ()]
    return _Features(*videos[0], others, label, classes, text, action, attributes)


def _choose_split(builder: Any, split: str) -> tuple[str, str]:
    """The TFDS split to read, and a note for the summary."""
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise ValueError(f"{builder.info.full_name} has the splits {splits}, none of which is 'train'")
    held_out = next((name for name in ("validation", "test") if name in splits), None)
    if held_out is None:
        chosen = "train[:90%]" if split == "train" else "train[90%:]"
        return chosen, ", without a split for evaluation of its own"
    return ("train" if split == "train" else held_out), ""


def _random_access(builder: Any, split: str, features: _Features) -> Any:
    decoders: Any = _Encoded()
    for key in reversed(features.video):
        decoders = {key: decoders}
    try:
        return builder.as_data_source(split, decoders=decoders if features.encoded else None)
    except NotImplementedError as error:
        folder, form = builder.data_path, builder.info.file_format.value
        command = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
        remedy = f"run once (that needs TensorFlow; training does not) `{command}`"
        found = f"{builder.info.full_name} is prepared in {folder} as {form}"
        raise ValueError(f"{found}, which cannot be read in random order: {remedy}") from error


def _value(example: Any, path: Keys) -> Any:
    return functools.reduce(operator.getitem, path, example)


def _rgb(image: bytes | np.ndarray) -> np.ndarray:
    """An image file, or pixels [h,w,1|3|4], as uint8 [h,w,3]."""
    if isinstance(image, bytes):
        return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
