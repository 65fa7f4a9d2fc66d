"""Pictures of every kind of values, animations, pages, and folders of frames with any names."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from counting import numbers, picture, write_video
from PIL import Image

from jaxvid.data.folder import Folder
from jaxvid.data.index import build_index
from jaxvid.data.pictures import gaps, in_order
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, probe_images, read_clip

RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)
KINDS = {"u": 1, "i": 2, "f": 3}  # SampleFormat


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiff(path: Path, values: np.ndarray, photometric: int = 1, bits: int = 0) -> str:
    """One strip of gray values in the type of the array (TIFF 6.0, section 2), or of packed `bits`."""
    height, width = values.shape
    data = values.tobytes()
    if bits:
        data = np.packbits((values[..., None] >> np.arange(bits)[::-1]) & 1).tobytes()
    tags = {256: width, 257: height, 258: bits or 8 * values.itemsize, 259: 1, 262: photometric, 273: 0, 277: 1}
    tags |= {278: height, 279: len(data), 339: KINDS[values.dtype.kind]}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return str(path)


def shown(*paths: str) -> np.ndarray:
    """All frames of the video of these pictures, at their own size; float [T,h,w], and gray."""
    info = probe_images("", paths)
    clip = read_clip(info, range(len(info.pts)), min(info.width, info.height)).astype(float)
    assert (clip == clip[..., :1]).all()
    return clip[..., 0]


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32),
        (255 * RAMP).astype(np.float32),
        (65535 * RAMP).astype(np.float32),
        (255 * RAMP).astype(np.int32),
        (65535 * RAMP).astype(np.int32),
        (65535 * RAMP).astype(np.uint32),
        (65535 * RAMP).astype(np.uint16),
        (255 * RAMP).astype(np.uint8),
        np.zeros((48, 64), np.float32),
        (RAMP > 0.5).astype(np.int32),
    ],
    ids=lambda values: f"{values.dtype}-{values.max():g}",
)
def test_values_of_a_plain_range_are_scaled(tmp_path, values):
    expected = values / max(values.max(), 1e-9) * 255
    np.testing.assert_allclose(shown(tiff(tmp_path / "a.tif", values))[0], expected, atol=1)


def test_ranges_that_the_format_states(tmp_path):
    np.testing.assert_allclose(
        shown(tiff(tmp_path / "12.tif", (4095 * RAMP).astype(np.uint16), bits=12))[0], 255 * RAMP, atol=1
    )
    inverted = tiff(tmp_path / "white_is_zero.tif", (65535 * RAMP).astype(np.uint16), photometric=0)
    np.testing.assert_allclose(shown(inverted)[0], 255 * (1 - RAMP), atol=1)
    for white in (1023, 65535):
        (tmp_path / "a.pgm").write_bytes(b"P5 64 48 %d\n" % white + (white * RAMP).astype(">u2").tobytes())
        np.testing.assert_allclose(shown(str(tmp_path / "a.pgm"))[0], 255 * RAMP, atol=1)


def test_an_image_of_16_bits_that_uses_few_of_them_is_noted(tmp_path):
    info = probe_images("", [tiff(tmp_path / "a.tif", (4095 * RAMP).astype(np.uint16))])
    assert info.notes == ("it is dark: its values reach 4095 of 65535",)


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32) * 2 - 1,
        RAMP.astype(np.float32) * 5,
        np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32),
        (1000 * RAMP).astype(np.int32),
        (2**31 * RAMP).astype(np.uint32),
        (65535 * RAMP - 32768).astype(np.int16),
        (255 * RAMP - 128).astype(np.int8),
        RAMP,
        RAMP.astype(np.float16),
        (255 * RAMP).astype(np.uint64),
    ],
    ids=lambda values: f"{values.dtype}-{values.max():g}",
)
def test_values_of_no_plain_range_are_refused_by_name(tmp_path, values):
    path = tiff(tmp_path / "a.tif", values)
    with pytest.raises(DamagedClip, match=r"a\.tif: (its values go from .* save it with 8 or 16 bits|it cannot be op)"):
        probe_images("", [path])
    write_video(tmp_path / "b.mp4", 1)
    skipped = Folder(str(tmp_path), 1, 48).skipped
    assert [name for name, _ in skipped] == ["a.tif"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"])
def test_modes_that_have_a_range_are_as_they_were(tmp_path, mode):
    path = str(tmp_path / "a.tif")
    Image.fromarray(picture(1234)).convert("RGB").convert("L" if mode == "LA" else mode).convert(mode).save(path)
    assert numbers(read_clip(probe_images("", [path]), [0], 48)) == [1234]


def test_all_pictures_of_a_video_have_one_range(tmp_path):
    """A first frame that is all dark says nothing of the range."""
    frames = [np.full((48, 64), level, np.float32) for level in (0, 0.5, 100, 255)]
    paths = [tiff(tmp_path / f"{number}.tif", frame) for number, frame in enumerate(frames)]
    np.testing.assert_allclose(shown(*paths).mean((1, 2)), [0, 0.5, 100, 255], atol=0.51)


@pytest.mark.parametrize("ending, milliseconds", [("webp", 40), ("png", 40), ("gif", 40), ("tif", 0)])
def test_animations_and_pages_are_videos(tmp_path, ending, milliseconds):
    first, *others = (Image.fromarray(picture(number)) for number in range(24))
    options = {"duration": milliseconds} if milliseconds else {}
    options |= {"lossless": True} if ending == "webp" else {}
    for name in ("1", "2"):  # two numbered animations are two videos
        first.save(tmp_path / f"{name}.{ending}", save_all=True, append_images=others, **options)
    index = build_index(str(tmp_path), sequences=True)
    assert list(index.videos) == [f"1.{ending}", f"2.{ending}"]
    for info in (index.videos[f"2.{ending}"], build_index(str(tmp_path), sequences=True).videos[f"2.{ending}"]):
        assert info.fps == pytest.approx(25 if milliseconds else 0) and info.notes == ()
        assert numbers(read_clip(info, range(24), 48)) == list(range(24))
        assert numbers(read_clip(info, [7, 9, 23], 48)) == [7, 9, 23]
    assert len(Folder(str(tmp_path), 8, 24)) == 3


def test_pictures_that_are_not_of_the_animation_do_not_count(tmp_path):
    first, *others = (Image.fromarray(picture(number)) for number in range(5))
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=40, default_image=True)
    info = probe_images("", [str(tmp_path / "a.png")])
    assert numbers(read_clip(info, range(len(info.pts)), 48)) == [1, 2, 3, 4]
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first.resize((16, 12))])  # a preview
    info = probe_images("", [str(tmp_path / "a.tif")])
    assert len(info.pts) == 1 and info.notes == ("1 of its 2 pictures are used: the next is of another size",)


FRAMES = {
    "running": [f"frame_{number}.png" for number in range(20)],
    "from_5_by_10": [f"{number:05}.PNG" for number in range(5, 205, 10)],
    "camera": [f"{number:04}_cam2.png" for number in range(20)],
    "resolution": [f"take3_{number}_1080p.png" for number in range(20)],
    "nanoseconds": [f"{1403636579763555584 + 50_000_000 * number}.png" for number in range(20)],
    "seconds": [f"{number * 0.04:.3f}.png" for number in range(20)],
    "shortest": [f"{round(number * 0.04, 2)}.png" for number in range(20)],
    "unix_time": [f"{1305031102.175304 + number / 30:.6f}.png" for number in range(20)],
    "clock": [f"{12 + number // 10:02}-{number % 10:02}-{30 - number:02}.png" for number in range(20)],
    "fraction": [f"23h59m{40 + number // 2}.{number % 2 * 5}s.png" for number in range(20)],
    "days": [f"2021-{3 + number // 10:02}-{1 + number % 10:02}.png" for number in range(20)],
    "midnight": [f"IMG_202103{'04_23' if number < 10 else '05_00'}{number:02}07.png" for number in range(20)],
    "number_and_time": [f"{number}_{0.033 * number:.3f}.png" for number in range(20)],
    "shots": [f"sh.1.{number}.png" for number in range(1, 21)],
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_in_the_order_of_their_numbers_or_times(tmp_path, kind):
    """Extra entries that are no pictures do not matter."""
    folder = tmp_path / "videos" / "walk"
    (folder / "@eaDir" / "0.png").mkdir(parents=True)
    Image.fromarray(picture(0)).save(folder / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    for extra in ("n_frames", "notes.txt", "Thumbs.db", ".DS_Store", "._0.png"):
        (folder / extra).write_text("20")
    (folder / "masks").mkdir()
    for number, name in enumerate(FRAMES[kind]):
        Image.fromarray(picture(number)).save(folder / name)
    index = build_index(str(tmp_path / "videos"), sequences=True)
    assert list(index.videos) == ["walk"] and index.apart == {} and index.skipped == []
    info = index.videos["walk"]
    assert numbers(read_clip(info, range(20), 48)) == list(range(20)) and info.notes == ()


@pytest.mark.parametrize(
    "names, reason",
    [
        (["cat.png", "1.png"], "there is no number in the name 'cat.png'"),
        (["cat_1.png", "dog_2.png"], "the names 'cat_1.png' and 'dog_2.png' differ in more than a number"),
        (["1.png", "1_mask.png"], "differ in more than a number"),
        (["1.png", "01.png"], "the names '01.png' and '1.png' have the same number"),
        ([f"{clip:05}_{frame:03}.png" for clip in (1, 2) for frame in range(3)], "'00001_000.png' to '00002_002.png'"),
        ([f"{clip:06}_{frame:02}.png" for clip in (1, 2) for frame in range(3)], "differ in several numbers"),
    ],
)
def test_what_is_no_sequence_is_said(tmp_path, names, reason):
    (tmp_path / "walk").mkdir()
    for name in names:
        Image.fromarray(picture(1)).save(tmp_path / "walk" / name)
    write_video(tmp_path / "a.mp4", 40)
    skipped = dict(Folder(str(tmp_path), 16, 24).skipped)
    assert set(skipped) == {f"walk/{name}" for name in names}
    assert all(text.startswith("it has 1 of the 16 frames") and reason in text for text in skipped.values())
    ordered, why = in_order(names)
    assert ordered == [] and reason in why


def test_gaps_in_the_numbers_are_noted(tmp_path):
    names = [f"{number:03}.png" for number in (1, 2, 3, 7, 8, 10, 11)]
    for name in names:
        Image.fromarray(picture(1)).save(tmp_path / name)
    info: VideoInfo = build_index(str(tmp_path), sequences=True).videos["."]
    assert info.notes == ("the numbers of its frames have gaps: 4 missing, the first after 003.png",)
    assert gaps([f"{number}.png" for number in range(0, 100, 5)]) == ""  # every fifth
    assert gaps([f"{number * 0.033:.3f}.png" for number in range(30)]) == ""


def test_a_video_beside_frames_stays_one(tmp_path):
    for number in range(16):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    write_video(tmp_path / "whole.mp4", 16)
    assert set(build_index(str(tmp_path), sequences=True).videos) == {".", "whole.mp4"}
