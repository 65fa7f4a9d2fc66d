"""A folder becomes the right clips, labels, texts and splits; no file in it can end a run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import time
import unicodedata
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from counting import numbers, picture, write_video
from PIL import Image

from jaxvid.data import folder as folder_module
from jaxvid.data import index as index_module
from jaxvid.data import make_source
from jaxvid.data import video as video_module
from jaxvid.data.folder import Folder, clip_indices, clip_starts
from jaxvid.data.index import build_index, in_parallel, natural
from jaxvid.data.pipeline import DamagedClip, eval_batches, train_batches
from jaxvid.data.video import probe

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "data" / "bad_videos.tar.gz"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An own cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxvid" / "index"


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A video of 40 frames at 25 frames per second."""
    return Path(write_video(tmp_path_factory.mktemp("sample") / "sample.mp4", 40))


@pytest.fixture
def tree(tmp_path, sample):
    """tree("a/b.mp4", ...) copies the sample video to these names, and returns their folder."""

    def make(*names: str, top: str = "videos") -> Path:
        for name in names:
            path = tmp_path / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample, path)
        return tmp_path / top

    return make


def both(path: Path | str, frames: int = 8, **settings) -> tuple[Folder, Folder]:
    return Folder(str(path), frames, 24, split="train", **settings), Folder(
        str(path), frames, 24, split="eval", **settings
    )


def used(folder: Folder) -> list[str]:
    return [os.path.relpath(info.path, folder.index.root) for info in folder.videos]


# ---- what is found


def test_classes_labels_and_text_come_from_the_first_level_of_folders(tree):
    root = tree("cats/a.mp4", "cats/deep/er/b.mp4", "dogs10/c.mp4", "dogs2/d.mp4")
    (root / "empty").mkdir()
    train, held_out = both(root)
    assert train.classes == held_out.classes == ["cats", "dogs2", "dogs10"]
    seen = set()
    for folder in (train, held_out):
        for clip, (number, _) in zip(folder, folder.clips, strict=True):
            name = os.path.relpath(folder.videos[number].path, root)
            assert clip["label"].dtype == np.int32 and clip["label"].shape == () and clip["video"].dtype == np.uint8
            assert folder.classes[clip["label"]] == str(clip["text"]) == name.split("/")[0]
            seen.add(name)
    assert len(seen) == 4
    with pytest.raises(IndexError):
        train[len(train)]


def test_files_beside_class_folders_have_the_class_none(tree):
    train, held_out = both(tree("a.mp4", "cats/b.mp4"))
    assert train.classes == ["cats", "none"]
    assert {str(clip["text"]) for folder in (train, held_out) for clip in folder} == {"cats", "none"}
    assert both(tree("a.mp4", "b.mp4", top="flat"))[0].classes == []


def test_hidden_and_foreign_files_are_ignored(tree):
    root = tree("a.mp4", "b.mp4", ".hidden.mp4", "._b.mp4", ".git/c.mp4", "UPPER.MP4", "no_ending", "wrong.avi")
    for name in ("notes.txt", "labels.csv", "more.csv", "model.safetensors"):
        (root / name).write_text("text")
    train, held_out = both(root)
    assert sorted(used(train) + used(held_out)) == ["UPPER.MP4", "a.mp4", "b.mp4", "no_ending", "wrong.avi"]
    assert train.skipped == [] and train.index.foreign == {".txt": 1, ".csv": 2, ".safetensors": 1}


def test_links_end_and_each_real_file_counts_once(tree, tmp_path):
    root = tree("pool/a.mp4", "pool/b.mp4")
    outside = tree("c.mp4", top="outside")
    (root / "a_link.mp4").symlink_to("pool/a.mp4")
    (root / "another").symlink_to("pool")
    (root / "pool" / "loop").symlink_to("..")
    (root / "self.mp4").symlink_to("self.mp4")
    (root / "dangling.mp4").symlink_to("nowhere.mp4")
    (root / "outside").symlink_to(outside)
    os.mkfifo(root / "pipe.mp4")  # would block whoever opens it
    train, held_out = both(root)
    assert sorted(used(train) + used(held_out)) == ["outside/c.mp4", "pool/a.mp4", "pool/b.mp4"]
    assert {name for name, _ in train.skipped} == {"self.mp4", "dangling.mp4", "pipe.mp4"}


def test_numbered_images_are_one_video_or_many_images(tmp_path):
    for folder, names in {
        "cats/walk": [f"frame_{number}.png" for number in range(20)],
        "cats/run": [f"{number:04}.png" for number in range(5, 25)],
        "dogs": [f"dog {name}.png" for name in "abc"],
        "birds": ["7.png"],
    }.items():
        (tmp_path / "images" / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(number)).save(tmp_path / "images" / folder / name)
    train, held_out = both(tmp_path / "images", frames=4)
    assert sorted(used(train) + used(held_out)) == ["cats/run", "cats/walk"] and train.classes == ["cats"]
    assert [numbers(clip["video"]) for clip in train] == [list(range(first, first + 4)) for first in range(0, 20, 4)]
    assert [name for name, _ in train.skipped] == ["birds/7.png", *(f"dogs/dog {name}.png" for name in "abc")]
    train, held_out = both(tmp_path / "images", frames=1)
    assert len(train) + len(held_out) == 44 and train.classes == ["birds", "cats", "dogs"]
    assert train[0]["video"].shape == (1, 24, 32, 3)
    with pytest.raises(ValueError, match="images have no frame rate"):
        Folder(str(tmp_path / "images"), 4, 24, fps=10)


@pytest.mark.parametrize("backwards", [False, True])
def test_names_that_are_equal_in_natural_order_have_one_order_on_every_disk(tree, monkeypatch, backwards):
    root = tree(*(f"{folder}/{name}.mp4" for folder in ("1", "01", "2", "02") for name in ("7", "07")))
    (root / "b_link").symlink_to(tree("x.mp4", top="outside"))
    (root / "a_link").symlink_to(tree("x.mp4", top="outside"))
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listed(folder), reverse=backwards))
    train, held_out = both(root, holdout=0.5)
    assert train.classes == ["01", "1", "02", "2", "a_link"]
    names = ["01/07.mp4", "01/7.mp4", "1/07.mp4", "1/7.mp4", "02/07.mp4", "02/7.mp4", "2/07.mp4", "2/7.mp4"]
    assert list(train.index.found) == [*names, "a_link/x.mp4"]
    assert sorted(used(train) + used(held_out), key=natural) == [*names, "a_link/x.mp4"]


def test_classes_whose_accents_are_apart_are_those_whose_accents_are_not(tree):
    apart = unicodedata.normalize("NFD", "crème")
    train, held_out = both(tree(f"train/{apart}/a.mp4", "train/b/b.mp4", "val/crème/c.mp4"))
    assert train.classes == held_out.classes == ["b", "crème"] and train.texts == ["b", "crème"]
    assert used(train) == ["train/b/b.mp4", f"train/{apart}/a.mp4"] and len(train[7]["video"]) == 8


# ---- which clips


@pytest.mark.parametrize("frames, stride", [(1, 1), (1, 7), (8, 1), (40, 1), (5, 3), (14, 3), (2, 39)])
def test_clips_by_stride_do_not_overlap_and_leave_no_room(tree, frames, stride):
    train, held_out = both(tree("a.mp4", "b.mp4"), frames=frames, stride=stride)
    clips = [numbers(clip["video"]) for clip in train]
    assert clips == [numbers(clip["video"]) for clip in held_out]
    starts = range(0, 40 - (frames - 1) * stride, frames * stride)
    assert clips == [list(range(first, first + frames * stride, stride)) for first in starts]


@pytest.mark.parametrize("fps, frames", [(10, 1), (10, 4), (7.5, 6), (2, 3), (25, 8)])
def test_clips_by_time_take_the_nearest_frames(tmp_path, fps, frames):
    milliseconds = np.cumsum(np.random.default_rng(3).choice([20, 33, 40], 150)).tolist()
    info = probe(write_video(tmp_path / "a.mkv", 150, milliseconds=milliseconds))
    times = np.array(milliseconds) / 1000
    starts = clip_starts(info, frames, 1, fps)
    previous = -1
    for start in starts:
        indices = clip_indices(info, start, frames, 1, fps)
        wanted = times[start] + np.arange(frames) / fps
        distances = np.abs(times[None] - wanted[:, None])
        np.testing.assert_allclose(distances[np.arange(frames), indices], distances.min(1), atol=1e-9)
        assert indices[0] > previous and (np.diff(indices) > 0).all()
        previous = indices[-1]
    assert len(starts) >= int(times[-1] * fps / frames) - 1


def test_by_time_at_the_own_rate_no_frame_is_left_over(sample):
    assert clip_starts(probe(str(sample)), 8, 1, 25).tolist() == [0, 8, 16, 24, 32]


def test_a_video_slower_than_asked_is_skipped_and_gaps_are_left_out(tree, tmp_path):
    root = tree("slow.mp4")
    with pytest.raises(ValueError, match="it has 25 frames per second, fewer than the requested 30"):
        Folder(str(root), 8, 24, fps=30)
    milliseconds = np.arange(60) * 40
    milliseconds[25:] += 1000  # the content is static for a second
    info = probe(write_video(tmp_path / "still.mkv", 60, rate=25, milliseconds=milliseconds.tolist()))
    for start in (starts := clip_starts(info, 5, 1, 12.5)):
        assert (np.diff(clip_indices(info, start, 5, 1, 12.5)) == 2).all(), "a clip bridges the gap"
    assert len(starts) == 5


def test_short_videos_are_skipped_and_named(tree, tmp_path):
    root = tree("a.mp4", "b.mp4")
    write_video(root / "short.mp4", 7)
    train, _ = both(root)
    assert train.skipped == [("short.mp4", "it has 7 of the 8 frames that a clip of 8 at stride 1 needs")]
    with pytest.raises(
        ValueError, match="none of 3 files .* the longest is a.mp4: it has 40 of the 61 frames that a clip"
    ):
        Folder(str(root), 16, 24, stride=4)
    with pytest.raises(
        ValueError, match=r"it has 1.6 of the 3.2 seconds that a clip of 16 frames at 5 per second needs"
    ):
        Folder(str(root), 16, 24, fps=5)


@pytest.mark.parametrize("stride, fps", [(1, 0), (3, 0), (1, 10)])
def test_clips_of_one_keyframe_are_decoded_in_one_pass(tmp_path, monkeypatch, stride, fps):
    (tmp_path / "videos").mkdir()
    for name, options in {"a.mp4": {"g": "30", "bf": "3"}, "b.avi": {"bf": "2"}, "c.mkv": {"g": "500"}}.items():
        write_video(tmp_path / "videos" / name, 100, **options)
    settings = {"path": str(tmp_path / "videos"), "frames": 4, "resolution": 24, "stride": stride, "fps": fps}
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "KEPT_BYTES", 0)
        expected = [clip["video"] for clip in Folder(**settings)]
    passes = []
    decode = video_module._decode
    monkeypatch.setattr(video_module, "_decode", lambda *args: passes.append(args) or decode(*args))
    folder = Folder(**settings)
    with ThreadPoolExecutor(4) as pool:
        for index, clip in pool.map(lambda index: (index, folder[index]["video"]), [*range(len(folder))] * 2):
            np.testing.assert_array_equal(clip, expected[index])
            clip[:] = 0  # the next reader gets its own
    assert len(folder.videos) == 2 and len(passes) <= sum(len(info.keyframes) or 1 for info in folder.videos)


def test_a_damaged_clip_does_not_spoil_the_others_of_its_pass(tmp_path):
    file = tmp_path / "a.mp4"
    write_video(file, 120, noise=60, layout={"movflags": "faststart"}, g="120", b="2M")
    sound = [clip["video"] for clip in Folder(str(tmp_path), 4, 48)]
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes(5000) + data[len(data) // 2 + 5000 :])
    damaged = Folder(str(tmp_path), 4, 48)
    read = []
    for index in range(len(sound)):
        try:
            np.testing.assert_array_equal(damaged[index]["video"], sound[index])
        except DamagedClip:
            break
        read.append(index)
    assert 8 < len(read) < 22


# ---- which part


@pytest.mark.parametrize("holdout, expected", [(0.1, 1), (0.34, 3), (0.5, 5), (0.001, 1), (0.999, 9)])
def test_a_share_of_the_files_is_held_out(tree, holdout, expected):
    root = tree(*(f"{number}.mp4" for number in range(10)))
    train, held_out = both(root, holdout=holdout)
    assert len(used(held_out)) == expected and sorted(used(train) + used(held_out)) == sorted(os.listdir(root))
    assert used(Folder(str(root), 8, 24, split="eval", holdout=holdout)) == used(held_out)


def test_what_is_held_out_depends_on_names_only(tree):
    names = [f"{number}.mp4" for number in range(20)]
    before = set(used(both(tree(*names), holdout=0.3)[1]))
    assert before not in (set(names[:6]), set(names[-6:]), set(sorted(names)[:6]), set(sorted(names)[-6:]))
    assert before == set(used(both(tree(*names, top="elsewhere"), holdout=0.3)[1]))
    assert len(before - set(used(both(tree("new.mp4"), holdout=0.3)[1]))) <= 1


@pytest.mark.parametrize("evaluation", ["val", "valid", "validation", "test", "eval"])
def test_folders_for_the_parts_are_taken_as_they_are(tree, evaluation):
    train, held_out = both(tree("train/cats/a.mp4", "train/dogs/b.mp4", f"{evaluation}/cats/c.mp4", "extra/d.mp4"))
    assert used(train) == ["train/cats/a.mp4", "train/dogs/b.mp4"] and used(held_out) == [f"{evaluation}/cats/c.mp4"]
    assert train.classes == held_out.classes == ["cats", "dogs"]
    assert train.skipped == [("extra/d.mp4", "it is outside of the folders for training and for evaluation")]


def test_a_train_folder_alone_is_split_and_is_no_class(tree):
    train, held_out = both(tree("train/cats/a.mp4", "train/dogs/b.mp4"))
    assert train.classes == ["cats", "dogs"] and len(used(train)) == len(used(held_out)) == 1


@pytest.mark.parametrize("train, evaluation", [("Train", "Test"), ("training", "validation"), ("train_256", "val_256")])
def test_parts_may_be_named_in_any_of_the_usual_ways(tree, train, evaluation):
    root = tree(f"{train}/cats/a.mp4", f"{evaluation}/cats/b.mp4", f"{train}/dogs/c.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_source, held_out = both(root)
    assert used(train_source) == [f"{train}/cats/a.mp4", f"{train}/dogs/c.mp4"] and used(held_out) == [
        f"{evaluation}/cats/b.mp4"
    ]
    assert train_source.classes == ["cats", "dogs"]


@pytest.mark.parametrize(
    "names, classes, named",
    [
        (["train/a.mp4", "plane/b.mp4"], ["plane", "train"], "train"),
        (["test/a.mp4", "plane/b.mp4"], ["plane", "test"], "test"),
        (["train_1/a.mp4", "test_2/b.mp4"], ["test_2", "train_1"], "test_2, train_1"),
        (["cats/train/a.mp4", "cats/val/b.mp4", "dogs/train/c.mp4"], ["cats", "dogs"], "train, val"),
    ],
)
def test_folders_named_as_parts_that_are_none_are_warned_of_once(tree, names, classes, named):
    with pytest.warns(UserWarning, match=f"named as parts of a data set, but divided .*: {named}; if they") as caught:
        train, _ = both(tree(*names))
    assert train.classes == classes and len(caught) == 1


def test_every_class_of_several_videos_is_held_out(tree):
    names = [f"{label}/{number}.mp4" for label in "ab" for number in range(7)]
    train, held_out = both(tree(*names, "c/0.mp4"))
    assert Counter(name[0] for name in used(held_out)) == {"a": 1, "b": 1} and train.classes == ["a", "b", "c"]
    assert sorted(used(train) + used(held_out)) == [*names, "c/0.mp4"]


def test_a_part_without_a_usable_video_is_an_error(tree):
    root = tree("train/a.mp4")
    (root / "val").mkdir()
    (root / "val" / "broken.mp4").write_text("no video")
    assert len(Folder(str(root), 8, 24)) == 5
    with pytest.raises(ValueError, match=r"\(eval\) contains no clip"):
        Folder(str(root), 8, 24, split="eval")


def test_the_last_clips_of_a_single_file_are_held_out(tree, caplog):
    train, held_out = both(tree("a.mp4"), holdout=0.4)
    assert [numbers(clip["video"])[0] for clip in train] == [0, 8, 16]
    assert [numbers(clip["video"])[0] for clip in held_out] == [24, 32]
    with caplog.at_level("WARNING", logger="absl"):
        train, held_out = both(tree("a.mp4"), frames=40)
    assert len(train) == len(held_out) == 1 and caplog.text.count("There is only one clip, in a.mp4") == 1


# ---- captions


def test_captions_are_texts(tree):
    root = tree("cats/a.mp4", "cats/b.mp4", "cats/c.mp4", "cats/d.mp4")
    captions = {"cats/a.mp4": 'a "cat", asleep', "cats/c.mp4": "деревня", "cats/d.mp4": "", "cats/e.mp4": "gone"}
    (root / "captions.jsonl").write_text("\n".join(json.dumps({"file": f, "text": t}) for f, t in captions.items()))
    with pytest.warns(UserWarning) as caught:
        folders = both(root)
    texts = {}
    for folder in folders:
        texts |= {used(folder)[number]: str(folder[place]["text"]) for place, (number, _) in enumerate(folder.clips)}
    assert texts == {**dict(list(captions.items())[:3]), "cats/b.mp4": "cats", "cats/d.mp4": "cats"}
    assert [str(each.message) for each in caught] == [
        f"videos in {root} without a caption: 2 of 4, which get the name of their class: cats/b.mp4, cats/d.mp4",
        f"captions in {root} of videos that are not there: 1: cats/e.mp4",
    ]


def test_captions_for_other_names_are_answered_with_the_nearest(tree):
    root = tree(*(f"{number}.mp4" for number in range(12)))
    (root / "captions.csv").write_text("file,text\n" + "".join(f"{number},x\n" for number in range(12)))
    with pytest.warns(UserWarning) as caught:
        train, _ = both(root)
    first, second = (str(each.message) for each in caught)
    assert "12 of 12, which get an empty text: 0.mp4, 1.mp4," in first and first.endswith("9.mp4, and 2 more")
    assert second.endswith("not there: 12: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more; the nearest to the first is 0.mp4")
    assert set(train.texts) == {""}


# ---- the index


def test_a_second_look_probes_only_what_has_changed(tree, cache, monkeypatch):
    root = tree("a.mp4", "b.mp4", "c.mp4")
    first = build_index(str(root), True)
    probed = []
    monkeypatch.setattr(
        index_module, "probe", lambda path, decode: probed.append(os.path.basename(path)) or probe(path)
    )
    again = build_index(str(root), True)
    assert probed == [] and list(again.videos) == list(first.videos)
    for name, info in first.videos.items():
        for field in info.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(again.videos[name], field), getattr(info, field))
    write_video(root / "b.mp4", 20)
    (root / "c.mp4").unlink()
    tree("d.mp4")
    changed = build_index(str(root), True)
    assert probed == ["b.mp4", "d.mp4"]
    assert {name: len(info.pts) for name, info in changed.videos.items()} == {"a.mp4": 40, "b.mp4": 20, "d.mp4": 40}
    os.utime(root / "a.mp4", ns=(1, 1))
    probed.clear()
    build_index(str(root), True)
    assert probed == ["a.mp4"]
    assert len(list(cache.iterdir())) == 1  # no leftover of the writing


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "flipped", "other_format", "too_short"])
def test_a_damaged_cache_is_rebuilt(tree, cache, damage):
    root = tree("a.mp4", "b.mp4")
    build_index(str(root), True)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[len(data) // 3] ^= 255
    elif damage in ("other_format", "too_short"):
        with np.load(file) as content:
            arrays = dict(content)
        if damage == "too_short":
            arrays["pts"] = arrays["pts"][:-5]
        else:
            arrays["text"] = np.frombuffer(b'{"format": 0, "videos": 7}', np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        data = bytearray(buffer.getvalue())
    else:
        data = {"truncated": data[: len(data) // 2], "garbage": bytearray(b"garbage" * 99), "empty": bytearray()}[
            damage
        ]
    file.write_bytes(data)
    assert [len(info.pts) for info in build_index(str(root), True).videos.values()] == [40, 40]
    with np.load(file, allow_pickle=False) as content:  # and it is whole again
        assert len(content["pts"]) == 80


def test_without_a_cache_folder_it_works_with_one_warning(tree, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level("WARNING", logger="absl"):
        assert len(build_index(str(tree("a.mp4", "b.mp4")), True).videos) == 2
    assert caplog.text.count("cannot be cached") == 1


def test_progress_is_shown_when_it_takes_long(monkeypatch, capsys):
    clock = iter(np.arange(0, 100, 4.0))
    monkeypatch.setattr(index_module.time, "monotonic", lambda: float(next(clock)))
    assert list(in_parallel(str, range(6), 1, "indexed")) == [(number, str(number)) for number in range(6)]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "indexed 1 of 6 files, 0 files/s, 20 s left" and lines[-1].startswith("indexed 6 of 6 files")
    assert len(lines) == 3  # a log file gets a line every 10 seconds, and the last one
    monkeypatch.undo()
    list(in_parallel(str, range(6), 1, "indexed"))
    assert capsys.readouterr().err == ""


def test_an_interrupt_does_not_wait_for_the_rest():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.01 * bool(item))  # without a rest all may be done before the first is even looked at

    with pytest.raises(KeyboardInterrupt):
        for item, _ in in_parallel(work, range(10_000), 1, "indexed"):
            if item == 0:
                raise KeyboardInterrupt
    assert len(begun) < 10_000


def test_training_names_ten_of_the_files_that_it_leaves_out(tree):
    root = tree("a.mp4", "b.mp4")
    for number in range(12):
        (root / f"bad\n{number}.mp4").write_bytes(b"")
    options = {"name": "folder", "path": str(root), "frames": 8, "resolution": 24, "holdout": 0.5}
    with pytest.warns(UserWarning, match=r"^12 files are left out: bad\\n0.mp4 \(the file is empty \(0 by") as caught:
        for split in ("train", "eval"):
            make_source(options, split)
    (message,) = (str(each.message) for each in caught)
    assert message.count("is empty") == 10 and message.endswith(", and 2 more") and "\n" not in message


def test_a_digest_tells_what_a_folder_holds_wherever_it_lies(tree, tmp_path):
    root = tree("cats/a.mp4", "cats/b.mp4", "dogs/c.mp4", "dogs/d.mp4")
    digest = Folder(str(root), 8, 24).sha256
    assert Folder(f"{root}/", 8, 24).sha256 == digest == Folder(str(root), 8, 24).sha256
    os.rename(root, tmp_path / "moved")
    root = tmp_path / "moved"
    assert Folder(str(root), 8, 24).sha256 == digest
    others = {Folder(str(root), 8, 24, split="eval").sha256, Folder(str(root), 4, 24).sha256}
    (root / "captions.csv").write_text(
        "file,text\n" + "".join(f"cats/{name}.mp4,x\ndogs/{name}.mp4,y\n" for name in "abcd")
    )
    with pytest.warns(UserWarning, match="not there: 4"):
        others.add(Folder(str(root), 8, 24).sha256)
    (root / "captions.csv").unlink()
    os.rename(root / "dogs", root / "wolves")
    others.add(Folder(str(root), 8, 24).sha256)
    assert len(others - {digest}) == 4


# ---- errors


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"frames": 0}, "frames must be a whole number of at least 1, not 0"),
        ({"frames": 2.5}, "frames must be a whole number"),
        ({"resolution": 0}, "resolution must be a whole number of at least 1, not 0"),
        ({"stride": -1}, "stride must be a whole number of at least 1, not -1"),
        ({"fps": -1}, "fps must be 0 .use the stride. or more"),
        ({"fps": float("nan")}, "fps must be 0"),
        ({"split": "test"}, 'split is "test", expected one of train, eval'),
        ({"holdout": 0}, "holdout is the share of files .* between 0 and 1, not 0"),
        ({"holdout": 1}, "holdout is the share"),
        ({"path": ""}, "is missing: set path"),
        ({"path": None}, "is missing: set path"),
        ({"path": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"path": __file__}, "is a file, not a folder of videos"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(tree, settings, message):
    settings = {"path": str(tree("a.mp4")), "frames": 8, "resolution": 24} | settings
    with pytest.raises(ValueError, match=message) as caught:
        Folder(**settings)
    assert "\n" not in str(caught.value)


def test_a_folder_without_videos_says_what_counts(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.txt").write_text("")
    with pytest.raises(
        ValueError,
        match=r"no video in .*: searched 2 folders and found 1 .txt; videos end in .mp4 .*images in .jpg",
    ):
        Folder(str(tmp_path), 8, 24)


def test_the_source_travels_to_worker_processes(tree):
    folder = both(tree("a.mp4", "b.mp4"))[0]
    copy = pickle.loads(pickle.dumps(folder))
    np.testing.assert_array_equal(copy[1]["video"], folder[1]["video"])
    assert copy.summary() == folder.summary()


# ---- real damage


def _bad_entries() -> list[dict]:
    if not ARCHIVE.is_file():
        return []
    with tarfile.open(ARCHIVE) as tar:
        return json.load(tar.extractfile("bad/BAD.json"))


@pytest.fixture(scope="session")
def bad(tmp_path_factory) -> Path:
    if not ARCHIVE.is_file():
        pytest.skip("needs shared/data/bad_videos.tar.gz")
    folder = tmp_path_factory.mktemp("bad")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter=lambda member, path: member)  # the links within are part of the test
    return folder / "bad"


FILES = [entry for entry in _bad_entries() if not entry["file"].endswith("/")]


@pytest.mark.parametrize("entry", FILES or [None], ids=lambda entry: ascii(entry and entry["file"])[1:40])
def test_each_bad_file_gets_what_it_deserves(bad, tmp_path, sample, entry):
    root = tmp_path / "videos"
    root.mkdir()
    name = os.path.basename(entry["file"])
    shutil.copy(bad / entry["file"], root / name)
    shutil.copy(sample, root / "sound.mp4")
    folder = both(root, frames=16)
    reasons = dict(folder[0].skipped)
    observed = entry["observed_pyav"]
    names = used(folder[0]) + ([] if len(folder[0].videos) + len(folder[1].videos) == 1 else used(folder[1]))
    if name.startswith("."):
        assert "sound.mp4" in names and name not in names and not reasons
    elif "error" in observed or not observed["frames"]:
        assert set(names) == {"sound.mp4"} and any(
            word in reasons[name] for word in ("no video", "cannot read", "empty", "no frame")
        )
    elif observed["frames"] < 16:
        assert set(names) == {"sound.mp4"} and reasons[name].startswith(f"it has {observed['frames']} of the 16 frames")
    else:
        assert set(names) == {"sound.mp4", name} and not reasons
        clips, refused = _read_all(next(part for part in folder if name in used(part)))
        if entry["expect"].startswith("GOOD"):
            assert clips == observed["frames"] // 16 and not refused
        else:
            assert (
                clips >= observed["frames"] // 16 - 1
                and observed["frames"] - 2 <= len(probe(str(root / name), True).pts) <= observed["frames"]
            )


def _read_all(folder: Folder) -> tuple[int, int]:
    read = refused = 0
    for place in range(len(folder)):
        try:
            video = folder[place]["video"]
        except DamagedClip:
            refused += 1
        else:
            assert video.shape[0] == 16 and min(video.shape[1:3]) == 24
            read += 1
    return read, refused


def test_bad_folders(bad):
    for name in ("dir_no_videos", "dir_empty"):
        with pytest.raises(ValueError, match=f"no video in .*{name}: searched"):
            Folder(str(bad / name), 16, 24)
    with pytest.raises(
        ValueError,
        match="none of 4 files .* the longest is three_frames.mp4: it has 3 of the 16 frames.*1 x it contains no video",
    ):
        Folder(str(bad / "dir_all_bad"), 16, 24)
    train, held_out = both(bad / "dir_symlinks", frames=16)
    assert used(train) == used(held_out) == ["a/ok.mp4"]
    train, held_out = both(bad / "dir_some_bad", frames=16)
    assert len(used(train)) + len(used(held_out)) == 8 and train.classes == ["cls_a", "cls_b"]
    assert train.skipped == [("cls_a/zero.mp4", "the file is empty (0 bytes)")] and train.index.foreign == {".txt": 1}
    assert _read_all(train)[0] + _read_all(held_out)[0] >= 14
    assert used(both(bad / "dir_dirname.mp4", frames=16)[0]) == ["inner.mp4"]


def test_no_damaged_file_ends_a_run(bad):
    train, held_out = both(bad, frames=16)
    batch_size = 8
    with train_batches(train, batch_size, 24, seed=0, threads=4) as batches:
        for _ in range(2 * len(train) // batch_size):
            assert next(batches)["video"].shape == (8, 16, 24, 24, 3)
    assert {os.path.basename(path) for path in batches.damaged.files} >= {"bit_damage.mp4", "corrupted_real.mp4"}
    counted = sum(batch["mask"].sum() for batch in eval_batches(train, batch_size, 24, len(train), threads=4))
    assert counted == _read_all(train)[0] < len(train)
