"""Inception against pytorch-fid, torch-fidelity and clean-fid, on weights and images made by rules."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rules

from jaxvid.metrics.inception import TAPS, Inception, average_pool, from_torch, max_pool, torch_keys, torch_shapes
from jaxvid.metrics.resize import resize
from jaxvid.parallel import compiler_options

BATCH = 4
SIZES = {"small64": (64, 64), "rect48x80": (48, 80), "big400x320": (400, 320), "native299": (299, 299)}
PREPARED: dict[str, Callable] = {
    "pytorch_fid": lambda x: 2 * resize(x / 255, (299, 299), "bilinear") - 1,
    "torch_fidelity": lambda x: (resize(x, (299, 299), "bilinear_tf1") - 128) / 128,
    "clean_fid": lambda x: (jnp.clip(resize(x, (299, 299), "bicubic_antialias"), 0, 255) - 128) / 128,
    "clean_fid_legacy_pytorch": lambda x: 2 * jnp.clip(resize(x, (299, 299), "bilinear"), 0, 255) / 255 - 1,
}


def image(case: str) -> np.ndarray:
    return rules.image(case, *SIZES[case.split("_")[0]]).astype(np.float32)


@pytest.fixture(scope="module")
def params() -> dict:
    tensors = {key: rules.weights(key, shape) for key, shape in torch_shapes().items()}
    sums = "".join(f"{key} {zlib.crc32(tensors[key].tobytes())}\n" for key in sorted(tensors))
    assert zlib.crc32(sums.encode()) == 2722630856  # of the 472 keys and tensors that the references ran with
    return jax.device_put(from_torch(tensors))


@pytest.fixture(scope="module")
def features(params) -> Callable[..., dict[str, np.ndarray]]:
    """A function (images [N,299,299,3], params) -> taps, of one compiled program for BATCH images."""
    run = jax.jit(lambda p, x: Inception(TAPS).apply({"params": p}, x), compiler_options=compiler_options())

    def of(images, params=params) -> dict[str, np.ndarray]:
        padding = -len(images) % BATCH
        padded = jnp.concatenate([jnp.stack(images), jnp.zeros((padding, 299, 299, 3))])
        batches = [run(params, padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)]
        return {tap: np.concatenate([batch[tap] for batch in batches])[: len(images)] for tap in TAPS}

    return of


def check(features, numbers) -> None:
    """Every number `case/program/tap`; a resize adds the rounding of its sample positions."""
    names = [name.split("/") for name in numbers if name.count("/") == 2 and name.split("/")[1] in PREPARED]
    inputs = sorted({(case, program) for case, program, _ in names})
    got = features([PREPARED[program](image(case)) for case, program in inputs])
    for case, program, tap in names:
        tolerance = 3e-4 if case.startswith("native") else 2e-3
        want, name = numbers[f"{case}/{program}/{tap}"], f"{case}/{program}/{tap}"
        np.testing.assert_allclose(got[tap][inputs.index((case, program))], want, atol=tolerance, rtol=0, err_msg=name)


def embedded():
    return np.load(Path(__file__).with_name("inception_expected.npz"))


def test_equals_the_reference_programs(features):
    check(features, embedded())


def test_equals_the_reference_programs_in_all_cases(features, shared):
    numbers = np.load(shared / "fixtures" / "evaluator" / "inception_expected.npz")
    check(features, {name: numbers[name] for name in numbers if name not in embedded()})


def test_mistakes_move_features_as_far_as_in_the_reference(features, params):
    """The reference program was run with these mistakes too: the distances are its own."""
    want = {tap: embedded()[f"native299_a/pytorch_fid/{tap}"] for tap in ("2048", "logits")}
    x = image("native299_a")
    right, scaled, swapped = 2 * x / 255 - 1, (x - 128) / 128, 2 * x[..., ::-1] / 255 - 1
    moved = features([scaled, swapped])
    lower = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1e-5 - 1e-3 if path[-1].key == "var" else leaf, params
    )
    epsilon = features([right], lower)
    for got, distances in [
        (moved["2048"], [0.17696911, 1.99360204]),
        (moved["logits"], [0.12031006, 0.67415690]),
        (epsilon["2048"], [0.09678245]),
        (epsilon["logits"], [0.05427169]),
    ]:
        tap = "2048" if got.shape[1] == 2048 else "logits"
        np.testing.assert_allclose(np.abs(got - want[tap]).max(-1), distances, atol=2e-4)
    unbiased = features([right])["logits_unbiased"][0]
    np.testing.assert_allclose(np.abs(unbiased - want["logits"]).max(), 0.17319484, atol=1e-4)


def test_average_pool_leaves_the_padding_out():
    x = rules.image("pool", 5, 8).astype(np.float32)[None]
    want = np.empty_like(x)
    for i, j in np.ndindex(5, 8):
        want[0, i, j] = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((0, 1))
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), want, rtol=1e-6)


def test_max_pool_never_takes_the_padding():
    x = rules.video("pool", 5, 6, 7)[None].astype(np.float32) - 300  # below zero
    want = np.empty((1, 3, 3, 4, 3), np.float32)
    starts = [range(-1, 5, 2), range(0, 6, 2), range(-1, 7, 2)]  # "SAME": an odd element of padding goes behind
    for place in np.ndindex(3, 3, 4):
        window = tuple(slice(max(s[i], 0), s[i] + 3) for s, i in zip(starts, place, strict=True))
        want[0, *place] = x[0, *window].max((0, 1, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), (3, 3, 3), (2, 2, 2), "SAME"), want)


def test_computes_what_is_asked(params):
    images = jnp.zeros((1, 299, 299, 3))
    run = jax.jit(lambda p, x: Inception(("64",)).apply({"params": p}, x), compiler_options=compiler_options())
    program = run.lower(params, images).compile()
    found = program(params, images)
    assert set(found) == {"64"} and found["64"].shape == (1, 64)
    assert program.cost_analysis()["flops"] < 2e9  # of 11.4e9


def test_bfloat16_is_close_and_gives_float32(params):
    images = PREPARED["pytorch_fid"](image("native299_a"))[None]
    run = jax.jit(lambda p, x: Inception(("64",), jnp.bfloat16).apply({"params": p}, x))
    got, want = run(params, images)["64"][0], embedded()["native299_a/pytorch_fid/64"]
    assert got.dtype == jnp.float32
    assert 1e-5 < np.abs(got - want).max() < 0.02


def test_keys_are_those_of_pytorch_fid(shared):
    keys = json.loads((shared / "fixtures" / "evaluator" / "keys_inception_fid.json").read_text())["keys"]
    assert {entry["key"] for entry in keys if entry["dtype"] == "float32"} == set(torch_keys().values())


def test_bad_input_is_named():
    def run(network: Inception, shape: tuple[int, ...]) -> None:
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))

    with pytest.raises(ValueError, match='tap is "pool3", expected one of 64, 192'):
        run(Inception(("2048", "pool3")), (1, 299, 299, 3))
    with pytest.raises(ValueError, match=r"images is float32 \[1,256,256,3\], expected \[B,299,299,3\]"):
        run(Inception(), (1, 256, 256, 3))
    with pytest.raises(ValueError, match="lack 471 of 472 tensors, such as Conv2d_1a_3x3."):
        from_torch({"fc.bias": np.zeros(1008)})
