"""The VAE's networks: what depends on what, by gradients and by changed inputs."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models import vae
from jaxvid.models.vae_networks import latent_shapes, make_vae

SIZE = (4, 8, 8)
NETWORK = {"width": 4, "hidden": 8, "strides": (2, 2), "heads": 2, "content": 5, "motion": 3, "memory": 8}
MODELS: dict[str, Callable[[], vae.VAE]] = {
    "frame": lambda: make_vae(SIZE, {"name": "frame", "width": 4, "hidden": 8, "strides": (2,), "dim": 6}),
    "temporal": lambda: make_vae(SIZE, {"name": "temporal", **NETWORK}),
    "layered": lambda: make_vae(SIZE, {"name": "layered", "foreground_size": 8, **NETWORK}),
}
CODES = {"content": (5,), "motion": (4, 3)}
SHAPES = {"frame": {"frames": (4, 6)}, "temporal": CODES, "layered": CODES}

# Each program runs a few times on tiny arrays: compiling it is what takes the time.


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(random(seed, *shape))


@functools.cache
def method(name: str, function: str) -> Callable:
    """A function of a model with random parameters, biases and the like included."""
    model, noise = MODELS[name](), {key: jnp.zeros((1, *shape)) for key, shape in SHAPES[name].items()}
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, *SIZE, 3)), noise, False), jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    spread = [max(math.prod(leaf.shape[:-1]), 4) ** -0.5 for leaf in leaves]
    variables = structure.unflatten(
        [np.float32(s) * random(i, *leaf.shape) for i, (s, leaf) in enumerate(zip(spread, leaves, strict=True))]
    )
    functions = {
        "prior": lambda model, z: model.prior(z, None),
        "sample": lambda model, noise: model.prior.sample(noise, None),
    }
    return lambda *inputs: model.apply(variables, *inputs, method=functions.get(function, function))


@pytest.mark.parametrize("name", MODELS)
def test_shapes(name: str) -> None:
    def everything(video: jax.Array) -> tuple:
        posterior = method(name, "encode")(video)
        z = {key: gaussian.mean for key, gaussian in posterior.items()}
        functions = ("prior", "sample", "decode")
        return posterior, *(method(name, function)(z) for function in functions)

    posterior, prior, drawn, video = jax.eval_shape(everything, jnp.zeros((2, *SIZE, 3)))
    shapes = {key: (2, *shape) for key, shape in SHAPES[name].items()}
    for gaussians in (posterior, prior):
        assert {key: (g.mean.shape, g.log_variance.shape) for key, g in gaussians.items()} == {
            key: (shape, shape) for key, shape in shapes.items()
        }
    assert {key: part.shape for key, part in drawn.items()} == shapes
    assert video.shape == (2, *SIZE, 3) and video.dtype == jnp.float32
    assert latent_shapes(MODELS[name](), (*SIZE, 3)) == SHAPES[name]


def test_a_sample_has_the_mean_and_variance_of_its_gaussian() -> None:
    gaussian = vae.Gaussian(jnp.array([1.0, -2.0]), jnp.log(jnp.array([4.0, 0.25])))
    drawn = np.asarray(gaussian.sample(normal(0, 100_000, 2)))
    np.testing.assert_allclose(drawn.mean(0), [1, -2], atol=0.03)
    np.testing.assert_allclose(drawn.var(0), [4, 0.25], rtol=0.03)


def test_the_frame_vae_sees_every_frame_alone() -> None:
    encode, video = jax.jit(method("frame", "encode")), normal(1, 1, *SIZE, 3)
    means = [encode(v)["frames"].mean[0] for v in (video, video.at[:, 2].set(0.0))]
    changed = np.abs(means[0] - means[1]).max(-1) > 1e-6
    np.testing.assert_array_equal(changed, [False, False, True, False])


def test_the_temporal_posterior_of_a_frame_sees_all_frames_and_their_order() -> None:
    encode, video = jax.jit(method("temporal", "encode")), normal(1, 1, *SIZE, 3)
    before = encode(video)
    for frame_index in range(SIZE[0]):
        after = encode(video.at[:, frame_index].add(1.0))
        assert np.all(np.abs(after["motion"].mean - before["motion"].mean).max(-1) > 1e-6)
    backwards = encode(video[:, ::-1])
    assert np.abs(before["content"].mean - backwards["content"].mean).max() > 1e-4


@pytest.mark.parametrize("name", ["temporal", "layered"])
def test_motion_moves_one_frame_and_content_all(name: str) -> None:
    decode, z = jax.jit(method(name, "decode")), {"content": normal(0, 1, 5), "motion": normal(1, 1, 4, 3)}

    def changed(**other: jax.Array) -> np.ndarray:
        return np.abs(decode(z) - decode({**z, **other})).max((0, 2, 3, 4)) > 1e-6

    np.testing.assert_array_equal(changed(motion=z["motion"].at[:, 1].add(1.0)), [False, True, False, False])
    assert changed(content=-z["content"]).all()


def test_a_layered_decoder_starts_with_a_spot_in_the_middle_over_a_color_gradient() -> None:
    model, codes = MODELS["layered"]().decoder, {"content": normal(0, 2, 5), "motion": normal(1, 2, 4, 3)}
    video, variables = jax.jit(lambda: model.init_with_output(jax.random.key(0), codes, False))()
    # Where the motion is, and what it is, hardly shows yet.
    np.testing.assert_allclose(video, jnp.repeat(video[:, :1], 4, 1), atol=0.3)
    border = video[:, :, (0, -1)]
    np.testing.assert_allclose(jnp.diff(border, 2, axis=3), 0, atol=1e-5)
    assert jnp.abs(jnp.diff(video[:, :, 2:6], 2, axis=3)).max() > 1e-2


@pytest.mark.parametrize(("name", "steps"), [("motion", 4), ("content", 5)])
def test_the_recurrent_prior_is_causal_in_time_and_through_the_content(name: str, steps: int) -> None:
    z = {"content": normal(0, 1, 5), "motion": normal(1, 1, 4, 3)}

    def predicted(part: jax.Array) -> jax.Array:
        prior = method("temporal", "prior")({**z, name: part})[name]
        return jnp.stack(prior).reshape(2, steps, -1).sum((0, 2))

    jacobian = jax.jit(jax.jacobian(predicted))(z[name]).reshape(steps, steps, -1)
    influence = np.abs(jacobian).max(-1)  # of step [.., j] on the prior of step [i, ..]
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((steps, steps)), -1) > 0)


def test_latents_of_the_recurrent_prior_are_distributed_as_it_says() -> None:
    noise = {"content": normal(0, 2, 5), "motion": normal(1, 2, 7, 3)}  # of any number of frames
    z = jax.jit(method("temporal", "sample"))(noise)
    for name, gaussian in jax.jit(method("temporal", "prior"))(z).items():
        np.testing.assert_allclose(gaussian.sample(noise[name]), z[name], rtol=1e-5, atol=1e-5)


def test_frames_that_the_strides_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"multiples of 8, got \(16, 12\)"):
        vae.FrameFeatures(8, 16).init(jax.random.key(0), jnp.zeros((1, 2, 16, 12, 3)))


def test_positions_of_frames_differ() -> None:
    codes = np.asarray(vae.positions(32, 7))
    assert codes.shape == (32, 7)
    distances = np.abs(codes[:, None] - codes[None]).max(-1) + np.eye(32)
    assert distances.min() > 0.1
