"""Networks over tokens: what each place depends on, by gradients, and the same places one after another."""

import functools
import itertools
import math
import warnings
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models.lstm import LSTM
from jaxvid.models.pixelcnn import GatedPixelCNN, MaskedPixelCNN
from jaxvid.models.prior import Context, Prior, joined
from jaxvid.models.transformer import Transformer
from jaxvid.nn.condition import ConditionEncoder
from jaxvid.priors import warn_of_reach

GRID = (3, 3, 2)
PLACES = 18
WIDTH = 16
NETWORKS = {
    "transformer": functools.partial(Transformer, layers=2, heads=2),
    "pixelcnn": functools.partial(GatedPixelCNN, layers=2, kernel=3),
    "masked_pixelcnn": functools.partial(MaskedPixelCNN, layers=3, kernel=3),
    "lstm": functools.partial(LSTM, layers=2, kernel=3, heads=2),
}


@pytest.fixture(params=NETWORKS, name="network")
def network_fixture(request):
    return NETWORKS[request.param]()


def shaken(variables):
    """Parameters that are all random, since those that start at zero hide what depends on what.

    They are no larger than keeps features at about their size, through any number of layers.
    """
    leaves, tree = jax.tree.flatten(variables)
    draw = np.random.default_rng(7).normal
    sizes = [max(math.prod(leaf.shape[:-1]), 4) ** -0.5 for leaf in leaves]
    return tree.unflatten([np.float32(draw(0, s, leaf.shape)) for s, leaf in zip(sizes, leaves, strict=True)])


def random_variables(network, grid=GRID):
    arguments = jnp.zeros((1, *grid, WIDTH)), context(1, grid)
    return shaken(jax.eval_shape(network.init, jax.random.key(0), *arguments))


def context(batch: int = 2, grid=GRID) -> Context:
    places = jax.random.normal(jax.random.key(1), (batch, *grid, WIDTH))
    words = jax.random.normal(jax.random.key(3), (batch, 4, 8))
    return Context(places, jax.random.normal(jax.random.key(2), (batch, 8)), words, jnp.ones((batch, 4), bool))


def reach(network, grid=GRID) -> np.ndarray:
    """bool [N,N]: whether the features at place i depend on the token at place j.

    Of N copies of one example, each is asked about another place.
    """
    places = math.prod(grid)
    variables, one = random_variables(network, grid), context(1, grid)
    given = jax.tree.map(lambda x: jnp.repeat(x, places, 0), one)

    def asked(embedded):
        return network.apply(variables, embedded, given).reshape(places, places, WIDTH).sum(-1).trace()

    embedded = jnp.repeat(jax.random.normal(jax.random.key(0), (1, *grid, WIDTH)), places, 0)
    return np.abs(jax.jit(jax.grad(asked))(embedded).reshape(places, places, WIDTH)).max(-1) > 0


def neighbors(grid, frames: Iterable[int], rows: Iterable[int], columns: Iterable[int], before: bool = False):
    """bool [N,N]: whether place j is at one of these offsets from place i; or `before`, in raster order, too."""
    places = np.array(list(itertools.product(*map(range, grid))))
    offsets = places[None] - places[:, None]
    near = [np.isin(offsets[..., axis], list(each)) for axis, each in enumerate((frames, rows, columns))]
    return np.logical_and.reduce(near) & (np.tri(len(places), k=-1, dtype=bool) if before else True)


def seen_through_stacks(grid, layers: int, kernel: int) -> np.ndarray:
    """bool [N,N], as `reach`, of the gated PixelCNN: the three stacks of shifted and unmasked kernels."""
    n = kernel // 2
    back, around = range(-n, 1), range(-n, n + 1)
    frames, rows, columns = (
        neighbors(grid, *shift) for shift in ([[-1], [0], [0]], [[0], [-1], [0]], [[0], [0], [-1]])
    )
    for _ in range(layers):
        frames = neighbors(grid, back, around, around) @ frames
        rows = neighbors(grid, [0], back, around) @ rows | frames
        columns = neighbors(grid, [0], [0], back) @ columns | rows | columns
    return columns


def seen_through_masks(grid, layers: int, kernel: int) -> np.ndarray:
    """bool [N,N], as `reach`, of the masked PixelCNN: mask A, and then mask B."""
    around = range(-(kernel // 2), kernel // 2 + 1)
    mask_a = neighbors(grid, around, around, around, before=True)
    seen = mask_a
    for _ in range(layers - 1):
        seen = (mask_a | np.eye(len(mask_a), dtype=bool)) @ seen
    return seen


def all_before(grid) -> np.ndarray:
    return np.tri(math.prod(grid), k=-1, dtype=bool)


def test_no_place_sees_itself_or_a_later_one_and_each_sees_all_before_it(network) -> None:
    blind = isinstance(network, MaskedPixelCNN)
    expected = seen_through_masks(GRID, network.layers, network.kernel) if blind else all_before(GRID)
    np.testing.assert_array_equal(reach(network), expected)
    assert (expected < all_before(GRID)).any() == blind


@pytest.mark.parametrize("grid", [(3, 5, 4), (1, 4, 5)])
@pytest.mark.parametrize(("layers", "kernel"), [(2, 3), (4, 3), (2, 5)])
@pytest.mark.parametrize("kind", [GatedPixelCNN, MaskedPixelCNN])
def test_pixelcnns_see_what_their_kernels_lead_to(kind, layers: int, kernel: int, grid) -> None:
    masks = {GatedPixelCNN: seen_through_stacks, MaskedPixelCNN: seen_through_masks}[kind](grid, layers, kernel)
    np.testing.assert_array_equal(reach(kind(layers=layers, kernel=kernel), grid), masks)


def test_the_blind_spot_is_where_the_module_says_and_deeper_networks_keep_it() -> None:
    grid, n = (4, 6, 6), 1
    seen = seen_through_masks(grid, 24, 2 * n + 1)
    frame, row, column = np.array(list(itertools.product(*map(range, grid)))).T
    frames, below, right = (x[:, None] - x for x in (frame, -row, -column))
    said = (below <= frames * n) & (right <= 2 * frames * n - below)
    np.testing.assert_array_equal(seen, all_before(grid) & said)
    assert round(100 * (1 - seen.sum() / all_before(grid).sum())) == 23
    # Within a frame, the picture of van den Oord et al., 2016 (Conditional PixelCNN, figure 1): to the right of what is
    # seen, a diagonal goes up.
    picture = seen[2 * 6 + 2][:36].reshape(6, 6).astype(int)
    np.testing.assert_array_equal(picture[:3], [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])


@pytest.mark.parametrize("grid", [(2, 4, 4), (4, 5, 3), (6, 2, 2), (1, 3, 6)])
def test_a_gated_pixelcnn_that_misses_a_token_is_warned_of(grid) -> None:
    warned = []
    for layers, kernel in itertools.product(range(1, 7), (3, 5)):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            warn_of_reach(GatedPixelCNN(layers=layers, kernel=kernel), grid)
        misses = (seen_through_stacks(grid, layers, kernel) < all_before(grid)).any()
        assert found or not misses
        warned.append(bool(found))
    assert any(warned) and not all(warned)


def test_a_network_that_sees_all_frames_is_warned_of_where_it_does_not_see_all_of_a_row() -> None:
    with pytest.warns(UserWarning, match="98 frames back and 2 rows and columns away, not all .* raise model.layers"):
        warn_of_reach(LSTM(layers=2, kernel=3), (99, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_reach(LSTM(layers=3, kernel=3), (99, 4, 4))
        warn_of_reach(Transformer(layers=1, heads=1), (99, 99, 99))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_drawn_in_any_dtype_for_a_context_with_and_without_guides(name: str, dtype) -> None:
    network, given = NETWORKS[name](dtype=dtype), context(4)
    variables = random_variables(network)

    def draw(features, place):
        assert features.shape == (4, WIDTH)
        return jnp.zeros(2, jnp.int32), jnp.zeros((4, WIDTH), dtype)

    def call(name, *arguments):
        return network.apply(variables, *arguments, method=name)

    tokens = jax.eval_shape(lambda: network.generate(call, given, draw))
    assert tokens.shape == (2, *GRID) and tokens.dtype == jnp.int32


def test_place_by_place_the_features_are_those_of_all_at_once(network) -> None:
    embedded, given = jax.random.normal(jax.random.key(0), (2, *GRID, WIDTH)), context()
    variables, seen = random_variables(network), []

    def draw(features, place):
        token = embedded.reshape(2, PLACES, WIDTH)[:, place]
        jax.debug.callback(lambda place, x: seen.append((int(place), np.asarray(x))), place, features)
        return jnp.full(2, place, jnp.int32), token

    def call(name, *arguments):
        return network.apply(variables, *arguments, method=name)

    tokens = jax.jit(lambda: network.generate(call, given, draw))()
    jax.effects_barrier()
    np.testing.assert_array_equal(tokens.reshape(2, -1), np.tile(np.arange(PLACES), (2, 1)))
    whole = jax.jit(network.apply)(variables, embedded, given).reshape(2, PLACES, WIDTH)
    assert sorted(place for place, _ in seen) == list(range(PLACES))
    for place, features in seen:
        np.testing.assert_allclose(features, whole[:, place], atol=1e-5, rtol=1e-5)


def prior(digits=(12,), **fields) -> Prior:
    return Prior(network=Transformer(layers=1, heads=2), grid=GRID, digits=digits, width=WIDTH, features=8, **fields)


def test_the_probabilities_of_digits_make_those_of_tokens() -> None:
    model = prior((3, 4))
    tokens = jax.random.randint(jax.random.key(0), (2, *GRID), 0, 12)
    variables = shaken(jax.jit(model.init)(jax.random.key(0), tokens))
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
    tokens = jnp.zeros((2, *GRID), int)
    conditions = {"label": jnp.array([0, 1]), "words": jnp.array([[2, 3, 0], [4, 5, 6]]), "action": jnp.ones((2, 6, 2))}
    variables = shaken(jax.jit(model.init)(jax.random.key(0), tokens, None, conditions))
    apply = jax.jit(model.apply)

    def logits(guided: bool, **changes) -> np.ndarray:
        given = {**conditions, **changes}
        return np.asarray(apply(variables, tokens, None, given, jnp.full(2, guided))[0])

    other = {"label": jnp.array([3, 4]), "words": jnp.array([[7, 8, 9], [1, 1, 1]])}
    np.testing.assert_array_equal(logits(False), logits(False, **other))
    for name, value in other.items():
        assert np.abs(logits(True) - logits(True, **{name: value})).max() > 1e-3
    # Two frames of video to one of tokens: the action of frame 1 moves frame 2, the first of the next tokens.
    moved = np.abs(logits(True) - logits(True, action=conditions["action"].at[:, 1].set(5))).max((0, 2, 3, 4))
    assert moved[0] == 0 and moved[1] > 1e-3
