"""Pictures: pixels, tiling, files that play at the right speed, and a report that stands alone."""

import base64
import io
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jaxvid import images, report
from jaxvid.files import replacing


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode(path) -> tuple[np.ndarray, Fraction | None]:
    """Frames [T,H,W,3] of a video file and its frame rate."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_grid_puts_every_panel_of_every_example_in_its_place():
    first, second = noise(3, 4, 128, 128, 3), noise(3, 4, 128, 128, 1, seed=1)
    picture = images.grid([first, second], columns=2)
    assert picture.shape == (4, 2 * 128 + 4, 2 * (2 * 128 + 2) + 4, 3)
    for example, (top, left) in enumerate([(0, 0), (0, 262), (132, 0)]):
        cell = picture[:, top : top + 128, left : left + 258]
        np.testing.assert_array_equal(cell[:, :, :128], first[example])
        np.testing.assert_array_equal(cell[:, :, 130:], second[example].repeat(3, axis=-1))
        assert (cell[:, :, 128:130] == images.SEPARATOR).all()
    assert (picture[:, 132:, 262:] == images.SEPARATOR).all()  # the fourth place stays empty


@pytest.mark.parametrize("size, shown", [(32, 128), (64, 128), (100, 200), (200, 200)])
def test_grid_enlarges_small_videos_by_a_whole_factor(size, shown):
    video = noise(1, 2, size, size, 3)
    picture = images.grid([video])
    assert picture.shape == (2, shown, shown, 3)
    np.testing.assert_array_equal(picture[:, :: shown // size, shown // size - 1 :: shown // size], video[0])


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


def test_film_strip_shows_eight_frames_from_first_to_last():
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
    labelled = images.film_strip([video, other], ["original", "reconstruction"], "step 100")
    margin = labelled.shape[1] - plain.shape[1]
    assert (labelled[52:310, : margin + 10] < 128).any(axis=(1, 2)).sum() > 10  # ink beside the rows
    assert (labelled[:30] < 128).any()  # the title
    np.testing.assert_array_equal(labelled[52:180, margin + 10 : margin + 138], video[0, 0])
    np.testing.assert_array_equal(labelled[182:310, margin + 10 : margin + 138], other[0, 0])
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


def test_gif_keeps_colours():
    video = noise(3, 4, 4, 3)  # 48 colours fit the palette
    with Image.open(io.BytesIO(images.encode_gif(video, 8))) as gif:
        for i, frame in enumerate(video):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB"), int) - frame).max() <= 2


def test_gif_does_not_flicker_where_nothing_moves():
    video = noise(4, 32, 64, 3)
    video[:, :, :32] = video[0, :, :32]
    with Image.open(io.BytesIO(images.encode_gif(video, 8))) as gif:
        still = []
        for i in range(4):
            gif.seek(i)
            still.append(np.asarray(gif.convert("RGB"))[:, :32])
    assert all((frame == still[0]).all() for frame in still)


@pytest.mark.parametrize("fps", [8, Fraction(30000, 1001), 12.5])
def test_mp4_keeps_frames_rate_and_colours_and_pads_odd_sizes(tmp_path, fps):
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


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("ha")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text; fails on tags that are not closed in order."""

    VOID = {"meta", "line", "polyline", "circle", "path"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def curve(line: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places [n,2], steps [n] and values [n] of a polyline."""
    places = np.array([[float(number) for number in place.split(",")] for place in line["points"].split()])
    values = [float(value.replace("k", "e3").replace("M", "e6")) for value in line["data-values"].split()]
    return places, np.array([int(step) for step in line["data-steps"].split()]), np.array(values)


def write_report(path: Path, **changes) -> Page:
    settings: dict = {"title": "a title", "status": "running", "step": 50, "total_steps": 200, "history": []}
    report.report(path, **(settings | changes))
    return Page(path)


def test_report_of_nothing_is_a_page(tmp_path):
    page = write_report(tmp_path / "report.html")
    assert "a title" in page.text and "step 50 of 200" in page.text and "25%" in page.text
    assert not page.all("svg") and not page.all("video")


def test_report_needs_nothing_from_outside_and_trusts_no_text(tmp_path):
    evil = '"><script>alert(1)</script>&'
    page = write_report(
        tmp_path / "report.html",
        title=evil,
        status=evil,
        history=[{"step": 1, evil: 1.0, "eval/" + evil: 2.0}],
        videos=[(1, tmp_path / (evil.replace("/", "") + ".mp4"))],
        video_caption=evil,
        histograms={evil: [1, 2]},
        config={evil: {evil: evil}},
        environment={evil: evil},
        files={evil: "javascript:" + evil},
        parameters=evil,
    )
    assert len(page.all("script")) == 1 and page.text.count(evil) >= 12
    assert not page.all("link") and not page.all("img")
    addresses = [a[key] for _, a in page.elements for key in ("src", "href") if key in a]
    assert len(addresses) == 2 and not any(":" in address or '"' in address for address in addresses)


def test_report_embeds_the_last_video_and_earlier_ones_evenly(tmp_path):
    videos = [(1000 * i, tmp_path / "videos" / f"{i}.mp4") for i in range(1, 10)]
    for step, path in videos:
        images.write_mp4(path, np.full((2, 16, 16, 1), step // 1000, np.uint8), 8)
    page = write_report(tmp_path / "report.html", videos=videos)
    embedded = [base64.b64decode(video["src"].partition("base64,")[2]) for video in page.all("video")]
    assert embedded == [videos[i][1].read_bytes() for i in (8, 0, 2, 4, 6)]
    assert all("loop" in video and "muted" in video and "playsinline" in video for video in page.all("video"))
    assert "step 9\u202f000" in page.text


def test_report_refers_to_a_large_video_from_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "EMBEDDED_BYTES", 10)
    images.write_mp4(tmp_path / "videos" / "a b.mp4", np.zeros((2, 16, 16, 1)), 8)
    page = write_report(tmp_path / "report.html", videos=[(1, tmp_path / "videos" / "a b.mp4")])
    assert [video["src"] for video in page.all("video")] == ["videos/a%20b.mp4"]


def test_report_draws_curves_in_proportion(tmp_path):
    history = [{"step": s, "time": 0.0, "train/psnr": 10 + s / 10} for s in range(0, 101, 5)]
    history += [{"step": s, "time": 0.0, "eval/psnr": 20.0 - s / 10} for s in (50, 100)]
    page = write_report(tmp_path / "report.html", history=history)
    lines = {line["class"]: curve(line) for line in page.all("polyline")}
    assert len(page.all("svg")) == 1 and set(lines) == {"train", "eval"}
    for places, steps, values in lines.values():
        np.testing.assert_allclose(places[:, 0], 36 + 264 * steps / 100, atol=0.06)
        np.testing.assert_allclose(places[:, 1], 150 * (20 - values) / 10, atol=0.06)
    assert "log scale" not in page.text
    assert "eval/psnr 10" in page.text and "train/psnr" not in page.text  # the summary prefers the evaluation
    assert "train  20" in page.text and "eval  10" in page.text  # the captions show the last values


def test_report_keeps_rising_metrics_on_a_linear_scale_and_puts_evaluated_ones_first(tmp_path):
    history = [{"step": s, "train/late": 1.0, "train/codes": 300 - 299 * 0.9**s} for s in range(101)]
    page = write_report(tmp_path / "report.html", history=[*history, {"step": 100, "eval/codes": 300.0}])
    assert [svg["aria-label"] for svg in page.all("svg")] == ["codes", "late"]
    places, _, values = curve(page.all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 150 * (300 - values) / 299, atol=0.1)


def test_report_draws_falling_losses_on_a_logarithmic_scale(tmp_path):
    history = [{"step": s, "loss": 10.0 ** (-s / 25)} for s in range(101)]
    page = write_report(tmp_path / "report.html", history=history)
    places, steps, _ = curve(page.all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 150 * steps / 100, atol=0.06)  # an exponential becomes a straight line
    assert "log scale" in page.text and "0.01" in page.text


@pytest.mark.parametrize("value", [0.0, -2.5, 1e-12, 3e9])
def test_report_draws_constants(tmp_path, value):
    history = [{"step": s, "a": value} for s in range(3)]
    places, _, values = curve(write_report(tmp_path / "report.html", history=history).all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 75, atol=0.06)
    np.testing.assert_allclose(values, value)


def test_report_thins_long_curves_but_keeps_spikes_and_the_end(tmp_path):
    history = [{"step": s, "a": s % 7 / 7} for s in range(20_000)]
    history[12_345]["a"] = 9.0
    history[777]["a"] = -9.0
    _, steps, values = curve(write_report(tmp_path / "report.html", history=history).all("polyline")[0])
    assert 400 < len(steps) <= 500 and (np.diff(steps) > 0).all()
    assert {777, 12_345, 19_999} <= set(steps.tolist())
    assert values[steps == 12_345] == 9.0
    assert (tmp_path / "report.html").stat().st_size < 40_000


def test_report_counts_values_that_are_not_finite(tmp_path):
    values = [1.0, np.nan, 2.0, np.inf, 3.0]
    history = [{"step": s, "a": value, "b": np.nan} for s, value in enumerate(values)]
    page = write_report(tmp_path / "report.html", history=history, status="stopped: the loss is NaN at step 1")
    _, steps, _ = curve(page.all("polyline")[0])
    assert steps.tolist() == [0, 2, 4]
    assert "not finite: 2" in page.text and "not finite: 5" in page.text
    assert "stopped: the loss is NaN at step 1" in page.text


def test_report_shows_how_the_codebook_is_used(tmp_path):
    page = write_report(tmp_path / "report.html", histograms={"codes": [0, 2, 0, 4, 2, 0, 0, 0], "none": [0, 0]})
    assert "3 of 8 codes used, perplexity 2.8" in page.text  # 2 ** 1.5
    assert "0 of 2 codes used" in page.text
    (area,) = page.all("path")
    # the bars end at three eighths of the width, and are as high as 4, 2, 2 of 4
    assert area["d"] == "M36 150V0.0H87.8V75.0H139.5V75.0H191.2V150Z"


def test_report_shows_the_mean_of_each_dimension(tmp_path):
    page = write_report(tmp_path / "report.html", profiles={"kl": [1.0, 0.0, 4.0, 3.0], "diverged": [1.0, np.nan]})
    assert "Dimensions" in page.text and "8 in all 4, at most 4 in one" in page.text
    assert "Codebook" not in page.text and "not finite: 1" in page.text
    (area,) = page.all("path")
    assert area["d"] == "M36 150V0.0H139.5V37.5H243.0V112.5H346.5V150.0H450.0V150Z"


def test_report_names_the_classes_that_fare_worst(tmp_path):
    accuracy = {f"class {index}": 1 - index / 20 for index in range(20)}
    absent = {"class 20": np.nan}
    page = write_report(tmp_path / "report.html", profiles={"accuracy_by_class": accuracy | absent})
    assert "in all 20" in page.text and "class 20" not in page.text
    assert "lowest: class 19 0.05, class 18 0.1" in page.text and "class 11" not in page.text


def test_report_codebook_of_many_codes_is_bounded_and_logarithmic_when_skewed(tmp_path):
    page = write_report(tmp_path / "report.html", histograms={"codes": 1e6 / np.arange(1, 65_537) ** 1.2})
    (area,) = page.all("path")
    heights = [float(part.partition("H")[0]) for part in area["d"].split("V")[1:-1]]
    assert len(heights) == 500 and heights == sorted(heights) and "log scale" in page.text
    assert all(0 <= height <= 150 for height in heights)


def test_report_lists_settings_and_files(tmp_path):
    page = write_report(
        tmp_path / "report.html",
        config={"model": {"codes": 1024}},
        environment={"jax": "0.10"},
        files={"checkpoints": "check points"},
        parameters="| kernel | 3 |",
        seconds=5400,
    )
    for words in ("model.codes 1024", "jax 0.10", "checkpoints check points", "| kernel | 3 |", "1.5 h"):
        assert words in " ".join(page.text.split())
    assert page.all("a") == [{"href": "check%20points"}]
