"""Axial attention against loops over rows of plain numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.attention import AxialAttention


def by_hand(params: dict, x: np.ndarray, heads: int) -> np.ndarray:
    """One line of places at a time: project, softmax, combine, and sum the three axes."""
    params, channels = jax.tree.map(lambda a: np.asarray(a, np.float64), params), x.shape[-1]
    y = np.zeros(x.shape) + params["bias"]
    for number, axis in enumerate((1, 2, 3)):
        matrices = params["query_key_value"].reshape(channels, 3, 3, channels)[:, number]
        out = params["output"].reshape(3, channels, channels)[number]
        lines = np.moveaxis(x, axis, 3)
        for place in np.ndindex(*lines.shape[:3]):
            queries, keys, values = (lines[place] @ matrices[:, i] for i in range(3))
            for head in np.split(np.arange(channels), heads):
                scores = queries[:, head] @ keys[:, head].T / np.sqrt(len(head))
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
                np.moveaxis(y, axis, 3)[place] += weights @ values[:, head] @ out[head]
    return y


@pytest.mark.parametrize("frames", [1, 3, 10])  # few and many frames have forms of their own
def test_equals_numpy(frames):
    x = np.random.default_rng(0).normal(size=(2, frames, 2, 3, 6)).astype(np.float32)
    module = AxialAttention(heads=2)
    params = dict(jax.jit(module.init)(jax.random.key(0), x)["params"])
    params["bias"] = jnp.arange(6.0)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, by_hand(params, x, 2), atol=1e-4)


def test_bfloat16_keeps_a_float32_softmax():
    """bfloat16 rounds what goes in and what comes out; the softmax in between is that of float32."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 3, 6)), jnp.bfloat16)
    module = AxialAttention(heads=2, dtype=jnp.bfloat16)
    params = jax.jit(module.init)(jax.random.key(0), x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    jaxpr = str(jax.make_jaxpr(module.apply)(params, x))
    exponentials = [line for line in jaxpr.splitlines() if " = exp " in line]
    assert len(exponentials) == 3 and all(":f32[" in line for line in exponentials)
    y = jax.jit(module.apply)(params, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), by_hand(params["params"], np.asarray(x, np.float64), 2), atol=0.1)


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="multiple of heads=4, got 6"):
        AxialAttention(heads=4).init(jax.random.key(0), jnp.ones((1, 2, 2, 2, 6)))
