"""The synthetic videos against what can be measured in its pixels."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest

from jaxvid.data.synthetic import COLORS, LABELS, MOTIONS, Synthetic, reflect

SAMPLE = 160

# CRC-32 of whole items: a change here changes every synthetic experiment ever made.
GOLDEN = [
    911696369,
    1344563750,
    4015484407,
    2807595308,
    1575526272,
    1680948760,
    1603954835,
    1006359170,
    2421522359,
    217036916,
]


@pytest.fixture(scope="module")
def clips():
    source = Synthetic(16, 64)
    return [source[index] for index in range(SAMPLE)]


def colored(video):
    """Weight of the colored (principal) shape per pixel [T,H,W]: gray things and backgrounds have no saturation."""
    video = video.astype(float)
    return video.max(-1) - video.min(-1)


def centers(video):
    """Center of mass of the colored shape per frame, (right, down), in frame widths."""
    weight = colored(video)
    middle = (np.arange(video.shape[1]) + 0.5) / video.shape[1]
    mass = weight.sum((1, 2))
    return np.stack([(weight.sum(1) * middle).sum(1), (weight.sum(2) * middle).sum(1)], axis=1) / mass[:, None]


def motion_of(clip):
    return MOTIONS[clip["label"] % len(MOTIONS)]


def alone(clip):
    return "while a tiny" not in str(clip["text"])


def test_items_have_the_promised_shapes_and_types(clips):
    for clip in clips:
        assert clip["video"].shape == clip["input"].shape == (16, 64, 64, 3)
        assert clip["video"].dtype == clip["input"].dtype == np.uint8
        assert clip["action"].shape == (16, 2) and clip["action"].dtype == np.float32
        assert clip["label"].shape == () and clip["label"].dtype == np.int32
        assert clip["text"].dtype.kind == "U"


def test_the_same_index_is_the_same_video_on_every_machine():
    def checksum(clip):
        arrays = b"".join(clip[key].tobytes() for key in ("video", "input", "action"))
        return zlib.crc32(arrays + str(clip["text"]).encode())

    found = [checksum(Synthetic(16, 64, split)[i]) for split in ("train", "eval") for i in (0, 1, 5, 2**16 - 1)]
    found += [checksum(Synthetic(3, 20)[1]), checksum(Synthetic(40, 128, "eval", seed=7)[9])]
    assert found == GOLDEN


def test_actions_are_the_measured_velocities(clips):
    errors = []
    for clip in filter(alone, clips):
        if motion_of(clip) in ("left", "right", "up", "down", "bounce"):
            errors.append(np.diff(centers(clip["video"]), axis=0) - clip["action"][:-1])
    assert len(errors) > 40
    assert np.abs(np.concatenate(errors)).max() < 0.25 / 64  # a quarter of a pixel


def test_motions_are_what_their_labels_say(clips):
    for clip in filter(alone, clips):
        motion = motion_of(clip)
        path, area = centers(clip["video"]), colored(clip["video"]).sum((1, 2))
        (right, down), size = path[6] - path[0], area[-1] / area[0]
        if motion in ("left", "right"):
            assert abs(down) < 0.02 and (right > 0.05) == (motion == "right") and abs(right) > 0.05
        elif motion in ("up", "down"):
            assert abs(right) < 0.02 and (down > 0.05) == (motion == "down") and abs(down) > 0.05
        elif motion == "bounce":
            assert (np.diff(np.sign(np.diff(path[:, 0]))) != 0).any()
        elif motion == "spin":
            assert np.abs(path - path[0]).max() < 0.06 and 0.85 < size < 1.15
            assert np.abs(clip["video"][0].astype(int) - clip["video"][7]).max() > 60
        else:
            assert (size > 2.5) if motion == "grow" else (size < 0.4)


def test_grown_shapes_have_the_areas_of_geometry():
    """At 512 pixels the area ratio of two frames is the square of the radii's ratio, whatever the shape."""
    source = Synthetic(11, 512)
    index = next(i for i in range(999) if motion_of(clip := Synthetic(1, 8)[i]) == "grow" and alone(clip))
    area = colored(source[index]["video"]).sum((1, 2))
    roots = np.sqrt(area)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=0.03)  # the radius grows linearly


def test_a_label_may_be_the_color(clips):
    source = Synthetic(16, 64, label="color")
    for index, clip in enumerate(clips[:40]):
        frame = clip["video"][0].reshape(-1, 3).astype(int)
        distances = [np.abs(frame - color).sum(1).min() for color in COLORS.values()]
        label = source[index]["label"]
        assert np.argmin(distances) == label and min(distances) == 0 and label.dtype == np.int32
        assert f" {source.classes[label]} " in str(clip["text"])
        assert_same(source[index], clip, ("video", "input", "text", "action"))


def test_a_label_may_be_the_style_and_nothing_else_of_the_scene_changes(clips):
    source = Synthetic(16, 64, label="style")
    assert source.classes == ["filled", "outline"]
    for index, clip in enumerate(clips[:40]):
        styled = source[index]
        assert_same(styled, clip, ("input", "text", "action"))
        np.testing.assert_array_equal(styled["video"], clip[("video", "input")[styled["label"]]])


def test_pairs_are_the_clips_as_they_are():
    for split in ("train", "eval"):
        source, pairs = Synthetic(4, 16, split), Synthetic(4, 16, split, layout="pairs")
        assert len(source) == len(pairs) and source.paired and pairs.paired
        for index in range(8):
            assert source[index].keys() == pairs[index].keys()
            assert_same(source[index], pairs[index], source[index])


def test_two_sides_share_no_scene_in_training():
    scenes, sides = Synthetic(4, 16), Synthetic(4, 16, layout="two_sides")
    half = 2**19
    assert len(sides) == half and len(scenes) == 2 * half and sides.paired is False
    for index in (0, 1, 5, 77, half - 1):
        np.testing.assert_array_equal(sides[index]["input"], scenes[index]["input"])
        assert_same(sides[index], scenes[half + index], ("video", "label", "text", "action"))
        assert "truth" not in sides[index]
    with pytest.raises(IndexError, match="524288 of 524288"):
        sides[half]


def test_of_two_sides_the_truth_is_the_scene_of_the_input_in_evaluation():
    scenes, sides = Synthetic(4, 16, "eval"), Synthetic(4, 16, "eval", layout="two_sides")
    assert len(sides) == len(scenes) == 2**16
    for index in (0, 3, 2**15, 2**16 - 1):
        item = sides[index]
        np.testing.assert_array_equal(item["input"], scenes[index]["input"])
        np.testing.assert_array_equal(item["truth"], scenes[index]["video"])
        np.testing.assert_array_equal(item["video"], scenes[(index + 2**15) % 2**16]["video"])


@pytest.mark.parametrize("label", ["color", "style"])
def test_domains_are_labels_and_the_scenes_are_those_of_all(label):
    for split in ("train", "eval"):
        scenes, domains = Synthetic(4, 16, split, label=label), Synthetic(4, 16, split, label=label, layout="domains")
        assert domains.classes == LABELS[label] and len(domains) == len(scenes)
        for index in range(20):
            assert_same(scenes[index], domains[index], ("video", "label", "text", "action"))
            extra = {"target", "truth"} if split == "eval" else set()
            assert domains[index].keys() == (scenes[index].keys() - {"input"}) | extra


def test_the_truth_is_the_same_scene_in_the_other_style():
    scenes, domains = Synthetic(4, 16, "eval"), Synthetic(4, 16, "eval", label="style", layout="domains")
    for index in range(20):
        item = domains[index]
        assert item["target"] == 1 - item["label"] and item["target"].dtype == np.int32
        np.testing.assert_array_equal(item["truth"], scenes[index][("video", "input")[item["target"]]])


def test_the_truth_is_the_same_scene_in_the_target_color(monkeypatch):
    """As if all colors had been that one from the beginning."""
    items = [Synthetic(4, 32, "eval", label="color", layout="domains")[index] for index in range(40)]
    for index, item in enumerate(items):
        name = list(COLORS)[item["target"]]
        with monkeypatch.context() as patch:
            for color in COLORS:
                patch.setitem(COLORS, color, {**COLORS}[name])
            expected = Synthetic(4, 32, "eval")[index]["video"]
        np.testing.assert_array_equal(item["truth"], expected)
        assert (item["truth"] != item["video"]).any()


@pytest.mark.parametrize("label", ["color", "style"])
def test_targets_are_drawn_uniformly_from_the_other_domains(label):
    source = Synthetic(1, 8, "eval", label=label, layout="domains")
    n = len(source.classes)
    counts = np.zeros((n, n))
    for index in range(2800):
        counts[source[index]["label"], source[index]["target"]] += 1
    expected = 2800 / (n * (n - 1))
    assert (np.diag(counts) == 0).all()
    assert np.abs(counts[~np.eye(n, dtype=bool)] - expected).max() < 4.5 * np.sqrt(expected)


def assert_same(clip, other, keys):
    for key in keys:
        np.testing.assert_array_equal(clip[key], other[key])


def test_input_is_the_outline_of_the_same_scene(clips):
    for clip in filter(alone, clips):
        fill, line = colored(clip["video"]), colored(clip["input"])
        assert (line[fill > 100].mean() < 0.9 * fill[fill > 100].mean()) and line.max() > 50
        corners = (slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
        empty = (fill[corners] == 0) & (line[corners] == 0)
        np.testing.assert_array_equal(clip["video"][corners][empty], clip["input"][corners][empty])
        if motion_of(clip) not in ("grow", "shrink", "spin"):
            assert np.abs(centers(clip["video"]) - centers(clip["input"])).max() < 0.05


def test_the_text_names_shape_and_motion(clips):
    for clip in clips:
        shape, motion = LABELS["class"][clip["label"]].split("_")
        words = {"bounce": "bounces around", "spin": "spins (counter)?clockwise", "grow": "grows", "shrink": "shrinks"}
        expected = words.get(motion, f"moves {motion}( slowly| quickly)?(, then (up|down|left|right))?")
        color = "|".join(COLORS)
        name = r"digit \d" if shape == "digit" else shape
        passes = r"(, while a tiny grey \w+ passes)?"
        pattern = rf"an? ((small|large) )?({color}) {name} {expected}{passes}, on a (dark|light) background"
        assert re.fullmatch(pattern, str(clip["text"])), clip["text"]


def test_a_passing_shape_never_hides_the_principal_one(clips):
    visible = [colored(clip["video"]) > 100 for clip in clips]
    area = np.array([frames.sum((1, 2)) for frames in visible])
    assert (area.max(1) > 60).all()
    moving = np.array([motion_of(clip) not in ("grow", "shrink") for clip in clips])
    assert (area[moving].min(1) > 0.4 * area[moving].max(1)).all()


@pytest.mark.parametrize("label", LABELS)
def test_labels_are_balanced(label):
    source = Synthetic(1, 8, label=label)
    n = len(source.classes)
    counts = np.bincount([source[i]["label"] for i in range(4000)], minlength=n)
    assert counts.shape == (n,)
    assert np.abs(counts - 4000 / n).max() < 4.5 * np.sqrt(4000 / n)


def test_no_video_is_met_twice():
    frames = [Synthetic(1, 16, split)[i]["video"].tobytes() for split in ("train", "eval") for i in range(500)]
    assert len(set(frames)) == 1000
    assert not np.array_equal(Synthetic(1, 16, seed=1)[0]["video"], Synthetic(1, 16)[0]["video"])


def test_scenes_do_not_depend_on_the_resolution():
    index = next(i for i in range(99) if alone(clip := Synthetic(8, 64)[i]) and motion_of(clip) == "left")
    small, large = Synthetic(8, 64)[index], Synthetic(8, 256)[index]
    assert small["text"] == large["text"]
    np.testing.assert_array_equal(small["action"], large["action"])
    np.testing.assert_allclose(centers(small["video"]), centers(large["video"]), atol=0.004)


@pytest.mark.parametrize("frames, resolution", [(1, 8), (3, 9), (100, 40)])
def test_any_size(frames, resolution):
    for i in range(40):
        assert Synthetic(frames, resolution)[i]["video"].shape == (frames, resolution, resolution, 3)


def test_reflect_is_a_billiard_ball():
    position, velocity, expected = 0.3, 0.07, []
    for _ in range(200):
        expected.append(position)
        position += velocity
        if not 0.2 <= position <= 0.9:
            wall = 0.2 if velocity < 0 else 0.9
            position, velocity = 2 * wall - position, -velocity
    np.testing.assert_allclose(reflect(0.3 + 0.07 * np.arange(200), 0.2, 0.9), expected, atol=1e-9)


def test_what_is_out_of_range_is_named():
    with pytest.raises(ValueError, match="resolution >= 8, not 16 and 7"):
        Synthetic(16, 7)
    with pytest.raises(ValueError, match='split is "test", expected one of train, eval'):
        Synthetic(16, 8, "test")
    with pytest.raises(ValueError, match='label is "colour", expected one of class, color, style; did you mean color'):
        Synthetic(16, 8, label="colour")
    with pytest.raises(ValueError, match='layout is "attributes", expected one of classes, pairs, two_sides, domains'):
        Synthetic(16, 8, layout="attributes")
    with pytest.raises(ValueError, match="label is 'class', and the layout 'domains' of .* has color or style"):
        Synthetic(16, 8, layout="domains")
    with pytest.raises(ValueError, match="label is 'style', and the layout 'two_sides' of .* has class or color"):
        Synthetic(16, 8, label="style", layout="two_sides")
    with pytest.raises(IndexError, match="65536"):
        Synthetic(1, 8, "eval")[2**16]


def test_a_stride_keeps_every_other_frame():
    for index in range(8):
        whole, some = (Synthetic(frames, 32, stride=stride)[index] for frames, stride in ((12, 1), (4, 3)))
        np.testing.assert_array_equal(some["video"], whole["video"][::3])
        np.testing.assert_allclose(some["action"], whole["action"].reshape(4, 3, 2).sum(1), atol=1e-6)
        assert some["text"] == whole["text"]
    with pytest.raises(ValueError, match="stride >= 1, not 0"):
        Synthetic(4, 32, stride=0)
