import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

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


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vqvea", 'method is "vqvea", expected one of autoregressive, .*, vqvae.* did you mean vqvae'),
        ("", 'method is "", expected one of'),
        ("no.such.module", 'method is "no.such.module", expected one of .* a module on the Python path'),
        ("json", 'method is "json", and the module json has no function make'),
        ("jaxvid.methods.vae2", "expected one of"),
    ],
)
def test_a_method_that_there_is_not_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        core.find_method(name)


def test_a_module_is_found_by_a_dotted_name_and_its_own_faults_are_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "good.py").write_text(
        "from jaxvid.core import Method\ndef make(config, axis_name=None): return Method(*[config.model.width] * 3)"
    )
    (tmp_path / "lab" / "needs.py").write_text("import no_such_package")
    (tmp_path / "lab" / "faulty.py").write_text("def make(config, axis_name=None): return {}['typo']")
    config = ConfigDict({"method": "lab.good", "model": {"width": 8}})
    assert core.make_method(config).init == 8
    del config.model.width
    with pytest.raises(ValueError, match='the config lacks a field, width, that the method "lab.good" reads'):
        core.make_method(config)
    with pytest.raises(ValueError, match='method "lab.needs" cannot be imported: No module named .no_such_package'):
        core.find_method("lab.needs")
    with pytest.raises(KeyError, match="typo"):
        core.make_method(ConfigDict({"method": "lab.faulty"}))
