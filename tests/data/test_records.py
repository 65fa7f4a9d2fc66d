"""Records return what was written, and report damage."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from jaxvid.data import DamagedClip, make_source, train_batches
from jaxvid.data.records import Records, decode, encode, write_records
from jaxvid.data.synthetic import LABELS, Synthetic


class Few:
    """The first clips of the synthetic source, some of them damaged."""

    classes = LABELS["class"]

    def __init__(self, length=23, damaged=(), frames=4, size=24):
        self.world, self.length, self.damaged = Synthetic(frames, size), length, damaged

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.damaged:
            raise DamagedClip(f"{index}.mp4", "moov atom not found")
        return self.world[index]

    def summary(self):
        return f"the first {self.length} of {self.world.summary()}"


def by_text_and_pixels(source):
    return {(str(clip["text"]), clip["video"].tobytes()): clip for clip in (source[i] for i in range(len(source)))}


@pytest.fixture
def written(tmp_path):
    write_records(Few(), str(tmp_path / "train"), shards=3, workers=2)
    return tmp_path


@pytest.mark.parametrize("shards, workers", [(1, 1), (5, 3), (100, 4)])
def test_every_clip_comes_back_bit_for_bit(tmp_path, shards, workers):
    about = write_records(Few(), str(tmp_path / "eval"), shards, workers)
    assert about["clips"] == 23 and about["frames"] == 4 and about["resolution"] == 24
    source = Records(str(tmp_path), 4, 24, "eval")
    expected, found = by_text_and_pixels(Few()), by_text_and_pixels(source)
    assert len(source) == 23 and expected.keys() == found.keys() and source.classes == Few.classes
    for key, clip in expected.items():
        assert clip.keys() == found[key].keys()
        for name, value in clip.items():
            np.testing.assert_array_equal(found[key][name], value)
            assert found[key][name].dtype == value.dtype


def test_a_digest_tells_other_records_wherever_they_lie(written, tmp_path):
    digest = Records(str(written), 4, 24).sha256
    write_records(Few(), str(tmp_path / "copy" / "train"), shards=3, workers=1)
    write_records(Few(length=22), str(tmp_path / "other" / "train"), shards=3)
    assert Records(str(tmp_path / "copy"), 4, 24).sha256 == digest != Records(str(tmp_path / "other"), 4, 24).sha256


def test_any_array_survives_a_record():
    clip = {
        "float": np.linspace(0, 1, 7, dtype=np.float32),
        "fortran": np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        "text": np.asarray("größer 录像"),
        "none": np.zeros((3, 0), np.uint8),
        "truth": np.asarray([True, False]),
        "big": np.arange(3, dtype=">i8"),
    }
    back = decode(encode(clip))
    for key, value in clip.items():
        np.testing.assert_array_equal(back[key], value)
        assert back[key].shape == value.shape and back[key].dtype == value.dtype
    with pytest.raises(ValueError, match="'x' contains Python objects"):
        encode({"x": np.array([{}])})


def test_damaged_clips_are_left_out_and_counted(tmp_path):
    about = write_records(Few(damaged=(2, 9)), str(tmp_path / "train"), shards=3)
    assert about["clips"] == 21 and about["left_out"] == 2
    assert about["damaged"] == {"2.mp4": "moov atom not found", "9.mp4": "moov atom not found"}
    source = Records(str(tmp_path), 4, 24)
    assert len(source) == 21 and "2 damaged clips left out" in source.summary()
    expected = [text for text, _ in by_text_and_pixels(Few(damaged=())).keys()]
    assert sorted(str(source[i]["text"]) for i in range(21)) == sorted(np.delete(expected, [2, 9]))


def test_fewer_frames_and_a_smaller_size(written):
    source, whole = Records(str(written), 3, 12), Records(str(written), 4, 24)
    for key in ("video", "input", "action"):
        np.testing.assert_array_equal(Records(str(written), 3, 24)[0][key], whole[0][key][:3])
    for i in range(5):
        small, large = source[i], whole[i]
        assert small["video"].shape == small["input"].shape == (3, 12, 12, 3) and small["action"].shape == (3, 2)
        halved = large["video"][:3].reshape(3, 12, 2, 12, 2, 3).mean((2, 4))
        assert np.abs(small["video"] - halved).mean() < 4


@pytest.mark.xdist_group("workers")
def test_records_feed_the_pipeline_and_travel_to_workers(written):
    options = {"name": "records", "path": str(written), "dataset": "", "frames": 4, "resolution": 24, "stride": 1}
    source = make_source(options | {"fps": 0.0, "holdout": 0.1}, "train")
    with train_batches(source, 23, 24, seed=0) as batches:
        assert sorted(next(batches)["text"].tolist()) == sorted(str(Few()[i]["text"]) for i in range(23))
    assert str(pickle.loads(pickle.dumps(source))[3]["text"]) == str(source[3]["text"])


def test_nothing_appears_before_all_is_written(tmp_path):
    class Broken(Few):
        def __getitem__(self, index):
            if index == 20:
                raise KeyError("a bug")
            return super().__getitem__(index)

    with pytest.raises(KeyError, match="a bug"):
        write_records(Broken(), str(tmp_path / "train"), shards=3, workers=2)
    assert not (tmp_path / "train").exists()
    with pytest.raises(FileNotFoundError, match="there is no .*records.json"):
        Records(str(tmp_path), 4, 24)
    write_records(Few(), str(tmp_path / "train"), shards=2)  # the leftovers of the first attempt do no harm
    assert sorted(file.name for file in (tmp_path / "train").iterdir()) == [
        "clips-00000-of-00002.array_record",
        "clips-00001-of-00002.array_record",
        "records.json",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["train"]


def test_an_error_stops_the_other_shards(tmp_path):
    class Endless(Few):
        def __len__(self):
            return 10**9

        def __getitem__(self, index):
            if index == 1:
                raise KeyError("a bug")
            return super().__getitem__(index % 9)

    with pytest.raises(KeyError, match="a bug"):
        write_records(Endless(), str(tmp_path / "train"), shards=2, workers=2)


def test_damaged_shards_are_named(written):
    shard = written / "train" / "clips-00001-of-00003.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"clips-00001-of-00003.array_record has .* bytes in place of .*: copy it again"
    ):
        Records(str(written), 4, 24)
    middle = len(whole) // 2
    shard.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    source = Records(str(written), 4, 24)
    damaged = [i for i in range(23) if is_damaged(source, i)]
    assert len(damaged) == 1 and 8 <= damaged[0] < 16
    with pytest.raises(DamagedClip, match=r"clips-00001-of-00003.array_record: clip \d+: .*hash mismatch"):
        source[damaged[0]]
    shard.unlink()
    with pytest.raises(ValueError, match="clips-00001-of-00003.array_record is missing"):
        Records(str(written), 4, 24)


def is_damaged(source, index):
    try:
        source[index]
    except DamagedClip:
        return True
    return False


def test_what_does_not_fit_is_named(written, tmp_path):
    with pytest.raises(ValueError, match="clips of frames 4, less than the requested 5: lower data.frames or write"):
        Records(str(written), 5, 24)
    with pytest.raises(
        ValueError, match="clips of resolution 24, less than the requested 32: lower data.resolution or write"
    ):
        Records(str(written), 4, 32)
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_records(Few(), str(written / "train"))
    with pytest.raises(ValueError, match="no clip that can be read; the source is the first 3"):
        write_records(Few(3, damaged=range(3)), str(tmp_path / "eval"))
    with pytest.raises(IndexError):
        Records(str(written), 4, 24)[23]
    about = json.loads((written / "train" / "records.json").read_text())
    (written / "train" / "records.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads format 1"):
        Records(str(written), 4, 24)
