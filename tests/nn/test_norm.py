"""Normalization against Flax's own, values, gradients and running statistics, on one device and on eight."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.norm import BatchNorm, Deviation, GroupNorm, Normalization


def video(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(1.5, 2.0, shape), jnp.float32)


def affine(channels: int) -> dict[str, jax.Array]:
    return {"scale": video(1, channels), "bias": video(2, channels)}


def loss(y: jax.Array) -> jax.Array:
    """Weighs every entry differently: a plain sum of a normalized batch has no gradient."""
    return jnp.vdot(y, jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))


def assert_close(got, want):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(np.abs(b).max())), got, want
    )


def test_group_norm_equals_flax():
    x, params = video(0, 2, 3, 4, 4, 12), affine(12)

    def both(module):
        return jax.jit(jax.value_and_grad(lambda p, x: loss(module.apply({"params": p}, x)), (0, 1)))(params, x)

    assert_close(both(GroupNorm(4)), both(nn.GroupNorm(4)))


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_equals_flax(train):
    x, params = video(0, 4, 2, 3, 3, 6), affine(6)
    running = {"mean": video(3, 6), "var": jnp.abs(video(4, 6))}

    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(x)

    def run(module, params, running):
        def forward(params, x):
            y, new = module.apply({"params": params, "batch_stats": running}, x, train, mutable=["batch_stats"])
            return loss(y), new["batch_stats"]

        return jax.jit(jax.value_and_grad(forward, (0, 1), has_aux=True))(params, x)

    (value, new), (by_params, by_x) = run(BatchNorm(momentum=0.8), params, running)
    (expected, reference), (want_params, want_x) = run(Reference(), {"norm": params}, {"norm": running})
    assert_close((value, new, by_params, by_x), (expected, reference["norm"], want_params["norm"], want_x))


def test_batch_norm_on_eight_devices_equals_one():
    x, module = video(0, 16, 2, 3, 3, 6), BatchNorm(momentum=0.8)
    state = module.init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(state["batch_stats"]["mean"], 0.0)  # initializing is no training step

    def step(module, params, x, weights):
        def forward(params, x):
            y, new = module.apply({**state, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.vdot(y, weights), new["batch_stats"]

        return jax.grad(forward, (0, 1), has_aux=True)(params, x)

    params, weights = affine(6), video(5, *x.shape)
    (by_params, by_x), stats = jax.jit(step, static_argnums=0)(module, params, x, weights)
    shards = [a.reshape(8, 2, *a.shape[1:]) for a in (x, weights)]
    spread = jax.pmap(lambda *a: step(module.clone(axis_name="data"), *a), "data", in_axes=(None, 0, 0))
    (local_params, local_x), local_stats = spread(params, *shards)
    assert_close(jax.tree.map(lambda a: a.sum(0), local_params), by_params)
    assert_close(local_x.reshape(x.shape), by_x)
    for device in range(8):
        assert_close(jax.tree.map(lambda a, d=device: a[d], local_stats), stats)


@pytest.mark.parametrize("module", [GroupNorm(2), BatchNorm()])
def test_statistics_of_bfloat16_are_float32(module):
    """The bfloat16 numbers 1 to 1 + 1/64 have a spread that bfloat16 sums of 4,096 entries lose."""
    x = (1 + jnp.arange(2 * 4096 * 4).reshape(2, 4, 32, 32, 4) % 3 / 128).astype(jnp.bfloat16)
    arguments = () if isinstance(module, GroupNorm) else (True,)
    state = module.init(jax.random.key(0), x, *arguments)
    y, _ = module.apply(state, x, *arguments, mutable=["batch_stats"])
    expected, _ = module.apply(state, x.astype(jnp.float32), *arguments, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))
    assert module.clone(dtype=jnp.float32).apply(state, x, *arguments, mutable=["batch_stats"])[0].dtype == jnp.float32


def exact(x: np.ndarray, weights: np.ndarray, axes: tuple[int, ...], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """x normalized over the axes, and the gradient by x of its weighted sum, in float64."""
    centered = x - x.mean(axes, keepdims=True)
    deviation = np.sqrt(np.square(centered).mean(axes, keepdims=True) + epsilon)
    y = centered / deviation
    along = weights.mean(axes, keepdims=True) + y * (weights * y).mean(axes, keepdims=True)
    return y, (weights - along) / deviation


def relative(found: jax.Array, right: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - right) / np.linalg.norm(right))


LAYOUTS = {  # the axes of [4,2,16,16,8 groups,2] with one mean, and epsilon
    "group": ((1, 2, 3, 5), 1e-6),
    "batch": ((0, 1, 2, 3), 1e-5),
    "frame": ((2, 3), 1e-6),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_off_the_cpu_a_mean_of_100_deviations_costs_no_digits(kind, off_cpu):
    """As of a flat background. On CPU the same norms are off by 4e-4."""
    x, weights = np.random.default_rng(0).normal(size=(2, 4, 2, 16, 16, 8, 2)).astype(np.float32)
    x = 100 + x
    right = exact(x.astype(np.float64), weights.astype(np.float64), *LAYOUTS[kind])
    x, weights, *right = (array.reshape(4, 2, 16, 16, 16) for array in (x, weights, *right))
    module = Normalization(kind=kind)
    variables = module.init(jax.random.key(0), x[:1], True)

    def weighted(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, dict]]:
        y, changed = module.apply(variables, x, True, mutable=["batch_stats"])
        return jnp.vdot(y, weights), (y, changed)

    gradient, (y, changed) = jax.jit(jax.grad(weighted, has_aux=True))(x)
    assert relative(y, right[0]) < 1e-5 and relative(gradient, right[1]) < 1e-5
    for running in changed.get("batch_stats", {}).values():
        rows = x.astype(np.float64).reshape(-1, 16)
        np.testing.assert_allclose(running["mean"], 0.1 * rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(running["var"], 0.9 + 0.1 * rows.var(0), rtol=1e-5)


def test_off_the_cpu_a_sixteenth_of_the_rows_is_enough(off_cpu):
    """Where what is subtracted is as far from the mean as it can be, values and derivatives of second order."""
    x = np.random.default_rng(0).normal(0, 0.1, (1, 64, 1, 1, 2)).astype(np.float32)
    x[:, ::16] += 1  # all that is seen of it

    def results(module: nn.Module) -> list[jax.Array]:
        def normed(x: jax.Array) -> jax.Array:
            return module.apply({"params": affine(2)}, x)

        def steepness(x: jax.Array) -> jax.Array:
            return jnp.square(jax.grad(lambda x: loss(normed(x)))(x)).sum()

        return [normed(x), *jax.jit(jax.value_and_grad(steepness))(x)]

    for found, wanted in zip(*(results(each) for each in (GroupNorm(2), nn.GroupNorm(2))), strict=True):
        assert relative(found, np.asarray(wanted, np.float64)) < 1e-5


def test_group_norm_names_what_does_not_divide():
    with pytest.raises(ValueError, match="multiple of groups=4, got 6"):
        GroupNorm(4).init(jax.random.key(0), jnp.ones((1, 2, 2, 2, 6)))


def test_deviation_tells_a_batch_of_copies_from_one_of_strangers():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 3, 3, 4)), jnp.float32)
    variables = Deviation().init(jax.random.key(0), x, False)

    def seen(batch: jax.Array, train: bool) -> tuple[jax.Array, dict]:
        y, changed = Deviation().apply(variables, batch, train, mutable=["batch_stats"])
        np.testing.assert_array_equal(y[..., :-1], batch)
        assert len(np.unique(y[..., -1])) == 1
        return y[0, 0, 0, 0, -1], changed

    expected = np.asarray(x).std(0).mean()
    found, changed = seen(x, True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert seen(jnp.repeat(x[:1], 6, 0), True)[0] < 1e-3
    np.testing.assert_allclose(changed["batch_stats"]["deviation"], 0.1 * expected, rtol=1e-5)
    assert seen(x, False)[0] == 0  # what it remembers, not what the other examples are


def test_off_the_cpu_deviations_keep_their_digits(off_cpu):
    x = np.float32(100 + 0.1 * np.random.default_rng(0).normal(size=(32, 1, 2, 2, 4)))
    y, _ = Deviation().apply({"batch_stats": {"deviation": 0.0}}, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y[..., -1], x.astype(np.float64).std(0).mean(), rtol=1e-5)


def test_a_norm_of_frames_is_that_of_each_frame_and_channel():
    x = video(0, 2, 3, 4, 5, 6)
    params = {"scale": jnp.ones(6) * 2, "bias": jnp.ones(6)}
    y = Normalization(kind="frame").apply({"params": {"GroupNorm_0": params}}, x, train=True)
    mean, deviation = (np.asarray(f(np.asarray(x, np.float64), (2, 3), keepdims=True)) for f in (np.mean, np.std))
    np.testing.assert_allclose(y, 2 * (x - mean) / deviation + 1, rtol=1e-4, atol=1e-4)
