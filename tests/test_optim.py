import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvid import config, optim


def options(learning_rate=0.1, **fields):
    return config.optimizer(learning_rate, **fields)


def test_a_decay_without_a_length_ends_with_the_run() -> None:
    schedule = optim.make_schedule(
        options(schedule="warmup_cosine_decay_schedule", schedule_arguments={"warmup_steps": 10}), steps=100
    )
    expected = optax.schedules.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 55, 100)], [expected(s) for s in (0, 5, 10, 55, 100)])


def test_a_length_given_in_the_config_stays() -> None:
    schedule = optim.make_schedule(
        options(schedule="linear_schedule", schedule_arguments={"end_value": 0.0, "transition_steps": 10}), steps=100
    )
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [0.1, 0.05, 0.0], atol=1e-7)


def test_lengths_between_0_and_1_are_shares_of_the_run() -> None:
    arguments = {"end_value": 0.0, "transition_begin": 0.5}
    schedule = optim.make_schedule(options(schedule="linear_schedule", schedule_arguments=arguments), steps=200)
    np.testing.assert_allclose([schedule(s) for s in (0, 100, 150, 200)], [0.1, 0.1, 0.05, 0.0], atol=1e-7)


def test_a_schedule_takes_the_place_of_another_by_its_name() -> None:
    arguments = {"end_value": 0.0, "transition_begin": 0.5}  # of linear_schedule
    schedule = optim.make_schedule(options(schedule="constant_schedule", schedule_arguments=arguments), steps=200)
    np.testing.assert_allclose([schedule(0), schedule(200)], [0.1, 0.1])


def test_accumulation_over_two_halves_equals_one_step_on_the_whole() -> None:
    params = jnp.array([1.0, -2.0])
    halves = [jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])]
    once = optim.make_optimizer(options(name="sgd", clip=0.0), 10)
    updates, _ = once.update((halves[0] + halves[1]) / 2, once.init(params), params)
    twice = optim.make_optimizer(options(name="sgd", clip=0.0, accumulate=2), 10)
    state = twice.init(params)
    first, state = twice.update(halves[0], state, params)
    second, state = twice.update(halves[1], state, params)
    np.testing.assert_array_equal(first, 0)
    np.testing.assert_allclose(second, updates, rtol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    tx = optim.make_optimizer(options(name="sgd", clip=1.0), 10)
    updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, [-0.06, -0.08], rtol=1e-6)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 7.0])
def test_clipping_equals_that_of_optax(norm: float) -> None:
    grads = {"a": norm * jnp.array([0.6, 0.0]), "b": norm * jnp.array([[0.8]])}
    results = []
    for tx in (optim.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)):
        results.append(tx.update(grads, tx.init(grads))[0])
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), *results)


def test_ema_decay_is_per_optimizer_step() -> None:
    assert optim.ema_decay(options(ema_decay=0.81, accumulate=2)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "adamm"}, 'optim.name is "adamm".*nearest is "adam'),
        ({"name": "global_norm"}, 'optim.name is "global_norm"'),
        ({"schedule": "polynomial_schedule"}, 'polynomial_schedule needs "end_value"'),
        ({"schedule": "cosine_decay"}, "nearest is .cosine_decay_schedule"),
        ({"arguments": {"beta1": 0.9}}, 'optim.name adam has no argument "beta1"; the nearest is "b1"'),
        ({"arguments": {"b1": "x"}}, "optim.name adam needs more than gradients.*or other arguments than {'b1': 'x'}"),
        ({"schedule": "cosine_decay_schedule", "schedule_arguments": {"decay_steps": "x"}}, "cannot work with the arg"),
        ({"schedule_arguments": {"end_valu": 0.0}}, 'constant_schedule has no argument "end_valu"'),
        ({"accumulate": 0}, "optim.accumulate is 0"),
        ({"learning_rate": float("nan")}, "optim.learning_rate is nan"),
        ({"learning_rate": float("inf")}, "optim.learning_rate is inf"),
        ({"name": "lbfgs"}, "optim.name lbfgs needs more than gradients"),
        ({"clip": -1.0}, "optim.clip is -1.0"),
        ({"ema_decay": 1.0}, "optim.ema_decay is 1.0"),
    ],
)
def test_what_optax_does_not_have_is_named(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        optim.make_optimizer(options(**fields), 10)


def test_a_player_differs_in_its_own_fields_alone() -> None:
    players = {"critic": {"learning_rate": 0.3, "accumulate": 2, "ema_decay": 0.25}}
    made = optim.make_optimizers(options(name="sgd", players=players), {"actor": 10, "critic": 20})
    gradient = jnp.array([0.6, 0.8])
    first, state = made["critic"].update(gradient, made["critic"].init(gradient), gradient)
    np.testing.assert_array_equal(first, 0)
    np.testing.assert_allclose(made["critic"].update(gradient, state, gradient)[0], -0.3 * gradient, rtol=1e-6)
    actor = made["actor"].update(gradient, made["actor"].init(gradient), gradient)[0]
    np.testing.assert_allclose(actor, -0.1 * gradient, rtol=1e-6)
    assert optim.ema_decay(options(players=players), "critic") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("players", "sentence"),
    [
        ({"critc": {}}, "a player in optim.players is .critc.* did you mean critic"),
        ({"critic": {"rate": 0.1}}, "a field of optim.players.critic is .rate.* did you mean"),
        ({"critic": {"players": {}}}, "a field of optim.players.critic is .players"),
        ({"critic": {"learning_rate": -1.0}}, "optim.players.critic.learning_rate is -1.0"),
        ({"critic": {"name": "adamm"}}, "optim.players.critic.name is .adamm"),
        ({"critic": {"schedule": "cosine"}}, "optim.players.critic.schedule is .cosine"),
    ],
)
def test_what_no_player_can_have_is_named_where_it_stands(players: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        optim.make_optimizers(options(players=players), {"actor": 10, "critic": 10})


def test_the_optimizer_runs_under_jit() -> None:
    tx = optim.make_optimizer(options(schedule="cosine_decay_schedule", accumulate=2), 10)
    params = jnp.ones(3)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates.shape == (3,)
