"""The report of a run stands alone: its charts are in proportion, and it trusts no text."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvid import images, report
from jaxvid.core import Profile
from jaxvid.recorder import sizes


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
    settings: dict = {"title": "a title", "step": 50, "total_steps": 200, "history": []}
    report.report(path, **(settings | changes))
    return Page(path)


def test_of_nothing_is_a_page(tmp_path):
    page = write_report(tmp_path / "report.html")
    assert all(words in page.text for words in ("a title", "running", "step 50 of 200", "25%"))
    assert "finished" in write_report(tmp_path / "report.html", step=200).text
    assert not page.all("svg") and not page.all("video")


def test_needs_nothing_from_outside_and_trusts_no_text(tmp_path):
    evil = '"><script>alert(1)</script>&'
    page = write_report(
        tmp_path / "report.html",
        title=evil,
        history=[{"step": 1, evil: 1.0, "eval/" + evil: 2.0}],
        videos=[(1, tmp_path / (evil.replace("/", "") + ".mp4"))],
        video_caption=evil,
        histograms={evil: np.array([1, 2])},
        profiles={evil: Profile(np.array([1.0]), (evil,))},
        warnings=[evil],
        config={evil: evil},
        files={evil: "javascript:" + evil},
        parameters=evil,
    )
    assert len(page.all("script")) == 1 and page.text.count(evil) >= 11
    assert not page.all("link") and not page.all("img")
    addresses = [a[key] for _, a in page.elements for key in ("src", "href") if key in a]
    assert len(addresses) == 2 and not any(":" in address or '"' in address for address in addresses)


def test_embeds_the_last_video_and_earlier_ones_evenly(tmp_path):
    videos = [(1000 * i, tmp_path / "videos" / f"{i}.mp4") for i in range(1, 10)]
    for step, path in videos:
        images.write_mp4(path, np.full((2, 16, 16, 1), step // 1000, np.uint8), 8)
    page = write_report(tmp_path / "report.html", videos=videos)
    embedded = [base64.b64decode(video["src"].partition("base64,")[2]) for video in page.all("video")]
    assert embedded == [videos[i][1].read_bytes() for i in (8, 0, 2, 4, 6)]
    assert all("loop" in video and "muted" in video and "playsinline" in video for video in page.all("video"))
    assert "step 9\u202f000" in page.text


def test_refers_to_a_large_video_from_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "EMBEDDED_BYTES", 10)
    images.write_mp4(tmp_path / "videos" / "a b.mp4", np.zeros((2, 16, 16, 1)), 8)
    page = write_report(tmp_path / "report.html", videos=[(1, tmp_path / "videos" / "a b.mp4")])
    assert [video["src"] for video in page.all("video")] == ["videos/a%20b.mp4"]


def test_draws_curves_in_proportion(tmp_path):
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


def test_keeps_rising_metrics_on_a_linear_scale_and_puts_evaluated_ones_first(tmp_path):
    history = [{"step": s, "train/late": 1.0, "train/codes": 300 - 299 * 0.9**s} for s in range(101)]
    page = write_report(tmp_path / "report.html", history=[*history, {"step": 100, "eval/codes": 300.0}])
    assert [svg["aria-label"] for svg in page.all("svg")] == ["codes", "late"]
    places, _, values = curve(page.all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 150 * (300 - values) / 299, atol=0.1)


def test_draws_falling_losses_on_a_logarithmic_scale(tmp_path):
    history = [{"step": s, "loss": 10.0 ** (-s / 25)} for s in range(101)]
    page = write_report(tmp_path / "report.html", history=history)
    places, steps, _ = curve(page.all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 150 * steps / 100, atol=0.06)  # an exponential becomes a straight line
    assert "log scale" in page.text and "0.01" in page.text


@pytest.mark.parametrize("value", [0.0, -2.5, 1e-12, 3e9])
def test_draws_constants(tmp_path, value):
    history = [{"step": s, "a": value} for s in range(3)]
    places, _, values = curve(write_report(tmp_path / "report.html", history=history).all("polyline")[0])
    np.testing.assert_allclose(places[:, 1], 75, atol=0.06)
    np.testing.assert_allclose(values, value)


def test_thins_long_curves_but_keeps_spikes_and_the_end(tmp_path):
    history = [{"step": s, "a": s % 7 / 7} for s in range(20_000)]
    history[12_345]["a"] = 9.0
    history[777]["a"] = -9.0
    _, steps, values = curve(write_report(tmp_path / "report.html", history=history).all("polyline")[0])
    assert 400 < len(steps) <= 500 and (np.diff(steps) > 0).all()
    assert {777, 12_345, 19_999} <= set(steps.tolist())
    assert values[steps == 12_345] == 9.0
    assert (tmp_path / "report.html").stat().st_size < 40_000


def test_counts_values_that_are_not_finite(tmp_path):
    values = [1.0, np.nan, 2.0, np.inf, 3.0]
    history = [{"step": s, "a": value, "b": np.nan} for s, value in enumerate(values)]
    page = write_report(tmp_path / "report.html", history=history)
    _, steps, _ = curve(page.all("polyline")[0])
    assert steps.tolist() == [0, 2, 4]
    assert "not finite: 2" in page.text and "not finite: 5" in page.text


def test_shows_which_bins_are_used(tmp_path):
    histograms = {"codes": np.array([0, 2, 0, 4, 2, 0, 0, 0]), "none": np.zeros(2, np.int64)}
    page = write_report(tmp_path / "report.html", histograms=histograms)
    assert "Histograms" in page.text and "Profiles" not in page.text
    assert "3 of 8 used, perplexity 2.8" in page.text  # 2 ** 1.5
    assert "0 of 2 used" in page.text
    (area,) = page.all("path")
    # the bars end at three eighths of the width, and are as high as 4, 2, 2 of 4
    assert area["d"] == "M36 150V0.0H87.8V75.0H139.5V75.0H191.2V150Z"


def test_shows_the_mean_of_each_dimension(tmp_path):
    profiles = {"kl": Profile(np.array([1.0, 0.0, 4.0, 3.0])), "diverged": Profile(np.full(2, np.nan))}
    page = write_report(tmp_path / "report.html", profiles=profiles)
    assert "Profiles" in page.text and "8 in all 4, at most 4 in one" in page.text
    assert "Histograms" not in page.text and "no finite value: 2" in page.text and "lowest" not in page.text
    (area,) = page.all("path")
    assert area["d"] == "M36 150V0.0H139.5V37.5H243.0V112.5H346.5V150.0H450.0V150Z"


def test_names_the_lowest_entries_and_counts_those_without_a_value(tmp_path):
    accuracy = np.array([np.nan, -np.inf, *(1 - np.arange(20) / 20)])
    names = ("absent", "absent too", *(f"class {index}" for index in range(20)))
    page = write_report(tmp_path / "report.html", profiles={"accuracy": Profile(accuracy, names)})
    assert "in all 20" in page.text and "absent" not in page.text and "no finite value: 2" in page.text
    assert "lowest: class 19 0.05, class 18 0.1" in page.text and "class 11" not in page.text


def test_histogram_of_many_bins_is_bounded_and_logarithmic_when_skewed(tmp_path):
    page = write_report(tmp_path / "report.html", histograms={"codes": 1e6 / np.arange(1, 65_537) ** 1.2})
    (area,) = page.all("path")
    heights = [float(part.partition("H")[0]) for part in area["d"].split("V")[1:-1]]
    assert len(heights) == 500 and heights == sorted(heights) and "log scale" in page.text
    assert all(0 <= height <= 150 for height in heights)


def test_the_parameters_of_a_player_are_summed_by_module():
    params = {"network": {"conv": {"kernel": np.zeros((300, 4)), "bias": np.zeros(4)}, "head": {"bias": np.zeros(2)}}}
    assert sizes(params) == "1,206 parameters, conv 1,204, head 2"
    assert sizes({"level": np.zeros(())}) == sizes(np.zeros(())) == "1 parameters"


def test_lists_settings_and_files(tmp_path):
    page = write_report(
        tmp_path / "report.html",
        config={"model.codes": 1024},
        files={"checkpoints": "check points"},
        parameters="| kernel | 3 |",
    )
    for words in ("model.codes 1024", f"jax {jax.__version__}", "checkpoints check points", "| kernel | 3 |"):
        assert words in " ".join(page.text.split())
    assert page.all("a") == [{"href": "check%20points"}]


def test_show_frames_the_page_for_a_notebook(tmp_path):
    with pytest.raises(FileNotFoundError, match="no report.html yet"):
        report.show(tmp_path)
    report.report(tmp_path / "report.html", title='a "run"', step=1, total_steps=2, history=[])
    frame: dict[str, str | None] = {}

    class Frame(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag == "iframe"  # of the page's own tags a notebook sees none
            frame.update(attributes)

    Frame().feed(report.show(tmp_path, height=321)._repr_html_())
    assert frame["srcdoc"] == (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "height:321px" in str(frame["style"])
