"""Flows before a tokenizer: exactly back, and the determinant of the Jacobian beside JAX's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid.methods import vqvae
from jaxvid.models.invertible import LIMIT, ActNorm, Coupling, Invertible

RNG = np.random.default_rng(0)
VIDEO = jnp.asarray(RNG.uniform(-1, 1, (2, 4, 8, 6, 3)), jnp.float32)
SMALL = jnp.asarray(RNG.uniform(-1, 1, (1, 2, 4, 4, 1)), jnp.float32)


@pytest.fixture(params=[False, True], ids=["shift", "scale"], name="flows")
def flows_fixture(request) -> Invertible:
    return Invertible(number=4, width=16, scale=request.param)


def shaken(flows, video: jax.Array, size: float = 0.5):
    """Parameters that are all random, since at first the flows are the identity."""
    random = np.random.default_rng(1)
    variables = jax.eval_shape(flows.init, jax.random.key(0), video)
    scaled = {"kernel": 0.2, "bias": 1.0, "shift": 1.0, "log_scale": 1.0}

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.float32(random.normal(0, size * scaled[path[-1].key], leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, variables)


def both(flows, variables, video: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the flows make of a video, the log-determinants, and what they make of the first in turn."""
    folded, log_determinant = jax.jit(flows.apply)(variables, video)
    back = jax.jit(functools.partial(flows.apply, method="inverse"))(variables, folded)
    return folded, log_determinant, back


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("scale", [False, True])
def test_the_inverse_is_exact_and_changes_what_it_should(number: int, scale: bool) -> None:
    flows = Invertible(number=number, width=16, scale=scale)
    folded, log_determinant, back = both(flows, shaken(flows, VIDEO), VIDEO)
    assert folded.shape == (2, 2, 4, 3, 24) and log_determinant.shape == (2,) and folded.dtype == jnp.float32
    np.testing.assert_allclose(back, VIDEO, atol=1e-5)
    plain = Invertible(number=number, width=16, scale=scale)
    assert np.abs(folded - plain.init_with_output(jax.random.key(0), VIDEO)[0][0]).mean() > 0.1


def test_videos_of_half_precision_come_back_too(flows: Invertible) -> None:
    half = VIDEO.astype(jnp.bfloat16)
    folded, _, back = both(flows, shaken(flows, half), half)
    assert folded.dtype == back.dtype == jnp.float32
    np.testing.assert_allclose(back, half.astype(jnp.float32), atol=1e-5)


def test_no_product_is_rounded_on_the_way(flows: Invertible) -> None:
    """GPUs and TPUs would, by themselves, and both directions would see other roundings."""
    variables = jax.eval_shape(flows.init, jax.random.key(0), VIDEO)
    text = str(jax.make_jaxpr(lambda v, x: flows.apply(v, flows.apply(v, x)[0], method="inverse"))(variables, VIDEO))
    assert "HIGHEST" in text and "precision=None" not in text


def test_the_log_determinant_is_that_of_the_jacobian(flows: Invertible) -> None:
    variables = shaken(flows, SMALL)

    @jax.jit
    def jacobian(video: jax.Array) -> jax.Array:
        return jax.jacobian(lambda flat: flows.apply(variables, flat.reshape(SMALL.shape))[0].ravel())(video.ravel())

    sign_and_log = np.linalg.slogdet(np.asarray(jacobian(SMALL), np.float64))
    found = flows.apply(variables, SMALL)[1]
    np.testing.assert_allclose(found, [sign_and_log.logabsdet], atol=1e-4)
    assert abs(float(found[0])) > 0.1


def test_each_video_has_a_log_determinant_of_its_own() -> None:
    flows = Invertible(number=2, width=16, scale=True)
    variables = shaken(flows, VIDEO)
    together = flows.apply(variables, VIDEO)[1]
    np.testing.assert_allclose(together[1:], flows.apply(variables, VIDEO[1:])[1], rtol=1e-5)
    assert abs(together[0] - together[1]) > 1e-3


def test_at_first_frames_fold_into_channels_and_nothing_else_happens(flows: Invertible) -> None:
    (folded, log_determinant), variables = flows.init_with_output(jax.random.key(0), VIDEO)
    np.testing.assert_array_equal(log_determinant, 0)
    blocks = np.asarray(VIDEO).reshape(2, 2, 2, 4, 2, 3, 2, 3)
    np.testing.assert_array_equal(folded, np.einsum("atbhcwdx->athwbcdx", blocks).reshape(folded.shape))
    np.testing.assert_array_equal(flows.apply(variables, folded, method="inverse"), VIDEO)
    reverse, _ = Invertible(number=3, width=16).init_with_output(jax.random.key(0), VIDEO)[0]
    np.testing.assert_array_equal(reverse, folded[..., ::-1])


def test_a_coupling_keeps_the_half_that_it_reads() -> None:
    x, coupling = jnp.asarray(RNG.normal(0, 1, (2, 2, 3, 3, 6)), jnp.float32), Coupling(width=8, scale=True)
    variables = shaken(coupling, x)
    y, _ = coupling.apply(variables, x)
    np.testing.assert_array_equal(y[..., :3], x[..., :3])
    step = jnp.zeros(x.shape).at[..., 3:].set(1e-2)
    factor = (coupling.apply(variables, x + step)[0] - y)[..., 3:] / 1e-2
    shift, log_scale = coupling.apply(variables, x[..., :3], method="learned")
    np.testing.assert_allclose(factor, jnp.exp(log_scale), rtol=1e-3)
    np.testing.assert_allclose(y[..., 3:], x[..., 3:] * jnp.exp(log_scale) + shift, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", [ActNorm(), Coupling(width=8, scale=True)], ids=["actnorm", "coupling"])
def test_scales_stay_bounded_whatever_was_learned(module) -> None:
    x = jnp.asarray(RNG.normal(0, 1, (2, 2, 3, 3, 6)), jnp.float32)
    wild = shaken(module, x, size=100.0)
    log_determinant = module.apply(wild, x)[1]
    assert (np.abs(log_determinant) <= LIMIT * x[0].size).all() and np.abs(log_determinant).max() > 0
    gradient = jax.grad(lambda v: module.apply(v, x, method="inverse").sum())(wild)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_gradients_through_both_directions_are_those_of_differences_and_remat_changes_none(flows: Invertible) -> None:
    variables = shaken(flows, SMALL)

    def loss(variables, flows=flows) -> jax.Array:
        folded, log_determinant = flows.apply(variables, SMALL)
        back = flows.apply(variables, jnp.tanh(folded), method="inverse")
        return jnp.square(back - SMALL).mean() + log_determinant.sum() / SMALL.size

    gradient = jax.jit(jax.grad(loss))(variables)
    direction = jax.tree.map(lambda leaf: np.float32(RNG.normal(0, 1, leaf.shape)), variables)
    along = jax.jit(lambda step: loss(jax.tree.map(lambda v, d: v + step * d, variables, direction)))
    expected = (along(2e-3) - along(-2e-3)) / 4e-3
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.vdot(g, d), gradient, direction)))
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    again = jax.grad(functools.partial(loss, flows=flows.clone(remat=True)))(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient, again)


def test_sizes_that_are_odd_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of \(2, 2, 2\), got \[3, 8, 6\]"):
        jax.eval_shape(lambda: Invertible().init(jax.random.key(0), VIDEO[:, :3]))


def config(**fields) -> ConfigDict:
    made = recipe("vqvae_flow:tiny")
    made.update_from_flattened_dict(fields)
    return made


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model.flows.number": 0}, "model.flows.number is 0, expected at least 1"),
        ({"model.flows.width": 0}, "model.flows.width is 0, expected at least 1"),
        ({"model.downsample": (1, 4, 4)}, r"model.downsample is \(1, 4, 4\), and model.flows halve frames.*such as"),
        ({"model.downsample": (2, 4, 1)}, r"model.downsample is \(2, 4, 1\), .*a multiple of 2"),
        ({"model.downsample": (3, 4, 4), "data.frames": 9}, r"model.downsample is \(3, 4, 4\), .*a multiple of 2"),
        ({"data.frames": 9}, "does not divide the video: frames 9 by 4"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        vqvae.make(config(**fields))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_encoder_sees_the_flows_and_the_video_is_their_inverse(dtype: str) -> None:
    model = vqvae.make_model(config(**{"model.dtype": dtype, "model.flows.scale": True}))
    video = jnp.asarray(RNG.uniform(-1, 1, (2, 8, 16, 16, 3)), jnp.float32)
    rngs = {"params": jax.random.key(0), "quantizer": jax.random.key(1)}
    variables = jax.device_get(jax.jit(functools.partial(model.init, train=False))(rngs, video))
    flows = shaken(model.flows, video)
    variables["params"]["flows"] = flows["params"]
    (found, quantized), _ = model.apply(variables, video, train=False, mutable=[])
    folded, log_determinant = model.flows.apply(flows, video)
    bound = model.bind(variables)
    np.testing.assert_array_equal(bound.quantizer(bound.encoder(folded, False), False).indices, quantized.indices)
    decoded = bound.decoder(quantized.quantized, False)
    assert quantized.indices.shape == (2, 2, 4, 4) and decoded.shape == folded.shape == (2, 4, 8, 8, 24)
    np.testing.assert_allclose(found, model.flows.apply(flows, decoded, method="inverse"), atol=1e-5)
    np.testing.assert_allclose(found, bound.decode(bound.encode(video)), atol=1e-5)
    np.testing.assert_allclose(model.flows.apply(flows, found)[0], decoded, atol=1e-4)
    values = video[0].size
    np.testing.assert_allclose(bound.log_determinant(video), log_determinant / values, rtol=1e-5)
    np.testing.assert_allclose(quantized.metrics["log_determinant"], log_determinant.mean() / values, rtol=1e-5)
