"""Files are written whole or not at all, and arrays are read from what NumPy writes."""

import numpy as np
import pytest

from jaxvid.files import load_array, replacing, write_json


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("ha")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


def test_json_and_arrays_are_read_as_they_were_written(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"b": [1, "c"]})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n  "b": [\n    1,\n    "c"\n  ]\n}\n'
    array = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "only.npz", any_name=array)
    np.savez(tmp_path / "labeled.npz", video=array, label=array[0])
    for name in ("one.npy", "only.npz", "labeled.npz"):
        np.testing.assert_array_equal(load_array(str(tmp_path / name)), array)


def test_what_holds_no_array_is_refused_in_a_sentence(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    (tmp_path / "text.npy").write_text("words")
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    for name, sentence in (
        ("two.npz", "holds a, b, expected one array, or one called video"),
        ("damaged.npz", "is damaged"),
        ("text.npy", "is damaged"),
        ("object.npy", "damaged"),
        ("absent.npy", "absent.npy"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_array(str(tmp_path / name))
