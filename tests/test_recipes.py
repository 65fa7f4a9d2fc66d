"""Every recipe, and every variant it names, makes a method."""

import ast
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT, recipe

from jaxvid import conditions
from jaxvid import config as config_lib
from jaxvid.core import make_method
from jaxvid.data.synthetic import Synthetic

NAMES = [
    f"{path.stem}:{variant}".rstrip(":")
    for path in sorted((ROOT / "configs").glob("*.py"))
    for variant in ["", *config_lib.recipe_module(path.stem).VARIANTS]
]


class StandIn(Synthetic):
    """Clips in place of data that are not there, with three attributes."""

    attributes = ["old", "gray", "asleep"]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {**super().__getitem__(index), "attributes": np.zeros(3, np.float32)}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_makes_a_method(name: str) -> None:
    config = recipe(name)
    config_lib.check(config, devices=1)
    source = StandIn(config.data.frames, config.data.resolution)
    config = conditions.complete(config, source)
    method = make_method(config)
    clip = conditions.wrap(config, source)[0]
    numbers = {name: value for name, value in clip.items() if value.dtype.kind in "biuf"}
    size = config.train.batch_size
    batch = {name: jax.ShapeDtypeStruct((size, *value.shape), value.dtype) for name, value in numbers.items()}
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    new_state, metrics = jax.eval_shape(method.train_step, state, batch)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert set(method.headline) <= metrics.keys() and all(value.shape == () for value in metrics.values())


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_the_variants_are_those_that_it_tells_of_and_accepts(path: Path) -> None:
    variants = set(config_lib.recipe_module(path.stem).VARIANTS)
    with pytest.raises(ValueError, match="expected one of") as error:
        recipe(f"{path.stem}:none")
    accepted = str(error.value).partition("expected one of ")[2].partition(";")[0].split(", ")
    told = set(re.findall(r"`:(\w+)`", ast.get_docstring(ast.parse(path.read_text()))))
    default = {"ema", "layered", "16", "class", "gated"}  # names of what comes without a variant
    assert variants == set(accepted) and variants - default == told


def test_every_recipe_has_a_tiny_variant() -> None:
    stems = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {name.partition(":")[0] for name in NAMES if name.endswith(":tiny")} == stems


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_begins_with_its_figures_and_reads_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    lines = ast.get_docstring(tree).splitlines()
    starts = [line.partition(":")[0] for line in lines[2:] if line and line[0] != " "][:5]
    assert starts == ["Command", "Device", "Time and memory", "Score", "Samples"] and not lines[1]
    helpers = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "config_lib"
    }
    assert helpers <= {"base", "optimizer", "condition", "tiny"}  # all other fields stand in the recipe


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="smal.*did you mean"):
        recipe("vqvae:smal")
