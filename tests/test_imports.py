"""Imports point one way: a file imports only from rooms to its left."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "jaxvid"
# Each room may import the rooms of the rows above, and what stands to its left in its own row.
ROWS = [
    ["names", "files", "shapes", "pixels", "parallel", "core", "config"],
    ["nn", "losses", "optim", "data", "metrics", "images", "report", "writer", "progress"],
    ["models"],
    ["methods"],
    ["checkpoint", "command"],
    ["recorder", "evaluate", "train", "sample"],
    ["main"],
]
LEAVES = {"names", "files", "shapes", "pixels"}  # every room may import them
ALONE = {"data", "metrics"}  # taken by other research code without the rest
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxvid":
            names |= {f"jaxvid.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("jaxvid.")}


def allowed(name: str) -> set[str]:
    if name in ALONE:
        return {name} | LEAVES
    index = next(i for i, row in enumerate(ROWS) if name in row)
    above = {room for row in ROWS[:index] for room in row}
    return above | set(ROWS[index][: ROWS[index].index(name) + 1])


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py" or p.parent != ROOT], ids=str)
def test_a_file_imports_only_from_its_left(path: Path) -> None:
    assert imported_rooms(path) <= allowed(room(path))


def test_models_know_no_config_loss_or_optimizer() -> None:
    found = {path.name: imported_rooms(path) - {"nn", "models"} - LEAVES for path in FILES if room(path) == "models"}
    assert found and not any(found.values())


def test_neither_torch_nor_tensorflow_is_imported() -> None:
    code = "import sys, jaxvid.main; print(sorted({'torch', 'tensorflow'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"


def test_data_comes_without_jax() -> None:
    code = "import sys, jaxvid.data; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "False"
