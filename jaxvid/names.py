"""Names that people type: the one that is meant, and the sentence for one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def choice(field: str, value: str, known: Iterable[str]) -> str:
    """`value` if it is one of the known; otherwise a ValueError that names the field and the nearest."""
    known = list(known)
    if value not in known:
        raise ValueError(
            f'{field} is "{value}", expected one of {", ".join(known)}; did you mean {nearest(value, known)}?'
        )
    return value


def nearest(name: str, names: Iterable[str]) -> str:
    """The name closest to a misspelled one; dotted names with the same end come first."""
    names = list(names)
    end = [n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]]
    return difflib.get_close_matches(name, end or names, n=1, cutoff=0.0)[0]
