"""Every form of the convolutions against XLA's own, values and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvid.nn import conv as module
from jaxvid.nn.conv import Conv, ConvTranspose, conv, conv_transpose, depth_to_space, space_to_depth

VIDEO = ("NDHWC", "DHWIO", "NDHWC")
# (T, H, W), kernel, strides, (input, output) channels: few and many channels, odd sizes, small and large kernels.
CASES = [
    ((4, 6, 6), (3, 3, 3), (1, 1, 1), (40, 36)),
    ((2, 5, 7), (4, 2, 3), (1, 1, 1), (40, 3)),
    ((3, 4, 4), (1, 1, 1), (1, 1, 1), (40, 36)),
    ((4, 8, 6), (4, 4, 4), (2, 2, 2), (3, 36)),
    ((5, 7, 9), (3, 3, 4), (2, 2, 4), (40, 36)),
    ((1, 7, 5), (3, 4, 4), (1, 2, 2), (36, 3)),
    ((8, 8, 8), (2, 1, 4), (4, 2, 4), (3, 5)),
    ((1, 1, 1), (4, 4, 4), (2, 2, 2), (40, 36)),
    ((2, 5, 6), (3, 3, 5), (1, 1, 1), (40, 3)),
]
FORMS = ["conv on cpu", "conv_transpose on cpu", "conv_transpose on gpu"]


def plain_conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=VIDEO)


def plain_conv_transpose(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
    return lax.conv_transpose(x, kernel, strides, "SAME", dimension_numbers=VIDEO)


def values_and_gradients(function, x, kernel, strides):
    """The output, and the gradients of a weighted sum of it with respect to video and kernel."""

    def weighted(x, kernel):
        y = function(x, kernel, strides)
        return jnp.vdot(y, jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(x, kernel)
    return y, *gradients


@pytest.mark.parametrize(("sizes", "window", "strides", "channels"), CASES)
def test_equals_lax(monkeypatch, sizes, window, strides, channels):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *sizes, channels[0])), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*window, *channels)) / np.sqrt(np.prod(window) * channels[0]), jnp.float32)
    plain = [values_and_gradients(f, x, kernel, strides) for f in (plain_conv, plain_conv_transpose)]
    ours = [values_and_gradients(f, x, kernel, strides) for f in (conv, conv_transpose)]
    with monkeypatch.context() as gpu:
        gpu.setattr(module.jax, "default_backend", lambda: "gpu")
        ours.append(values_and_gradients(conv_transpose, x, kernel, strides))
    for name, got, want in zip(FORMS, ours, [*plain, plain[1]], strict=True):
        for what, a, b in zip(("values", "gradient by video", "gradient by kernel"), got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(np.abs(b).max())), err_msg=f"{name}, {what}")


@pytest.mark.parametrize("padding", [(2, 0), (0, 0), (0, 3)])
@pytest.mark.parametrize(("strides", "channels"), [((1, 1, 1), (40, 36)), ((1, 1, 1), (40, 3)), ((2, 2, 2), (3, 36))])
def test_frames_of_zeros_before_and_after_are_those_of_lax(padding, strides, channels):
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.normal(size=size) / 4, jnp.float32)
        for size in ((2, 5, 6, 6, channels[0]), (3, 3, 3, *channels))
    )

    def plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
        same = lax.padtype_to_pads(x.shape[2:4], kernel.shape[1:3], strides[1:], "SAME")
        return lax.conv_general_dilated(x, kernel, strides, (padding, *same), dimension_numbers=VIDEO)

    want = values_and_gradients(plain, x, kernel, strides)
    got = values_and_gradients(lambda *inputs: conv(*inputs, padding), x, kernel, strides)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(np.abs(b).max())))


def test_the_form_is_that_of_the_default_device(monkeypatch):
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    x, kernel = jnp.zeros((1, 2, 4, 4, 3)), jnp.zeros((3, 4, 4, 3, 5))

    def operations() -> list[str]:
        return [equation.primitive.name for equation in jax.make_jaxpr(conv)(x, kernel).eqns]

    assert operations() == ["conv_general_dilated"]
    for device in ("cpu", jax.devices()[0]):
        with jax.default_device(device):
            assert operations() != ["conv_general_dilated"]


@pytest.mark.parametrize(("places", "window", "strides"), [(15, (3, 3, 3), (1, 1, 1)), (4, (1, 4, 4), (1, 2, 2))])
def test_gradient_by_kernel_in_parts_equals_the_whole(monkeypatch, places, window, strides):
    """Parts of some rows, which differ in number."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s) / 8, jnp.float32) for s in ((2, 3, 7, 5, 36), (*window, 36, 40)))

    def gradient():
        function = jax.jit(lambda x, kernel: values_and_gradients(conv, x, kernel, strides)[2])
        return function(x, kernel), str(jax.make_jaxpr(function)(x, kernel)).count("conv_general_dilated[")

    whole, few = gradient()
    monkeypatch.setattr(module, "PLACES", places)
    parts, many = gradient()
    np.testing.assert_allclose(parts, whole, atol=1e-5 * float(np.abs(whole).max()))
    assert many > few


@pytest.mark.parametrize("layer", [Conv(24, (3, 3, 3), (2, 2, 2)), ConvTranspose(24)])
def test_no_gradient_of_a_strided_convolution_reaches_xla(layer):
    """On CPU neither the layer nor its gradients hold a 3-D convolution, or one that dilates what it convolves."""
    x = jnp.ones((1, 4, 8, 8, 36))
    params = jax.jit(layer.init)(jax.random.key(0), x)
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda p, x: layer.apply(p, x).sum(), (0, 1)))(params, x))
    dilations = [part.split(" ", 2)[:2] for part in jaxpr.split("lhs_dilation=")[1:]]
    assert len(dilations) > 1 and all(" ".join(each).startswith("(1, 1)") for each in dilations)


@pytest.mark.parametrize(("ours", "plain"), [(conv, plain_conv), (conv_transpose, plain_conv_transpose)])
def test_gradients_of_gradients_equal_those_of_lax(ours, plain):
    """What a gradient penalty needs: derivatives of every order."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s) / 4, jnp.float32) for s in ((2, 4, 4, 4, 3), (4, 4, 4, 3, 5)))

    def penalty(function, x, kernel):
        by_video, by_kernel = jax.grad(lambda x, k: jnp.sin(function(x, k, (2, 2, 2))).sum(), (0, 1))(x, kernel)
        return jnp.square(by_video).sum() + jnp.square(by_kernel).sum()

    got, want = (jax.grad(penalty, (1, 2))(f, x, kernel) for f in (ours, plain))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))


def test_modules_add_a_bias_and_follow_dtype():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 4, 40)), jnp.float32)
    for layer, plain, strides in [
        (Conv(36, strides=(2, 2, 2)), plain_conv, (2, 2, 2)),
        (ConvTranspose(36), plain_conv_transpose, (2, 2, 2)),
    ]:
        params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
        params = {"kernel": params["kernel"], "bias": params["bias"] + jnp.arange(36.0)}
        expected = plain(x, params["kernel"], strides) + jnp.arange(36.0)
        np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, atol=1e-5 * 36)
        half = layer.clone(dtype=jnp.bfloat16)
        assert jax.eval_shape(half.init, jax.random.key(0), x)["params"]["kernel"].dtype == jnp.float32
        assert jax.eval_shape(half.apply, {"params": params}, x).dtype == jnp.bfloat16
        assert "bias" not in jax.eval_shape(layer.clone(use_bias=False).init, jax.random.key(0), x)["params"]


def test_bfloat16_is_summed_in_float32():
    """The taps of the middle frame give 256, 1 and -256: float32 finds 1, where bfloat16 has no number 257."""
    kernel = (
        jnp.zeros((3, 1, 1, 40, 36), jnp.bfloat16).at[:, 0, 0, 0].set(jnp.array([[256], [1], [-256]], jnp.bfloat16))
    )
    y = jax.jit(conv)(jnp.ones((1, 3, 1, 1, 40), jnp.bfloat16), kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y[0, :, 0, 0, 0].astype(jnp.float32), [-255, 1, 256])


def test_space_to_depth_and_back():
    x = jnp.arange(2 * 4 * 6 * 8 * 3.0).reshape(2, 4, 6, 8, 3)
    y = space_to_depth(x, (2, 3, 4))
    assert y.shape == (2, 2, 2, 2, 72)
    np.testing.assert_array_equal(y[1, 1, 0, 1].reshape(2, 3, 4, 3), x[1, 2:4, 0:3, 4:8])
    np.testing.assert_array_equal(depth_to_space(y, (2, 3, 4)), x)


def test_errors_name_what_was_expected():
    x = jnp.ones((1, 3, 4, 4, 6))
    with pytest.raises(ValueError, match="multiples of \\(2, 2, 2\\)"):
        space_to_depth(x, (2, 2, 2))
    with pytest.raises(ValueError, match="multiple of 8"):
        depth_to_space(x, (2, 2, 2))
    with pytest.raises(ValueError, match="video \\[B,T,H,W,I\\]"):
        conv(x[0], jnp.ones((3, 3, 3, 6, 2)))
    with pytest.raises(ValueError, match="kernel \\[kt,kh,kw,I,O\\]"):
        conv_transpose(x, jnp.ones((3, 3, 3, 2, 6)), (2, 2, 2))
