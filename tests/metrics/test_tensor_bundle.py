from __future__ import annotations

import numpy as np
import pytest
from weight_files import bundle, masked, varint
from weight_files import crc32c as slow_crc32c

from jaxvid.metrics.tensor_bundle import masked_crc32c, read_bundle, snappy_decompress
from jaxvid.metrics.weight_file import WeightFileError, fetch, parse

RNG = np.random.default_rng(0)
TENSORS = {f"RGB/net/Mixed_{i}/conv_3d/w": RNG.normal(size=(1, 2, i + 1)).astype(np.float32) for i in range(40)}
TENSORS |= {"RGB/net/bias": np.arange(3, dtype=np.float32), "step": np.array(300, np.int64)}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("size", [0, 1, 3, 9, 508, 2600])
def test_checksums_are_masked_as_in_tensorflow(size):
    data = RNG.bytes(size)
    expected = int.from_bytes(masked(slow_crc32c(data)), "little")
    assert masked_crc32c(data) == masked_crc32c(np.frombuffer(data, np.uint8)) == expected


def test_snappy_by_hand():
    """Literals with one and two bytes of length, copies of each kind, and a copy that runs into itself."""
    long = RNG.bytes(300)
    literal = b"\xf4" + (299).to_bytes(2, "little") + long  # tag 61: two bytes of length
    near = bytes([(4 - 4) << 2 | 1 | (300 >> 8) << 5, 300 & 255])  # 4 bytes from 300 back
    two = bytes([(10 - 1) << 2 | 2]) + (304).to_bytes(2, "little")
    four = bytes([(5 - 1) << 2 | 3]) + (1).to_bytes(4, "little")  # the last byte, five times
    short = b"\xf0\x3c" + bytes(61)  # tag 60: one byte of length
    expected = long + long[:4] + long[:10] + long[9:10] * 5 + bytes(61)
    assert snappy_decompress(varint(len(expected)) + literal + near + two + four + short) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x05\x10abcd",  # a literal that ends early
        b"\x04\x0cabcdX",  # one byte too many
        b"\x08\x0cabcd\x01\x05",  # a copy from before the beginning
        b"\x08\x0cabcd\x01\x00",  # a copy of nothing
        b"\xff\xff\xff\xff\x0f",  # 4 GiB
        b"\x05\x10ab",
        b"\x08\x0cabcd\x01",  # a tag alone
        b"\xff" * 20,
        b"",
    ],
)
def test_broken_snappy(data):
    with pytest.raises((ValueError, IndexError)):
        snappy_decompress(data)


@pytest.mark.parametrize("compress", [False, True])
def test_checkpoint_by_hand(tmp_path, compress):
    index, data = bundle(TENSORS, compress)
    assert_same(read_bundle(index, data), TENSORS)
    prefix = tmp_path / "model.ckpt"
    (tmp_path / "model.ckpt.index").write_bytes(index)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(data)
    for source in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", prefix.as_uri()):
        assert_same(parse("x", fetch(source)), TENSORS)


def test_checkpoint_without_its_data(tmp_path):
    index, data = bundle(TENSORS)
    (tmp_path / "model.ckpt.index").write_bytes(index)
    with pytest.raises(WeightFileError, match="its data file .*model.ckpt.data-00000-of-00001 is missing"):
        parse("x", fetch(tmp_path / "model.ckpt"))
    (tmp_path / "renamed").write_bytes(index)
    with pytest.raises(WeightFileError, match="has to end in .index"):
        parse("x", fetch(tmp_path / "renamed"))
    with pytest.raises(WeightFileError, match="truncated"):
        parse("model.ckpt", [index, data[:-1]])
    with pytest.raises(WeightFileError, match="damaged or another one"):
        parse("model.ckpt", [index, bytes(len(data))])


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_an_error_or_harmless(compress):
    index, data = bundle(TENSORS, compress)
    rng, harmless = np.random.default_rng(1), 0
    for trial in range(300):
        parts = [bytearray(index), bytearray(data)]
        bad = parts[trial % 5 == 0]
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        if trial % 4 == 0:
            del bad[rng.integers(len(bad)) :]
        try:
            found = parse("model.ckpt", [bytes(part) for part in parts])
        except WeightFileError:
            continue
        harmless += 1
        assert_same(found, TENSORS)
    assert harmless < 30  # the padding of the footer, and the empty block of meta data
