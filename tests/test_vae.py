"""What the VAE method promises beyond the table in test_methods.py."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid.core import Method, TrainState
from jaxvid.methods import vae

VIDEO = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 3), dtype=np.uint8)
BATCH = {"video": jnp.asarray(VIDEO)}
VALUES = VIDEO[0].size


def config_of(**overrides) -> ConfigDict:
    config = recipe("vae:tiny")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config


# Each program runs a few times on tiny arrays: compiling it is what takes the time.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def started(**overrides) -> tuple[Method, TrainState, Callable]:
    """The method, its first state, and its compiled step."""
    method = vae.make(config_of(**overrides))
    return method, compiled(method.init)(jax.random.key(0), BATCH), compiled(method.train_step)


def moved(before: TrainState, after: TrainState, part: str) -> dict[str, bool]:
    """By player: whether any of its arrays in this part of the state has changed."""
    equal = jax.tree.map(np.array_equal, getattr(before, part), getattr(after, part))
    return {player: not all(jax.tree.leaves(tree)) for player, tree in equal.items()}


def test_players_take_turns_and_the_other_one_stands_still() -> None:
    _, state, step = started(model__turn=2)
    learning = []
    for _ in range(6):
        after, _ = step(state, BATCH)
        parts = moved(state, after, "params")
        assert moved(state, after, "opt_state") == parts and sum(parts.values()) == 1
        learning += [player for player, is_moved in parts.items() if is_moved]
        state = after
    assert learning == ["decoder"] * 2 + ["encoder"] * 2 + ["decoder"] * 2


def test_both_players_learn_at_every_step_otherwise() -> None:
    _, state, step = started(model__beta=1.0)
    after, _ = step(*step(state, BATCH)[:1], BATCH)  # the first step's rate is 0
    assert moved(state, after, "params") == {"encoder": True, "decoder": True}


@pytest.mark.parametrize("likelihood", vae.LIKELIHOODS)
def test_the_loss_is_the_negative_elbo_of_its_parts(likelihood: str) -> None:
    method, state, _ = started(model__likelihood=likelihood)
    values = compiled(method.eval_step)(state, BATCH, jax.random.key(1))
    np.testing.assert_allclose(values["kl"], values["kl_content"] + values["kl_motion"], rtol=1e-5)
    np.testing.assert_allclose(values["loss"], values["nll"] + values["kl"], rtol=1e-6)
    assert values["reconstruction"].min() >= -1 and values["reconstruction"].max() <= 1
    # An untrained decoder says about the same of every value: the middle, give or take the scale it starts with.
    about = {"mse": 0.9 + 0.17, "l1": 0.7 + 0.5, "bernoulli": 0.7}
    if likelihood in about:
        np.testing.assert_allclose(values["nll"] / VALUES, about[likelihood], rtol=0.15)


def test_the_weight_of_the_kl_warms_up_and_free_nats_cost_the_same() -> None:
    _, state, step = started(model__likelihood="mse", model__beta=0.5, model__warm_up=4)
    for expected in (0.125, 0.25, 0.375, 0.5, 0.5):
        state, metrics = step(state, BATCH)
        np.testing.assert_allclose(metrics["beta"], expected)
        np.testing.assert_allclose(metrics["loss"], metrics["nll"] + expected * metrics["kl"], rtol=1e-6)
    _, state, step = started(model__likelihood="mse", model__warm_up=0, model__free_nats=1e3)
    _, metrics = step(state, BATCH)
    dimensions = 8 + 8 * 4  # of content, and of motion in eight frames: each below a thousand nats
    np.testing.assert_allclose(metrics["loss"] - metrics["nll"], 1e3 * dimensions, rtol=1e-5)


def test_without_a_weight_of_the_kl_the_prior_stands_still() -> None:
    for beta, moves in ((0.0, False), (1.0, True)):
        _, state, step = started(model__beta=beta)
        after, _ = step(*step(state, BATCH)[:1], BATCH)
        priors = [s.params["decoder"]["prior"] for s in (state, after)]
        assert jax.tree.all(jax.tree.map(np.array_equal, *priors)) != moves


def test_samples_do_not_depend_on_the_batch_but_on_the_key() -> None:
    method, state, _ = started(model__beta=1.0)
    sample = compiled(method.sample)
    of_labels = sample(state, {"label": jnp.zeros(3, jnp.int32)}, jax.random.key(1))
    assert of_labels.shape == (3, 8, 16, 16, 3)
    np.testing.assert_allclose(sample(state, BATCH, jax.random.key(1))[:3], of_labels, atol=1e-5)
    assert np.abs(sample(state, BATCH, jax.random.key(2))[:3] - of_labels).max() > 1e-3
    assert np.abs(of_labels[0] - of_labels[1]).max() > 1e-3


def test_half_precision_computes_the_same_and_learns_in_full() -> None:
    _, state, step = started(model__beta=1.0)
    _, half_state, half_step = started(model__dtype="bfloat16")
    expected, (after, metrics) = step(state, BATCH)[1], half_step(half_state, BATCH)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=3e-2)
    assert metrics["loss"] != expected["loss"]
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"model__network__name": "temporl"}, "model.network.name.*did you mean temporal"),
        ({"model__likelihood": "gausian"}, "model.likelihood.*did you mean gaussian"),
        ({"model__network__motion": 0}, "model.network.motion is 0, expected at least 1"),
        ({"model__network__heads": 3}, "hidden 32 must be a multiple of model.network.heads 3"),
        ({"model__network__name": "frame"}, "a field of model.network frame"),
        ({"model__beta": -1.0}, "model.beta is -1.0"),
        ({"data__resolution": 20}, "data.resolution is 20, expected a multiple of 8"),
        ({"model__dtype": "float16"}, "model.dtype"),
    ],
)
def test_what_cannot_work_is_named(overrides: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        vae.make(config_of(**overrides))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"downsample": (3, 4, 4)}, "downsample .* does not divide"), ({"width": 12}, "width is 12, expected a multiple")],
)
def test_grids_that_do_not_fit_are_named(fields: dict, sentence: str) -> None:
    config = config_of()
    config.model.network = {"name": "grid", "width": 16, "blocks": 1, "dim": 4, "downsample": (4, 4, 4), **fields}
    with pytest.raises(ValueError, match=sentence):
        vae.make(config)
