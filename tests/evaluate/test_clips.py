import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from jaxvid.data.augment import center_crop, resize_short_side
from jaxvid.evaluate.clips import open_collection, read_clips, take_clips

RNG = np.random.default_rng(0)
VIDEOS = RNG.integers(0, 256, (5, 12, 16, 20, 3), np.uint8)


def save_frames(folder, videos) -> None:
    for number, video in enumerate(videos):
        (folder / f"video_{number}").mkdir(parents=True)
        for index, frame in enumerate(video):
            Image.fromarray(frame).save(folder / f"video_{number}" / f"{index:04}.png")


@pytest.mark.parametrize("kind", ["npy", "npz", "npz with labels", "floats", "folder of arrays", "folder of frames"])
def test_every_kind_of_set_gives_the_same_pixels(kind, tmp_path) -> None:
    path = tmp_path / "set"
    if kind == "npy":
        np.save(path := path.with_suffix(".npy"), VIDEOS)
    elif kind == "npz":
        np.savez(path := path.with_suffix(".npz"), videos=VIDEOS)
    elif kind == "npz with labels":
        np.savez(path := path.with_suffix(".npz"), label=np.array(["a"] * 5), video=VIDEOS)
    elif kind == "floats":
        np.save(path := path.with_suffix(".npy"), (VIDEOS / 127.5 - 1).astype(np.float32))
    elif kind == "folder of arrays":
        path.mkdir()
        for number, video in enumerate(VIDEOS):
            np.save(path / f"{number}.npy", video)
    else:
        save_frames(path, VIDEOS)
    collection = open_collection(path)
    assert collection.sizes == [(16, 20)] and collection.longest == 12
    (whole,) = (np.concatenate(arrays) for arrays in zip(*read_clips(take_clips(collection, 12), batch=2), strict=True))
    np.testing.assert_array_equal(whole, VIDEOS)


def test_images_are_videos_of_one_frame_and_gray_is_repeated(tmp_path) -> None:
    np.save(tmp_path / "images.npy", VIDEOS[0, ..., :1])
    collection = open_collection(tmp_path / "images.npy")
    assert collection.longest == 1 and len(collection.videos) == 12
    ((batch,),) = read_clips(take_clips(collection, 1), batch=12)
    np.testing.assert_array_equal(batch, np.repeat(VIDEOS[0, :, None, ..., :1], 3, -1))


def test_numbered_images_are_a_video_or_images_as_asked(tmp_path) -> None:
    save_frames(tmp_path, VIDEOS[:1])
    assert [video.frames for video in open_collection(tmp_path).videos] == [12]
    assert [video.frames for video in open_collection(tmp_path, sequences=False).videos] == [1] * 12


def test_what_is_taken_depends_on_the_content_and_the_seed_alone(tmp_path) -> None:
    np.save(tmp_path / "videos.npy", VIDEOS)
    collection = open_collection(tmp_path / "videos.npy")

    def taken(collection, **settings) -> dict:
        clips = take_clips(collection, 4, 2, **settings)
        return {clip.video.name: clip.indices.tolist() for clip in clips}

    reference = taken(collection)
    assert all(np.diff(indices).tolist() == [2, 2, 2] for indices in reference.values())
    assert len({indices[0] for indices in reference.values()}) > 1
    turned = collection._replace(videos=collection.videos[::-1][:3])
    assert taken(turned).items() <= reference.items() and len(taken(turned)) == 3
    assert taken(collection, seed=1) != reference
    (tmp_path / "renamed").mkdir()
    for number, video in enumerate(VIDEOS[::-1]):
        np.save(tmp_path / "renamed" / f"other_{number}.npy", video)
    renamed = taken(open_collection(tmp_path / "renamed"))
    assert list(renamed.values())[::-1] == list(reference.values())
    assert {indices[0] for indices in taken(collection, random=False).values()} == {0}
    assert len(taken(collection, count=3)) == 3 and taken(collection, count=3).items() <= reference.items()


def test_further_clips_of_the_same_videos_where_a_protocol_asks_for_them(tmp_path) -> None:
    np.save(tmp_path / "videos.npy", VIDEOS)
    clips = take_clips(open_collection(tmp_path / "videos.npy"), 4, count=12, repeat=True)
    assert len(clips) == 12
    starts = [clip.indices[0] for clip in clips if clip.video == clips[0].video]
    assert len(starts) == 3 and len(set(starts)) > 1


def test_what_is_left_out_of_a_set_is_warned_of(tmp_path) -> None:
    save_frames(tmp_path / "set", [VIDEOS[0], VIDEOS[1, :5]])
    (tmp_path / "set" / "broken.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning, match="left out: broken.mp4: "):
        collection = open_collection(tmp_path / "set")
    with pytest.warns(UserWarning, match="left out: 1 of 2 videos in .* are too short"):
        assert [clip.video.name for clip in take_clips(collection, 12)] == ["video_0"]


def test_a_damaged_clip_is_left_out_on_both_sides_with_a_warning(tmp_path) -> None:
    save_frames(tmp_path / "a", VIDEOS)
    save_frames(tmp_path / "b", VIDEOS)
    sets = [take_clips(open_collection(tmp_path / name), 12) for name in "ab"]
    file = tmp_path / "b" / "video_3" / "0005.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.warns(UserWarning, match="left out: .*video_3"):
        ((real, fake),) = read_clips(*sets, batch=5)
    np.testing.assert_array_equal(real, VIDEOS[[0, 1, 2, 4]])
    np.testing.assert_array_equal(fake, real)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (VIDEOS[0, 0, 0], r"is \[20, 3\], expected videos"),
        (VIDEOS[..., :2], "expected a video"),
        (VIDEOS.astype(np.int32), "holds int32, expected uint8"),
        (VIDEOS.astype(np.float32), r"float32 from 0 to 255, expected uint8 in \[0, 255\], or floats in"),
        (VIDEOS / 255, "looks like .0, 1.; expected uint8"),
        (VIDEOS / 255 - 1e-6, "looks like .0, 1."),
        (VIDEOS // 128, "uint8 that are 0 or 1"),
        (np.full(VIDEOS.shape, np.nan), "set.npy are NaN: the model that made them diverged"),
        (VIDEOS[:0], "no readable video"),
        (VIDEOS.astype(np.int64), "holds int64, expected uint8"),
        (VIDEOS > 9, "holds bool, expected uint8"),
        (VIDEOS.astype(complex), "holds complex128, expected uint8"),
        (np.zeros(VIDEOS.shape, [("a", "<u2")]), "holds .*'a'.*, expected uint8"),
        (np.full(VIDEOS.shape, None), "holds no array of numbers"),
        ((VIDEOS / 255).astype(ml_dtypes.bfloat16), "holds bfloat16 .* looks like .0, 1."),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(array, sentence, tmp_path) -> None:
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(ValueError, match=sentence):
        open_collection(tmp_path / "set.npy")


def test_sets_that_cannot_be_measured_are_named(tmp_path) -> None:
    save_frames(tmp_path / "mixed", [VIDEOS[0], VIDEOS[1], VIDEOS[2, :, ::2]])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.savez(tmp_path / "two.npz", a=VIDEOS, b=VIDEOS)
    (tmp_path / "broken.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:1000])
    (tmp_path / "short.mp4").write_bytes(b"")
    save_frames(tmp_path / "both", VIDEOS)
    np.save(tmp_path / "both" / "array.npy", VIDEOS[0])
    for path, sentence in {
        "mixed": "several sizes .2 of 16x20, 1 of 8x20.: --size=64, say, resizes .* --protocol=clean takes any",
        "empty": "no readable video",
        "absent": "does not exist",
        "broken.npy": "is damaged",
        "broken.npz": "is damaged",
        "short.mp4": "put videos or images into a folder",
        "both": "put them into folders of their own",
        "two.npz": "expected one array",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            open_collection(tmp_path / path)
    np.save(tmp_path / "short.npy", VIDEOS)
    with pytest.raises(ValueError, match="the 13 frames .* the longest has 12: give --frames=6 or less"):
        take_clips(open_collection(tmp_path / "short.npy"), 7, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_any_width_are_the_nearest_levels(dtype, tmp_path) -> None:
    floats = (VIDEOS / 127.5 - 1).astype(dtype)
    np.save(tmp_path / "set.npy", floats)
    ((whole,),) = read_clips(take_clips(open_collection(tmp_path / "set.npy"), 12))
    np.testing.assert_array_equal(whole, np.round((floats.astype(np.float32) + 1) * 127.5))


def test_the_first_frames_alone_decide_nothing(tmp_path) -> None:
    """Videos may begin in black, or white; what the numbers mean shows later."""
    black = VIDEOS.copy()
    black[:, 0] = VIDEOS[:, 0] // 128
    np.save(tmp_path / "black.npy", black)
    white = (VIDEOS / 127.5 - 1).astype(np.float32)
    white[:, 0] = 1
    np.save(tmp_path / "white.npy", white)
    for name in ("black.npy", "white.npy"):
        assert len(open_collection(tmp_path / name).videos) == 5
    white[:, 0] = -1
    white[3, 7, 0] = 1.5
    np.save(tmp_path / "beyond.npy", white)
    clips = take_clips(open_collection(tmp_path / "beyond.npy"), 12)
    with pytest.raises(ValueError, match="beyond.npy holds float32 from -1 to 1.5, expected"):
        list(read_clips(clips))


def test_a_size_resizes_and_crops_as_for_training(tmp_path) -> None:
    save_frames(tmp_path / "mixed", [VIDEOS[0], VIDEOS[1, :, :, :12]])
    np.save(tmp_path / "set.npy", VIDEOS[:2])
    collection = open_collection(tmp_path / "mixed", size=8)
    assert collection.resolution == "8x8"
    ((batch,),) = read_clips(take_clips(collection, 12))
    assert batch.shape == (2, 12, 8, 8, 3)
    ((batch,),) = read_clips(take_clips(open_collection(tmp_path / "set.npy", size=8), 12))
    expected = [center_crop({"video": resize_short_side(video, 8)}, 8)["video"] for video in VIDEOS[:2]]
    np.testing.assert_array_equal(batch, expected)


def test_mixed_sizes_come_in_batches_of_one_size(tmp_path) -> None:
    save_frames(tmp_path, [VIDEOS[0], VIDEOS[1, :, ::2], VIDEOS[2]])
    collection = open_collection(tmp_path, mixed=True)
    assert collection.resolution == "2 sizes"
    small, large = (batch for (batch,) in read_clips(take_clips(collection, 12)))
    np.testing.assert_array_equal(small, VIDEOS[1:2, :, ::2])
    np.testing.assert_array_equal(large, VIDEOS[[0, 2]])
