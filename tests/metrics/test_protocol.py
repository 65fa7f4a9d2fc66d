"""What each protocol gives its network, against what the programs themselves gave theirs."""

import numpy as np
import pytest
import rules

from jaxvid.metrics.protocol import FID_PROTOCOLS, FVD_PROTOCOLS, PROTOCOLS, prepare

SIZES = {"small64_a": (64, 64), "rect48x80": (48, 80), "big400x320": (400, 320)}
RESIZED = {"pytorch_fid": "torch_bilinear_01", "torch_fidelity": "tf1_bilinear_255", "clean": "pil_bicubic_255"}
MODES = {"original": "tf1", "videogpt": "videogpt", "cdfvd": "cdfvd", "stylegan_v": "cdfvd"}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("name", FID_PROTOCOLS)
def test_images_as_the_programs_resize_them(name, case, shared) -> None:
    with np.load(shared / "fixtures" / "evaluator" / "inception_expected.npz") as expected:
        pixels = expected[f"{case}/resized/{RESIZED[name]}/every13"].astype(np.float64)
    pixels = pixels if name != "pytorch_fid" else 255 * pixels
    inputs = 2 * pixels / 255 - 1 if name == "pytorch_fid" else (pixels - 128) / 128
    found = prepare(rules.image(case, *SIZES[case]), PROTOCOLS[name])
    assert found.shape == (299, 299, 3)
    np.testing.assert_allclose(found[::13, ::13], inputs, atol=2e-5)


@pytest.mark.parametrize("case", ["small64_t16_a", "rect48x80_t16"])
@pytest.mark.parametrize("name", FVD_PROTOCOLS)
def test_videos_as_the_programs_resize_them(name, case, shared) -> None:
    size = (64, 64) if case.startswith("small") else (48, 80)
    with np.load(shared / "fixtures" / "evaluator" / "i3d_expected.npz") as expected:
        inputs = expected[f"{case}/{MODES[name]}/input_every"]
    found = prepare(rules.video(case, 16, *size), PROTOCOLS[name])
    np.testing.assert_allclose(found[::5, ::16, ::16], inputs, atol=2e-5)


def test_frames_of_the_networks_size_are_only_scaled() -> None:
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    for name, protocol in PROTOCOLS.items():
        size = {"inception": 299, "i3d": 224}[protocol.network]
        image = np.resize(frame, (size, size, 3))
        x = image.astype(np.float64)
        scaled = (x - 128) / 128 if name in ("torch_fidelity", "clean") else 2 * x / 255 - 1
        np.testing.assert_allclose(prepare(image, protocol), scaled, atol=1e-6, err_msg=name)


def test_what_the_protocols_differ_in() -> None:
    facts = {name: (p.epsilon, p.ddof, p.real_clips, p.fake_clips) for name, p in FVD_PROTOCOLS.items()}
    assert facts == {
        "original": (1e-3, 1, 2048, 2048),
        "videogpt": (1e-5, 1, 256, 256),
        "cdfvd": (1e-5, 0, 0, 2048),
        "stylegan_v": (1e-3, 0, 2048, 2048),
    }
    with pytest.raises(ValueError, match=r"frames is float32 \[4,4,3\], expected uint8 \[...,H,W,3\]"):
        prepare(np.zeros((4, 4, 3), np.float32), PROTOCOLS["original"])
