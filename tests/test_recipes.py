"""Every recipe, and every variant it names, makes a method."""

import re

import jax
import pytest
from conftest import ROOT, recipe

from jaxvid import config as config_lib
from jaxvid.methods import METHODS

NAMES = [
    f"{path.stem}:{variant}".rstrip(":")
    for path in sorted((ROOT / "configs").glob("*.py"))
    for variant in ["", *re.findall(r"`:(\w+)`", path.read_text())]
]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_makes_a_method(name: str) -> None:
    config = recipe(name)
    config_lib.check(config, devices=1)
    method = METHODS[config.method](config)
    size = (config.data.frames, config.data.resolution, config.data.resolution, 3)
    batch = {"video": jax.ShapeDtypeStruct((2, *size), "uint8"), "label": jax.ShapeDtypeStruct((2,), "int32")}
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    new_state, metrics = jax.eval_shape(method.train_step, state, batch)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert metrics["loss"].shape == ()


def test_every_recipe_has_a_tiny_variant() -> None:
    stems = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {name.partition(":")[0] for name in NAMES if name.endswith(":tiny")} == stems


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="smal.*did you mean"):
        recipe("vqvae:smal")
