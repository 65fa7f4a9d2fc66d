"""Every recipe, and every variant it names, makes a method."""

import re

import jax
import pytest
from conftest import ROOT, recipe

from jaxvid import conditions
from jaxvid import config as config_lib
from jaxvid.core import make_method
from jaxvid.data.synthetic import Synthetic

NAMES = [
    f"{path.stem}:{variant}".rstrip(":")
    for path in sorted((ROOT / "configs").glob("*.py"))
    for variant in ["", *re.findall(r"`:(\w+)`", path.read_text())]
]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_makes_a_method(name: str) -> None:
    config = recipe(name)
    config_lib.check(config, devices=1)
    source = Synthetic(config.data.frames, config.data.resolution)  # stands for data that are not there
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


def test_every_recipe_has_a_tiny_variant() -> None:
    stems = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {name.partition(":")[0] for name in NAMES if name.endswith(":tiny")} == stems


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="smal.*did you mean"):
        recipe("vqvae:smal")
