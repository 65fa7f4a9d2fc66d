"""Names that users type, and of files: known ones pass, unknown ones are answered with the nearest."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

NAMED = 10  # files in a warning


def choice(field: str, value: str, known: Iterable[str]) -> str:
    """`value` if it is one of the known; otherwise a ValueError that names the field and the nearest."""
    known = list(known)
    if value not in known:
        near = nearest(str(value), known)
        raise ValueError(f'{field} is "{value}", expected one of {", ".join(known)}; did you mean {near}?')
    return value


def nearest(name: str, names: Iterable[str]) -> str:
    """The name closest to a misspelled one; dotted names with the same end come first."""
    names = list(names)
    end = [n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]]
    return closest(name, end or names, 1)[0]


def closest(name: str, names: Iterable[str], count: int) -> list[str]:
    """Up to `count` of the names, those most like a misspelled one first."""
    return difflib.get_close_matches(name, list(names), n=count, cutoff=0.0)


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS writes letters and their accents apart, keyboards together."""
    return unicodedata.normalize("NFC", name)


def show(name: str) -> str:
    """A file name as one line of printable characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def plural(number: int, one: str, many: str = "") -> str:
    """A number and its noun: 1 file, 2 files."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def first_few(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(show, names[:NAMED])) + more


def left_out(files: Sequence[tuple[str, str]]) -> str:
    """One line about (name, reason) of files that cannot be used: the first ten, and how many more there are."""
    named = first_few([f"{name} ({reason})" for name, reason in files])
    return f"{plural(len(files), 'file is', 'files are')} left out: {named}"
