"""Real data sets in TFDS' own format, prepared here without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.features import video_feature
from written import frame, png, prepare

from jaxvid.data import DamagedClip, make_source, train_batches
from jaxvid.data.tfds import TFDS, _find_features, _video_type_of_numpy


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with videos, images, tensors, a nested set and one without images."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    f = tfds.features
    image = f.Image(shape=(None, None, 3))
    label = f.ClassLabel(names=["cat", "dog"])
    pets = {"clip": f.Sequence(image), "label": label, "caption": f.Text(), "preview": image}

    def pet(i):
        frames = [png(frame(i, t)) for t in range(8 + i)]
        return {"clip": frames, "label": i % 2, "caption": f"pet {i}", "preview": png(frame(i, 99))}

    prepare(folder, "Pets", f.FeaturesDict(pets), pet, {"train": 5, "test": 3})
    gray = {"video": f.Tensor(shape=(6, 8, 8, 1), dtype=np.uint8, encoding="zlib")}
    prepare(
        folder, "Gray", f.FeaturesDict(gray), lambda i: {"video": np.full((6, 8, 8, 1), i, np.uint8)}, {"train": 20}
    )
    robot = f.Sequence({"action": f.Tensor(shape=(4,), dtype=np.float32), "image_aux1": image, "image_main": image})

    def push(i):
        return [
            {
                "action": np.full(4, t, np.float32),
                "image_aux1": png(frame(i, 50 + t)),
                "image_main": png(frame(i, t)),
            }
            for t in range(9)
        ]

    prepare(folder, "Robot", robot, push, {"train": 2, "validation": 1, "test": 1})
    prepare(folder, "Numbers", f.FeaturesDict({"x": f.Scalar(np.int32)}), lambda i: {"x": i}, {"train": 2})
    assert "tensorflow" not in sys.modules
    return folder


def by_number(source):
    """Clips by the number that `frame` wrote into them: TFDS shuffles when it prepares."""
    return {int(clip["video"][0, 0, 0, 0]) // 10: clip for clip in (source[i] for i in range(len(source)))}


def test_the_middle_of_each_video_with_label_and_text(prepared):
    source = TFDS("pets", frames=3, resolution=20, stride=2, split="train", path=prepared)
    clips = by_number(source)
    assert sorted(clips) == [0, 1, 2, 3, 4] and source.classes == ["cat", "dog"]
    for number, clip in clips.items():
        first = (8 + number - 5) // 2
        expected = np.stack([frame(number, t) for t in (first, first + 2, first + 4)])
        np.testing.assert_array_equal(clip["video"], expected)
        assert clip["label"] == number % 2 and clip["label"].dtype == np.int32
        assert str(clip["text"]) == f"pet {number}"
    assert len(TFDS("pets", 3, 20, 2, "eval", prepared)) == 3


def test_frames_are_scaled_by_their_shorter_side(prepared):
    clip = TFDS("pets", 2, 10, split="train", path=prepared)[0]
    assert clip["video"].shape == (2, 10, 15, 3)
    np.testing.assert_allclose(clip["video"][0, 5, 2:-2, 2], np.arange(15)[2:-2] * 2 + 0.5, atol=1)


def test_videos_shorter_than_the_clip_are_skipped_by_the_pipeline(prepared):
    source = TFDS("pets", 10, 20, path=prepared)
    short = [i for i in range(5) if damaged(source, i)]
    assert len(short) == 2  # of 8 and of 9 frames
    with pytest.raises(DamagedClip, match=r"pets/1.0.0 train\[\d\]: [89] frames, the clip needs 10"):
        source[short[0]]
    with train_batches(source, 5, 20, seed=0) as batches:
        assert set((next(batches)["video"][:, 0, 0, 0, 0] // 10).tolist()) <= {2, 3, 4}


def damaged(source, index):
    try:
        source[index]
    except DamagedClip:
        return True
    return False


def test_gray_tensors_and_a_set_without_evaluation(prepared):
    train, held_out = (TFDS("gray", 6, 8, split=split, path=prepared) for split in ("train", "eval"))
    numbers = [[int(source[i]["video"][0, 0, 0, 0]) for i in range(len(source))] for source in (train, held_out)]
    assert sorted(numbers[0] + numbers[1]) == list(range(20)) and len(numbers[1]) == 2
    clip = train[0]
    assert clip["video"].shape == (6, 8, 8, 3) and clip["label"] == 0 and str(clip["text"]) == ""
    assert train.classes == [] and "without a split for evaluation of its own" in train.summary()


def test_a_sequence_of_dicts_with_actions(prepared):
    source = TFDS("robot", 3, 20, stride=2, split="eval", path=prepared)
    assert len(source) == 1 and "validation" in source.summary() and "not image_aux1" in source.summary()
    clip = source[0]
    assert clip["video"][:, 0, 0, 1].tolist() == [2, 4, 6]
    np.testing.assert_array_equal(clip["action"], np.repeat([[2.0], [4.0], [6.0]], 4, axis=1))
    assert clip["action"].dtype == np.float32


def test_the_video_feature_is_read_without_tensorflow(prepared, tmp_path):
    """features.Video stores what Sequence(Image) stores; only the description of the set differs."""
    folder = tmp_path / "pets"
    shutil.copytree(Path(prepared) / "pets" / "1.0.0", folder)
    file = folder / "features.json"
    features = json.loads(file.read_text())
    features["featuresDict"]["features"]["clip"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"shape": {"dimensions": ["-1", "-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"},
    }
    file.write_text(json.dumps(features))
    lazy = video_feature.tf
    source = TFDS("", 3, 20, path=str(folder))
    assert video_feature.tf is lazy  # whoever has TensorFlow finds it where it was
    np.testing.assert_array_equal(source[2]["video"], TFDS("pets", 3, 20, path=prepared)[2]["video"])
    assert str(pickle.loads(pickle.dumps(source))[2]["text"]) == str(source[2]["text"])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "name, video, encoded, sequence, classes",
    [
        ("ucf101", ("video",), True, True, 101),
        ("moving_mnist", ("image_sequence",), True, True, 0),
        ("bair_robot_pushing_small", ("image_main",), True, True, 0),
        ("celeb_a", ("image",), True, False, 0),
        ("cifar10", ("image",), True, False, 10),
    ],
)
def test_the_features_of_built_in_sets(name, video, encoded, sequence, classes, tmp_path):
    with contextlib.suppress(ImportError):
        importlib.import_module(f"tensorflow_datasets.video.{name}")
    with _video_type_of_numpy():
        found = _find_features(tfds.builder(name, data_dir=str(tmp_path)).info.features, name)
    assert found[:3] == (video, encoded, sequence) and len(found.classes) == classes
    assert (found.action == ("action",)) == (name == "bair_robot_pushing_small")
    assert len(found.attributes) == (40 if name == "celeb_a" else 0)


def test_make_source(prepared):
    options = {
        "name": "tfds",
        "path": prepared,
        "dataset": "pets",
        "frames": 4,
        "resolution": 20,
        "stride": 1,
        "fps": 0.0,
        "holdout": 0.1,
    }
    assert make_source(options, "eval")[0]["video"].shape == (4, 20, 30, 3)


def test_what_is_missing_is_named_with_the_way_out(prepared, tmp_path):
    empty = str(tmp_path)
    build = "tfds build ucf101 --file_format=array_record"
    with pytest.raises(ValueError, match=rf"'ucf101' is not prepared in {empty}.*{build}"):
        TFDS("ucf101", 16, 64, path=empty)
    with pytest.raises(ValueError, match=r"'celeb_a' is not prepared in"):
        TFDS("celeb_a", 1, 64, path=empty)
    with pytest.raises(ValueError, match="TFDS knows no data set 'ufc101'.*did you mean 'ucf101'"):
        TFDS("ufc101", 16, 64, path=empty)
    with pytest.raises(ValueError, match="numbers/1.0.0 has neither a video nor an image; its features are"):
        TFDS("numbers", 1, 64, path=prepared)
    with pytest.raises(ValueError, match=r"contains images, which are videos of 1 frame; frames is 2"):
        images(tmp_path / "images")
        TFDS("pictures", 2, 20, path=str(tmp_path / "images"))


def images(folder):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(20, 20, 1))})
    prepare(str(folder), "Pictures", features, lambda i: {"image": png(np.full((20, 20), i, np.uint8))}, {"train": 10})


def test_images_are_videos_of_one_frame(tmp_path):
    images(tmp_path)
    source = TFDS("pictures", 1, 20, path=str(tmp_path))
    assert len(source) == 9 and source[0]["video"].shape == (1, 20, 20, 3)
    assert len(np.unique(source[0]["video"])) == 1


def test_a_dict_of_what_is_true_is_a_vector_of_attributes(tmp_path):
    f = tfds.features
    features = {
        "image": f.Image(shape=(20, 20, 1)),
        "attributes": {"Young": np.bool_, "Bald": np.bool_, "age": np.int32},
    }

    def face(i):
        flags = {"Bald": i % 2 == 0, "Young": i < 4, "age": i}
        return {"image": png(np.full((20, 20), 10 * i, np.uint8)), "attributes": flags}

    prepare(str(tmp_path), "Faces", f.FeaturesDict(features), face, {"train": 6, "test": 2})
    source = TFDS("faces", 1, 20, path=str(tmp_path))
    assert source.attributes == ["Bald", "Young"]
    for number, clip in by_number(source).items():
        assert clip["attributes"].tolist() == [number % 2 == 0, number < 4] and clip["attributes"].dtype == np.float32


def test_a_set_prepared_without_random_access_is_named(prepared, tmp_path):
    folder = tmp_path / "pets"
    shutil.copytree(Path(prepared) / "pets" / "1.0.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    for file in folder.glob("*.array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="as tfrecord, which cannot be read in random order.*`tfds convert_format"):
        TFDS("", 3, 20, path=str(folder))


def test_a_broken_image_names_its_place(tmp_path):
    feature = tfds.features.Tensor(shape=(), dtype=np.bytes_)
    prepare(
        str(tmp_path),
        "Torn",
        tfds.features.FeaturesDict({"image": feature}),
        lambda i: {"image": b"no image"},
        {"train": 10},
    )
    (folder,) = (tmp_path / "torn").glob("*")
    features = json.loads((folder / "features.json").read_text())
    image = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"}
    image["image"] = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"}
    features["featuresDict"]["features"]["image"] = image
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(DamagedClip, match=r"torn/1.0.0 train\[:90%\]\[3\]: cannot identify image file"):
        TFDS("torn", 1, 20, path=str(tmp_path))[3]
