"""States of which every device keeps a part: what that saves, and what it may not cost."""

import math
import re

import jax
import numpy as np
import pytest
from conftest import recipe

from jaxvid import conditions, config, data, parallel
from jaxvid.core import TrainState, make_method

ROWS = parallel.AXIS


def bytes_per_device(abstract: TrainState, shardings: TrainState) -> int:
    """Of a state, by the shapes of its shards."""
    leaves = zip(jax.tree.leaves(abstract.replace(key=abstract.step)), jax.tree.leaves(shardings), strict=True)
    return sum(math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, sharding in leaves)


def test_a_device_keeps_half_of_a_gan_and_its_step_moves_no_activations() -> None:
    options = recipe("gan3d:tiny")
    del options.model.discriminators.frames  # half of what is to be compiled
    source = data.make_source(options.data, "train")
    options = conditions.complete(options, source)
    clip = conditions.wrap(options, source)[0]
    batch = {
        name: jax.ShapeDtypeStruct((8, *value.shape), value.dtype)
        for name, value in clip.items()
        if np.asarray(value).dtype.kind in "biuf"
    }
    method, mesh = make_method(options), parallel.make_mesh(jax.devices()[:4])
    abstract = jax.eval_shape(method.init, jax.random.key(0), batch)
    whole, parts = (parallel.state_sharding(abstract, mesh, shard) for shard in (False, True))
    assert bytes_per_device(abstract, parts) <= 0.55 * bytes_per_device(abstract, whole)
    lowered = parallel.make_step(method.train_step, mesh, state=parts).lower(abstract, batch)
    program = lowered.compile(compiler_options={"xla_backend_optimization_level": 0}).as_text()
    moves = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    found = set(re.findall(rf" ({moves})(?:-start)?\(", program))
    assert found and found <= {"all-reduce", "all-gather", "reduce-scatter"}


def test_the_largest_axis_that_the_devices_can_share_is_distributed() -> None:
    shapes = {
        "kernel": (3, 3, 8, 16),
        "square": (32, 32),
        "odd": (333, 6),
        "scalar": (),
        "small": (8, 8),
        "long": (131, 4),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    state = TrainState(*[{"player": tree}] * 7)
    found = parallel.state_sharding(state, parallel.make_mesh(jax.devices()[:4]), True)
    specs = {name: tuple(sharding.spec) for name, sharding in found.ema["player"].items()}
    assert specs == {
        "kernel": (None, None, None, ROWS),
        "square": (ROWS,),
        "odd": (),
        "scalar": (),
        "small": (),
        "long": (None, ROWS),
    }
    assert found.opt_state == found.ema
    kept = (found.params, found.collections, found.extra)
    assert all(not sharding.spec for sharding in jax.tree.leaves(kept))


def test_devices_of_a_mesh_come_in_the_order_of_their_processes() -> None:
    assert list(parallel.make_mesh(jax.devices()[::-1]).devices.flat) == jax.devices()[::-1]  # all of one process
    assert [parallel.local_mesh(rows).size for rows in (1, 6, 8, 12, 40, 7)] == [1, 6, 8, 6, 8, 7]


def test_pmap_keeps_whole_states() -> None:
    options = recipe("vqvae:tiny")
    options.train.update(shard=True, parallel="pmap")
    with pytest.raises(ValueError, match='train.shard needs train.parallel "jit"'):
        config.check(options, 8)
