"""One table for every method: what holds for one must hold for all. A new recipe is one more row."""

import functools
import itertools
from collections.abc import Callable
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import conditions, data, parallel
from jaxvid.core import Evaluated, TrainState, make_method
from jaxvid.data import Source

BATCH = 16
COMPARED = 3  # steps after which states are compared
STEPS = {"cyclegan": 16, "stargan": 16}  # in which a method is seen to learn; others, whose steps are fast, take 25


def variant(name: str = "vqvae:tiny", **overrides) -> Callable[[], ConfigDict]:
    def build() -> ConfigDict:
        config = recipe(name)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
        return config

    return build


def quantizer(fields: dict, **model) -> Callable[[], ConfigDict]:
    def build() -> ConfigDict:
        config = recipe("vqvae:tiny")
        config.model.quantizer = ConfigDict(fields)
        config.model.update(model)
        config.data.frames += config.model.causal  # whose first frame is by itself
        return config

    return build


def network(fields: dict, **model) -> Callable[[], ConfigDict]:
    def build() -> ConfigDict:
        config = recipe("vae:tiny")
        config.model.network = ConfigDict(fields)
        config.model.update(model)
        config.data.frames += fields.get("causal", False)
        return config

    return build


def judged_as_clips(build: Callable[[], ConfigDict]) -> Callable[[], ConfigDict]:
    """A translator without the discriminator of single frames: half of what is to be compiled."""

    def built() -> ConfigDict:
        config = build()
        del config.model.discriminators.frames
        return config

    return built


def dense_gan() -> ConfigDict:
    """Conditioned on a label: what follows first frames begins as their repetition, hard to tell from real clips."""
    config = recipe("pixel_gan:tiny")
    config.condition.on, config.model.conditioning = ("label",), "projection"
    config.loss.update(adversarial="hinge", r1=0.0, penalized=1)
    config.model.discriminators = ConfigDict({"dense": {"widths": (32, 16), "spectral": True}})
    return config


CASES = {
    "vqvae": variant(),
    "vqvae-fsq-attention": quantizer({"name": "fsq", "levels": (8, 5, 5)}, heads=2),
    "vqvae-lfq-causal": quantizer({"name": "lfq", "bits": 6}, causal=True, norm="frame"),
    "vae": variant("vae:tiny", condition__on=("label", "action")),
    "vae-frame-turns": network(
        {"name": "frame", "width": 8, "hidden": 32, "strides": (2, 2), "dim": 8}, turn=2, likelihood="laplace"
    ),
    "vae-grid-causal": network(
        {"name": "grid", "width": 8, "blocks": 1, "dim": 4, "downsample": (4, 4, 4), "causal": True}, free_nats=0.1
    ),
    # At eight units of memory rounding takes a pixel over the edge of one of the foreground, where its slope jumps.
    "gan-text": variant("gan_text:tiny", model__generator__memory=12),
    "gan-wasserstein": variant(
        "acgan:tiny",
        **{
            "loss__adversarial": "wasserstein",
            "loss__gradient_penalty": 1.0,
            "loss__n_critic": 2,
            "loss__r1": 0.0,
            "loss__penalized": 1,
        },
        # At this seed and with batch norm, rounding in the third step takes one unit past the kink of its leaky ReLU.
        model__generator__norm="group",
        **{"loss__augment": ("translation",), "loss__lecam": 0.1, "loss__instance_noise": 0.1},
        optim__clip=1.0,
    ),
    "gan-pixel": dense_gan,
    "gan-penalized": variant(
        "gan3d:tiny",
        **{"loss__penalized": 2, "loss__r1": 0.1, "loss__adversarial": "least_squares", "loss__feature_matching": 0.1},
        condition__on=("label", "first_frames"),
    ),
    "autoregressive": variant("transformer:tiny"),
    "maskgit": variant("maskgit:tiny", model__tasks=("generation", "prediction", "inpainting")),
    "pix2pix": judged_as_clips(
        variant(
            "pix2pix:tiny",
            **{"loss__features": 1.0, "loss__l1": 10.0, "augment__geometric": True, "loss__augment": ("color",)},
            **{"model__generator__norm": "frame", "model__discriminators__clips__norm": "frame"},
        )
    ),
    "cyclegan": judged_as_clips(
        variant(
            "cyclegan:tiny",
            model__shared=True,
            model__generator__taps=True,
            **{"loss__cycle_features": 0.5, "loss__commuting": 1.0, "loss__differences": 1.0, "loss__stillness": 1.0},
            **{"loss__reject_source": True, "loss__bound": 2.0, "augment__temporal": True},
        )
    ),
    "stargan": variant("stargan:tiny", loss__r1=1e-4),
}
TRANSLATORS = ("pix2pix", "cyclegan", "stargan")
GAMES = ("gan", *TRANSLATORS)
# What each family learns to make small.
LOSS = {
    "vqvae": "reconstruction",
    "vae": "reconstruction",
    **dict.fromkeys(GAMES, "d_loss"),
    "stargan": "cycle",
    "autoregressive": "loss",
    "maskgit": "loss",
}
# The loss of all players after COMPARED steps, as this code gives it, of translators with a smooth activation: a change
# that moves one is a change of results.
GOLDEN = {
    "vqvae": 0.486041,
    "vqvae-fsq-attention": 0.324564,
    "vqvae-lfq-causal": -0.066057,
    "vae": 6456.2734,
    "vae-frame-turns": 7260.135,
    "vae-grid-causal": 6474.965,
    "gan-text": 4.150498,
    "gan-wasserstein": -0.076681,
    "gan-pixel": 1.913114,
    "gan-penalized": 1.053026,
    "autoregressive": 3.000720,
    "maskgit": 3.499562,
    "pix2pix": 1.035235,
    "cyclegan": 1.269166,
    "stargan": 1.945531,
}


# All tests of a case on one worker, where its run on one device is computed once.
@pytest.fixture(params=[pytest.param(case, marks=pytest.mark.xdist_group(case)) for case in CASES], name="case")
def case_fixture(request) -> str:
    return request.param


def with_sgd(config: ConfigDict) -> ConfigDict:
    # Adam's first steps are signs of gradients, which rounding flips; equality tests need a continuous optimizer.
    rate = 0.002 if config.method in GAMES else 0.1
    config.optim.update(name="sgd", schedule="constant_schedule", learning_rate=rate)
    config.optim.schedule_arguments, config.optim.players = ConfigDict(), ConfigDict()
    config.optim.arguments = ConfigDict({"momentum": 0.9})
    return config


def sources(config: ConfigDict) -> tuple[ConfigDict, Source, Source]:
    """The completed config, and what it trains and evaluates on."""
    found = [data.make_source(config.data, split) for split in ("train", "eval")]
    config = conditions.complete(config, found[0])
    return config, *(conditions.wrap(config, source) for source in found)


def plain(state: TrainState) -> TrainState:
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


def smooth(x: jax.Array, slope: float) -> jax.Array:
    """A leaky ReLU without the kink, past which rounding takes one unit of a translator or another."""
    return slope * x + (1 - slope) * jax.nn.softplus(8 * x) / 8


def run(config: ConfigDict, devices: int, mode: str = "jit", steps: int = COMPARED) -> tuple[TrainState, list[dict]]:
    """The state after COMPARED steps, and the metrics of all steps."""
    with mock.patch("flax.linen.leaky_relu", smooth if config.method in TRANSLATORS else nn.leaky_relu):
        return _run(config, devices, mode, steps)


def _run(config: ConfigDict, devices: int, mode: str, steps: int) -> tuple[TrainState, list[dict]]:
    config.train.batch_size = BATCH
    config, source, _ = sources(config)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    step = parallel.make_step(make_method(config, parallel.axis_name(mode)).train_step, mesh, mode)
    init = parallel.make_init(make_method(config).init, mesh)
    history = []
    with data.train_batches(source, BATCH, config.data.resolution, seed=0, threads=2) as batches:
        for index, batch in enumerate(itertools.islice(batches, steps)):
            if index == 0:
                state = init(jax.random.key(0), parallel.put_batch(batch, mesh))
            state, metrics = step(state, parallel.put_batch(batch, mesh, mode))
            history.append(jax.device_get(metrics))
            if index + 1 == COMPARED:
                compared = plain(state)
    return compared, history


@pytest.fixture(scope="module")
def reference() -> Callable[[str], tuple[TrainState, list[dict]]]:
    """The run on one device, computed once per case."""
    return functools.cache(lambda case: run(with_sgd(CASES[case]()), devices=1, steps=STEPS.get(case, 25)))


def test_steps_are_finite_and_the_loss_is_the_golden_one_and_falls(case, reference) -> None:
    state, history = reference(case)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, history)))
    golden = sum(value for name, value in history[COMPARED - 1].items() if name.endswith("loss"))
    np.testing.assert_allclose(golden, GOLDEN[case], rtol=1e-4, atol=1e-5)
    kind = CASES[case]().method
    losses = [metrics[LOSS[kind]] for metrics in history]
    smooth = np.convolve(losses, np.ones(3) / 3, "valid")
    # In a game the generator answers, and takes back what the discriminator has learned first.
    assert (smooth.min() if kind in GAMES else smooth[-1]) < losses[0] - 0.2 * abs(losses[0])


def assert_close(a: np.ndarray, b: np.ndarray) -> None:
    """Arrays that differ by rounding at most; videos in 8 bits by one level, where they round to another."""
    np.testing.assert_allclose(a, b, atol=1 if a.dtype == np.uint8 else 1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", parallel.MODES)
def test_eight_devices_take_the_same_steps_as_one(case, mode, reference) -> None:
    state, history = run(with_sgd(CASES[case]()), devices=8, mode=mode)
    expected_state, expected_history = reference(case)
    jax.tree.map(assert_close, state, expected_state)
    for metrics, expected in zip(history, expected_history, strict=False):
        assert metrics.keys() == expected.keys()
        for name, value in metrics.items():
            vote = (
                1e-3 if name.endswith("accuracy") else 0.0
            )  # one of some 1,500 patches, whose logits are nearly equal
            np.testing.assert_allclose(value, expected[name], atol=max(vote, 1e-5), rtol=1e-4, err_msg=name)


def test_evaluation_gives_one_value_per_example_and_sampling_a_video_in_range(case) -> None:
    config, _, source = sources(CASES[case]())
    method = make_method(config)
    clips = [source[i] for i in range(4)]
    numbers = [name for name, value in clips[0].items() if value.dtype.kind in "biuf"]
    batch = {name: jnp.stack([clip[name] for clip in clips]) for name in numbers}
    state = parallel.make_init(method.init, parallel.make_mesh(jax.devices()[:1]))(jax.random.key(0), batch)
    if method.frozen:  # the logits of a prior are all equal at first
        moved = jax.tree.map(lambda x: x + 0.02 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.ema["prior"])
        state = state.replace(ema={"prior": moved})
    keys = parallel.example_keys(jax.random.key(1), 4)

    @functools.partial(jax.jit, compiler_options=parallel.compiler_options())
    def everything(state: TrainState, batch: dict) -> tuple[Evaluated, list[jax.Array]]:
        videos = [method.sample(state, batch, keys)] if method.sample else []
        videos += [method.reconstruct(state, batch)] if method.reconstruct else []
        return method.eval_step(state, batch, jax.random.key(1)), videos

    found, videos = everything(state, batch)
    values = found.scalars
    assert all(value.shape == (4,) for value in values.values())
    assert all(jnp.issubdtype(value.dtype, jnp.integer) and len(value) == 4 for value in found.counts.values())
    assert all(len(profile.values) == 4 for profile in found.profiles.values())
    assert next(iter(found.panels)) in ("original", "input")
    assert {video.shape for video in found.panels.values()} == {batch["video"].shape}
    # Another example's content changes nothing for this one, but for what compares examples.
    other = everything(state, {**batch, "video": batch["video"].at[0].set(0)})[0].scalars
    alone = [name for name in values if "diversity" not in name]
    for name in alone:
        np.testing.assert_allclose(other[name][3], values[name][3], rtol=1e-5, err_msg=name)
    assert any(other[name][0] != values[name][0] for name in alone)
    for video in videos:
        assert video.shape == batch["video"].shape and video.dtype == jnp.float32
        assert -1 <= video.min() < video.max() <= 1
    assert videos


def test_bfloat16_and_remat_change_the_speed_not_the_method(reference) -> None:
    expected = reference("vqvae")[1][COMPARED - 1]["loss"]
    _, remat = run(with_sgd(variant(model__remat=True)()), devices=1)
    half_state, half = run(with_sgd(variant(model__dtype="bfloat16")()), devices=1)
    np.testing.assert_allclose(remat[-1]["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(half[-1]["loss"], expected, rtol=3e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(half_state.params)} == {np.dtype("float32")}
