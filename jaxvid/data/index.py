"""All videos below a folder: found, probed in parallel, and cached between runs."""

import hashlib
import json
import os
import re
import sys
import time
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging

from jaxvid.data.pictures import in_order, is_animated
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, probe, probe_images
from jaxvid.files import cache_folder, replacing
from jaxvid.names import composed

VIDEO_ENDINGS = tuple(
    ".mp4 .m4v .mov .avi .mkv .webm .gif .mpg .mpeg .m2v .ts .m2ts .mts .wmv .asf .flv .f4v .3gp .3g2 .ogv .ogm .vob "
    ".mxf .y4m .264 .h264 .265 .h265 .hevc .ivf .obu .mjpeg .mjpg .nut .dv .divx .rm .rmvb .apng".split()
)
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
CACHE_FORMAT = 3  # to be increased when the cached properties of a video change
JUNK = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found")  # not the user's
DAMAGED_CACHE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Index:
    """The files below the folder `root` that may be videos, and the properties of those that are."""

    root: str
    found: dict[str, tuple[str, ...]]  # name below the folder, with "/" -> its images, () for a file that FFmpeg reads
    skipped: list[tuple[str, str]]  # (name, reason) of broken links, unreadable folders, and files that are no videos
    foreign: Counter[str]  # number of other files, by ending; hidden files are not counted
    folders: int  # that were searched
    videos: dict[str, VideoInfo]
    apart: dict[str, str] = field(default_factory=dict)  # folder -> why its images are no frames of one video
    renamed: dict[str, str] = field(default_factory=dict)  # name -> that on the disk, where a layout gives it another

    def on_disk(self, name: str) -> str:
        """The name of a video below the folder, as it is on the disk."""
        return self.renamed.get(name, name)


def build_index(root: str, sequences: bool, workers: int | None = None, decode: bool = False) -> Index:
    """Finds and probes every video below a folder.

    Properties are cached in index/ of `files.cache_folder()`: files are probed only if their size or modification time
    has changed.

    Args:
      root: the folder.
      sequences: whether numbered images of one folder are one video; otherwise each image is one.
      workers: threads; None for one per processor core, at most 16.
      decode: decode every frame of every file, and do not use the cache.
    """
    index = find_videos(root, sequences)
    stamps = {name: _stamp(root, name, images) for name, images in index.found.items()}
    cache = _cache_path(root, sequences)
    cached = {} if decode or not cache else _load(cache)
    videos = {
        name: replace(info, path=os.path.join(root, name), images=index.found[name])
        for name, (stamp, info) in cached.items()
        if stamps.get(name) == stamp
    }

    def probed(name: str) -> VideoInfo | DamagedClip:
        path, images = os.path.join(root, name), index.found[name]
        try:
            return probe_images(path, images, decode) if images else probe(path, decode)
        except DamagedClip as damage:
            return damage

    new = [name for name in index.found if name not in videos]
    for name, result in in_parallel(probed, new, workers, "decoded" if decode else "indexed"):
        if isinstance(result, DamagedClip):
            index.skipped.append((name, result.reason))
        else:
            videos[name] = result
    if cache and not decode and (new or len(cached) > len(videos)):
        _save(cache, {name: (stamps[name], info) for name, info in videos.items()})
    index.videos.update({name: videos[name] for name in index.found if name in videos})
    return index


def find_videos(root: str, sequences: bool) -> Index:
    """An index of possible videos below `root`: files with a known ending, or with none.

    Links are followed; each real file counts once, under its own name if that is below the folder.
    """
    candidates: list[tuple[str, tuple[str, ...]]] = []
    skipped: list[tuple[str, str]] = []
    foreign: Counter[str] = Counter()
    apart: dict[str, str] = {}
    folders, links, visited = deque([root]), deque[str](), set[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()  # own names precede names through links
        if os.path.realpath(folder) in visited:
            continue
        visited.add(os.path.realpath(folder))
        try:
            names = (name for name in sorted(os.listdir(folder)) if not name.startswith(".") and name not in JUNK)
            paths = [os.path.join(folder, name) for name in names]
        except OSError as error:
            skipped.append((_name(folder, root), f"the folder cannot be entered ({error.strerror})"))
            continue
        inner = [path for path in paths if os.path.isdir(path)]
        for path in inner:
            (links if os.path.islink(path) else folders).append(path)
        images = sorted((path for path in paths if _ending(path) in IMAGE_ENDINGS and path not in inner), key=natural)
        frames, reason = in_order(images) if sequences else ([], "")
        if reason:
            apart[_name(folder, root)] = reason
        if frames and not is_animated(frames[0]):
            candidates.append((folder, tuple(frames)))
            files = [path for path in paths if _ending(path) in VIDEO_ENDINGS and path not in inner]
        else:
            candidates += [(path, (path,)) for path in images]
            files = [path for path in paths if _ending(path) in (*VIDEO_ENDINGS, "") and path not in inner]
        candidates += [(path, ()) for path in files]
        taken = {*inner, *images, *files}
        foreign.update(_ending(path) for path in paths if path not in taken)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}  # by the path without links
    for path, contained in sorted(candidates, key=lambda candidate: os.path.islink(candidate[0])):
        if not os.path.isfile(path) and not os.path.isdir(path):
            skipped.append((_name(path, root), "it is a link to nothing, or no regular file"))
        else:
            found.setdefault(os.path.realpath(path), (_name(path, root), contained))
    possible = dict(sorted(found.values(), key=lambda video: natural(video[0])))
    return Index(root, possible, sorted(skipped), foreign, len(visited), {}, apart)


def natural(name: str) -> tuple[list[Any], str]:
    """A sorting key that puts clip2 before clip10; total, so that 1 and 01 have an order, too."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", composed(name))], name


def without_ending(name: str) -> str:
    """The name of a video or an image without its ending."""
    return os.path.splitext(name)[0] if _ending(name) in (*VIDEO_ENDINGS, *IMAGE_ENDINGS) else name


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, done: str
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order, computed in threads; reports progress on stderr after the first second."""
    start = time.monotonic()
    terminal = sys.stderr.isatty()
    due, reported = start + 1, False
    pool = ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1))
    try:
        for count, (item, result) in enumerate(zip(items, pool.map(function, items), strict=True), 1):
            yield item, result
            now = time.monotonic()
            if now >= due or (reported and count == len(items)):
                rate = count / (now - start)
                left = f"{(len(items) - count) / rate:.0f} s left" if count < len(items) else f"in {now - start:.0f} s"
                line = f"{done} {count} of {len(items)} files, {rate:.0f} files/s, {left}"
                # On a terminal one line is updated; a log file gets a line every 10 seconds.
                print(f"\r{line}\x1b[K" if terminal else f"{line}\n", end="", file=sys.stderr, flush=True)
                due, reported = now + (0.2 if terminal else 10), True
    finally:
        if reported and terminal:
            print(file=sys.stderr)
        pool.shutdown(cancel_futures=True)


def _name(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _stamp(root: str, name: str, images: Sequence[str]) -> list[int]:
    """Number, size and last modification of the files of a video: unless these change, their content does not."""
    try:
        stats = [os.stat(path) for path in images or [os.path.join(root, name)]]
    except OSError:
        return []
    return [len(stats), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


def _cache_path(root: str, sequences: bool) -> Path | None:
    """None for a user without a home."""
    key = json.dumps([os.path.realpath(root), sequences]).encode()
    try:
        return cache_folder() / "index" / f"{hashlib.sha256(key).hexdigest()[:32]}.npz"
    except FileNotFoundError:
        return None


def _save(cache: Path, videos: dict[str, tuple[list[int], VideoInfo]]) -> None:
    """Writes the properties, whole or not at all; a failure is only a warning."""
    table = {}
    for name, (stamp, info) in videos.items():
        entry = {key: value for key, value in vars(info).items() if key not in ("path", "images")}
        counts = {"pts": len(info.pts), "keyframes": len(info.keyframes)}
        table[name] = entry | counts | {"stamp": stamp, "time_base": info.time_base.as_integer_ratio()}
    text = json.dumps({"format": CACHE_FORMAT, "videos": table}).encode()
    arrays: dict[str, Any] = {"text": np.frombuffer(text, np.uint8)}
    for key in ("pts", "keyframes"):
        arrays[key] = np.concatenate([np.empty(0, np.int64), *(getattr(info, key) for _, info in videos.values())])
    try:
        with replacing(cache) as temporary, open(temporary, "wb") as file:  # a path would be given the suffix .npz
            np.savez_compressed(file, **arrays)
    except OSError as error:
        logging.warning("The index of the videos cannot be cached in %s: %s", cache.parent, error)


def _load(cache: Path) -> dict[str, tuple[list[int], VideoInfo]]:
    """Cached properties: name -> (stamp, properties); empty if the file is missing or damaged."""
    try:
        with np.load(cache) as file:
            text, pts, keyframes = (file[key] for key in ("text", "pts", "keyframes"))
        content = json.loads(text.tobytes())
        if content["format"] != CACHE_FORMAT:
            return {}
        videos, frame, start = {}, 0, 0
        for name, entry in content["videos"].items():
            stamp, frames, starts = entry.pop("stamp"), entry["pts"], entry["keyframes"]
            entry |= {"pts": pts[frame : frame + frames], "keyframes": keyframes[start : start + starts]}
            entry |= {"time_base": Fraction(*entry["time_base"]), "notes": tuple(entry["notes"])}
            videos[name] = stamp, VideoInfo(path="", **entry)
            frame, start = frame + frames, start + starts
    except DAMAGED_CACHE:
        return {}
    return videos if (frame, start) == (len(pts), len(keyframes)) else {}
