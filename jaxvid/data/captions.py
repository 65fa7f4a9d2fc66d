"""Captions of the videos in a folder: `captions.csv` (columns file, text) or `captions.jsonl` (keys file, text)."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from jaxvid.names import composed

QUOTES = "a quote closes before a comma or the end of the row, and one within a text is written twice"
Known = Callable[[str], str | None]  # a name in the captions -> that of the video


def read_captions(root: str, found: Collection[str]) -> tuple[dict[str, str], list[str]] | None:
    """The captions at the top of a folder; None where it has no such file.

    Args:
      root: the folder.
      found: names of its videos. Those of the captions may be in another Unicode form (macOS writes accents apart).

    Returns the text of each video that has one, and the names in the captions that are no video's.
    Raises ValueError, which names the file and the line: quotes that do not match, columns that are not those of the
    first line, what is not UTF-8 or not JSON, or a second caption of a video.
    """
    names = {composed(name): name for name in found} | {name: name for name in found}

    def known(given: str) -> str | None:
        path = posixpath.normpath(given)
        return names.get(path) or names.get(composed(path))

    texts: dict[str, str] = {}
    absent = []
    table, lines = Path(root, "captions.csv"), Path(root, "captions.jsonl")
    rows = [*(_csv_rows(table, known) if table.is_file() else ()), *(_json_rows(lines) if lines.is_file() else ())]
    for place, row in rows:
        given, text = (row.get("file"), row.get("text")) if isinstance(row, dict) else (None, None)
        if not isinstance(given, str) or not isinstance(text, str):
            raise ValueError(f"{place}: expected the keys 'file' and 'text', found {row!r}")
        name = known(given)
        if name in texts:
            raise ValueError(f"{place}: {given!r} has a caption already, and one each is expected")
        if name is None:
            absent.append(given)
        else:
            texts[name] = text
    return (texts, absent) if table.is_file() or lines.is_file() else None


def _csv_rows(file: Path, known: Known) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, its fields) of each row below the names of the columns."""
    lines, header = _lines(file), list[str]()
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    while (first := reader.line_num) < len(lines):
        place = f"{file}, line {first + 1}"
        try:
            row = next(reader)
        except csv.Error as error:
            raise ValueError(f"{place}: the quotes of this row do not match ({error}): {QUOTES}") from error
        # A stray quote further down may close one that was forgotten: then the rows between are in one text.
        later = [line.strip() for line in lines[first + 1 : reader.line_num]]
        if swallowed := [line for line in later if any(known(cell.strip(' "')) for cell in line.split(","))]:
            raise ValueError(f"{place}: the text of this row holds another row, {swallowed[0]!r}: {QUOTES}")
        if not any(row):
            continue
        if not header and not {"file", "text"} <= set(row):
            raise ValueError(f"{place}: expected the columns 'file' and 'text', separated by commas, found {row}")
        if header and len(row) != len(header):
            comma = "a text with a comma stands in double quotes"
            raise ValueError(f"{place}: expected the columns {', '.join(header)}, found {row} ({comma})")
        if header:
            yield place, dict(zip(header, row, strict=True))
        header = header or row


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """(file and line, its content) of each line that is not empty."""
    for place, line in (
        (f"{file}, line {number}", line) for number, line in enumerate(_lines(file), 1) if line.strip()
    ):
        try:
            yield place, json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{place}: this is not JSON ({error})") from error


def _lines(file: Path) -> list[str]:
    """The lines with their ends, which may be those of any system."""
    data = file.read_bytes()
    try:
        return io.StringIO(data.decode("utf-8-sig"), newline="").readlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line}: this is not UTF-8: save the file as that") from error
