"""One table for every method: what holds for one must hold for all. A new recipe is one more row."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import data, parallel
from jaxvid.core import TrainState
from jaxvid.methods import METHODS

BATCH = 16
STEPS = 3


def variant(**overrides) -> Callable[[], ConfigDict]:
    def build() -> ConfigDict:
        config = recipe("vqvae:tiny")
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
        return config

    return build


def quantizer(**fields) -> Callable[[], ConfigDict]:
    def build() -> ConfigDict:
        config = recipe("vqvae:tiny")
        config.model.quantizer = ConfigDict(fields)
        return config

    return build


CASES = {
    "vqvae": variant(),
    "vqvae-batch-norm": variant(model__norm="batch"),
    "vqvae-attention": variant(model__heads=2),
    "vqvae-vq": quantizer(name="vq", codes=32),
    "vqvae-fsq": quantizer(name="fsq", levels=(8, 5, 5)),
    "vqvae-lfq": quantizer(name="lfq", bits=6),
}
# The loss after three SGD steps from seed 0, as this code gives it: a change that moves these is a change of results.
GOLDEN: dict[str, float] = {}


@pytest.fixture(params=CASES, name="case")
def case_fixture(request) -> str:
    return request.param


def with_sgd(config: ConfigDict) -> ConfigDict:
    # Adam's first steps are signs of gradients, which rounding flips; equality tests need a continuous optimizer.
    config.optim.name, config.optim.learning_rate = "sgd", 1e-2
    return config


def batches(config: ConfigDict, count: int) -> list[dict[str, np.ndarray]]:
    source = data.make_source(config.data, "train")
    with data.train_batches(source, BATCH, config.data.resolution, seed=0, threads=2) as stream:
        return [next(stream) for _ in range(count)]


def run(config: ConfigDict, devices: int, mode: str = "jit", steps: int = STEPS) -> tuple[TrainState, dict]:
    mesh = parallel.make_mesh(jax.devices()[:devices])
    make = METHODS[config.method]
    step = parallel.make_step(make(config, parallel.axis_name(mode)).train_step, mesh, mode)
    all_batches = batches(config, steps)
    init = jax.jit(make(config).init, out_shardings=parallel.replicated(mesh))
    state = init(jax.random.key(0), parallel.put_batch(all_batches[0], mesh))
    for batch in all_batches:
        state, metrics = step(state, parallel.put_batch(batch, mesh, mode))
    return jax.device_get(state.replace(key=jax.random.key_data(state.key))), jax.device_get(metrics)


@pytest.fixture(scope="module")
def reference() -> Callable[[str], tuple[TrainState, dict]]:
    """Three steps on one device, computed once per case."""
    results: dict[str, tuple[TrainState, dict]] = {}

    def get(case: str) -> tuple[TrainState, dict]:
        if case not in results:
            results[case] = run(with_sgd(CASES[case]()), devices=1)
        return results[case]

    return get


def test_three_steps_are_finite_and_match_the_golden_loss(case, reference) -> None:
    state, metrics = reference(case)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, metrics)))
    np.testing.assert_allclose(metrics["loss"], GOLDEN[case], rtol=1e-4)


@pytest.mark.parametrize("mode", parallel.MODES)
def test_eight_devices_take_the_same_steps_as_one(case, mode, reference) -> None:
    state, metrics = run(with_sgd(CASES[case]()), devices=8, mode=mode)
    expected_state, expected_metrics = reference(case)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-4), state, expected_state)
    assert metrics.keys() == expected_metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], atol=2e-6, rtol=1e-4, err_msg=name)


def test_the_loss_falls(case) -> None:
    config = CASES[case]()
    config.optim.learning_rate = 3e-3
    first, last = (run(config, devices=1, steps=steps)[1]["reconstruction"] for steps in (1, 30))
    assert last < 0.7 * first


def test_evaluation_gives_one_value_per_example_and_sampling_a_video_in_range(case) -> None:
    config = CASES[case]()
    method = METHODS[config.method](config)
    batch = {k: jnp.asarray(v) for k, v in batches(config, 1)[0].items() if v.dtype.kind in "biuf"}
    state = jax.jit(method.init)(jax.random.key(0), batch)
    values = jax.jit(method.eval_step)(state, batch, jax.random.key(1))
    assert all(value.shape[0] == BATCH and value.ndim in (1, 2, 5) for value in values.values())
    alone = jax.jit(method.eval_step)(state, {k: v[3:4] for k, v in batch.items()}, jax.random.key(1))
    np.testing.assert_allclose(alone["loss"][0], values["loss"][3], rtol=1e-4)
    video = jax.jit(method.sample)(state, batch, jax.random.key(1))
    assert video.shape == batch["video"].shape and video.dtype == jnp.float32
    assert -1 <= video.min() < video.max() <= 1


def test_bfloat16_and_remat_change_the_speed_not_the_method(reference) -> None:
    expected = reference("vqvae")[1]["loss"]
    remat = run(with_sgd(variant(model__remat=True)()), devices=1)[1]["loss"]
    half = run(with_sgd(variant(model__dtype="bfloat16")()), devices=1)
    np.testing.assert_allclose(remat, expected, rtol=1e-5)
    np.testing.assert_allclose(half[1]["loss"], expected, rtol=3e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(half[0].params)} == {np.dtype("float32")}
