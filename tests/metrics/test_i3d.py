"""I3D against piergiaj's and VideoGPT's, on weights and videos made by rules."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rules

from jaxvid.metrics import i3d as module
from jaxvid.metrics.i3d import I3D, convolve, from_torch, tf_names, torch_keys, torch_shapes
from jaxvid.metrics.resize import resize, resize_and_crop
from jaxvid.parallel import compiler_options

SIZES = {"small64": (64, 64), "rect48x80": (48, 80), "native224": (224, 224)}
PREPARED: dict[str, Callable] = {
    "native": lambda x: 2 * x / 255 - 1,
    "videogpt": lambda x: (resize_and_crop(x / 255, 224) - 0.5) * 2,
    "cdfvd": lambda x: 2 * resize(x, (224, 224), "bilinear") / 255 - 1,
    "tf1": lambda x: 2 * resize(x, (224, 224), "bilinear_tf1") / 255 - 1,
}
TOLERANCE = 1e-4


def video(case: str) -> np.ndarray:
    size, frames = case.split("_")[:2]
    return rules.video(case, int(frames[1:]), *SIZES[size]).astype(np.float32)


@pytest.fixture(scope="module")
def params() -> dict:
    tensors = {key: rules.weights(key, shape) for key, shape in torch_shapes().items()}
    sums = "".join(f"{key} {zlib.crc32(tensors[key].tobytes())}\n" for key in sorted(tensors))
    assert zlib.crc32(sums.encode()) == 454054628  # of the 287 keys and tensors that the references ran with
    return jax.device_put(from_torch(tensors))


@pytest.fixture(scope="module")
def features(params) -> Callable[..., dict[str, jax.Array]]:
    """A function (video [T,224,224,3], epsilon, params) -> the arrays of one video; one program per T and epsilon."""

    @cache
    def program(frames: int, epsilon: float):
        return jax.jit(lambda p, x: I3D(epsilon).apply({"params": p}, x), compiler_options=compiler_options())

    def of(x, epsilon=1e-3, params=params) -> dict[str, jax.Array]:
        return jax.tree.map(lambda leaf: leaf[0], program(len(x), epsilon)(params, x[None]))

    return of


def with_epsilon(params: dict, epsilon: float) -> dict:
    """Parameters that give with epsilon 1e-3 what `params` give with this one."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + epsilon - 1e-3 if path[-1].key == "var" else leaf, params
    )


def embedded():
    return np.load(Path(__file__).with_name("i3d_expected.npz"))


@pytest.mark.parametrize(
    "name",
    [
        "native224_t16_a/native/eps1e-3",
        "native224_t17/native/eps1e-3",
        "native224_t9/native/eps1e-5",
        "rect48x80_t16/videogpt/eps1e-3",
        "rect48x80_t16/cdfvd/eps1e-3",
        "rect48x80_t16/tf1/eps1e-3",
    ],
)
def test_equals_the_reference_programs(features, name):
    case, mode, epsilon = name.split("/")
    got, numbers = features(PREPARED[mode](video(case)), float(epsilon.removeprefix("eps"))), embedded()
    np.testing.assert_allclose(got["logits"], numbers[f"{name}/logits"], atol=TOLERANCE, rtol=0)
    if f"{name}/pooled" in numbers:
        np.testing.assert_allclose(got["pooled"], numbers[f"{name}/pooled"], atol=TOLERANCE, rtol=0)


def test_equals_the_reference_programs_in_all_cases(features, params, shared):
    numbers = np.load(shared / "fixtures" / "evaluator" / "i3d_expected.npz")
    names = [name for name in numbers if name.endswith("/logits") and name.split("/")[1] in PREPARED]
    for name in sorted(set(names) - set(embedded())):
        case, mode, epsilon, _ = name.split("/")
        x = PREPARED[mode](video(case))
        if mode != "native":
            np.testing.assert_allclose(x[::5, ::16, ::16], numbers[f"{case}/{mode}/input_every"], atol=1e-5)
        got = features(x, params=with_epsilon(params, float(epsilon.removeprefix("eps"))))
        np.testing.assert_allclose(got["logits"], numbers[name], atol=TOLERANCE, rtol=0, err_msg=name)
        if (pooled := name.replace("logits", "pooled")) in numbers:
            np.testing.assert_allclose(got["pooled"], numbers[pooled], atol=TOLERANCE, rtol=0, err_msg=pooled)


def test_mistakes_move_logits_as_far_as_in_the_reference(features, params):
    """The reference program was run with these mistakes too: the distances are its own."""
    want, x = embedded()["native224_t16_a/native/eps1e-3/logits"], PREPARED["native"](video("native224_t16_a"))
    biasless = {**params, "logits": {**params["logits"], "bias": jnp.zeros(400)}}
    for got, distance in [
        (features(x[..., ::-1]), 1.08825672),
        (features(x, params=with_epsilon(params, 1e-5)), 0.01556349),
        (features(x, params=biasless), 0.17249180),
    ]:
        np.testing.assert_allclose(np.abs(got["logits"] - want).max(), distance, atol=5e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("sizes", "window", "strides"),
    [
        ((9, 6, 8), (7, 7, 7), (2, 2, 2)),  # the odd element of padding goes behind
        ((4, 5, 7), (7, 7, 7), (2, 2, 2)),
        ((2, 5, 4), (3, 3, 3), (1, 1, 1)),
        ((3, 4, 4), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_convolve_by_its_definition(monkeypatch, backend, sizes, window, strides):
    monkeypatch.setattr(module.jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *sizes, 3)), rng.normal(size=(*window, 3, 5))
    outputs = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
    totals = [max((o - 1) * s + k - n, 0) for o, s, k, n in zip(outputs, strides, window, sizes, strict=True)]
    padded = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)])
    want = np.empty((2, *outputs, 5))
    for place in np.ndindex(*outputs):
        met = tuple(slice(o * s, o * s + k) for o, s, k in zip(place, strides, window, strict=True))
        want[:, *place] = np.tensordot(padded[:, *met], kernel, 4)
    got = convolve(jnp.float32(x), jnp.float32(kernel), strides)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert "HIGHEST" in str(jax.make_jaxpr(lambda x: convolve(x, jnp.float32(kernel), strides))(jnp.float32(x)))


def test_names_are_those_of_the_checkpoints():
    keys = torch_keys()
    lines = sorted(f"{keys[path]} {name}\n" for path, name in tf_names().items())
    assert len(lines) == 230
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert digest == "7beebb2363e98a8086be95c256fd512c7b8436c15ce97cf5b8b2d71eecbab1ec"


def test_names_are_those_of_the_checkpoints_one_by_one(shared):
    keys = torch_keys()
    variables = json.loads((shared / "fixtures" / "evaluator" / "i3d_tf_variables.json").read_text())["variables"]
    assert {keys[path]: name for path, name in tf_names().items()} == {v["torch_key"]: v["tf"] for v in variables}
    listed = json.loads((shared / "fixtures" / "evaluator" / "keys_i3d_400.json").read_text())["keys"]
    assert {entry["key"] for entry in listed if entry["dtype"] == "float32"} == set(keys.values())


def test_bad_input_is_named():
    def run(shape: tuple[int, ...]) -> None:
        jax.eval_shape(I3D().init, jax.random.key(0), jnp.zeros(shape))

    with pytest.raises(ValueError, match=r"videos is float32 \[1,8,224,224,3\], expected \[B,T>=9,224,224,3\]"):
        run((1, 8, 224, 224, 3))
    with pytest.raises(ValueError, match=r"videos is float32 \[1,16,64,64,3\], expected \[B,T>=9,224,224,3\]"):
        run((1, 16, 64, 64, 3))
    with pytest.raises(ValueError, match="lack 286 of 287 tensors, such as "):
        from_torch({"logits.conv3d.bias": np.zeros(400)})
