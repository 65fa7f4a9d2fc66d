"""The list of attributes that comes with a folder of pictures, as CelebA's: which of them each picture has."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxvid.data.index import without_ending
from jaxvid.names import choice, first_few, show

PATTERN = "*[aA][tT][tT][rR]*"
USUAL = "list_attr_celeba"


def find_lists(root: str) -> list[Path]:
    """The files of attributes at the top of a folder, or else beside it; that of CelebA alone, if it is there."""
    for folder in (Path(root), Path(root).resolve().parent):
        files = sorted(file for file in folder.glob(PATTERN) if file.suffix in (".txt", ".csv") and file.is_file())
        files = [file for file in files if file.stem == USUAL] or files
        if files:
            return files
    return []


def read_names(file: Path) -> list[str]:
    """The names of all attributes of a list, in its order. Raises ValueError as `read_list`."""
    return _header(file, _rows(file))[0]


def read_list(file: Path, chosen: Sequence[str]) -> dict[str, list[str]]:
    """Which of the chosen attributes each picture has, by its name without ending.

    Args:
      file: .txt with the number of pictures in its first line, the names of the attributes in its second, and a row for
        each picture: its file and a 1 or -1 for each attribute; or .csv with these columns and a header.
      chosen: names of attributes.

    Raises ValueError, which names the file and the line: no names of attributes or equal ones, an unknown attribute, a
    row with another number of values or with other values, rows that are missing, or what is not UTF-8 or no CSV.
    """
    rows = _rows(file)
    names, count = _header(file, rows)
    for name in chosen:
        choice("data.attributes", name, names)
    columns = {name: names.index(name) + 1 for name in chosen}
    pictures = {}
    for line, row in rows:
        values = [row[column] for column in columns.values()] if len(row) == len(names) + 1 else []
        if not set(values) <= {"1", "-1", "0"} or not values:
            expected = f"a file and {len(names)} values that are 1 or -1"
            raise ValueError(f"{file}, line {line}: expected {expected}, found {show(' '.join(row)[:80])!r}")
        pictures[without_ending(row[0])] = [name for name, column in columns.items() if row[column] == "1"]
    if count not in (None, len(pictures)):
        found = f"its first line says {count:,} pictures, and it has rows of {len(pictures):,}"
        raise ValueError(f"{file} is incomplete: {found}")
    return pictures


def attributes_of(pictures: Mapping[str, list[str]], name: str) -> list[str] | None:
    """Those of a picture, by its name below the folder or that of its file alone; None if the list has no such row."""
    stem = without_ending(name)
    return pictures.get(stem, pictures.get(stem.rpartition("/")[2]))


def _header(file: Path, rows: Iterator[tuple[int, list[str]]]) -> tuple[list[str], int | None]:
    """The names of the attributes, and the number of pictures that a .txt says, from the first of the rows."""
    count = _count(file, next(rows, (1, []))) if file.suffix == ".txt" else None
    _, names = next(rows, (2, []))
    names = names if file.suffix == ".txt" else names[1:]
    if not names or len({*names}) < len(names):
        raise ValueError(f"{file} names the attributes {first_few(names) or 'of none'}, expected different names")
    return names, count


def _count(file: Path, first: tuple[int, list[str]]) -> int:
    """The number of pictures that the first row says."""
    line, cells = first
    if len(cells) != 1 or not cells[0].isdecimal():
        found = show(" ".join(cells)[:80])
        raise ValueError(f"{file}, line {line}: expected the number of pictures, found {found!r}")
    return int(cells[0])


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, its cells) of each line that is not empty."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines) if file.suffix == ".csv" else map(str.split, lines)
            yield from ((number, row) for number, row in enumerate(rows, 1) if row)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: save it as that") from error
    except csv.Error as error:
        raise ValueError(f"{file} is no CSV file: {error}") from error
