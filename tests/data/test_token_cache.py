"""Clips of tokens: which clips they are, their folder, and the pipeline that batches them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxvid.data import eval_batches, train_batches
from jaxvid.data.pipeline import Clip, DamagedClip
from jaxvid.data.records import write_shard
from jaxvid.data.tokens import Crops, Tokens, write_tokens


class Few:
    """Clips of 2 frames of 6x9 pixels, each of which tells its clip, row and column."""

    def __init__(self, length: int = 10, damaged: tuple[int, ...] = ()):
        self.classes, self._length, self._damaged = ["a", "b"], length, damaged

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Clip:
        if index in self._damaged:
            raise DamagedClip(f"{index}.mp4", "bad")
        rows, columns = np.mgrid[:6, :9]
        frame = np.stack([np.full((6, 9), index), rows, columns], -1).astype(np.uint8)
        return {
            "video": np.stack([frame] * 2),
            "label": np.asarray(index % 2, np.int32),
            "text": np.asarray("x" * index),
        }

    def summary(self) -> str:
        return f"{self._length} clips"


@pytest.mark.parametrize("count", [4, 10, 23])
def test_crops_are_whole_passes_and_a_sample_of_the_rest(count: int) -> None:
    source, crops = Few(), Crops(Few(), 4, count)
    numbers = [int(crops[number]["video"][0, 0, 0, 0]) for number in range(count)]
    whole, rest = divmod(count, len(source))
    assert len(crops) == count and numbers[: 10 * whole] == [*range(10)] * whole
    assert len({*numbers[10 * whole :]}) == rest and numbers[10 * whole :] == sorted(numbers[10 * whole :])
    with pytest.raises(IndexError):
        crops[count]


def test_a_crop_is_always_the_same_one_and_another_in_the_next_pass() -> None:
    crops, again = Crops(Few(), 4, 40), Crops(Few(), 4, 40)
    corners = [tuple(crops[number]["video"][0, 0, 0, 1:]) for number in range(40)]
    assert corners == [tuple(again[number]["video"][0, 0, 0, 1:]) for number in range(40)]
    assert crops[0]["video"].shape == (2, 4, 4, 3) and len({*corners}) > 6
    assert corners[:10] != corners[10:20]


def test_batches_in_the_order_of_the_source_tell_damaged_clips_by_their_mask() -> None:
    with eval_batches(Few(damaged=(3,)), 4, 6, 10, shuffle=False) as batches:
        found = [(batch["video"][:, 0, 0, 0, 0], batch["mask"]) for batch in batches]
    numbers, mask = map(np.concatenate, zip(*found, strict=True))
    np.testing.assert_array_equal(mask, [1, 1, 1, 0, *[1] * 6, 0, 0])
    np.testing.assert_array_equal(numbers[mask > 0], [0, 1, 2, *range(4, 10)])


def about(planned: int) -> dict:
    source = {"summary": "ten", "clips": 10, "classes": ["a", "b"], "sha256": ""}
    return {"source": source, "planned": planned, "grid": [1, 2, 2], "codes": 70000, "first_frames": 2}


def clip(number: int) -> Clip:
    tokens = np.full((1, 2, 2), number, np.uint16)
    return {"tokens": tokens, "text": np.asarray("x" * number), "first_frames": np.full((2, 4, 4, 3), number, np.uint8)}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    clips = ((number, clip(number)) for number in range(10) if number not in (0, 4))
    write_tokens(clips, about(10), str(tmp_path / "tokens"), shards=3)
    return tmp_path / "tokens"


def test_what_was_written_comes_back(written: Path) -> None:
    tokens = Tokens(str(written), first_frames=1)
    np.testing.assert_array_equal(tokens.numbers, [1, 2, 3, 5, 6, 7, 8, 9])
    for place, number in enumerate(tokens.numbers):
        found = tokens[place]
        assert found["tokens"].dtype == np.int32 and (found["tokens"] == number).all()
        assert str(found["text"]) == "x" * number and found["first_frames"].shape == (1, 4, 4, 3)
    assert "first_frames" not in Tokens(str(written))[0]
    assert "8 clips of 1x2x2 tokens in 2 shards, 2 damaged clips left out; made of ten" in tokens.summary()
    assert not Path(f"{written}.partial").exists()


def test_the_pipeline_batches_them_without_a_video(written: Path) -> None:
    tokens = Tokens(str(written))
    with train_batches(tokens, 4, 16, seed=0) as batches, train_batches(tokens, 4, 16, seed=0, start=1) as later:
        first, second = next(batches), next(batches)
        np.testing.assert_array_equal(second["tokens"], next(later)["tokens"])
    assert first["tokens"].shape == (4, 1, 2, 2) and "video" not in first
    assert {*first["tokens"][:, 0, 0, 0], *second["tokens"][:, 0, 0, 0]} == {*tokens.numbers}  # once an epoch


def test_workers_read_them_too(written: Path) -> None:
    with train_batches(Tokens(str(written)), 4, 16, seed=0) as plain:
        expected = [next(plain)["tokens"] for _ in range(3)]
    with train_batches(Tokens(str(written)), 4, 16, seed=0, workers=1) as batches:
        np.testing.assert_array_equal([next(batches)["tokens"] for _ in range(3)], expected)


def test_a_digest_tells_other_tokens_wherever_they_lie(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "copy")
    write_tokens(((number, clip(number + 1)) for number in range(3)), about(3), str(tmp_path / "other"))
    digests = [Tokens(str(tmp_path / name)).sha256 for name in ("tokens", "copy", "other")]
    assert digests[0] == digests[1] != digests[2]


def test_an_interrupted_cache_is_none(tmp_path: Path) -> None:
    def clips():
        yield 0, clip(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(clips(), about(10), str(tmp_path / "tokens"))
    for name in ("tokens", "tokens.partial"):
        with pytest.raises(FileNotFoundError, match="which python -m jaxvid.tokenize writes when all is done"):
            Tokens(str(tmp_path / name))
    write_tokens([(0, clip(0))], about(1), str(tmp_path / "tokens"))  # the leftovers do no harm
    assert len(Tokens(str(tmp_path / "tokens"))) == 1


def test_what_cannot_be_read_or_written_is_one_sentence(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_tokens([(0, clip(0))], about(1), str(written))
    with pytest.raises(ValueError, match="no clip can be read of ten"):
        write_tokens([], about(1), str(tmp_path / "empty"))
    with pytest.raises(OSError, match="/dev/full could not be written: No space left on device"):
        write_shard(Path("/dev/full"), (clip(number) for number in range(9)))
    saved = json.loads((written / "tokens.json").read_text())
    for damaged in ({**saved, "format": 2}, {**saved, "shards": 7}, {**saved, "left_out": [99]}, {}, []):
        (written / "tokens.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="format 2, and this version reads format 1|tokens.json is damaged"):
            Tokens(str(written))
    (written / "tokens.json").write_text(json.dumps(saved))
    shard = written / "tokens-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="tokens-00001.array_record has .* bytes in place of .*: copy it again"):
        Tokens(str(written))
