"""Scores as a table, as records for a file, and as sentences to print in a paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import jaxvid
from jaxvid.evaluate.suite import Score

# What a sentence tells of the details; the rest is too long, or true on this machine only.
CITED = (
    *("drawn", "protocol", "weights", "dtype", "subset_size", "splits"),
    *("frames", "stride", "size", "seed", "step", "real_statistics", "fake_statistics"),
)


def tables(scores: Sequence[Score], means: Mapping[str, float]) -> str:
    """Means over held-out clips by name; scores with their intervals and numbers of examples; why some have none."""
    found = [("held-out", "mean"), *((name, f"{mean:.5g}") for name, mean in sorted(means.items()))]
    rows = [("metric", "value", "95 % interval", "real", "fake", "protocol")]
    for score in scores:
        interval = "{:.5g} to {:.5g}".format(*score.interval) if score.interval else "-"
        counts = [f"{count:,}" if count else "-" for count in (score.real, score.fake)]
        rows.append((score.name, f"{score.value:.5g}", interval, *counts, score.details.get("protocol", "-")))
    reasons = dict.fromkeys(score.details["no_interval"] for score in scores if "no_interval" in score.details)
    notes = [f"No interval: {reason}." for reason in reasons]
    return "\n\n".join([*(_aligned(table) for table in (found, rows) if len(table) > 1), *notes])


def record(score: Score, about: Mapping[str, Any]) -> dict[str, Any]:
    """A score as JSON, with a sentence to print beside it in a paper; `about` is what is true of all scores."""
    interval = " [{:.5g}, {:.5g}]".format(*score.interval) if score.interval else ""
    real, fake = (count or "an unknown number of" for count in (score.real, score.fake))
    numbers = f"{'' if score.real is None else f'{real} real and '}{fake} fake {score.examples}"
    if "generated" in score.details:
        numbers += f" ({score.details['generated']})"
    facts = {name: fact for name in CITED if (fact := {**score.details, **about}.get(name)) is not None}
    cited = [numbers, *(fact if name in ("weights", "drawn") else f"{name} {fact}" for name, fact in facts.items())]
    text = f"{score.name} {score.value:.5g}{interval}: {score.details['citation']}; {', '.join(cited)}"
    fields = {"metric": score.name, **score._asdict(), **score.details}
    del fields["name"], fields["details"]
    return {**fields, "citation": f"{text}; jaxvid {jaxvid.__version__}."}


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
