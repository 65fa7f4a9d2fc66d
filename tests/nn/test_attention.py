"""Axial attention against loops over rows of plain numpy; attention to all places, and its gradients, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.attention import AxialAttention, _fused_attention, attention, rotary_angles, rotated


def by_hand(params: dict, x: np.ndarray, heads: int, window: int = 100) -> np.ndarray:
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
                far = np.abs(np.subtract.outer(np.arange(len(scores)), np.arange(len(scores)))) > window
                scores[far & (axis == 1)] = -np.inf
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
                np.moveaxis(y, axis, 3)[place] += weights @ values[:, head] @ out[head]
    return y


@pytest.mark.parametrize("window", [None, 0, 2])
@pytest.mark.parametrize("frames", [1, 3, 10])  # few and many frames have forms of their own
def test_equals_numpy(frames, window):
    x = np.random.default_rng(0).normal(size=(2, frames, 2, 3, 6)).astype(np.float32)
    module = AxialAttention(heads=2, window=window)
    params = dict(jax.jit(module.init)(jax.random.key(0), x)["params"])
    params["bias"] = jnp.arange(6.0)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, by_hand(params, x, 2, 100 if window is None else window), atol=1e-4)


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


def attention_in_float64(queries, keys, values, gradient, causal):
    """The output and the gradients by queries, keys and values, from the whole matrix of weights."""
    scores = np.einsum("bnhd,bmhd->bhnm", queries, keys)
    if causal:
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    by_weights = np.einsum("bnhd,bmhd->bhnm", gradient, values)
    by_scores = weights * (by_weights - (weights * by_weights).sum(-1, keepdims=True))
    return (
        np.einsum("bhnm,bmhd->bnhd", weights, values),
        np.einsum("bhnm,bmhd->bnhd", by_scores, keys),
        np.einsum("bhnm,bnhd->bmhd", by_scores, queries),
        np.einsum("bhnm,bnhd->bmhd", weights, gradient),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (jnp.bfloat16, 0.02)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("count", [1, 3, 18])  # 18 is no multiple of the chunks, and 3 are fewer than they
def test_attention_and_its_gradients_are_those_of_float64(count, causal, dtype, tolerance):
    draw = np.random.default_rng(0).normal
    given = [np.asarray(draw(size=(2, count, 3, 5)), dtype) for _ in range(4)]
    given[0] *= 3  # weights that differ
    output, pull = jax.vjp(lambda *inputs: attention(*inputs, causal), *given[:3])
    found = output, *pull(jnp.asarray(given[3]))
    assert all(x.dtype == dtype for x in found)
    for x, right in zip(found, attention_in_float64(*(x.astype(np.float64) for x in given), causal), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), right, atol=tolerance * max(1, np.abs(right).max()))


@pytest.mark.parametrize(("dtype", "channels", "capability", "serves"), [
    (jnp.bfloat16, 66, 9.0, True), (jnp.float16, 128, 8.0, True), (jnp.bfloat16, 136, 9.0, False),
    (jnp.float32, 64, 9.0, False), (jnp.bfloat16, 64, 7.5, False), (jnp.bfloat16, 64, 0.0, False),
])  # fmt: skip
def test_the_fused_kernel_serves_16_bits_on_gpus_that_have_it(monkeypatch, dtype, channels, capability, serves) -> None:
    found = []
    monkeypatch.setattr("jaxvid.nn.attention.compute_capability", lambda: capability)
    monkeypatch.setattr("jaxvid.nn.attention._fused_attention", lambda *inputs: found.append(inputs[3:]) or inputs[0])
    x = jnp.ones((1, 4, 2, channels), dtype)
    jax.eval_shape(lambda x: attention(x, x, x, True), x)
    assert found == ([(True, "cudnn")] if serves else [])


@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_kernel_is_called_for_the_same_attention(causal) -> None:
    """By JAX's own form of that kernel, since CPUs have none; heads of 5 channels are padded to 8."""
    inputs = [jnp.asarray(np.random.default_rng(i).normal(size=(2, 7, 3, 5)), jnp.float32) for i in range(4)]
    found, expected = (
        (output, *pull(inputs[3]))
        for output, pull in (
            jax.vjp(lambda *inputs: _fused_attention(*inputs, causal, "xla"), *inputs[:3]),
            jax.vjp(lambda *inputs: attention(*inputs, causal), *inputs[:3]),
        )
    )
    for x, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, right, atol=1e-5)


def test_scores_far_apart_and_far_from_zero_do_not_overflow():
    queries = jnp.full((1, 4, 1, 1), 100.0)
    keys = jnp.array([-9.0, 9.0, 8.0, 9.0]).reshape(1, 4, 1, 1)
    values = jnp.arange(4.0).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(attention(queries, keys, values, True).ravel(), [0, 1, 1, 2], rtol=1e-6)
    gradients = jax.grad(lambda *inputs: attention(*inputs, True).sum(), (0, 1, 2))(queries, keys, values)
    assert all(np.isfinite(x).all() for x in gradients)


def test_rotated_products_depend_on_how_far_apart_places_are_in_each_axis() -> None:
    grid = (2, 3, 4)
    angles = rotary_angles(grid, 12).reshape(*grid, 6)
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 12))

    def product(at: tuple[int, int, int], to: tuple[int, int, int]) -> float:
        turned = rotated(query, angles[at][None]), rotated(key, angles[to][None])
        return float((turned[0] * turned[1]).sum())

    np.testing.assert_allclose(product((0, 1, 1), (0, 1, 1)), (query * key).sum(), rtol=1e-5)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        near = [product(at, tuple(np.add(at, step))) for at in ((0, 0, 0), (0, 1, 1), (0, 1, 2))]
        np.testing.assert_allclose(near, near[0], rtol=1e-4)
        assert abs(near[0] - product((0, 0, 0), (0, 0, 0))) > 1e-3
        assert abs(near[0] - product(tuple(step), (0, 0, 0))) > 1e-3  # the direction counts


def test_rotary_attention_needs_an_even_size() -> None:
    with pytest.raises(ValueError, match="heads of an even size, got 3"):
        rotary_angles((1, 2, 2), 3)
