"""Captions as numbers: indices of words in a vocabulary of the captions, or precomputed embeddings."""

import bisect
import functools
import random
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from jaxvid.data.pipeline import Clip, DamagedClip, Source, is_paired
from jaxvid.names import composed, nearest

UNKNOWN, FIRST = 1, 2  # the indices of words out of the vocabulary, and of the vocabulary's first; 0 is padding
SAMPLED = 1024  # clips that represent all of a source
# Thai, Lao, Burmese, Khmer, kana and Chinese characters: scripts without spaces between words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\U00020000-\U0003ffff"
)
PICTURE = "[\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"  # emoji, and symbols that became such
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\ufe0e\ufe0f"))  # soft hyphens, and how an emoji is to be drawn


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits. "Moves then_up" gives moves, then, up.

    Combining marks, such as the vowel signs of Hindi, stay with their letter. Scripts without spaces between words give
    one word a character, and so do emoji, with all that joins them to one picture.
    """
    return _word().findall(unicodedata.normalize("NFKC", text).lower().translate(INVISIBLE))


@functools.cache
def _word() -> re.Pattern[str]:
    """What is a word; without the groups that `findall` would return in its place."""
    marks = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M")
    marked = f"[{marks}\u200c\u200d\U000e0100-\U000e01ef]*"  # with the joiners of Persian and Hindi
    spaced, unspaced = rf"(?:[^\W_{UNSPACED}]+{marked})+", rf"(?=[^\W_])[{UNSPACED}]{marked}"
    flag, picture = "[\U0001f1e6-\U0001f1ff]{2}", f"{PICTURE}[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*{marked}"
    return re.compile(rf"{spaced}|{unspaced}|{flag}|{picture}(?:(?<=\u200d){picture})*")


def build_vocabulary(captions: Iterable[str]) -> tuple[str, ...]:
    """All words of the captions, sorted."""
    return tuple(sorted({word for caption in captions for word in words(caption)}))


def tokenize(text: str, vocabulary: Sequence[str], length: int) -> np.ndarray:
    """Indices int32 [length] of the first words of a text: 2 + the place in the sorted vocabulary, or 1; then zeros."""
    indices = np.zeros(length, np.int32)
    for number, word in enumerate(words(text)[:length]):
        place = bisect.bisect_left(vocabulary, word)
        indices[number] = FIRST + place if vocabulary[place : place + 1] == (word,) else UNKNOWN
    return indices


class Embeddings:
    """Text embeddings from a file: `text` [N] str and `embedding` [N,E] of floats in an .npz, one row per caption.

    Raises FileNotFoundError if there is no such file, ValueError if it is no such table.
    """

    def __init__(self, path: str):
        try:
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
                texts, vectors = file["text"], file["embedding"]
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file with the arrays text [N] and embedding [N, E].") from error
        if texts.ndim != 1 or texts.dtype.kind != "U" or vectors.ndim != 2 or not 0 < len(texts) == len(vectors):
            found = f"{texts.dtype} {list(texts.shape)} and {vectors.dtype} {list(vectors.shape)}"
            raise ValueError(f"{path} contains text and embedding as {found}, expected strings [N] and floats [N, E].")
        if not np.isfinite(vectors).all():
            raise ValueError(f"{path} contains embeddings that are not finite.")
        self._path, self._vectors = path, vectors.astype(np.float32)
        self._rows = {composed(str(text)): row for row, text in enumerate(texts)}

    @property
    def features(self) -> int:
        """E."""
        return self._vectors.shape[1]

    def __call__(self, text: str) -> np.ndarray:
        """The embedding float32 [E] of a caption. Raises ValueError for a caption that is not in the table."""
        text = composed(text)
        if text not in self._rows:
            meant = nearest(text, self._rows)
            raise ValueError(f"{self._path} has no embedding of {text!r}; the nearest of its captions is {meant!r}.")
        return self._vectors[self._rows[text]]


def shortened(text: str, left_out: float, seed: int) -> str:
    """A caption without some of its clauses: each but the first is dropped with probability `left_out`.

    Clauses end at commas, of any script. The same seed drops the same clauses.
    """
    draw = random.Random(seed)
    first, *others = re.split("(?=[,，、،])", text)
    return "".join([first, *(clause for clause in others if draw.random() >= left_out)])


class TextSource:
    """A source whose clips also have their text as numbers, `encode(text)`, with the key `key`.

    A share `left_out` of the clauses is dropped first, see `shortened`, so that models learn short captions, too.
    """

    def __init__(self, source: Source, key: str, encode: Callable[[str], np.ndarray], left_out: float = 0.0):
        self.classes, self.paired = source.classes, is_paired(source)
        self._source, self._key, self._encode, self._left_out = source, key, encode, left_out

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        clip = self._source[index]
        text = shortened(str(clip["text"]), self._left_out, index) if self._left_out else str(clip["text"])
        return {**clip, self._key: self._encode(text)}

    @property
    def sha256(self) -> str:
        """See `Source`."""
        return getattr(self._source, "sha256", "")

    def summary(self) -> str:
        """See `Source.summary`."""
        return self._source.summary()


def sampled(source: Source) -> Iterator[Clip]:
    """Up to SAMPLED clips, evenly spread over the source, without the damaged ones."""
    for index in np.unique(np.linspace(0, len(source) - 1, SAMPLED).astype(int)).tolist():
        with suppress(DamagedClip):  # training logs it
            yield source[index]


def captions(source: Source) -> list[str]:
    """The texts of a source: all, if it lists them; otherwise those of some clips."""
    known = getattr(source, "texts", None)
    return [str(clip.get("text", "")) for clip in sampled(source)] if known is None else list(known)
