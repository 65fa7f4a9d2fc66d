"""Pictures as frames of a video: the order of their names, the pictures within one file, and all values as RGB."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from jaxvid.data.pipeline import DamagedClip

# What Pillow raises for broken files.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
ANIMATIONS = ("WEBP", "PNG", "TIFF", "GIF")  # formats whose further pictures are frames; those of JPEG are previews
EXIF_ORIENTATION = 0x0112  # 5 and above: width and height are exchanged
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_KIND = 258, 262, 339  # bits of a sample; 0: white is zero; 2: signed
WHITES = (1, 255, 65535)  # ranges that are plain: values end in the upper seven eighths of one, and are not below 0
TIME = re.compile(  # a date, a date and a time of day, or hours, minutes and seconds that are set apart
    r"(?<!\d)((19|20)\d\d\D?[01]\d\D?[0-3]\d(\D+[0-2]\d\D?[0-5]\d\D?[0-5]\d(\D?\d+)?)?"
    r"|[0-2]?\d\D[0-5]\d\D[0-5]\d(\D\d+)?)(?!\d)"
)

Taken = TypeVar("Taken")


class Outline(NamedTuple):
    """Properties of a file of one or more pictures."""

    width: int  # pixels, upright
    height: int
    codec: str  # Pillow's name of the format
    pts: np.ndarray  # int64 [T], milliseconds if `timed`, else 0 to T-1
    timed: bool  # whether the file says how long each picture is shown
    ranged: bool  # whether its values are of a type without a white of its own
    notes: tuple[str, ...]


def outline(path: str) -> Outline:
    """Properties of a picture, read from its header; an animation is decoded. Raises DamagedClip if it is none."""
    try:
        with Image.open(path) as image:
            # Pillow has turned the size of a TIFF already.
            turned = image.format != "TIFF" and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            width, height = image.size[::-1] if turned else image.size
            codec, white = (image.format or "image").lower(), _own_white(image)
            highest = np.asarray(image).max() if white else 0
            durations, notes = _durations(image)
            if white and highest < white / 8:
                notes = (*notes, f"it is dark: its values reach {highest} of {white}")
    except IMAGE_ERRORS as error:
        raise DamagedClip(path, f"it cannot be opened as an image ({error})") from error
    pts = np.cumsum([0, *durations[:-1]]).round().astype(np.int64)
    timed = len(pts) > 1 and bool((np.diff(pts) > 0).all())
    return Outline(width, height, codec, pts if timed else np.arange(len(pts)), timed, white == 0, notes)


def is_animated(path: str) -> bool:
    """Whether a file holds several pictures that are frames."""
    try:
        with Image.open(path) as image:
            return image.format in ANIMATIONS and getattr(image, "n_frames", 1) > 1
    except IMAGE_ERRORS:
        return False


def read(paths: Sequence[str], indices: Iterable[int], white: int = 0) -> Iterator[np.ndarray]:
    """Upright pictures, RGB uint8 [h,w,3]; the indices count the paths, or the pictures within a single one.

    `white` is from `plain_white`, where `Outline.ranged`. Raises DamagedClip at the first that does not decode.
    """
    return _each(paths, indices, lambda image: _to_rgb(image, white))


def plain_white(paths: Sequence[str], indices: Iterable[int]) -> int:
    """The one of WHITES that holds the values of all pictures of a video of floats or 32-bit integers.

    Raises DamagedClip if none does, or if it is much larger than they.
    """
    low, high = np.float64(np.inf), np.float64(-np.inf)
    for values in _each(paths, indices, lambda image: _values(image, image) if _own_white(image) == 0 else None):
        if values is not None:
            low, high = np.minimum(low, values.min()), np.maximum(high, values.max())
    for white in WHITES:
        if low >= 0 and high <= white and (high >= white / 8 or white == 1):
            return white
    ranges = f"its values go from {low:.6g} to {high:.6g}, which is none of the ranges 0 to 1, 0 to 255 or 0 to 65535"
    raise DamagedClip(paths[0], f"{ranges}: save it with 8 or 16 bits")


def in_order(paths: Sequence[str]) -> tuple[list[str], str]:
    """The paths as frames of one video, by the running number or time in their names; or none, and why not."""
    if len(paths) < 2:
        return [], ""
    names = [os.path.basename(path) for path in paths]
    for name in names:
        if not re.search(r"\d", os.path.splitext(name)[0]):
            return [], f"there is no number in the name {name!r}"
        if _words(name) != _words(names[0]):
            return [], f"the names {names[0]!r} and {name!r} differ in more than a number"
    rows = _numbers(names)
    order = sorted(range(len(names)), key=lambda place: (rows[place], names[place]))
    sorted_rows = np.array([rows[place] for place in order], object)
    steps = sorted_rows[1:] != sorted_rows[:-1]
    if not steps.any(1).all():
        same = int(np.argmin(steps.any(1)))
        return [], f"the names {names[order[same]]!r} and {names[order[same + 1]]!r} have the same number"
    running = (sorted_rows[1:] > sorted_rows[:-1]).all(0)
    if not running.any() and not all(_is_time(name, steps.any(0)) for name in names):
        differing = f"the names {names[order[0]]!r} to {names[order[-1]]!r} differ in several numbers"
        return [], f"{differing}, of which none runs through all of them and which are no time"
    return [paths[place] for place in order], ""


def gaps(paths: Sequence[str]) -> str:
    """A note on missing numbers in the names of frames, which are in order; "" if there are none."""
    names = [os.path.basename(path) for path in paths]
    columns = [column for column in zip(*_numbers(names), strict=True) if len(set(column)) > 1]
    if len(names) < 3 or len(columns) != 1:
        return ""
    steps = np.diff(np.array(columns[0], object)).astype(float)
    missing = np.round(steps / np.median(steps)).clip(1) - 1
    if not missing.any():
        return ""
    first = names[int(np.argmax(missing > 0))]
    return f"the numbers of its frames have gaps: {missing.sum():.0f} missing, the first after {first}"


def _words(name: str) -> list[str]:
    """A name without its numbers."""
    return re.split(r"\d+", name.lower())


def _numbers(names: Sequence[str]) -> list[tuple[int, ...]]:
    """The numbers of names that differ in numbers only; 0.5 comes after 0.25, unless 1.1 and 1.10 are both there."""
    digits = [re.findall(r"\d+", os.path.splitext(name)[0]) for name in names]
    words = _words(names[0])
    columns = zip(*digits, strict=True)
    widths = [max(map(len, column)) if word == "." else 0 for word, column in zip(words, columns, strict=False)]
    rows = [tuple(int(digit.ljust(width, "0")) for digit, width in zip(row, widths, strict=True)) for row in digits]
    return rows if len(set(rows)) == len(rows) else [tuple(map(int, row)) for row in digits]


def _is_time(name: str, differs: np.ndarray) -> bool:
    """Whether the numbers that differ, bool [n], are those of a time."""
    time = TIME.search(name)
    places = [match.span() for match in re.finditer(r"\d+", os.path.splitext(name)[0])]
    varying = [place for place, differ in zip(places, differs, strict=True) if differ]
    return time is not None and time.start() <= varying[0][0] and varying[-1][1] <= time.end()


def _durations(image: Image.Image) -> tuple[list[float], tuple[str, ...]]:
    """Milliseconds (0: unknown) of each frame up to the first that is damaged or of another size, and notes."""
    count, first = getattr(image, "n_frames", 1), _first(image)
    if image.format not in ANIMATIONS or count - first == 1:
        return [0.0], ()
    durations: list[float] = []
    size, reason = image.size, "the next is of another size"
    try:
        for number in range(first, count):
            image.seek(number)
            if image.size != size:
                break
            image.load()
            durations.append(image.info.get("duration", 0))
    except IMAGE_ERRORS as error:
        if not durations:
            raise
        reason = f"the next does not decode ({error})"
    used = f"{len(durations)} of its {count - first} pictures are used: {reason}"
    return durations, (used,) if len(durations) < count - first else ()


def _first(image: Image.Image) -> int:
    """The number of the first frame; an animated PNG may begin with a picture for programs that show no animation."""
    return int(getattr(image, "default_image", False))


def _each(paths: Sequence[str], indices: Iterable[int], take: Callable[[Image.Image], Taken]) -> Iterator[Taken]:
    """What `take` takes from each picture; DamagedClip at the first that does not decode."""
    files = [(paths[0], indices)] if len(paths) == 1 else [(paths[index], [0]) for index in indices]
    for path, numbers in files:
        try:
            with Image.open(path) as image:
                for number in numbers:
                    image.seek(number + _first(image))
                    yield take(image)
        except IMAGE_ERRORS as error:
            raise DamagedClip(path, f"the image does not decode ({error})") from error


def _own_white(image: Image.Image) -> int | None:
    """White of values that Pillow would cut off at 255, 0 if their type does not tell; None for all other pictures."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        return (1 << tags.get(TIFF_BITS, (16,))[0]) - 1
    if image.mode == "I" and image.format == "PPM":
        return 65535  # Pillow has scaled it
    return 0 if image.mode in ("I", "F") or (image.mode == "L" and tags.get(TIFF_KIND, (1,))[0] == 2) else None


def _values(image: Image.Image, upright: Image.Image) -> np.ndarray:
    """Values [h,w] of a picture as the file means them: Pillow drops the sign of 8 bits, and adds one to 32."""
    tags, values = getattr(image, "tag_v2", {}), np.asarray(upright)
    if image.mode == "L":
        return values.view(np.int8)
    return (
        values.view(np.uint32)
        if image.mode == "I" and (tags.get(TIFF_BITS), tags.get(TIFF_KIND, (1,))) == ((32,), (1,))
        else values
    )


def _to_rgb(image: Image.Image, white: int) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    own_white = _own_white(image)
    if own_white is None:
        return np.asarray(upright.convert("RGB"))
    values, white = _values(image, upright), own_white or white
    if not white or not 0 <= values.min() <= values.max() <= white:
        raise ValueError(f"its values are {values.dtype}, and not in the range of the others")
    levels = np.round(values * (255 / white)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(TIFF_PHOTOMETRIC) == 0:
        levels = 255 - levels
    return levels[..., None].repeat(3, -1)
