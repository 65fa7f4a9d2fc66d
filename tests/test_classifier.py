"""A classifier of videos; see tests/evaluate/test_score_run.py for the generators that it judges."""

import jax
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import parallel
from jaxvid.core import TrainState
from jaxvid.methods import classifier

CLASSES = ("left", "right", "up", "down")
RNG = np.random.default_rng(0)
MESH = parallel.make_mesh(jax.devices()[:1])


def clips(count: int) -> dict[str, np.ndarray]:
    """A bright square that moves left (0), right (1), up (2) or down (3), somewhere; only the order of frames tells."""
    video, label = np.zeros((count, 8, 16, 16, 3), np.uint8), RNG.integers(0, 4, count).astype(np.int32)
    for clip, motion in zip(video, label, strict=True):
        row, column = RNG.integers(4, 9, 2)
        for time in range(8):
            step = (time - 4) * (1 if motion % 2 else -1)
            y, x = (row, column + step) if motion < 2 else (row + step, column)
            clip[time, max(y, 0) : y + 4, max(x, 0) : x + 4] = 200
    return {"video": video, "label": label}


def four_classes(**optimizer) -> ConfigDict:
    config = recipe("classifier:tiny")
    config.condition.classes, config.train.steps = CLASSES, 40
    config.optim.update(learning_rate=1e-2, **optimizer)
    return config


@pytest.fixture(scope="module", name="trained")
def trained_fixture() -> tuple[ConfigDict, TrainState]:
    """A config, and its state after 40 steps on `clips`."""
    config = four_classes()
    method = classifier.make(config)
    state = parallel.make_init(method.init, MESH)(jax.random.key(0), clips(2))
    step = parallel.make_step(method.train_step, MESH)
    for _ in range(config.train.steps):
        state, _ = step(state, parallel.put_batch(clips(32), MESH))
    return config, state


def test_it_learns_motion_and_reads_what_it_learned(trained) -> None:
    config, state = trained
    held_out = clips(64)
    values = jax.jit(classifier.make(config).eval_step)(state, held_out, jax.random.key(0)).scalars
    assert values["accuracy"].mean() > 0.95 and values["loss"].mean() < 0.5
    assert values["top5"].min() == 1  # there are four classes
    features, logits = classifier.reader(config, state)(held_out["video"])
    assert features.shape == (64, config.model.features)
    np.testing.assert_array_equal(logits.argmax(1) == held_out["label"], values["accuracy"])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(values["loss"], -np.log(chances[np.arange(64), held_out["label"]]), atol=1e-5)


def test_eight_devices_take_the_same_step_as_one() -> None:
    config = four_classes(name="sgd")  # Adam's first steps are signs of gradients, which rounding flips
    batch, found = clips(16), []
    for devices, mode in ((1, "jit"), (8, "pmap")):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        state = parallel.make_init(classifier.make(config).init, mesh)(jax.random.key(0), clips(2))
        method = classifier.make(config, parallel.axis_name(mode))
        state, metrics = parallel.make_step(method.train_step, mesh, mode)(state, parallel.put_batch(batch, mesh, mode))
        found.append(jax.device_get((state.params, state.ema, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


def test_what_a_classifier_cannot_do_is_refused() -> None:
    method = classifier.make(four_classes())
    assert method.sample is None and method.reconstruct is None
    with pytest.raises(ValueError, match="these clips have none"):
        jax.eval_shape(method.init, jax.random.key(0), {"video": clips(2)["video"]})
    for fields, sentence in (
        ({"model.widths": (8, 12)}, "expected multiples of 8"),
        ({"model.strides": ((1, 2, 2),)}, "for each of model.widths"),
        ({"condition.classes": ()}, "fill it in"),
        ({"model.features": 0}, "expected at least 1"),
        ({"model.dtype": "float8"}, "did you mean float"),
    ):
        wrong = four_classes()
        wrong.update_from_flattened_dict(fields)
        with pytest.raises(ValueError, match=sentence):
            classifier.make(wrong)
