"""Priors over tokens that are drawn one after another, on a tokenizer that need not be trained for this."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import pretrained, priors, run
from jaxvid.core import Method, TrainState
from jaxvid.data.synthetic import Synthetic
from jaxvid.methods import autoregressive

pytestmark = pytest.mark.xdist_group("autoregressive")
GRID = (2, 4, 4)


def config(on: tuple[str, ...] = (), **fields) -> ConfigDict:
    """A tiny prior on the tokenizer of `vqvae:tiny` as `init` makes it: 8x16x16 clips, 2x4x4 tokens of 32 codes."""
    made = recipe("transformer:tiny")
    made.condition.on, made.condition.classes, made.condition.actions = on, ("left", "right"), 2
    made.condition.action_scale, made.condition.vocabulary = (1.0, 1.0), ("a", "shape")
    made.update_from_flattened_dict(fields)
    return made


def batch(count: int = 4) -> dict[str, jax.Array]:
    video = jax.random.randint(jax.random.key(5), (count, 8, 16, 16, 3), 0, 256).astype(jnp.uint8)
    words = jnp.tile(jnp.array([2, 3, 0]), (count, 1))
    action = jax.random.normal(jax.random.key(6), (count, 8, 2))
    return {"video": video, "label": jnp.arange(count) % 2, "words": words, "action": action}


@functools.cache
def trained(on: tuple[str, ...], steps: int = 3) -> tuple[Method, TrainState]:
    """After some steps on one batch, so that nothing is uniform any more."""
    method = autoregressive.make(config(on, **{"optim.schedule": "constant_schedule"}))
    state = jax.jit(method.init)(jax.random.key(0), batch())
    step = jax.jit(method.train_step)
    for _ in range(steps):
        state, metrics = step(state, batch())
    assert np.isfinite(metrics["bits"])
    return method, state


@functools.cache
def sampler(on: tuple[str, ...], fields: tuple[tuple[str, Any], ...]) -> Callable:
    return jax.jit(autoregressive.make(config(on, **dict(fields))).sample)


def videos(on: tuple[str, ...], given: dict, keys: jax.Array, **fields) -> np.ndarray:
    return np.asarray(sampler(on, tuple(fields.items()))(trained(on)[1], given, keys))


KEYS = jax.random.split(jax.random.key(3), 4)


def test_a_video_depends_on_its_key_and_condition_and_not_on_the_batch_it_is_in() -> None:
    on = ("label", "action")
    given = {name: value for name, value in batch().items() if name != "video"}
    together = videos(on, given, KEYS)
    places = jnp.array([3, 1, 2, 2])
    others = videos(on, jax.tree.map(lambda x: x[places], given), KEYS[places])
    np.testing.assert_allclose(others, together[places], atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 0.01  # of the same label


def test_a_whole_sampling_run_is_one_compiled_program(caplog) -> None:
    """Of all places and windows: within the first batch, and none in those after it."""
    made = config(("label",), **{"data.frames": 12})
    trained_run = run.Run(made, autoregressive.make(made), trained(("label",))[1])
    batches = run.samples(trained_run, {"label": np.arange(5) % 2}, num=5, seed=0, batch_size=2)
    with jax.log_compiles():
        next(batches)
        assert caplog.text.count("Finished XLA compilation of jit(step)") == 1
        caplog.clear()
        assert len(list(batches)) == 2
        assert "XLA compilation" not in caplog.text


def test_at_temperature_0_keys_do_not_matter_and_filters_that_keep_all_change_no_bit() -> None:
    given = {"label": jnp.zeros(4, int)}
    cold = videos(("label",), given, KEYS, **{"sample.temperature": 0.0})
    np.testing.assert_array_equal(cold[0], cold[3])
    plain = videos(("label",), given, KEYS)
    np.testing.assert_array_equal(plain, videos(("label",), given, KEYS, **{"sample.top_k": 32, "sample.top_p": 1.0}))
    assert np.abs(plain - videos(("label",), given, KEYS, **{"sample.top_k": 1})).max() > 0.01


@pytest.mark.parametrize("known", [0, 4])
def test_first_frames_come_back_as_they_were_given(known: int) -> None:
    first = np.asarray(batch()["video"][:, :known] / 127.5 - 1)
    made = videos(("first_frames",), {"first_frames": first}, KEYS, **{"condition.first_frames": 4})
    np.testing.assert_array_equal(made[:, :known], first)
    assert made.shape == (4, 8, 16, 16, 3) and np.abs(made).max() <= 1


def test_longer_videos_are_windows_that_each_begin_with_the_last_half_of_the_one_before() -> None:
    setup = priors.make_setup(config(("action",), **{"data.frames": 21}), None, autoregressive.NETWORKS)
    setup = setup._replace(tokenizer=setup.tokenizer._replace(grid=(4, 1, 1), factors=(2, 1, 1), decode=by_frames))
    action = np.arange(2 * 21, dtype=np.float32).reshape(2, 21, 1)

    def generate(setup: Any, state: Any, batch: dict, keys: jax.Array, prefix: jax.Array | None) -> jax.Array:
        """Tokens that say which action the window begins with, behind the prefix."""
        new = jnp.broadcast_to(batch["action"][:, 0].astype(int)[..., None, None], (2, 4, 1, 1))
        return new if prefix is None else jnp.concatenate([prefix, new[:, prefix.shape[1] :]], 1)

    made = priors.sample(setup, trained(("label",))[1], {"action": action}, KEYS[:2], generate)
    assert made.shape == (2, 21, 1, 1, 1)  # 11 frames of tokens: 4, and 4 times 2 in windows from frames 4, 8, 12, 16
    starts = np.repeat([0, 4, 8, 12, 16], [8, 4, 4, 4, 1])
    np.testing.assert_array_equal(made[..., 0, 0, 0], np.stack([starts, 21 + starts]))


def by_frames(state: Any, tokens: jax.Array) -> jax.Array:
    """Tokens [B,t,h,w] as a video, of two frames each."""
    return jnp.repeat(tokens, 2, 1)[..., None]


def test_a_longer_video_begins_like_a_short_one_and_its_prefixes_stay() -> None:
    given = {"label": jnp.zeros(2, int)}
    setup = priors.make_setup(config(("label",)), None, autoregressive.NETWORKS)
    state = trained(("label",))[1]
    draw = jax.jit(lambda prefix: autoregressive.generate(setup, state, given, KEYS[:2], prefix))
    free = draw(None)
    np.testing.assert_array_equal(draw(free[:, :1]), free)
    other = (free[:, :1] + 1) % 32
    np.testing.assert_array_equal(draw(other)[:, :1], other)
    long = videos(("label",), given, KEYS[:2], **{"data.frames": 12})
    assert long.shape == (2, 12, 16, 16, 3) and np.abs(long).max() <= 1


def test_a_prior_learns_clips_of_the_tokenizers_length_alone() -> None:
    made = config(**{"data.frames": 16, "condition.classes": ()})
    with pytest.raises(ValueError, match="data.frames is 16, and the tokenizer in .* was trained with 8"):
        autoregressive.complete(made, Synthetic(16, 16))


def test_an_evaluation_has_bits_by_frame_and_by_class_beside_those_of_equal_and_of_independent_codes() -> None:
    made = config(("label",))
    method, state = trained(("label",))
    found = jax.jit(autoregressive.make(made).eval_step)(state, batch(), jax.random.key(1))
    bits = np.asarray(found.scalars["bits"])
    np.testing.assert_allclose(found.profiles["bits_by_frame"].values.mean(1), bits, rtol=1e-5)
    by_class = np.asarray(found.profiles["bits_by_class"].values)
    assert found.profiles["bits_by_class"].names == ("left", "right")
    np.testing.assert_array_equal(np.isnan(by_class), [[0, 1], [1, 0], [0, 1], [1, 0]])
    np.testing.assert_allclose(np.nansum(by_class, 1), bits)
    np.testing.assert_array_equal(found.scalars["bits_uniform"], 5.0)
    np.testing.assert_allclose(found.scalars["bits_per_value"], bits * 32 / (8 * 16 * 16 * 3), rtol=1e-6)
    np.testing.assert_array_equal(found.panels["reconstruction"], jax.jit(method.reconstruct)(state, batch()))
    assert {*found.panels} == {"original", "reconstruction", "teacher-forced", "sample"}


def test_a_tokenizer_with_flows_serves_as_well() -> None:
    made = config(("first_frames",), **{"tokenizer.config": recipe("vqvae_flow:tiny")})
    method = autoregressive.make(made)
    state, _ = jax.eval_shape(method.train_step, jax.eval_shape(method.init, jax.random.key(0), batch()), batch())
    assert "flows" in pretrained.state_of(state, "tokenizer").params["tokenizer"]
    first = jnp.zeros((4, 1, 16, 16, 3))
    assert jax.eval_shape(method.sample, state, {"first_frames": first}, KEYS).shape == (4, 8, 16, 16, 3)


def test_guidance_needs_what_can_be_left_out() -> None:
    given = {"label": jnp.zeros(4, int)}
    near = videos(("label",), given, KEYS, **{"sample.guidance": 1.000001})
    np.testing.assert_allclose(near, videos(("label",), given, KEYS), atol=1e-4)
    for on, unguided in ((("action",), 0.1), (("label",), 0.0)):
        with pytest.raises(ValueError, match="sample.guidance is 2.0, .* without a label or a text"):
            autoregressive.make(config(on, **{"sample.guidance": 2.0, "model.unguided": unguided}))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model.network": "transformr"}, "model.network .* did you mean transformer"),
        ({"model.layers": 0}, "model.layers is 0, expected at least 1"),
        ({"model.heads": 3}, "model.width is 32, expected a multiple of 6: twice model.heads"),
        ({"model.unguided": 1.0}, "model.unguided is 1.0"),
        ({"data.resolution": 32}, "data.resolution is 32, and the tokenizer in .* was trained with 16"),
        ({"tokenizer.config": recipe("vae:tiny")}, "a run of the method vae, which makes no tokens"),
        ({"tokenizer.config": {}}, "config.tokenizer is empty"),
        ({"condition.on": ("input",)}, "condition.on has input"),
        ({"condition.on": ("first_frames",), "condition.first_frames": 8}, "fewer than the 8"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    made = config()
    for name, value in fields.items():
        holder, _, field = name.rpartition(".")
        made[holder][field] = value
    with pytest.raises(ValueError, match=sentence):
        autoregressive.make(made)


def test_a_prior_that_learned_one_video_repeats_it_and_the_tokenizer_stays() -> None:
    made = config(**{"sample.temperature": 0.0, "optim.learning_rate": 1e-2, "train.steps": 80, "optim.ema_decay": 0.5})
    method = autoregressive.make(made)
    one = jax.tree.map(lambda x: x[:1], batch())
    state = jax.jit(method.init)(jax.random.key(0), one)
    before = jax.device_get(pretrained.state_of(state, "tokenizer"))
    step = jax.jit(method.train_step)
    for _ in range(80):
        state, metrics = step(state, one)
    assert metrics["bits"] < 0.05
    after = jax.device_get(pretrained.state_of(state, "tokenizer"))
    jax.tree.map(np.testing.assert_array_equal, (before.params, before.collections), (after.params, after.collections))
    found = jax.jit(method.eval_step)(state, one, jax.random.key(1))
    np.testing.assert_allclose(found.panels["sample"], found.panels["reconstruction"], atol=1e-5)
    assert float(found.scalars["bits"][0]) < 0.05


def test_bits_come_near_the_entropy_of_a_chain() -> None:
    """Tokens that repeat the one before with probability 0.7, and else are drawn from four, uniformly."""
    stay, codes = 0.7, 4
    made = config(**{"train.steps": 250, "optim.learning_rate": 5e-3})
    method = autoregressive.make(made)

    @jax.jit
    def draw_tokens(key: jax.Array) -> jax.Array:
        fresh = jax.random.randint(key, (64, 32), 0, codes)
        stays = jax.random.bernoulli(jax.random.fold_in(key, 1), stay, (64, 32)).at[:, 0].set(False)
        places = jax.lax.cummax(jnp.where(stays, -1, jnp.arange(32)), axis=1)
        return jnp.take_along_axis(fresh, places, 1).reshape(64, *GRID)

    def examples(number: int) -> dict[str, jax.Array]:
        return {"tokens": draw_tokens(jax.random.key(number)), "video": jnp.zeros((64, 8, 16, 16, 3), jnp.uint8)}

    state, step = jax.jit(method.init)(jax.random.key(0), examples(0)), jax.jit(method.train_step)
    for number in range(250):
        state, metrics = step(state, examples(number))
    same, other = stay + (1 - stay) / codes, (1 - stay) / codes
    conditional = -(same * math.log2(same) + (codes - 1) * other * math.log2(other))
    entropy = (math.log2(codes) + 31 * conditional) / 32
    held_out = [float(step(state, examples(number))[1]["bits"]) for number in range(1000, 1010)]
    assert abs(np.mean(held_out) / entropy - 1) < 0.02
