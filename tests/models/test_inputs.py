"""A wrong input is one sentence where a network begins, not an error from inside of Flax."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvid.models import vqvae
from jaxvid.models.classifier import Classifier
from jaxvid.models.gan_blocks import Discriminator, Head, Trunk
from jaxvid.models.gan_fc import DenseDiscriminator, DenseGenerator
from jaxvid.models.gan_networks import make_generator
from jaxvid.models.gan_rnn import RecurrentDiscriminator
from jaxvid.models.invertible import Invertible
from jaxvid.models.vae_networks import make_vae
from jaxvid.nn.quantize import FSQ

FRAME = (1, 2, 2)
VIDEO, KEY = jnp.zeros((2, 4, 8, 8, 3)), jax.random.key(0)
TRUNK = Trunk(widths=(8,), factors=(FRAME,), norm="none")
VAE = make_vae((4, 8, 8), {"name": "frame", "width": 4, "hidden": 8, "strides": (2,), "dim": 6})
GENERATOR = {
    "name": "recurrent",
    "content": 3,
    "motion": 2,
    "memory": 4,
    "cell": "gru",
    "widths": (8, 8),
    "factors": (FRAME, FRAME),
    "norm": "none",
    "residual": False,
    "modulated": False,
    "background": "none",
    "foreground": "rendered",
    "static_conditioned": True,
}


def tokenizer(channels: int = 3, flows: Invertible | None = None) -> vqvae.VQVAE:
    stacks = [vqvae.ResidualStack(blocks=1) for _ in range(2)]
    return vqvae.VQVAE(
        encoder=vqvae.Encoder(stack=stacks[0], width=8, features=2, downsample=FRAME),
        decoder=vqvae.Decoder(stack=stacks[1], width=8, upsample=FRAME, channels=channels),
        quantizer=FSQ(levels=(4, 4)),
        flows=flows,
    )


# Each takes a video.
NETWORKS: dict[str, tuple[nn.Module, Callable[[Any], tuple]]] = {
    "vqvae": (tokenizer(), lambda video: (video, False)),
    "vqvae-flow": (tokenizer(24, Invertible(number=1, width=4)), lambda video: (video, False)),
    "vae": (VAE, lambda video: (video, {"frames": jnp.zeros((2, 4, 6))}, False)),
    "discriminator": (Discriminator(trunk=TRUNK, head=Head()), lambda video: (video, None, False)),
    "recurrent": (RecurrentDiscriminator(trunk=TRUNK, head=Head()), lambda video: (video, None, False)),
    "dense": (DenseDiscriminator(widths=(4,), head=Head()), lambda video: (video, None, False)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("video", "found"),
    [
        (VIDEO[0], r"float32 \[4,8,8,3\]"),
        (VIDEO[..., :1], r"float32 \[2,4,8,8,1\]"),
        (VIDEO[..., 0], r"float32 \[2,4,8,8\]"),
        (VIDEO.astype(jnp.uint8), r"uint8 \[2,4,8,8,3\]"),
    ],
)
def test_a_video_of_another_shape_or_dtype_is_one_sentence(name: str, video: jax.Array, found: str) -> None:
    network, inputs = NETWORKS[name]
    with pytest.raises(ValueError, match=rf"^video is {found}, expected float \[B,T,H,W,3\]\."):
        jax.eval_shape(lambda: network.init(KEY, *inputs(video)))
    variables = jax.eval_shape(lambda: network.init(KEY, *inputs(VIDEO)))
    with pytest.raises(ValueError, match=rf"^video is {found}, expected float \[B,T,H,W,3\]\."):
        jax.eval_shape(lambda variables: network.apply(variables, *inputs(video)), variables)


@pytest.mark.parametrize("name", NETWORKS)
def test_checks_pass_under_vmap_and_grad(name: str) -> None:
    network, inputs = NETWORKS[name]

    def total(video: jax.Array) -> jax.Array:
        output, _ = network.init_with_output(KEY, *inputs(video))
        return sum(leaf.sum().astype(jnp.float32) for leaf in jax.tree.leaves(output))

    shapes = jax.eval_shape(jax.vmap(jax.grad(total)), jnp.stack([VIDEO, VIDEO]))
    assert shapes.shape == (2, *VIDEO.shape)


@pytest.mark.parametrize(
    ("network", "inputs", "sentence"),
    [
        (
            vqvae.Encoder(stack=None, width=8, features=2, downsample=FRAME),
            (VIDEO[0], False),
            r"video is .* \[B,T,H,W,C\]",
        ),
        (vqvae.Decoder(stack=None, width=8, upsample=FRAME), (VIDEO[0], False), r"latents is .* \[B,T,H,W,D\]"),
        (
            VAE,
            (VIDEO, {"frames": jnp.zeros((2, 1, 6))}, False),
            "shapes differ: frames .*2,4,6.* noise of frames .*2,1,6",
        ),
        (Classifier(classes=2, widths=(8,), strides=(FRAME,)), (VIDEO[0],), r"video is .* \[B,T,H,W,C\]"),
        (
            DenseGenerator(size=(4, 8, 8, 3), noise=5),
            ({"video": jnp.zeros((2, 4))}, None, False),
            r"noise is .* \[B,5\]",
        ),
        (
            make_generator((4, 8, 8), GENERATOR),
            ({"content": jnp.zeros((2, 3)), "motion": jnp.zeros((2, 2))}, {}, False),
            r"motion is float32 \[2,2\], expected float \[B,T,2\]",
        ),
    ],
)
def test_other_inputs_are_named(network: nn.Module, inputs: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda: network.init(KEY, *inputs))
