"""Texts become the same numbers every time; what cannot become numbers is reported."""

import functools
import pickle
import re
import string
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from jaxvid.data import DamagedClip, text, train_batches
from jaxvid.data.synthetic import Synthetic

VOCABULARY = ("a", "down", "left", "moves", "red", "square")


class Few:
    """Sixteen clips that do not list their texts; the last one is damaged."""

    classes: list[str] = []

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index == 15:
            raise DamagedClip("15.mp4", "torn")
        return {"video": np.zeros((2, 8, 8, 3), np.uint8), "text": np.asarray(f"number {string.ascii_letters[index]}")}

    def summary(self) -> str:
        return "sixteen clips"


def test_words_are_lower_case_without_punctuation() -> None:
    assert text.words("A small RED square_left, then: up!") == ["a", "small", "red", "square", "left", "then", "up"]
    assert text.words("Größe 3, e\u0301te\u0301") == ["größe", "3", "\u00e9t\u00e9"]
    assert text.words(" ...") == []


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("一只红色的猫，向左。", "一 只 红 色 的 猫 向 左"),
        ("東京タワー・がっこう", "東 京 タ ワ ー が っ こ う"),
        ("लाल बिल्ली बाईं ओर", "लाल बिल्ली बाईं ओर"),
        ("แมวเดินซ้าย", "แ ม ว เ ดิ น ซ้ า ย"),
        ("القطة تتحرّك، يسارًا", "القطة تتحرّك يسارًا"),
        ("빨간 고양이가 왼쪽으로", "빨간 고양이가 왼쪽으로"),
        (unicodedata.normalize("NFD", "빨간 Größe"), "빨간 größe"),
        ("כֶּלֶב רָץ", unicodedata.normalize("NFKC", "כֶּלֶב רָץ")),
        ("می\u200cرود", "می\u200cرود"),
        ("İstanbul'da кот идёт", "i\u0307stanbul da кот идёт"),
        ("dis\u00adplay x\u0302_y", "display x\u0302 y"),
        ("AI画像2枚", "ai 画 像 2 枚"),
        ("a\U0001f431b👍🏽👍 👨\u200d👩\u200d👧🇩🇪🇫🇷 ❤\ufe0f❤", "a \U0001f431 b 👍🏽 👍 👨\u200d👩\u200d👧 🇩🇪 🇫🇷 ❤ ❤"),
        ("\u0301 → … ☀", "☀"),
    ],
)
def test_words_of_other_scripts_keep_their_marks(caption: str, expected: str) -> None:
    assert text.words(caption) == expected.split()


def test_words_become_places_in_the_vocabulary() -> None:
    assert text.build_vocabulary(["A red square moves left", "moves down, a RED Square."]) == VOCABULARY
    indices = text.tokenize("The red square moves left.", VOCABULARY, 7)
    assert indices.dtype == np.int32 and indices.tolist() == [1, 6, 7, 5, 4, 0, 0]
    assert text.tokenize("zebra Aardvark a", VOCABULARY, 2).tolist() == [1, 1]
    assert text.tokenize("", VOCABULARY, 2).tolist() == [0, 0]


def test_the_synthetic_texts_hold_every_word_that_occurs() -> None:
    source = Synthetic(16, 64)
    assert source.texts[7] == str(source[7]["text"])
    vocabulary = text.build_vocabulary(text.captions(source))
    small = Synthetic(16, 8)
    others = {word for i in range(2000, 2600) for word in text.words(str(small[i]["text"]))}
    assert others <= set(vocabulary) and {*"0123456789", "purple", "counterclockwise", "quickly"} <= set(vocabulary)


def test_texts_of_other_sources_are_read_without_the_damaged_clips() -> None:
    assert text.captions(Few()) == [f"number {letter}" for letter in string.ascii_letters[:15]]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_the_words_of_their_texts(workers: int) -> None:
    vocabulary = text.build_vocabulary(text.captions(Few()))
    source = text.TextSource(Few(), "words", functools.partial(text.tokenize, vocabulary=vocabulary, length=3))
    with train_batches(source, 4, 8, seed=0, workers=workers, threads=1) as batches:
        batch = next(batches)
    expected = [[2 + vocabulary.index("number"), 2 + vocabulary.index(t.split()[1]), 0] for t in batch["text"].tolist()]
    assert batch["words"].dtype == np.int32 and batch["words"].tolist() == expected
    assert len(source) == 16 and source.summary() == "sixteen clips" and source.sha256 == ""


def test_clauses_but_the_first_are_left_out_as_often_as_asked_and_alike_for_a_seed() -> None:
    whole = "a square moves left, then up, on a dark background"
    cut = [text.shortened(whole, 0.3, seed) for seed in range(1000)]
    assert cut == [text.shortened(whole, 0.3, seed) for seed in range(1000)]
    assert {*cut} == {
        "a square moves left",
        "a square moves left, then up",
        "a square moves left, on a dark background",
        whole,
    }
    np.testing.assert_allclose(np.mean(["then up" in caption for caption in cut]), 0.7, atol=0.05)
    np.testing.assert_allclose(np.mean(["dark" in caption for caption in cut]), 0.7, atol=0.05)
    assert (
        text.shortened("一只猫，向左、很快", 1.0, 0) == "一只猫" and text.shortened("قطة، a,,b", 0.0, 0) == "قطة، a,,b"
    )
    assert text.shortened(whole, 0.0, 1) == whole and text.shortened(whole, 1.0, 1) == "a square moves left"


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = str(tmp_path / "table.npz")
    np.savez(path, text=np.array(["a cat", "a dog", "two dogs"]), embedding=np.eye(3, 5) * 0.5)
    return path


def test_embeddings_are_looked_up(table: str) -> None:
    lookup = pickle.loads(pickle.dumps(text.Embeddings(table)))
    assert lookup.features == 5 and lookup("a dog").dtype == np.float32
    assert lookup("a dog").tolist() == [0, 0.5, 0, 0, 0]
    np.savez(table, text=np.array(["cre\u0300me"]), embedding=np.ones((1, 2)))
    assert text.Embeddings(table)("cr\u00e8me").tolist() == text.Embeddings(table)("cre\u0300me").tolist() == [1, 1]


def test_a_text_without_an_embedding_is_named(table: str) -> None:
    lookup = text.Embeddings(table)
    with pytest.raises(ValueError, match=r"table.npz has no embedding of 'two dogz'; the nearest .* 'two dogs'"):
        lookup("two dogz")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"text": np.array(["a"])}, r"no \.npz file with the arrays"),
        ({"text": np.array(["a"], object), "embedding": np.ones((1, 2))}, r"no \.npz file with the arrays"),
        ({"text": np.array(["a", "b"]), "embedding": np.ones((1, 2))}, r"<U1 \[2\] and float64 \[1, 2\], expected"),
        ({"text": np.array(["a"]), "embedding": np.full((1, 2), np.nan)}, "not finite"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, arrays: dict, sentence: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{sentence}"):
        text.Embeddings(str(path))
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match=r"no \.npz file"):
        text.Embeddings(str(path))
