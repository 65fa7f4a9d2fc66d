"""The report of a run: one HTML page of curves, videos, histograms and settings."""

import base64
import itertools
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import metadata
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import jax
import numpy as np

import jaxvid
from jaxvid.core import Profile
from jaxvid.files import local_path, replacing
from jaxvid.images import Inline

CURVE_POINTS = 500
NAMED = 8  # entries of a profile, the lowest
EMBEDDED_VIDEOS = 5
EMBEDDED_BYTES = 8 * 2**20  # a larger video is linked, not embedded
CURVE_WIDTH, BAR_WIDTH, HEIGHT, GUTTER = 300, 450, 150, 36  # of charts, in their own units


def environment() -> dict[str, str]:
    """Versions and devices of this process, by name."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av", "pillow")
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": str(jax.process_count()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "jaxvid": jaxvid.__version__,
        **{name: metadata.version(name) for name in packages},
    }


def report(
    path: str | Path,
    *,
    title: str,
    step: int,
    total_steps: int,
    history: Sequence[Mapping[str, Any]],
    videos: Sequence[tuple[int, str | Path]] = (),
    video_caption: str = "",
    histograms: Mapping[str, np.ndarray] = {},
    profiles: Mapping[str, Profile] = {},
    warnings: Sequence[str] = (),
    config: Mapping[str, Any] = {},
    files: Mapping[str, str] = {},
    parameters: str = "",
) -> None:
    """Writes one HTML file that shows a run at a step of `total_steps`, readable offline and without a server.

    Args:
      history: what `writer.read_history` returns. Metrics that differ before the first slash only share a chart. Values
        that are not finite are left out of the curves, and counted.
      videos: (step, path of an MP4) of each evaluation, oldest first. The last is shown large, with 4 earlier ones,
        evenly chosen. They are part of the page, save files over 8 MiB, which the page loads from where they lie.
      video_caption: names the panels, such as "original | reconstruction".
      histograms: by name, counts [K] over the evaluation set, such as how often each code was used.
      profiles: by name, means over the evaluation set [K]; entries that are not finite, such as classes without an
        example, are left out, and counted.
      warnings: sentences about what looks wrong, shown first.
      files: label -> path relative to the report.
      parameters: the parameter table, as text.
    """
    sections = {
        "Warnings": "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings),
        "Videos": _video_section(videos, video_caption, Path(path).parent),
        "Curves": _curve_section(history),
        "Histograms": _charts("charts wide", (_histogram(*item) for item in histograms.items())),
        "Profiles": _charts("charts wide", (_profile(*item) for item in profiles.items())),
    }
    details = {
        "Files": {label: f'<a href="{escape(quote(file))}">{escape(file)}</a>' for label, file in files.items()},
        "Configuration": {name: escape(str(value)) for name, value in config.items()},
        "Environment": {name: escape(value) for name, value in environment().items()},
    }
    folded = {name: _pairs(rows) for name, rows in details.items()}
    folded["Parameters"] = f"<pre>{escape(parameters)}</pre>" if parameters else ""
    body = [f"<h2>{name}</h2>{content}" for name, content in sections.items() if content] + ["<h2>Details</h2>"]
    for name, content in folded.items():
        if content:
            body.append(f"<details{' open' * (name == 'Files')}><summary>{name}</summary>{content}</details>")
    template = Template((package_files("jaxvid") / "report.html").read_text(encoding="utf-8"))
    header = _header(step, total_steps, history)
    with replacing(path) as temporary:
        page = template.substitute(title=escape(title), header=header, sections="\n".join(body))
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # of paths: any bytes


def mark(path: str | Path, status: str) -> None:
    """Says in a report, if there is one, that a run that has not finished is "running", or "stopped at step 57"."""
    if (page := Path(path)).is_file():
        before = page.read_text(encoding="utf-8")
        with replacing(page) as temporary:
            after = re.sub(r'(<p class="status running"><span><b>)[^<]*', rf"\g<1>{status}", before, count=1)
            temporary.write_text(after, encoding="utf-8")


def published(page: str, title: str, config: Mapping[str, Any]) -> str:
    """A report for others: with this title and configuration, and without links to files that are not given away."""

    def replaced(pattern: str, content: str, page: str) -> str:
        return re.sub(pattern, lambda match: f"{match[1]}{content}{match[2]}", page, flags=re.DOTALL)

    settings = _pairs({name: escape(str(value)) for name, value in config.items()})
    for element in ("title", "h1"):
        page = replaced(f"(<{element}>).*?(</{element}>)", escape(title), page)
    page = replaced("(<summary>Configuration</summary>).*?(</details>)", settings, page)
    return replaced("()<details open><summary>Files</summary>.*?</details>()", "", page)


def show(workdir: str | Path, height: int = 600) -> Inline:
    """The report of a run, in a notebook: a frame of so many pixels that scrolls.

    Raises FileNotFoundError before the first evaluation of the run, which writes the report.
    """
    page = Path(local_path(workdir)) / "report.html"
    if not page.is_file():
        raise FileNotFoundError(f"{workdir} has no report.html yet: the first evaluation of a run writes it.")
    content = escape(page.read_text(encoding="utf-8"))
    style = f"width:100%;height:{height}px;border:1px solid #8884"
    return Inline(f'<iframe srcdoc="{content}" sandbox="allow-scripts" style="{style}"></iframe>')


def _header(step: int, total: int, history: Sequence[Mapping[str, Any]]) -> str:
    """Status, progress, and the latest values of the evaluation, or of training before the first one."""
    share, status = step / max(total, 1), "finished" if step == total else "running"
    parts = [f"<b>{status}</b>", f"step {_thousands(step)} of {_thousands(total)}", f"{share:.0%}"]
    line = " · ".join(f"<span>{part}</span>" for part in [*parts, time.strftime("%Y-%m-%d %H:%M")])
    latest = {name: value for record in history for name, value in record.items() if name not in ("step", "time")}
    chosen = [name for name in latest if name.startswith("eval/")] or list(latest)
    terms = "".join(f"<div><dt>{escape(n)}</dt><dd>{_number(latest[n])}</dd></div>" for n in chosen[:6])
    bar = f'<div class="progress"><i style="width:{100 * min(share, 1):.1f}%"></i></div>'
    return f'<p class="status {status}">{line}</p>{bar}<dl class="summary">{terms}</dl>'


def _video_section(videos: Sequence[tuple[int, str | Path]], caption: str, folder: Path) -> str:
    """The last video large, and evenly chosen earlier ones beneath, oldest first."""
    if not videos:
        return ""
    chosen = np.unique(np.linspace(0, len(videos) - 1, EMBEDDED_VIDEOS).round().astype(int))
    *earlier, last = [videos[i] for i in chosen]
    small = "".join(_video_figure(step, Path(file), folder) for step, file in earlier)
    large = _video_figure(last[0], Path(last[1]), folder, "controls")
    return f'<p>{escape(caption)}</p><div class="videos">{large}<div class="earlier">{small}</div></div>'


def _video_figure(step: int, file: Path, folder: Path, controls: str = "") -> str:
    if file.is_file() and file.stat().st_size <= EMBEDDED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()
    else:
        source = quote(os.path.relpath(file, folder))
    video = f'<video src="{source}" autoplay loop muted playsinline {controls}></video>'
    return f"<figure>{video}<figcaption>step {_thousands(step)}</figcaption></figure>"


def _curve_section(history: Sequence[Mapping[str, Any]]) -> str:
    """A chart per metric; train/loss and eval/loss share one, and those that are evaluated come first."""
    charts: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for record in history:
        for full_name, value in record.items():
            if full_name not in ("step", "time"):
                *group, name = full_name.split("/", 1)
                charts.setdefault(name, {}).setdefault("".join(group), []).append((record["step"], value))
    last_step = max((record["step"] for record in history), default=0)
    ordered = sorted(charts.items(), key=lambda chart: "eval" not in chart[1])
    return _charts("charts", (_curves(name, groups, last_step) for name, groups in ordered))


def _curves(name: str, groups: Mapping[str, Sequence[tuple[int, float]]], last_step: int) -> str:
    """One metric over steps 0 to `last_step`, a curve per group (train, eval, ...)."""
    finite = {group: [point for point in points if math.isfinite(point[1])] for group, points in groups.items()}
    lost = sum(len(points) - len(finite[group]) for group, points in groups.items())
    notes = f'<small class="warning">not finite: {lost}</small>' if lost else ""
    curves = {group: _thin(points) for group, points in finite.items() if points}
    if not curves:
        return _figure("curves", name, notes)
    height, plot = _axis([value for points in curves.values() for _, value in points], CURVE_WIDTH)
    span = (CURVE_WIDTH - GUTTER) / max(last_step, 1)
    for group, points in sorted(curves.items(), key=lambda curve: curve[0] == "eval"):  # eval is drawn on top
        kind = group if group in ("train", "eval") else "other"
        places = [(f"{GUTTER + span * step:.1f}", f"{height(value):.1f}") for step, value in points]
        plot += (
            f'<polyline class="{kind}" points="{" ".join(map(",".join, places))}" '
            f'data-steps="{" ".join(f"{step}" for step, _ in points)}" '
            f'data-values="{" ".join(_number(value) for _, value in points)}"/>'
        )
        if len(points) <= 25:
            plot += "".join(f'<circle class="{kind}" cx="{cx}" cy="{cy}" r="2"/>' for cx, cy in places)
        notes += f'<span class="{kind}">{escape(group)} <output>{_number(points[-1][1])}</output></span>'
    plot += f'<line class="hair" y1="0" y2="{HEIGHT}"/>'
    return _figure("curves", name, notes, CURVE_WIDTH, plot, ("0", "step", _number(last_step)))


def _histogram(name: str, counts: np.ndarray) -> str:
    """The counts of the bins, the highest first, against the dashed line of equal use."""
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    used = ordered[ordered > 0]
    share = used / used.sum()
    perplexity = f", perplexity {math.exp(-(share * np.log(share)).sum()):.1f}" if used.size else ""
    notes = f"<span>{_thousands(used.size)} of {_thousands(ordered.size)} used{perplexity}</span>"
    return _bars(name, notes, used, ordered, "by count", "equal use")


def _profile(name: str, profile: Profile) -> str:
    """The values of a profile, the highest first, beside their mean; the lowest by name, if they have names."""
    values = np.asarray(profile.values, np.float64)
    ascending = [index for index in values.argsort() if np.isfinite(values[index])]
    ordered = values[ascending][::-1]
    lost = values.size - ordered.size
    notes = f"<small>no finite value: {lost}</small>" if lost else ""
    if ordered.size:
        whole = f"{_number(ordered.sum())} in all {_thousands(ordered.size)}, at most {_number(ordered[0])} in one"
        notes += f"<span>{whole}</span>"
        lowest = [f"{profile.names[i]} {_number(values[i])}" for i in ascending[:NAMED] if profile.names]
        notes += f"<span>lowest: {escape(', '.join(lowest))}</span>" if lowest else ""
    return _bars(name, notes, ordered, ordered, "by value", "mean")


def _bars(name: str, notes: str, values: np.ndarray, ordered: np.ndarray, label: str, middle: str) -> str:
    """Bars of the values, the first of all those `ordered` from high to low, and a dashed line at the mean of all."""
    if not values.size:
        return _figure("bars", name, notes)
    bars = [float(part.mean()) for part in np.array_split(values, min(values.size, CURVE_POINTS))]
    skewed = values[-1] > 0 and bars[0] > 50 * np.median(bars)
    height, rules = _axis([*bars, values[-1] / 2, ordered.mean()] if skewed else [0, *bars], BAR_WIDTH)
    edges = np.linspace(GUTTER, GUTTER + (BAR_WIDTH - GUTTER) * values.size / ordered.size, len(bars) + 1)
    area = "".join(f"V{height(bar):.1f}H{edge:.1f}" for bar, edge in zip(bars, edges[1:], strict=True))
    mean = height(ordered.mean())
    plot = (
        f'<path class="area" d="M{GUTTER} {HEIGHT}{area}V{HEIGHT}Z"/>{rules}'
        f'<line class="equal" x1="{GUTTER}" x2="{BAR_WIDTH}" y1="{mean:.1f}" y2="{mean:.1f}"/>'
        f'<text x="{BAR_WIDTH}" y="{mean - 4:.1f}" text-anchor="end">{middle}</text>'
    )
    return _figure("bars", name, notes, BAR_WIDTH, plot, ("1", label, _number(ordered.size)))


def _charts(kind: str, figures: Iterable[str]) -> str:
    content = "".join(figures)
    return f'<div class="{kind}">{content}</div>' if content else ""


def _figure(
    kind: str, name: str, notes: str, width: int = 0, plot: str = "", ends: Sequence[str] = ("", "", "")
) -> str:
    """A chart with its caption and horizontal scale: its left end, what it counts, and its right end.

    `notes` and `plot` are HTML already.
    """
    y, svg = HEIGHT + 14, ""
    if plot:
        svg = (
            f'<svg viewBox="0 -8 {width} {HEIGHT + 24}" role="img" aria-label="{escape(name)}">{plot}'
            f'<text x="{GUTTER}" y="{y}">{ends[0]}</text><text x="{width}" y="{y}" text-anchor="end">{ends[2]}</text>'
            f'<text class="at" x="{(GUTTER + width) / 2}" y="{y}" text-anchor="middle">{ends[1]}</text></svg>'
        )
    caption = f'<figcaption><span class="name">{escape(name)}</span>{notes}</figcaption>'
    return f'<figure class="chart {kind}">{caption}{svg}</figure>'


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most 500 points in order of step: the last, and of each stretch the lowest and the highest, as spikes are."""
    points = sorted(points)
    if len(points) <= CURVE_POINTS:
        return points
    edges = np.linspace(0, len(points) - 1, CURVE_POINTS // 2).astype(int)
    stretches = [sorted(points[start:end], key=lambda point: point[1]) for start, end in itertools.pairwise(edges)]
    kept = {point for stretch in stretches for point in (stretch[0], stretch[-1])}
    return sorted(kept | {points[-1]})


def _axis(values: Sequence[float], width: int) -> tuple[Callable[[float], float], str]:
    """From values to heights in a chart, and its vertical scale with a few round marks.

    It is logarithmic for positive values over a factor of 20 and more that mostly lie at the low end, as losses do.
    """
    low, high, middle = min(values), max(values), float(np.median(values))
    logarithmic = low > 0 and high > 20 * low and middle - low < 0.2 * (high - low)
    transform: Callable[[float], float] = math.log10 if logarithmic else float
    bottom, top = transform(low), transform(high)
    if bottom == top:
        bottom, top = bottom - 0.5 * (abs(bottom) or 1), top + 0.5 * (abs(top) or 1)
    power = 10.0 ** math.floor(math.log10((top - bottom) / 4))
    stride = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= (top - bottom) / 4)
    if logarithmic:
        stride = max(1, round((top - bottom) / 3))

    def height(value: float) -> float:
        return HEIGHT * (top - transform(value)) / (top - bottom)

    plot = f'<text x="{width}" y="0" text-anchor="end">log scale</text>' if logarithmic else ""
    for place in range(math.ceil(bottom / stride), math.floor(top / stride) + 1):
        mark = 10.0 ** (place * stride) if logarithmic else place * stride
        y = height(mark)
        plot += f'<line class="rule" x1="{GUTTER}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        plot += f'<text x="{GUTTER - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_number(mark)}</text>'
    return height, plot


def _number(value: float) -> str:
    """12000 as 12k, 0.000123456 as 1.235e-4."""
    for unit, size, least in (("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if least <= abs(value) < math.inf:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")


def _thousands(number: int) -> str:
    """12000 as 12 000, with a thin space that does not break."""
    return f"{number:,}".replace(",", "\u202f")


def _pairs(rows: Mapping[str, str]) -> str:
    """Names, which are escaped here, and values, which are HTML already."""
    terms = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows.items())
    return f'<dl class="pairs">{terms}</dl>' if terms else ""
