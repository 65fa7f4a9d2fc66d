"""Which videos of a folder are for training, and which for evaluation."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jaxvid.names import composed

TRAIN = ("train", "training", "trainval")
EVAL = ("val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "heldout", "held_out", "holdout")
PART = re.compile(rf"(?<![^\W\d_])({'|'.join(TRAIN + EVAL)})(?=set|data|[\W\d_]|$)")


def find_parts(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The top folders that are parts of a data set, and which: "train" or "eval"; empty where there are none.

    Two folders are parts if their names differ in no more than the word for the part: train and val, Training Set and
    Test Set, ucf_train_256 and ucf_dev_256. Of several words for evaluation the first in EVAL counts. A lone folder
    that is named as a part is one for "train", which may be divided further.

    Args:
      found: the images of each video, by its name below the folder; more than one where the name is a folder.
    """
    tops = {name.split("/")[0] if "/" in name or len(images) > 1 else "" for name, images in found.items()}
    words = {top: _word(top) for top in sorted(tops)}
    if len(tops) == 1 and _is_bare(*tops):
        return dict.fromkeys(tops, "train")
    others = {around for word, around in words.values() if word in TRAIN}
    for part in EVAL:
        pairs = {around for word, around in words.values() if word == part} & others
        if pairs:
            chosen = {top: word for top, (word, around) in words.items() if around in pairs and word in (*TRAIN, part)}
            return {top: "train" if word in TRAIN else "eval" for top, word in chosen.items()}
    return {}


def like_parts(folders: Iterable[str]) -> list[str]:
    """The folders that may be parts of a data set by their names: all that have a word for a part, if both parts occur.

    Otherwise those whose names say no more than the part: Test, train_256, valset.
    """
    words = {folder: _word(folder)[0] for folder in folders}
    both = {word in TRAIN for word in words.values() if word} == {True, False}
    return [folder for folder, word in words.items() if word and (both or _is_bare(folder))]


def _is_bare(folder: str) -> bool:
    """Whether a folder's name says which part of a data set it is, and no more."""
    word, around = _word(folder)
    return bool(word) and not re.search(r"[^\W\d_]", re.sub("set|data", "", "".join(around)))


def hold_out(classes: Mapping[str, str], holdout: float) -> set[str]:
    """The names that are kept for evaluation: a share of each class.

    At least one of each class that has several, and never all; where none has, a share of all names. Within a class
    names are ranked by their hash, not by their order: one more moves at most one other to the other side.

    Args:
      classes: the class of each name.
      holdout: the share, in (0, 1).
    """
    groups = defaultdict(list)
    for name in sorted(classes, key=_hash):
        groups[classes[name]].append(name)
    several = [names for names in groups.values() if len(names) > 1] or [sorted(classes, key=_hash)]
    return {name for names in several for name in names[: share(holdout, len(names))]}


def share(holdout: float, number: int) -> int:
    """How many of several files or clips are held out: at least one, and never all."""
    return min(max(1, round(holdout * number)), number - 1)


def _word(folder: str) -> tuple[str, tuple[str, str]]:
    """The word for a part in a folder's name, "" if there is none, and the letters and digits before and after it."""
    separated = re.sub("(?<=[a-z])(?=[A-Z])", "_", composed(folder)).lower()
    match = PART.search(separated)
    if not match:
        return "", ("", "")
    before, after = (re.sub(r"[\W_]", "", text) for text in (separated[: match.start()], separated[match.end() :]))
    return match[1], (before, after)


def _hash(name: str) -> bytes:
    return hashlib.sha256(composed(name).encode("utf-8", "surrogatepass")).digest()
