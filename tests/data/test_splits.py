"""Parts of a data set are recognized by their names; elsewhere a share of each class is held out."""

from collections import Counter

import pytest

from jaxvid.data.splits import find_parts, hold_out, like_parts


def of(*tops: str) -> dict[str, str]:
    return find_parts({f"{top}/a.mp4": () for top in tops})


@pytest.mark.parametrize(
    "train, held_out",
    [
        *(("train", name) for name in ("val", "valid", "validation", "dev", "test", "eval", "evaluation", "holdout")),
        *[("Train", "Test"), ("TRAIN", "VAL"), ("training", "validation"), ("Training", "Testing"), ("train", "Test")],
        *[("train_256", "val_256"), ("train256", "test256"), ("256x256-train", "256x256-dev"), ("01_train", "01_test")],
        *[("Training Set", "Test Set"), ("trainset", "testset"), ("TrainSet", "TestSet"), ("train_data", "testData")],
        *[("ucf101_train", "ucf101_test"), ("UCF-101 training", "UCF-101 validation"), ("train", "held_out")],
        ("trainval", "test"),
    ],
)
def test_two_folders_that_differ_in_the_word_for_the_part_are_parts(train: str, held_out: str) -> None:
    assert of(held_out, train) == {train: "train", held_out: "eval"}
    assert of("extra", train, held_out) == {train: "train", held_out: "eval"}


@pytest.mark.parametrize(
    "tops",
    [
        ("plane", "train"),
        ("test", "plane"),
        ("test_tube", "train_station"),
        ("training_dogs", "testing_cats"),
        ("train_256", "test_512"),
        ("valley", "train"),
        ("contest", "strain"),
        ("retrain", "retest"),
        ("cats", "dogs"),
    ],
)
def test_other_names_are_classes(tops: tuple[str, ...]) -> None:
    assert of(*tops) == {}


def test_the_first_of_several_parts_for_evaluation_counts() -> None:
    assert of("test", "train", "val") == {"train": "train", "val": "eval"}
    assert of("test", "train", "eval") == {"train": "train", "test": "eval"}
    pairs = of("trainA", "trainB", "testA", "testB", "val_7")
    assert pairs == {"trainA": "train", "trainB": "train", "testA": "eval", "testB": "eval"}


def test_a_lone_folder_is_for_training_and_frames_are_in_folders() -> None:
    assert of("train") == {"train": "train"} and of("Test_256") == {"Test_256": "train"} and of("cats") == {}
    frames = {"train": ("train/0.png", "train/1.png"), "val": ("val/0.png", "val/1.png")}
    assert find_parts(frames) == {"train": "train", "val": "eval"}
    assert find_parts({"train.png": ("train.png",), "val.png": ("val.png",)}) == {}
    assert find_parts({"train/a.mp4": (), "b.mp4": ()}) == {}


def test_folders_that_may_be_parts() -> None:
    bare = ["Test", "val_256", "valset", "Test Data", "dev"]
    assert like_parts([*bare, "test_tube", "ucf_val", "cats", "contest", "devil"]) == bare
    assert like_parts(["train_station", "ucf_train", "trainer", "cats"]) == []
    assert like_parts(["ucf_train", "cats", "ucf101_test"]) == ["ucf_train", "ucf101_test"]


def classes(**sizes: int) -> dict[str, str]:
    return {f"{label}/{number}.mp4": label for label, size in sizes.items() for number in range(size)}


@pytest.mark.parametrize(
    "sizes, holdout, expected",
    [
        ({"a": 7, "b": 7}, 0.1, {"a": 1, "b": 1}),
        ({"a": 2, "b": 3}, 0.1, {"a": 1, "b": 1}),
        ({"a": 30, "b": 10, "c": 1}, 0.2, {"a": 6, "b": 2}),
        ({"a": 4, "b": 4}, 0.99, {"a": 3, "b": 3}),
        ({"a": 10}, 0.3, {"a": 3}),
    ],
)
def test_a_share_of_each_class_is_held_out(sizes: dict[str, int], holdout: float, expected: dict[str, int]) -> None:
    names = classes(**sizes)
    held_out = hold_out(names, holdout)
    assert Counter(names[name] for name in held_out) == expected
    assert hold_out(dict(reversed(names.items())), holdout) == held_out
    more = hold_out(names | {"a/new.mp4": "a"}, holdout)
    assert len(held_out - more) <= 1


def test_of_classes_of_one_video_each_a_share_of_all_is_held_out() -> None:
    assert len(hold_out(classes(**{letter: 1 for letter in "abcdefghij"}), 0.2)) == 2


def test_what_is_held_out_does_not_depend_on_the_unicode_form() -> None:
    composed = {f"\u00e9{number}": "none" for number in range(20)}
    apart = {f"e\u0301{number}": "none" for number in range(20)}
    numbers = [{name[-2:].strip("\u00e9\u0301") for name in hold_out(names, 0.3)} for names in (composed, apart)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 6
