"""Drawing tokens from logits, and what first frames tell about places."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import tokens
from jaxvid.tokens import Drawing, draw, filtered, grouped, known_places

LOGITS = jnp.log(jnp.array([[0.5, 0.1, 0.25, 0.15]]))


def frequencies(drawing: Drawing, logits: jax.Array = LOGITS, count: int = 4000) -> np.ndarray:
    uniform = (jnp.arange(count) + 0.5) / count
    drawn = draw(jnp.repeat(logits, count, 0), uniform, drawing)
    assert drawn.dtype == jnp.int32
    return np.bincount(drawn, minlength=logits.shape[-1]) / count


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    np.testing.assert_allclose(frequencies(Drawing()), [0.5, 0.1, 0.25, 0.15], atol=1e-3)
    squared = np.square([0.5, 0.1, 0.25, 0.15])
    np.testing.assert_allclose(frequencies(Drawing(temperature=0.5)), squared / squared.sum(), atol=1e-3)


def test_filters_leave_the_likeliest() -> None:
    np.testing.assert_allclose(frequencies(Drawing(top_k=2)), [2 / 3, 0, 1 / 3, 0], atol=1e-3)
    np.testing.assert_allclose(frequencies(Drawing(top_p=0.76)), np.array([0.5, 0, 0.25, 0.15]) / 0.9, atol=1e-3)
    np.testing.assert_allclose(frequencies(Drawing(top_p=0.01)), [1, 0, 0, 0])
    np.testing.assert_allclose(frequencies(Drawing(temperature=0.0)), [1, 0, 0, 0])


def test_filters_that_keep_all_change_no_bit() -> None:
    logits = jax.random.normal(jax.random.key(0), (64, 300))
    for top_k in (0, 300, 1000):
        np.testing.assert_array_equal(filtered(logits, top_k, 1.0), logits)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = jnp.array([[-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf]])
    for uniform in (0.0, 0.49999997, 0.5, 0.99999994):
        assert int(draw(logits, jnp.array([uniform], jnp.float32), Drawing())[0]) in (1, 3)


def test_guidance_of_one_is_the_conditional_and_of_zero_the_unconditional() -> None:
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    np.testing.assert_allclose(tokens.guided(logits, 1.0), logits[:2], rtol=1e-6)
    np.testing.assert_allclose(tokens.guided(logits, 0.0), logits[2:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": -1.0}, "sample.temperature is -1.0, expected 0"),
        ({"temperature": float("nan")}, "sample.temperature is nan"),
        ({"top_k": -1}, "sample.top_k is -1"),
        ({"top_p": 0.0}, "sample.top_p is 0.0, expected above 0"),
        ({"top_p": 1.5}, "sample.top_p is 1.5"),
        ({"guidance": -1.0}, "sample.guidance is -1.0"),
    ],
)
def test_what_is_out_of_range_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tokens.make_drawing({**Drawing()._asdict(), **fields})


def test_digits_are_grouped_up_to_4096_values() -> None:
    assert grouped((2,) * 18) == (4096, 64)
    assert grouped((8, 8, 8, 5, 5, 5)) == (2560, 25)
    assert grouped((512,)) == (512,)
    assert grouped((10_000,)) == (10_000,)


def test_known_places_depend_on_known_frames_alone() -> None:
    video = jax.random.uniform(jax.random.key(0), (3, 4, 2, 2, 3), minval=-1)
    # A tokenizer of two frames to one place: its token is the mean of all frames, which a real one sees as well.
    tokenizer = tokens.Tokenizer(
        grid=(2, 1, 1),
        factors=(2, 2, 2),
        causal=False,
        digits=(4,),
        encode=lambda state, clip: jnp.broadcast_to(clip.mean((1, 2, 3, 4))[:, None, None, None], (3, 2, 1, 1)),
        decode=lambda state, indices: indices,
    )
    count = jnp.array([0, 1, 3])
    found = known_places(tokenizer, SimpleNamespace(), video, count)
    np.testing.assert_array_equal(found.share.reshape(3, 2), [[0, 0], [0.5, 0], [1, 0.5]])
    np.testing.assert_allclose(found.tokens[1, 0, 0, 0], video[1, 0].mean(), rtol=1e-5)
    repeated = jnp.concatenate([video[2, :3], video[2, 2:3]])
    np.testing.assert_allclose(found.tokens[2, 0, 0, 0], repeated.mean(), rtol=1e-5)
    later = video.at[1, 1:].set(0).at[2, 3:].set(0)
    again = known_places(tokenizer, SimpleNamespace(), later, count)
    jax.tree.map(np.testing.assert_array_equal, found, again)
