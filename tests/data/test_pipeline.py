"""The properties of the pipeline, on a source with known numbers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvid.core import find_method
from jaxvid.data import DamagedClip, eval_batches, make_source, train_batches
from jaxvid.data.augment import center_crop, random_crop
from jaxvid.data.pipeline import Swapped, first_clip, is_paired
from jaxvid.data.text import TextSource
from jaxvid.data.tokens import Crops

ROOT = Path(__file__).resolve().parents[2]
# One of these looks for shared memory that workers left behind, so no other may run beside it.
pytestmark = pytest.mark.xdist_group("workers")


class Numbered:
    """Clip i is filled with the number i and has a pixel grid to recognize crops by."""

    classes = ["even", "odd"]

    def __init__(self, length=23, size=8, damaged=()):
        self.length, self.size, self.damaged = length, size, frozenset(damaged)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.damaged:
            raise DamagedClip(f"{index}.mp4", "moov atom not found")
        video = np.full((2, self.size, self.size, 3), index, np.uint8)
        video[..., 1], video[..., 2] = np.mgrid[: self.size, : self.size]
        return {"video": video, "input": 255 - video, "label": np.int32(index % 2), "text": np.str_("x" * index)}

    def summary(self):
        return f"{self.length} numbered clips"


class Broken(Numbered):
    """Breaks at one clip, as a bug in a source would."""

    def __getitem__(self, index):
        if index == 7:
            raise KeyError("a bug")
        return super().__getitem__(index)


class Large(Numbered):
    """Clips large enough to travel through shared memory."""

    def __getitem__(self, index):
        return {"video": np.full((16, 64, 64, 3), index, np.uint8)}


class Odd(Numbered):
    """Clip 3 is unlike the others, in the way that `change` says."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __getitem__(self, index):
        clip = super().__getitem__(index)
        return clip | self.change if index == 3 else clip


def numbers(batches, count):
    """The clip numbers of the first `count` batches, in order."""
    return [int(video[0, 0, 0, 0]) for _ in range(count) for video in next(batches)["video"]]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def children():
    return {process.pid for process in multiprocessing.active_children()}


def shared_memory():
    folder = Path("/dev/shm")
    return {file.name for file in folder.glob("psm_*")} if folder.is_dir() else set()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_clip_once_per_epoch_and_resumed_batches_are_those_of_an_uninterrupted_run(workers):
    with train_batches(Numbered(), 5, 6, seed=1) as whole:
        for _ in range(23):  # 115 clips: five epochs of 23
            next(whole)
        with train_batches(Numbered(), 5, 6, seed=1, start=23, workers=workers) as resumed:
            batches = [next(resumed) for _ in range(23)]
        for batch in batches:
            assert_equal(next(whole), batch)
            assert all(type(value) is np.ndarray and value.flags.c_contiguous for value in batch.values())
    seen = [int(video[0, 0, 0, 0]) for batch in batches for video in batch["video"]]
    epochs = [seen[i : i + 23] for i in range(0, 115, 23)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(23))}) == 6


def test_epochs_of_neighboring_seeds_differ():
    def epoch(seed, start):
        with train_batches(Numbered(), 23, 8, seed, start) as batches:
            return numbers(batches, 1)

    assert epoch(0, 1) != epoch(1, 0)


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": 1}, {"threads": 3}])
def test_batches_do_not_depend_on_threads(options):
    with train_batches(Numbered(), 4, 5, seed=3) as plain, train_batches(Numbered(), 4, 5, seed=3, **options) as other:
        for _ in range(9):
            assert_equal(next(plain), next(other))


def test_start_reads_nothing_that_lies_before():
    class Counting(Numbered):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    with train_batches(Counting(), 4, 5, seed=3, start=10**9, threads=0) as batches:
        next(batches)
    assert Counting.reads == 4


def test_processes_together_see_the_batches_of_one():
    whole = train_batches(Numbered(), 6, 5, seed=3, start=2)
    parts = [train_batches(Numbered(), 6, 5, seed=3, start=2, process_index=p, process_count=3) for p in range(3)]
    for _ in range(5):
        expected, rows = next(whole), [next(part) for part in parts]
        assert_equal(expected, {key: np.concatenate([row[key] for row in rows]) for key in expected})
    for batches in (whole, *parts):
        batches.close()


def test_crops_are_random_aligned_and_shared_with_the_paired_video():
    corners = set()
    with train_batches(Numbered(), 23, 5, seed=0) as batches:
        for _ in range(4):
            batch = next(batches)
            np.testing.assert_array_equal(batch["input"], 255 - batch["video"])
            for video in batch["video"]:
                top, left = video[0, 0, 0, 1], video[0, 0, 0, 2]
                corners.add((int(top), int(left)))
                grid = np.mgrid[top : top + 5, left : left + 5].transpose(1, 2, 0)
                np.testing.assert_array_equal(video[..., 1:], np.broadcast_to(grid, (2, 5, 5, 2)))
    assert corners == {(top, left) for top in range(4) for left in range(4)}


class Unpaired(Numbered):
    """Its input is wider than its video, and its truth shows what the input shows."""

    paired = False

    def __getitem__(self, index):
        wide = np.zeros((2, self.size, 3 * self.size, 3), np.uint8)
        wide[..., 1], wide[..., 2] = np.mgrid[: self.size, : 3 * self.size]
        return super().__getitem__(index) | {"input": wide, "truth": 255 - wide}


@pytest.mark.parametrize("tokens", [False, True])
def test_an_unpaired_input_has_its_own_window_which_is_that_of_its_truth(tokens):
    source = Crops(Unpaired(), 5, 46) if tokens else Unpaired()
    windows = set()
    with train_batches(source, 23, 5, seed=0) as batches, train_batches(Numbered(), 23, 5, seed=0) as alone:
        for _ in range(4):
            batch, expected = next(batches), next(alone)
            if not tokens:
                np.testing.assert_array_equal(batch["video"], expected["video"])
            np.testing.assert_array_equal(batch["truth"], 255 - batch["input"])
            for corner, other in zip(batch["video"][:, 0, 0, 0, 1:], batch["input"][:, 0, 0, 0, 1:], strict=True):
                windows.add((*corner.tolist(), *other.tolist()))
    assert len(windows) > 40 and max(window[3] for window in windows) > 15
    with eval_batches(source, 23, 5, 23) as batches:
        batch = next(batches)
    if not tokens:
        assert (batch["input"][:, 0, 0, 0, 1:] == [1, 9]).all() and (batch["video"][:, 0, 0, 0, 1:] == 1).all()


def test_the_truth_of_a_paired_clip_is_cropped_with_it():
    video = Numbered()[3]["video"]
    clip = {"video": video, "truth": 255 - video}
    for cropped in (random_crop(clip, 5, np.random.default_rng(1)), center_crop(clip, 5)):
        np.testing.assert_array_equal(cropped["truth"], 255 - cropped["video"])


def test_a_damaged_first_clip_hides_nothing_of_a_source():
    source = Numbered(damaged=(0, 1))
    assert first_clip(source)["label"] == 0 and Swapped(source)[2]["video"].max() == 255
    for method in ("cyclegan", "pix2pix"):
        config = object()
        assert find_method(method).complete(config, source) is config
    with pytest.raises(DamagedClip, match="15.mp4: moov atom not found"):
        first_clip(Numbered(damaged=range(23)))


def test_a_text_does_not_hide_that_a_source_is_unpaired():
    assert is_paired(Numbered()) and not is_paired(TextSource(Unpaired(), "words", lambda text: np.zeros(2)))


def test_shapes_and_types():
    with train_batches(Numbered(), 4, 5, seed=3) as batches:
        batch = next(batches)
    assert batch["video"].shape == (4, 2, 5, 5, 3) and batch["video"].dtype == np.uint8
    assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
    assert batch["text"].shape == (4,) and batch["text"].dtype.kind == "U"
    assert [len(text) for text in batch["text"]] == batch["video"][:, 0, 0, 0, 0].tolist()


def test_evaluation_takes_a_fixed_sample_center_cropped_and_padded():
    batches, again = (list(eval_batches(Numbered(20), 4, 4, examples=10)) for _ in range(2))
    assert [batch["video"].shape for batch in batches] == [(4, 2, 4, 4, 3)] * 3
    rows = np.concatenate([batch["video"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    clips = rows[:, 0, 0, 0, 0].tolist()
    assert clips == np.concatenate([batch["video"] for batch in again])[:, 0, 0, 0, 0].tolist()
    assert clips[10:] == clips[:2] and len(set(clips)) == 10 and set(clips) <= set(range(20))
    assert set(clips[:4]) != set(range(4)) and clips != sorted(clips)  # a sorted folder's first batch is mixed
    more = next(eval_batches(Numbered(20), 20, 4, examples=20))["video"][:, 0, 0, 0, 0].tolist()
    assert more[:10] == clips[:10] and sorted(more) == list(range(20))
    assert mask.tolist() == [1.0] * 10 + [0.0] * 2 and mask.dtype == np.float32
    assert (rows[:, 0, 0, 0, 1:] == 2).all()


def test_evaluation_stops_at_the_end_of_a_short_source_and_shares_rows():
    whole = list(eval_batches(Numbered(5), 4, 4, examples=100))
    parts = [list(eval_batches(Numbered(5), 4, 4, 100, process_index=p, process_count=2)) for p in range(2)]
    assert len(whole) == 2 and sum(batch["mask"].sum() for batch in whole) == 5
    for expected, left, right in zip(whole, *parts, strict=True):
        assert_equal(expected, {key: np.concatenate([left[key], right[key]]) for key in expected})


def test_a_damaged_clip_is_replaced_named_once_and_counted(caplog):
    with train_batches(Numbered(damaged=[3, 11]), 23, 8, seed=1) as batches, caplog.at_level("WARNING"):
        seen = numbers(batches, 3)
        assert batches.damaged.files == {"3.mp4": "moov atom not found", "11.mp4": "moov atom not found"}
    with train_batches(Numbered(), 23, 8, seed=1) as batches:
        intact = numbers(batches, 3)
    assert not {3, 11} & set(seen)
    assert [a for a in intact if a not in (3, 11)] == [b for a, b in zip(intact, seen, strict=True) if a not in (3, 11)]
    assert caplog.text.count("3.mp4: moov atom not found") == 1


def test_a_substitute_has_no_weight_in_evaluation():
    batches = eval_batches(Numbered(6, damaged=[2]), 3, 8, examples=6)
    mask = np.concatenate([batch["mask"] for batch in batches])
    with eval_batches(Numbered(6), 6, 8, examples=6) as intact:
        clips = next(intact)["video"][:, 0, 0, 0, 0].tolist()
    assert mask.tolist() == [clip != 2 for clip in clips]
    assert len(batches.damaged) == 1


def test_a_source_of_damaged_clips_only_is_an_error():
    with pytest.raises(ValueError, match="16 damaged clips in a row in 23 numbered clips.*moov atom"):
        next(train_batches(Numbered(damaged=range(23)), 4, 8, seed=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_source_arrives_and_leaves_no_process(workers):
    before, began = children(), time.monotonic()
    batches = train_batches(Broken(), 4, 8, seed=0, workers=workers)
    with pytest.raises(KeyError, match="a bug"):
        for _ in range(10):
            next(batches)
    assert children() == before
    assert time.monotonic() - began < 60
    with pytest.raises(StopIteration):
        next(batches)


def test_leaving_early_leaves_neither_process_nor_shared_memory():
    processes, memory = children(), shared_memory()
    batches = train_batches(Large(), 16, 64, seed=0, workers=2)
    batch = next(batches)
    assert len(children() - processes) == 2
    batches.close()
    assert children() == processes
    assert batch["video"].min() >= 0  # what was delivered stays readable
    del batch
    time.sleep(0.5)  # grain frees shared memory in a thread
    assert shared_memory() <= memory


def test_a_script_that_dies_with_open_workers_ends(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        textwrap.dedent(
            """
            from jaxvid.data import train_batches
            from tests.data.test_pipeline import Numbered

            if __name__ == "__main__":
                batches = train_batches(Numbered(), 4, 8, seed=0, workers=2)
                next(batches)
                raise SystemExit("the user's own error")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60
    )
    assert done.returncode == 1 and b"the user's own error" in done.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video": np.zeros((3, 8, 8, 3), np.uint8)}, r"clips differ in 'video'.*\(2, 8, 8, 3\) and.*\(3, 8, 8, 3\)"),
        ({"video": np.zeros((2, 8, 8, 3), np.float32)}, r"'video' of clip 3 is float32 \[2, 8, 8, 3\], expected uint8"),
        ({"video": np.zeros((2, 7, 8, 3), np.uint8)}, "'video' of clip 3 is uint8 .* at least 8"),
        ({"video": np.zeros((8, 8, 3), np.uint8)}, "'video' of clip 3 .* expected"),
        ({"input": np.zeros((2, 8, 8, 1), np.uint8)}, "'input' of clip 3 .* expected"),
        ({"input": np.zeros((2, 9, 9, 3), np.uint8)}, "differ in height or width"),
        ({"truth": np.zeros((2, 9, 9, 3), np.uint8)}, "differ in height or width"),
        ({"truth": np.zeros((2, 7, 8, 3), np.uint8)}, "'truth' of clip 3 is uint8 .* at least 8"),
        ({"label": np.int64(1)}, "clips differ in 'label'"),
        ({"action": np.zeros((2, 1), np.float32)}, "some clips have 'action' and others do not"),
    ],
)
def test_clips_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        next(train_batches(Odd(change), 23, 8, seed=0))
    assert "23 numbered clips" in str(caught.value) or "height or width" in str(caught.value)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="6 cannot be shared equally by 4 processes"):
        train_batches(Numbered(), 6, 8, seed=0, process_count=4)
    with pytest.raises(ValueError, match="process_index is 2, expected 0 to 1"):
        train_batches(Numbered(), 6, 8, seed=0, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="no clip to read: 0 numbered clips"):
        train_batches(Numbered(0), 6, 8, seed=0)


def test_a_source_smaller_than_a_batch_repeats():
    with train_batches(Numbered(3), 64, 8, seed=0, process_index=1, process_count=2) as batches:
        assert np.bincount(numbers(batches, 3), minlength=3).tolist() == pytest.approx([32, 32, 32], abs=3)


def test_memory_does_not_grow():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to read the memory in use")
    with train_batches(Large(), 16, 64, seed=0) as batches:
        for _ in range(30):
            next(batches)
        before = resident()
        for _ in range(200):  # 629 MB pass through
            next(batches)
        assert resident() - before < 50e6


def test_sources_are_made_by_name():
    options = {"name": "synthetic", "path": "", "dataset": "", "frames": 3, "resolution": 16, "stride": 1, "fps": 0.0}
    source = make_source(options | {"holdout": 0.1}, "eval")
    assert source[0]["video"].shape == (3, 16, 16, 3) and "synthetic eval: 65,536 clips" in source.summary()
    with pytest.raises(ValueError, match='data.name is "sintetic", expected .*did you mean synthetic'):
        make_source(options | {"name": "sintetic"}, "train")
    with pytest.raises(ValueError, match='split is "test", expected one of train, eval'):
        make_source(options, "test")
    assert make_source(options | {"label": "color"}, "eval").classes[0] == "red"
    unread = (
        "data.label is 'color', which the source 'moving_mnist' does not read: leave it at 'class' or set data.name to"
    )
    with pytest.raises(ValueError, match=unread):
        make_source(options | {"name": "moving_mnist", "label": "color"}, "train")


def test_importing_the_package_imports_no_jax():
    code = "import sys, jaxvid.data, jaxvid.data.{}; assert not {{'jax', 'grain', 'tensorflow'}} & set(sys.modules)"
    names = ["synthetic", "moving_mnist", "tfds", "records", "augment", "video", "folder", "layouts"]
    modules = ", jaxvid.data.".join(names)
    subprocess.run([sys.executable, "-c", code.format(modules)], cwd=ROOT, check=True, timeout=60)
