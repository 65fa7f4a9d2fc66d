"""StarGAN: its losses part by part, the domains that are asked for, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid.core import TrainState
from jaxvid.data.synthetic import Synthetic
from jaxvid.methods import stargan

pytestmark = pytest.mark.xdist_group("stargan")


def config(**fields) -> ConfigDict:
    made = recipe("stargan:tiny")
    made.condition.classes = ("red", "green", "blue")
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made


def batch(count: int = 8) -> dict[str, jax.Array]:
    video = np.random.default_rng(0).integers(0, 256, (count, 8, 16, 16, 3)).astype(np.uint8)
    return {"video": jnp.asarray(video), "label": jnp.arange(count) % 3}


@functools.cache
def started() -> TrainState:
    state = jax.jit(stargan.make(config()).init)(jax.random.key(0), batch())
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.params)
    return state.replace(params=moved, ema={"generator": moved["generator"]})


def test_the_loss_of_the_generator_is_the_sum_of_its_parts() -> None:
    setup, state = stargan.make(config(loss__differences=3.0)).eval_step.args[0], started()
    video, label = batch()["video"].astype(jnp.float32) / 127.5 - 1, batch()["label"]
    target, keys = (label + 1) % 3, jax.random.split(jax.random.key(1), len(label))
    params = state.params["generator"]
    made = stargan.generate(setup, params, video, target)
    back = stargan.generate(setup, params, made, label)
    (critique,) = setup.discriminator.apply({"params": state.params["discriminator"]}, made, None, True)
    logits = np.asarray(critique.classes[:, 0], np.float64)
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), target]
    cycle, changes = np.abs(back - video).mean(), np.abs(jnp.diff(back, axis=1) - jnp.diff(video, axis=1)).mean()
    expected = -np.asarray(critique.logits).mean() + entropy.mean() + 10 * cycle + 3 * changes
    loss, metrics = stargan.generator_loss(setup, state, params, made, stargan.Examples(video, label, target, keys))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["g_class_accuracy"], (logits.argmax(1) == target).mean())


def test_targets_in_training_are_other_domains_each_as_often() -> None:
    keys = jax.random.split(jax.random.key(0), 600)
    label = jnp.arange(600) % 3
    target = np.asarray(stargan.other_domains(label, 3, keys))
    assert (target != np.asarray(label)).all()
    counts = np.array([[(target[np.asarray(label) == a] == b).sum() for b in range(3)] for a in range(3)])
    assert (counts[~np.eye(3, dtype=bool)] > 70).all()


def test_an_evaluation_asks_for_the_target_of_the_batch_or_else_for_the_next_domain() -> None:
    method, state = stargan.make(config()), started()
    step, given = jax.jit(method.eval_step), batch()
    target = (given["label"] + 2) % 3
    found = step(state, {**given, "target": target, "truth": given["video"][::-1]}, jax.random.key(0))
    setup = method.eval_step.args[0]
    video = given["video"].astype(jnp.float32) / 127.5 - 1
    expected = stargan.generate(setup, state.ema["generator"], video, target)
    np.testing.assert_allclose(found.panels["translation"], expected, atol=1e-5)
    assert {"psnr", "psnr_of_input", "psnr_of_untrained", "change_error"} <= {*found.scalars}
    bound = setup.discriminator.bind({"params": state.params["discriminator"]})
    fresh = jax.jit(stargan.make(config()).init)(jax.random.key(0), batch()).params["generator"]
    for end, judged in {"_of_input": video, "_of_untrained": stargan.generate(setup, fresh, video, target)}.items():
        (critique,) = bound(judged, None, False)
        right = np.asarray(critique.classes[:, 0]).argmax(1) == np.asarray(target)
        np.testing.assert_array_equal(found.scalars[f"domain_accuracy{end}"], right)
    assert (found.scalars["cycle_psnr_of_untrained"] != found.scalars["cycle_psnr"]).all()
    values = np.asarray(found.profiles["accuracy_by_domain"].values)
    np.testing.assert_array_equal(np.isnan(values), np.arange(3) != np.asarray(target)[:, None])
    unknown = step(state, given, jax.random.key(0))
    expected = stargan.generate(setup, state.ema["generator"], video, (given["label"] + 1) % 3)
    np.testing.assert_allclose(unknown.panels["translation"], expected, atol=1e-5)
    np.testing.assert_array_equal(method.asked({**given, "target": target}), target)
    np.testing.assert_array_equal(method.asked(given), (given["label"] + 1) % 3)
    assert "psnr" not in unknown.scalars and "truth" not in unknown.panels


def test_any_domain_is_reached_from_any_other() -> None:
    method, state = stargan.make(config()), started()
    assert method.translation.targets == ("red", "green", "blue") and set(method.translation.origins) == {""}
    clip = jax.random.uniform(jax.random.key(0), (1, 3, 18, 22, 3), minval=-1)
    apply = jax.jit(method.translation.apply)
    made = jnp.concatenate([apply(state, clip, jnp.array([target])) for target in range(3)])
    assert np.abs(made[:, None] - made).max((2, 3, 4, 5))[~np.eye(3, dtype=bool)].min() > 1e-3


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"condition__classes": ("red",)}, "fewer than two domains"),
        ({"loss__n_critic": 3}, "train.batch_size 8 is shared by the loss.n_critic 3 steps .*: expected a multiple"),
        ({"loss__penalized": 0}, "loss.penalized is 0, expected at least 1"),
        ({"loss__n_critic": 0}, "loss.n_critic is 0"),
        ({"loss__adversarial": "hing"}, "did you mean hinge"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        stargan.make(config(**fields))


def test_on_several_devices_the_same_videos_are_penalized_as_on_one() -> None:
    made = config(train__batch_size=3 * jax.device_count(), loss__penalized=2)
    stargan.make(made)
    with pytest.raises(ValueError, match="loss.penalized is 2, expected a divisor of the 3 videos"):
        stargan.make(made, "data")


def test_data_of_fewer_than_two_domains_are_refused() -> None:
    source = Synthetic(8, 16)
    source.classes = ["all"]
    with pytest.raises(ValueError, match="stargan translates between domains, at least two, and .* has 1"):
        stargan.complete(config(), source)
