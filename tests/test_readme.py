"""What the README and the pages of docs/ show runs as it stands."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from conftest import ROOT

from jaxvid.command import COMMANDS
from jaxvid.config import default_workdir
from jaxvid.main import parse
from jaxvid.metrics import features, weights
from jaxvid.train import train

pytestmark = pytest.mark.xdist_group("readme")
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
README = PAGES[ROOT / "README.md"]
ALL = "\n".join(PAGES.values())
EXAMPLES = list(dict.fromkeys(re.findall(r"```python\n(.*?)```", ALL, re.DOTALL)))  # each once, though it stands twice


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader stands whose commands have trained two runs, here tiny ones."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("vqvae", "acgan"):
        (recipe,) = set(re.findall(rf"^jaxvid train --config ({name})$", ALL, re.MULTILINE))
        small = [f"--config.{field}" for field in ("train.steps=2", "eval.examples=8")]
        train(parse(["main", "--config", f"{recipe}:tiny", *small])[1], place / default_workdir(recipe))
    return place


class SmallI3D(nn.Module):
    """Stands for I3D, whose weights are nowhere without a download."""

    epsilon: float
    dtype: object

    @nn.compact
    def __call__(self, videos: jax.Array) -> dict[str, jax.Array]:
        return {"logits": nn.Dense(3)(videos).std((1, 2, 3))}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0])
def test_an_example_runs_as_it_is_printed(example: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    features._program.cache_clear()
    monkeypatch.setattr(features, "I3D", SmallI3D)
    params = SmallI3D(1e-3, None).init(jax.random.key(0), jax.numpy.zeros((1, 1, 1, 1, 3)))["params"]
    monkeypatch.setattr(weights, "load", lambda network: (params, None))
    scope: dict[str, Any] = {}
    exec(example, scope)
    if "encode(video)" in example:
        assert scope["indices"].shape == (1, 2, 4, 4) and scope["indices"].dtype == np.int32
        assert scope["reconstruction"].shape == scope["video"].shape == (1, 8, 16, 16, 3)
        assert jax.numpy.abs(scope["reconstruction"]).max() <= 1
    if "sample.draw" in example:
        assert scope["videos"].shape == (16, 8, 16, 16, 3) and scope["videos"].dtype == np.float32
    if "metrics.fvd" in example:
        assert 0 < scope["score"] < 1
    if "quantizer.codebook_size" in example:
        assert capsys.readouterr().out.split("\n")[:2] == ["(2, 4, 8, 8) 240", "(2,)"]
    if "make_step" in example:
        assert 0 < float(capsys.readouterr().out) < 10 and int(scope["state"].step) == 3


def test_every_command_that_is_named_is_there() -> None:
    """And the README names them all, as does `jaxvid`."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "jaxvid").rglob("*.py")
        if '\nif __name__ == "__main__"' in path.read_text()
    }
    assert {module for module, _ in COMMANDS.values()} == modules - {"jaxvid"}
    for text in PAGES.values():
        lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        named = {*re.findall(r"^jaxvid (\w+)", lines, re.MULTILINE), *re.findall(r"`jaxvid (\w+)[^`]*`", text)}
        assert named <= set(COMMANDS) and (text != README or named == set(COMMANDS))


def test_every_link_is_there() -> None:
    for page, text in PAGES.items():
        links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
        assert [link for link in links if not (page.parent / link).exists()] == [], page
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert all(f"pictures/{path.name})" in ALL for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 1_000_000


def test_scores_in_tables_are_those_of_the_recipes() -> None:
    """Of a recipe that the row links, or of that of the row before, whose variants follow."""
    checked = 0
    for page, text in PAGES.items():
        docstrings = ""
        for line in re.findall(r"^\|.*$", text, re.MULTILINE):
            recipes = re.findall(r"\]\((?:\.\./)?(configs/\w+\.py)\)", line)
            if recipes:
                docstrings = "".join(ast.get_docstring(ast.parse((ROOT / path).read_text())) for path in recipes)
            elif "| `:" not in line:
                continue
            scores = re.findall(r"\d+\.\d+", line)
            assert [score for score in scores if score not in docstrings] == [], (page, line)
            checked += len(scores)
    assert checked > 40


def test_the_check_of_a_folder_runs(shared: Path) -> None:
    command = [sys.executable, "-m", "jaxvid.data", str(shared / "data" / "videos"), "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "clips" in done.stdout
