"""Each loss against its formula in numpy, summed value by value."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import losses

RANDOM = np.random.default_rng(0)
MEAN, TARGET = RANDOM.normal(size=(2, 3, 2, 4, 4, 3)).astype(np.float32)


def density_by_hand(kind: str, x: float, mean: float, scale: float) -> float:
    if kind == "gaussian":
        return math.exp(-((x - mean) ** 2) / (2 * scale**2)) / (scale * math.sqrt(2 * math.pi))
    return math.exp(-abs(x - mean) / scale) / (2 * scale)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_likelihood_is_the_sum_of_log_densities(kind: str, scale: float) -> None:
    nll = {"gaussian": losses.gaussian_nll, "laplace": losses.laplace_nll}[kind](MEAN, TARGET, math.log(scale))
    pairs = [zip(x.ravel().tolist(), m.ravel().tolist(), strict=True) for x, m in zip(TARGET, MEAN, strict=True)]
    expected = [-sum(math.log(density_by_hand(kind, x, m, scale)) for x, m in clip) for clip in pairs]
    assert nll.shape == (3,)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_the_density_integrates_to_one(kind: str) -> None:
    x = jnp.linspace(-8, 8, 16_001)[:, None]  # one value an example
    nll = {"gaussian": losses.gaussian_nll, "laplace": losses.laplace_nll}[kind](jnp.full_like(x, 0.4), x, -1.0)
    np.testing.assert_allclose(jnp.exp(-nll).sum() * 16 / 16_000, 1, rtol=1e-3)


def test_a_learned_scale_settles_at_the_error() -> None:
    error, absolute = np.sqrt(np.mean((MEAN - TARGET) ** 2)), np.mean(np.abs(MEAN - TARGET))
    for nll, best in ((losses.gaussian_nll, error), (losses.laplace_nll, absolute)):
        slope = jax.grad(lambda log_scale, nll=nll: nll(MEAN, TARGET, log_scale).mean())(jnp.log(best))
        np.testing.assert_allclose(slope, 0, atol=1e-3)


def test_bernoulli_is_the_cross_entropy_and_does_not_overflow() -> None:
    logits, target = 3 * MEAN.astype(np.float64), 1 / (1 + np.exp(-TARGET.astype(np.float64)))
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).reshape(3, -1).sum(1)
    np.testing.assert_allclose(losses.bernoulli_nll(logits, target), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.bernoulli_nll(jnp.array([[200.0], [-200.0]]), jnp.ones((2, 1))), [0, 200])


def test_shapes_that_would_broadcast_are_refused() -> None:
    for loss in (losses.mean_squared_error, losses.mean_absolute_error, losses.gaussian_nll, losses.bernoulli_nll):
        with pytest.raises(ValueError, match=r"float32 \[3\] and target float32 \[3,1\], expected the same \[B,...\]"):
            jax.jit(loss)(jnp.zeros(3), jnp.zeros((3, 1)))
    for nll in (losses.gaussian_nll, losses.laplace_nll):
        with pytest.raises(ValueError, match=r"log_scale is \[2\], expected \[\], \[3\] or \[2, 3\], as the mean"):
            nll(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.zeros(2))
        one = nll(jnp.zeros((2, 3)), jnp.ones((2, 3)), 0.5)
        for shape in ((3,), (2, 3)):
            each = nll(jnp.zeros((2, 3)), jnp.ones((2, 3)), jnp.full(shape, 0.5))
            np.testing.assert_allclose(each, one, rtol=1e-6)
    z = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"prior_mean float32 \[3\] and prior_log_variance float32 \[2,3\], expected"):
        losses.gaussian_kl(z, z, jnp.zeros(3), z)


def parameters(size: int) -> tuple[np.ndarray, ...]:
    return tuple(RANDOM.normal(size=(4, size)) * spread for spread in (1.0, 0.7, 1.0, 0.7))


def test_the_kl_of_gaussians_is_the_closed_form() -> None:
    mean, log_variance, prior_mean, prior_log_variance = parameters(5)
    s, prior_s = np.exp(0.5 * log_variance), np.exp(0.5 * prior_log_variance)
    expected = np.log(prior_s / s) + (s**2 + (mean - prior_mean) ** 2) / (2 * prior_s**2) - 0.5
    kl = losses.gaussian_kl(mean, log_variance, prior_mean, prior_log_variance)
    assert kl.shape == mean.shape
    np.testing.assert_allclose(kl, expected, atol=1e-5)
    np.testing.assert_allclose(losses.gaussian_kl(mean, log_variance, mean, log_variance), 0, atol=1e-6)


def test_the_kl_of_gaussians_is_that_of_monte_carlo() -> None:
    mean, log_variance, prior_mean, prior_log_variance = parameters(2)
    z = mean + np.exp(0.5 * log_variance) * RANDOM.normal(size=(200_000, *mean.shape))

    def log_density(m: np.ndarray, v: np.ndarray) -> np.ndarray:
        return -0.5 * (np.log(2 * np.pi) + v + (z - m) ** 2 / np.exp(v))

    ratio = log_density(mean, log_variance) - log_density(prior_mean, prior_log_variance)
    kl = losses.gaussian_kl(mean, log_variance, prior_mean, prior_log_variance)
    error = ratio.std(0) / np.sqrt(len(ratio))
    assert np.all(np.abs(kl - ratio.mean(0)) < 4.5 * error)
