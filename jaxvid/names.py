"""Names that users type: known ones pass, unknown ones are answered with the nearest."""

import difflib
from collections.abc import Iterable


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
