"""What users do with a VAE, on one whose every function is known, and on the networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe

from jaxvid.core import normalize
from jaxvid.latents import Codec, compress, decompress, fill_in, information, interpolate, swap, traverse
from jaxvid.methods import vae
from jaxvid.models.vae import Gaussian

RNG = np.random.default_rng(0)
PRIOR_MEAN, PRIOR_SD = 0.25, 0.5
SD = np.array([0.01, 0.02, 0.05], np.float32)  # of the posterior


def known_codec() -> Codec:
    """The latents of a frame are its mean color; decoding fills the frame with it."""

    def encode(video: jax.Array) -> dict[str, Gaussian]:
        mean = normalize(video).mean((2, 3))
        return {"frames": Gaussian(mean, jnp.broadcast_to(2 * jnp.log(SD), mean.shape))}

    def prior(z: dict[str, jax.Array]) -> dict[str, Gaussian]:
        like = jnp.ones_like(z["frames"])
        return {"frames": Gaussian(PRIOR_MEAN * like, 2 * jnp.log(PRIOR_SD) * like)}

    def decode(z: dict[str, jax.Array]) -> jax.Array:
        return jnp.broadcast_to(z["frames"][:, :, None, None], (*z["frames"].shape[:2], 4, 4, 3))

    return Codec({"frames": (5, 3)}, encode, decode, prior, lambda keys, frames: {})


def plain_clips(clips: int) -> np.ndarray:
    """Clips whose every frame has one color."""
    colors = RNG.uniform(-1, 1, (clips, 5, 1, 1, 3)).astype(np.float32)
    return np.broadcast_to(colors, (clips, 5, 4, 4, 3))


def test_decompressed_clips_differ_by_at_most_half_a_width(tmp_path) -> None:
    codec, video = known_codec(), plain_clips(3)
    found = compress(codec, video, tmp_path / "clips.npz", step=2.0)
    error = np.abs(decompress(codec, tmp_path / "clips.npz") - video).reshape(-1, 3).max(0)
    assert np.all(error <= SD * 1.001) and np.all(error > 0.5 * SD)
    assert found.file_bits == 8 * (tmp_path / "clips.npz").stat().st_size and found.raw_bits == 8 * video.size
    mse = np.square(decompress(codec, tmp_path / "clips.npz") - video).mean((1, 2, 3, 4))
    np.testing.assert_allclose(found.psnr, 10 * np.log10(4 / mse), rtol=1e-5)


@pytest.mark.parametrize("step", [0.5, 8.0])
def test_ideal_bits_are_the_surprise_of_the_prior(tmp_path, step) -> None:
    video = plain_clips(2)
    found = compress(known_codec(), video, tmp_path / "clips.npz", step)

    def below(x: float) -> float:
        return 0.5 * math.erfc((PRIOR_MEAN - x) / PRIOR_SD / math.sqrt(2))

    for clip, bits in zip(video[:, :, 0, 0], found.ideal_bits, strict=True):
        expected = 0.0
        for value, width in zip(clip.ravel(), np.tile(step * SD, 5).astype(np.float64), strict=True):
            middle = round(value / width) * width
            expected -= math.log2(below(middle + width / 2) - below(middle - width / 2))
        np.testing.assert_allclose(bits, expected, rtol=1e-4)


def test_smaller_steps_cost_bits_and_buy_quality(tmp_path) -> None:
    video = plain_clips(400)
    coarse, fine = (compress(known_codec(), video, tmp_path / "clips.npz", step) for step in (2.0, 0.5))
    # Two bits for each of 15 values, where the prior is about flat over a width.
    np.testing.assert_allclose((fine.ideal_bits - coarse.ideal_bits).mean(), 30, atol=0.5)
    np.testing.assert_allclose((fine.psnr - coarse.psnr).mean(), 20 * math.log10(4), atol=0.5)


def test_what_cannot_be_compressed_or_decompressed_is_named(tmp_path) -> None:
    codec = known_codec()
    with pytest.raises(ValueError, match="step is 0, expected a number above 0"):
        compress(codec, plain_clips(1), tmp_path / "clips.npz", 0)
    compress(codec, plain_clips(1), tmp_path / "clips.npz")
    for latents in ({"frames": (5, 4)}, {"grid": (5, 3)}):
        with pytest.raises(ValueError, match="does not hold the latents of this model"):
            decompress(codec._replace(latents=latents), tmp_path / "clips.npz")


def test_information_is_the_kl_of_each_dimension() -> None:
    video = plain_clips(3)
    found = information(known_codec(), video)["frames"]
    means = video[:, :, 0, 0]
    each = np.log(PRIOR_SD / SD) + (SD**2 + (means - PRIOR_MEAN) ** 2) / (2 * PRIOR_SD**2) - 0.5
    np.testing.assert_allclose(found, each.sum(1).mean(0), rtol=1e-4)


def test_frames_between_two_fade_from_one_to_the_other() -> None:
    first, last = plain_clips(2)[:, 0], (RNG.uniform(0, 255, (2, 1, 1, 3)) * np.ones((4, 4, 1))).astype(np.uint8)
    codec = known_codec()
    video = codec.decode(fill_in(codec, first, last, 7))
    end = last.astype(np.float32) / 127.5 - 1
    for index in range(7):
        np.testing.assert_allclose(video[:, index], first + index / 6 * (end - first), atol=1e-5)
    with pytest.raises(ValueError, match="frames is 1, expected at least 2"):
        fill_in(codec, first, last, 1)
    with pytest.raises(ValueError, match="A latent grid has no latents of single frames"):
        fill_in(codec._replace(latents={"grid": (1, 2, 2, 4)}), first, last, 7)


def latents(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {"content": jnp.asarray(rng.normal(size=(1, 3))), "motion": jnp.asarray(rng.normal(size=(1, 5, 2)))}


def test_interpolation_goes_straight() -> None:
    a, b = latents(0), latents(1)
    for weight in (0.0, 0.3, 1.0):
        between = interpolate(a, b, weight)
        for name in a:
            np.testing.assert_allclose(between[name], a[name] + weight * (b[name] - a[name]), rtol=1e-5)


def test_a_traversal_moves_one_dimension() -> None:
    z = latents(0)
    for name, dimension in (("content", 2), ("motion", 0)):
        moved = traverse(z, name, dimension, [-1.0, 0.0, 2.0])
        for key, part in moved.items():
            expected = np.repeat(np.asarray(z[key]), 3, 0)
            if key == name:
                expected[..., dimension] += np.array([-1.0, 0.0, 2.0]).reshape(-1, *(1,) * (part.ndim - 2))
            np.testing.assert_allclose(part, expected, rtol=1e-6)
    with pytest.raises(ValueError, match='the latent is "contents".*did you mean content'):
        traverse(z, "contents", 0, [1.0])
    with pytest.raises(ValueError, match="dimension is 3, expected 0 to 2: content has 3 dimensions"):
        traverse(z, "content", 3, [1.0])


def test_swapping_takes_each_latent_from_its_clip() -> None:
    a, b = latents(0), latents(1)
    swapped = swap(content=a, motion=b)
    assert swapped["content"] is a["content"] and swapped["motion"] is b["motion"]
    with pytest.raises(ValueError, match="The latents of this model are frames: only"):
        swap({"frames": a["motion"]}, {"frames": b["motion"]})


def test_the_codec_of_a_run_computes_what_the_method_does() -> None:
    config = recipe("vae:tiny")
    config.model.likelihood = "bernoulli"
    config.condition.on, config.condition.classes = ("label",), ("left", "right")
    method, video = vae.make(config), jnp.asarray(RNG.integers(0, 256, (2, 8, 16, 16, 3), np.uint8))
    batch, label = {"video": video, "label": jnp.ones(2, jnp.int32)}, jnp.ones(1, jnp.int32)
    state, keys = jax.jit(method.init)(jax.random.key(0), batch), jax.random.split(jax.random.key(1))
    codec = vae.codec(config, state, {"label": label})
    z = vae.means(codec.encode(video))
    assert {name: part.shape[1:] for name, part in z.items()} == codec.latents
    reconstruction = jax.jit(lambda *inputs: method.eval_step(*inputs).panels["reconstruction"])
    expected = reconstruction(state, batch, jax.random.key(0))
    np.testing.assert_allclose(codec.decode(z), expected, atol=1e-5)
    drawn, sample = codec.decode(codec.draw(keys, 8)), jax.jit(method.sample)
    np.testing.assert_allclose(drawn, sample(state, {"label": batch["label"]}, keys), atol=1e-5)
    assert jnp.abs(drawn - sample(state, {"label": 0 * batch["label"]}, keys)).max() > 1e-3  # another class
    assert jax.tree.map(jnp.shape, codec.draw(keys, 12)) == {"content": (2, 8), "motion": (2, 12, 4)}
