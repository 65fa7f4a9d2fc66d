"""Frames are the right ones: of every container, after every seek, upright, in the right colors, never invented."""

from __future__ import annotations

import gc
import json
import struct
import subprocess
import sys
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from counting import numbers, picture, write_video
from PIL import Image

from jaxvid.data import pictures, video
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import probe, probe_images, read_clip, read_frames

FORMATS = {
    "one_keyframe.mp4": {"g": "250", "bf": "3"},
    "gop_12.mp4": {"g": "12", "bf": "3"},
    "gop_3.mp4": {"g": "3", "bf": "3"},
    "all_keyframes.mp4": {"g": "1"},
    "open_gop.mkv": {"x264-params": "open-gop=1:keyint=12:bframes=3"},
    "open_gop.mp4": {"x264-params": "open-gop=1:keyint=12:bframes=3"},
    "intra_refresh.mp4": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"},
    "b_frames.avi": {"g": "10", "bf": "3"},
    "stream.ts": {"g": "10", "bf": "3"},
    "raw.264": {"g": "10", "bf": "3"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "keyint=10:open-gop=1:bframes=3:log-level=none"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "8", "bf": "2", "b": "2M"},
    "mpeg4.avi": {"codec": "mpeg4", "g": "10", "bf": "2", "b": "2M"},
    "mpeg4.mov": {"codec": "mpeg4", "g": "10", "bf": "2", "b": "2M"},
    "vp8.webm": {"codec": "libvpx", "g": "10", "b": "2M", "deadline": "realtime", "cpu-used": "8"},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "10", "b": "2M", "deadline": "realtime", "cpu-used": "8"},
    "lossless.avi": {"codec": "ffv1", "pix_fmt": "gray"},
    "motion_jpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "ten_bit.mp4": {"pix_fmt": "yuv444p10le", "g": "12"},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "raw.y4m": {"codec": "wrapped_avframe"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_is_the_one_asked_for(tmp_path, name):
    path = write_video(tmp_path / name, 60, **FORMATS[name])
    info = probe(path)
    assert len(info.pts) == len(probe(path, decode=True).pts) == 60
    assert (info.width, info.height) == (64, 48) and info.fps == pytest.approx(25, rel=0.01)
    assert numbers(read_clip(info, range(60), 48)) == list(range(60))
    for first in range(59):  # each of them is a seek of its own
        assert numbers(read_clip(info, [first, first + 1], 48)) == [first, first + 1]
    scattered = [3, 9, 10, 31, 55, 59]
    assert numbers(read_clip(info, scattered, 48)) == scattered


@pytest.mark.parametrize("name", FORMATS)
def test_frames_in_order_are_those_of_clips_with_their_timestamps(tmp_path, name):
    info = probe(write_video(tmp_path / name, 30, **FORMATS[name]))
    pts, frames = zip(*read_frames(info, 24), strict=True)
    assert list(pts) == info.pts.tolist()
    np.testing.assert_array_equal(np.stack(frames), read_clip(info, range(30), 24))


def test_frames_in_order_come_one_by_one_up_to_the_first_that_is_damaged(tmp_path):
    path = write_video(tmp_path / "a.mp4", 120, noise=60, g="12", layout={"movflags": "faststart"})
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])
    read = []
    with pytest.raises(DamagedClip, match="cannot be found in it|incomplete|damaged|FFmpeg"):
        for _, frame in read_frames(probe(path), 48):
            read.append(frame)
    assert 40 < len(read) < 80 and numbers(np.stack(read)) == list(range(len(read)))
    info = probe(write_video(tmp_path / "b.mp4", 3))
    with pytest.raises(DamagedClip, match="1 of its 4 frames cannot be found in it"):
        list(read_frames(replace(info, pts=np.append(info.pts, info.pts[-1] + 1)), 48))
    images = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, image in enumerate(images):
        Image.fromarray(picture(number)).save(image)
    pts, frames = zip(*read_frames(probe_images(str(tmp_path), images), 48), strict=True)
    assert list(pts) == [0, 1, 2] and numbers(np.stack(frames)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm", "a.mov"])
def test_variable_frame_rate_keeps_frames_and_their_times(tmp_path, name):
    milliseconds = np.cumsum(np.random.default_rng(0).integers(10, 200, 50)).tolist()
    options = (
        {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"}
        if name.endswith("webm")
        else {"g": "12", "bf": "3"}
    )
    info = probe(write_video(tmp_path / name, 50, milliseconds=milliseconds, **options))
    np.testing.assert_allclose(info.times - info.times[0], (np.array(milliseconds) - milliseconds[0]) / 1000, atol=1e-3)
    assert info.fps == pytest.approx(49 / (milliseconds[-1] - milliseconds[0]) * 1000, rel=1e-3)
    assert all(numbers(read_clip(info, [i, i + 3], 48)) == [i, i + 3] for i in range(0, 47, 5))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_metadata_turns_the_picture(tmp_path, rotation):
    info = probe(write_video(tmp_path / "a.mov", 12, rotation=rotation))
    assert (info.width, info.height) == ((48, 64) if rotation % 180 else (64, 48))
    clip = read_clip(info, [5, 6, 11], 48)
    for frame, number in zip(clip, [5, 6, 11], strict=True):
        assert np.abs(frame.astype(int) - np.rot90(picture(number), rotation // 90)).mean() < 8  # counter-clockwise


ORIENTATIONS = {  # the display matrix a, b, c, d takes (column, row) to (a column + c row, b column + d row)
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # a column to the right becomes a row down
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_the_display_matrix_turns_and_mirrors_the_picture(tmp_path, matrix):
    path = Path(write_video(tmp_path / "a.mp4", 12))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2, version 0: nine numbers with 16 bits of fraction
    a, b, c, d = (number << 16 for number in matrix)
    assert struct.unpack_from(">9i", data, place) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info = probe(str(path))
    upright = ORIENTATIONS[matrix](picture(11))
    assert (info.height, info.width) == upright.shape[:2]
    assert np.abs(read_clip(info, [11], 48)[0].astype(int) - upright).mean() < 8
    np.testing.assert_array_equal(list(read_frames(info, 48))[11][1], read_clip(info, [11], 48)[0])


def test_frames_before_a_cut_are_decoded_and_not_shown(tmp_path):
    """A cut without re-encoding starts at a keyframe; an edit list hides what precedes the cut."""
    path = tmp_path / "cut.mp4"
    whole = write_video(tmp_path / "a.mp4", 60, g="20", bf="3")
    with av.open(whole) as source, av.open(str(path), "w", options={"use_editlist": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 7 * 512, packet.dts - 7 * 512  # FFmpeg writes the list for these
                packet.stream = stream
                target.mux(packet)
    for info in (probe(str(path)), probe(str(path), decode=True)):
        assert len(info.pts) == 53 and info.notes == ("its edit list hides 7 of 60 frames",)
        assert numbers(read_clip(info, range(53), 48)) == list(range(7, 60))
        assert numbers(np.stack([frame for _, frame in read_frames(info, 48)])) == list(range(7, 60))
        for first in range(50):
            assert numbers(read_clip(info, range(first, first + 3), 48)) == list(range(first + 7, first + 10))


def test_pixels_that_are_not_square_and_interlacing_are_noted(tmp_path):
    path = str(tmp_path / "a.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ilme+ildct"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(5), format="rgb24")))
        container.mux(stream.encode())
    assert probe(path).notes == (
        "its pixels are 16:15 and are taken as square",
        "it is interlaced, and both fields of a frame are kept",
    )
    assert probe(write_video(tmp_path / "plain.mp4", 2)).notes == ()


def test_a_cut_recording_starts_at_its_first_keyframe(tmp_path):
    whole = write_video(tmp_path / "a.ts", 60, g="20", bf="0")
    with av.open(whole) as source, av.open(str(tmp_path / "cut.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[7:]:
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    info = probe(str(tmp_path / "cut.ts"))
    assert len(info.pts) == len(probe(info.path, decode=True).pts) == 40
    assert numbers(read_clip(info, range(40), 48)) == list(range(20, 60))


def test_hidden_vp8_frames_do_not_count(tmp_path):
    whole = write_video(tmp_path / "a.webm", 20, codec="libvpx", b="2M", g="99")
    with av.open(whole) as source, av.open(str(tmp_path / "hidden.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            data = bytearray(bytes(packet))
            if number == 7:
                data[0] &= ~16  # show_frame, RFC 6386 section 9.1
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base, copy.is_keyframe = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.is_keyframe,
            )
            copy.stream = stream
            target.mux(copy)
    info = probe(str(tmp_path / "hidden.webm"))
    expected = [number for number in range(20) if number != 7]
    assert numbers(read_clip(info, range(19), 48)) == expected


def test_a_clip_decodes_no_more_than_it_needs(tmp_path, monkeypatch):
    info = probe(write_video(tmp_path / "long.mp4", 1000, g="50", bf="2"))
    decoded = []
    frames = video._frames
    monkeypatch.setattr(video, "_frames", lambda *args: (decoded.append(item[0]) or item for item in frames(*args)))
    for first in (0, 60, 500, 940, 984):
        decoded.clear()
        assert numbers(read_clip(info, range(first, first + 16), 48)) == list(range(first, first + 16))
        assert len(decoded) < 50 + 16, f"{len(decoded)} frames decoded for the clip at {first}"
    assert len(decoded) < 45  # of the frames before the clip only those that others need


def test_a_container_that_seeks_badly_is_read_from_its_start(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", 40, g="10"))
    wrong = replace(info, keyframes=info.pts[[0, 15]])  # frame 15 is no keyframe: nothing is found there
    assert numbers(read_clip(wrong, [20, 21], 48)) == [20, 21]


def test_a_frame_that_is_not_there_does_not_cost_the_whole_file(tmp_path, monkeypatch):
    info = probe(write_video(tmp_path / "a.mp4", 400, g="10"))
    pts = info.pts.copy()
    pts[20] += 1
    decoded = []
    frames = video._frames
    monkeypatch.setattr(video, "_frames", lambda *args: (decoded.append(item[0]) or item for item in frames(*args)))
    with pytest.raises(DamagedClip, match="1 of the frames 20 to 22 cannot be found"):
        read_clip(replace(info, pts=pts), [20, 21, 22], 48)
    assert len(decoded) < 60


def test_no_frame_is_held_beyond_the_clip(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", 60))
    read_clip(info, range(30, 40), 48)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, av.VideoFrame | av.container.InputContainer)]


@pytest.mark.parametrize("indices", [[], [-1], [60], [3, 3], [4, 2]])
def test_impossible_frames_are_refused(tmp_path, indices):
    info = probe(write_video(tmp_path / "a.mp4", 60))
    with pytest.raises(ValueError, match="60 frames; a clip of it is ascending indices"):
        read_clip(info, indices, 48)


@pytest.mark.parametrize("short_side", [7, 24, 48, 96])
def test_the_short_side_is_as_asked_and_brightness_stays(tmp_path, short_side):
    info = probe(write_video(tmp_path / "a.mp4", 3, crf="1"))
    clip = read_clip(info, [2], short_side)
    assert clip.shape == (1, short_side, round(short_side * 64 / 48), 3) and clip.dtype == np.uint8
    assert clip.mean() == pytest.approx(picture(2).mean(), abs=1.5)


def test_shrinking_averages_areas():
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    small = video._resized(av.VideoFrame.from_ndarray(noise), 32, 24)
    np.testing.assert_allclose(small, noise.reshape(24, 4, 32, 4, 3).mean((1, 3)), atol=2.5)


@pytest.mark.parametrize(
    "color", [(255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40)]
)
@pytest.mark.parametrize("matrix, full_range", [("ITU601", False), ("ITU601", True), ("ITU709", False)])
def test_colors_follow_the_file_s_matrix_and_range(tmp_path, color, matrix, full_range):
    path = str(tmp_path / "a.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = 1 if matrix == "ITU709" else 6
        stream.codec_context.color_range = 2 if full_range else 1
        planes = _to_yuv(color, matrix, full_range)
        flat = np.repeat(planes, [64 * 48, 32 * 24, 32 * 24]).reshape(72, 64)
        frame = av.VideoFrame.from_ndarray(flat, format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(read_clip(probe(path), [0], 24)[0, 12, 16], color, atol=1.6)


def _to_yuv(color: tuple[int, int, int], matrix: str, full_range: bool) -> np.ndarray:
    """ITU-R BT.601 and BT.709: luma is a weighted sum, chroma the scaled differences from it."""
    red, green, blue = np.array(color) / 255
    weight_red, weight_blue = (0.2126, 0.0722) if matrix == "ITU709" else (0.299, 0.114)
    luma = weight_red * red + (1 - weight_red - weight_blue) * green + weight_blue * blue
    chroma = np.array([(blue - luma) / (1 - weight_blue), (red - luma) / (1 - weight_red)]) / 2
    if full_range:
        return np.round([luma * 255, *(chroma * 255 + 128)]).clip(0, 255).astype(np.uint8)
    return np.round([16 + 219 * luma, *(128 + 224 * chroma)]).astype(np.uint8)


@pytest.mark.parametrize(
    "pix_fmt", ["bgr0", "bgra", "gray", "gray10le", "rgb48le", "yuva420p", "yuv422p10le", "yuv410p"]
)
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (30, 2)])
def test_any_pixel_format_and_size_becomes_rgb(tmp_path, pix_fmt, size):
    path, (width, height) = str(tmp_path / "a.nut"), size
    flat = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), format="rgb24")
    flat = flat.reformat(format=pix_fmt, threads=1)  # with more, rows of small frames are now and then left unwritten
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1" if pix_fmt != "yuv410p" else "rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        container.mux(stream.encode(flat))
        container.mux(stream.encode())
    for short_side in (1, 5, 32):
        clip = read_clip(probe(path), [0], short_side)
        assert min(clip.shape[1:3]) == short_side
        np.testing.assert_allclose(clip.astype(int), 200, atol=4)


@pytest.mark.parametrize(
    "ending, mode", [("jpg", "RGB"), ("png", "RGBA"), ("png", "P"), ("webp", "RGB"), ("bmp", "L"), ("tif", "CMYK")]
)
def test_images_are_videos_of_one_frame(tmp_path, ending, mode):
    path = str(tmp_path / f"a.{ending}")
    image = Image.fromarray(picture(1234)).convert(mode)
    image.save(path, **({"quality": 95} if ending in ("jpg", "webp") else {}))
    info = probe_images(path, [path])
    assert (len(info.pts), info.width, info.height) == (1, 64, 48)
    assert numbers(read_clip(info, [0], 24)) == [1234]


def test_images_in_16_bit_and_with_exif_orientation(tmp_path):
    gray = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    info = probe_images("", [str(tmp_path / "gray.png")])
    np.testing.assert_allclose(read_clip(info, [0], 48)[0, :, :, 1], gray / 257, atol=1)
    exif = Image.Exif()
    exif[pictures.EXIF_ORIENTATION] = 6  # the camera was held so that the picture must be turned clockwise
    for name in ("turned.png", "turned.tif"):
        Image.fromarray(picture(77)).save(tmp_path / name, exif=exif)
        info = probe_images("", [str(tmp_path / name)])
        assert (info.width, info.height) == (48, 64)
        np.testing.assert_array_equal(read_clip(info, [0], 48)[0], np.rot90(picture(77), -1))


def test_a_folder_of_images_is_one_video(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(number)).save(path)
    assert numbers(read_clip(probe_images(str(tmp_path), paths), range(2, 9), 48)) == list(range(2, 9))
    Image.fromarray(picture(7)[:24]).save(paths[7])
    with pytest.raises(DamagedClip, match="7.png: it is 64x24 pixels, the first image of its folder 64x48"):
        read_clip(probe_images(str(tmp_path), paths), range(2, 9), 48)
    info = probe_images(str(tmp_path), paths, decode=True)
    assert len(info.pts) == 7 and "7 of 12 images decode" in info.notes[0]
    Path(paths[0]).write_bytes(b"no image")
    with pytest.raises(DamagedClip, match="0.png: it cannot be opened as an image"):
        probe_images(str(tmp_path), paths)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts", "a.mpg", "a.avi"])
def test_of_a_truncated_file_each_clip_is_right_or_refused(tmp_path, name):
    path, truth, data = _noisy_video(tmp_path / name)
    read = 0
    for share in (0.3, 0.5, 0.77, 0.99):
        Path(path).write_bytes(data[: int(share * len(data))])
        info = probe(path)
        assert abs(len(info.pts) - 120 * share) < 12
        for first in range(0, len(info.pts) - 8, 12):
            try:
                clip = read_clip(info, range(first, first + 8), 48)
            except DamagedClip as damage:
                assert damage.path == path and first > len(info.pts) - 20
            else:
                np.testing.assert_array_equal(clip, truth[first : first + 8])
                read += 1
    assert read > 15


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_of_an_overwritten_file_frames_are_right_or_refused(tmp_path, name):
    """Frames may be lost, so that what follows moves up; none is painted over, repeated, or out of order."""
    path, truth, data = _noisy_video(tmp_path / name)
    refused = 0
    for share in (0.3, 0.5, 0.77):
        start = int(share * len(data))
        Path(path).write_bytes(data[:start] + bytes(5000) + data[start + 5000 :])
        info = probe(path)
        for first in range(0, len(info.pts) - 4, 4):
            try:
                clip = read_clip(info, range(first, first + 4), 48)
            except DamagedClip as damage:
                assert damage.path == path
                refused += 1
            else:
                assert (np.diff(numbers(clip)) > 0).all()
                np.testing.assert_array_equal(clip, truth[numbers(clip)])
        assert len(probe(path, decode=True).pts) <= len(info.pts)
    assert refused


def _noisy_video(path: Path) -> tuple[str, np.ndarray, bytes]:
    codec = {".webm": {"codec": "libvpx"}, ".mpg": {"codec": "mpeg2video"}, ".avi": {"codec": "mpeg4"}}.get(
        path.suffix, {}
    )
    layout = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    name = write_video(path, 120, noise=60, layout=layout, g="12", b="2M", **codec)
    return name, read_clip(probe(name), range(120), 48), path.read_bytes()


def test_a_file_that_vanishes_is_a_damaged_clip(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", 5))
    Path(info.path).unlink()
    with pytest.raises(DamagedClip, match="No such file"):
        read_clip(info, [0], 48)


def test_names_and_titles_need_not_be_utf8(tmp_path):
    path = write_video(tmp_path / "a.mkv", 5, title="a title of ours")
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b"title of ours", b"title \xff\xfe\xe9\xe8ours"))
    assert numbers(read_clip(probe(path), range(5), 48)) == list(range(5))
    strange = tmp_path / "\udcff\udce9.mkv"
    try:
        strange.write_bytes(data)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    try:
        assert len(probe(str(strange)).pts) == 5
    except DamagedClip as damage:
        assert damage.path == str(strange)


def test_ffmpeg_says_nothing_on_stderr(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30, noise=60)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    Path(path).write_bytes(data)
    code = f"from jaxvid.data.video import probe; print(len(probe({path!r}, decode=True).pts))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(result.stdout) < 30 and not result.stderr


def test_real_videos_are_as_their_manifest_says(shared):
    folder = shared / "data" / "videos"
    if not folder.is_dir():
        pytest.skip("needs shared/data/videos")
    for entry in json.loads((folder / "MANIFEST.json").read_text()):
        if entry["file"].endswith("/"):
            continue
        info = probe(str(folder / entry["file"]))
        size = (info.height, info.width) if info.rotation % 180 else (info.width, info.height)
        assert size == (entry["w"], entry["h"]), entry["file"]
        assert len(info.pts) == entry["frames"], entry["file"]
        odd = any("header declares" in note for note in info.notes)
        assert odd == (entry["header_frames"] not in (0, entry["frames"])), entry["file"]
        assert info.rotation == -entry["rotation"][0] % 360 or info.rotation == entry["rotation"][0] % 360, entry[
            "file"
        ]
        assert info.fps == pytest.approx(entry["fps"], rel=0.05 if entry["variable_frame_rate"] else 0.001), entry[
            "file"
        ]
        first = len(info.pts) - 2
        clip = read_clip(info, [first, first + 1], 32)
        assert clip.std() > 3 and np.abs(np.diff(clip.astype(int), axis=0)).mean() < 60, entry["file"]


def test_real_videos_read_by_seeking_are_as_read_in_sequence(shared):
    """The report's file is H.264 4:4:4 of an x264 before build 151, whose name stands in the first packet only."""
    paths = [path for folder in ("data/videos", "reports") for path in (shared / folder).glob("*.*")]
    videos = [path for path in sorted(paths) if path.suffix not in (".json", ".md", ".csv", ".tif", ".npy")]
    if not videos:
        pytest.skip("needs shared/data/videos and shared/reports")
    generator = np.random.default_rng(0)
    for path in videos:
        info = probe(str(path))
        count = min(len(info.pts), 200)
        truth = read_clip(replace(info, keyframes=info.keyframes[:1]), range(count), 64)
        for first in [count - 3, *generator.integers(0, count - 2, 3)]:
            clip = read_clip(info, range(first, first + 3), 64)
            np.testing.assert_array_equal(clip, truth[first : first + 3], path.name)


def test_a_damaged_real_file_gives_its_original_s_frames_or_none(shared, tmp_path):
    archive, original = shared / "data" / "bad_videos.tar.gz", shared / "data" / "videos" / "arm_wrestling.mp4"
    if not archive.is_file() or not original.is_file():
        pytest.skip("needs shared/data/bad_videos.tar.gz and shared/data/videos")
    with tarfile.open(archive) as tar:
        tar.extract("bad/bit_damage.mp4", tmp_path, filter="data")
    sound, damaged = probe(str(original)), probe(str(tmp_path / "bad" / "bit_damage.mp4"))
    assert len(probe(damaged.path, decode=True).pts) == 79
    outcomes = []
    for first in range(0, 280, 20):
        try:
            clip = read_clip(damaged, range(first, first + 4), 64)
        except DamagedClip:
            outcomes.append("refused")
        else:
            np.testing.assert_array_equal(clip, read_clip(sound, range(first, first + 4), 64))
            outcomes.append("read")
    assert outcomes[:3] == ["read"] * 3 and "refused" in outcomes
