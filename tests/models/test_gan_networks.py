"""The networks of GANs: what their outputs depend on, and in which shapes they come."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models.gan3d import Generator
from jaxvid.models.gan_blocks import (
    ColorGradient,
    Compositor,
    Discriminator,
    Head,
    Limited,
    Renderer,
    Trunk,
    Upsample,
    sample_frames,
)
from jaxvid.models.gan_fc import Continuation, DenseDiscriminator, DenseGenerator
from jaxvid.models.gan_layered import LayeredGenerator
from jaxvid.models.gan_rnn import RecurrentDiscriminator, RecurrentGenerator
from jaxvid.nn.condition import Encoded
from jaxvid.nn.conv import Conv

DOUBLE, FRAME = (2, 2, 2), (1, 2, 2)
# Each program runs once on tiny arrays: compiling it is what takes the time.


def renderer(size=(4, 8, 8), factors=(DOUBLE, DOUBLE), **fields) -> Renderer:
    return Renderer(size=size, widths=(8, 8), factors=factors, norm="none", **fields)


def recurrent(frames: int, cell: str = "gru") -> RecurrentGenerator:
    compositor = Compositor(renderer=renderer((frames, 8, 8), (FRAME, FRAME)))
    return RecurrentGenerator(compositor=compositor, frames=frames, content=3, motion=2, memory=4, cell=cell)


def gradient(side: int) -> ColorGradient:
    return ColorGradient(size=(side, side))


def layered(frames: int, gradients: bool = False) -> LayeredGenerator:
    compositor = Compositor(
        renderer=renderer((1, 4, 4), (FRAME, FRAME), channels=1 if gradients else 4),
        background=gradient(8) if gradients else renderer((1, 8, 8), (FRAME, FRAME)),
        foreground=gradient(4) if gradients else None,
    )
    return LayeredGenerator(compositor=compositor, frames=frames, content=3, motion=2, memory=4)


TWO_STREAMS = Compositor(renderer=renderer(channels=4), background=renderer((1, 8, 8), (FRAME, FRAME)))
GRADIENTS = Compositor(renderer=renderer(channels=1), background=gradient(8), foreground=gradient(8))


def noise_for(network, count: int = 2) -> dict[str, jax.Array]:
    return {name: jnp.ones((count, *shape)) for name, shape in network.noise_shapes().items()}


GENERATORS = {
    "conv": Generator(compositor=Compositor(renderer=renderer()), noise=5),
    "residual": Generator(compositor=Compositor(renderer=renderer(residual=True)), noise=5),
    "two streams": Generator(compositor=TWO_STREAMS, noise=5),
    "gradients": Generator(compositor=GRADIENTS, noise=5),
    "gru": recurrent(4),
    "lstm": recurrent(4, "lstm"),
    "layered": layered(4),
    "layered gradients": layered(4, gradients=True),
    "dense": DenseGenerator(size=(4, 8, 8, 3), noise=5, width=7),
    "one dense layer": DenseGenerator(size=(4, 8, 8, 3), noise=5, width=0),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_make_videos_of_noise_and_of_conditions(name: str) -> None:
    network = GENERATORS[name]
    condition = jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
    video, variables = jax.jit(
        lambda: network.init_with_output(jax.random.key(0), noise_for(network), condition, False)
    )()
    assert video.shape == (2, 4, 8, 8, 3) and video.dtype == jnp.float32 and jnp.abs(video).max() <= 1
    # The noise is the same in both rows: only the condition can make them differ.
    assert jnp.abs(video[0] - video[1]).max() > 1e-4
    plain = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), noise_for(network), None, False))[0]
    assert plain.shape == video.shape


def test_of_width_0_a_dense_generator_is_one_layer() -> None:
    network, condition = DenseGenerator(size=(1, 8, 8, 3), noise=5, width=0), jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
    noise = noise_for(network)
    video, variables = network.init_with_output(jax.random.key(0), noise, condition, False)
    layer = variables["params"].pop("pixels")
    assert not variables["params"] and layer["kernel"].shape == (5 + 2, 8 * 8 * 3)
    expected = np.tanh(np.concatenate([noise["video"], condition], 1) @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(video, expected.reshape(2, 1, 8, 8, 3), atol=1e-6)


class Constant(nn.Module):
    """The same code for all conditions."""

    def __call__(self, conditions: dict[str, jax.Array]) -> Encoded:
        return Encoded(vector=jnp.ones((len(conditions["first_frames"]), 2)))


def test_a_continuation_changes_the_last_given_frame_by_its_contrast() -> None:
    network = DenseGenerator(size=(4, 8, 8, 3), noise=5, width=7)
    module = Continuation(network=network, encoder=Constant())
    frames = jax.random.uniform(jax.random.key(0), (1, 2, 8, 8, 3), minval=-1)
    noise = noise_for(network, 1)
    variables = jax.jit(lambda: module.init(jax.random.key(1), noise, {"first_frames": frames}, True))()
    changes = network.apply({"params": variables["params"]["network"]}, noise, jnp.ones((1, 2)), True)
    apply = jax.jit(module.apply, static_argnums=3)
    video = apply(variables, noise, {"first_frames": frames}, True)
    np.testing.assert_array_equal(video[:, :2], frames)
    contrast = np.ptp(np.asarray(frames[:, 1]), axis=(1, 2))
    np.testing.assert_allclose(video[:, 2:] - frames[:, 1:2], 2 * contrast * changes, atol=1e-5)
    # A plain frame has nothing that could move; what would leave the range is cut off outside training alone.
    plain = apply(variables, noise, {"first_frames": frames.at[:, -1].set(0.5)}, False)
    np.testing.assert_array_equal(plain[:, 2:], jnp.full_like(changes, 0.5))
    assert jnp.abs(video).max() > 1
    np.testing.assert_array_equal(apply(variables, noise, {"first_frames": frames}, False), jnp.clip(video, -1, 1))


@pytest.mark.parametrize(("make", "last"), [(recurrent, 4), (layered, 3)])  # how a frame moves on is seen in the next
def test_recurrent_generators_make_any_number_of_frames_each_from_the_noise_up_to_it(make: Callable, last: int) -> None:
    network = make(6)
    variables = jax.jit(lambda: make(4).init(jax.random.key(0), noise_for(make(4)), None, False))()
    noise = noise_for(network, 1)

    def middle(motion: jax.Array) -> jax.Array:
        return jnp.abs(network.apply(variables, {**noise, "motion": motion}, None, False)[0, 3]).sum()

    felt = jnp.abs(jax.jit(jax.grad(middle))(noise["motion"]))[0].sum(-1)
    assert (felt[:last] > 0).all() and (felt[last:] == 0).all()


@pytest.mark.parametrize("compositor", [TWO_STREAMS, GRADIENTS], ids=["two streams", "gradients"])
def test_a_video_lies_between_foreground_and_background(compositor: Compositor) -> None:
    codes = jax.random.normal(jax.random.key(0), (2, 1, 5))
    video, variables = jax.jit(lambda: compositor.init_with_output(jax.random.key(1), codes, codes, False))()
    foreground, mask, background = compositor.apply(variables, codes, codes, False, method="layers")
    assert background.shape == (2, 1, 8, 8, 3) and foreground.shape[1] == (4 if compositor is TWO_STREAMS else 1)
    assert mask.shape == (2, 4, 8, 8, 1) and 0 <= mask.min() < 0.5 < mask.max() <= 1
    np.testing.assert_allclose(video - background, mask * (foreground - background), atol=1e-5)


@pytest.mark.parametrize("name", ["conv", "recurrent", "layered"])
@pytest.mark.parametrize("conditioned", [True, False])
def test_static_frames_depend_on_the_condition_where_they_should(name: str, conditioned: bool) -> None:
    factors = (DOUBLE, DOUBLE) if name == "conv" else (FRAME, FRAME)
    size, side = ((1, 4, 4), 4) if name == "layered" else ((4, 8, 8), 8)
    compositor = Compositor(
        renderer=renderer(size, factors, channels=1),
        background=gradient(8),
        foreground=gradient(side),
        static_conditioned=conditioned,
    )
    codes = {"compositor": compositor, "frames": 4, "content": 3, "motion": 2, "memory": 4}
    network = {
        "conv": lambda: Generator(compositor=compositor, noise=5),
        "recurrent": lambda: RecurrentGenerator(**codes),
        "layered": lambda: LayeredGenerator(**codes),
    }[name]()
    inputs = noise_for(network), jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), False
    variables = jax.jit(lambda: network.init(jax.random.key(0), *inputs))()
    _, inner = jax.jit(lambda: network.apply(variables, *inputs, capture_intermediates=True))()
    made = {part: inner["intermediates"]["compositor"][part]["__call__"][0] for part in ("renderer", "background")}
    differ = {part: bool(jnp.abs(rows[0] - rows[1]).max() > 1e-5) for part, rows in made.items()}
    assert differ == {"renderer": True, "background": conditioned}


def test_a_color_gradient_has_no_curvature() -> None:
    codes = jax.random.normal(jax.random.key(0), (2, 1, 5))
    frame, _ = jax.jit(lambda: gradient(8).init_with_output(jax.random.key(1), codes, False))()
    assert frame.shape == (2, 1, 8, 8, 3) and jnp.abs(frame[0] - frame[1]).max() > 1e-3
    for axis in (2, 3):
        assert jnp.abs(jnp.diff(frame, axis=axis)).max() > 1e-3
        np.testing.assert_allclose(jnp.diff(frame, 2, axis=axis), 0, atol=1e-6)


def trunk(factors=(DOUBLE, DOUBLE), **fields) -> Trunk:
    return Trunk(widths=(8, 8), factors=factors, norm="none", **fields)


HEAD = Head(classes=3)
DISCRIMINATORS = {
    "video": (Discriminator(trunk=trunk(), head=HEAD), 1),
    "residual": (Discriminator(trunk=trunk(residual=True), head=HEAD), 1),
    "frames": (Discriminator(trunk=trunk((FRAME, FRAME)), head=HEAD, frames=2), 4),
    "recurrent": (RecurrentDiscriminator(trunk=trunk((FRAME, FRAME)), head=HEAD, memory=5), 1),
    "dense": (DenseDiscriminator(widths=(6, 5), head=HEAD), 1),
}


@pytest.mark.parametrize(("name", "projection"), [*((name, True) for name in DISCRIMINATORS), ("dense", False)])
def test_discriminators_depend_on_the_video_and_the_condition(name: str, projection: bool) -> None:
    network, parts = DISCRIMINATORS[name]
    network = network.clone(head=Head(classes=3, projection=projection))
    video = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3))
    condition = jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
    critique, variables = jax.jit(lambda: network.init_with_output(jax.random.key(0), video, condition, False))()
    assert critique.logits.shape == (2, parts) and critique.classes.shape == (2, parts, 3)
    other = jax.jit(lambda: network.apply(variables, video, condition[::-1], False))()
    assert jnp.abs(other.logits - critique.logits).min() > 1e-5
    # The auxiliary classifier does not depend on the answer.
    np.testing.assert_allclose(other.classes, critique.classes, atol=1e-6)
    seen = jax.jit(jax.grad(lambda x: network.apply(variables, x, condition, False).logits.sum()))(video)
    assert (jnp.abs(seen).sum((0, 2, 3, 4)) > 0).all()


def test_each_frame_is_judged_by_itself() -> None:
    network, _ = DISCRIMINATORS["frames"]
    video = jax.random.normal(jax.random.key(1), (1, 4, 8, 8, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(0), video, None, False))()
    seen = jax.jit(jax.grad(lambda x: network.apply(variables, x, None, False).logits[0, 2]))(video)
    assert (jnp.abs(seen).sum((0, 2, 3, 4)) > 0).tolist() == [False, False, True, False]


def test_in_training_the_videos_of_a_batch_show_some_of_their_frames_by_turns() -> None:
    video = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (4, 6, 2, 2, 1))
    seen = sample_frames(video, 2)[..., 0, 0, 0]
    assert seen.tolist() == [[0, 3], [1, 4], [2, 5], [3, 0]]
    halves = jax.pmap(lambda v: sample_frames(v, 2, "data"), axis_name="data", devices=jax.devices()[:2])(
        video.reshape(2, 2, *video.shape[1:])
    )
    np.testing.assert_array_equal(halves.reshape(4, 2, 2, 2, 1)[..., 0, 0, 0], seen)
    network, _ = DISCRIMINATORS["frames"]
    video = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(0), video, None, False))()
    subset, every = (network.apply(variables, video, None, train).logits for train in (True, False))
    np.testing.assert_allclose(subset, jnp.stack([every[0, ::2], every[1, 1::2]]), atol=1e-5)


def test_the_spectral_norm_divides_by_the_largest_singular_value() -> None:
    layer = Limited(layer=Conv(6, (1, 2, 2), use_bias=False), spectral=True)
    x = jax.random.normal(jax.random.key(1), (1, 1, 1, 1, 4))
    variables = layer.init(jax.random.key(0), x, False)
    for _ in range(50):
        _, changed = layer.apply(variables, x, True, mutable=["batch_stats"])
        variables = {**variables, **changed}
    (kernel,) = jax.tree.leaves(variables["params"])
    largest = np.linalg.svd(np.asarray(kernel).reshape(-1, 6), compute_uv=False)[0]
    plain = Conv(6, (1, 2, 2), use_bias=False).apply({"params": {"kernel": kernel / largest}}, x)
    np.testing.assert_allclose(layer.apply(variables, x, False), plain, rtol=1e-4, atol=1e-6)


def test_the_large_layout_makes_large_videos() -> None:
    factors = (DOUBLE, DOUBLE, FRAME, FRAME, FRAME)
    widths = (256, 128, 64, 32, 16)
    large = Renderer(size=(16, 128, 128), widths=widths, factors=factors, norm="group", residual=True)
    network = Generator(compositor=Compositor(renderer=large))
    mirror = Trunk(widths=widths[::-1], factors=factors[::-1], norm="none", residual=True)
    critic = Discriminator(trunk=mirror, head=Head())

    def both(key: jax.Array) -> tuple:
        video, _ = network.init_with_output(key, noise_for(network), None, False)
        return video, critic.init_with_output(key, video, None, False)[0].logits

    video, logits = jax.eval_shape(both, jax.random.key(0))
    assert video.shape == (2, 16, 128, 128, 3) and logits.shape == (2, 1)


@pytest.mark.parametrize("residual", [False, True])
def test_styles_alone_reach_every_frame_from_its_own_code(residual: bool) -> None:
    network = renderer((4, 8, 8), (FRAME, FRAME), residual=residual, modulated=True)
    codes = jax.random.normal(jax.random.key(0), (2, 4, 5))
    variables = jax.jit(lambda: network.init(jax.random.key(1), codes, train=False))()
    # The first grid is the same in all frames, so that only styles tell them apart.
    variables["params"]["Dense_0"]["kernel"] *= 0
    variables["params"]["Dense_0"]["bias"] += 1

    def changes(codes: jax.Array) -> np.ndarray:
        video = network.apply(variables, codes, train=False)
        return np.abs(np.asarray(video - other)).max((0, 2, 3, 4)) > 1e-4

    other = network.apply(variables, codes.at[:, 2].add(1.0), train=False)
    # Convolutions of residual stages are three frames wide.
    np.testing.assert_array_equal(changes(codes), [residual, residual, True, residual])


def test_a_pooled_discriminator_does_not_ask_where() -> None:
    discriminator = Discriminator(trunk=trunk((FRAME, FRAME), pooled=True), head=Head())
    shape = jax.random.normal(jax.random.key(0), (1, 2, 4, 4, 3))
    at = [jnp.zeros((1, 2, 24, 24, 3)).at[:, :, y : y + 4, x : x + 4].set(shape) for y, x in ((8, 8), (12, 8))]
    variables = discriminator.init(jax.random.key(1), at[0], None, train=False)
    first, second = (discriminator.apply(variables, video, None, train=False) for video in at)
    np.testing.assert_allclose(first.logits, second.logits, rtol=1e-4)
    assert abs(float(first.logits[0, 0])) > 1e-3 and first.features[-1].shape == (1, 2, 16)


def test_mirrored_upsampling_of_even_features_is_even() -> None:
    """Of the same variance as other kernels, and without a checkerboard away from the edges."""
    x, sizes = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (64,)), (1, 2, 4, 4, 64)), {}
    for mirrored in (False, True):
        layer = Upsample(features=64, factor=DOUBLE, mirrored=mirrored)
        variables = layer.init(jax.random.key(1), x)
        inner = layer.apply(variables, x)[0, 2, 1:-1, 1:-1]
        sizes[mirrored] = float(variables["params"]["ConvTranspose_0"]["kernel"].std())
        assert (float(inner.std((0, 1)).max()) < 1e-5) == mirrored
    np.testing.assert_allclose(sizes[True], sizes[False], rtol=0.02)
