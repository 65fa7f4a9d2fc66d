"""Pix2Pix: its losses part by part, pairs that are augmented alike, and what it refuses."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid.core import TrainState
from jaxvid.data.synthetic import Synthetic
from jaxvid.methods import pix2pix

pytestmark = pytest.mark.xdist_group("pix2pix")


def config(**fields) -> ConfigDict:
    made = recipe("pix2pix:tiny")
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made


def batch(count: int = 4) -> dict[str, jax.Array]:
    videos = np.random.default_rng(0).integers(0, 256, (2, count, 8, 16, 16, 3)).astype(np.uint8)
    return dict(zip(("input", "video"), map(jnp.asarray, videos), strict=True))


@functools.cache
def started() -> TrainState:
    state = jax.jit(pix2pix.make(config()).init)(jax.random.key(0), batch())
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.params)
    return state.replace(params=moved, ema={"generator": moved["generator"]})


def test_the_metrics_of_a_step_are_those_of_numpy() -> None:
    """With a rate of 0, so that both players judge and make with the parameters that they began with."""
    still = {"optim__learning_rate": 0.0, "optim__players__discriminator__learning_rate": 0.0}
    made = config(loss__features=2.0, **still)
    method, state = pix2pix.make(made), started()
    setup = method.eval_step.args[0]
    _, metrics = jax.jit(method.train_step)(state, batch())
    source, truth = (batch()[name].astype(jnp.float32) / 127.5 - 1 for name in ("input", "video"))
    fake = setup.generator.apply({"params": state.params["generator"]}, source)

    def judged(video: jax.Array) -> list:
        pair = jnp.concatenate([source, video], -1)
        return setup.discriminator.apply({"params": state.params["discriminator"]}, pair, None, True)

    of_real, of_fake = judged(truth), judged(fake)
    pairs = list(zip(of_real, of_fake, strict=True))
    square = [np.square(np.asarray(r.logits) - 1).mean() + np.square(f.logits).mean() for r, f in pairs]
    np.testing.assert_allclose(metrics["d_loss"], 0.5 * np.sum(square), rtol=1e-5)
    expected = sum(0.5 * np.square(np.asarray(f.logits) - 1).mean() for f in of_fake)
    np.testing.assert_allclose(metrics["g_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["l1"], np.abs(np.asarray(fake) - np.asarray(truth)).mean(), rtol=1e-5)
    layers = [
        (a, b) for r, f in zip(of_real, of_fake, strict=True) for a, b in zip(r.features, f.features, strict=True)
    ]
    distance = sum(np.abs(np.asarray(a) - np.asarray(b)).mean() for a, b in layers) / len(of_real)
    np.testing.assert_allclose(metrics["features"], distance, rtol=1e-5)


def test_a_pair_is_augmented_alike_and_so_l1_of_equal_halves_stays() -> None:
    """A generator that is the identity has no error of pairs of equal halves, however they are augmented."""
    made = config(augment__geometric=True, augment__temporal=True, model__generator__output="masked")
    method, state = pix2pix.make(made), started()
    decoder = dict(state.params["generator"]["decoder"])
    last = max(name for name in decoder if name.startswith("Conv_"))
    closed = {"kernel": 0 * decoder[last]["kernel"], "bias": jnp.zeros(3)}
    masked = {name: jnp.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, 1)]) for name, value in closed.items()}
    decoder[last] = {**masked, "bias": masked["bias"].at[3].set(-100.0)}  # the mask is 0
    params = {**state.params, "generator": {**state.params["generator"], "decoder": decoder}}
    state = jax.jit(method.init)(jax.random.key(0), batch()).replace(params=params)
    same = {"input": batch()["video"], "video": batch()["video"]}
    _, metrics = jax.jit(method.train_step)(state, same)
    assert float(metrics["l1"]) < 1e-6


def test_judging_draws_by_other_keys_than_augmenting() -> None:
    with mock.patch.object(pix2pix, "fold_keys", wraps=pix2pix.fold_keys) as folded:
        jax.eval_shape(pix2pix.make(config(loss__features=1.0)).train_step, started(), batch())
    numbers = [call.args[1] for call in folded.call_args_list]
    assert numbers and not {*numbers} & {0, 1, 2}  # of `translation.augmented`


def test_clips_that_are_no_pairs_are_refused() -> None:
    for layout, label in (("two_sides", "class"), ("domains", "color")):
        source = Synthetic(8, 16, layout=layout, label=label)
        with pytest.raises(ValueError, match="pix2pix learns from pairs, .* set data.layout to pairs or side_by_side"):
            pix2pix.complete(config(), source)
    assert pix2pix.complete(config(), Synthetic(8, 16)) == config()


def test_it_translates_from_a_to_b_alone() -> None:
    method, state = pix2pix.make(config()), started()
    assert (method.translation.targets, method.translation.origins, method.translation.radius) == (("B",), ("A",), 1)
    made = jax.jit(method.translation.apply)(state, jnp.zeros((1, 3, 17, 21, 3)), jnp.zeros(1, int))
    assert made.shape == (1, 3, 17, 21, 3)
    swapped = pix2pix.make(config(data__direction="BtoA")).translation
    assert (swapped.targets, swapped.origins) == (("A",), ("B",))
