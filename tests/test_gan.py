"""What the GAN method refuses, warns of, and does in a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import adversarial, parallel
from jaxvid.methods import gan
from jaxvid.models.gan_blocks import Critique

DOUBLE = (2, 2, 2)


def unconditional(name: str) -> ConfigDict:
    config = recipe(name)
    config.condition.on, config.loss.classes = (), 0.0
    return config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"loss.adversarial": "hing"}, "loss.adversarial .* did you mean hinge"),
        ({"loss.augment": ("colour",)}, "an item of loss.augment .* did you mean color"),
        ({"loss.r1": -1.0}, "loss.r1 is -1.0, expected 0 or more"),
        ({"loss.r1": float("nan")}, "loss.r1 is nan, expected 0 or more"),
        ({"sample.temperature": float("nan")}, "sample.temperature is nan, expected 0 or more"),
        ({"loss.adversarial": "hinge", "loss.smoothing": 0.1}, "loss.smoothing is for .* not for hinge"),
        ({"loss.smoothing": 0.6}, "expected less than 0.5"),
        ({"loss.n_critic": 3}, "batch_size 8 is shared by the loss.n_critic 3 .* a multiple"),
        ({"loss.n_critic": 0}, "loss.n_critic is 0, expected at least 1"),
        ({"loss.penalized": 0}, "loss.penalized is 0, expected at least 1"),
        ({"loss.penalized": 9}, "loss.penalized is 9, .* at most as many as .* in a step, 8"),
        ({"loss.classes": 1.0, "condition.on": ("label",)}, "needs data with classes"),
        (
            {"loss.classes": 1.0, "condition.classes": ("cat", "dog")},
            "loss.classes .* that it is not conditioned on: set it to 0",
        ),
        ({"model.conditioning": "none", "condition.on": ("text",)}, "ignores the text, .* set it to .projection"),
        ({"model.conditioning": "none", "condition.on": ("label",)}, "ignores the label"),
        ({"model.generator.name": "convolution"}, "model.generator.name .* did you mean conv"),
        ({"model.generator.widths": (16,)}, "model.generator has widths .* one factor"),
        ({"model.generator.widths": (16, 0)}, "whole numbers of at least 1"),
        (
            {"model.generator.norm": "group", "model.generator.widths": (16, 12)},
            "model.generator.widths are .* multiples of 8",
        ),
        ({"model.generator.background": "none"}, 'model.generator.background is "none", and there is a foreground'),
        ({"model.generator.foreground": "gradent"}, "model.generator.foreground .* did you mean gradient"),
        ({"model.generator.norm": "layer"}, "model.generator.norm .* did you mean"),
        ({"model.generator.factors": (DOUBLE, (8, 2, 2))}, "do not divide the video: frames 8 by 16"),
        ({"data.resolution": 18}, "do not divide the video: height 18 by 4"),
        ({"model.generator.noise": 0}, "model.generator.noise is 0, expected at least 1"),
        ({"model.conditioning": "project"}, "model.conditioning .* did you mean projection"),
        ({"model.dtype": "float16"}, "model.dtype .* did you mean"),
        ({"model.discriminators": {}}, "model.discriminators is empty"),
        ({"optim.players": {"generator": {"name": "adum"}}}, "optim.players.generator.name is .adum"),
        ({"optim.players": {"critic": {"clip": 1.0}}}, "a player in optim.players .* expected one of generator, disc"),
        ({"condition.on": ("labels",)}, "condition.on .* did you mean label"),
        ({"condition.on": ("first_frames",), "condition.first_frames": 8}, "fewer than the 8"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    config = unconditional("gan3d:tiny")
    for name, value in fields.items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = part[step]
        part[last] = type(config)(value) if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=sentence):
        gan.make(config)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"foreground_size": 0}, "model.generator.foreground_size is 0, expected at least 1"),
        ({"foreground_size": 10}, "model.generator.factors .* do not divide .* height 10 by 4"),
        ({"factors": ((1, 2, 2), DOUBLE)}, "model.generator.factors .* expected 1 in time: it goes frame by frame"),
    ],
)
def test_layers_that_do_not_fit_are_one_sentence(fields: dict, sentence: str) -> None:
    config = unconditional("acgan:tiny")
    config.model.generator.update(fields)
    with pytest.raises(ValueError, match=sentence):
        gan.make(config)


def test_a_network_that_goes_frame_by_frame_keeps_time() -> None:
    config = unconditional("gan_rnn:tiny")
    config.model.discriminators.frames.factors = (DOUBLE, DOUBLE)
    with pytest.raises(ValueError, match="model.discriminators.frames.factors .* goes frame by frame"):
        gan.make(config)
    config = unconditional("gan_rnn:tiny")
    config.model.generator.residual = True
    with pytest.raises(ValueError, match="model.generator.residual is True, .* see the frames beside: set it to False"):
        gan.make(config)


def test_a_saturated_discriminator_and_samples_all_alike_are_said() -> None:
    healthy = {"d_accuracy": 0.995, "d_real": 0.8, "d_fake": 0.2, "diversity": 0.5, "data_diversity": 0.6}
    assert gan.warnings(healthy) == []
    (saturated,) = gan.warnings({**healthy, "d_real": 0.97, "d_fake": 0.01})
    assert gan.warnings({**healthy, "d_accuracy": 0.9, "d_real": 0.97, "d_fake": 0.01}) == []
    assert "tells 100% of the pairs apart" in saturated and "loss.r1" in saturated
    (collapsed,) = gan.warnings({**healthy, "diversity": 0.06})
    assert "10% as much as the data" in collapsed
    assert gan.warnings({**healthy, "class_diversity": 0.3}) == []
    (alike,) = gan.warnings({**healthy, "class_diversity": 0.06})
    assert "samples of one class" in alike and "10% as much as the data" in alike


def critique(logits: list, classes: list | None = None) -> Critique:
    return Critique(jnp.asarray(logits), None if classes is None else jnp.asarray(classes), (jnp.asarray(logits),))


def test_scores_count_pairs_and_give_probabilities_where_there_are_any() -> None:
    real, fake = critique([[2.0, 0.0], [1.0, 1.0]]), critique([[1.0, 1.0], [0.0, 2.0]])
    found = adversarial.scores(adversarial.Game("non_saturating"), [real], [fake])
    np.testing.assert_allclose(found["d_accuracy"], [0.5, 0.5])
    np.testing.assert_allclose(found["d_real"], [(1 / (1 + np.exp(-2)) + 0.5) / 2, 1 / (1 + np.exp(-1))], rtol=1e-6)
    np.testing.assert_allclose(
        adversarial.scores(adversarial.Game("wasserstein"), [real, real], [fake, fake])["d_fake"], [1.0, 1.0]
    )


def test_feature_matching_compares_means_over_the_batch() -> None:
    real, fake = critique([[1.0, 2.0], [3.0, 4.0]]), critique([[0.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(adversarial.feature_distance([real], [fake], None), ((2 - 1) ** 2 + (3 - 0) ** 2) / 2)


def test_the_classifiers_error_is_the_cross_entropy_of_its_votes() -> None:
    logits = np.asarray([[[2.0, 0.0, 1.0]], [[0.0, 1.0, 3.0]]], np.float32)
    error, right = adversarial.classified([critique([[0.0], [0.0]], logits.tolist())], jnp.asarray([0, 1]))
    expected = np.log(np.exp(logits[:, 0]).sum(-1)) - logits[[0, 1], 0, [0, 1]]
    np.testing.assert_allclose(error, expected, rtol=1e-6)
    assert right.tolist() == [1.0, 0.0]


TWO, ONE, PARTS = critique([[1.0], [2.0]], [[[1.0, 2.0]]] * 2), critique([[1.0]]), critique([[1.0, 0.0]] * 2)
KEY = jax.random.key(0)
GAME = adversarial.Game("hinge", lecam=1.0, feature_matching=1.0, classes=1.0)


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [
        (lambda: adversarial.scores(GAME, [], []), r"\[0\] critiques, expected as many of each, and at least one"),
        (lambda: adversarial.scores(GAME, [TWO], [TWO, TWO]), r"\[1, 2\] critiques"),
        (
            lambda: adversarial.scores(GAME, [TWO], [ONE]),
            r"panel 0 float32 \[2,1\] and logits of panel 1 float32 \[1,1\]",
        ),
        (lambda: adversarial.scores(GAME, [TWO], [PARTS]), r"panel 1 float32 \[2,2\]"),
        (lambda: adversarial.scores(GAME, [TWO, ONE], [TWO, ONE]), r"logits is float32 \[1,1\], expected \[2,N\]"),
        (lambda: adversarial.scores(GAME, [critique([1.0])], [ONE]), r"is float32 \[1\], expected float \[B,N\]"),
        (lambda: adversarial.summed_logits([TWO, ONE]), r"expected \[2,N\]"),
        (lambda: adversarial.discriminator_loss(GAME, [TWO], [TWO], jnp.zeros(2, int)), "loss.lecam needs averages"),
        (lambda: adversarial.generator_loss(GAME, [TWO]), "loss.feature_matching needs the critiques of real"),
        (lambda: adversarial.feature_distance([TWO], [PARTS], None), "features of real float32 .* expected the same"),
        (lambda: adversarial.classified([ONE], jnp.zeros(1, int)), r"classes is a NoneType, expected float \[B,N,K\]"),
        (lambda: adversarial.classified([TWO], None), r"labels is a NoneType, expected int \[2\]"),
        (lambda: adversarial.classified([TWO], jnp.zeros(1, int)), r"labels is int32 \[1\], expected int \[2\]"),
        (
            lambda: adversarial.penalties(GAME, jnp.sum, *jnp.zeros((2, 3, 1, 1, 1, 1)), jax.random.split(KEY, 2)),
            r"keys is .* \[2\], expected \[3\]",
        ),
    ],
)
def test_panels_that_do_not_fit_are_refused(judged: Callable, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        judged()


def test_samples_begin_with_the_frames_that_are_given() -> None:
    config = recipe("pixel_gan:tiny")
    method = gan.make(config)
    video = jax.random.uniform(jax.random.key(0), (2, 8, 16, 16, 3), minval=-1)
    state = jax.jit(method.init)(jax.random.key(1), {"video": video})
    keys = jax.random.split(jax.random.key(2), 2)
    made = jax.jit(method.sample)(state, {"first_frames": video[:, :2]}, keys)
    np.testing.assert_array_equal(made[:, :2], video[:, :2])
    # A dense generator makes changes of the last of the first frames, at first next to none.
    assert 1e-3 < jnp.abs(made[:, 2:] - video[:, 1:2]).mean() < 0.05 and jnp.abs(made).max() <= 1
    other = jax.jit(method.sample)(state, {"first_frames": -video[:, :2]}, keys)
    assert jnp.abs(other[:, 2:] - made[:, 2:]).max() > 1e-3


def test_a_way_out_names_fields_that_there_are() -> None:
    """Static frames can depend on the condition; a dense generator has none."""
    for name, static in (("acgan:tiny", True), ("pixel_gan:tiny", False)):
        config = recipe(name)
        config.condition.on, config.model.conditioning, config.loss.classes = ("action",), "none", 0.0
        with pytest.raises(ValueError, match="ignores the action") as refused:
            gan.make(config)
        assert ("static_conditioned" in str(refused.value)) == static


def test_a_dense_generator_may_have_no_hidden_layer_but_not_less() -> None:
    config = recipe("pixel_gan:tiny")
    config.model.generator.width = 0
    gan.make(config)
    config.model.generator.width = -1
    with pytest.raises(ValueError, match="model.generator.width is -1, expected at least"):
        gan.make(config)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"loss.n_critic": 4}, "batch_size 16 is shared by the loss.n_critic 4 .* on each of 8 devices: .* a multiple"),
        ({"loss.penalized": 4}, "loss.penalized is 4, .* on each of 8 devices, 2"),
        ({"train.batch_size": 24, "loss.penalized": 2}, "expected a divisor of the 3 videos .* train.parallel to .jit"),
    ],
)
def test_under_pmap_every_device_has_equal_shares(fields: dict, sentence: str) -> None:
    config = unconditional("gan3d:tiny")
    config.update_from_flattened_dict({"train.batch_size": 16, "loss.penalized": 1, **fields})
    gan.make(config)
    with pytest.raises(ValueError, match=sentence):
        gan.make(config, parallel.AXIS)


def test_only_every_nth_video_pays_for_its_slope() -> None:
    batch = {"video": jax.random.uniform(jax.random.key(0), (8, 8, 16, 16, 3), minval=-1)}
    few = {"video": batch["video"].at[1::2].multiply(-1)}  # what does not pay may differ

    def r1(penalized: int) -> list[float]:
        config = unconditional("gan3d:tiny")
        config.loss.penalized = penalized
        config.model.discriminators.video.deviation = False
        method = gan.make(config)
        state = jax.jit(method.init)(jax.random.key(1), batch)
        step = jax.jit(method.train_step)
        return [float(step(state, each)[1]["r1"]) for each in (batch, few)]

    np.testing.assert_allclose(*r1(2), rtol=1e-5)
    every, other = r1(1)
    assert abs(every / other - 1) > 1e-4
