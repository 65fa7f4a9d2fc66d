"""Cached tokens: the same ones as on the fly, and no others."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import cache, parallel, pretrained, tokenize
from jaxvid import run as run_lib
from jaxvid.data.pipeline import Clip
from jaxvid.data.records import write_records
from jaxvid.data.synthetic import Synthetic
from jaxvid.data.tokens import Tokens, write_tokens
from jaxvid.methods import vqvae
from jaxvid.train import prepare, train

pytestmark = pytest.mark.xdist_group("tokenize")
ON = ("text", "first_frames", "action")


class Part(Synthetic):
    """The first few of the synthetic clips."""

    def __len__(self) -> int:
        return 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Records of 24 clips, a tokenizer of them, and their tokens."""
    place = tmp_path_factory.mktemp("tokenize")
    for split in ("train", "eval"):
        write_records(Part(8, 16, split), str(place / "records" / split), shards=2)
    config = recipe("vqvae:tiny")
    config.data.update(name="records", path=str(place / "records"))
    config.train.steps, config.eval.examples = 2, 8
    train(config, place / "tokenizer")
    assert tokenize.main(words(place, "tokens", "--first_frames=2")) == 0
    return place


def words(folder: Path, output: str, *others: str) -> list[str]:
    return [f"--workdir={folder / 'tokenizer'}", f"--output={folder / output}", "--batch_size=8", *others]


def config_of(folder: Path, tokens: str = "", **fields) -> ConfigDict:
    """A prior on the tokenizer, trained for 4 steps; from cached tokens, where it names some."""
    config = recipe("transformer:tiny")
    config.tokenizer = pretrained.reference(str(folder / "tokenizer"))
    config.data.update(name="records", path=str(folder / "records"), tokens=str(folder / tokens) if tokens else "")
    config.condition.update(on=ON, first_frames=2)
    config.optim.schedule = "constant_schedule"
    config.train.update(steps=4, save_every=2)
    config.eval.examples = 8
    config.update_from_flattened_dict(fields)
    return config


def losses(workdir: Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def arrays(workdir: Path) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(jax.device_get(run_lib.load(workdir).state.params))]


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A run on cached tokens that was stopped after 2 steps, and resumed when the cache had moved."""
    train(config_of(folder, "tokens", **{"train.steps": 2}), folder / "cached")
    shutil.copytree(folder / "tokens", folder / "moved")
    train(config_of(folder, "moved"), folder / "cached")
    return folder / "cached"


def test_resumed_on_cached_tokens_a_prior_learns_the_same_as_from_videos(folder: Path, trained: Path, capsys) -> None:
    train(config_of(folder), folder / "plain")
    assert "cached tokens" not in capsys.readouterr().err
    assert len(losses(trained)) == 4 and losses(trained) == losses(folder / "plain")
    assert arrays(trained) == arrays(folder / "plain")


def test_the_share_of_differing_tokens_is_printed_at_the_start(folder: Path, trained: Path, capsys) -> None:
    train(config_of(folder, "moved"), trained)  # which is at its end
    printed = capsys.readouterr().err
    assert "cached tokens: 0.00% of 256 differ from those of the tokenizer now" in printed and "warning" not in printed


def test_records_hold_the_tokens_and_conditions_of_their_clips(folder: Path) -> None:
    run, source, tokens = run_lib.load(folder / "tokenizer"), Part(8, 16), Tokens(str(folder / "tokens"), 2)
    encode = vqvae.codec(run.config, run.state).encode
    assert len(tokens) == 24 and tokens.about["grid"] == [2, 4, 4] and tokens.about["codes"] == 32
    by_text = {str(source[index]["text"]): source[index] for index in range(24)}
    differ = 0
    for index in range(24):
        found, clip = tokens[index], by_text[str(tokens[index]["text"])]
        differ += int((np.asarray(encode(clip["video"][None]))[0] != found["tokens"]).sum())
        np.testing.assert_array_equal(found["first_frames"], clip["video"][:2])
        np.testing.assert_array_equal(found["action"], clip["action"])
        assert found["label"] == clip["label"] and not {"video", "input"} & found.keys()
    assert differ <= 2  # of 768, by rounding: another batch size


def test_a_number_of_clips_is_a_sample_and_more_than_there_are_repeats(folder: Path, capsys) -> None:
    for clips, distinct in (("5", 5), ("30", 24)):
        assert tokenize.main(words(folder, f"of{clips}", f"--clips={clips}", "--shards=2")) == 0
        tokens = Tokens(str(folder / f"of{clips}"))
        assert len(tokens) == int(clips)
        assert len({str(tokens[index]["text"]) for index in range(len(tokens))}) == distinct
    assert "wrote 30 clips of 2x4x4 tokens to" in capsys.readouterr().out


def rewritten(folder: Path, name: str, change) -> None:
    """The cache with `change` made to each (number, clip)."""
    tokens = Tokens(str(folder / "tokens"), 2)
    clips = (change(number, dict(tokens[number])) for number in range(len(tokens)))
    write_tokens((each for each in clips if each), tokens.about, str(folder / name))


def test_tokens_that_differ_are_counted(folder: Path, trained: Path) -> None:
    def change(number: int, clip: Clip) -> tuple[int, Clip]:
        clip["tokens"] = clip["tokens"].copy()
        clip["tokens"][0, 0, 0] ^= 1
        return number, clip

    rewritten(folder, "changed", change)
    job = prepare(config_of(folder, "changed"))
    state = jax.device_put(run_lib.load(trained).state, parallel.replicated(job.mesh))
    found = cache.compare(job.cache, job.config, state, job.mesh)
    assert found.startswith("cached tokens: 3.12% of 256 differ") and "warning: more than 1% is more than" in found


def test_clips_that_were_left_out_do_not_shift_the_others(folder: Path) -> None:
    rewritten(folder, "fewer", lambda number, clip: (number, clip) if number % 5 else None)
    found = prepare(config_of(folder, "fewer")).cache
    assert len(found.tokens) == 19
    for index in range(19):
        number = int(found.tokens.numbers[index])
        np.testing.assert_array_equal(found.tokens[index]["first_frames"], found.crops[number]["video"][:2])


def test_rows_that_only_fill_a_batch_are_no_clips() -> None:
    video = np.arange(6, dtype=np.uint8).repeat(2).reshape(6, 2, 1, 1, 1)
    batches = [{"video": video[i : i + 3], "mask": np.array([1, 0, 1]), "text": np.array(list("abc"))} for i in (0, 3)]
    found = list(tokenize.tokenized(batches, lambda video: video[:, :1, ..., 0] + 10, 1))
    assert [number for number, _ in found] == [0, 2, 3, 5]
    assert [clip["tokens"].item() for _, clip in found] == [10, 12, 13, 15]
    assert [(str(clip["text"]), clip["first_frames"].item()) for _, clip in found][2:] == [("a", 3), ("c", 5)]
    assert {name for _, clip in found for name in clip} == {"tokens", "text", "first_frames"}


@pytest.mark.parametrize(
    ("tokens", "fields", "sentence"),
    [
        ("nowhere", {}, "which is not there; cache them with `python -m jaxvid.tokenize --workdir .*tokenizer"),
        ("unfinished", {}, "which has no tokens.json: the command did not finish; cache them .* --first_frames 2`"),
        ("damaged", {}, "which cannot be read .*tokens.json is damaged"),
        ("foreign", {}, r"a cache of another tokenizer: .* at step 2 \(SHA-256 0000000000000000\), and not .*; cache"),
        ("tokens", {"data.holdout": 0.2}, "made with data.holdout 0.1, and the run has 0.2"),
        ("tokens", {"data.path": "fewer_records"}, "made of data of 24 clips, and the data have 23 clips; cache"),
        ("tokens", {"data.path": "other_records"}, "made of data of 24 clips, and .* have 24 clips, but not the same"),
        ("tokens", {"condition.first_frames": 3}, "which has 2 first frames, and condition.first_frames is 3"),
    ],
)  # fmt: skip
def test_what_is_no_cache_for_a_run_is_one_sentence(folder: Path, tokens: str, fields: dict, sentence: str) -> None:
    (folder / "unfinished.partial").mkdir(exist_ok=True)
    (folder / "damaged").mkdir(exist_ok=True)
    (folder / "damaged" / "tokens.json").write_text('{"format": 1}')
    shutil.copytree(folder / "tokens", folder / "foreign", dirs_exist_ok=True)
    about = json.loads((folder / "tokens" / "tokens.json").read_text())
    about["tokenizer"]["sha256"] = "0" * 64
    (folder / "foreign" / "tokens.json").write_text(json.dumps(about))
    for name, source in (("fewer_records", Fewer(8, 16)), ("other_records", Part(8, 24))):
        if not (folder / name).exists():
            shutil.copytree(folder / "records", folder / name)
            shutil.rmtree(folder / name / "train")
            write_records(source, str(folder / name / "train"), shards=2)
    fields = {name: str(folder / value) if isinstance(value, str) else value for name, value in fields.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=f"data.tokens is .*{tokens}, {sentence}"):
        prepare(config_of(folder, tokens, **fields))


class Fewer(Part):
    """One clip less."""

    def __len__(self) -> int:
        return 23


def test_a_method_without_a_tokenizer_reads_none(folder: Path) -> None:
    config = recipe("vqvae:tiny")
    config.data.tokens = str(folder / "tokens")
    with pytest.raises(ValueError, match="the method vqvae reads no tokens: leave it empty"):
        prepare(config)


def test_a_run_stays_with_its_cache(folder: Path, trained: Path) -> None:
    rewritten(folder, "less", lambda number, clip: (number, clip) if number else None)
    with pytest.raises(ValueError, match="train had 24 clips .* and has 23 clips .*; .* set data.tokens to what was"):
        train(config_of(folder, "less"), trained)


def test_what_the_command_cannot_do_is_one_sentence(folder: Path, capsys, monkeypatch) -> None:
    for line, sentence in (
        (words(folder, "tokens"), "tokens exists and is not empty: choose another path"),
        (words(folder, "new", f"--workdir={folder}"), "has no config.json"),
        (words(folder, "new", "--first_frames=9"), "first_frames is 9, and the clips have 8 frames"),
        (words(folder, "new", "--batch_size=9"), "batch_size is 9, which the 8 devices cannot share equally"),
        (words(folder, "new", "--label=color"), "data.label is 'color', which the source 'records' does not read"),
    ):
        assert tokenize.main(line) == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1] and not (folder / "new").exists()
    with pytest.raises(SystemExit):
        tokenize.main(words(folder, "new", "--clips=0"))
    assert "--clips is 0, expected at least 1" in capsys.readouterr().err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenize, "tokenized", interrupted)
    assert tokenize.main(words(folder, "new")) == 130 and not (folder / "new").exists()
    run = run_lib.load(folder / "tokenizer")
    monkeypatch.setattr(run_lib, "load", lambda workdir: run._replace(config=recipe("vae:tiny")))
    assert tokenize.main(words(folder, "new")) == 2
    assert "a run of the method vae, which makes no tokens" in capsys.readouterr().err
