"""Adversarial losses against their formulas, written with the probabilities that the papers write them with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import losses

LOGITS = np.linspace(-3, 3, 7)
D = 1 / (1 + np.exp(-LOGITS))  # the discriminator's probability that a video is real
REAL = {
    "minimax": -np.log(D),
    "non_saturating": -np.log(D),
    "least_squares": 0.5 * (LOGITS - 1) ** 2,
    "hinge": np.maximum(0, 1 - LOGITS),
    "wasserstein": -LOGITS,
}
FAKE = {
    "minimax": -np.log(1 - D),
    "non_saturating": -np.log(1 - D),
    "least_squares": 0.5 * LOGITS**2,
    "hinge": np.maximum(0, 1 + LOGITS),
    "wasserstein": LOGITS,
}
GENERATOR = {
    "minimax": np.log(1 - D),
    "non_saturating": -np.log(D),
    "least_squares": 0.5 * (LOGITS - 1) ** 2,
    "hinge": -LOGITS,
    "wasserstein": -LOGITS,
}


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_losses_are_the_papers_formulas(name: str) -> None:
    game, logits = losses.ADVERSARIAL[name], jnp.asarray(LOGITS, jnp.float32)
    for found, expected in (
        (game.real(logits, 1.0), REAL),
        (game.fake(logits), FAKE),
        (game.generator(logits), GENERATOR),
    ):
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_each_side_pulls_its_way(name: str) -> None:
    game, undecided = losses.ADVERSARIAL[name], jnp.asarray(0.25)
    assert jax.grad(lambda x: game.real(x, 1.0))(undecided) < 0  # real logits go up,
    assert jax.grad(game.fake)(undecided) > 0  # generated ones down,
    assert jax.grad(game.generator)(undecided) < 0  # and the generator wants them up


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "least_squares"])
def test_smoothing_moves_the_best_answer_to_real_videos_below_1(name: str) -> None:
    answers = jnp.linspace(-4, 4, 8001)
    best = answers[losses.ADVERSARIAL[name].real(answers, 0.9).argmin()]
    np.testing.assert_allclose(best if name == "least_squares" else 1 / (1 + jnp.exp(-best)), 0.9, atol=1e-3)


def test_gradient_norms_are_slopes() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 3, 3, 1)).astype(np.float32)

    def critic(video: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.sum(video * weights, (1, 2, 3, 4)))

    video = np.random.default_rng(1).normal(size=(4, 2, 3, 3, 1)).astype(np.float32) * 0.2
    along = weights / np.linalg.norm(weights)  # the steepest direction, the same everywhere
    step = 1e-2
    slopes = (critic(video + step * along) - critic(video - step * along)) / (2 * step)
    np.testing.assert_allclose(losses.gradient_norms(critic, video), slopes, rtol=2e-3)


def test_lecam_pulls_logits_towards_the_other_kinds_average() -> None:
    real, fake = jnp.asarray([1.0, 2.0]), jnp.asarray([-1.0, 0.5])
    np.testing.assert_allclose(
        losses.lecam(real, fake, jnp.asarray(1.5), jnp.asarray(-0.25)), [1.25**2 + 2.5**2, 2.25**2 + 1]
    )
