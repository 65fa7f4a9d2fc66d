"""The report of a run: one HTML page of curves, videos, histograms and settings."""

from __future__ import annotations

import base64
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxvid.files import replacing

CURVE_POINTS = 500
NAMED = 8  # classes, the lowest
EMBEDDED_VIDEOS = 5
EMBEDDED_BYTES = 8 * 2**20  # a larger video is linked, not embedded
CURVE_WIDTH, CODE_WIDTH, CHART_HEIGHT, GUTTER = 300, 450, 150, 36  # of charts, in their own units


def report(
    path: str | Path,
    *,
    title: str,
    status: str,
    step: int,
    total_steps: int,
    history: Sequence[Mapping[str, Any]],
    seconds: float | None = None,
    videos: Sequence[tuple[int, str | Path]] = (),
    video_caption: str = "",
    histograms: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    profiles: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    parameters: str = "",
) -> None:
    """Writes one HTML file that shows a run, readable offline and without a server.

    Args:
      path: of the report, say `workdir`/report.html.
      title: what is trained on what.
      status: "running", "finished", or why the run stopped.
      step, total_steps: the present step and the last one.
      history: what `writer.read_history` returns: {"step": int, "train/loss": float, ...} per line. Metrics that differ
        before the first slash only share a chart. Values that are not finite are left out of the curves, and counted.
      seconds: training time until now.
      videos: (step, path of an MP4) of each evaluation, oldest first. The last is shown large, with 4 earlier ones,
        evenly chosen. They are part of the page, save files over 8 MiB, which the page loads from where they lie.
      video_caption: names the panels, say "original | reconstruction".
      histograms: by name, how often each code was used, [K], over the evaluation set.
      warnings: sentences about what looks wrong, shown first.
      profiles: by name, a mean over the evaluation set for each dimension, [K], say of the KL in nats; or for each
        class, by its name; nan for classes without an example, which are left out.
      config, environment: settings (nested or flat) and versions.
      files: label -> path relative to the report.
      parameters: the parameter table, as text.
    """
    sections = [
        ("Warnings", "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings)),
        ("Videos", _video_section(videos, video_caption, Path(path).parent)),
        ("Curves", _curve_section(history)),
        ("Codebook", _wide_section(_code_chart, histograms or {})),
        ("Dimensions", _wide_section(_profile_chart, profiles or {})),
    ]
    body = [f"<h2>{name}</h2>{content}" for name, content in sections if content]
    details = [
        ("Files", _pairs({k: f'<a href="{escape(quote(v))}">{escape(v)}</a>' for k, v in (files or {}).items()})),
        ("Configuration", _pairs({k: escape(str(v)) for k, v in dotted(config or {}).items()})),
        ("Environment", _pairs({k: escape(str(v)) for k, v in (environment or {}).items()})),
        ("Parameters", f"<pre>{escape(parameters)}</pre>" if parameters else ""),
    ]
    body.append("<h2>Details</h2>")
    body += [
        f"<details{' open' * (i == 0)}><summary>{n}</summary>{c}</details>" for i, (n, c) in enumerate(details) if c
    ]
    template = Template((package_files("jaxvid") / "report.html").read_text(encoding="utf-8"))
    header = _header(status, step, total_steps, seconds, history)
    page = template.substitute(title=escape(title), header=header, sections="\n".join(body))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _header(status: str, step: int, total: int, seconds: float | None, history: Sequence[Mapping[str, Any]]) -> str:
    """Status, progress, and the latest values of the evaluation, or of training before the first one."""
    share = step / max(total, 1)
    parts = [f"<b>{escape(status)}</b>", f"step {_thousands(step)} of {_thousands(total)}", f"{share:.0%}"]
    if seconds is not None:
        parts.append(f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min")
    parts.append(time.strftime("%Y-%m-%d %H:%M"))
    latest = {name: value for record in history for name, value in record.items() if name not in ("step", "time")}
    chosen = [name for name in latest if name.startswith("eval/")] or list(latest)
    terms = "".join(f"<div><dt>{escape(n)}</dt><dd>{_number(latest[n])}</dd></div>" for n in chosen[:6])
    mood = status if status in ("running", "finished") else "stopped"
    line = " · ".join(f"<span>{part}</span>" for part in parts)
    bar = f'<div class="progress"><i style="width:{100 * min(share, 1):.1f}%"></i></div>'
    return f'<p class="status {mood}">{line}</p>{bar}<dl class="summary">{terms}</dl>'


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
                group, slash, name = full_name.partition("/")
                group, name = (group, name) if slash else ("", full_name)
                charts.setdefault(name, {}).setdefault(group, []).append((record["step"], float(value)))
    last_step = max((record["step"] for record in history), default=0)
    ordered = sorted(charts.items(), key=lambda chart: "eval" not in chart[1])
    figures = "".join(_curve_chart(name, series, last_step) for name, series in ordered)
    return f'<div class="charts">{figures}</div>' if figures else ""


def _curve_chart(name: str, series: Mapping[str, Sequence[tuple[int, float]]], last_step: int) -> str:
    """One metric over steps 0 to `last_step`, a curve per group (train, eval, ...)."""
    finite = {group: [point for point in points if math.isfinite(point[1])] for group, points in series.items()}
    curves = {group: _thin(points) for group, points in finite.items() if points}
    lost = sum(len(points) for points in series.values()) - sum(len(points) for points in finite.values())
    notes = f'<small class="warning">not finite: {lost}</small>' if lost else ""
    if not curves:
        return _figure("curves", name, notes, "")
    y, marks, logarithmic = _axis([value for points in curves.values() for _, value in points])
    width, lines = CURVE_WIDTH, ""
    for group, points in sorted(curves.items(), key=lambda curve: curve[0] == "eval"):  # eval is drawn on top
        kind = group if group in ("train", "eval") else "other"
        places = [(f"{GUTTER + (width - GUTTER) * step / max(last_step, 1):.1f}", f"{y(v):.1f}") for step, v in points]
        lines += (
            f'<polyline class="{kind}" points="{" ".join(",".join(place) for place in places)}" '
            f'data-steps="{" ".join(f"{step}" for step, _ in points)}" '
            f'data-values="{" ".join(_number(value) for _, value in points)}"/>'
        )
        if len(points) <= 25:
            lines += "".join(f'<circle class="{kind}" cx="{cx}" cy="{cy}" r="2"/>' for cx, cy in places)
        notes += f'<span class="{kind}">{escape(group)} <output>{_number(points[-1][1])}</output></span>'
    hair = f'<line class="hair" y1="0" y2="{CHART_HEIGHT}"/>'
    plot = _rules(width, y, marks, logarithmic) + lines + hair + _labels(width, "0", "step", _number(last_step))
    return _figure("curves", name, notes, plot, width)


def _wide_section(chart: Callable[[str, Any], str], values: Mapping[str, Any]) -> str:
    figures = "".join(chart(name, value) for name, value in values.items())
    return f'<div class="charts wide">{figures}</div>' if figures else ""


def _code_chart(name: str, counts: Any) -> str:
    """How often each code was used, most used first, against the dashed line of equal use."""
    ordered = np.sort(np.asarray(counts, np.float64).ravel())[::-1]
    used = ordered[ordered > 0]
    share = used / used.sum()
    facts = f"<span>{_thousands(used.size)} of {_thousands(ordered.size)} codes used"
    facts += f", perplexity {math.exp(-(share * np.log(share)).sum()):.1f}</span>" if used.size else "</span>"
    if not used.size:
        return _figure("codes", name, facts, "")
    return _bar_chart(name, facts, used, ordered, "code, by times used", "equal use")


def _profile_chart(name: str, means: Any) -> str:
    """The mean of each dimension, the highest first, beside their mean; of classes, the lowest by name."""
    classes, axis = "", "dimension, by value"
    if isinstance(means, Mapping):
        means = {label: value for label, value in means.items() if not np.isnan(value)}
        named = [f"{label} {_number(value)}" for label, value in sorted(means.items(), key=lambda item: item[1])]
        classes, axis = f"<span>lowest: {escape(', '.join(named[:NAMED]))}</span>", "class, by value"
        means = list(means.values())
    ordered = np.sort(np.asarray(means, np.float64).ravel())[::-1]
    if not np.isfinite(ordered).all():
        return _figure("codes", name, f'<small class="warning">not finite: {(~np.isfinite(ordered)).sum()}</small>', "")
    facts = (
        f"<span>{_number(ordered.sum())} in all {_thousands(ordered.size)}, at most {_number(ordered[0])} in one</span>"
    )
    return _bar_chart(name, facts + classes, ordered, ordered, axis, "mean")


def _bar_chart(name: str, facts: str, shown: np.ndarray, ordered: np.ndarray, axis: str, middle: str) -> str:
    """Bars of the values `shown`, the first of all those `ordered` from high to low, and a dashed line at the mean."""
    bars = [float(part.mean()) for part in np.array_split(shown, min(shown.size, CURVE_POINTS))]
    skewed = shown[-1] > 0 and bars[0] > 50 * np.median(bars)
    y, marks, logarithmic = _axis([*bars, shown[-1] / 2, ordered.mean()] if skewed else [0, *bars])
    width = CODE_WIDTH
    edges = np.linspace(GUTTER, GUTTER + (width - GUTTER) * shown.size / ordered.size, len(bars) + 1)
    area = "".join(f"V{y(bar):.1f}H{edge:.1f}" for bar, edge in zip(bars, edges[1:], strict=True))
    mean = y(ordered.mean())
    plot = (
        f'<path class="area" d="M{GUTTER} {CHART_HEIGHT}{area}V{CHART_HEIGHT}Z"/>{_rules(width, y, marks, logarithmic)}'
        f'<line class="equal" x1="{GUTTER}" x2="{width}" y1="{mean:.1f}" y2="{mean:.1f}"/>'
        f'<text x="{width}" y="{mean - 4:.1f}" text-anchor="end">{middle}</text>'
        f"{_labels(width, '1', axis, _number(ordered.size))}"
    )
    return _figure("codes", name, facts, plot, width)


def _figure(kind: str, name: str, notes: str, plot: str, width: int = 0) -> str:
    """A chart with its caption; `notes` and `plot` are HTML already."""
    box = f'viewBox="0 -8 {width} {CHART_HEIGHT + 24}" role="img" aria-label="{escape(name)}"'
    caption = f'<figcaption><span class="name">{escape(name)}</span>{notes}</figcaption>'
    return f'<figure class="chart {kind}">{caption}{f"<svg {box}>{plot}</svg>" if plot else ""}</figure>'


def _rules(width: int, y: Callable[[float], float], marks: Sequence[float], logarithmic: bool) -> str:
    """The vertical scale."""
    note = f'<text x="{width}" y="0" text-anchor="end">log scale</text>' if logarithmic else ""
    return note + "".join(
        f'<line class="rule" x1="{GUTTER}" x2="{width}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        f'<text x="{GUTTER - 6}" y="{y(mark) + 3.5:.1f}" text-anchor="end">{_number(mark)}</text>'
        for mark in marks
    )


def _labels(width: int, left: str, middle: str, right: str) -> str:
    """The horizontal scale: its ends, and what it counts."""
    y = CHART_HEIGHT + 14
    return (
        f'<text x="{GUTTER}" y="{y}">{left}</text><text x="{width}" y="{y}" text-anchor="end">{right}</text>'
        f'<text class="at" x="{(GUTTER + width) / 2}" y="{y}" text-anchor="middle">{middle}</text>'
    )


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most 500 points in order of step: the lowest and the highest of each stretch, so that no spike is lost."""
    points = sorted(points)
    if len(points) <= CURVE_POINTS:
        return points
    edges = np.linspace(0, len(points) - 1, CURVE_POINTS // 2).astype(int)  # the last point is always kept
    kept = []
    for start, end in zip(edges, edges[1:], strict=False):
        stretch = range(start, end)
        kept += sorted({min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])})
    return [points[i] for i in kept] + [points[-1]]


def _axis(values: Sequence[float]) -> tuple[Callable[[float], float], list[float], bool]:
    """From values to heights in a chart, a few round marks, and whether the scale is logarithmic.

    It is for positive values over a factor of 20 and more that mostly lie at the low end, as losses do.
    """
    low, high, middle = min(values), max(values), float(np.median(values))
    logarithmic = low > 0 and high > 20 * low and middle - low < 0.2 * (high - low)
    transform: Callable[[float], float] = math.log10 if logarithmic else float
    bottom, top = transform(low), transform(high)
    if bottom == top:
        bottom, top = bottom - 0.5 * (abs(bottom) or 1), top + 0.5 * (abs(top) or 1)
    if logarithmic:
        every = max(1, round((top - bottom) / 3))
        marks = [10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1, every)]
    else:
        power = 10.0 ** math.floor(math.log10((top - bottom) / 4))
        stride = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= (top - bottom) / 4)
        marks = [i * stride for i in range(math.ceil(bottom / stride), math.floor(top / stride) + 1)]
    return lambda value: CHART_HEIGHT * (top - transform(value)) / (top - bottom), marks, logarithmic


def _number(value: float | str) -> str:
    """12000 as 12k, 0.000123456 as 1.235e-4."""
    value = float(value)
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if size * (10 if unit == "k" else 1) <= abs(value) < math.inf:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")


def _thousands(number: int) -> str:
    """12000 as 12 000, with a thin space that does not break."""
    return f"{number:,}".replace(",", "\u202f")


def _pairs(rows: Mapping[str, str]) -> str:
    """Names, which are escaped here, and values, which are HTML already."""
    terms = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows.items())
    return f'<dl class="pairs">{terms}</dl>' if terms else ""


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings made flat: {"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
