"""What the VAE method promises beyond the table in test_methods.py."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import losses
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


@functools.cache
def started(features: Callable | None = None, **overrides) -> tuple[Method, TrainState, Callable]:
    """The method, its first state, and its compiled step."""
    method = vae.make(config_of(**overrides), features=features)
    return method, jax.jit(method.init)(jax.random.key(0), BATCH), jax.jit(method.train_step)


def moved(before: TrainState, after: TrainState, part: str) -> dict[str, bool]:
    """By player: whether any of its arrays in this part of the state has changed."""
    equal = jax.tree.map(np.array_equal, getattr(before, part), getattr(after, part))
    return {player: not all(jax.tree.leaves(tree)) for player, tree in equal.items()}


def test_players_take_turns_and_the_other_one_stands_still() -> None:
    _, state, step = started(model__turn=2, model__likelihood="laplace")
    learning = []
    for _ in range(6):
        after, metrics = step(state, BATCH)
        parts = moved(state, after, "params")
        assert moved(state, after, "opt_state") == parts and sum(parts.values()) == 1
        learning += [player for player, is_moved in parts.items() if is_moved]
        state = after
    assert learning == ["decoder"] * 2 + ["encoder"] * 2 + ["decoder"] * 2
    # The likeliest scale leaves one nat of error for each value, besides the logarithm of the density's height.
    np.testing.assert_allclose(metrics["nll"] / VALUES, 1 + math.log(2 * metrics["scale"]), rtol=1e-4)


def test_the_loss_is_the_negative_elbo_under_the_scale_that_was_learned() -> None:
    method, state, step = started()
    scales = []
    for _ in range(2):  # the first step's rate is 0
        after, metrics = step(state, BATCH)
        scales.append(metrics["scale"])
        np.testing.assert_allclose(metrics["scale"] ** 2, metrics["reconstruction"], rtol=1e-5)
        nll = 0.5 + math.log(metrics["scale"]) + 0.5 * math.log(2 * math.pi)
        np.testing.assert_allclose(metrics["nll"] / VALUES, nll, rtol=1e-4)
        before, state = state, after
    assert moved(before, after, "params") == {"encoder": True, "decoder": True}
    first = 0.1 + 0.9 * scales[0] ** 2  # the average forgets where it started: by 9/10, 9/11, ...
    np.testing.assert_allclose(state.extra["moment"], first + 9 / 11 * (scales[1] ** 2 - first), rtol=1e-5)

    found = jax.jit(method.eval_step)(state, BATCH, jax.random.key(1))
    values = found.scalars
    np.testing.assert_allclose(values["kl"], values["kl_content"] + values["kl_motion"], rtol=1e-5)
    np.testing.assert_allclose(values["loss"], values["nll"] + values["kl"], rtol=1e-6)
    for name, size in {"content": 8, "motion": 4}.items():
        profile = found.profiles[f"kl_{name}_dimensions"].values
        assert profile.shape == (4, size)
        np.testing.assert_allclose(profile.sum(1), values[f"kl_{name}"], rtol=1e-5)


def test_the_weight_of_the_kl_warms_up_free_nats_cost_the_same_and_features_count() -> None:
    options = {"model__likelihood": "mse", "model__beta": 0.5, "model__warm_up": 4, "model__free_nats": 1e3}
    _, state, step = started(lambda video: 2 * video, model__perceptual=0.1, **options)
    dimensions = 8 + 8 * 4  # of content, and of motion in eight frames: each below a thousand nats
    for beta in (0.125, 0.25, 0.375, 0.5, 0.5):
        state, metrics = step(state, BATCH)
        np.testing.assert_allclose(metrics["beta"], beta)
        np.testing.assert_allclose(metrics["perceptual"], 4 * metrics["reconstruction"], rtol=1e-5)
        expected = metrics["nll"] + beta * 1e3 * dimensions + 0.1 * VALUES * metrics["perceptual"]
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
        assert metrics["scale"] == 1 and metrics["kl"] < 1e3
    moment = metrics["reconstruction"]
    np.testing.assert_allclose(metrics["nll"] / VALUES, 0.5 * moment + 0.5 * math.log(2 * math.pi), rtol=1e-5)


def test_samples_do_not_depend_on_their_neighbors_but_on_the_key() -> None:
    method, state, _ = started()
    sample, keys = jax.jit(method.sample), jax.random.split(jax.random.key(1), 3)
    drawn = sample(state, {}, keys)
    assert drawn.shape == (3, 8, 16, 16, 3)
    np.testing.assert_allclose(sample(state, {}, keys[::-1])[::-1], drawn, atol=1e-5)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


def test_half_precision_computes_the_same_and_learns_in_full() -> None:
    _, state, step = started(model__dtype="bfloat16")
    after, half = step(state, BATCH)
    full = started()[2](state, BATCH)[1]
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=3e-2)
    assert half["loss"] != full["loss"]
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {np.dtype("float32")}


def test_bernoulli_reads_logits_as_the_mean_of_values_between_the_ends() -> None:
    likelihood, logits = losses.LIKELIHOODS["bernoulli"], jnp.array([[-2.0, 0.0, 3.0]])
    np.testing.assert_allclose(likelihood.mean(logits), np.tanh(logits / 2), rtol=1e-6)
    nll = likelihood.nll(logits, jnp.tanh(logits / 2), jnp.zeros(()))
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    np.testing.assert_allclose(nll, -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"model__network__name": "temporl"}, "model.network.name.*did you mean temporal"),
        ({"model__likelihood": "gausian"}, "model.likelihood.*did you mean gaussian"),
        ({"model__network__motion": 0}, "model.network.motion is 0, expected at least 1"),
        ({"model__network__strides": (2, 0)}, r"model.network.strides is \(2, 0\), expected at least 1"),
        ({"model__network__foreground_size": 6}, "model.network.foreground_size is 6, expected a multiple of 4"),
        ({"model__network__heads": 3}, "hidden 32 must be a multiple of model.network.heads 3"),
        ({"model__network__name": "frame"}, "a field of model.network frame|model.network frame needs dim"),
        ({"model__beta": -1.0}, "model.beta is -1.0"),
        ({"model__perceptual": 1.0}, "model.perceptual is 1.0, expected 0 unless make.. is called with features"),
        ({"data__resolution": 18}, "data.resolution is 18, expected a multiple of 4"),
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
