"""What the README shows runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from conftest import ROOT, recipe

from jaxvid.metrics import features, weights
from jaxvid.train import train

pytestmark = pytest.mark.xdist_group("readme")
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory, gan_run) -> dict:
    """What the examples take for granted: trained runs in runs/vqvae and runs/acgan, a config, and videos."""
    config = recipe("vqvae:tiny")
    config.train.update(steps=2, batch_size=8)
    config.eval.examples = 8
    folder = tmp_path_factory.mktemp("readme")
    train(config, folder / "runs" / "vqvae")
    (folder / "runs" / "acgan").symlink_to(gan_run)
    video = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    real, fake = np.random.default_rng(1).integers(0, 256, (2, 8, 9, 16, 16, 3), np.uint8)
    return {"config": config, "video": video, "folder": folder, "real": real, "fake": fake}


class SmallI3D(nn.Module):
    """Stands for I3D, whose weights are nowhere without a download."""

    epsilon: float
    dtype: object

    @nn.compact
    def __call__(self, videos: jax.Array) -> dict[str, jax.Array]:
        return {"logits": nn.Dense(3)(videos).std((1, 2, 3))}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[0])
def test_an_example_runs(example: str, names: dict, monkeypatch) -> None:
    monkeypatch.chdir(names["folder"])
    features._program.cache_clear()
    monkeypatch.setattr(features, "I3D", SmallI3D)
    params = SmallI3D(1e-3, None).init(jax.random.key(0), jax.numpy.zeros((1, 1, 1, 1, 3)))["params"]
    monkeypatch.setattr(weights, "load", lambda network: (params, None))
    scope = dict(names)
    exec(example, scope)
    if "encode(video)" in example:
        assert scope["indices"].shape == (2, 2, 4, 4) and scope["indices"].dtype == np.int32
        assert scope["reconstruction"].shape == names["video"].shape
        assert jax.numpy.abs(scope["reconstruction"]).max() <= 1
    if "sample.draw" in example:
        assert scope["videos"].shape == (16, 8, 16, 16, 3) and scope["videos"].dtype == np.float32
    if "metrics.fvd" in example:
        assert 0 < scope["score"] < 1


def test_every_part_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_the_check_of_a_folder_runs(shared: Path) -> None:
    command = [sys.executable, "-m", "jaxvid.data", str(shared / "data" / "videos"), "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "clips" in done.stdout
