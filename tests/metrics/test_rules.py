"""The rules against checksums that came with the reference numbers."""

from __future__ import annotations

import json
import zlib

import pytest
import rules


def crc(array) -> int:
    return zlib.crc32(array.tobytes())


def test_inputs_are_the_references_bit_for_bit():
    assert crc(rules.image("rect48x80", 48, 80)) == 661188596
    assert crc(rules.video("rect48x80_t16", 16, 48, 80)) == 711354563
    assert crc(rules.logits("is_1008", 500, 1008)) == 1287722310
    assert crc(rules.weights("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3))) == 240715159
    assert crc(rules.weights("Conv2d_1a_3x3.bn.running_var", (32,))) == 1014371863


@pytest.mark.parametrize("file", ["keys_inception_fid.json", "keys_i3d_400.json"])
def test_weights_are_the_references_bit_for_bit(shared, file):
    for entry in json.loads((shared / "fixtures" / "evaluator" / file).read_text())["keys"]:
        assert crc(rules.weights(entry["key"], tuple(entry["shape"]))) == entry["crc32_public"], entry["key"]


def test_features_are_the_references_bit_for_bit(shared):
    case = json.loads((shared / "fixtures" / "evaluator" / "frechet_expected.json").read_text())["fd_d64_meanshift"]
    for name, number, shift in ("x", 1, 0), ("y", 2, 120):
        features = rules.features(f"fd_d64_meanshift/{number}", 256, 64, shift, "fd_d64_meanshift")
        assert crc(features) == case[f"crc32_{name}"]


def test_a_salt_makes_another_set():
    assert crc(rules.image("a", 8, 8, salt="x")) != crc(rules.image("a", 8, 8))
    assert crc(rules.weights("a.weight", (4, 4), salt="x")) != crc(rules.weights("a.weight", (4, 4)))
