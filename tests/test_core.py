import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvid import core


def state_of(params: dict, tx: optax.GradientTransformation) -> core.TrainState:
    return core.TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(0),
        params={"a": params, "b": params},
        opt_state={"a": tx.init(params), "b": tx.init(params)},
        collections={},
        ema={"a": params},
        extra={},
    )


def test_normalize_maps_bytes_to_the_unit_interval_and_leaves_floats() -> None:
    pixels = np.array([0, 51, 255], np.uint8)
    np.testing.assert_allclose(core.normalize(jnp.asarray(pixels)), [-1.0, 51 / 127.5 - 1, 1.0], rtol=1e-6)
    floats = jnp.array([-0.3, 0.7])
    assert core.normalize(floats) is floats


def test_apply_gradients_moves_one_player_and_returns_the_gradient_norm() -> None:
    tx = optax.sgd(0.1)
    state = state_of({"w": jnp.array([1.0, 2.0])}, tx)
    state, norm = core.apply_gradients(state, "a", {"w": jnp.array([3.0, 4.0])}, tx, None)
    np.testing.assert_allclose(state.params["a"]["w"], [0.7, 1.6], rtol=1e-6)
    np.testing.assert_allclose(state.params["b"]["w"], [1.0, 2.0])
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)


def test_ema_forgets_the_start_early_and_keeps_its_decay_late() -> None:
    tx = optax.sgd(0.1)
    state = state_of({"w": jnp.array([1.0])}, tx)
    state = state.replace(params={**state.params, "a": {"w": jnp.array([2.0])}})
    early = core.update_ema(state, "a", 0.9).ema["a"]["w"]
    late = core.update_ema(state.replace(step=jnp.array(1000)), "a", 0.9).ema["a"]["w"]
    np.testing.assert_allclose(early, 0.1 * 1.0 + 0.9 * 2.0, rtol=1e-6)
    np.testing.assert_allclose(late, 0.9 * 1.0 + 0.1 * 2.0, rtol=1e-6)


def test_sampled_params_prefers_the_average() -> None:
    state = state_of({"w": jnp.array([1.0])}, optax.sgd(0.1))
    assert core.sampled_params(state, "a") is state.ema["a"]
    assert core.sampled_params(state, "b") is state.params["b"]


def test_step_keys_differ_by_step_and_repeat() -> None:
    state = state_of({"w": jnp.array([1.0])}, optax.sgd(0.1))
    draws = [float(jax.random.normal(core.step_key(state.replace(step=jnp.array(s))))) for s in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
