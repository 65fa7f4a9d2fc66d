from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from weight_files import integers, rebuild, state_dict, text, torch_file, torch_legacy, torch_script, torch_zip

from jaxvid.metrics.torch_file import read_torch
from jaxvid.metrics.weight_file import WeightFileError, fetch, parse

RNG = np.random.default_rng(0)
TENSORS = {
    "layer.weight": RNG.normal(size=(3, 4, 2)).astype(np.float32),
    "layer.half": RNG.normal(size=5).astype(np.float16),
    "layer.num_batches_tracked": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}
WRITERS = {"zip": torch_file, "legacy": torch_legacy, "script": torch_script}
PARTS = {"sd_zip": "sd", "sd_legacy": "sd", "sd_zip_protocol4": "sd", "module_torchscript": "torchscript"}
PARTS |= {"checkpoint_zip": "checkpoint", "checkpoint_legacy": "checkpoint"}
REFUSED = {
    "builtins_getattr_zip.pt": "builtins getattr",
    "dotted_global_zip.pt": "torch._utils sys.modules.keys",
    "dotted_torch_global_zip.pt": "torch hub.load",
    "module_legacy.pt": "TinyModule",
    "module_zip.pt": "TinyModule",
    "negative_offset_zip.pt": "impossible shape or stride",
    "out_of_bounds_size_zip.pt": "outside its storage",
    "out_of_bounds_stride_zip.pt": "outside its storage",
    "plain_pickle_print.pkl": "print",
    "print_legacy.pt": "print",
    "print_zip.pt": "print",
    "truncated_legacy.pt": "truncated",
    "truncated_zip.pt": "truncated",
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_what_was_written(form):
    assert_same(read_torch(WRITERS[form](TENSORS)), TENSORS)


@pytest.mark.parametrize("name", PARTS)
def test_files_written_by_pytorch(shared, name):
    folder = shared / "fixtures/evaluator/torch_files"
    with np.load(folder / "expected.npz") as arrays:
        prefix = PARTS[name] + "/"
        keys = [key for key in arrays.files if key.startswith(prefix)]
        expected = {key.removeprefix(prefix).replace("state_dict/", "state_dict."): arrays[key] for key in keys}
    assert_same(parse("x", fetch(folder / f"{name}.pt")), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_would_run_code_or_are_broken(shared, name, capfd):
    path = shared / f"fixtures/evaluator/torch_files/refuse_{name}"
    with pytest.raises(WeightFileError, match=REFUSED[name]) as refusal:
        parse(path, fetch(path))
    assert str(refusal.value).startswith(str(path)) and refusal.value.name == str(path)
    assert capfd.readouterr() == ("", "")


def test_every_refused_file_is_tested(shared):
    names = {path.name for path in (shared / "fixtures/evaluator/torch_files").glob("refuse_*")}
    assert names == {f"refuse_{name}" for name in REFUSED}


class Runs:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("script", [False, True])
def test_nothing_is_executed(tmp_path, protocol, script):
    program = pickle.dumps({"weight": Runs(tmp_path / "written")}, protocol)
    pickle.loads(program)
    assert (tmp_path / "written").exists()
    (tmp_path / "written").unlink()
    extra = {"constants.pkl": b"\x80\x02)."} if script else {}
    for data in (torch_zip(program, [], extra), program):
        with pytest.raises(ValueError, match="open"):
            read_torch(data)
    assert not (tmp_path / "written").exists()


def test_tensors_of_old_pytorch_and_python_2():
    """_rebuild_tensor of 0.3, byte strings for names, and an OrderedDict made from pairs."""
    weight = TENSORS["layer.weight"]
    storage = rebuild(weight, "0").split(b"(", 1)[1].removesuffix(b"\x89ccollections\nOrderedDict\n)RtR")
    old = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"tR"
    pairs = b"ccollections\nOrderedDict\n(](](U\x05layer" + old + b"eetR"
    found = read_torch(torch_zip(b"\x80\x02" + pairs + b".", [weight.tobytes()]))
    assert_same(found, {"layer": weight})


def test_views_share_a_storage_and_keep_their_strides():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    column = rebuild(matrix[:, 0], "0", offset=1, stride=[4])
    column = column.replace(b"J\x03\0\0\0tQ", b"J\x0c\0\0\0tQ")  # the storage holds all 12
    items = text("a") + rebuild(matrix, "0") + text("b") + column + text("c") + rebuild(matrix, "0", stride=[1, 3])
    found = read_torch(torch_zip(b"\x80\x02}(" + items + b"u.", [matrix.tobytes()]))
    transposed = np.arange(12, dtype=np.float32).reshape(4, 3).T
    assert_same(found, {"a": matrix, "b": matrix[:, 1], "c": transposed})


def one(opcodes: bytes) -> bytes:
    return b"\x80\x02}" + text("w") + opcodes + b"s."


VECTOR = np.arange(4, dtype=np.float32)
IMPOSSIBLE = {
    "one element too many": (one(rebuild(VECTOR, "0", stride=[2])), "outside its storage"),
    "an offset": (one(rebuild(VECTOR, "0", offset=1)), "outside its storage"),
    "a negative stride": (one(rebuild(VECTOR, "0", offset=3, stride=[-1])), "impossible"),
    "strides without axes": (one(rebuild(VECTOR, "0", stride=[1, 1])), "impossible"),
    "a storage that is not there": (one(rebuild(VECTOR, "1")), "missing"),
    "a storage of another length": (one(rebuild(VECTOR[:2], "0")), "truncated or damaged"),
    "terabytes from one number": (
        one(rebuild(VECTOR, "0", stride=[0, 0]).replace(integers([4]), integers([1 << 20, 1 << 20]))),
        "more than",
    ),
    "a script's class outside a script": (b"\x80\x02c__torch__\nNet\n)\x81.", "__torch__ Net"),
    "a name that begins like a script's": (b"\x80\x02c__torch__x\nNet\n)\x81.", "__torch__x"),
    "a storage that is called": (b"\x80\x02ctorch\nFloatStorage\n)R.", "would call"),
    "a new OrderedDict by NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "would make an object"),
    "an opcode of old pickles": (b"\x80\x02(itorch\nx\n.", "opcode INST"),
    "an extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "a tuple for a key": (b"\x80\x02}" + integers([1]) + b"Ns.", "keys other than names"),
    "a dict that holds itself": (b"\x80\x02}q\0" + text("a") + b"h\0s.", "nested too deeply"),
    "a billion dicts": (
        b"\x80\x02}" + b"".join(b"q%c}(Ka" % i + b"h%cKbh%cu" % (i, i) for i in range(40)) + b".",
        "many",
    ),
    "millions of lists": (b"\x80\x02" + b"]" * 1_100_000 + b".", "1,000,000 steps"),
    "copies of a list": (
        b"\x80\x02ctorch.jit._pickle\nbuild_intlist\nq\0](" + b"K\1" * 9000 + b"eq\1" + b"h\0h\1\x85R" * 300 + b".",
        "1,000,000 steps",
    ),
    "copies of a word": (
        b"\x80\x02c_codecs\nencode\nq\0" + text("a" * 9000) + b"q\1" + b"h\0h\1h\1\x86R" * 300 + b".",
        "1,000,000 steps",
    ),
    "one number as many": (
        one(rebuild(VECTOR, "0", stride=[0, 0]).replace(integers([4]), integers([100, 100]))),
        "more than twice the bytes of the file",
    ),
    "no tensor at all": (one(b"K\x01"), "no named tensors"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_refused(case):
    program, message = IMPOSSIBLE[case]
    with pytest.raises(ValueError, match=message):
        read_torch(torch_zip(program, [VECTOR.tobytes()]))


def test_classes_of_a_script_are_told_by_their_whole_first_part():
    for name in ("__torch__x\nNet", "__torch__x.y\nNet", "os.__torch__\nNet"):
        data = torch_zip(f"\x80\x02c{name}\n)\x81.".encode("latin1"), [], {"constants.pkl": b"\x80\x02)."})
        with pytest.raises(ValueError, match="it names"):
            read_torch(data)


def test_a_huge_memo_index_takes_no_memory():
    """The unpickler of CPython would make room for 2^31 objects."""
    found = read_torch(torch_zip(one(rebuild(VECTOR, "0") + b"r\xff\xff\xff\x7f"), [VECTOR.tobytes()]))
    assert_same(found, {"w": VECTOR})


def test_archives_that_are_none_of_pytorchs():
    good = torch_file(TENSORS)
    file = io.BytesIO()
    np.savez(file, a=VECTOR)
    storages = [tensor.tobytes() for tensor in TENSORS.values()]
    second = torch_zip(state_dict(TENSORS), storages, {"extra/data.pkl": b"\x80\x02N."})
    big_endian = torch_zip(state_dict(TENSORS), storages, {"byteorder": b"big"})
    for data, message in [(file.getvalue(), "data.pkl"), (second, "data.pkl"), (big_endian, "big-endian")]:
        with pytest.raises(ValueError, match=message):
            read_torch(data)
    with pytest.raises(WeightFileError, match="x.pt cannot be read as weights: .*Bad CRC"):
        parse("x.pt", [good.replace(TENSORS["layer.weight"].tobytes()[:8], b"\1" * 8)])


@pytest.mark.parametrize("form", WRITERS)
def test_damage_is_an_error_or_harmless(form):
    """Byte flips and cuts; the legacy form alone has no checksums, so that its numbers may change."""
    good, rng = WRITERS[form](TENSORS), np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(400):
        bad = bytearray(good)
        for place in rng.integers(len(bad), size=1 + trial % 3):
            bad[place] ^= 1 << rng.integers(8)
        if trial % 4 == 0:
            del bad[rng.integers(len(bad)) :]
        try:
            found = parse("x.pt", [bytes(bad)])
        except WeightFileError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            if form != "legacy":
                assert_same(found, TENSORS)
    assert min(outcomes.values()) > 10


@pytest.mark.parametrize("name", PARTS)
def test_damage_to_files_written_by_pytorch(shared, name):
    path = shared / f"fixtures/evaluator/torch_files/{name}.pt"
    good, rng, refused = path.read_bytes(), np.random.default_rng(2), 0
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] = rng.integers(256)
        try:
            parse("x.pt", [bytes(bad)])
        except WeightFileError:
            refused += 1
    assert 20 < refused < 200
