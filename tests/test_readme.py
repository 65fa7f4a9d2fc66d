"""What the README shows runs as it stands."""

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

from jaxvid.config import default_workdir
from jaxvid.main import parse
from jaxvid.metrics import features, weights
from jaxvid.train import train

pytestmark = pytest.mark.xdist_group("readme")
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader of the README stands: a clone, in which its commands have trained two runs, here tiny ones."""
    place = tmp_path_factory.mktemp("readme")
    (place / "configs").symlink_to(ROOT / "configs")
    for name in ("vqvae", "acgan"):
        (command,) = set(re.findall(rf"python -m jaxvid.main (--config configs/{name}.py)$", README, re.MULTILINE))
        small = [f"--config.{field}" for field in ("train.steps=2", "eval.examples=8")]
        recipe = command.split()[1]
        train(parse(["main", "--config", f"{ROOT / recipe}:tiny", *small])[1], place / default_workdir(recipe))
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
    """In the README, and in what `python -m jaxvid` says."""
    listed = subprocess.run([sys.executable, "-m", "jaxvid"], cwd=ROOT, capture_output=True, text=True)
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "jaxvid").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert set(re.findall(r"python -m (jaxvid\.[\w.]*\w)", README)) == commands - {"jaxvid"}
    assert set(re.findall(r"python -m (jaxvid\.[\w.]*\w)", listed.stdout)) == commands - {"jaxvid"}
    assert listed.returncode == 0 and "`python -m jaxvid`" in README


def test_every_part_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_the_check_of_a_folder_runs(shared: Path) -> None:
    command = [sys.executable, "-m", "jaxvid.data", str(shared / "data" / "videos"), "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "clips" in done.stdout
