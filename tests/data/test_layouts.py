"""Folders in the layouts of translation: what is a pair, a side, a domain, and what is none."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from counting import numbers, picture, write_video
from PIL import Image

from jaxvid.data import eval_batches, layouts, make_source, train_batches
from jaxvid.data import folder as folder_module
from jaxvid.data.__main__ import main
from jaxvid.data.attributes import read_list
from jaxvid.data.index import build_index
from jaxvid.data.layouts import LAYOUTS, SIDES, TwoSides, make_folder, recognized
from jaxvid.data.pipeline import is_paired
from jaxvid.data.records import Records
from jaxvid.data.tokens import Crops


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An own cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """clip(offset): a video of 12 frames, numbered from the offset on."""
    folder, made = tmp_path_factory.mktemp("clips"), {}

    def make(offset: int = 0) -> str:
        if offset not in made:
            pictures = folder / f"{offset}.gif"
            frames = [Image.fromarray(picture(offset + number)) for number in range(12)]
            frames[0].save(pictures, save_all=True, append_images=frames[1:], duration=40)
            made[offset] = str(pictures)
        return made[offset]

    return make


@pytest.fixture
def tree(tmp_path, clip):
    """tree({"a/b.png": 7, "c.gif": 20}): pictures of these numbers, and videos that begin with them; their folder."""

    def make(files: dict[str, int], top: str = "data", size: tuple[int, int] = (64, 48)) -> Path:
        for name, number in files.items():
            path = tmp_path / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gif":
                shutil.copy(clip(number), path)
            else:
                Image.fromarray(picture(number)).resize(size, Image.Resampling.NEAREST).save(path)
        return tmp_path / top

    return make


def both(root: Path, layout: str, frames: int = 1, **settings):
    return tuple(
        make_folder(str(root), frames, 24, split=split, layout=layout, **settings) for split in ("train", "eval")
    )


def used(folder) -> list[str]:
    return [os.path.relpath(info.path, folder.index.root) for info in folder.videos]


def shown(items, key: str) -> list[int]:
    """The number of the first frame of each clip."""
    return [numbers(item[key])[0] for item in items]


def sided(form: str, ending: str, a: int, b: int) -> dict[str, int]:
    """Files of both sides, for training and evaluation: those of A have numbers below 2000."""
    files = {}
    for part, first in (("train", 0), ("test", 1000)):
        for side, count, base in (("A", a, 0), ("B", b, 2000)):
            folder = form.format(part=part, side=side)
            files |= {f"{folder}/{side}x{number}{ending}": base + first + 16 * number for number in range(count)}
    return files


# ---- two sides

FORMS = ["{part}{side}", "{part}_{side}", "{part}/{side}", "{side}/{part}"]


@pytest.mark.parametrize("ending, frames", [(".png", 1), (".gif", 4)])
@pytest.mark.parametrize("form", FORMS)
def test_two_sides_have_any_counts_and_the_smaller_one_repeats(tree, form, ending, frames):
    train, held_out = both(tree(sided(form, ending, 2, 5)), "two_sides", frames)
    clips = 12 // frames if frames > 1 else 1
    assert train.counts() == held_out.counts() == {"A": 2 * clips, "B": 5 * clips}
    assert len(train) == 5 * clips and train.classes == [] and train.paired is False and not train.skipped
    items = list(train)
    inputs, videos = Counter(shown(items, "input")), Counter(shown(items, "video"))
    assert len(inputs) == 2 * clips and max(inputs.values()) - min(inputs.values()) <= 1 and max(inputs) < 2000
    assert len(videos) == 5 * clips and set(videos.values()) == {1} and min(videos) >= 2000
    assert set(shown(held_out, "input")).isdisjoint(inputs) and set(shown(held_out, "video")).isdisjoint(videos)
    for item in items:
        assert item["input"].shape == item["video"].shape == (frames, 24, 32, 3)
        assert item["label"].dtype == np.int32 and str(item["text"]) == ""
    with pytest.raises(IndexError):
        train[len(train)]


def test_sides_of_equal_counts_meet_in_no_order_of_names(tree):
    (train, _) = both(tree(sided("{part}{side}", ".png", 9, 9)), "two_sides")
    distances = {(b - a) // 16 for a, b in zip(shown(train, "input"), shown(train, "video"), strict=True)}
    assert len(distances) > 3


@pytest.mark.parametrize("a, b", [("A", "B"), ("a", "b")])
def test_sides_without_parts_are_divided_by_hash(tree, a, b):
    names = {f"{side}/{number}.png": base + number for side, base in ((a, 0), (b, 100)) for number in range(10)}
    train, held_out = both(tree(names), "two_sides", holdout=0.3)
    assert train.counts() == {"A": 7, "B": 7} and held_out.counts() == {"A": 3, "B": 3}
    assert sorted(used(train) + used(held_out)) == sorted(names)


def test_a_side_may_be_the_frames_of_one_video(tree):
    bases = {"A": 0, "B": 100}
    files = {f"train{side}/{number:03}.png": bases[side] + number for side in bases for number in range(12)}
    train, held_out = both(tree(files), "two_sides", 3)
    assert train.counts() == {"A": 3, "B": 3} and held_out.counts() == {"A": 1, "B": 1}
    assert sorted(shown(train, "input")) == [0, 3, 6] and shown(held_out, "video") == [109]


def test_sides_may_be_the_frames_of_one_video_each(tree):
    files = {f"{side}/{number:03}.png": base + number for side, base in (("A", 0), ("B", 100)) for number in range(12)}
    for layout in ("two_sides", "pairs"):
        train, held_out = both(tree(files), layout, 3)
        assert sorted(shown(train, "input")) == [0, 3, 6] and shown(held_out, "video") == [109]


def test_each_side_has_its_own_crops_and_sizes(tree):
    files = sided("{part}{side}", ".png", 6, 6)
    root = tree({name: 0 for name in files if "B/" in name}, size=(30, 30))
    for name in files:
        if "A/" in name:  # a grid of positions, in red and green
            grid = np.stack([*np.mgrid[:40, :60], np.zeros((40, 60))], -1).astype(np.uint8)
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(4 * grid).save(root / name)
        else:
            grid = np.stack([*np.mgrid[:40, :40], np.zeros((40, 40))], -1).astype(np.uint8)
            Image.fromarray(4 * grid).save(root / name)
    source = make_folder(str(root), 1, 40, layout="two_sides")
    assert source[0]["input"].shape == (1, 40, 60, 3) and source[0]["video"].shape == (1, 40, 40, 3)
    corners = {"input": set(), "video": set()}
    for read in (source, Crops(source, 30, 60)):
        assert read.paired is False
        with train_batches(read, 6, 30, seed=0) as batches:
            for batch in (next(batches) for _ in range(8)):
                for key, seen in corners.items():
                    seen |= {tuple((each[0, 0, 0, :2] // 4).tolist()) for each in batch[key]}
                    assert batch[key].shape == (6, 1, 30, 30, 3)
    assert max(left for _, left in corners["input"]) > 10 >= max(left for _, left in corners["video"])
    with eval_batches(source, 6, 30, 6) as batches:
        batch = next(batches)
    assert (batch["input"][:, 0, 0, 0, :2] == [20, 60]).all() and (batch["video"][:, 0, 0, 0, :2] == 20).all()


# ---- pairs


@pytest.mark.parametrize("ending, frames", [(".png", 1), (".gif", 4)])
@pytest.mark.parametrize("form", FORMS)
def test_pairs_match_by_name_and_never_by_position(tree, form, ending, frames):
    files = {}
    for part, stems in (("train", ("10", "9", "b/1")), ("test", ("3",))):
        for number, stem in enumerate(stems):
            files[f"{form.format(part=part, side='A')}/{stem}{ending}"] = 100 + number + 20 * (part == "test")
            files[f"{form.format(part=part, side='B')}/{stem}{ending}"] = 200 + number + 20 * (part == "test")
    files[f"{form.format(part='train', side='A')}/00{ending}"] = 7  # shifts all positions
    train, held_out = both(tree(files), "pairs", frames)
    for folder, count in ((train, 3), (held_out, 1)):
        items = list(folder)
        assert len(items) == count * (12 // frames if frames > 1 else 1)
        assert {b - a for a, b in zip(shown(items, "input"), shown(items, "video"), strict=True)} == {100}
        assert all(item["input"].shape == item["video"].shape == (frames, 24, 32, 3) for item in items)
    assert train.skipped == [(f"{form.format(part='train', side='A')}/00{ending}", "side B has no file of its name")]
    assert train.matched == "4, of 5 of A and 4 of B" and train.classes == ["b", "none"]


@pytest.mark.parametrize(
    "a, b",
    [
        ("{}.png", "{}.bmp"),
        ("{}.gif", "{}.gif"),
        ("{}_A.png", "{}_B.png"),
        ("{}_rgb.gif", "{}_flow.gif"),
        ("{}.png", "{}-label.png"),
        ("{}_street_rgb.png", "{}_street_semantic_map.bmp"),
        ("x_{}_leftImg.png", "x_{}.png"),
        ("{}_c01_rgb.png", "{}_c01_flow.png"),
    ],
)
def test_partners_may_have_other_endings_and_suffixes(tree, a, b):
    stems = ("g04", "g05", "g15")
    files = {f"A/{a.format(stem)}": 16 * place for place, stem in enumerate(stems)}
    files |= {f"B/{b.format(stem)}": 16 * place + 100 for place, stem in enumerate(stems)}
    for folder in both(tree(files), "pairs", 4 if a.endswith(".gif") else 1):
        assert not folder.skipped and {
            b - a for a, b in zip(shown(folder, "input"), shown(folder, "video"), strict=True)
        } == {100}


def test_a_single_pair_with_suffixes_is_one(tree):
    train, _ = both(tree({"A/v_c01_rgb.gif": 0, "B/v_c01_flow.gif": 100}), "pairs", 4)
    assert shown(train, "input") == [0, 4] and shown(train, "video") == [100, 104]
    with pytest.raises(ValueError, match=r"no pair of the sides .* A/cat_1.png \(side B has no file of its name\)"):
        both(tree({"A/cat_1.png": 0, "B/cat_2.png": 1}, top="numbers"), "pairs")


def test_folders_of_frames_are_partners_of_videos(tree):
    files = {f"A/walk.v2/{number:03}.png": number for number in range(12)} | {"B/walk.v2.gif": 100}
    train, held_out = both(tree(files | {"A/run.gif": 50, "B/run.gif": 150}), "pairs", 4)
    for folder in (train, held_out):
        assert {b - a for a, b in zip(shown(folder, "input"), shown(folder, "video"), strict=True)} == {100}
    assert sorted(used(train) + used(held_out)) == ["B/run.gif", "B/walk.v2.gif"]


def test_a_split_by_hash_keeps_partners_together(tree):
    files = {f"A/{n}.png": n for n in range(20)} | {f"B/{n}.bmp": 100 + n for n in range(20)}
    train, held_out = both(tree(files), "pairs", holdout=0.3)
    seen = [set(zip(shown(folder, "input"), shown(folder, "video"), strict=True)) for folder in (train, held_out)]
    assert [len(pairs) for pairs in seen] == [14, 6] and seen[0] | seen[1] == {(n, 100 + n) for n in range(20)}


def test_partners_have_one_crop_and_sizes_of_one_aspect(tree):
    root = tree({f"B/{n}.png": 1234 + n for n in range(4)}, size=(854, 480))
    tree({f"A/{n}.png": 1234 + n for n in range(4)}, size=(192, 108))
    source = make_folder(str(root), 1, 300, layout="pairs", holdout=0.3)  # 300x534 beside 300x533
    assert not source.skipped and source[0]["input"].shape == source[0]["video"].shape == (1, 300, 533, 3)
    for n in range(4):
        Image.fromarray(np.asarray(Image.open(root / f"B/{n}.png"))).save(root / f"A/{n}.png")
    source = make_folder(str(root), 1, 240, layout="pairs", holdout=0.3)
    with train_batches(source, 9, 200, seed=0) as batches:
        batch = next(batches)
    np.testing.assert_array_equal(batch["input"], batch["video"])
    assert len({video.tobytes() for video in batch["video"]}) > 4


def test_partners_that_differ_are_skipped_and_named(tree, tmp_path):
    root = tree({f"{side}/{n}.gif": 0 for side in "AB" for n in range(2)} | {"B/alone.gif": 0, "extra.gif": 0})
    for name, count, rate in (("count", 20, 25), ("rate", 24, 50)):
        write_video(root / "A" / f"{name}.mp4", 24, rate=25)
        write_video(root / "B" / f"{name}.mp4", count, rate=rate)
    for side, size in (("A", (64, 48)), ("B", (48, 64))):
        Image.new("RGB", size).save(root / side / "aspect.png")
    (root / "A" / "empty.gif").write_bytes(b"")
    shutil.copy(root / "B" / "0.gif", root / "B" / "empty.gif")
    shutil.copy(root / "B" / "0.gif", root / "B" / "1.apng.gif")
    write_video(root / "B" / "0.mp4", 12)
    train, held_out = both(root, "pairs", 4)
    found = dict(train.skipped)
    assert found["B/count.mp4"] == "it has 20 frames, and its partner A/count.mp4 has 24"
    assert found["B/rate.mp4"] == "it has 50 frames per second, and its partner A/rate.mp4 has 25"
    assert found["B/aspect.png"] == "it is 48x64, and its partner A/aspect.png is 64x48: their aspect ratios differ"
    assert found["B/alone.gif"] == found["B/1.apng.gif"] == "side A has no file of its name"
    assert found["A/empty.gif"] == "the file is empty (0 bytes)"
    assert found["B/empty.gif"] == "its partner A/empty.gif cannot be used"
    assert found["extra.gif"] == "it is outside of the folders of the sides A and B"
    assert found["B/0.mp4"] == "B/0.gif has the same name but for the ending"
    assert len(found) == len(train.skipped) == 9 and found == dict(held_out.skipped)
    assert sorted(used(train) + used(held_out)) == ["B/0.gif", "B/1.gif"]
    options = {"name": "folder", "path": str(root), "frames": 4, "resolution": 24, "holdout": 0.1, "layout": "pairs"}
    with pytest.warns(UserWarning, match="^9 files are left out: "):
        make_source(options, "train")


def test_a_digest_tells_the_inputs_too(tree, tmp_path):
    root = tree({f"{side}/{n}.png": n for side in "AB" for n in range(4)})
    digests = {layout: {folder.sha256 for folder in both(root, layout)} for layout in ("pairs", "two_sides")}
    moved = tree({f"{side}/{n}.png": n for side in "AB" for n in range(4)}, top="moved")
    assert digests == {layout: {folder.sha256 for folder in both(moved, layout)} for layout in digests}
    for n in range(4):
        Image.open(moved / f"A/{n}.png").resize((128, 96)).save(moved / f"A/{n}.png")
    assert all(digests[layout].isdisjoint({each.sha256 for each in both(moved, layout)}) for layout in digests)


def test_pairs_are_kept_where_both_sides_fit(tree, monkeypatch):
    root = tree({f"{side}/{n}.png": n for side in "AB" for n in range(4)})
    size = 3 * 3 * 24 * 32  # of the three videos for training
    for room, kept in ((2 * size, True), (2 * size - 1, False)):
        monkeypatch.setattr(folder_module, "KEPT_BYTES", room)
        source, _ = both(root, "pairs")
        assert (source._kept is not None) == kept
        assert shown(source, "input") == shown(source, "video") == [int(name[2]) for name in used(source)]


def test_captions_name_files_as_they_are_on_the_disk(tree):
    root = tree({f"train{side}/{n}.png": n for side in "AB" for n in range(3)})
    (root / "captions.csv").write_text("file,text\n" + "".join(f"trainB/{n}.png,a wall {n}\n" for n in range(3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, held_out = both(root, "pairs")
    assert sorted(train.texts + held_out.texts) == ["a wall 0", "a wall 1", "a wall 2"]
    (root / "captions.csv").write_text("file,text\ntrainB/0.png,a wall\n")
    with pytest.warns(UserWarning, match="without a caption: 2 of 3, which get an empty text: trainB/1.png, trainB/2"):
        both(root, "pairs")


# ---- two pictures in one


def double(left: int, right: int, width: int = 128) -> Image.Image:
    whole = np.concatenate([picture(left, (255, 0, 0)), picture(right, (0, 255, 0))], axis=1)
    return Image.fromarray(whole).resize((width, 48), Image.Resampling.NEAREST)


@pytest.mark.parametrize("ending, frames", [(".png", 1), (".gif", 3)])
def test_one_file_is_cut_in_half(tmp_path, ending, frames):
    for n in range(6):
        images = [double(20 * n + t, 200 + 20 * n + t) for t in range(6 if frames > 1 else 1)]
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        images[0].save(tmp_path / "data" / "train" / f"{n}{ending}", save_all=frames > 1, append_images=images[1:])
    if frames > 1:
        write_video(tmp_path / "data" / "train" / "short.mp4", 2)
    else:
        double(0, 0, 127).save(tmp_path / "data" / "train" / "odd.png")
    train, held_out = both(tmp_path / "data", "side_by_side", frames)
    for item in (*train, *held_out):
        assert item["input"].shape == item["video"].shape == (frames, 24, 32, 3)
        left, right = numbers(item["input"]), numbers(item["video"])
        assert left == list(range(left[0], left[0] + frames)) and right == [200 + number for number in left]
    assert len(train) + len(held_out) == 6 * (2 if frames > 1 else 1) and len(train.skipped) == 1
    if frames == 1:
        reason = "its width of 127 pixels is odd, and that of two pictures side by side is even"
        assert train.skipped == [("train/odd.png", reason)]


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_halves_do_not_mix_along_the_seam(tmp_path, ending):
    whole = np.zeros((15, 42, 3), np.uint8)  # to be enlarged, by a kernel that is wider than a pixel
    whole[:, :21, 0] = whole[:, 21:, 1] = 255
    Image.fromarray(whole).save(tmp_path / f"a{ending}")
    item = make_folder(str(tmp_path), 1, 24, layout="side_by_side")[0]
    assert item["input"].shape == item["video"].shape == (1, 24, 34, 3)
    assert np.ptp(item["input"], axis=(0, 1, 2)).max() == np.ptp(item["video"], axis=(0, 1, 2)).max() == 0


def test_each_half_has_the_short_side_whatever_its_aspect(tmp_path):
    for n, size in enumerate([(90, 60), (200, 60), (302, 101)]):
        Image.new("RGB", size).save(tmp_path / f"{n}.png")
    shapes = {item["video"].shape[1:3] for folder in both(tmp_path, "side_by_side") for item in folder}
    assert shapes == {(32, 24), (24, 40), (24, 36)}


def test_halves_of_a_rotated_video_are_upright(tmp_path):
    write_video(tmp_path / "a.mp4", 8, rotation=90)  # stored as 64x48, seen as 48x64
    whole = make_folder(str(tmp_path), 1, 48)[0]["video"]
    item = make_folder(str(tmp_path), 1, 24, layout="side_by_side")[0]
    assert whole.shape == (1, 64, 48, 3) and item["input"].shape == (1, 64, 24, 3)
    np.testing.assert_array_equal(np.concatenate([item["input"], item["video"]], axis=2), whole)


# ---- direction


def test_a_direction_swaps_the_sides_of_every_layout_that_has_two(tree, tmp_path):
    names = [f"{part}{side}/{n}.png" for part in ("train", "val") for side in SIDES for n in range(3)]
    root = tree({name: 16 * number for number, name in enumerate(names)})
    double = tmp_path / "double"
    double.mkdir()
    for n in range(3):
        Image.fromarray(np.concatenate([picture(n), picture(200 + n)], axis=1)).save(double / f"{n}.png")
    synthetic = {"name": "synthetic", "resolution": 24}
    command = [str(double), "--frames", "1", "--resolution", "24", "--layout", "side_by_side"]
    assert main([*command, "--convert", str(tmp_path / "records")]) == 0
    for fields in (
        {"layout": "two_sides", "path": str(root)},
        {"layout": "pairs", "path": str(root)},
        {"layout": "side_by_side", "path": str(double), "holdout": 0.5},
        {"name": "records", "path": str(tmp_path / "records")},
        synthetic,
        synthetic | {"layout": "two_sides"},
    ):
        options = {"name": "folder", "frames": 1, "resolution": 24, "holdout": 0.1} | fields
        for split in ("train", "eval"):
            one, other = make_source(options, split), make_source(options | {"direction": "BtoA"}, split)
            a, b = one[0], pickle.loads(pickle.dumps(other))[0]
            np.testing.assert_array_equal(a["input"], b["video"])
            np.testing.assert_array_equal(a["video"], b["input"])
            assert a["label"] == b["label"] and "truth" not in b and (a["input"] != b["input"]).any()
            assert (is_paired(one), one.classes, len(one)) == (other.paired, other.classes, len(other))
            assert other.summary() == f"{one.summary()}, from B to A"
            assert other.sha256 not in ("", getattr(one, "sha256", ""))  # so that tokens of A are none of B
            assert other.sha256 == make_source(options | {"direction": "BtoA"}, split).sha256


def test_a_direction_needs_two_sides(tree):
    root = tree({f"{domain}/{n}.png": n for domain in ("cat", "dog") for n in range(3)})
    options = {"name": "folder", "path": str(root), "frames": 1, "resolution": 24, "holdout": 0.1}
    for layout in ("classes", "domains"):
        with pytest.raises(ValueError, match="data.direction is 'BtoA', and folder .* has no two sides: leave it at"):
            make_source(options | {"layout": layout, "direction": "BtoA"}, "train")
    with pytest.raises(ValueError, match='data.direction is "BtoC", expected one of AtoB, BtoA'):
        make_source(options | {"direction": "BtoC"}, "train")


# ---- domains


@pytest.mark.parametrize("ending, frames", [(".png", 1), (".gif", 4)])
def test_domains_are_drawn_equally_often_in_training(tree, ending, frames):
    counts = {"cat": 7, "dog": 2, "fox": 3}
    files = {
        f"{part}/{domain}/{n}{ending}": base + 160 * place + 16 * n
        for part, base in (("train", 0), ("val", 2000))
        for place, (domain, count) in enumerate(counts.items())
        for n in range(count)
    }
    train, held_out = both(tree(files), "domains", frames)
    clips = 12 // frames if frames > 1 else 1
    assert train.classes == list(counts) and len(train) == 3 * 7 * clips and len(held_out) == 12 * clips
    assert train.counts() == {name: count * clips for name, count in counts.items()} == held_out.counts()
    items = list(train)
    assert Counter(train.classes[item["label"]] for item in items) == dict.fromkeys(counts, 7 * clips)
    seen = Counter((int(item["label"]), numbers(item["video"])[0]) for item in items)
    assert len(seen) == 12 * clips
    for label in range(3):
        often = [number for (domain, _), number in seen.items() if domain == label]
        assert max(often) - min(often) <= 1
    assert not any("input" in item for item in items) and {str(item["text"]) for item in items} == {*counts}


def test_files_beside_domains_are_skipped_and_frames_are_a_domain(tree):
    frames = {f"run/{number}.png": number for number in range(12)}
    train, _ = both(tree(frames | {"walk/a.gif": 0, "walk/b.gif": 0, "c.gif": 0}), "domains", 4)
    assert train.classes == ["run", "walk"] and train.counts() == {"run": 3, "walk": 3}
    assert train.skipped == [("c.gif", "it lies beside the folders of the domains")]


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_bad_domains_are_one_sentence(tree, tmp_path, ending):
    root = tree({f"cat/{n}{ending}": n for n in range(4)})
    settings = {"root": root, "layout": "domains", "frames": 4 if ending == ".gif" else 1}
    with pytest.raises(ValueError, match="has one domain, 'cat', and translation needs two: a sub-folder each"):
        both(**settings)
    for file in (".DS_Store", "notes.txt", "empty/.keep"):  # a folder with no more than these is empty, too
        (root / "dog" / file).parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ValueError, match="the domain 'dog' in .* has no clip: its folder holds none$"):
            both(**settings)
        (root / "dog" / file).touch()
    (root / "dog" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="the domain 'dog' in .* has no clip: dog/a.png: it cannot be opened"):
        both(**settings)
    with pytest.raises(ValueError, match="has no domains: expected a sub-folder each, at"):
        both(tree({f"a{ending}": 0}, top="flat"), "domains", settings["frames"])
    files = {f"{folder}/{n}{ending}": n for folder in ("train/cat", "val/cat", "val/dog", "train/fox") for n in "12"}
    with pytest.raises(ValueError, match="the domain 'dog' in .* has no clip for training"):
        both(tree(dict.fromkeys(files, 0), top="parts"), "domains", settings["frames"])
    (tmp_path / "parts" / "val" / "owl").mkdir()
    with pytest.raises(ValueError, match="the domain 'owl' in .* has no clip: its folder holds none"):
        both(tmp_path / "parts", "domains", settings["frames"])


# ---- attributes

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")


def write_list(path: Path, rows: dict[str, tuple[int, ...]], count: int | None = None, names=(*HAIR, "Male")) -> None:
    if path.suffix == ".csv":
        lines = [",".join(["image_id", *names]), *(",".join([name, *map(str, row)]) for name, row in rows.items())]
    else:
        lines = [str(len(rows) if count is None else count), " ".join(names) + " "]
        lines += [f"{name}  {'  '.join(f'{value:2}' for value in row)}" for name, row in rows.items()]
    path.write_text("\n".join(lines) + "\n")


ROWS = {
    **{f"{n:06}.jpg": (1, -1, -1, 1) for n in range(1, 7)},
    **{f"{n:06}.jpg": (-1, 1, -1, -1) for n in range(7, 10)},
    **{f"{n:06}.jpg": (-1, -1, 1, 1) for n in range(10, 12)},
    "000012.jpg": (-1, -1, -1, 1),
    "000013.jpg": (1, -1, 1, -1),
    "000099.jpg": (1, -1, -1, -1),  # of no picture here
}


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_attr_celeba.csv", "My-Attributes.txt"])
@pytest.mark.parametrize("inner, ending", [("", ".png"), ("img_align_celeba/", ".png"), ("", ".gif")])
@pytest.mark.parametrize("beside", [False, True])
def test_attributes_that_exclude_each_other_are_domains(tree, name, inner, ending, beside):
    root = tree({f"{inner}{n:06}{ending}": n for n in range(1, 15)}, top="celeba/img")
    write_list((root.parent if beside else root) / name, ROWS)
    train, held_out = both(root, "attributes", 4 if ending == ".gif" else 1, attributes=HAIR)
    assert train.classes == list(HAIR) and dict(train.skipped) == dict(held_out.skipped) == {
        f"{inner}000012{ending}": "it has none of the attributes",
        f"{inner}000013{ending}": "it has several of the attributes, Black_Hair, Brown_Hair",
        f"{inner}000014{ending}": f"{name} has no row for it",
    }
    black, blond, brown = range(1, 7), range(7, 10), range(10, 12)
    for item in (*train, *held_out):
        number = numbers(item["video"])[0] if ending == ".png" else None
        group = (black, blond, brown)[item["label"]]
        assert number is None or number in group
        assert str(item["text"]) == HAIR[item["label"]]
    per_clip = 3 if ending == ".gif" else 1
    assert [a + b for a, b in zip(train.counts().values(), held_out.counts().values(), strict=True)] == [
        count * per_clip for count in (6, 3, 2)
    ]
    assert set(Counter(int(item["label"]) for item in train).values()) == {len(train) // 3}


def test_one_attribute_has_its_opposite(tree):
    root = tree({f"{n:06}.png": n for n in range(1, 14)})
    write_list(root / "list_attr_celeba.txt", ROWS)
    train, held_out = both(root, "attributes", attributes=("Male",))
    assert train.classes == ["Male", "not Male"] and not train.skipped
    for item in (*train, *held_out):
        assert item["label"] == (numbers(item["video"])[0] in (7, 8, 9, 13))


def test_attributes_keep_the_parts(tree):
    files = {f"{part}/{n:06}.png": n for part, of in (("train", (1, 2, 7)), ("val", (3, 8))) for n in of}
    root = tree(files)
    write_list(root / "list_attr_celeba.txt", ROWS)
    train, held_out = both(root, "attributes", attributes=HAIR[:2])
    assert used(train) == ["train/000001.png", "train/000002.png", "train/000007.png"]
    assert used(held_out) == ["val/000003.png", "val/000008.png"]


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_attr_celeba.csv"])
def test_without_names_all_attributes_are_a_vector(tree, tmp_path, name, capsys):
    root = tree({f"{n:06}.png": n for n in range(1, 15)})
    write_list(root / name, ROWS)
    train, held_out = both(root, "attributes")
    assert train.attributes == [*HAIR, "Male"] and train.classes == []
    assert dict(train.skipped) == {"000014.png": f"{name} has no row for it"}
    items = [*train, *held_out]
    assert sorted(shown(items, "video")) == list(range(1, 14))
    for item, number in zip(items, shown(items, "video"), strict=True):
        assert item["attributes"].dtype == np.float32
        assert item["attributes"].tolist() == [max(0, value) for value in ROWS[f"{number:06}.jpg"]]
    assert "4 attributes" in train.summary()
    copy = pickle.loads(pickle.dumps(train))
    assert copy.sha256 == train.sha256 and copy[3]["attributes"].tolist() == train[3]["attributes"].tolist()
    command = [str(root), "--frames=1", "--resolution=24", "--layout=attributes", f"--convert={tmp_path / 'records'}"]
    assert main(command) == 0
    records = Records(str(tmp_path / "records"), 1, 24)
    assert records.attributes == train.attributes
    assert Counter(item["attributes"].tobytes() for item in records) == Counter(
        item["attributes"].tobytes() for item in train
    )
    number = shown(train, "video")[0]
    write_list(root / name, ROWS | {f"{number:06}.jpg": (-1, -1, -1, -1)})
    assert both(root, "attributes")[0].sha256 != train.sha256


def test_rows_of_a_list_may_hold_folders():
    assert layouts.attributes_of({"a/1": ["x"], "2": []}, "a/1.png") == ["x"]
    assert layouts.attributes_of({"a/1": ["x"], "2": []}, "b/2.png") == []
    assert layouts.attributes_of({"a/1": ["x"], "2": []}, "b/1.png") is None


def test_bad_lists_are_one_sentence(tree):
    root = tree({f"{n:06}.png": n for n in range(1, 12)})
    file = root / "list_attr_celeba.txt"

    def refused(match: str, attributes=HAIR) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            both(root, "attributes", attributes=attributes)
        assert "\n" not in str(caught.value)

    refused("has no list of attributes: expected list_attr_celeba.txt, or")
    write_list(file, ROWS)
    refused('data.attributes is "Blond", expected one of .*; did you mean Blond_Hair?', ("Black_Hair", "Blond"))
    write_list(file, ROWS, count=200)
    refused("is incomplete: its first line says 200 pictures, and it has rows of 14")
    write_list(file, {name: (1, -1, -1, 1) for name in ROWS})
    refused("the domain 'Blond_Hair' has none of 11 files in")
    refused("the domain 'not Male' has none of 11 files in", ("Male",))
    write_list(file, {f"x{name}": row for name, row in ROWS.items()})
    refused("has a row for none of 11 files .* x000001, x000002, x000003, and the folder has 000001.png")
    write_list(file, ROWS | {"000003.jpg": (1, -1)})
    refused("line 5: expected a file and 4 values that are 1 or -1, found '000003.jpg 1 -1'")
    write_list(file, ROWS | {"000003.jpg": (1, -1, 7, 1)})
    refused("line 5: expected a file and 4 values that are 1 or -1")
    file.write_text("image Male\n1.jpg 1\n")
    refused("line 1: expected the number of pictures, found 'image Male'")
    file.write_bytes(b"1\nMale\n\xff.jpg 1\n")
    refused("is not UTF-8", ("Male",))
    file.write_text("202599\n")
    refused("names the attributes of none, expected different names", ("Male",))
    refused(r"is 'Male, Bald', expected a tuple of names: \('Male', 'Bald'\)$", "Male, Bald")
    refused(r"is 'Male', expected a tuple of names: \('Male',\)$", "Male")
    file.rename(root / "attr.csv").write_text(f"image,Male\n{'x' * 131_073},1\n")
    refused("attr.csv is no CSV file: field larger than field limit", ("Male",))
    (root / "attr.csv").unlink()
    write_list(file, ROWS, names=("Male", "Bald", "Male", "Young"))
    refused("names the attributes Male, Bald, Male, Young, expected different names", ())
    write_list(file, {f"x{name}": row for name, row in ROWS.items()})
    refused("has a row for none of 11 files", ())
    write_list(file, ROWS, count=200)
    refused("is incomplete: its first line says 200 pictures, and it has rows of 14", ())
    file.unlink()
    refused("has no list of attributes: expected list_attr_celeba.txt, or", ())
    for name in ("a_attr.txt", "b_attr.txt"):
        write_list(root / name, ROWS)
    refused("has several lists of attributes, .*a_attr.txt, .*b_attr.txt: expected list_attr_celeba.txt, or one")


def test_a_list_of_0_and_1_is_read_too(tmp_path):
    write_list(tmp_path / "attr.csv", {"a.jpg": (0, 1, 0, 1), "b/c.jpg": (0, 0, 0, 0)})
    assert read_list(tmp_path / "attr.csv", ("Male", "Blond_Hair")) == {"a": ["Male", "Blond_Hair"], "b/c": []}


# ---- all of them


def test_bad_layouts_are_one_sentence(tree):
    root = tree({"A/a.png": 0, "C/a.png": 0, "C/b.png": 0})
    sides = r"has not the two sides A and B: expected trainA/ and trainB/, .* or A/ and B/, found A, C$"
    for layout in ("two_sides", "pairs"):
        with pytest.raises(ValueError, match=sides):
            both(root, layout)
    with pytest.raises(ValueError, match='data.layout is "pair", expected one of .*; did you mean pairs'):
        both(root, "pair")
    with pytest.raises(ValueError, match="data.attributes is .*, which the layout 'domains' does not read: leave"):
        both(root, "domains", attributes=("Male",))
    root = tree({f"{side}/{n}.png": n for side in "AB" for n in range(3)}, top="sides")
    with pytest.raises(ValueError, match="side A: none of 1 file in"):
        both(root, "two_sides", 8)
    (root / "A" / "0.png").write_bytes(b"")  # a video without frames
    train, held_out = both(root, "two_sides")
    assert [name for name, _ in train.skipped] == ["A/0.png"] and "cannot be opened" in train.skipped[0][1]
    for layout in LAYOUTS:
        (root.parent / "nothing").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="no video in .*nothing: searched 1 folder"):
            both(root.parent / "nothing", layout)


def test_sources_are_made_by_name_and_others_refuse_a_layout(tree):
    root = tree({f"{side}/{n}.png": n for side in "AB" for n in range(3)})
    options = {"name": "folder", "path": str(root), "frames": 1, "resolution": 24, "holdout": 0.1}
    assert make_source(options | {"layout": "pairs"}, "train")[0]["input"].shape == (1, 24, 32, 3)
    assert make_source(options, "train").classes == ["A", "B"]
    for field, value in (("layout", "pairs"), ("attributes", ("Male",))):
        with pytest.raises(ValueError, match=f"data.{field} is .*, which the source 'moving_mnist' does not read"):
            make_source(options | {"name": "moving_mnist", field: value}, "train")


@pytest.mark.parametrize("layout", ["two_sides", "pairs", "domains", "side_by_side"])
def test_every_layout_travels_to_worker_processes_and_to_records(tree, tmp_path, layout, capsys):
    size = (64, 48)
    root = tree({f"{side}/{n}.png": n + 100 * (side == "B") for side in "AB" for n in range(4)}, size=size)
    source, _ = both(root, layout)
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source) and source.shape() in source.summary()
    out = tmp_path / "records"
    command = [str(root), "--frames", "1", "--resolution", "24", "--layout", layout, "--convert", str(out)]
    assert main(command) == 0
    records = Records(str(out), 1, 24)
    assert len(records) == len(source) and records.paired == (layout != "two_sides")
    for key in ("video", "input"):
        assert (key in records[0]) == (key in source[0])
    found, *others = (sorted(item["video"].tobytes() for item in each) for each in (records, source, copy))
    assert all(other == found for other in others)


# ---- the report


def test_the_report_names_the_layout(tree, tmp_path, capsys):
    def report(root: Path, *arguments: str) -> str:
        assert main([str(root), "--frames", "1", "--resolution", "24", *arguments]) == 0
        return capsys.readouterr().out

    pairs = tree({f"{side}/{n}.png": n for side in "AB" for n in range(4)} | {"B/x.png": 9}, top="pairs")
    text = report(pairs)
    assert "  layout       pairs (A and B have the same names; where" in text
    assert "  pairs        4, of 4 of A and 5 of B\n" in text
    assert "skipped: 1 file\n  B/x.png  side A has no file of its name" in text
    text = report(pairs, "--layout", "two_sides")
    assert "  layout       two_sides\n" in text and "  A                3     1\n  B                4     1" in text
    text = report(tree({f"train{side}/{side}{n}.png": n for side in "AB" for n in range(4)}, top="sides"))
    assert "  layout       two_sides (A and B have different names)" in text
    text = report(tree({f"{n}.png": n for n in range(4)}, top="double", size=(96, 48)))
    assert "  layout       side_by_side (the width of all is twice the height" in text
    faces = tree({f"{n:06}.png": n for n in range(1, 12)}, top="faces")
    write_list(faces / "list_attr_celeba.txt", ROWS)
    assert f"  layout       classes ({faces}/list_attr_celeba.txt lists attributes: --attr" in report(faces)
    text = report(faces, "--attributes", "Black_Hair,Blond_Hair")
    assert "  layout       attributes\n" in text and "  Black_Hair       5     1\n" in text
    assert "it has none of the attributes" in text and "skipped: 2 files" in text
    classes = tree({f"{name}/{n}.png": n for name in ("cat", "dog") for n in range(4)}, top="classes")
    hint = "translators read the same folders as domains: data.layout=domains"
    assert f"  layout       classes ({hint})\n" in report(classes)
    assert "  layout       classes\n" in report(classes, "--layout", "classes")
    assert hint not in report(tree({f"{n}.png": n for n in range(4)}, top="flat"))
    assert "  layout       domains\n" in report(classes, "--layout", "domains")
    assert main([str(classes), "--frames", "1", "--layout", "pairs"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "has not the two sides A and B" in printed.err


# ---- real data


@pytest.mark.parametrize(
    "folder, layout, keys",
    [
        ("pix2pix_facades_AB", "side_by_side", {"input", "video"}),
        ("pix2pix_AB_samples", "side_by_side", {"input", "video"}),
        ("pix2pix_facades_two_folders", "pairs", {"input", "video"}),
        ("cyclegan_horse2zebra", "two_sides", {"input", "video"}),
        ("stargan_afhq", "domains", {"video"}),
        ("stargan_celeba_hq", "domains", {"video"}),
    ],
)
def test_real_pictures(shared, folder, layout, keys):
    root = shared / "data" / "images" / folder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = build_index(str(root), sequences=False)
        assert recognized(index) == {"domains": "classes"}.get(layout, layout)
        for source in both(root, layout):
            assert not source.skipped and {"input", "video"} & {*source[0]} == keys
            with eval_batches(source, 4, 24, 4) as batches:
                batch = next(batches)
            for key in keys:
                assert batch[key].shape == (4, 1, 24, 24, 3) and batch[key].std() > 20


def test_the_left_of_a_facade_is_a_photograph_and_the_right_has_flat_labels(shared):
    """Labels have few colors; the two folders hold them on side A, the pictures side by side on the right."""
    images = shared / "data" / "images"
    for folder, layout, labels in (
        ("pix2pix_facades_AB", "side_by_side", "video"),
        ("pix2pix_facades_two_folders", "pairs", "input"),
    ):
        for item in make_folder(str(images / folder), 1, 256, layout=layout):
            flat = {key: np.median(np.abs(np.diff(item[key].astype(int), axis=2))) for key in ("input", "video")}
            assert min(flat, key=lambda key: flat[key]) == labels


def test_a_real_video_and_its_flow_are_a_pair(shared, tmp_path):
    for side, name in (("A", "rgb"), ("B", "flow")):
        (tmp_path / side).mkdir()
        shutil.copy(shared / "data" / "videos" / f"v_CricketShot_g04_c01_{name}.gif", tmp_path / side)
    index = build_index(str(tmp_path), sequences=True)
    assert recognized(index) == "pairs"
    source = make_folder(str(tmp_path), 16, 32, layout="pairs", index=index)
    item = source[0]
    assert item["input"].shape == item["video"].shape == (16, 32, 32, 3) and not source.skipped
    assert math.isclose(float(source.videos[0].fps), 25, rel_tol=0.1)
    assert np.abs(item["input"].astype(int) - item["video"]).mean() > 20
    assert isinstance(make_folder(str(tmp_path), 16, 32, layout="two_sides", index=index), TwoSides)
