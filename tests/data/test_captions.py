"""Captions are read as they were meant, or refused with the file and the line."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

from jaxvid.data.captions import read_captions

FOUND = ["cats/a.mp4", "cats/b.mp4", "cats/c.mp4", "crème.mp4"]
TOP = "file,text\n"


def read(root: Path, content: str | bytes, name: str = "captions.csv", found: list[str] = FOUND):
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_captions(str(root), found)


def test_a_folder_without_captions_has_none(tmp_path: Path) -> None:
    assert read_captions(str(tmp_path), FOUND) is None
    assert read(tmp_path, TOP) == ({}, [])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("cats/a.mp4,a red cat", "a red cat"),
        ('cats/a.mp4,"a cat, asleep"', "a cat, asleep"),
        ('"cats/a.mp4", "a cat, asleep"', "a cat, asleep"),
        ('cats/a.mp4,"a ""big"" cat"', 'a "big" cat'),
        ('cats/a.mp4,a 5" cat', 'a 5" cat'),
        ("cats/a.mp4,a “big” cat’s ‘tail’", "a “big” cat’s ‘tail’"),
        ('cats/a.mp4,"a cat,\nasleep"', "a cat,\nasleep"),
        ("./cats//a.mp4,деревня 猫", "деревня 猫"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_quotes_ends_of_lines_and_byte_order_marks(tmp_path: Path, row: str, text: str, end: str, mark: str) -> None:
    content = f"{mark}file,text\n\n{row}\n,\ncats/b.mp4,last"
    expected = {"cats/a.mp4": text.replace("\n", end), "cats/b.mp4": "last"}
    assert read(tmp_path, content.replace("\n", end)) == (expected, [])


def test_further_columns_and_lines_of_json(tmp_path: Path) -> None:
    assert read(tmp_path, "length,text,file\n7,a,cats/a.mp4\n") == ({"cats/a.mp4": "a"}, [])
    row = json.dumps({"file": "cats/b.mp4", "text": "b", "length": 7})
    found = read(tmp_path, f"\ufeff{row}\r\n\r\n", "captions.jsonl")
    assert found == ({"cats/a.mp4": "a", "cats/b.mp4": "b"}, [])


MANY = "".join(f"cats/{number}.mp4,a cat\n" for number in range(20_000))


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('cats/a.mp4,x\ncats/b.mp4,"a 5 inch cat\ncats/c.mp4,y\n', 3),
        ('cats/a.mp4,x\ncats/b.mp4,y\ncats/c.mp4,"a 5 inch cat', 4),
        ('cats/a.mp4,"a 5 inch cat\ncats/b.mp4,"a cat"\n', 2),  # the quote of the next row closes it
        ('cats/a.mp4,"a 5 inch cat\ncats/b.mp4,one of 6"\ncats/c.mp4,z\n', 2),  # and so that it looks right
        (f'cats/a.mp4,x\ncats/b.mp4,"a 5 inch cat\n{MANY}', 3),
        (f'{MANY}cats/a.mp4,"a 5 inch cat\n{MANY}', 20_002),
        ('cats/a.mp4,"a "big" cat"\n', 2),
        ('cats/a.mp4,"a \\"big\\" cat"\n', 2),
    ],
    ids=range(8),
)
def test_quotes_that_do_not_match_are_named(tmp_path: Path, rows: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"captions.csv, line {line}: .*a quote closes before a comma"):
        read(tmp_path, TOP + rows, found=[*FOUND, "cats/7.mp4"])


def test_a_swallowed_row_is_found_in_any_order_of_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: the text of this row holds another row, 'a fish,cats/b.mp4'"):
        read(tmp_path, 'text,file\n"a 5 inch cat,cats/a.mp4\na fish,cats/b.mp4\none of 6",cats/c.mp4\n')


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", "name,text\ncats/a.mp4,x\n", "line 1: expected the columns 'file' and 'text'"),
        ("captions.csv", "cats/a.mp4,x\n", "line 1: expected the columns"),
        (
            "captions.csv",
            "file;text\ncats/a.mp4;x\n",
            "line 1: expected the columns 'file' and 'text', separated by co",
        ),
        ("captions.csv", TOP + "cats/a.mp4\n", "line 2: expected the columns file, text, found ['cats/a.mp4']"),
        ("captions.csv", TOP + "\ncats/a.mp4,a cat, asleep\n", "line 3: expected the columns file, text, found"),
        ("captions.csv", TOP + "cats/a.mp4,“a cat, asleep”\n", "line 2: expected the columns file, text, found"),
        ("captions.csv", TOP + "cats/a.mp4,x\ncats/a.mp4,y\n", "line 3: 'cats/a.mp4' has a caption already"),
        ("captions.csv", (TOP + "cats/b.mp4,x\ncats/a.mp4,caf\xe9\n").encode("latin-1"), "line 3: this is not UTF-8"),
        ("captions.csv", TOP.encode("utf-16"), "line 1: this is not UTF-8"),
        ("captions.csv", TOP.encode("utf-16-le"), "line 1: expected the columns"),
        ("captions.jsonl", '{"file": "cats/a.mp4", "text": "x"}\n{file}\n', "line 2: this is not JSON"),
        ("captions.jsonl", '{"file": "cats/a.mp4", "text": "x}\n', "line 1: this is not JSON"),
        ("captions.jsonl", "[" * 100_000, "line 1: this is not JSON"),
        ("captions.jsonl", '["cats/a.mp4"]\n', "line 1: expected the keys 'file' and 'text'"),
    ],
)
def test_wrong_captions_are_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}, {message}")) as caught:
        read(tmp_path, content, name)
    assert "\n" not in str(caught.value)


def test_names_of_no_video_are_returned(tmp_path: Path) -> None:
    assert read(tmp_path, TOP + "cats/aa.mp4,x\ncats/a.mp4,y\n") == ({"cats/a.mp4": "y"}, ["cats/aa.mp4"])


@pytest.mark.parametrize("here, there", [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_apart_or_together_are_the_same_name(tmp_path: Path, here: str, there: str) -> None:
    found = [unicodedata.normalize(here, name) for name in FOUND]
    row = unicodedata.normalize(there, "crème.mp4,x\n")
    assert read(tmp_path, TOP + row, found=found) == ({found[3]: "x"}, [])


def test_of_two_names_that_differ_in_form_alone_each_has_its_own(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "crème.mp4") for form in ("NFC", "NFD")]
    rows = "".join(f"{name},{number}\n" for number, name in enumerate(forms))
    assert read(tmp_path, TOP + rows, found=forms) == ({forms[0]: "0", forms[1]: "1"}, [])
