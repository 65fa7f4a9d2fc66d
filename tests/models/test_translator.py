"""Networks of translators: any size, and each frame by itself but for what its radius says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models.translator import TwoDomains, make_discriminator, make_generator, pad_to_multiple

OPTIONS = {
    "name": "resnet",
    "widths": (4, 8, 8),
    "blocks": 2,
    "kernel": 3,
    "norm": "frame",
    "taps": False,
    "window": 0,
    "heads": 2,
    "output": "direct",
}
PATCHES = {"frames": 1, "stride": 1, "widths": (4, 8), "norm": "frame"}


def video(*shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(sum(shape)), (*shape, 3), minval=-1, maxval=1)


def shaken(variables: dict) -> dict:
    """Parameters that are neither 0 nor small."""
    return jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables)


@pytest.mark.parametrize("fields", [{}, {"name": "unet"}, {"output": "masked"}, {"norm": "none", "kernel": 7}])
@pytest.mark.parametrize("size", [(1, 8, 8), (5, 9, 7), (2, 2, 11), (1, 1, 1)])
def test_any_size_comes_back_in_range(fields: dict, size: tuple[int, int, int]) -> None:
    generator = make_generator({**OPTIONS, **fields})
    x = video(2, *size)
    variables = generator.init(jax.random.key(0), x)
    made = generator.apply(shaken(variables), x)
    assert made.shape == x.shape and made.dtype == jnp.float32 and np.abs(made).max() <= 1


def test_borders_are_reflected_and_what_is_too_small_is_repeated() -> None:
    x = np.asarray(video(1, 1, 5, 1))
    found = pad_to_multiple(jnp.asarray(x), 4)
    np.testing.assert_array_equal(found[0, 0, :, 0], np.stack([x[0, 0, i, 0] for i in (0, 1, 2, 3, 4, 3, 2, 1)]))
    np.testing.assert_array_equal(found[0, 0, 0], np.repeat(x[0, 0, 0], 4, 0))


@pytest.mark.parametrize(("fields", "radius"), [({}, 0), ({"taps": True}, 2), ({"taps": True, "window": 1}, 3)])
def test_a_frame_depends_on_those_within_the_radius_alone(fields: dict, radius: int) -> None:
    generator = make_generator({**OPTIONS, **fields})
    assert generator.trunk.radius == radius
    x = video(1, 9, 8, 8)
    variables = shaken(generator.init(jax.random.key(0), x))
    weights = jax.random.normal(jax.random.key(1), (8, 8, 3))
    gradient = jax.jit(jax.grad(lambda x: (generator.apply(variables, x)[0, 4] * weights).sum()))(x)
    reached = np.flatnonzero(np.abs(gradient[0]).max((1, 2, 3)) > 0)
    assert reached.tolist() == list(range(4 - radius, 5 + radius))


@pytest.mark.parametrize("output", ["masked", "residual"])
def test_a_masked_or_residual_generator_begins_near_the_identity(output: str) -> None:
    generator = make_generator({**OPTIONS, "output": output})
    x = video(2, 2, 8, 8)
    variables = generator.init(jax.random.key(0), x)
    assert 0 < np.abs(generator.apply(variables, x) - x).mean() < 0.15 * np.abs(x).mean()
    assert np.abs(generator.apply(shaken(variables), x)).max() <= 1


def test_a_code_changes_what_is_made() -> None:
    generator = make_generator(OPTIONS)
    x, codes = video(2, 2, 8, 8), jnp.eye(2)
    variables = shaken(generator.init(jax.random.key(0), x, codes))
    made, other = (generator.apply(variables, x, code) for code in (codes, codes[::-1]))
    assert np.abs(made - other).max((1, 2, 3, 4)).min() > 1e-3


def test_two_domains_have_two_networks_or_one_trunk_between_two_ends() -> None:
    x = video(1, 1, 8, 8)
    found = {}
    for shared in (False, True):
        model = TwoDomains(generators=[make_generator(OPTIONS) for _ in range(2)], shared=shared)
        variables = model.init(jax.random.key(0), x, method="both")
        found[shared] = variables["params"]
        moved = jax.grad(lambda v, model=model: model.apply(v, x, 0, 1).sum())(variables)["params"]
        touched = {
            (number, part)
            for number, parts in moved.items()
            for part, leaves in parts.items()
            if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(leaves))
        }
        one, two = sorted(found[shared])
        ends = {(two, "encoder"), (two, "decoder")}  # of a domain's encoder is the other's generator
        assert touched == ends | {(one if shared else two, "trunk")}
    sizes = {shared: sum(leaf.size for leaf in jax.tree.leaves(params)) for shared, params in found.items()}
    trunk = sum(leaf.size for leaf in jax.tree.leaves(sorted(found[True].items())[0][1]["trunk"]))
    assert sizes[False] - sizes[True] == trunk


def test_the_mean_color_of_a_frame_reaches_no_convolution_and_still_counts() -> None:
    discriminator = make_discriminator({"frames": PATCHES}, frames=2, classes=4)
    x = video(2, 2, 16, 16) / 2
    variables = discriminator.init(jax.random.key(0), x, None, False)
    brighter = x + jnp.array([0.1, 0.3]).reshape(1, 2, 1, 1, 1)
    for given, moved in ((variables, False), (shaken(variables), True)):
        (one,), (other,) = (discriminator.apply(given, each, None, False) for each in (x, brighter))
        for a, b in zip(one.features, other.features, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        for a, b in ((one.logits, other.logits), (one.classes, other.classes)):
            assert (np.abs(a - b).max() > 1e-3) == moved


def test_patches_see_their_part_of_the_frames_they_are_made_of() -> None:
    discriminator = make_discriminator({"clips": {**PATCHES, "frames": 2, "stride": 3}}, frames=5, classes=4)
    x = video(2, 5, 16, 16)
    variables = shaken(discriminator.init(jax.random.key(0), x, None, False))
    (critique,) = discriminator.apply(variables, x, None, False)
    assert critique.logits.shape == (2, 2 * 4 * 4) and critique.classes.shape == (2, 1, 4)
    assert [feature.shape for feature in critique.features] == [(2, 2, 8, 8, 4), (2, 2, 4, 4, 8)]
    gradient = jax.grad(lambda x: discriminator.apply(variables, x, None, False)[0].logits[0, 0])(x)
    reached = np.abs(gradient).max(-1)
    assert reached[1].max() == 0 and np.flatnonzero(reached[0].max((1, 2))).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "resnt"}, "did you mean resnet"),
        ({"norm": "batch"}, "model.generator.norm .* frame, none"),
        ({"output": "mask"}, "did you mean masked"),
        ({"widths": ()}, "expected widths"),
        ({"blocks": 0}, "of at least 1"),
        ({"window": -1}, "of at least 1"),
        ({"window": 1, "heads": 3}, "widths end with 8, expected a multiple of model.generator.heads=3"),
    ],
)
def test_a_generator_that_cannot_be_made_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_generator({**OPTIONS, **fields})


@pytest.mark.parametrize(
    ("panel", "sentence"),
    [
        ({}, "model.discriminators is empty: expected one"),
        ({"clips": {**PATCHES, "frames": 3, "stride": 2}}, "clips looks at 5 frames, and data.frames is 4"),
        ({"frames": {**PATCHES, "widths": ()}}, "expected numbers of at least 1"),
        ({"frames": {**PATCHES, "norm": "batch"}}, "model.discriminators.frames.norm"),
    ],
)
def test_a_discriminator_that_cannot_be_made_is_one_sentence(panel: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_discriminator(panel, frames=4)


def test_images_are_judged_by_the_members_of_single_frames() -> None:
    panel = {"clips": {**PATCHES, "frames": 3}, "frames": PATCHES}
    assert [len(make_discriminator(panel, frames=frames).members) for frames in (3, 1)] == [2, 1]
    assert make_discriminator(panel, frames=1) == make_discriminator({"frames": PATCHES}, frames=1)
    with pytest.raises(ValueError, match="model.discriminators is without one of single frames, and data.frames is 1"):
        make_discriminator({"clips": panel["clips"]}, frames=1)
