"""The VAE's networks: who sees what, told from gradients and from changed inputs."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.methods.vae import frame, grid, latent_shapes, temporal
from jaxvid.models import vae

SIZE = (4, 16, 16)
MODELS: dict[str, Callable[[], vae.VAE]] = {
    "frame": lambda: frame(SIZE, None, width=8, hidden=16, dim=6),
    "temporal": lambda: temporal(SIZE, None, width=8, hidden=16, heads=2, content=5, motion=3, memory=8),
    "grid": lambda: grid(SIZE, None, width=8, blocks=1, dim=2, downsample=(2, 4, 4)),
}
SHAPES = {
    "frame": {"frames": (4, 6)},
    "temporal": {"content": (5,), "motion": (4, 3)},
    "grid": {"grid": (2, 4, 4, 2)},
}


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Bound:
    """A model with random parameters, biases and the like included, whose methods are compiled."""

    def __init__(self, name: str):
        model, noise = MODELS[name](), {key: jnp.zeros((1, *shape)) for key, shape in SHAPES[name].items()}
        shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, *SIZE, 3)), noise, False), jax.random.key(0))
        leaves, structure = jax.tree.flatten(shapes)
        spread = [max(math.prod(leaf.shape[:-1]), 4) ** -0.5 for leaf in leaves]
        variables = structure.unflatten(
            [s * normal(i, *leaf.shape) for i, (s, leaf) in enumerate(zip(spread, leaves, strict=True))]
        )

        def method(name: str) -> Callable:
            return jax.jit(lambda *inputs: model.apply(variables, *inputs, method=name))

        self.encode, self.decode, self.prior_of, self.sample_prior = map(
            method, ("encode", "decode", "prior_of", "sample_prior")
        )


@functools.cache
def bound(name: str) -> Bound:
    return Bound(name)


@pytest.mark.parametrize("name", MODELS)
def test_shapes(name: str) -> None:
    assert latent_shapes(MODELS[name](), (*SIZE, 3)) == SHAPES[name]
    model, video = bound(name), normal(1, 2, *SIZE, 3)
    posterior = model.encode(video)
    z = {key: gaussian.sample(normal(2, *gaussian.mean.shape)) for key, gaussian in posterior.items()}
    shapes = {key: (2, *shape) for key, shape in SHAPES[name].items()}
    for gaussians in (posterior, model.prior_of(z)):
        assert {key: gaussian.mean.shape for key, gaussian in gaussians.items()} == shapes
        assert {key: gaussian.log_variance.shape for key, gaussian in gaussians.items()} == shapes
    assert jax.tree.map(jnp.shape, model.sample_prior(z)) == shapes
    assert model.decode(z).shape == (2, *SIZE, 3)


def test_a_sample_has_the_mean_and_variance_of_its_gaussian() -> None:
    gaussian = vae.Gaussian(jnp.array([1.0, -2.0]), jnp.log(jnp.array([4.0, 0.25])))
    drawn = np.asarray(gaussian.sample(normal(0, 100_000, 2)))
    np.testing.assert_allclose(drawn.mean(0), [1, -2], atol=0.03)
    np.testing.assert_allclose(drawn.var(0), [4, 0.25], rtol=0.03)


def test_the_frame_vae_sees_every_frame_alone() -> None:
    model, video = bound("frame"), normal(1, 1, *SIZE, 3)
    means = [model.encode(v)["frames"].mean[0] for v in (video, video.at[:, 2].set(0.0))]
    changed = np.abs(means[0] - means[1]).max(-1) > 1e-6
    np.testing.assert_array_equal(changed, [False, False, True, False])


def test_the_temporal_posterior_of_a_frame_sees_all_frames_and_their_order() -> None:
    model, video = bound("temporal"), normal(1, 1, *SIZE, 3)
    sensitivity = jax.jacobian(lambda v: model.encode(v)["motion"].mean[0].sum(-1))(video)  # [T, 1, T, H, W, C]
    assert np.all(np.abs(sensitivity).max((1, 3, 4, 5)) > 0)
    forwards, backwards = (model.encode(v)["content"].mean for v in (video, video[:, ::-1]))
    assert np.abs(forwards - backwards).max() > 1e-4


def test_motion_moves_one_frame_and_content_all() -> None:
    model = bound("temporal")
    z = {"content": normal(0, 1, 5), "motion": normal(1, 1, 4, 3)}

    def changed(**other: jax.Array) -> np.ndarray:
        difference = np.abs(model.decode(z) - model.decode({**z, **other}))
        return difference.max((0, 2, 3, 4)) > 1e-6

    np.testing.assert_array_equal(changed(motion=z["motion"].at[:, 1].add(1.0)), [False, True, False, False])
    assert changed(content=-z["content"]).all()


def test_the_recurrent_prior_is_causal() -> None:
    model = bound("temporal")
    content, motion = normal(0, 1, 5), normal(1, 1, 4, 3)

    def predicted(motion: jax.Array) -> jax.Array:
        prior = model.prior_of({"content": content, "motion": motion})["motion"]
        return jnp.stack(prior)[:, 0].sum((0, 2))  # [T]

    influence = np.abs(jax.jacobian(predicted)(motion)[:, 0]).max(-1)  # of frame [.., j] on the prior of frame [i, ..]
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((4, 4)), -1) > 0)


def test_latents_of_the_recurrent_prior_are_distributed_as_it_says() -> None:
    model, noise = bound("temporal"), {"content": normal(0, 2, 5), "motion": normal(1, 2, 4, 3)}
    z = model.sample_prior(noise)
    prior = model.prior_of(z)
    for name, gaussian in prior.items():
        np.testing.assert_allclose(gaussian.sample(noise[name]), z[name], rtol=1e-5, atol=1e-5)


def test_any_number_of_frames_is_drawn_encoded_and_decoded() -> None:
    model = bound("temporal")
    video = model.decode(model.sample_prior({"content": normal(0, 1, 5), "motion": normal(1, 1, 7, 3)}))
    assert video.shape == (1, 7, 16, 16, 3)
    assert model.encode(video)["motion"].mean.shape == (1, 7, 3)


def test_frames_that_eight_does_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"multiples of 8, got \(16, 12\)"):
        vae.FrameFeatures(8, 16).init(jax.random.key(0), jnp.zeros((1, 2, 16, 12, 3)))


def test_positions_of_frames_differ() -> None:
    codes = np.asarray(vae.positions(32, 7))
    assert codes.shape == (32, 7)
    distances = np.abs(codes[:, None] - codes[None]).max(-1) + np.eye(32)
    assert distances.min() > 0.1
