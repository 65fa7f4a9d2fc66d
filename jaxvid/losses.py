"""Losses: small and unreduced over the batch, so that callers mask and average.

Raise ValueError where predictions and targets differ in shape, which would broadcast otherwise.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.shapes import expect, expect_equal


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of squares over all but the first axis, in float32: [B, ...], [B, ...] -> [B]."""
    expect_equal("[B,...]", prediction=prediction, target=target)
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))


def mean_absolute_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of absolute values over all but the first axis, in float32: [B, ...], [B, ...] -> [B]."""
    expect_equal("[B,...]", prediction=prediction, target=target)
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.abs(error), axis=tuple(range(1, error.ndim)))


RECONSTRUCTION = {"mse": mean_squared_error, "mae": mean_absolute_error}


def gaussian_nll(mean: jax.Array, target: jax.Array, log_scale: jax.Array | float = 0.0) -> jax.Array:
    """-log N(target; mean, exp(log_scale)^2) in nats, summed over all but the first axis: [B, ...], [B, ...] -> [B].

    (x - m)^2 / (2 s^2) + log s + log(2 pi) / 2 for each value. `log_scale` is one [] for all, or [...] or [B, ...]; the
    optimum of a learned one is the logarithm of the root mean squared error (Rybkin et al. 2021, sigma-VAE, section 3).
    """
    expect_equal("[B,...]", mean=mean, target=target)
    _expect_scale(mean, log_scale)
    scaled = (mean.astype(jnp.float32) - target.astype(jnp.float32)) * jnp.exp(-log_scale)
    return sum_by_example(0.5 * jnp.square(scaled) + log_scale + 0.5 * math.log(2 * math.pi))


def laplace_nll(mean: jax.Array, target: jax.Array, log_scale: jax.Array | float = 0.0) -> jax.Array:
    """-log Laplace(target; mean, exp(log_scale)) in nats, summed over all but the first axis: [B, ...] -> [B].

    |x - m| / s + log(2 s) for each value: the likelihood behind the L1 loss.
    """
    expect_equal("[B,...]", mean=mean, target=target)
    _expect_scale(mean, log_scale)
    scaled = (mean.astype(jnp.float32) - target.astype(jnp.float32)) * jnp.exp(-log_scale)
    return sum_by_example(jnp.abs(scaled) + log_scale + math.log(2))


def bernoulli_nll(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-x log p - (1 - x) log(1 - p), p = sigmoid(logits), summed over all but the first axis: [B, ...] -> [B] nats.

    Targets lie in [0, 1]. For targets other than 0 and 1 this is a cross entropy and no density (Loaiza-Ganem and
    Cunningham 2019): it is not comparable with other likelihoods.
    """
    expect_equal("[B,...]", logits=logits, target=target)
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    return sum_by_example(jax.nn.softplus(logits) - target * logits)


def gaussian_kl(
    mean: jax.Array, log_variance: jax.Array, prior_mean: jax.Array, prior_log_variance: jax.Array
) -> jax.Array:
    """KL(N(mean, variance) || N(prior_mean, prior_variance)) in nats for each dimension, all four of one shape.

    (log(v_p / v_q) + (v_q + (m_q - m_p)^2) / v_p - 1) / 2; for a standard normal prior, Kingma and Welling 2014,
    appendix B.
    """
    expect_equal(
        "[...]", mean=mean, log_variance=log_variance, prior_mean=prior_mean, prior_log_variance=prior_log_variance
    )
    difference = log_variance - prior_log_variance
    distance = jnp.square(mean - prior_mean) * jnp.exp(-prior_log_variance)
    return 0.5 * (jnp.exp(difference) - difference - 1 + distance)


def _expect_scale(mean: jax.Array, log_scale: jax.Array | float) -> None:
    """Checks that there is one logarithm of a scale for all values, or for each of an example or of the batch."""
    if jnp.shape(log_scale) not in ((), mean.shape[1:], mean.shape):
        found, each = list(jnp.shape(log_scale)), list(mean.shape)
        raise ValueError(f"log_scale is {found}, expected [], {each[1:]} or {each}, as the mean.")


def sum_by_example(values: jax.Array) -> jax.Array:
    """Sums over all but the first axis: [B, ...] -> [B]."""
    return values.reshape(len(values), -1).sum(1)


class Likelihood(NamedTuple):
    """p(x | z) of a VAE, from what its decoder gives.

    Attributes:
      nll: (output, video [B,T,H,W,C] in [-1, 1], logarithm of the scale []) -> nats [B].
      mean: output -> video about [-1, 1].
      power: of the absolute error; its mean is the likeliest scale to that power. 0 where the scale is 1.
    """

    nll: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    mean: Callable[[jax.Array], jax.Array] = lambda output: output
    power: int = 0


LIKELIHOODS = {
    "mse": Likelihood(gaussian_nll),
    "gaussian": Likelihood(gaussian_nll, power=2),
    "l1": Likelihood(laplace_nll),
    "laplace": Likelihood(laplace_nll, power=1),
    "bernoulli": Likelihood(
        lambda logits, video, _: bernoulli_nll(logits, (video + 1) / 2),
        lambda logits: 2 * jax.nn.sigmoid(logits) - 1,
    ),
}


class Adversarial(NamedTuple):
    """An adversarial objective: three elementwise losses of logits of any shape; the discriminator's is `real + fake`.

    Attributes:
      real: (logits of real videos, target) -> loss; the target is 1, or less for one-sided label smoothing (Salimans et
        al., 2016, section 3.4), which hinge and Wasserstein losses ignore.
      fake: logits of generated videos -> the discriminator's loss.
      generator: logits of generated videos -> the generator's loss.
    """

    real: Callable[[jax.Array, float], jax.Array]
    fake: Callable[[jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


def _cross_entropy(logits: jax.Array, target: float) -> jax.Array:
    """-target log D - (1 - target) log(1 - D), where D = sigmoid(logits)."""
    return jax.nn.softplus(logits) - target * logits


ADVERSARIAL = {
    # Goodfellow et al., 2014: equation 1, and the generator that maximizes log D(G(z)) instead (section 3).
    "minimax": Adversarial(_cross_entropy, jax.nn.softplus, lambda fake: -jax.nn.softplus(fake)),
    "non_saturating": Adversarial(_cross_entropy, jax.nn.softplus, lambda fake: jax.nn.softplus(-fake)),
    # Mao et al., 2017, equation 9.
    "least_squares": Adversarial(
        lambda real, target: 0.5 * jnp.square(real - target),
        lambda fake: 0.5 * jnp.square(fake),
        lambda fake: 0.5 * jnp.square(fake - 1),
    ),
    # Lim and Ye, 2017; Miyato et al., 2018, equations 16 and 17.
    "hinge": Adversarial(lambda real, _: jax.nn.relu(1 - real), lambda fake: jax.nn.relu(1 + fake), jnp.negative),
    # Arjovsky et al., 2017; the critic needs a bound on its slope, such as a penalty on `gradient_norms`.
    "wasserstein": Adversarial(lambda real, _: -real, lambda fake: fake, jnp.negative),
}


def gradient_norms(critic: Callable[[jax.Array], jax.Array], video: jax.Array) -> jax.Array:
    """Norms [B] of the gradients of the summed logits `critic(video)` with respect to each video [B, ...].

    The gradient penalty of Gulrajani et al. (2017) is (norm - 1)^2 between real and generated videos, R1 of Mescheder
    et al. (2018) is norm^2 / 2 at real ones.
    """
    expect("[B,...]", video=video)
    gradients = jax.grad(lambda x: critic(x).sum())(video)
    # The derivative of the root is infinite at 0.
    return jnp.sqrt(jnp.square(gradients).sum(axis=tuple(range(1, video.ndim))) + 1e-12)


def lecam(real: jax.Array, fake: jax.Array, mean_real: jax.Array, mean_fake: jax.Array) -> jax.Array:
    """The regularizer of Tseng et al. (2021, equation 5), elementwise.

    Real logits are pulled to the moving average of fake ones, and fake logits to that of real ones.
    """
    return jnp.square(real - mean_fake) + jnp.square(mean_real - fake)
