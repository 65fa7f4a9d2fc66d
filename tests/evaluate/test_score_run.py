"""Runs, evaluated by the command: a method's own held-out means, and scores of the videos that it makes."""

import json
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import data, parallel
from jaxvid.core import Evaluated, Method, TrainState, find_method, make_method, new_state, normalize
from jaxvid.data.synthetic import LABELS
from jaxvid.evaluate import __main__ as evaluate
from jaxvid.evaluate.heldout import Scorer, has_truth
from jaxvid.evaluate.meter import Meter, of_classifier
from jaxvid.methods import classifier
from jaxvid.metrics.frechet import frechet_distance, statistics
from jaxvid.metrics.image import psnr
from jaxvid.metrics.motion import motion_features
from jaxvid.run import Run
from jaxvid.train import make_meter

COUNT = 50  # clips; not a multiple of the batch of 8


def init(key: jax.Array, batch: dict) -> TrainState:
    return new_state(key, {"generator": jnp.zeros(())}, {})


def gray_levels(state: TrainState, batch: dict, keys: jax.Array) -> jax.Array:
    """Samples show their class as a gray level, and class 0 instead of classes from 30 on; untrained ones are black."""
    label = jnp.where(batch["label"] < 30, batch["label"], 0)
    noise = jax.vmap(lambda key: jax.random.normal(key, (8, 16, 16, 3)))(keys)
    gray = 4 * label[:, None, None, None, None] + state.params["generator"] * noise.clip(-1, 1)
    return jnp.where(state.params["generator"], gray, 0) / 127.5 - 1


def darker(state: TrainState, batch: dict) -> jax.Array:
    return (normalize(batch["video"]) - 2) / 3  # a third of every value of uint8


def eval_step(state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
    video = normalize(batch["video"])
    return Evaluated({"brightness": video.mean((1, 2, 3, 4))}, panels={"original": video})


def classes_of_gray(video: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Features [B,2], and logits [B,40] of the class that `gray_levels` shows."""
    levels = video.astype(np.float32).mean((2, 3, 4))
    features = np.stack([levels.mean(1), levels[:, 0] - levels[:, -1]], 1)
    return features, -np.abs(levels.mean(1)[:, None] / 4 - np.arange(40))


GENERATOR = Method(init, lambda state, batch: (state, {}), eval_step, sample=gray_levels)
TOKENIZER = GENERATOR._replace(sample=None, reconstruct=darker)
NEITHER = GENERATOR._replace(sample=None)


@pytest.fixture(name="scored")
def scored_fixture(tmp_path: Path, monkeypatch):
    """A function that runs the command on a method's run: the scores by metric, and the other fields of the file."""
    config = recipe("vqvae:tiny")
    config.condition = ConfigDict({"on": ("label",)})
    state = init(jax.random.key(0), {}).replace(params={"generator": jnp.ones(())})

    def scored(method: Method, *arguments: str) -> tuple[dict, dict]:
        monkeypatch.setattr(evaluate.run_lib, "load", lambda path: Run(config, method, state))
        output = tmp_path / "scores.json"
        assert evaluate.main([f"--num={COUNT}", "--workdir=x", f"--output={output}", *arguments]) == 0
        written = json.loads(output.read_text())
        return {score["metric"]: score for score in written.pop("scores")}, written

    return scored


@pytest.fixture(scope="module", name="clips")
def clips_fixture() -> dict[str, np.ndarray]:
    """Twice as many held-out clips as are evaluated, in the order of the command."""
    source = data.make_source(recipe("vqvae:tiny").data, "eval")
    with data.eval_batches(source, 2 * COUNT, 16, 2 * COUNT) as batches:
        return next(batches)


def test_samples_are_scored_by_a_classifier_beside_untrained_and_real_ones(scored, clips, monkeypatch) -> None:
    judge = of_classifier("a ruler", classes_of_gray)
    monkeypatch.setattr(evaluate, "load_classifier", lambda path, config, classes: judge)
    scores, _ = scored(GENERATOR, "--references", "--classifier=y")
    first, others = clips["video"][:COUNT], clips["video"][COUNT:]
    labels, other_labels = clips["label"][:COUNT], clips["label"][COUNT:]
    assert scores["asked"]["value"] == pytest.approx(np.mean((labels < 30) | (labels == 0)))
    assert scores["asked of untrained samples"]["value"] == pytest.approx(np.mean(labels == 0))
    predicted = classes_of_gray(others)[1].argmax(1)
    assert scores["asked of other real clips"]["value"] == pytest.approx(np.mean(predicted == other_labels))
    # Wilson: the shares from which the measured one lies 1.96 standard errors away.
    for share in scores["asked"]["interval"]:
        error = np.sqrt(share * (1 - share) / COUNT)
        assert abs(scores["asked"]["value"] - share) == pytest.approx(1.96 * error, rel=1e-6)
    assert "a ruler" in scores["asked"]["citation"] and "real" not in scores["asked"]["citation"]

    black = np.zeros_like(first)
    for name, features in (("frechet_classifier", lambda x: classes_of_gray(x)[0]), ("motion", motion_features)):
        for what, fake in (("untrained samples", black), ("other real clips", others)):
            expected = frechet_distance(statistics(features(first)), statistics(features(fake)))
            assert scores[f"{name} of {what}"]["value"] == pytest.approx(expected, rel=1e-3), (name, what)
    assert scores["frechet_classifier"]["fake"] == scores["frechet_classifier of other real clips"]["fake"] == COUNT
    assert "fake clips (samples)" in scores["motion"]["citation"]
    assert "fake clips (other real clips)" in scores["motion of other real clips"]["citation"]


def test_a_method_may_be_asked_for_other_labels_than_those_of_its_clips(scored, clips, monkeypatch) -> None:
    """Real clips show their own labels all the same."""
    judge = of_classifier("a ruler", classes_of_gray)
    monkeypatch.setattr(evaluate, "load_classifier", lambda path, config, classes: judge)

    def shifted(batch: dict) -> np.ndarray:
        return (batch["label"] + 1) % 40

    def next_gray_levels(state: TrainState, batch: dict, keys: jax.Array) -> jax.Array:
        return gray_levels(state, {**batch, "label": shifted(batch)}, keys)

    options = ("--references", "--classifier=y", "--metrics=asked")
    plain, _ = scored(GENERATOR, *options)
    found, _ = scored(GENERATOR._replace(sample=next_gray_levels, asked=shifted), *options)
    labels = (clips["label"][:COUNT] + 1) % 40
    assert found["asked"]["value"] == pytest.approx(np.mean((labels < 30) | (labels == 0)))
    assert found["asked of untrained samples"]["value"] == pytest.approx(np.mean(labels == 0))
    assert found["asked of other real clips"] == plain["asked of other real clips"]


def test_means_of_the_method_are_printed_and_written(scored, clips, capsys) -> None:
    scores, written = scored(GENERATOR)
    expected = (clips["video"][:COUNT] / 127.5 - 1).mean()
    assert written["heldout"] == {"brightness": pytest.approx(expected, rel=1e-4)} and list(scores) == ["motion"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["brightness", f"{written['heldout']['brightness']:.5g}"] in rows and ["held-out", "mean"] in rows


def test_a_mean_that_is_no_number_is_null(scored) -> None:
    def diverged(state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
        return Evaluated({"loss": jnp.full(len(batch["video"]), jnp.nan)})

    assert scored(NEITHER._replace(eval_step=diverged))[1]["heldout"] == {"loss": None}


def test_reconstructions_are_judged_where_there_are_no_samples(scored, clips) -> None:
    scores, _ = scored(TOKENIZER)
    assert list(scores) == ["motion", "psnr", "ssim"]
    video = clips["video"][:COUNT]
    dark = np.round(video / 3).astype(np.uint8)
    expected = frechet_distance(statistics(motion_features(video)), statistics(motion_features(dark)))
    assert scores["motion"]["value"] == pytest.approx(expected, rel=1e-3)
    assert scores["psnr"]["value"] == pytest.approx(np.mean(psnr(dark, video, data_range=255.0)), rel=1e-5)
    assert "fake clips (reconstructions)" in scores["motion"]["citation"]
    assert scores["psnr"]["generated"] == "reconstructions"


def test_sets_are_of_samples_and_pairs_of_reconstructions_where_there_are_both(scored) -> None:
    both, _ = scored(GENERATOR._replace(reconstruct=darker))
    assert both["motion"] == scored(GENERATOR)[0]["motion"] and both["psnr"] == scored(TOKENIZER)[0]["psnr"]
    assert both["motion"]["generated"] == "samples" and both["psnr"]["generated"] == "reconstructions"


def test_a_method_without_videos_has_its_means_alone(scored) -> None:
    scores, written = scored(NEITHER)
    assert scores == {} and list(written["heldout"]) == ["brightness"]


def translator(method: str, **data_fields: str) -> tuple[Method, data.Source, ConfigDict]:
    """A tiny one, and the source of its held-out clips."""
    config = recipe(f"{method}:tiny")
    config.data.update(data_fields)
    config = find_method(method).complete(config, data.make_source(config.data, "train"))
    return make_method(config), data.make_source(config.data, "eval"), config


@pytest.mark.parametrize(
    ("method", "fields", "truth"),
    [
        ("pix2pix", {}, True),
        ("cyclegan", {"layout": "two_sides"}, True),  # `truth` is there
        ("cyclegan", {"layout": "two_sides", "direction": "BtoA"}, False),
        ("stargan", {"layout": "domains", "label": "style"}, True),  # so it is here
        ("stargan", {"layout": "classes"}, False),
    ],
)
def test_translations_are_compared_where_the_true_ones_are_known(method: str, fields: dict, truth: bool) -> None:
    translating, source, config = translator(method, **fields)
    assert has_truth(translating, source) == truth
    run = Run(config, translating, init(jax.random.key(0), {}))
    assert evaluate.metrics_of_run([], run, False, truth) == [*(["psnr", "ssim"] if truth else []), "motion"]
    config.eval.metrics = ("psnr",)
    refusal = pytest.raises(ValueError, match="psnr compares translations with true ones, which these data lack: leave")
    with nullcontext() if truth else refusal:
        make_meter(config, 12, truth)


def test_references_without_videos_to_score_are_refused(scored, capsys) -> None:
    for method, metrics in ((NEITHER, ()), (TOKENIZER, ("--metrics=psnr",))):
        with pytest.raises(AssertionError):
            scored(method, "--references", *metrics)
        assert "--references scores videos by a metric of sets, such as motion" in capsys.readouterr().err


def test_metrics_of_videos_that_a_method_does_not_make_are_refused() -> None:
    mesh = parallel.make_mesh(jax.devices()[:1])
    for method, metric, sentence in (
        (GENERATOR, "psnr", "psnr compare reconstructions, and this method makes none"),
        (NEITHER, "motion", "motion judge samples or reconstructions, and this method makes neither"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Scorer(Meter([metric]), method, lambda: None, mesh)


def classifier_run(classes: tuple[str, ...]) -> Run:
    config = recipe("classifier:tiny")
    config.condition.classes = classes
    batch = {"video": np.zeros((2, 8, 16, 16, 3), np.uint8), "label": np.zeros(2, np.int32)}
    method = classifier.make(config)
    return Run(config, method, method.init(jax.random.key(0), batch))


def test_a_run_of_a_classifier_judges(monkeypatch) -> None:
    monkeypatch.setattr(evaluate.run_lib, "load", lambda path: classifier_run(LABELS["class"]))
    judge = evaluate.load_classifier("runs/classifier", recipe("vqvae:tiny"), LABELS["class"])
    assert judge.facts == {"weights": "a classifier of synthetic after 0 steps"}
    found = judge.extract(np.zeros((3, 8, 16, 16, 3), np.uint8))
    assert found["features"].shape[:2] == (3, 1) and found["classes"].shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data.frames": 12}, "trained with data.frames 8, and the run with 12"),
        ({"data.resolution": 32}, "trained with data.resolution 16, and the run with 32"),
        ({"data.stride": 2}, "trained with data.stride 1, and the run with 2"),
        ({}, "trained with classes left, right, and the run with square_left, "),
    ],
)
def test_a_classifier_of_other_clips_is_refused(fields, sentence, monkeypatch) -> None:
    config = recipe("vqvae:tiny")
    config.update_from_flattened_dict(fields)
    monkeypatch.setattr(evaluate.run_lib, "load", lambda path: classifier_run(("left", "right")))
    with pytest.raises(ValueError, match=sentence):
        evaluate.load_classifier("runs/classifier", config, LABELS["class"])


@pytest.mark.parametrize(("frames", "metrics"), [(8, ["psnr", "ssim", "motion"]), (1, ["psnr", "ssim"])])
def test_a_run_of_images_has_no_motion(frames: int, metrics: list[str]) -> None:
    config = recipe("vqvae:tiny")
    config.data.frames = frames
    run = Run(config, TOKENIZER, init(jax.random.key(0), {}))
    assert evaluate.metrics_of_run([], run, judged=False) == metrics
    assert ("motion" in evaluate.metrics_of_run([], run, judged=True)) == (frames > 1)


def test_what_a_run_cannot_be_scored_by_is_one_sentence(monkeypatch, capsys) -> None:
    config = recipe("vqvae:tiny")
    monkeypatch.setattr(evaluate.run_lib, "load", lambda path: Run(config, TOKENIZER, init(jax.random.key(0), {})))
    for arguments, sentence in (
        (["--workdir=x", "--classifier=x"], "is a run of vqvae: train one of the recipe classifier"),
        (["--workdir=x", "--metrics=asked"], "asked needs a trained classifier"),
        (["--workdir=x", "--references", "--num=40000"], "needs twice 40000 held-out clips: give --num=32768 or less"),
    ):
        assert evaluate.main(arguments) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--real=x", "--fake=y", "--classifier=z"])
    assert "--classifier goes with --workdir" in capsys.readouterr().err
