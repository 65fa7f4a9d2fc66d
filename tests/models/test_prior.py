"""Networks over tokens: what each place depends on, by gradients, and the same places one after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models.prior import Context, Prior, joined
from jaxvid.models.transformer import Transformer
from jaxvid.nn.condition import ConditionEncoder

GRID = (3, 3, 2)
PLACES = 18
WIDTH = 16
NETWORKS = {"transformer": lambda: Transformer(layers=2, heads=2)}


@pytest.fixture(params=NETWORKS, name="network")
def network_fixture(request):
    return NETWORKS[request.param]()


def shaken(variables):
    """Parameters that are all random, since those that start at zero hide what depends on what."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def context(batch: int = 2) -> Context:
    places = jax.random.normal(jax.random.key(1), (batch, *GRID, WIDTH))
    words = jax.random.normal(jax.random.key(3), (batch, 4, 8))
    return Context(places, jax.random.normal(jax.random.key(2), (batch, 8)), words, jnp.ones((batch, 4), bool))


def reach(network) -> np.ndarray:
    """bool [N,N]: whether the features at place i depend on the token at place j."""
    embedded = jax.random.normal(jax.random.key(0), (1, *GRID, WIDTH))
    given = context(1)
    variables = shaken(network.init(jax.random.key(0), embedded, given))

    def features(x):
        return network.apply(variables, x, given).reshape(PLACES, WIDTH).sum(-1)

    gradients = jax.jacobian(features)(embedded).reshape(PLACES, PLACES, WIDTH)
    return np.abs(gradients).max(-1) > 0


def test_no_place_sees_itself_or_a_later_one_and_each_sees_all_before_it(network) -> None:
    np.testing.assert_array_equal(reach(network), np.tri(PLACES, k=-1, dtype=bool))


def test_place_by_place_the_features_are_those_of_all_at_once(network) -> None:
    embedded, given = jax.random.normal(jax.random.key(0), (2, *GRID, WIDTH)), context()
    variables = shaken(network.init(jax.random.key(0), embedded, given))
    seen = []

    def draw(features, place):
        token = embedded.reshape(2, PLACES, WIDTH)[:, place]
        jax.debug.callback(lambda place, x: seen.append((int(place), np.asarray(x))), place, features)
        return jnp.full(2, place, jnp.int32), token

    def call(name, *arguments):
        return network.apply(variables, *arguments, method=name)

    tokens = jax.jit(lambda: network.generate(call, given, draw))()
    jax.effects_barrier()
    np.testing.assert_array_equal(tokens.reshape(2, -1), np.tile(np.arange(PLACES), (2, 1)))
    whole = network.apply(variables, embedded, given).reshape(2, PLACES, WIDTH)
    assert sorted(place for place, _ in seen) == list(range(PLACES))
    for place, features in seen:
        np.testing.assert_allclose(features, whole[:, place], atol=1e-5, rtol=1e-5)


def prior(digits=(12,), **fields) -> Prior:
    return Prior(network=Transformer(layers=1, heads=2), grid=GRID, digits=digits, width=WIDTH, features=8, **fields)


def test_the_probabilities_of_digits_make_those_of_tokens() -> None:
    model = prior((3, 4))
    tokens = jax.random.randint(jax.random.key(0), (2, *GRID), 0, 12)
    vectors = jax.random.normal(jax.random.key(1), (2, *GRID, 5))
    variables = shaken(model.init(jax.random.key(0), tokens, vectors))
    digits = model.split(tokens)
    np.testing.assert_array_equal(joined(digits, (3, 4)), tokens)
    # At one place, over all 12 tokens: the first digit's distribution times the second's, given the first.
    features = jax.random.normal(jax.random.key(2), (12, WIDTH))[:1].repeat(12, 0)
    each = model.split(jnp.arange(12))
    first = jax.nn.log_softmax(model.apply(variables, features, [], method="logits"))
    second = jax.nn.log_softmax(model.apply(variables, features, each[:1], method="logits"))
    pick = functools.partial(jnp.take_along_axis, axis=-1)
    total = pick(first, each[0][:, None]) + pick(second, each[1][:, None])
    np.testing.assert_allclose(jnp.exp(total).sum(), 1, rtol=1e-5)
    assert len(np.unique(np.asarray(second).round(4), axis=0)) == 3


def test_without_guides_nothing_depends_on_them_and_actions_move_the_frames_after_them() -> None:
    model = prior(
        guide=ConditionEncoder(features=8, classes=5, vocabulary=9, reads=("vector", "words")),
        per_frame=ConditionEncoder(features=8, action_scale=(1.0, 1.0), reads=("frames",)),
    )
    tokens, vectors = jnp.zeros((2, *GRID), int), jnp.zeros((2, *GRID, 5))
    conditions = {"label": jnp.array([0, 1]), "words": jnp.array([[2, 3, 0], [4, 5, 6]]), "action": jnp.ones((2, 6, 2))}
    variables = shaken(model.init(jax.random.key(0), tokens, vectors, None, conditions))

    def logits(guided: bool, **changes) -> np.ndarray:
        given = {**conditions, **changes}
        return np.asarray(model.apply(variables, tokens, vectors, None, given, jnp.full(2, guided))[0])

    other = {"label": jnp.array([3, 4]), "words": jnp.array([[7, 8, 9], [1, 1, 1]])}
    np.testing.assert_array_equal(logits(False), logits(False, **other))
    for name, value in other.items():
        assert np.abs(logits(True) - logits(True, **{name: value})).max() > 1e-3
    # Two frames of video to one of tokens: the action of frame 1 moves frame 2, the first of the next tokens.
    moved = np.abs(logits(True) - logits(True, action=conditions["action"].at[:, 1].set(5))).max((0, 2, 3, 4))
    assert moved[0] == 0 and moved[1] > 1e-3
