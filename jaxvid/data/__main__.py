"""Checks a folder of videos before it is trained on, or converts it: python -m jaxvid.data PATH."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxvid.command import Parser, attempt, names
from jaxvid.data.attributes import find_lists
from jaxvid.data.folder import Folder, check_settings
from jaxvid.data.index import Index, build_index
from jaxvid.data.layouts import LAYOUTS, Pairs, TwoSides, make_folder, recognized
from jaxvid.data.records import check_new, write_records
from jaxvid.files import local_path
from jaxvid.names import plural, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what the folder contains; returns 0, or 2 with one sentence on stderr."""
    parser = Parser("jaxvid.data", "Checks a folder of videos by decoding all of them.")
    parser.add_argument("path", type=local_path, help="the folder of videos")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=64, help="its short side in pixels (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=1, help="take every stride-th frame (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=0.0, help="frames per second of a clip, instead of a stride")
    parser.add_argument("--holdout", type=float, default=0.1, help="share kept for evaluation (default: %(default)s)")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the folder is read (default: as it seems to be)")
    parser.add_argument("--attributes", type=names, default=[], help="NAME,NAME: domains, by the list of attributes")
    parser.add_argument("--quick", action="store_true", help="read headers and packets only, decode nothing")
    parser.add_argument(
        "--convert", type=local_path, metavar="OUT", help="write the clips to OUT/train and OUT/eval as ArrayRecord"
    )
    parser.add_argument("--shards", type=int, default=16, help="files of each split (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="threads (default: one per core, at most 16)")
    options = parser.parse_args(arguments)
    parser.check_least(options, shards=1, workers=1)
    if options.convert is not None:
        parser.check_writable("convert", options.convert, folder=True)
    targets = [os.path.join(options.convert, split) for split in ("train", "eval")] if options.convert else []

    def work() -> None:
        for target in targets:
            check_new(Path(target))  # before all videos are decoded
        settings = (options.path, options.frames, options.resolution, options.stride, options.fps)
        root = check_settings(*settings, "train", options.holdout)
        index = build_index(root, options.frames > 1, options.workers, decode=not options.quick)
        given = options.layout or ("attributes" if options.attributes else "")
        layout, note = (given, "") if given else _seeming(index)
        train, held_out = (
            make_folder(*settings, split, options.holdout, layout, options.attributes, index)
            for split in ("train", "eval")
        )
        if not given and not note and len(train.classes) > 1:
            note = " (translators read the same folders as domains: data.layout=domains)"
        print(report(index, train, held_out, layout + note, decoded=not options.quick), flush=True)
        for source, target in zip((train, held_out), targets, strict=False):
            about = write_records(source, target, options.shards, options.workers or min(16, os.cpu_count() or 1))
            print(f"wrote {plural(about['clips'], 'clip')} to {show(target)}, {about['left_out']} left out", flush=True)

    return attempt(work)


def _seeming(index: Index) -> tuple[str, str]:
    """The layout that a folder seems to have, and what else it may be."""
    layout = recognized(index)
    if layout == "attributes":
        ways = "--attributes NAME,NAME makes domains of them, --layout attributes a condition of all"
        return "classes", f" ({find_lists(index.root)[0]} lists attributes: {ways})"
    notes = {
        "pairs": "A and B have the same names; where they show different scenes: --layout two_sides",
        "two_sides": "A and B have different names",
        "side_by_side": "the width of all is twice the height; where each is one picture: --layout classes",
    }
    return layout, f" ({notes[layout]})" if layout in notes else ""


def report(index: Index, train: Folder | TwoSides, held_out: Folder | TwoSides, layout: str, decoded: bool) -> str:
    """A text about what was found, what is used, what is damaged and what is skipped.

    Args:
      index: of the whole folder.
      train, held_out: its two splits.
      layout: how it is read, in words.
      decoded: whether every frame was decoded to make the index.
    """
    videos = index.videos
    holding = {name.rpartition("/")[0] for name in videos}
    foreign = sum(index.foreign.values())
    endings = ", ".join(f"{number} {ending}" for ending, number in index.foreign.most_common(6))
    others = f", and {plural(foreign, 'other file')} ignored ({endings})" if foreign else ""
    undetected = "damage within files is not detected"
    seconds = [len(info.pts) / info.fps for info in videos.values() if info.fps]
    facts = [
        ("found", f"{plural(len(videos), 'readable video')} in {plural(len(holding), 'folder')}{others}"),
        ("checked", "every frame was decoded" if decoded else f"packets only (--quick): {undetected}"),
        ("sizes", _most(f"{info.width}x{info.height}" for info in videos.values())),
        ("frame rates", _most(f"{info.fps:.4g}" for info in videos.values() if info.fps) or "none, these are images"),
        ("formats", _most(info.codec for info in videos.values())),
        ("frames", _range([len(info.pts) for info in videos.values()], "{:,.0f}")),
        ("seconds", _range(seconds, "{:,.1f}") if seconds else "-"),
        ("layout", layout),
        *([("pairs", train.matched)] if isinstance(train, Pairs) else []),
        ("clips", train.shape()),
    ]
    lines = [show(os.path.abspath(index.root)), *_table(facts)]
    counts, held = train.counts(), held_out.counts()
    rows = [("clips", "train", "eval"), *((show(name), f"{counts[name]:,}", f"{held[name]:,}") for name in counts)]
    if len(rows) > 2:
        rows.append(("all", f"{sum(counts.values()):,}", f"{sum(held.values()):,}"))
    rows.append(("from videos", f"{len(train.videos):,}", f"{len(held_out.videos):,}"))
    lines += ["", *_table(rows, numbers=True)]
    odd = [(show(name), "; ".join(info.notes)) for name, info in videos.items() if info.notes]
    skipped = [(show(name), reason) for name, reason in train.skipped]
    for title, files in (("damaged or odd", odd), ("skipped", skipped)):
        if files:
            lines += ["", f"{title}: {plural(len(files), 'file')}", *_table(files)]
    return "\n".join(lines)


def _most(values: Iterable[str], listed: int = 6) -> str:
    """The most frequent values with their counts."""
    counts = Counter(values)
    parts = [f"{value} ({number:,})" if len(counts) > 1 else value for value, number in counts.most_common(listed)]
    return ", ".join(parts) + (f", and {len(counts) - listed} more" if len(counts) > listed else "")


def _range(values: Sequence[float], form: str) -> str:
    return f"{form.format(min(values))} to {form.format(max(values))} a video, {form.format(sum(values))} in all"


def _table(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[str]:
    """Rows as indented lines with aligned columns; a name beyond 48 characters does not widen its column."""
    widths = [max(min(len(cell), 48) for cell in column) for column in zip(*rows, strict=True)]
    if numbers:
        rows = [(first, *map(str.rjust, others, widths[1:])) for first, *others in rows]
    return ["  " + "  ".join((first.ljust(widths[0]), *others)) for first, *others in rows]


if __name__ == "__main__":
    sys.exit(main())
