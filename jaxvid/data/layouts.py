"""Folders in the layouts of translation: two sides, pairs, two pictures in one, domains, a list of attributes.

A layout chooses among the files of an index and gives them the names of a plain folder; what is then found, split,
skipped and read is as in `Folder`.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.data.attributes import attributes_of, find_lists, read_list, read_names
from jaxvid.data.folder import Folder, check_settings
from jaxvid.data.index import JUNK, Index, build_index, without_ending
from jaxvid.data.splits import EVAL, TRAIN, find_parts
from jaxvid.data.video import VideoInfo, read_clip
from jaxvid.names import choice, composed, first_few, left_out, plural

SIDES = ("A", "B")
JOINED = re.compile(rf"({'|'.join(TRAIN + EVAL)})[_-]?([ab])", re.IGNORECASE)
SUFFIX = re.compile(r"[_-](?=[^\W\d_]+([_-][^\W\d_]+)*$)")  # where a suffix of words without digits may begin
AS_PAIR = 0.01  # by how much the frame rates, and the aspect ratios, of partners may differ

Skipped = list[tuple[str, str]]  # (name, reason)


def make_folder(
    path: str,
    frames: int,
    resolution: int,
    stride: int = 1,
    fps: float = 0.0,
    split: str = "train",
    holdout: float = 0.1,
    layout: str = "classes",
    attributes: Sequence[str] = (),
    index: Index | None = None,
) -> "Folder | TwoSides":
    """The source of a folder in one of LAYOUTS.

    Args:
      path, frames, resolution, stride, fps, split, holdout, index: see `Folder`.
      layout: "classes" (`Folder`), "two_sides" (`TwoSides`), "pairs" (`Pairs`), "side_by_side" (`SideBySide`),
        "domains" (`Domains`: its sub-folders), or "attributes" (`Attributed`: pictures and a list of what they have; or
        `Domains` by that list, see `by_attributes`).
      attributes: of the layout "attributes": the names that are domains; empty: all are a condition, and none a domain.

    Raises ValueError as `Folder` does, and for a folder that has not this layout.
    """
    choice("data.layout", layout, LAYOUTS)
    if attributes and isinstance(attributes, str):
        meant = tuple(name.strip() for name in attributes.split(","))
        raise ValueError(f"data.attributes is {attributes!r}, expected a tuple of names: {meant!r}")
    if attributes and layout != "attributes":
        remedy = "leave it empty, or set data.layout to 'attributes'"
        raise ValueError(f"data.attributes is {attributes!r}, which the layout {layout!r} does not read: {remedy}")
    root = check_settings(path, frames, resolution, stride, fps, split, holdout)
    index = index or build_index(root, sequences=frames > 1)
    if not index.found:
        layout = "classes"  # a plain folder says what it searched for
    if layout == "domains":
        index = by_folder(index)
    if layout == "attributes" and attributes:
        index, layout = by_attributes(index, attributes), "domains"
    settings = {"path": path, "frames": frames, "resolution": resolution, "stride": stride, "fps": fps}
    return LAYOUTS[layout](index=index, split=split, holdout=holdout, **settings)


class TwoSides:
    """Clips of two sides, A and B, that show different scenes: of any number and any sizes.

    Folders: trainA/ and trainB/ (or train_A/ and train_B/), train/A/ and train/B/, A/train/ and B/train/, and the same
    for evaluation; or A/ and B/ alone, of each of which a share is held out.

    An item holds `input` uint8 [T,h,w,3], of side A, and `video` uint8 [T,h,w,3], of side B. There are as many as clips
    of the larger side; the smaller one repeats, each clip as often. Each side has an order of its own.

    Attributes:
      sides: the `Folder` of A and that of B.
      index, skipped: of both.

    Raises ValueError as `Folder` does, and for a folder without two sides.
    """

    paired = False
    classes: list[str] = []

    def __init__(self, index: Index, **settings: Any):
        names = _two_sides(index)
        self.index = index
        self.sides = {side: _side(side, _chosen(index, names[side]), settings) for side in SIDES}
        self.skipped = _outside(index, names) + [each for folder in self.sides.values() for each in folder.skipped]
        length = max(map(len, self.sides.values()))
        self._places = {
            side: repeated(len(folder), length, number) for number, (side, folder) in enumerate(self.sides.items())
        }
        self._title = f"folder of two sides {index.root} ({settings['split']})"

    def __len__(self) -> int:
        return len(self._places["A"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Input and video, label 0 and text ""; DamagedClip, or IndexError past the last clip."""
        a, b = (self.sides[side][int(self._places[side][index])]["video"] for side in SIDES)
        return {"input": a, "video": b, "label": np.asarray(0, np.int32), "text": np.asarray("")}

    @property
    def videos(self) -> list[VideoInfo]:
        """Properties of the videos of both sides."""
        return [info for folder in self.sides.values() for info in folder.videos]

    @property
    def sha256(self) -> str:
        """See `Source`."""
        return _digest(folder.sha256 for folder in self.sides.values())

    def counts(self) -> dict[str, int]:
        """Number of clips of each side."""
        return {side: len(folder) for side, folder in self.sides.items()}

    def shape(self) -> str:
        """The shape and pace of a clip, in words."""
        return self.sides["B"].shape()

    def summary(self) -> str:
        """See `Source.summary`."""
        sides = " and ".join(f"{number:,} of {side}" for side, number in self.counts().items())
        return f"{self._title}: clips of {self.shape()}, {sides}, {plural(len(self.skipped), 'file')} skipped"


class _Halves(Folder):
    """A folder whose videos are two side by side: an item holds the left as `input` and the right as `video`."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = super().__getitem__(index)
        left, right = np.split(clip["video"], 2, axis=2)
        return {**clip, "input": left, "video": right}


class SideBySide(_Halves):
    """Files of two pictures (or videos) side by side: an item holds `input`, the left, and `video`, the right.

    Each is resized to a short side of the resolution. Otherwise as `Folder`. A file of odd width is skipped.
    """

    KIND = "folder of two in one"

    def __init__(self, index: Index, **settings: Any):
        videos = {name: replace(info, halves=True) for name, info in index.videos.items() if info.width % 2 == 0}
        odd = [
            (name, f"its width of {info.width} pixels is odd, and that of two pictures side by side is even")
            for name, info in index.videos.items()
            if name not in videos
        ]
        super().__init__(index=replace(index, videos=videos, skipped=[*index.skipped, *odd]), **settings)


class Pairs(_Halves):
    """Files of side A and side B (see `TwoSides`) in pairs: an item holds `input`, of A, and `video`, of B.

    Files are partners if their names are equal without the folder of the side, the ending, and a suffix that all names
    of a side have, as _rgb and _flow, or _A and _B. Files without a partner are skipped, and so are pairs that differ
    in their number of frames, their frame rate or their aspect ratio. Splits and classes are those of side B.

    Attributes:
      matched: the number of pairs, of those of the files, in words.
    """

    KIND = "folder of pairs"
    STREAMS = 2

    def __init__(self, index: Index, **settings: Any):
        names = _two_sides(index)
        pairs, alone = _partners(names)
        usable = {b: a for b, a in pairs.items() if a in index.videos and b in index.videos}
        for one, other in [*pairs.items(), *((a, b) for b, a in pairs.items())]:
            if one in index.videos and other not in index.videos:
                alone.append((one, f"its partner {other} cannot be used"))
        unequal = {b: reason for b, a in usable.items() if (reason := _unequal(a, index.videos[a], index.videos[b]))}
        skipped = _outside(index, names) + alone + list(unequal.items())
        skipped += [each for each in index.skipped if each[0] in names["A"] or each[0] in names["B"]]
        chosen = {b: names["B"][b] for b in usable if b not in unequal}
        if not chosen:
            raise ValueError(f"no pair of the sides A and B in {index.root} can be used: {left_out(skipped)}")
        super().__init__(index=_chosen(index, chosen), **settings)
        self.skipped += skipped
        sides = " and ".join(f"{len(files):,} of {side}" for side, files in names.items())
        self.matched = f"{len(chosen):,}, of {sides}"
        self._inputs = [index.videos[usable[self.index.on_disk(name)]] for name in self._names]

    def _read(self, clips: Sequence[int]) -> np.ndarray:
        info = self._inputs[self.clips[clips[0], 0]]
        both = (read_clip(info, self._indices(clips), self.resolution), super()._read(clips))
        height, width = np.min([video.shape[1:3] for video in both], axis=0)  # they may differ by a rounding
        return np.concatenate([video[:, :height, :width] for video in both], axis=2)

    @property
    def sha256(self) -> str:
        """See `Source`: of both sides."""
        inputs = [(os.path.relpath(info.path, self.index.root), info.width, info.height) for info in self._inputs]
        return _digest([super().sha256, repr(inputs)])


class Domains(Folder):
    """A folder of two classes at least, which are domains; in training each is drawn as often as the largest.

    Raises ValueError as `Folder` does, for fewer domains, and for one without a clip.
    """

    KIND = "folder of domains"

    def __init__(self, index: Index, **settings: Any):
        super().__init__(index=index, **settings)
        parts = find_parts(index.found)
        for name in index.found:
            path = name.split("/")
            domain = composed(path[bool(parts)])
            if domain not in self.classes and (not parts or path[0] in parts):
                reason = dict(self.skipped)[index.on_disk(name)]
                raise ValueError(f"the domain {domain!r} in {index.root} has no clip: {index.on_disk(name)}: {reason}")
        if len(self.classes) < 2:
            one = f"{index.root} has one domain, {self.classes[0]!r}"
            raise ValueError(f"{one}, and translation needs two: {AS_DOMAINS}")
        self._draws = self._balanced() if settings["split"] == "train" else np.arange(len(self.clips))

    def _balanced(self) -> np.ndarray:
        """Numbers int64 [domains * n] of clips: n of each domain, as many as the largest has."""
        labels = np.array(self.labels)[self.clips[:, 0]]
        places = [np.flatnonzero(labels == label) for label in range(len(self.classes))]
        for name, clips in zip(self.classes, places, strict=True):
            if not len(clips):
                raise ValueError(f"the domain {name!r} in {self.index.root} has no clip for training")
        largest = max(map(len, places))
        return np.stack([clips[repeated(len(clips), largest, 0)] for clips in places], axis=1).reshape(-1)

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return super().__getitem__(int(self._draws[index]))


class Attributed(Folder):
    """A folder of pictures with a list of attributes: an item holds `attributes` float32 [K], 1 for each that it has.

    The list is at the top of the folder or beside it, see `attributes.read_list`. Files without a row are skipped.

    Attributes:
      attributes: the K names, in the order of the list.

    Raises ValueError as `Folder` does, without a list, and for a list that cannot be read or has a row for no file.
    """

    KIND = "folder with attributes"

    def __init__(self, index: Index, **settings: Any):
        file = _only_list(index.root)
        self.attributes = read_names(file)
        rows = _rows_of(index, file, self.attributes)
        named = {name: name for name, row in rows.items() if row is not None}
        without = [(name, f"{file.name} has no row for it") for name in rows if name not in named]
        super().__init__(index=_chosen(index, named, without), **settings)
        columns = {name: column for column, name in enumerate(self.attributes)}
        self._rows = np.zeros((len(self._names), len(columns)), np.float32)
        for number, name in enumerate(self._names):
            self._rows[number, [columns[each] for each in rows[name] or ()]] = 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {**super().__getitem__(index), "attributes": self._rows[self.clips[index, 0]]}

    @property
    def sha256(self) -> str:
        """See `Source`: with the attributes."""
        return _digest([super().sha256, *self.attributes, hashlib.sha256(self._rows.tobytes()).hexdigest()])

    def summary(self) -> str:
        """See `Source.summary`."""
        return f"{super().summary()}, {plural(len(self.attributes), 'attribute')}"


LAYOUTS: dict[str, Callable[..., Folder | TwoSides]] = {
    "classes": Folder,
    "two_sides": TwoSides,
    "pairs": Pairs,
    "side_by_side": SideBySide,
    "domains": Domains,
    "attributes": Attributed,
}
AS_SIDES = "trainA/ and trainB/, train/A/ and train/B/, A/train/ and B/train/, or A/ and B/"
AS_DOMAINS = "a sub-folder each, at the top or in train/ and val/"


def recognized(index: Index) -> str:
    """The layout that a folder seems to have: one of LAYOUTS; "classes" for domains, which look the same."""
    if names := find_sides(index.found):
        matched = len(_partners(names)[0])
        return "pairs" if 2 * matched > min(map(len, names.values())) else "two_sides"
    if find_lists(index.root):
        return "attributes"
    double = [info.width == 2 * info.height for info in index.videos.values()]
    return "side_by_side" if double and all(double) else "classes"


def find_sides(found: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The names of each side, A and B, and what they are without its folder; empty if folders are not named so.

    Args:
      found: the images of each video, by its name below the folder; more than one where the name is a folder.
    """
    parts = find_parts(found)

    def joined(path: list[str]) -> tuple[str, list[str]]:
        match = JOINED.fullmatch(path[0])
        return (match[2], [match[1].lower(), *path[1:]]) if match else ("", path)

    def inner(path: list[str]) -> tuple[str, list[str]]:
        return (path[1], [path[0], *path[2:]]) if path[0] in parts and len(path) > 1 else ("", path)

    def outer(path: list[str]) -> tuple[str, list[str]]:
        return path[0], path[1:]

    for form in (joined, inner, outer):
        sides: dict[str, dict[str, str]] = {side: {} for side in SIDES}
        for name, images in found.items():
            side, rest = form(name.split("/"))
            if side.upper() in SIDES and (len(rest) > 0 or len(images) > 1):
                sides[side.upper()][name] = "/".join(rest)
        if all(sides.values()):
            return sides
    return {}


def _two_sides(index: Index) -> dict[str, dict[str, str]]:
    """As `find_sides`. Raises ValueError where there are none."""
    names = find_sides(index.found)
    if not names:
        tops = first_few(list(dict.fromkeys(name.split("/")[0] for name in index.found))) or "nothing"
        raise ValueError(f"{index.root} has not the two sides A and B: expected {AS_SIDES}, found {tops}")
    return names


def by_folder(index: Index) -> Index:
    """The index with files in sub-folders alone, which are domains. Raises ValueError for one without a file."""
    parts = find_parts(index.found)
    used = {"/".join(name.split("/")[: 2 if parts else 1]) for name in index.found}
    for top in parts or [""]:
        for entry in os.scandir(os.path.join(index.root, top)):
            theirs = entry.name[0] != "." and entry.name not in JUNK
            if theirs and entry.is_dir() and f"{top}/{entry.name}".lstrip("/") not in used:
                raise ValueError(f"the domain {entry.name!r} in {index.root} has no clip: its folder holds none")
    names = {}
    for name, images in index.found.items():
        depth = name.count("/") + (name.split("/")[0] not in parts)
        if depth > 1 or (depth == 1 and len(images) > 1):
            names[name] = name if depth > 1 else f"{name}/."  # a folder of frames that is a domain itself
    if not names:
        raise ValueError(f"{index.root} has no domains: expected {AS_DOMAINS}")
    beside = [(name, "it lies beside the folders of the domains") for name in index.videos if name not in names]
    return _chosen(index, names, beside)


def by_attributes(index: Index, attributes: Sequence[str]) -> Index:
    """The index with files as if in folders of the one attribute that each has; of a single one, it and its opposite.

    The list of attributes is at the top of the folder or beside it, see `attributes.read_list`. Files that have none or
    several of the attributes are skipped. Raises ValueError without a list, and for attributes that no file has.
    """
    file = _only_list(index.root)
    opposite = [] if len(attributes) > 1 else [f"not {attributes[0]}"]
    rows = _rows_of(index, file, attributes)
    domains = {name: row if row is None else row or opposite for name, row in rows.items()}
    for wanted in [*attributes, *opposite]:
        if [wanted] not in domains.values():
            raise ValueError(f"the domain {wanted!r} has none of {plural(len(domains), 'file')} in {index.root}")
    parts = find_parts(index.found)
    names, others = {}, []
    for name, domain in domains.items():
        top, _, rest = name.partition("/")
        if domain is None:
            others.append((name, f"{file.name} has no row for it"))
        elif len(domain) != 1:
            has = f"several of the attributes, {', '.join(domain)}" if domain else "none of the attributes"
            others.append((name, f"it has {has}"))
        else:
            names[name] = f"{top}/{domain[0]}/{rest}" if top in parts else f"{domain[0]}/{name}"
    return _chosen(index, names, others)


def _only_list(root: str) -> Path:
    """The list of attributes of a folder. Raises ValueError where there is none, or more than one."""
    files = find_lists(root)
    if len(files) != 1:
        found = f"several lists of attributes, {', '.join(map(str, files))}" if files else "no list of attributes"
        expected = "list_attr_celeba.txt, or one .txt or .csv with attr in its name, in it or beside it"
        raise ValueError(f"{root} has {found}: expected {expected}")
    return files[0]


def _rows_of(index: Index, file: Path, attributes: Sequence[str]) -> dict[str, list[str] | None]:
    """Which of the attributes each file of an index has by the list; None without a row. ValueError if none has one."""
    pictures = read_list(file, attributes)
    rows = {name: attributes_of(pictures, name) for name in index.found}
    if all(row is None for row in rows.values()):
        named = f"{first_few([*pictures][:3])}, and the folder has {first_few([*rows][:3])}"
        count = plural(len(rows), "file")
        raise ValueError(f"{file} has a row for none of {count} in {index.root}: it names {named}")
    return rows


def repeated(number: int, length: int, seed: int) -> np.ndarray:
    """Numbers int64 [length] below `number`, each as often as the others but for one: shuffled anew in each round."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(number) for _ in range(-(-length // number))]
    return np.concatenate(rounds)[:length]


def _chosen(index: Index, names: Mapping[str, str], others: Sequence[tuple[str, str]] = ()) -> Index:
    """The index with these files alone, under new names.

    Args:
      names: name on the disk -> new name.
      others: (name on the disk, reason) of files that are left out.
    """
    return replace(
        index,
        found={new: index.found[name] for name, new in names.items()},
        videos={new: index.videos[name] for name, new in names.items() if name in index.videos},
        skipped=[(names[name], reason) for name, reason in index.skipped if name in names] + list(others),
        renamed={new: name for name, new in names.items()},
    )


def _side(side: str, index: Index, settings: Mapping[str, Any]) -> Folder:
    try:
        return Folder(index=index, **settings)
    except ValueError as error:
        raise ValueError(f"side {side}: {error}") from error


def _outside(index: Index, names: Mapping[str, Mapping[str, str]]) -> Skipped:
    """What an index has outside of the two sides."""
    inside = {name for side in names.values() for name in side}
    reason = "it is outside of the folders of the sides A and B"
    skipped = [each for each in index.skipped if each[0] not in inside]
    return skipped + [(name, reason) for name in index.videos if name not in inside]


def _partners(names: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], Skipped]:
    """{file of B: its partner of A}, and the files that have none; `names` are those of `find_sides`."""
    stems: dict[str, dict[str, str]] = {side: {} for side in SIDES}
    alone = []
    for side in SIDES:
        for name, inner in names[side].items():
            first = stems[side].setdefault(composed(without_ending(inner)), name)
            if first != name:
                alone.append((name, f"{first} has the same name but for the ending"))
    options = (
        [{stem.removesuffix(suffix): name for stem, name in stems[side].items()} for suffix in _suffixes(stems[side])]
        for side in SIDES
    )
    a, b = max(product(*options), key=lambda keys: len(keys[0].keys() & keys[1].keys()))
    for own, others, other in ((a, b, "B"), (b, a, "A")):
        alone += [(name, f"side {other} has no file of its name") for key, name in own.items() if key not in others]
    return {name: a[key] for key, name in b.items() if key in a}, alone


def _suffixes(stems: Iterable[str]) -> list[str]:
    """None ("") and the suffixes of words that all stems have, the shortest first."""
    common = os.path.commonprefix([stem[::-1] for stem in stems])[::-1]
    return ["", *[common[match.start() :] for match in SUFFIX.finditer(common)][::-1]]


def _unequal(name: str, a: VideoInfo, b: VideoInfo) -> str:
    """Why a video of side B and its partner, which has this name, cannot be a pair; "" if they can."""
    if len(a.pts) != len(b.pts):
        return f"it has {plural(len(b.pts), 'frame')}, and its partner {name} has {len(a.pts):,}"
    if a.fps and b.fps and abs(math.log(a.fps / b.fps)) > AS_PAIR:
        return f"it has {b.fps:.4g} frames per second, and its partner {name} has {a.fps:.4g}"
    if abs(math.log(a.width * b.height / (a.height * b.width))) > AS_PAIR:
        return f"it is {b.width}x{b.height}, and its partner {name} is {a.width}x{a.height}: their aspect ratios differ"
    return ""


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
