"""CycleGAN: its losses part by part, its history, and what it refuses."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import core, parallel, sample, translation
from jaxvid.core import TrainState
from jaxvid.data.synthetic import Synthetic
from jaxvid.methods import cyclegan
from jaxvid.run import Run

pytestmark = pytest.mark.xdist_group("cyclegan")


def config(**fields) -> ConfigDict:
    made = recipe("cyclegan:tiny")
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made


def batch(count: int = 4) -> dict[str, jax.Array]:
    videos = np.random.default_rng(0).integers(0, 256, (3, count, 8, 16, 16, 3)).astype(np.uint8)
    return dict(zip(("input", "video", "truth"), map(jnp.asarray, videos), strict=True))


def made_setup(made: ConfigDict) -> cyclegan.Setup:
    """What the functions of a method share."""
    return cyclegan.make(made).eval_step.args[0]


@functools.cache
def started(shared: bool = False) -> TrainState:
    state = jax.jit(cyclegan.make(config(model__shared=shared)).init)(jax.random.key(0), batch())
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.params)
    return state.replace(params=moved, ema={"generator": moved["generator"]}, step=jnp.int32(5))


def error(a: jax.Array, b: jax.Array) -> np.ndarray:
    return np.abs(np.asarray(a) - np.asarray(b)).mean((1, 2, 3, 4))


@pytest.mark.parametrize("bound", [0.0, 2.0])
def test_the_loss_of_the_generators_is_the_sum_of_its_parts(bound: float) -> None:
    made = config(loss__cycle=5.0, loss__identity=2.5, loss__differences=3.0, loss__bound=bound, loss__pool=0)
    setup, state = made_setup(made), started()
    keys = jax.random.split(jax.random.key(1), 4)
    a, b = (batch()[name].astype(jnp.float32) / 127.5 - 1 for name in ("input", "video"))
    params = state.params["generator"]
    go = functools.partial(cyclegan.generate, setup, params)
    to_b, to_a = go(a, 0, 1), go(b, 1, 0)
    back_a, back_b = go(to_b, 1, 0), go(to_a, 0, 1)
    cycle = (error(back_a, a) + error(back_b, b)).mean() / 2
    identity = (error(go(a, 0, 0), a) + error(go(b, 1, 1), b)).mean() / 2
    changes = [jnp.diff(x, axis=1) for x in (back_a, a, back_b, b)]
    differences = (error(*changes[:2]) + error(*changes[2:])).mean() / 2
    verdicts = []
    for domain, fake in (("A", to_a), ("B", to_b)):
        critiques = setup.discriminator.apply({"params": state.params["discriminator"][domain]}, fake, None, True)
        verdicts += [0.5 * np.square(np.asarray(critique.logits) - 1).mean() for critique in critiques]
    weights = np.array([1.0, 5.0, 2.5, 3.0])
    expected = np.minimum(weights, bound or np.inf) @ [np.mean(verdicts), cycle, identity, differences]
    loss, (fakes, metrics) = cyclegan.generator_loss(setup, state, params, [a, b], keys)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose([metrics["cycle"], metrics["identity"]], [cycle, identity], rtol=1e-5)
    np.testing.assert_allclose(fakes[0], to_a, atol=1e-6)
    np.testing.assert_allclose(fakes[1], to_b, atol=1e-6)


def test_discriminators_also_reject_the_other_domain() -> None:
    """Half of what they reject, by a coin for each clip, are real clips of it: nothing changes if all of it are."""
    state, keys = started(), jax.random.split(jax.random.key(1), 4)
    a, b = (batch()[name].astype(jnp.float32) / 127.5 - 1 for name in ("input", "video"))
    found = {}
    for reject in (False, True):
        setup = made_setup(config(loss__reject_source=reject, loss__pool=0))
        for name, fakes in (("others", [b, a]), ("fakes", [0.5 * a, 0.5 * b])):
            params = state.params["discriminator"]
            found[name, reject] = cyclegan.discriminator_loss(setup, state, params, [a, b], fakes, keys)[0]
    np.testing.assert_allclose(found["others", True], found["others", False], rtol=1e-6)
    assert abs(found["fakes", True] - found["fakes", False]) > 1e-4


def test_the_history_draws_by_no_key_of_an_example() -> None:
    method, state = cyclegan.make(config(train__batch_size=4)), started()

    def drawn(state: TrainState) -> dict:
        with mock.patch.object(translation, "pooled", lambda pool, fake, key, _: (fake, jax.random.key_data(key))):
            return method.train_step(state, batch())[0].extra["pool"]

    examples = jax.random.key_data(parallel.example_keys(core.step_key(state), 4)).tolist()
    found = [key.tolist() for key in jax.jit(drawn)(state).values()]
    assert len(found) == 2 and found[0] != found[1] and all(key not in examples for key in found)


def test_features_replace_a_growing_share_of_the_cycle() -> None:
    made = config(loss__cycle_features=1.0, loss__pool=0)
    setup, videos = made_setup(made), [batch()[name].astype(jnp.float32) / 127.5 - 1 for name in ("input", "video")]
    keys = jax.random.split(jax.random.key(1), 4)

    def cycle(step: int) -> float:
        state = started().replace(step=jnp.int32(step))
        return float(cyclegan.generator_loss(setup, state, state.params["generator"], videos, keys)[1][1]["cycle"])

    pixels, features, half = cycle(0), cycle(made.train.steps), cycle(made.train.steps // 2)
    assert abs(pixels - features) > 0.01
    np.testing.assert_allclose(half, (pixels + features) / 2, rtol=1e-4)


def test_the_untrained_model_and_the_cycle_are_those_of_the_parameters() -> None:
    method, state = cyclegan.make(config()), started()
    found = jax.jit(method.eval_step)(state, batch(), jax.random.key(2))
    first = jax.jit(method.init)(jax.random.key(0), batch())
    fresh = jax.jit(method.eval_step)(first, batch(), jax.random.key(2))
    for name in ("psnr", "cycle_psnr"):
        np.testing.assert_allclose(found.scalars[f"{name}_of_untrained"], fresh.scalars[name], rtol=1e-5)
    assert np.abs(found.scalars["psnr"] - fresh.scalars["psnr"]).min() > 0.005
    made = jax.jit(method.reconstruct)(state, batch())
    np.testing.assert_allclose(found.panels["translation"], made, atol=1e-5)
    to_a = method.translation.apply(state, translation.rounded(made), jnp.zeros(4, int))
    np.testing.assert_allclose(found.panels["way back"], to_a, atol=1e-3)
    assert {"input", "translation", "way back", "truth"} == {*found.panels}


@pytest.mark.parametrize("layout", ["two_sides", "pairs", "side_by_side"])
def test_the_other_half_of_a_pair_is_the_truth(layout: str) -> None:
    method = cyclegan.make(config(data__layout=layout))
    given = {name: video for name, video in batch().items() if name != "truth"}
    found = jax.eval_shape(method.eval_step, started(), given, jax.random.key(0))
    assert ("psnr" in found.scalars) == ("truth" in found.panels) == (layout != "two_sides")


@pytest.mark.parametrize("shared", [False, True])
def test_translations_go_to_the_domain_that_is_asked_for(shared: bool) -> None:
    made = config(model__shared=shared)
    method, setup, state = cyclegan.make(made), made_setup(made), started(shared)
    clip = jax.random.uniform(jax.random.key(0), (2, 3, 18, 22, 3), minval=-1)
    assert (method.translation.targets, method.translation.origins) == (("A", "B"), ("B", "A"))
    apply = jax.jit(method.translation.apply)
    for target in (0, 1):
        expected = cyclegan.generate(setup, state.ema["generator"], clip, 1 - target, target)
        np.testing.assert_allclose(apply(state, clip, jnp.full(2, target)), expected, atol=1e-5)
    assert np.abs(apply(state, clip, jnp.zeros(2, int)) - apply(state, clip, jnp.ones(2, int))).max() > 0.01


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"loss__pool": 7}, "loss.pool is 7, expected train.batch_size 8 or more, or 0"),
        ({"loss__pool": -5}, "loss.pool is -5, expected train.batch_size 8 or more, or 0"),
        ({"loss__cycle_features": 1.5}, "loss.cycle_features is 1.5, expected a share"),
        ({"loss__adversarial": "lsgan"}, "loss.adversarial"),
        ({"model__dtype": "float16"}, "model.dtype"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cyclegan.make(config(**fields))


def test_other_commands_name_the_one_that_translates() -> None:
    made = config()
    run = Run(made, cyclegan.make(made), started())
    with pytest.raises(ValueError, match="no videos of its own: it translates .* jaxvid.translate"):
        sample.draw(run, 2)
    with pytest.raises(ValueError, match="no reconstructions: it translates .* jaxvid.translate"):
        sample.reconstruct(run, np.zeros((1, 8, 16, 16, 3), np.uint8))


def test_sides_that_are_swapped_keep_their_names() -> None:
    """With BtoA the input is B, so that what A -> B made of it is now called A, and has the same parameters."""
    plain, swapped = cyclegan.make(config()), cyclegan.make(config(data__direction="BtoA"))
    assert (swapped.translation.targets, swapped.translation.origins) == (("B", "A"), ("A", "B"))
    video = batch()["video"].astype(jnp.float32) / 127.5 - 1
    made = [each.translation.apply(started(), video, jnp.array([1])) for each in (plain, swapped)]
    np.testing.assert_array_equal(*made)
    assert plain.translation.targets[1] == "B" and swapped.translation.targets[1] == "A"
    found = jax.eval_shape(swapped.eval_step, started(), batch(), jax.random.key(0))
    assert "psnr_to_B" in found.scalars and "psnr_to_A" not in found.scalars


def test_data_of_one_domain_are_refused() -> None:
    with pytest.raises(ValueError, match="cyclegan translates between two domains, .* set data.layout to two_sides"):
        cyclegan.complete(config(), Synthetic(8, 16, layout="domains", label="color"))
