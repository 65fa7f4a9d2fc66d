"""What is installed: a wheel, which in an empty folder trains, reconstructs and evaluates by the command `jaxvid`."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, ROOT

import jaxvid

pytestmark = pytest.mark.xdist_group("wheel")
CITATION = (ROOT / "CITATION.cff").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this clone."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (found,) = folder.glob("jaxvid-*.whl")
    return found


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory) -> Path:
    """The `bin` of a fresh environment in which the wheel is installed.

    What it depends on is found where the tests find it, less what an editable install of the clone adds there: a folder
    that a .pth file names has its own .pth files left unread.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder)})
    scripts, packages = Path(paths["scripts"]), Path(paths["purelib"])
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*pip, str(wheel)], env=alone(), check=True)
    return scripts


def alone() -> dict[str, str]:
    """The variables of a user who has no clone, and one device."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NPROC")} | {"XLA_FLAGS": QUICK}


def run(command: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([command, *words], cwd=cwd, env=alone(), capture_output=True, text=True, timeout=300)


def test_it_holds_the_package_its_recipes_and_its_license_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(f"jaxvid-{jaxvid.__version__}.dist-info/METADATA").decode()
    source = {path.relative_to(ROOT) for path in (ROOT / "jaxvid").rglob("*") if path.suffix in (".py", ".html")}
    recipes = {Path("jaxvid", "configs", path.name) for path in (ROOT / "configs").glob("*.py")}
    held = {Path(name) for name in names if name.startswith("jaxvid/")}
    assert held == source | recipes | {Path("jaxvid/py.typed")}
    assert {name.partition("/")[0] for name in names} == {"jaxvid", f"jaxvid-{jaxvid.__version__}.dist-info"}
    assert f"jaxvid-{jaxvid.__version__}.dist-info/licenses/LICENSE" in names
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE)} == {*extras}
    assert re.findall(r"^version: (.*)$", CITATION, re.MULTILINE) == [jaxvid.__version__]


def test_its_page_on_pypi_links_to_files_of_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        _, page = file.read(f"jaxvid-{jaxvid.__version__}.dist-info/METADATA").decode().split("\n\n", 1)
    pattern = r"(!?)\[[^\]]*\]\(([^)#]+)"
    repository = "https://github.com/jaxvid/jaxvid"
    expected = [
        (mark, link if link.startswith("http") else f"{repository}/{'raw' if mark else 'blob'}/main/{link}")
        for mark, link in re.findall(pattern, (ROOT / "README.md").read_text())
    ]
    assert re.findall(pattern, page) == expected and len(expected) > 40


def test_in_an_empty_folder_it_trains_reconstructs_and_evaluates(commands: Path, tmp_path: Path) -> None:
    code = "import jaxvid, sys; print(jaxvid.__file__, *sys.path, sep='\\n')"
    imported, *path = run(commands / "python", "-c", code, cwd=tmp_path).stdout.splitlines()
    assert Path(imported).is_relative_to(commands.parent) and str(ROOT) not in path

    small = [f"--config.{field}" for field in ("train.steps=2", "eval.examples=8", "eval.videos=2")]
    trained = run(commands / "jaxvid", "train", "--config", "vqvae:tiny", *small, cwd=tmp_path)
    assert trained.returncode == 0 and "Finished at step 2" in trained.stderr, trained.stderr
    workdir = "runs/vqvae_tiny"
    np.save(tmp_path / "clip.npy", np.zeros((8, 16, 16, 3), np.uint8))
    words = ("--workdir", workdir, "--mode", "reconstruct", "--video", "clip.npy")
    sampled = run(commands / "jaxvid", "sample", *words, cwd=tmp_path)
    assert sampled.returncode == 0 and len([*(tmp_path / workdir / "generated").iterdir()]) == 4, sampled.stderr
    words = ("--workdir", workdir, "--metrics", "psnr", "--num", "8", "--output", "scores.json")
    evaluated = run(commands / "jaxvid", "evaluate", *words, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "psnr" in json.dumps(json.loads((tmp_path / "scores.json").read_text())["scores"])


def test_what_is_typed_wrong_is_answered_in_one_sentence(commands: Path, tmp_path: Path) -> None:
    wrong = run(commands / "jaxvid", "sampel", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "did you mean jaxvid sample?" in wrong.stderr
    wrong = run(commands / "jaxvid", "train", "--config", "configs/vqvae.py", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "did you mean vqvae?" in wrong.stderr
