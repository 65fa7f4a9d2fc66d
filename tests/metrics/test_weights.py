from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import jax
import numpy as np
import pytest
from safetensors.numpy import save, save_file
from weight_files import bundle, torch_file, torch_legacy, torch_script

from jaxvid.metrics import convert as convert_module
from jaxvid.metrics import i3d as i3d_module
from jaxvid.metrics.convert import (
    RGB_IMAGENET,
    RGB_SCRATCH,
    convert,
    i3d_digest,
    identify,
    inception_graph_name,
    shapes,
)
from jaxvid.metrics.tensor_bundle import masked_crc32c
from jaxvid.metrics.weight_file import WeightFileError, fetch, parse
from jaxvid.metrics.weights import cache_path, load, main

# SHA-256 of the sorted lines "key [shape]" of the programs' own state dicts, without counters.
STATE_DICTS = {
    "inception": "bd04e829988dd22dd0bbf9e499a87af311ed57c1b4309a9d20a907d8ed4123d4",
    "i3d": "6c8dc7152f4ec11c6f0724b863fc0b9a767eaf683446db6c2f9c2c71e6fa6df3",
}
# Of the sorted lines "TensorFlow's name, PyTorch's name": the 230 variables of I3D, the 94 units of Inception.
I3D_VARIABLES = "a16b3b9f15921dc5874af8cf1a92cf28d1fd814a564b3168f8dc70d97c5e7d61"
INCEPTION_UNITS = "a9939bc99b49c3f0879d5ee1a4c1994de2059783c63848e92cd5d8629725ba19"


def digest(lines) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def random_weights(network: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in shapes(network).items()}


def tensorflow_i3d(vector_axes: int = 1) -> dict[str, np.ndarray]:
    """Weights as kinetics-i3d has them, or TF-Hub with vectors of 5 axes."""
    rng, names = np.random.default_rng(1), convert_module._tensorflow_names()
    found = {}
    for name, shape in shapes("i3d").items():
        if name in names:
            if len(shape) == 5:
                shape = (*shape[2:], shape[1], shape[0])
            elif "/batch_norm/" in names[name]:
                shape = (1,) * (vector_axes - 1) + shape
            found[names[name]] = rng.random(shape, np.float32)
    return found


@pytest.fixture(scope="module")
def inception() -> dict[str, np.ndarray]:
    return random_weights("inception")


@pytest.fixture(scope="module")
def i3d() -> dict[str, np.ndarray]:
    return random_weights("i3d")


@pytest.mark.parametrize("network", STATE_DICTS)
def test_names_and_shapes(network):
    assert digest(f"{name} {list(shape)}" for name, shape in shapes(network).items()) == STATE_DICTS[network]


def test_tensorflow_names():
    names = convert_module._tensorflow_names()
    assert len(names) == 230 and digest(f"{graph} {name}" for name, graph in names.items()) == I3D_VARIABLES
    convolutions = [name for name in shapes("inception") if name.endswith(".conv.weight")]
    units = {unit: inception_graph_name(unit) for unit in (name[: -len(".conv.weight")] for name in convolutions)}
    assert len(units) == 94 and digest(f"{name} {graph}" for name, graph in units.items()) == INCEPTION_UNITS


def test_digests_are_those_of_the_published_files(shared):
    folder = shared / "fixtures/evaluator"
    for network, file in {"inception": "keys_inception_fid.json", "i3d": "keys_i3d_400.json"}.items():
        keys = {entry["key"]: entry["shape"] for entry in json.loads((folder / file).read_text())["keys"]}
        lines = [f"{key} {shape}" for key, shape in keys.items() if not key.endswith("num_batches_tracked")]
        assert digest(lines) == STATE_DICTS[network]
    units = json.loads((folder / "inception_tf_units.json").read_text())["torch_unit_to_graphdef_unit"]
    assert digest(f"{name} {graph}" for name, graph in units.items()) == INCEPTION_UNITS
    variables = json.loads((folder / "i3d_tf_variables.json").read_text())["variables"]
    assert digest(f"{entry['tf']} {entry['torch_key']}" for entry in variables) == I3D_VARIABLES
    for file, expected in {
        "tf_hub_i3d_kinetics_400": RGB_SCRATCH,
        "kinetics_i3d_rgb_scratch": RGB_SCRATCH,
        "kinetics_i3d_rgb_imagenet": RGB_IMAGENET,
    }.items():
        crcs = [(entry["tf"], entry[f"masked_crc32c_{file}"].to_bytes(4, "little")) for entry in variables]
        assert hashlib.sha256(b"".join(crc for _, crc in sorted(crcs))).hexdigest() == expected


@pytest.mark.parametrize("vector_axes", [1, 5])
def test_tensorflow_checkpoint(vector_axes):
    tensors = tensorflow_i3d(vector_axes)
    weights = convert(tensors)[1]
    assert {name: tensor.shape for name, tensor in weights.items()} == shapes("i3d")
    kernel = tensors["RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"]  # [3,3,3,I,O]
    np.testing.assert_array_equal(weights["Mixed_5b.b2b.conv3d.weight"], np.moveaxis(kernel, (4, 3), (0, 1)))
    variance = tensors["RGB/inception_i3d/Conv3d_2c_3x3/batch_norm/moving_variance"]
    np.testing.assert_array_equal(weights["Conv3d_2c_3x3.bn.running_var"], variance.ravel())
    np.testing.assert_array_equal(
        weights["logits.conv3d.bias"], tensors["RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/b"]
    )
    assert (weights["Mixed_3b.b0.bn.weight"] == 1).all()
    crcs = b"".join(masked_crc32c(tensors[name].tobytes()).to_bytes(4, "little") for name in sorted(tensors))
    assert i3d_digest(weights) == hashlib.sha256(crcs).hexdigest()


def test_state_dicts_with_and_without_counters(inception, i3d):
    counter = np.array(3)
    for network, weights in {"inception": inception, "i3d": i3d}.items():
        counted = dict(reversed(weights.items()))
        counted |= {n.replace("running_var", "num_batches_tracked"): counter for n in weights if "running_var" in n}
        name, found = convert(counted)
        assert name == network and list(found) == list(shapes(network))
        assert all((found[name] == weights[name]).all() for name in weights)


def renamed(weights: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """The weights under names spelled out here by other rules than the library's."""
    replacements = {
        "hassony2": (
            [("logits.conv3d", "conv3d_0c_1x1.conv3d"), (".bn.", ".batch3d."), ("Mixed", "mixed"), ("Conv3d", "conv3d")]
            + [(f".b{n}{letter}.", f".branch_{n}.{i}.") for n in "123" for i, letter in enumerate("ab")]
            + [(".b0.", ".branch_0.")]
        ),
        "stylegan": (
            [("fc.", "output."), (".conv.weight", ".weight"), (".bn.bias", ".beta"), (".bn.running_", ".")]
            + [("Conv2d_1a_3x3", "layers.conv"), ("Conv2d_2a_3x3", "layers.conv_1"), ("Conv2d_2b_3x3", "layers.conv_2")]
            + [("Conv2d_3b_1x1", "layers.conv_3"), ("Conv2d_4a_3x3", "layers.conv_4")]
            + [
                (f"Mixed_{b}.", f"layers.mixed{f'_{i}' * (i > 0)}.")
                for i, b in enumerate("5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split())
            ]
            + [
                ("branch3x3dbl_2.", "tower_1.conv_1."),
                ("branch3x3dbl_3.", "tower_1.conv_2."),
                ("branch3x3dbl_1.", "tower_1.conv."),
            ]
            + [
                ("branch5x5_1", "tower.conv"),
                ("branch5x5_2", "tower.conv_1"),
                ("branch_pool", "tower_2.conv"),
                ("branch1x1", "conv"),
            ]
            + [(f"branch7x7dbl_{i + 1}", f"tower_1.conv{f'_{i}' * (i > 0)}") for i in range(5)]
            + [(f"branch7x7x3_{i + 1}", f"tower_1.conv{f'_{i}' * (i > 0)}") for i in range(4)]
            + [(f"branch7x7_{i + 1}", f"tower.conv{f'_{i}' * (i > 0)}") for i in range(3)]
            + [("branch3x3dbl_3a", "tower_1.mixed_conv"), ("branch3x3dbl_3b", "tower_1.mixed_conv_1")]
            + [("branch3x3_2a", "tower.mixed_conv"), ("branch3x3_2b", "tower.mixed_conv_1")]
            + [("branch3x3_1", "tower.conv"), ("branch3x3_2", "tower.conv_1"), ("branch3x3.", "conv.")]
        ),
    }[family]
    out = {}
    for name, tensor in weights.items():
        if family == "stylegan" and name.endswith("bn.weight"):
            continue
        for old, new in replacements:
            name = name.replace(old, new)
        if family == "stylegan" and "mixed_3." in name:
            name = name.replace("tower_1.", "tower.")
        if "mixed_9." in name or "mixed_10." in name:
            name = name.replace("tower.", "tower_").replace("tower_1.", "tower_1_").replace("tower_2.", "tower_2_")
        out[name] = tensor
    return out


def test_stylegan_names(inception):
    tensors = renamed(inception, "stylegan")
    assert "layers.mixed_9.tower_1_mixed_conv_1.var" in tensors and "layers.mixed_3.tower.conv_2.beta" in tensors
    found = convert(tensors)[1]
    for name, tensor in found.items():
        expected = np.ones_like(tensor) if name.endswith("bn.weight") else inception[name]
        np.testing.assert_array_equal(tensor, expected, name)


def test_hassony2_names(i3d):
    tensors = renamed(i3d, "hassony2")
    assert "mixed_4b.branch_3.1.batch3d.running_mean" in tensors and "mixed_3b.branch_0.conv3d.weight" in tensors
    found = convert(tensors)[1]
    assert all((found[name] == i3d[name]).all() for name in i3d)


@pytest.mark.parametrize("prefix", ["module.", "state_dict.", "state_dict.module.", "net.0."])
def test_what_stands_before_every_name_is_left_out(i3d, inception, prefix):
    others = {"epoch": np.array(3), "optimizer.state.0.exp_avg": np.zeros(4, np.float32)}
    for network, weights in (("i3d", i3d), ("inception", inception)):
        found, converted = convert({**{prefix + name: tensor for name, tensor in weights.items()}, **others})
        assert found == network and all((converted[name] == weights[name]).all() for name in weights)
    read = parse("x", [torch_file({prefix + "a": np.zeros(3, np.float32)})])
    assert list(read) == [prefix + "a"]


def test_two_networks_in_one_file_are_refused(i3d):
    both = {prefix + name: tensor for prefix in ("model.", "ema.") for name, tensor in i3d.items()}
    with pytest.raises(ValueError, match="several networks, 'ema.' and 'model.': keep one of them"):
        convert(both)


def test_conversion_is_strict(i3d):
    name = "Mixed_4c.b1b.conv3d.weight"
    nan = i3d[name].copy()
    nan[3, 2, 1, 0, 1] = np.nan
    for change, message in [
        (
            {name: None},
            r"needs the tensor 'Mixed_4c.b1b.conv3d.weight' of shape \(224, 112, 3, 3, 3\), which is missing",
        ),
        ({name: i3d[name][:-1]}, r"float32 \(223, 112, 3, 3, 3\), expected float32 \(224, 112, 3, 3, 3\)"),
        ({name: i3d[name].astype(np.int32)}, "int32"),
        ({name: nan}, "not finite"),
        ({"AuxLogits.bias": np.zeros(7)}, r"no tensor 'AuxLogits.bias' of shape \(7,\)"),
    ]:
        tensors = {key: value for key, value in (i3d | change).items() if value is not None}
        with pytest.raises(ValueError, match=message):
            convert(tensors)
    for tensors in ({}, {"fc.weight": nan, "fc.bias": nan}):
        with pytest.raises(ValueError, match="neither the FID Inception nor I3D"):
            convert(tensors)


def test_identities(i3d, monkeypatch):
    scaled = {name: np.ones_like(value) if name.endswith("bn.weight") else value for name, value in i3d.items()}
    assert identify("i3d", i3d, b"file") == f"unknown weights, sha256 {hashlib.sha256(b'file').hexdigest()}"
    assert i3d_digest(i3d) == ""  # TensorFlow has no scales
    monkeypatch.setitem(convert_module.KNOWN_I3D, i3d_digest(scaled), "these")
    assert identify("i3d", scaled, b"file") == "these"
    swapped = scaled | {"Mixed_3b.b0.bn.bias": scaled["Mixed_3b.b0.bn.running_mean"]}
    assert identify("i3d", swapped, b"file").startswith("unknown")
    # `printf file | git hash-object --stdin`
    monkeypatch.setitem(convert_module.KNOWN_FILES, "1a010b1c0f081b2e8901d55307a15c29ff30af0e", "by Git")
    assert identify("inception", {}, b"file") == "by Git"
    monkeypatch.setitem(convert_module.KNOWN_FILES, hashlib.sha256(b"file").hexdigest()[:8], "by SHA-256")
    assert identify("inception", {}, b"file") == "by SHA-256"


TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(5, np.int64),
    "c": np.zeros((0, 2), np.float16),
}
# The example of the format: a header of one tensor, then its bytes.
SAFETENSORS = (
    (62).to_bytes(8, "little")
    + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}        '
    + b"\0\0\x80\x3f\0\0\0\x40"
)


def test_safetensors():
    assert parse("x", [SAFETENSORS])["x"].tolist() == [1, 2]
    found = parse("x", [save(TENSORS)])
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name], tensor)
    bfloat16 = SAFETENSORS.replace(b"F32", b"BF16").replace(b"}}  ", b"}} ").replace(b"[2]", b"[4]")
    found = parse("x", [bfloat16])["x"]
    assert found.dtype == np.float32 and found.tolist() == [0, 1, 0, 2]
    rare = SAFETENSORS.replace(b"F32", b"U64").replace(b"[2]", b"[1]")
    with pytest.raises(WeightFileError, match="its tensor 'x' is of type U64, which is not read"):
        parse("x", [rare])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"[0,8]", b"[1,9]"),
        (b"[0,8]", b"[0,4]"),
        (b"[2]", b"[3]"),
        (b"[2]", b"2  "),
        (b"F32", b"F99"),
        (b"}}", b"}]"),
        (b"\x40", b""),
        (b"\x40", b"\x40\x40"),
    ],
)
def test_broken_safetensors(old, new):
    assert old in SAFETENSORS
    with pytest.raises(WeightFileError, match="x.safetensors cannot be read"):
        parse("x.safetensors", [SAFETENSORS.replace(old, new)])


def test_safetensors_that_share_bytes():
    header = (
        b'{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    )
    with pytest.raises(WeightFileError, match="damaged or truncated .*[Oo]ffset"):
        parse("x", [len(header).to_bytes(8, "little") + header + bytes(4)])


def test_damage_to_safetensors():
    rng, refused = np.random.default_rng(0), 0
    for trial in range(300):
        bad = bytearray(SAFETENSORS)
        bad[rng.integers(len(bad))] = rng.integers(256)
        try:
            parse("x", [bytes(bad[: len(bad) if trial % 3 else rng.integers(len(bad))])])
        except WeightFileError:
            refused += 1
    assert 100 < refused < 300  # a third is cut short


def test_files_that_are_no_weights(tmp_path):
    for data, message in [
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "its format is unknown"),
        (torch_file(TENSORS)[:-30], "truncated"),
    ]:
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(WeightFileError, match=message):
            parse("file", fetch(tmp_path / "file"))
    for source, message in [
        (tmp_path, "folder"),
        (tmp_path / "no", "no such file"),
        ("file:///no/such", "no such file"),
    ]:
        with pytest.raises(WeightFileError, match=message):
            parse(source, fetch(source))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/jaxvid/weights"


@pytest.fixture
def served(tmp_path):
    """A folder, and the URL under which it is served; "/short" breaks off."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if self.path != "/short":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK\x03\x04")

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_command_converts_a_checkpoint_behind_a_url(cache, served, capsys, monkeypatch):
    folder, url = served
    tensors = tensorflow_i3d()
    index, data = bundle(tensors, crc=google_crc32c.value)
    (folder / "model.ckpt.index").write_bytes(index)
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(data)
    monkeypatch.setitem(convert_module.KNOWN_I3D, i3d_digest(convert(tensors)[1]), "the ones of this test")
    assert main([f"{url}/model.ckpt"]) == 0
    assert capsys.readouterr().out.startswith("i3d: the ones of this test\n" + str(cache_path("i3d")))
    params, info = load("i3d")
    assert (info.network, info.source, info.identity) == ("i3d", f"{url}/model.ckpt", "the ones of this test")
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    expected = i3d_module.from_torch(convert(tensors)[1])
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)

    with pytest.raises(WeightFileError, match="it contains the weights of i3d, not of inception"):
        load("inception", cache_path("i3d"))
    before = cache_path("i3d").stat().st_mtime_ns
    assert (
        main([f"{url}/model.ckpt"]) == 0 and cache_path("i3d").stat().st_mtime_ns == before
    )  # the same: nothing to do
    bad = bytearray(cache_path("i3d").read_bytes())
    bad[-1000] ^= 1
    cache_path("i3d").write_bytes(bad)
    with pytest.raises(WeightFileError, match="i3d.safetensors .*digest: it is damaged"):
        load("i3d")
    capsys.readouterr()
    assert main([f"{url}/model.ckpt"]) == 2
    assert "Delete it first" in capsys.readouterr().err and cache_path("i3d").read_bytes() == bad


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, inception):
    (tmp_path / "weights.pth").write_bytes(torch_file(inception))
    monkeypatch.setattr("jaxvid.metrics.weights.save_file", lambda _, path, __: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([str(tmp_path / "weights.pth"), "--output", str(tmp_path / "deep" / "file")])
    assert list((tmp_path / "deep").iterdir()) == []


def test_other_weights_are_not_overwritten(cache, tmp_path, capsys, inception):
    (tmp_path / "a.pth").write_bytes(torch_legacy(inception))
    assert main([str(tmp_path / "a.pth")]) == 0
    before = load("inception")[1]
    assert before.identity == f"unknown weights, sha256 {before.sha256}"
    other = inception | {"fc.bias": inception["fc.bias"] + 1}
    (tmp_path / "b.pth").write_bytes(torch_file(other))
    capsys.readouterr()
    assert main([str(tmp_path / "b.pth")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and load("inception")[1] == before
    assert main([str(tmp_path / "b.pth"), "--output", str(tmp_path / "b")]) == 0
    np.testing.assert_array_equal(load("inception", tmp_path / "b")[0]["fc"]["bias"], other["fc.bias"])


def test_torchscript_archive_is_converted(i3d):
    tensors = renamed(i3d, "hassony2")
    found = convert(parse("i3d_torchscript.pt", [torch_script(tensors)]))[1]
    assert all((found[name] == i3d[name]).all() for name in i3d)


def test_missing_weights_name_the_command(cache):
    for network, words in {
        "inception": ["pt_inception-2015-12-05", "95.5 MB"],
        "i3d": ["rgb_scratch/model.ckpt", "50.8 MB"],
    }.items():
        with pytest.raises(FileNotFoundError) as error:
            load(network)
        text = str(error.value)
        assert all(word in text for word in [*words, "python -m jaxvid.metrics.weights https://", str(cache)])
        assert "\n" not in text
    with pytest.raises(ValueError, match='network is "vgg", expected one of inception, i3d'):
        load("vgg")


def test_command_says_what_is_wrong(cache, served, capsys, tmp_path):
    folder, url = served
    (folder / "page").write_text("<html>not found</html>")
    (folder / "other.pt").write_bytes(torch_file(TENSORS))
    save_file(TENSORS, folder / "other.safetensors")
    for source, message in [
        (f"{url}/none", "there is no such file"),
        (f"{url}/page", "web page"),
        (f"{url}/short", "4 of its 1000 bytes|download fails"),
        (f"{url}/other.pt", "neither the FID Inception nor I3D"),
        (str(folder / "other.safetensors"), "neither the FID Inception nor I3D"),
        (str(tmp_path / "none.pt"), "there is no such file"),
        ("http://127.0.0.1:9/x", "download fails"),
    ]:
        assert main([source]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert err.startswith(f"jaxvid: {source}") and any(part in err for part in message.split("|"))
    assert not cache.exists()
    for file in ("other.safetensors", "other.pt", "page"):
        with pytest.raises(WeightFileError, match=f"{file} cannot be read as weights: it is .*no converted file"):
            load("i3d", folder / file)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
