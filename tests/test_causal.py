"""Causal tokenizers: no latent sees later frames, an image is a video of one frame, and parts equal the whole."""

from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvid import data, parallel, tokens
from jaxvid.config import recipe
from jaxvid.core import find_method, make_method
from jaxvid.methods import vae, vqvae
from jaxvid.models.vae import means
from jaxvid.models.vqvae import Decoder, Encoder, ResidualStack
from jaxvid.nn.causal import PAST, CausalConv, CausalConvTranspose
from jaxvid.pixels import to_uint8
from jaxvid.run import Run

SIZE = (2, 25, 8, 8)  # 1 + 6 * 4 frames


def stack(norm: str = "frame", heads: int = 2) -> ResidualStack:
    return ResidualStack(blocks=2, heads=heads, norm=norm, causal=True)


@pytest.fixture(scope="module", name="networks")
def networks_fixture():
    """Encode and decode, of random parameters, and a video."""
    video = jax.random.normal(jax.random.key(0), (*SIZE, 3))
    found = []
    for network, x in (
        (Encoder(stack=stack(), width=8, features=4, downsample=(4, 2, 2)), video),
        (Decoder(stack=stack(), width=8, upsample=(4, 2, 2)), jnp.ones((2, 7, 4, 4, 4))),
    ):
        variables = network.init(jax.random.key(1), x, False)
        assert list(variables) == ["params"]
        found.append(
            jax.jit(lambda x, past={}, n=network, v=variables: n.apply({**v, **past}, x, False, mutable=[PAST]))
        )
    return *found, video


def test_nothing_sees_later_frames(networks) -> None:
    encode, decode, video = networks
    seen = jax.jacrev(lambda video: jnp.abs(encode(video)[0]).sum((0, 2, 3, 4)))(video)
    seen = np.abs(seen).sum((1, 3, 4, 5)) > 0  # [latent, frame]
    latent, frame = np.indices(seen.shape)
    assert not seen[frame > 4 * latent].any() and seen[(frame <= 4 * latent) & (frame > 4 * latent - 4)].all()
    latents = encode(video)[0]
    seen = jax.jacrev(lambda latents: jnp.abs(decode(latents)[0]).sum((0, 2, 3, 4)))(latents)
    seen = np.abs(seen).sum((1, 3, 4, 5)) > 0  # [frame, latent]
    frame, latent = np.indices(seen.shape)
    own = -(-frame // 4)
    assert not seen[latent > own].any() and seen[latent == own].all()


@pytest.mark.parametrize("ends", [(1, 5, 9, 13, 17, 21, 25), (9, 17, 25), (5, 25), (21, 25), (25,)])
def test_parts_equal_the_whole(networks, ends) -> None:
    encode, decode, video = networks
    latents = encode(video)[0]
    whole = decode(latents)[0]
    past, again, start = [{}, {}], [], 0
    for end in ends:
        part, past[0] = encode(video[:, start:end], past[0])
        made, past[1] = decode(part, past[1])
        again.append((part, made))
        start = end
    for parts, expected in zip(zip(*again, strict=True), (latents, whole), strict=True):
        found = jnp.concatenate(parts, 1)
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_an_image_is_the_first_frame_of_every_video_that_begins_with_it(networks) -> None:
    encode, _, video = networks
    latents = encode(video)[0]
    np.testing.assert_allclose(encode(video[:, :1])[0], latents[:, :1], atol=1e-5 * float(jnp.abs(latents).max()))


@pytest.mark.parametrize(("taps", "stride"), [(8, 4), (4, 4), (6, 3), (1, 1), (3, 2)])
def test_a_causal_transposed_convolution_adds_each_frame_to_its_own_and_later_ones(taps, stride) -> None:
    layer = CausalConvTranspose(5, (taps, 2, 2), (stride, 1, 1), use_bias=False)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 3))
    kernel = layer.init(jax.random.key(1), x)["params"]["kernel"]
    expected = np.zeros((1, 3 * stride + taps, 4, 4, 5))
    for frame in range(3):
        for tap in range(taps):  # JAX's kernels of transposed convolutions are not mirrored: the last tap comes first
            plane = jax.lax.conv_transpose(x[:, frame], kernel[taps - 1 - tap], (1, 1), "SAME")
            expected[:, stride * frame + tap] += plane
    found = layer.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(found, expected[:, : 3 * stride], atol=1e-5)


def test_a_causal_convolution_is_that_of_frames_behind_zeros() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 4, 3, 3, 2))
    layer = CausalConv(5, (3, 3, 3))
    variables = layer.init(jax.random.key(1), x)
    padded = jnp.pad(x, [(0, 0), (2, 0), (1, 1), (1, 1), (0, 0)])
    layout = ("NDHWC", "DHWIO", "NDHWC")
    plain = jax.lax.conv_general_dilated(
        padded, variables["params"]["kernel"], (1, 1, 1), "VALID", dimension_numbers=layout
    )
    np.testing.assert_allclose(layer.apply(variables, x), plain, atol=1e-5)


def causal(name: str = "vqvae:tiny", **fields) -> tuple:
    """A small causal model of random parameters: its config and its state."""
    config = recipe(name)
    config.data.frames = 9
    if config.method == "vqvae":
        config.model.update(causal=True, norm="frame")
        config.model.quantizer.codes = 4096
    else:
        config.model.network = {
            "name": "grid",
            "width": 8,
            "blocks": 1,
            "dim": 4,
            "downsample": (4, 4, 4),
            "causal": True,
        }
    config.update_from_flattened_dict(fields)
    return config, make_method(config).init(jax.random.key(0), {"video": clips(9)})


def clips(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, frames, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module", name="tokenizer")
def tokenizer_fixture() -> tuple:
    return causal()


@pytest.mark.parametrize("frames", [5, 9, 13])
@pytest.mark.parametrize("length", [1, 9, 26])
def test_a_codec_takes_any_length_in_parts(tokenizer, frames, length) -> None:
    video, filled = clips(26)[:, :length], -(-(length - 1) // 4) * 4 + 1
    whole, parts = (vqvae.codec(*tokenizer, frames=n) for n in (29, frames))
    indices = whole.encode(video)
    assert indices.shape == (2, 1 + (filled - 1) // 4, 4, 4)
    np.testing.assert_array_equal(parts.encode(video), indices)
    made = parts.decode(indices)
    assert made.shape == (2, filled, 16, 16, 3) and made.dtype == np.float32
    np.testing.assert_allclose(made, whole.decode(indices), atol=1e-5)


def test_programs_of_a_codec_do_not_grow_with_the_video(tokenizer, monkeypatch) -> None:
    lengths = set()
    apply = vqvae.VQVAE.apply
    monkeypatch.setattr(vqvae.VQVAE, "apply", lambda *args, **kw: lengths.add(args[2].shape[1]) or apply(*args, **kw))
    encode, decode = vqvae.codec(*tokenizer)
    decode(encode(clips(60)))
    assert lengths == {9, 8, 4, 3, 2, 1}  # 61 = 9 + 6 * 8 + 4 frames of video; 16 = 3 + 6 * 2 + 1 of tokens


def test_a_grid_of_latents_in_parts() -> None:
    config, state = causal("vae:tiny")
    codec = vae.codec(config, state)
    video = clips(25)
    z = codec.encode(video)["grid"]
    assert z.mean.shape == (2, 7, 4, 4, 4)
    image = codec.encode(video[:, :1])["grid"]
    np.testing.assert_allclose(image.mean, z.mean[:, :1], atol=1e-5)
    short = codec.encode(video[:, :9])["grid"]
    np.testing.assert_allclose(short.mean, z.mean[:, :3], atol=1e-5)
    decoded = codec.decode(means(codec.encode(video)))
    assert decoded.shape == (2, 25, 16, 16, 3)
    np.testing.assert_allclose(codec.decode({"grid": z.mean[:, :3]}), decoded[:, :9], atol=1e-5)


def test_known_frames_have_their_own_tokens(tokenizer) -> None:
    """A prior that is given first frames sees the tokens of the true video there."""
    config, state = tokenizer
    made, video = vqvae.tokenizer(config), jnp.asarray(clips(9), jnp.float32) / 127.5 - 1
    assert (made.grid, made.frames) == ((3, 4, 4), 9)
    known = tokens.known_places(made, state, video, jnp.array([1, 5]))
    np.testing.assert_array_equal(known.share[:, :, 0, 0], [[1, 0, 0], [1, 1, 0]])
    true = made.encode(state, video)
    np.testing.assert_array_equal(known.tokens[0, :1], true[0, :1])
    np.testing.assert_array_equal(known.tokens[1, :2], true[1, :2])
    assert (known.tokens[0] != true[0]).any()


@pytest.mark.parametrize("name", ["vqvae:tiny", "vae:tiny"])
def test_long_videos_are_compressed_whole(name, tmp_path, monkeypatch) -> None:
    config, state = causal(name)
    run = Run(config, make_method(config), state)
    video = np.concatenate(clips(26))[None]  # 52 frames, whose last is repeated once
    np.save(tmp_path / "video.npy", video)
    arguments = Namespace(video=[str(tmp_path / "video.npy")], output=str(tmp_path), frames=None, label=None)
    monkeypatch.setattr("jaxvid.conditions.from_arguments", lambda *_: {})
    made = find_method(config.method).MODES["compress"].make(run, arguments)
    assert {name: panel.shape for name, panel in made.panels.items()} == {
        "original": video.shape,
        "decompressed video": video.shape,
    }
    stored = np.load(tmp_path / ("tokens.npz" if config.method == "vqvae" else "latents.npz"))
    assert stored["frames"] == 52
    if config.method == "vqvae":
        encode, decode = vqvae.codec(config, state)
        assert stored["tokens"].shape == (1, 14, 4, 4) and stored["tokens"].dtype == np.uint16
        np.testing.assert_array_equal(stored["tokens"], encode(video))
        np.testing.assert_array_equal(to_uint8(decode(stored["tokens"]))[:, :52], made.panels["decompressed video"])


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("vqvae:tiny", {"data.frames": 8}, "model.downsample .* frames 8 by 4, after the first; 9 would do"),
        ("vqvae:tiny", {"model.norm": "group"}, 'model.norm is "group", expected one of frame, none'),
        ("vqvae:tiny", {"model.causal": False, "data.images": "p"}, "data.images is p, and images need model.causal"),
        ("vqvae_flow:tiny", {"model.causal": True}, "model.causal is true, and model.flows halve the frames"),
        (
            "vae:tiny",
            {"data.images": "p", "condition.on": ("label",)},
            "data.images is p, and images have no conditions",
        ),
        ("vae:tiny", {"data.frames": 8}, "model.network.downsample .* frames 8 by 4, after the first; 9 would do"),
    ],
)
def test_what_cannot_be_causal(name, fields, sentence) -> None:
    config = recipe(name)
    if name == "vqvae_flow:tiny":
        config.model.causal = True
    else:
        config = causal(name)[0]
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=sentence):
        make_method(config)


@pytest.mark.parametrize(
    ("frames", "is_causal", "sentence"),
    [
        (1, True, r"frames is 1, expected 1 \+ a multiple of 4, such as 5"),
        (8, True, r"frames is 8, expected 1 \+ a multiple of 4, such as 5"),
        (9, False, "leave it out, or train vqvae:causal"),
    ],
)
def test_frames_of_a_codec_that_cannot_be(tokenizer, frames, is_causal, sentence) -> None:
    config, state = tokenizer
    config = config.copy_and_resolve_references()
    config.model.causal = is_causal
    config.data.frames += not is_causal and -1
    with pytest.raises(ValueError, match=sentence):
        vqvae.codec(config, state, frames)


@pytest.mark.parametrize(("name", "method"), [("vqvae:tiny", vqvae), ("vae:tiny", vae)])
def test_images_beside_clips_are_learned_with_their_weight(tmp_path, name, method) -> None:
    """The gradient is that of the clips and so many times that of the images, as videos of one frame."""
    for index, picture in enumerate(clips(3)[0]):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    config, state = causal(name, **{"data.images": str(tmp_path), "model.images": 0.5})
    keys = (parallel.example_keys(jax.random.key(0), 4),) if method is vae else ()
    source = data.make_source(config.data, "train")
    found = {source[index]["image"].tobytes() for index in range(6)}
    assert len(found) == 2 and "image" not in data.make_source(config.data, "eval")[0]  # one file is held out
    with data.train_batches(source, 4, 16, seed=0, threads=0) as batches:
        batch = {name: rows for name, rows in next(batches).items() if name in ("video", "image")}
    assert batch["image"].shape == (4, 1, 16, 16, 3) and {row.tobytes() for row in batch["image"]} <= found

    def gradient(batch: dict, weight: float = 0.5) -> jax.Array:
        config.model.images = weight
        setup = make_method(config).train_step.__wrapped__.args[0]
        params = state.params if method is vae else state.params["tokenizer"]
        gradients = jax.grad(lambda params: method.objectives(params, setup, state, batch, *keys)[0])(params)
        found = jax.tree.leaves(gradients["decoder"])
        return jnp.concatenate([each.ravel() for each in found])

    both, clips_alone = gradient(batch), gradient({"video": batch["video"]})
    images_alone = gradient(batch, 1.0) - clips_alone
    assert jnp.abs(images_alone).max() > 1e-4
    np.testing.assert_allclose(both, clips_alone + 0.5 * images_alone, atol=1e-6)
    if method is vae:  # whose state keeps no statistics between the two
        keys = (parallel.fold_keys(keys[0], 1),)
        np.testing.assert_allclose(images_alone, gradient({"video": batch["image"]}), atol=1e-6)
