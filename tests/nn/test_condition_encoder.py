"""The encoder of conditions: what it must and must not depend on, its scale, and its learning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvid.nn.condition import ConditionEncoder
from jaxvid.nn.text import TextEncoder

RNG = np.random.default_rng(0)
BATCH, VOCABULARY, SCALE = 64, 40, (0.02, 3.0)
FRAMES = RNG.uniform(-1, 1, (BATCH, 16, 16, 3)).astype(np.float32)
CONDITIONS = {
    "label": RNG.integers(0, 20, BATCH),
    "attributes": RNG.integers(0, 2, (BATCH, 12)).astype(np.float32),
    "words": np.where(np.arange(9) < RNG.integers(3, 10, (BATCH, 1)), RNG.integers(2, 42, (BATCH, 9)), 0),
    "embedding": RNG.normal(0, 0.05, (BATCH, 30)).astype(np.float32),
    "action": (RNG.normal(0, 1, (BATCH, 4, 2)) * SCALE).astype(np.float32),
    "first_frames": FRAMES[:, None] * np.linspace(0.5, 1.0, 3, dtype=np.float32).reshape(-1, 1, 1, 1),
}
MODULE = ConditionEncoder(features=48, classes=20, vocabulary=VOCABULARY, action_scale=SCALE)


@pytest.fixture(scope="module")
def params() -> dict:
    return jax.jit(MODULE.init)(jax.random.key(0), CONDITIONS)["params"]


@pytest.fixture(scope="module")
def parts(params: dict) -> dict[str, np.ndarray]:
    """The encoding of each condition alone, and of all."""

    def encode(params: dict, conditions: dict) -> dict:
        given = {**{name: {name: value} for name, value in conditions.items()}, "all": conditions}
        return {name: MODULE.apply({"params": params}, each).vector for name, each in given.items()}

    return jax.device_get(jax.jit(encode)(params, CONDITIONS))


def test_conditions_are_added_and_each_has_about_unit_variance(parts: dict[str, np.ndarray]) -> None:
    together, alone = parts["all"], {name: part for name, part in parts.items() if name != "all"}
    assert together.shape == (BATCH, 48) and together.dtype == np.float32
    np.testing.assert_allclose(together, sum(alone.values()) / np.sqrt(6), atol=1e-5)
    for name, part in alone.items():
        assert 0.5 < np.sqrt(np.square(part).mean()) < 1.5, name
        distance = np.sqrt(np.square(part[1:] - part[:-1]).mean())
        assert distance > 0.1, f"the vector ignores {name}"


def test_the_label_is_a_row_of_a_table(params: dict, parts: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(parts["label"], params["label"]["embedding"][CONDITIONS["label"]])


def test_attributes_are_half_on_half_off_and_keep_how_many_there_are(
    params: dict, parts: dict[str, np.ndarray]
) -> None:
    """A dense layer of 1 for each that is there and -1 for each that is not: all and none are opposites."""
    signs = np.where(CONDITIONS["attributes"] > 0, 1, -1)
    expected = signs @ params["attributes"]["kernel"] + params["attributes"]["bias"]
    np.testing.assert_allclose(parts["attributes"], expected, atol=1e-5)
    every = {"attributes": jnp.ones((1, 12))}
    both = [MODULE.apply({"params": params}, each).vector for each in (every, {"attributes": jnp.zeros((1, 12))})]
    np.testing.assert_allclose(*np.array(both) * [[[1]], [[-1]]], atol=1e-6)


def test_actions_are_measured_in_their_own_scale(params: dict, parts: dict[str, np.ndarray]) -> None:
    scaled = ConditionEncoder(features=48, action_scale=(1.0, 1.0))
    own = {"action": CONDITIONS["action"] / np.asarray(SCALE, np.float32)}
    np.testing.assert_allclose(scaled.apply({"params": params}, own).vector, parts["action"], atol=1e-5)


def test_pixels_of_first_frames_are_measured_from_the_last_of_them() -> None:
    """The input of the dense layer of pixels: the last frame about 0 and of variance 1, then twice the changes."""
    first, last = FRAMES[0, ..., :1], FRAMES[1, ..., :1]
    module, frames = ConditionEncoder(features=48), jnp.asarray(np.stack([first, last])[None])
    params = jax.tree.map(jnp.zeros_like, jax.jit(module.init)(jax.random.key(0), {"first_frames": frames}))
    kernel = jnp.zeros((512, 48)).at[jnp.arange(0, 480, 10), jnp.arange(48)].set(1.0)  # every tenth input
    params["params"]["first_pixels"]["kernel"] = kernel
    found = jax.jit(module.apply)(params, {"first_frames": frames}).vector[0] * np.sqrt(2)
    scale = last.std() + 0.02
    expected = np.concatenate([(last - last.mean()).ravel(), 2 * (last - first).ravel()]) / scale
    np.testing.assert_allclose(found, expected[:480:10], atol=1e-4)


def test_padding_does_not_matter_and_order_does() -> None:
    module = TextEncoder(vocabulary=VOCABULARY, features=32)
    tokens = jnp.array([[5, 6, 7, 1, 8]])
    params = jax.jit(module.init)(jax.random.key(0), tokens)
    # Trained biases are not zero, and then a careless encoder sees how long the padding is.
    params = jax.tree.map(lambda x: x + 0.1, params)
    apply = jax.jit(module.apply)
    expected = apply(params, tokens)
    np.testing.assert_allclose(apply(params, jnp.pad(tokens, ((0, 0), (0, 7)))), expected, atol=1e-5)
    others = [apply(params, jnp.array([other])) for other in ([8, 1, 7, 6, 5], [5, 6, 7, 1, 9], [0] * 5)]
    assert all(np.isfinite(other).all() and np.abs(other - expected).max() > 1e-2 for other in others)


def test_a_word_that_was_never_learned_says_nothing(params: dict) -> None:
    table = params["text"]["Embed_0"]["embedding"]
    assert table.shape == (VOCABULARY + 2, 48)
    assert not table[:2].any() and 0.9 < table[2:].std() < 1.1


def test_two_sentences_of_the_same_words_are_told_apart() -> None:
    """Left then up against up then left, in captions of which most is noise."""
    module = TextEncoder(vocabulary=VOCABULARY, features=16)
    noise = RNG.integers(10, 40, (256, 12))
    answer, place = RNG.integers(0, 2, 256), RNG.integers(0, 10, 256)
    for row, start, first in zip(noise, place, answer, strict=True):
        row[start : start + 3] = (4, 5, 6) if first else (6, 5, 4)
    tokens, sign = jnp.asarray(noise), jnp.asarray(2.0 * answer - 1)
    tx = optax.adam(1e-2)

    def loss(params: dict, tokens: jax.Array, sign: jax.Array) -> tuple[jax.Array, jax.Array]:
        margin = sign * module.apply(params, tokens)[:, 0]
        return jax.nn.softplus(-margin).mean(), (margin > 0).mean()

    @jax.jit
    def step(params: dict, state: optax.OptState) -> tuple:
        updates, state = tx.update(jax.grad(loss, has_aux=True)(params, tokens[:192], sign[:192])[0], state)
        return optax.apply_updates(params, updates), state

    params = jax.jit(module.init)(jax.random.key(0), tokens[:1])
    state = tx.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert jax.jit(loss)(params, tokens[192:], sign[192:])[1] > 0.95


def test_bfloat16_keeps_float32_parameters() -> None:
    module = MODULE.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(module.init, jax.random.key(0), CONDITIONS)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert jax.eval_shape(module.apply, shapes, CONDITIONS).vector.dtype == jnp.bfloat16


def test_words_and_frames_come_by_themselves_and_each_from_its_own_place() -> None:
    """What a transformer reads: a change of one word or action reaches its neighbors at most, and padding is zeros."""
    module = MODULE.clone(reads=("words", "frames"))
    given = {"words": jnp.array([[5, 6, 7, 8, 9, 4, 3, 2, 0]]), "action": jnp.asarray(CONDITIONS["action"][:1])}
    params = jax.jit(module.init)(jax.random.key(0), given)
    assert set(params["params"]) == {"text", "action_frames", "action_frames_hidden"}
    encode = jax.jit(module.apply)
    encoded = encode(params, given)
    assert encoded.vector is None and encoded.words.shape == (1, 9, 48) and encoded.frames.shape == (1, 4, 48)
    np.testing.assert_array_equal(encoded.mask, given["words"] > 0)
    assert not encoded.words[0, 8].any() and jnp.abs(encoded.words[0, :8]).min(0).max() > 0
    other = encode(params, {"words": given["words"].at[0, 4].set(11), "action": given["action"].at[0, 1].add(1.0)})
    changed = [
        np.abs(a - b).max((0, 2)) > 1e-6 for a, b in ((encoded.words, other.words), (encoded.frames, other.frames))
    ]
    assert changed[0].tolist() == [2 <= i <= 6 for i in range(9)]  # two convolutions, three words wide
    assert changed[1].tolist() == [False, True, False, False]


def test_reading_words_besides_changes_neither_the_vector_nor_its_parameters(params: dict, parts: dict) -> None:
    both = MODULE.clone(reads=("vector", "words"))
    assert jax.tree.structure(jax.eval_shape(both.init, jax.random.key(0), CONDITIONS)["params"]) == jax.tree.structure(
        params
    )
    encoded = jax.jit(both.apply)({"params": params}, CONDITIONS)
    np.testing.assert_allclose(encoded.vector, parts["all"], atol=1e-6)
    assert encoded.words.shape == (BATCH, 9, 48) and encoded.frames is None


def test_a_condition_of_another_name_is_a_vector_of_numbers() -> None:
    module, camera = ConditionEncoder(features=8), jax.random.normal(jax.random.key(1), (4, 5))
    encoded, variables = module.init_with_output(jax.random.key(0), {"camera": camera})
    assert (
        set(variables["params"]) == {"camera", "camera_norm"}
        and jnp.abs(encoded.vector[0] - encoded.vector[1]).max() > 0.1
    )


@pytest.mark.parametrize(
    ("conditions", "reads", "sentence"),
    [
        ({}, ("vector",), "takes one condition at least"),
        ({"label": np.zeros((2, 1), int)}, ("vector",), r"label is int64 \[2,1\], expected int \[B\]"),
        ({"words": np.zeros((2, 3), np.float32)}, ("vector",), r"words is float32 \[2,3\], expected int \[B,L\]"),
        ({"action": np.zeros((2, 3, 4), np.float32)}, ("vector",), r"action is .* expected float \[B,T,2\]"),
        ({"first_frames": np.zeros((2, 8, 8, 3), np.uint8)}, ("vector",), r"expected float \[B,k>=1,H,W,C\]"),
        ({"first_frames": np.zeros((2, 0, 8, 8, 3), np.float32)}, ("vector",), r"expected float \[B,k>=1,H,W,C\]"),
        ({"embedding": np.zeros((0, 3), np.float32)}, ("vector",), r"\[0,3\], expected .* of one example at least"),
        (
            {"label": np.zeros(2, int), "embedding": np.zeros((1, 3), np.float32)},
            ("vector",),
            "'label': 2, 'embed.* 1}",
        ),
        ({"label": np.array([0, 20])}, ("vector",), "label has 0 to 20, and the 20 classes begin at 0"),
        ({"label": np.array([3, -1])}, ("vector",), "label has -1 to 3"),
        ({"label": np.zeros(2, int)}, ("words",), 'Nothing depends on the condition label: .* lacks "vector"'),
        ({"label": np.zeros(2, int)}, ("word",), "ConditionEncoder.reads .* did you mean words"),
    ],
)
def test_what_cannot_be_encoded_is_one_sentence(conditions: dict, reads: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MODULE.clone(reads=reads).init(jax.random.key(0), conditions)


def test_a_label_beyond_the_table_is_no_class_under_jit(params: dict) -> None:
    encode = jax.jit(lambda label: MODULE.apply({"params": params}, {"label": label}).vector)
    found = encode(jnp.array([-20, -1, 0, 19, 20]))
    assert np.isnan(found).all(1).tolist() == [True, True, False, False, True]
    constant = jax.jit(lambda: MODULE.apply({"params": params}, {"label": jnp.array([3, 4])}).vector)
    np.testing.assert_array_equal(constant(), encode(jnp.array([3, 4])))
    np.testing.assert_array_equal(found[2:4], params["label"]["embedding"][np.array([0, 19])])
