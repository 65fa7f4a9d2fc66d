"""Many devices: the mesh, train steps under jit and pmap, reductions over an optional axis, keys per example."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

AXIS = "data"  # the one mesh axis: examples of a batch
Tree = TypeVar("Tree")


def pmean(tree: Tree, axis_name: str | None) -> Tree:
    """Mean over the devices of a mapped axis; the identity for None, where jit's means are global by themselves."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def psum(tree: Tree, axis_name: str | None) -> Tree:
    """Sum over the devices of a mapped axis; the identity for None."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def example_keys(key: jax.Array, count: int, axis_name: str | None = None) -> jax.Array:
    """Keys [count], one per example of this device, folded from the example's global index.

    Noise drawn from them does not depend on how many devices share the batch.
    """
    first: Any = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))
