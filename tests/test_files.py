"""Files are written whole or not at all, and arrays are read from what NumPy writes."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxvid.files import NotLocal, load_array, local_path, open_array, replacing, write_json


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


def test_an_empty_path_is_no_folder():
    with pytest.raises(NotLocal, match="an empty path names no file and no folder"):
        local_path("")


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


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "<f2", ">f4", "<i8", "?", ml_dtypes.bfloat16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_entries_are_read_one_by_one_as_they_were_written(save, dtype, order, tmp_path):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype).copy(order)
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, array)
    stored = open_array(str(path))
    assert (stored.shape, stored.dtype, stored.nbytes) == (array.shape, array.dtype, array.nbytes)
    for index in [(0, 1), (2, 3), (1, 0), (2,), (0,), ()]:
        np.testing.assert_array_equal(stored[index], array[index])
    np.testing.assert_array_equal(load_array(str(path)), array)


def test_records_are_no_bfloat16_and_headers_that_promise_more_are_refused(tmp_path):
    np.save(tmp_path / "records.npy", np.zeros(3, [("a", "<u2")]))
    assert open_array(str(tmp_path / "records.npy")).dtype.names == ("a",)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 30, 4)})
    (tmp_path / "short.npy").write_bytes(header.getvalue() + bytes(64))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(64))
    for name in ("short.npy", "short.npz"):
        with pytest.raises(ValueError, match="is damaged"):
            load_array(str(tmp_path / name))


def test_an_archive_that_has_to_be_in_memory_is_at_most_a_gibibyte(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxvid.files.MAX_BYTES", 100)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((3, 5)))
    assert open_array(str(tmp_path / "a.npz"))[(2,)].shape == (5,)
    with pytest.raises(ValueError, match="save it as .npy, which stays on the disk"):
        load_array(str(tmp_path / "a.npz"))
