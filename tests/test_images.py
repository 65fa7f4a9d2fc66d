"""Images and videos: tiling, files that play at the right speed, and what notebooks show."""

import base64
import io
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from jaxvid import images


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode(path) -> tuple[np.ndarray, Fraction | None]:
    """Frames [T,H,W,3] of a video file and its frame rate."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_grid_puts_every_panel_of_every_example_in_its_place(monkeypatch):
    monkeypatch.setattr(images, "COLUMNS", 2)
    first, second = noise(3, 4, 128, 128, 3), noise(3, 4, 128, 128, 1, seed=1)
    tiled = images.grid([first, second])
    assert tiled.shape == (4, 2 * 128 + 4, 2 * (2 * 128 + 2) + 4, 3)
    for example, (top, left) in enumerate([(0, 0), (0, 262), (132, 0)]):
        cell = tiled[:, top : top + 128, left : left + 258]
        np.testing.assert_array_equal(cell[:, :, :128], first[example])
        np.testing.assert_array_equal(cell[:, :, 130:], second[example].repeat(3, axis=-1))
        assert (cell[:, :, 128:130] == images.SEPARATOR).all()
    assert (tiled[:, 132:, 262:] == images.SEPARATOR).all()  # the fourth place stays empty


@pytest.mark.parametrize("size, enlarged", [(32, 128), (64, 128), (100, 200), (200, 200)])
def test_grid_enlarges_small_videos_by_a_whole_factor(size, enlarged):
    video = noise(1, 2, size, size, 3)
    tiled = images.grid([video])
    assert tiled.shape == (2, enlarged, enlarged, 3)
    np.testing.assert_array_equal(tiled[:, :: enlarged // size, enlarged // size - 1 :: enlarged // size], video[0])


@pytest.mark.parametrize(
    "panels",
    [
        [],
        [noise(2, 4, 8, 8)],
        [noise(2, 4, 8, 8, 2)],
        [noise(0, 4, 8, 8, 3)],
        [noise(1, 4, 8, 8, 3), noise(1, 3, 8, 8, 3)],
    ],
)
def test_grid_refuses_panels_that_do_not_fit(panels):
    with pytest.raises(ValueError, match="one N, T, H, W"):
        images.grid(panels)


def test_film_strip_has_eight_frames_from_first_to_last():
    video = np.zeros((2, 16, 128, 128, 1), np.uint8)
    video += np.arange(16, dtype=np.uint8)[:, None, None, None] * 16
    video[1] += 5
    strip = images.film_strip([video])
    assert strip.shape == (10 + 18 + 2 * 128 + 14 + 10, 8 * 128 + 7 * 2 + 20, 3)
    for example, top in enumerate((28, 28 + 128 + 14)):
        row = strip[top : top + 128, 10:]
        assert [int(row[64, 64 + 130 * i, 0]) - 5 * example for i in range(8)] == [0, 32, 64, 96, 144, 176, 208, 240]


def test_film_strip_writes_labels_beside_the_rows_and_keeps_the_pixels():
    video, other = noise(1, 2, 128, 128, 3), noise(1, 2, 128, 128, 3, seed=1)
    plain = images.film_strip([video, other])
    labeled = images.film_strip([video, other], ["original", "reconstruction"], "step 100")
    margin = labeled.shape[1] - plain.shape[1]
    assert (labeled[52:310, : margin + 10] < 128).any(axis=(1, 2)).sum() > 10  # ink beside the rows
    assert (labeled[:30] < 128).any()  # the title
    wide = images.film_strip([video[:, :1], other[:, :1]], [], "a title that is longer than a frame is wide")
    assert (wide[:30, 148:] < 128).any() and (wide[:30, -8:] > 128).all() and wide.shape[1] > 148  # all of it
    np.testing.assert_array_equal(labeled[52:180, margin + 10 : margin + 138], video[0, 0])
    np.testing.assert_array_equal(labeled[182:310, margin + 10 : margin + 138], other[0, 0])
    with pytest.raises(ValueError, match="1 labels for 2 panels"):
        images.film_strip([video, other], ["original"])


def test_png_keeps_pixels(tmp_path):
    image = noise(7, 9, 3)
    images.write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)


@pytest.mark.parametrize("fps", [8, 24, Fraction(30000, 1001), 12.5])
def test_gif_plays_for_the_right_time_even_when_frames_repeat(tmp_path, fps):
    video = np.zeros((24, 16, 16, 1), np.uint8)
    video[10:12] = 255
    images.write_gif(tmp_path / "a.gif", video, fps)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        durations, values = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
            values.append(gif.convert("RGB").getpixel((8, 8))[0])
    assert abs(sum(durations) - 24000 / fps) <= 5
    assert values == [0, 255, 0]
    assert abs(durations[1] - 2000 / fps) <= 10


def test_gif_keeps_colors(tmp_path):
    video = noise(3, 4, 4, 3)  # 48 colors fit the palette
    images.write_gif(tmp_path / "a.gif", video, 8)
    with Image.open(tmp_path / "a.gif") as gif:
        for i, frame in enumerate(video):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB"), int) - frame).max() <= 2


def test_gif_does_not_flicker_where_nothing_moves(tmp_path):
    video = noise(4, 32, 64, 3)
    video[:, :, :32] = video[0, :, :32]
    images.write_gif(tmp_path / "a.gif", video, 8)
    with Image.open(tmp_path / "a.gif") as gif:
        static = []
        for i in range(4):
            gif.seek(i)
            static.append(np.asarray(gif.convert("RGB"))[:, :32])
    assert all((frame == static[0]).all() for frame in static)


@pytest.mark.parametrize("fps", [8, Fraction(30000, 1001), 12.5])
def test_mp4_keeps_frames_rate_and_colors_and_pads_odd_sizes(tmp_path, fps):
    video = np.zeros((5, 31, 45, 3), np.uint8)
    video[..., :20, :] = (200, 40, 40)
    video[..., 24:, 0] = 50 * np.arange(5)[:, None, None]
    images.write_mp4(tmp_path / "a.mp4", video, fps)
    frames, rate = decode(tmp_path / "a.mp4")
    assert frames.shape == (5, 32, 46, 3)
    assert rate == Fraction(fps)
    assert np.abs(frames[:, 4:28, 4:16].astype(int) - video[:, 4:28, 4:16]).max() <= 6
    np.testing.assert_allclose(frames[:, 16, 36, 0], 50 * np.arange(5), atol=8)


def test_mp4_is_what_browsers_play(tmp_path):
    images.write_mp4(tmp_path / "a.mp4", np.zeros((1, 16, 16, 1)), 8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is fully loaded


@pytest.mark.parametrize("write", [images.write_gif, images.write_mp4])
def test_writers_refuse_bad_input_and_leave_no_file(tmp_path, write):
    with pytest.raises(ValueError, match="frames per second"):
        write(tmp_path / "a", np.zeros((2, 8, 8, 3)), 0)
    with pytest.raises(ValueError, match=r"\[T,H,W,C\]"):
        write(tmp_path / "a", np.zeros((1, 2, 8, 8, 3)), 8)
    assert not list(tmp_path.iterdir())


def embedded(shown: images.Inline, kind: str) -> list[io.BytesIO]:
    """The files that the HTML for a notebook holds."""
    found = re.findall(rf'src="data:{kind};base64,([^"]+)"', shown._repr_html_())
    return [io.BytesIO(base64.b64decode(content, validate=True)) for content in found]


@pytest.mark.parametrize("size, factor", [(16, 8), (50, 3), (128, 1)])
def test_show_embeds_every_video_enlarged_by_a_whole_factor(size, factor):
    levels = np.array([0, 60, 120, 200], np.uint8)
    videos = np.zeros((2, 4, size, size, 3), np.uint8)
    videos[0] += levels[:, None, None, None]
    videos[1, :, : size // 2] = 250
    files = embedded(images.show(videos, captions=["one", "a < b"], fps=4), "video/mp4")
    assert len(files) == 2
    for file, video in zip(files, videos, strict=True):
        with av.open(file) as container:
            assert container.streams.video[0].average_rate == 4
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert frames.shape == (4, size * factor, size * factor, 3)
        np.testing.assert_allclose(frames[:, factor // 2 :: factor, factor // 2 :: factor].astype(int), video, atol=8)


def test_show_takes_floats_one_video_and_panels_side_by_side():
    low, high = np.full((3, 16, 16, 1), -1.0), np.full((3, 16, 16, 1), 1.0)
    (file,) = embedded(images.show(low, high), "video/mp4")
    with av.open(file) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == (3, 128, 258, 3)
    assert (frames[:, :, :120] < 8).all() and (frames[:, :, 138:] > 247).all()


def test_show_embeds_single_frames_without_loss():
    image = noise(1, 5, 7, 3)
    (file,) = embedded(images.show(image), "image/png")
    pixels = np.asarray(Image.open(file))
    np.testing.assert_array_equal(pixels, image[0].repeat(19, axis=0).repeat(19, axis=1))


def test_show_writes_captions_and_keeps_its_content_out_of_plain_text():
    shown = images.show(np.zeros((2, 2, 8, 8, 3)), captions=["a < b", "c"])
    assert "a &lt; b</figcaption>" in shown._repr_html_() and "c</figcaption>" in shown._repr_html_()
    assert len(repr(shown)) < 100


@pytest.mark.parametrize(
    "videos, options, message",
    [
        ([noise(4, 8, 8)], {}, "expected"),
        ([noise(2, 4, 8, 8, 2)], {}, "C 1 or 3"),
        ([np.zeros((2, 8, 8, 3), int)], {}, "uint8"),
        ([noise(4, 8, 8, 3), noise(3, 8, 8, 3)], {}, "all of one N, T, H, W"),
        ([noise(2, 4, 8, 8, 3)], {"captions": "ab"}, "1 captions for 2 videos"),
        ([noise(2, 8, 8, 3)], {"fps": 0}, "frames per second"),
        ([noise(2, 8, 8, 3)], {"fps": float("nan")}, "fps is nan: pass a positive number"),
        ([noise(2, 8, 8, 3)], {"fps": 1e-9}, "fps is 1e-09: pass a positive number"),
    ],
)
def test_show_refuses_what_it_cannot_show(videos, options, message):
    with pytest.raises(ValueError, match=message):
        images.show(*videos, **options)
