"""A classifier of videos, and generators judged by it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import data, parallel
from jaxvid.checkpoint import Run
from jaxvid.core import Method, TrainState
from jaxvid.data.synthetic import LABELS
from jaxvid.evaluate import __main__ as evaluate
from jaxvid.evaluate import suite
from jaxvid.methods import classifier, vqvae
from jaxvid.metrics.frechet import frechet_distance, statistics
from jaxvid.metrics.motion import motion_features

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
    values = jax.jit(classifier.make(config).eval_step)(state, held_out, jax.random.key(0))
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


def test_what_a_classifier_cannot_do_is_said() -> None:
    config = four_classes()
    method = classifier.make(config)
    with pytest.raises(ValueError, match="generates no videos"):
        jax.eval_shape(method.sample, None, {}, jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="these clips have none"):
        jax.eval_shape(method.init, jax.random.key(0), {"video": clips(2)["video"]})
    for fields, sentence in (
        ({"model.widths": (8, 12)}, "expected multiples of 8"),
        ({"model.strides": ((1, 2, 2),)}, "for each of model.widths"),
        ({"condition.classes": ()}, "fill it in"),
        ({"model.features": 0}, "expected at least 1"),
        ({"model.dtype": "float8"}, "did you mean float"),
        ({"eval.metrics": ("motion",)}, "leave it"),
    ):
        wrong = four_classes()
        wrong.update_from_flattened_dict(fields)
        with pytest.raises(ValueError, match=sentence):
            classifier.make(wrong)


def painter(right_below: int) -> Method:
    """A generator that paints its class as a grey level, and class 0 from `right_below` on; untrained it is black."""

    def init(key: jax.Array, batch: dict) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), key, {"generator": jnp.zeros(())}, {}, {}, {})

    def sample(state: TrainState, batch: dict, keys: jax.Array) -> jax.Array:
        label = jnp.where(batch["label"] < right_below, batch["label"], 0)
        noise = jax.vmap(lambda key: jax.random.normal(key, (8, 16, 16, 3)))(keys)
        grey = 4 * label[:, None, None, None, None] + state.params["generator"] * noise.clip(-1, 1)
        return jnp.where(state.params["generator"], grey, 0) / 127.5 - 1

    return Method(init, lambda state, batch: (state, {}), lambda state, batch, key: {}, sample)


def reading_of_grey(video: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Features [B,2], and logits [B,40] of the class that `painter` paints so."""
    levels = video.astype(np.float32).mean((2, 3, 4))
    features = np.stack([levels.mean(1), levels[:, 0] - levels[:, -1]], 1)
    return features, -np.abs(levels.mean(1)[:, None] / 4 - np.arange(40))


def test_samples_are_scored_by_a_classifier_beside_untrained_and_real_ones(tmp_path, monkeypatch) -> None:
    config = recipe("vqvae:tiny")
    config.condition = ConfigDict({"on": ("label",)})
    method = painter(right_below=30)
    state = method.init(jax.random.key(0), {}).replace(params={"generator": jnp.ones(())})
    monkeypatch.setattr(evaluate.checkpoint, "load", lambda path: Run(config, method, state))
    judge = suite.Classifier("a ruler", reading_of_grey)
    monkeypatch.setattr(evaluate, "load_classifier", lambda path, config, classes: judge)
    output = tmp_path / "scores.json"
    count = 50  # not a multiple of the batch of 8
    arguments = [f"--num={count}", "--references", "--workdir=x", "--classifier=y", f"--output={output}"]
    assert evaluate.main(arguments) == 0
    scores = {score["metric"]: score for score in json.loads(output.read_text())["scores"]}

    with data.eval_batches(data.make_source(config.data, "eval"), 2 * count, 16, 2 * count) as batches:
        batch = next(batches)
    first, others = batch["video"][:count], batch["video"][count:]
    labels, other_labels = batch["label"][:count], batch["label"][count:]
    assert scores["asked"]["value"] == pytest.approx(np.mean((labels < 30) | (labels == 0)))
    assert scores["asked of untrained samples"]["value"] == pytest.approx(np.mean(labels == 0))
    seen = reading_of_grey(others)[1].argmax(1)
    assert scores["asked of other real clips"]["value"] == pytest.approx(np.mean(seen == other_labels))
    low, high = scores["asked"]["interval"]
    # Wilson: the shares from which what was found lies 1.96 standard errors away.
    for share in (low, high):
        error = np.sqrt(share * (1 - share) / count)
        assert abs(scores["asked"]["value"] - share) == pytest.approx(1.96 * error, rel=1e-6)
    assert "a ruler" in scores["asked"]["citation"] and "real" not in scores["asked"]["citation"]

    black = np.zeros_like(first)
    for name, features in (("frechet_classifier", lambda x: reading_of_grey(x)[0]), ("motion", motion_features)):
        for what, fake in (("untrained samples", black), ("other real clips", others)):
            expected = frechet_distance(statistics(features(first)), statistics(features(fake)))
            assert scores[f"{name} of {what}"]["value"] == pytest.approx(expected, rel=1e-3), (name, what)
    assert scores["frechet_classifier"]["fake"] == scores["frechet_classifier of other real clips"]["fake"] == count


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data.frames": 12}, "trained with data.frames 8, and the run with 12"),
        ({"data.resolution": 32}, "trained with data.resolution 16, and the run with 32"),
        ({"data.stride": 2}, "trained with data.stride 1, and the run with 2"),
        ({}, "trained with classes left, right, up, down, and the run with square_left, "),
    ],
)
def test_a_classifier_of_other_clips_is_refused(fields, sentence, trained, monkeypatch) -> None:
    config = recipe("vqvae:tiny")
    config.update_from_flattened_dict(fields)
    monkeypatch.setattr(evaluate.checkpoint, "load", lambda path: Run(trained[0], None, trained[1]))
    with pytest.raises(ValueError, match=sentence):
        evaluate.load_classifier("runs/classifier", config, LABELS["class"])


def test_what_scoring_by_a_classifier_needs_is_said(monkeypatch, capsys, trained) -> None:
    config = recipe("vqvae:tiny")
    monkeypatch.setattr(evaluate.checkpoint, "load", lambda path: Run(config, vqvae.make(config), trained[1]))
    for arguments, sentence in (
        (["--workdir=x", "--classifier=x"], "is a run of vqvae: train one with configs/classifier.py"),
        (["--workdir=x", "--metrics=asked"], "asked needs a trained classifier"),
        (["--workdir=x", "--references", "--num=40000"], "needs twice 40000 held-out clips: give --num=32768 or less"),
    ):
        assert evaluate.main(arguments) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--real=x", "--fake=y", "--classifier=z"])
    assert "--classifier goes with --workdir" in capsys.readouterr().err
