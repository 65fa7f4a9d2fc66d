"""Moving MNIST, with digits that are flat squares where motion is to be measured, and with the real ones."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from written import write_idx

from jaxvid.data.moving_mnist import MovingMNIST


@pytest.fixture
def squares(tmp_path):
    write_idx(tmp_path, "train", np.arange(10))
    write_idx(tmp_path, "t10k", np.arange(10), compress=True)
    return str(tmp_path)


def test_the_label_and_text_name_what_is_seen(squares):
    source = MovingMNIST(20, 64, "train", squares)
    for i in range(60):
        clip = source[i]
        assert clip["video"].shape == (20, 64, 64, 3) and clip["video"].dtype == np.uint8
        seen = sorted((int(value) - 50) // 20 for value in np.unique(clip["video"]) if value)
        low, high = seen[0], seen[-1]
        assert source.classes[clip["label"]] == f"{low}_{high}"
        assert str(clip["text"]) == f"digits {low} and {high}"
        np.testing.assert_array_equal(clip["video"][..., 0], clip["video"][..., 2])


def test_the_brighter_digit_moves_straight_at_constant_speed_and_bounces(squares):
    source, speeds, bounces = MovingMNIST(20, 64, "eval", squares), [], 0
    for i in range(60):
        video = source[i]["video"][..., 0]
        if len(np.unique(video)) < 3:
            continue  # twice the same digit
        bright = video == video.max()
        assert (bright.sum((1, 2)) == 28 * 28).all()  # whole within the frame, and in front where they overlap
        corners = np.array([[np.flatnonzero(frame.any(axis))[0] for axis in (0, 1)] for frame in bright])
        steps = np.abs(np.diff(corners, axis=0))
        assert steps.max() <= 6  # a wall turns a digit round, it does not let it through
        inner = ((corners[:-1] > 5) & (corners[:-1] < 31)).all(1) & ((corners[1:] > 5) & (corners[1:] < 31)).all(1)
        assert (np.ptp(steps[inner], axis=0) <= 1).all() if inner.any() else True  # up to rounding
        bounces += int((np.diff(np.sign(np.diff(corners, axis=0)), axis=0) != 0).sum())
        speeds.append(np.hypot(*steps[inner].T).mean() if inner.any() else 3)
    assert 1.5 < min(speeds) and max(speeds) < 5.5 and np.ptp(speeds) > 1.5
    assert bounces > 100


def test_the_same_index_is_the_same_clip_and_splits_differ(squares):
    train, again, held_out = (MovingMNIST(5, 40, split, squares) for split in ("train", "train", "eval"))
    np.testing.assert_array_equal(train[7]["video"], again[7]["video"])
    assert not np.array_equal(train[7]["video"], held_out[7]["video"])
    assert not np.array_equal(train[7]["video"], MovingMNIST(5, 40, "train", squares, seed=1)[7]["video"])
    assert (len(train), len(held_out), len(train.classes)) == (2**20, 10_000, 55)


def test_the_real_test_digits_serve_both_splits_where_the_training_file_is_missing(shared):
    folder = shared / "data" / "images" / "mnist"
    truth = np.frombuffer(gzip.open(folder / "t10k-images-idx3-ubyte.gz").read()[16:], np.uint8).reshape(-1, 28, 28)
    train, held_out = (MovingMNIST(20, 64, split, str(folder)) for split in ("train", "eval"))
    np.testing.assert_array_equal(np.concatenate([train._images, held_out._images]), truth)
    assert len(train._images) == 9000
    assert "train-images-idx3-ubyte is not there" in train.summary()
    video = train[0]["video"][..., 0]
    assert video.max() > 200 and 0.02 < (video > 0).mean() < 0.25


def test_missing_and_torn_files_are_named(tmp_path, squares):
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte or .*\.gz in .*: download"):
        MovingMNIST(5, 64, "train", str(tmp_path / "nowhere"))
    for torn in (b"", b"\x00\x00\x08\x03" + bytes(20), gzip.compress(bytes(100))[:30]):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(torn)
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz is not a whole IDX file"):
            MovingMNIST(5, 64, "eval", squares)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no train-labels-idx1-ubyte"):
        MovingMNIST(5, 64, "train", squares)
    with pytest.raises(ValueError, match="resolution >= 32, not 5 and 28"):
        MovingMNIST(5, 28, "eval", squares)


def test_without_a_path_tfds_is_asked(monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="'mnist' is not prepared in .*tfds build mnist --file_format=array_record"):
        MovingMNIST(5, 64, "train")
