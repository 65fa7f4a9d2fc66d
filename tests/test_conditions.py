"""Conditions from the config to the batch: filled in from the data, kept with the run, refused where they cannot be."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict
from PIL import Image

from jaxvid import conditions, sample, train
from jaxvid import config as config_lib
from jaxvid import run as run_lib
from jaxvid.core import Evaluated, Method, TrainState, new_state, normalize
from jaxvid.data import eval_batches
from jaxvid.data.synthetic import Synthetic
from jaxvid.evaluate import __main__ as evaluate
from jaxvid.files import write_json

CLASSES = ["cat_runs", "dog_runs", "dog_sleeps"]
TEXTS = ["A cat runs.", "a dog, running", "a dog sleeps on a sofa"]


class Pets:
    """Nine clips that know their texts."""

    attributes = ["brown", "old", "Asleep"]

    def __init__(self, classes: list[str] = CLASSES, texts: list[str] = TEXTS, actions: int = 2):
        self.classes, self.texts, self._actions = classes, texts, actions

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = {
            "video": np.full((4, 8, 8, 3), 20 * index, np.uint8),
            "label": np.asarray(index % 3, np.int32),
            "text": np.asarray(self.texts[index % 3]),
            "attributes": np.array([index % 2, index < 4, index % 3 == 2], np.float32),
        }
        motion = np.tile([0.25 * (-1) ** index, 0.0], (4, 1)).astype(np.float32)
        return clip | ({"action": motion} if self._actions else {})

    def summary(self) -> str:
        return "nine clips of pets"


def configured(*on: str, **fields) -> ConfigDict:
    config = config_lib.base()
    config.data.update(frames=4, resolution=8)
    config.condition = config_lib.condition(on, **fields)
    return config


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = str(tmp_path / "table.npz")
    np.savez(path, text=np.array(TEXTS), embedding=np.arange(12.0).reshape(3, 4))
    return path


def test_the_data_fill_in_what_the_config_leaves_open() -> None:
    config = configured("label", "text", "action")
    options = conditions.complete(config, Pets()).condition
    assert options.classes == tuple(CLASSES)
    assert options.vocabulary == ("a", "cat", "dog", "on", "running", "runs", "sleeps", "sofa")
    assert options.actions == 2 and options.action_scale == (0.25, 1.0)
    assert config.condition == config_lib.condition(("label", "text", "action"))
    again = config_lib.from_dict(config_lib.to_dict(conditions.complete(config, Pets())))
    assert again.condition.to_dict() == options.to_dict()
    assert not configured("label").condition.vocabulary
    without = config_lib.base()
    assert conditions.complete(without, Pets()) is without


@pytest.mark.parametrize(
    ("on", "source", "sentence"),
    [
        ("label", Pets(classes=["cat"]), '"label", which needs at least two classes.*nine clips'),
        ("text", Pets(texts=["", "...", ""]), '"text", which needs captions'),
        ("action", Pets(actions=0), '"action", which needs actions'),
        ("lable", Pets(), 'condition.on is "lable".*did you mean label'),
    ],
)
def test_a_source_without_what_a_condition_needs_is_refused(on: str, source: Pets, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        conditions.complete(configured(on), source)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"first_frames": 4}, "first_frames is 4, expected at least 1 and fewer than the 4"),
        ({"first_frames": 0}, "first_frames is 0"),
        ({"features": 0}, "features is 0"),
        ({"on": "label"}, "condition.on is 'label', expected a tuple"),
    ],
)
def test_fields_that_cannot_work_are_named(fields: dict, sentence: str) -> None:
    options = ConfigDict(config_lib.condition(("first_frames",)).to_dict() | fields)
    with pytest.raises(ValueError, match=sentence):
        conditions.check(options, frames=4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ("cat", "dog")),
        ("attributes", ("old",)),
        ("vocabulary", ("a", "cat")),
        ("actions", 3),
        ("action_scale", (1.0, 2.0)),
    ],
)
def test_what_the_data_decide_is_not_overwritten_in_silence(field: str, value) -> None:
    config = configured("label", "attributes", "text", "action", **{field: value})
    with pytest.raises(ValueError, match=rf"condition\.{field} is .* the training data have .*: leave it to them"):
        conditions.complete(config, Pets())
    found = conditions.complete(configured("label", "text", "action"), Pets())
    assert conditions.complete(found, Pets()).condition == found.condition  # the same again is no contradiction


def test_embeddings_that_cannot_be_read_are_named_by_their_field(tmp_path: Path) -> None:
    for path in (tmp_path / "nope.npz", tmp_path):
        with pytest.raises(ValueError, match=rf"condition.embeddings is {path}, which cannot be read \(.*\.npz with"):
            conditions.wrap(configured("text", embeddings=str(path)), Pets())
    (tmp_path / "broken.npz").write_text("words")
    with pytest.raises(ValueError, match="condition.embeddings: .*broken.npz is no .npz file with the arrays"):
        conditions.wrap(configured("text", embeddings=str(tmp_path / "broken.npz")), Pets())


def test_captions_are_shortened_in_training_alone(table: str) -> None:
    config = conditions.complete(configured("text", left_out=1.0), Pets(texts=["a cat, asleep"] * 3))
    lengths = [
        np.count_nonzero(conditions.wrap(config, Pets(texts=["a cat, asleep"] * 3), train)[0]["words"])
        for train in (True, False)
    ]
    assert lengths == [2, 3]
    with pytest.raises(ValueError, match="left_out is 1.5, expected a share"):
        conditions.check(config_lib.condition(("text",), left_out=1.5), frames=4)
    with pytest.raises(ValueError, match="left_out shortens texts, and condition.embeddings has whole ones"):
        conditions.check(config_lib.condition(("text",), left_out=0.5, embeddings=table), frames=4)


def test_a_misspelled_field_is_named() -> None:
    with pytest.raises(ValueError, match='"featurs".*did you mean features'):
        config_lib.condition(("label",), featurs=3)


def test_long_captions_are_cut_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="1 of 3 captions have more than the 3 words.*the longest has 6"):
        conditions.complete(configured("text", words=3), Pets())


def batch_of(config: ConfigDict, count: int = 3) -> dict[str, np.ndarray]:
    with eval_batches(conditions.wrap(config, Pets()), count, 8, count, threads=0) as batches:
        return next(batches)


def test_conditions_are_picked_out_of_a_batch_and_encoded(table: str) -> None:
    config = conditions.complete(configured("label", "text", "first_frames", "action", features=12), Pets())
    batch = batch_of(config)
    found = conditions.take(config.condition, batch)
    assert found.keys() == {"label", "words", "first_frames", "action"}
    names = ["", "?", *config.condition.vocabulary]
    spelled = [" ".join(names[token] for token in row if token) for row in found["words"]]
    assert spelled == [" ".join(text.lower().replace(",", "").strip(".").split()) for text in batch["text"].tolist()]
    np.testing.assert_allclose(found["first_frames"], batch["video"][:, :1] / 127.5 - 1, atol=1e-6)
    encoder = conditions.make_encoder(config.condition)
    encoded, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), found)
    assert encoded.vector.shape == (3, 12)
    other = configured("text", embeddings=table)
    assert conditions.complete(other, Pets()).condition.vocabulary == ()
    rows = conditions.take(other.condition, batch_of(other))["embedding"][:, 0] / 4
    assert rows.tolist() == [TEXTS.index(text) for text in batch["text"].tolist()]


def test_first_frames_in_the_batch_come_before_those_of_the_video() -> None:
    options = config_lib.condition(("first_frames",), first_frames=2)
    first = np.full((1, 2, 8, 8, 3), 255, np.uint8)
    found = conditions.take(options, {"video": np.zeros((1, 4, 8, 8, 3), np.uint8), "first_frames": first})
    assert found["first_frames"].shape == first.shape and (found["first_frames"] == 1).all()


def test_what_is_missing_is_named(table: str) -> None:
    with pytest.raises(ValueError, match='"text" needs "words" in the batch, which has video, label'):
        conditions.take(config_lib.condition(("text",)), {"video": np.zeros(1), "label": np.zeros(1)})
    with pytest.raises(ValueError, match="condition.classes is empty"):
        conditions.make_encoder(config_lib.condition(("label",)))
    with pytest.raises(ValueError, match="no embedding of 'a mouse'"):
        conditions.wrap(configured("text", embeddings=table), Pets(texts=[*TEXTS, "a mouse"]))


def trained(*on: str, **fields) -> ConfigDict:
    return conditions.complete(configured(*on, **fields), Pets())


def test_users_get_every_class_in_turn_or_those_they_name() -> None:
    labels = conditions.from_user(trained("label"), 5)["label"]
    assert labels.dtype == np.int32 and labels.tolist() == [0, 1, 2, 0, 1]
    assert conditions.from_user(trained("label"), 2)["label"].tolist() == [0, 1]
    assert conditions.from_user(trained("label"), 2, label="dog_runs")["label"].tolist() == [1, 1]
    assert conditions.from_user(trained("label"), 3, label=["dog_sleeps", "cat_runs"])["label"].tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["a,b"], [1]),
        (["a,b", "a"], [1, 0]),
        (["a,c"], [0, 2]),
        (["a", "c,"], [0, 2]),
        (["cre\u0300me, brûlée"], [3]),
        (["cr\u00e8me, brûlée", "c,a"], [3, 2, 0]),
    ],
)
def test_commas_on_the_command_line_separate_classes_but_where_they_are_in_a_name(given: list, labels: list) -> None:
    config = configured("label")
    config.condition.classes = ("a", "a,b", "c", "cr\u00e8me, brûlée")
    parser = argparse.ArgumentParser()
    conditions.add_arguments(parser)
    arguments = parser.parse_args([f"--label={each}" for each in given])
    values = conditions.from_arguments(arguments, config)
    assert conditions.from_user(config, len(labels), **values)["label"].tolist() == labels


def test_users_say_for_each_video_which_attributes_it_has() -> None:
    config = trained("attributes")
    assert config.condition.attributes == ("brown", "old", "Asleep")
    batch = batch_of(config)
    numbers = batch["video"][:, 0, 0, 0, 0] // 20
    expected = [Pets()[int(number)]["attributes"].tolist() for number in numbers]
    assert jnp.asarray(conditions.take(config.condition, batch)["attributes"]).tolist() == expected
    parser = argparse.ArgumentParser()
    conditions.add_arguments(parser)
    arguments = parser.parse_args(["--attributes", "Asleep, brown", "--attributes="])
    values = conditions.from_arguments(arguments, config)
    found = conditions.from_user(config, 3, **values)
    assert found["attributes"].dtype == np.float32
    assert found["attributes"].tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert conditions.captions(config, values, found) == {"attributes": ["brown, Asleep", "none", "brown, Asleep"]}
    for numbers in (np.array([True, False, True]), [True, False, True], [1, 0, 1], jnp.array([1.0, 0, 1])):
        given = conditions.from_user(config, 2, attributes=numbers)["attributes"]
        assert given.tolist() == [[1, 0, 1]] * 2 and given.dtype == np.float32


@pytest.mark.filterwarnings("ignore:1 of 3 captions")
def test_users_texts_become_the_words_of_training() -> None:
    config = trained("text", words=4)
    words = conditions.from_user(config, 2, text=TEXTS[0])["words"]
    assert words.dtype == np.int32 and words.tolist() == [[2, 3, 7, 0]] * 2
    with pytest.warns(UserWarning, match=r"reads them as unknown: catt \(nearest: cat\), jumps") as caught:
        found = conditions.from_user(config, 1, text="a catt jumps")
    assert found["words"].tolist() == [[2, 1, 1, 0]] and len(caught) == 1


def test_users_may_pass_embeddings_frames_and_actions(table: str) -> None:
    config = trained("text", "first_frames", "action", embeddings=table, first_frames=2)
    frames, action = np.zeros((3, 8, 8, 3), np.uint8), np.ones((2, 4, 2))
    found = conditions.from_user(config, 3, text=TEXTS[1], first_frames=frames, action=action)
    assert {name: (value.shape, str(value.dtype)) for name, value in found.items()} == {
        "embedding": ((3, 4), "float32"),
        "first_frames": ((3, 2, 8, 8, 3), "uint8"),
        "action": ((3, 4, 2), "float32"),
    }
    assert found["embedding"].tolist() == [[4, 5, 6, 7]] * 3
    other = conditions.from_user(config, 2, embedding=np.ones(4), first_frames=frames, action=action)
    assert other["embedding"].tolist() == [[1] * 4] * 2
    encoder = conditions.make_encoder(config.condition)
    jax.eval_shape(encoder.init, jax.random.key(0), conditions.take(config.condition, found))


@pytest.mark.parametrize(
    ("on", "values", "sentence"),
    [
        (("label",), {"label": "dog_run"}, 'no class "dog_run"; .* dog_runs, .*cat_runs'),
        (("label",), {"text": "a dog"}, "trained with label, and not with text: leave that out"),
        ((), {"label": "dog_runs"}, "trained without conditions, and not with label"),
        (("attributes",), {"attributes": "old,brwon"}, 'no attribute "brwon"; .* there are: brown, .*old'),
        (("attributes",), {}, r"trained with attributes: give some \(--attributes brown,old\)"),
        (("attributes",), {"attributes": np.ones(2)}, r"attributes is \[2\], expected \[3\]"),
        (("attributes",), {"attributes": [7, -3, 0]}, "attributes has values from -3 to 7, expected 1 for what"),
        (("attributes",), {"attributes": [None, "old", 1]}, "attributes holds object, .* expected finite numbers"),
        (("text",), {}, r"trained with texts: give one \(--text\)"),
        (("text",), {"text": "..."}, "without a word"),
        (("text",), {"embedding": np.ones(4)}, "trained with text, and not with embedding"),
        (("label",), {"label": ["dog_runs"] * 3}, "3 of label for 2 videos"),
        (("first_frames",), {"first_frames": np.zeros((1, 4, 8, 3))}, r"\[1, 4, 8, 3\], expected \[any, 8, 8, 3\]"),
        (("first_frames",), {"first_frames": np.zeros((0, 2, 8, 8, 3))}, r"is \[0, 2, 8, 8, 3\], which holds none"),
        (("first_frames",), {"first_frames": np.zeros((0, 2, 8, 8, 3), np.uint8)}, "which holds none"),
        (("action",), {"action": np.ones((0, 4, 2))}, r"action is \[0, 4, 2\], which holds none"),
        (("first_frames",), {"first_frames": np.full((1, 8, 8, 3), 200.0)}, r"beyond \[-1, 1\]"),
        (("action",), {"action": np.ones((3, 2))}, r"\[3, 2\], expected \[4, 2\]"),
        (("action",), {"action": np.full((4, 2), np.nan)}, "action holds float64, some of it not finite or not real"),
        (("action",), {"action": np.ones((4, 2), complex)}, "action holds complex128, .* expected finite numbers"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(on: tuple, values: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        conditions.from_user(trained(*on), 2, **values)


def test_fewer_first_frames_are_for_methods_that_ask_for_them() -> None:
    config = trained("first_frames")
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    most = config.condition.first_frames
    for count, sentence in ((0, r"trained with first_frames: give it \(--first_frames\)"), (most + 1, "")):
        found = conditions.from_user(config, 2, first_frames=frames[:count] if count else None)
        assert found["first_frames"].shape == (2, min(count, most), 8, 8, 3)
        assert conditions.take(config.condition, found, shorter=True)["first_frames"].shape[1] == min(count, most)
        if sentence:
            with pytest.raises(ValueError, match=sentence):
                conditions.take(config.condition, found)


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """A method that learns nothing, and fails where a condition is missing."""

    def init(key: jax.Array, batch: dict) -> TrainState:
        conditions.take(config.condition, batch)
        return new_state(key, {"nothing": jnp.zeros(())}, {})

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        taken = conditions.take(config.condition, batch)
        return state.replace(step=state.step + 1), {"loss": taken["words"].mean() + state.params["nothing"]}

    def eval_step(state: TrainState, batch: dict, key: jax.Array) -> Evaluated:
        conditions.take(config.condition, batch)
        return Evaluated(scalars={}, panels={"original": normalize(batch["video"])})

    return Method(init, train_step, eval_step, reconstruct=lambda state, batch: normalize(batch["video"]))


def test_a_run_keeps_its_conditions_and_is_evaluated_with_them(tmp_path: Path, capsys) -> None:
    config = recipe("vqvae:tiny")
    config.method = __name__
    config.train.steps = 2
    config.condition = config_lib.condition(("label", "text"))
    state = train.train(config, tmp_path)
    assert int(state.step) == 2
    run = run_lib.load(tmp_path)
    assert run.config.condition.classes[:2] == ("square_left", "square_right")
    found = conditions.from_user(run.config, 1, label="square_right", text="a red star")
    assert found["label"].tolist() == [1] and found["words"].min() == 0 and 1 not in found["words"]
    assert evaluate.main(["--workdir", str(tmp_path), "--metrics", "psnr", "--num", "8"]) == 0
    assert "psnr" in capsys.readouterr().out
    assert "yellow" not in (tmp_path / "report.html").read_text()  # late in a list that is cut
    train.train(config, tmp_path)  # goes on with the recipe, which leaves classes and words open


def test_a_job_holds_the_completed_config_and_words(tmp_path: Path) -> None:
    config = recipe("vqvae:tiny")
    config.condition = config_lib.condition(("label", "text"))
    job = train.prepare(config)
    assert len(job.config.condition.classes) == 40 and "purple" in job.config.condition.vocabulary
    with job.train_batches(0) as batches:
        assert next(batches)["words"].shape == (8, 24)
    with job.eval_batches() as batches:
        assert next(batches)["words"].shape == (8, 24)
    write_json(tmp_path / "config.json", config_lib.to_dict(job.config))
    run_lib.claim(tmp_path, train.prepare(config).config, {})
    kept = json.loads((tmp_path / "config.json").read_text())
    kept["condition"]["vocabulary"].remove("purple")
    write_json(tmp_path / "config.json", kept)
    with pytest.raises(ValueError, match=r"condition.vocabulary: the run has \['0'.*\.\.\. \(4\d in all\)") as error:
        run_lib.claim(tmp_path, job.config, {})
    assert len(str(error.value)) < 1000


class Pose(conditions.Condition):
    """Where the object is at first: two numbers of a clip."""

    help = ".npy [2] or [n,2]"

    def rows(self, value: np.ndarray | None, config: ConfigDict) -> list[np.ndarray]:
        return list(conditions.array_of(value, self.name, (2,)).astype(np.float32))


class Posed(Synthetic):
    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = super().__getitem__(index)
        return {**clip, "pose": clip["action"][0]}


def test_a_new_condition_is_one_entry_of_the_table(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(conditions.TABLE, "pose", Pose("pose"))
    source = functools.partial(Posed, 8, 16)
    monkeypatch.setattr(train.data, "make_source", lambda options, split: source(split=split))
    config = recipe("pixel_gan:tiny")
    config.condition, config.model.conditioning = config_lib.condition(("pose",)), "projection"
    config.train.steps, config.eval.examples = 2, 8
    train.train(config, tmp_path)
    np.save(tmp_path / "pose.npy", np.array([[0.0, 0.5], [0.5, 0.0]]))

    def videos(*arguments: str) -> np.ndarray:
        assert sample.main(["--workdir", str(tmp_path), "--num=2", *arguments]) == 0, capsys.readouterr().err
        return np.load(tmp_path / "generated" / "samples.npz")["video"]

    first = videos(f"--pose={tmp_path / 'pose.npy'}")
    np.save(tmp_path / "other.npy", np.array([0.0, 0.5]))
    second = videos(f"--pose={tmp_path / 'other.npy'}")
    assert (first[0] == second[0]).all() and (first[1] != second[1]).any()
    assert sample.main(["--workdir", str(tmp_path)]) == 2
    assert "trained with pose: give it (--pose)" in capsys.readouterr().err
    with pytest.raises(ValueError, match='"pose", which needs "pose" in the clips'):
        conditions.complete(config, Synthetic(8, 16))


def faces(folder: Path, count: int = 24) -> str:
    """Pictures that are bright or dark, red or gray, with CelebA's list of which is which."""
    rows = []
    for number in range(1, count + 1):
        bright, red = number % 2, number // 2 % 2
        shades = np.random.default_rng(number).integers(0, 60, (20, 16, 3)) + 130 * bright
        Image.fromarray((shades * (1, 1 - red, 1 - red)).astype(np.uint8)).save(folder / f"{number:06}.png")
        rows.append(f"{number:06}.jpg {2 * bright - 1} {2 * red - 1}")
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(count), "Bright Red", *rows]))
    return str(folder)


def test_a_gan_learns_attributes_of_pictures_and_is_asked_for_them(tmp_path: Path, capsys) -> None:
    (tmp_path / "faces").mkdir()
    config = recipe("pixel_gan:celeba_conditional")
    config.data.update(path=faces(tmp_path / "faces"), resolution=16)
    config.model.discriminators.video.update(widths=(8, 8), factors=((1, 2, 2), (1, 2, 2)))
    config.train.update(steps=60, batch_size=8)
    config.eval.update(every=60, optional=())
    config.optim.ema_decay = 0.9
    config.optim.schedule = "constant_schedule"
    train.train(config, tmp_path / "run")
    command = ["--workdir", str(tmp_path / "run"), "--num=4"]
    asked = ["--attributes=Bright", "--attributes=Bright,Red", "--attributes=", "--attributes=Red"]
    assert sample.main([*command, *asked]) == 0, capsys.readouterr().err
    made = np.load(tmp_path / "run" / "generated" / "samples.npz")
    assert made["attributes"].tolist() == ["Bright", "Bright, Red", "none", "Red"]
    red, _, blue = np.moveaxis(made["video"].astype(float).mean((1, 2, 3)), 1, 0)
    assert min(red[:2]) > max(red[2:]) + 50 and blue[0] > blue[1] + 50  # bright ones, and the gray one of them
    assert sample.main([*command, "--attributes=Bright,Rad"]) == 2
    assert 'There is no attribute "Rad"; the nearest of those there are: Red, Bright.' in capsys.readouterr().err
    config.data.layout = "classes"
    with pytest.raises(ValueError, match='condition.on has "attributes", which needs a list of .* data.layout=attrib'):
        train.prepare(config)
