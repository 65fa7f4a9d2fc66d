"""Recipes as users name them: fields set from words, errors in a sentence, and a description of all fields."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import main, recipe
from jaxvid.config import flatten

TINY = "configs/vqvae.py:tiny"


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def config_of(*words: str, name: str = TINY) -> ConfigDict:
    return main.parse(["main", "--config", name, *words])[1]


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("train.steps=7", "train.steps", 7),
        ("data.fps=8", "data.fps", 8.0),
        ("optim.learning_rate=1e-4", "optim.learning_rate", 1e-4),
        ("optim.name=5", "optim.name", "5"),
        ("model.remat", "model.remat", True),
        ("model.remat=true", "model.remat", True),
        ("model.remat=False", "model.remat", False),
        ("model.downsample=(4,2,2)", "model.downsample", (4, 2, 2)),
        ("model.downsample=4,2,2", "model.downsample", (4, 2, 2)),
        ('eval.metrics=("fvd",)', "eval.metrics", ("fvd",)),
        ("eval.metrics=motion,fvd", "eval.metrics", ("motion", "fvd")),
        ("eval.metrics=fvd", "eval.metrics", ("fvd",)),
        ("eval.metrics=()", "eval.metrics", ()),
        ("optim.arguments.b1=0.5", "optim.arguments.b1", 0.5),
        ("optim.arguments.nesterov=true", "optim.arguments.nesterov", True),
        ("optim.arguments.mu_dtype=bfloat16", "optim.arguments.mu_dtype", "bfloat16"),
        ("optim.schedule_arguments.warmup_steps=3", "optim.schedule_arguments.warmup_steps", 3),
        ("optim.players.tokenizer.clip=2", "optim.players.tokenizer.clip", 2.0),
        ("optim.players.tokenizer.arguments.b1=0.5", "optim.players.tokenizer.arguments.b1", 0.5),
    ],
)
def test_a_field_takes_what_is_spelled_in_its_own_type(word: str, field: str, value: Any) -> None:
    found = flatten(config_of(f"--config.{word}"))[field]
    assert found == value and type(found) is type(value)


def test_a_field_may_stand_before_the_recipe_and_behind_a_space() -> None:
    for words in (["--config.train.steps=7", "--config", TINY], ["--config", TINY, "--config.train.steps", "7"]):
        assert main.parse(["main", *words])[1].train.steps == 7


def test_a_players_own_arguments_begin_with_those_of_all() -> None:
    config = config_of("--config.optim.players.generator.arguments.eps=1e-7", name="configs/gan3d.py:tiny")
    assert config.optim.players.generator.arguments.to_dict() == {"b1": 0.5, "b2": 0.99, "eps": 1e-7}
    assert config.optim.arguments.to_dict() == {"b1": 0.5, "b2": 0.99}
    assert config.optim.players.generator.schedule == "warmup_cosine_decay_schedule"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["configs/vqvae.py:tiny"], "given without its option: write --config configs/vqvae.py:tiny."),
        (["--config", TINY, "train.steps=5"], "did you mean --config.train.steps=5?"),
        (["--config", "configs/vqvae.py:smal"], 'is "smal", expected one of ema, .*did you mean'),
        (["--config", "jaxvid/names.py"], "is no recipe: it has no function get_config"),
        (["--config", TINY, "--config.train.steps"], "--config.train.steps: a value is missing"),
        (["--config", TINY, "--config.train.steps=1.5"], "steps=1.5: expected a whole number"),
        (["--config", TINY, "--config.model.remat=perhaps"], "expected true or false"),
        (["--config", TINY, "--config.model.downsample=(4,,4)"], "expected a tuple, such as"),
        (["--config", TINY, "--config.train=5"], "these are several fields, set one of them"),
        (["--config", TINY, "--config.optim.players.tokenizer.clip=wide"], "clip=wide: expected a number"),
        (
            ["--config", TINY, "--config.optim.players.tokenizer.clap=1"],
            "clap: no such field; the nearest is --config.",
        ),
        (
            ["--config", TINY, "--config.condition.on=label"],
            f"no such field in {TINY}: its method, vqvae, has no config.condition; configs/acgan.py has it",
        ),
        (
            ["--config", "configs/vqvae.py:fsq", "--config.model.quantizer.bits=8"],
            "quantizer.bits: no such field in configs/vqvae.py:fsq; configs/vqvae.py:lfq has it",
        ),
        (
            ["--config", "configs/gan3d.py", "--config.model.generator.motion=3"],
            "motion: no such field in configs/gan3d.py; configs/acgan.py has it",
        ),
        (["--config", "gan3d", "--config.model.generator.motion=3"], "motion: no such field in gan3d; acgan has it"),
        (
            ["--config", "vqvea:tiny"],
            r"--config vqvea is no recipe and no file: did you mean vqvae\? --config list shows",
        ),
        (["--config", "configs/gan_rn.py"], r"gan_rn.py is no recipe and no file: did you mean gan_rnn\?"),
        (["vqvae:tiny"], "given without its option: write --config vqvae:tiny."),
    ],
)
def test_a_wrong_command_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        main.parse(["main", *words])
    assert "\n" not in str(error.value)


HEAD = "from jaxvid import config\n\n\ndef get_config(variant=''):\n    c = config.base()\n"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "    c.data.frames = 'x'\n",
            "line 6, is a recipe that fails with TypeError: Could not override field 'frames'",
        ),
        ("    c.data.frames = 1 // 0\n", "line 6, .* fails with ZeroDivisionError: integer division or modulo by zero"),
        ("    assert not c\n", r"line 6, is a recipe that fails with AssertionError\."),
        ("    {}['a']\n", "fails with KeyError: 'a'"),
        ("    import nowhere\n", "fails with ModuleNotFoundError: No module named 'nowhere'"),
        ("    return c.train.step\n", "fails with AttributeError"),
        ("    raise RuntimeError('a\\nb')\n", "fails with RuntimeError: a b"),
        ("    raise SystemExit(3)\n", "line 6, is a recipe that fails with SystemExit: 3"),
        ("    '\0'\n", r"recipe\.py is no recipe in Python: .*null bytes"),
        ("    return None\n", "whose get_config returns no ConfigDict"),
        ("    raise ValueError('Choose one.')\n", "^Choose one.$"),
        ("    c.data.frames = (\n", "is no recipe in Python: line"),
    ],
)
def test_a_recipe_that_fails_is_one_sentence(body: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.py"
    path.write_text(f"{HEAD}{body}    return c\n")
    with pytest.raises(ValueError, match=sentence) as error:
        config_lib.recipe(str(path))
    assert "\n" not in str(error.value)


def test_only_recipes_are_run_where_a_field_is_looked_for(tmp_path: Path) -> None:
    name = str(tmp_path / "recipe.py")
    Path(name).write_text(f"{HEAD}    return c\n")
    (tmp_path / "a_script.py").write_text("raise SystemExit('It was run.')\n")
    (tmp_path / "broken.py").write_text("def get_config(): 1 / 0\n")
    with pytest.raises(ValueError, match="model.width: no such field; the nearest is"):
        recipe.set_field(config_lib.recipe(name), "model.width", "3", name)


def test_help_lists_the_fields_as_they_are_set_with_their_comments(capsys) -> None:
    assert main.main(["main", "--config", "configs/gan3d.py", "--config.train.steps=7", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    settings = [shlex.split(line.split("  ")[0])[0] for line in lines if line.lstrip("'").startswith("--config.")]
    config = config_lib.recipe("configs/gan3d.py")
    assert len(settings) == len(flatten(config)) and "--config.train.steps=7" in settings
    again = [word for word in settings if not word.endswith("NAME=VALUE") and not word.endswith("steps=7")]
    assert config_of(*again, name="configs/gan3d.py").to_dict() == config.to_dict()
    comments = recipe.comments("configs/gan3d.py")
    assert comments["model.generator.widths"] == "channels of the renderer's stages"
    assert comments["model.discriminators.frames.widths"] == "channels of the stages"  # of VIDEO, which it unpacks
    assert comments["model.discriminators.frames.frames"] == "of each video, judged in training"
    assert comments["loss.penalized"].startswith("every n-th video of a batch")
    assert (
        comments["train.batch_size"] == "over all devices" and comments["optim.clip"] == "global norm; 0: no clipping"
    )
    assert any(line.startswith("--config.train.batch_size=32") and line.endswith("over all devices") for line in lines)
    assert "configs/gan3d.py (variants: :dcgan, :64, :128, :wgan, :regularized, :tiny)" in lines
    assert recipe.comments("configs/acgan.py")["model.conditioning"].startswith('Of the discriminators: "none"')
    assert recipe.comments("configs/vae.py")["model.network.hidden"] == "features of a frame"


def test_a_recipe_has_a_name_wherever_one_stands(tmp_path: Path, monkeypatch) -> None:
    by_path = config_lib.recipe("configs/vqvae.py:prior").to_dict()
    monkeypatch.chdir(tmp_path)
    assert config_lib.recipe("vqvae:prior").to_dict() == by_path
    assert config_of(name="vqvae:tiny").to_dict() == config_of(name=str(ROOT / TINY)).to_dict()
    (tmp_path / "vqvae.py").write_text(f"{HEAD}    c.mine = True\n    return c\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("vqvae.py", Path("vqvae.py"), "~/vqvae.py"):
        assert config_lib.recipe(name).mine
    assert "mine" not in config_lib.recipe("vqvae")


@pytest.mark.parametrize(
    ("name", "workdir"),
    [("vqvae", "runs/vqvae"), ("vqvae:tiny", "runs/vqvae_tiny"), ("vqvae_flow:tiny", "runs/vqvae_flow_tiny")],
)
def test_a_run_lies_where_its_recipe_says(name: str, workdir: str) -> None:
    assert config_lib.default_workdir(name) == Path(workdir) and config_lib.recipe_of(workdir) == name
    path, _, variant = name.partition(":")
    assert config_lib.default_workdir(f"configs/{path}.py:{variant}") == Path(workdir)
    assert config_lib.recipe_of("elsewhere/vqvae") == ""


def test_recipes_are_listed_with_a_line_and_their_variants(capsys) -> None:
    assert main.main(["main", "--config", "list"]) == 0
    listed = capsys.readouterr().out
    assert main.main(["main"]) == 2
    out, error = capsys.readouterr()
    assert out == listed and error == "jaxvid: --config is missing: name one of these recipes.\n"
    names = [path.stem for path in sorted((ROOT / "configs").glob("*.py"))]
    first, *lines = listed.rstrip().split("\n")
    assert [line.split()[0] for line in lines[::2]] == names and max(map(len, lines)) <= 120
    vqvae = names.index("vqvae")
    assert lines[2 * vqvae].endswith("  Video VQ-VAE: clips to a small grid of codes and back")
    assert lines[2 * vqvae + 1].strip() == ":ema, :vq, :fsq, :lfq, :prior, :causal, :tiny, :ucf101"


def test_every_shared_field_has_a_comment() -> None:
    config = config_lib.base()
    config.optim, config.condition = config_lib.optimizer(1e-3), config_lib.condition()
    comments = recipe.comments("configs/gan3d.py")
    left = {"optim.name", "condition.vocabulary", "condition.features"}
    assert not {name for name in flatten(config) if name not in comments} - left


def test_help_without_a_recipe_says_what_there_is(capsys) -> None:
    assert main.main(["main", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("--config RECIPE", "--workdir DIR", "--distributed", "--help"))
