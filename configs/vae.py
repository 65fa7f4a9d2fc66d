"""Video VAE: clips to continuous latents and back, and new clips from its prior.

Command: jaxvid train --config vae
Device: two CPU cores.
Time and memory: 6 min 55 s in all, 1.6 GB.
Score: over the 64 evaluation clips an ELBO of 22.9 thousand nats per clip (of 8x32x32x3 values in [-1, 1]), of which
    the KL takes 62 (content 22, motion 40), and PSNR 27.7 dB.
Samples: shapes with the hole that the data's have, which move on steadily over plain backgrounds. In reconstructions
    colors, sizes, places and motions are right, corners are rounded, and spinning shapes do not turn.

Synthetic clips of moving shapes, 8 frames of 32x32 at every second moment; one code for an outline and its
colors, one small code a frame for where it is, each with a recurrent prior.
`:temporal`: the same codes, every frame rendered from both, for any videos. On one CPU core beside other work
6 min 50 s, 1.3 GB: an ELBO of 17.4 thousand nats, KL 54 (content 19, motion 36), PSNR 25.2 dB. Reconstructions and
samples are round spots of the right color and place that move.
`:frame`: every frame alone, in the literature's arrangement for 64x64. The frames of its samples are unrelated: each is
drawn by itself. On one CPU core beside other work 12 min 7 s, 1.2 GB: an ELBO of 34.4 thousand nats per clip (of
4x64x64x3 values), KL 130, PSNR 25.3 dB; reconstructions are rounded shapes in their places, samples spots of mixed
colors. On an H100 a step of 64 frames takes 1.6 ms.
`:grid`: a 4x8x8 grid of latents of 16x64x64 clips, for a prior that is learned later: until then samples are noise. On
one CPU core beside other work 6 min 20 s, 0.9 GB: an ELBO of 194 thousand nats per clip (of 16x64x64x3 values), KL
6591, PSNR 27.8 dB; in reconstructions outlines are right, thin lines soft.
`:causal`: the grid for images and videos of any length, 5x8x8 of 17x64x64 clips: latents depend on no later frames. On
two CPU cores 6 min 34 s in all: an ELBO of 214 thousand nats per clip (of 17x64x64x3 values), KL 7068, PSNR 28.1 dB.
`:turns`: the default with a Laplace likelihood, a few free nats, and encoder and decoder that learn in turns, as in
variational EM. Not run to its end: after 400 steps, of a KL whose weight still grows, PSNR is 19.9 dB, and
reconstructions have the color of the background alone.
`:mnist`: moving MNIST with a Bernoulli likelihood; set data.path to MNIST's files, or prepare TFDS' mnist. Nobody has
run it yet.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

CODES = {
    "width": 64,  # channels after the first convolution, twice as many after the next
    "hidden": 512,  # features of a frame
    "strides": (4, 2),  # of the convolutions
    "heads": 4,  # of the attention over time
    "content": 12,  # latents of a clip
    "motion": 4,  # latents of a frame
    "memory": 256,  # of the prior's GRUs
}
# By name, with the arguments of that function in jaxvid/models/vae_networks.py.
NETWORKS = {
    "layered": {"name": "layered", "foreground_size": 16, **CODES},  # pixels of the foreground's side
    "temporal": {"name": "temporal", **CODES},
    "frame": {"name": "frame", "width": 32, "hidden": 512, "strides": (2, 2, 2), "dim": 16},
    "grid": {"name": "grid", "width": 64, "blocks": 2, "dim": 8, "downsample": (4, 8, 8), "causal": False},
}
VARIANTS = (*NETWORKS, "causal", "turns", "mnist", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of vae", variant or "layered", VARIANTS)
    config = config_lib.base()
    config.method = "vae"
    config.model = ConfigDict()
    kind = "grid" if variant == "causal" else variant
    config.model.network = ConfigDict(NETWORKS.get(kind, NETWORKS["layered"]))
    config.model.likelihood = "gaussian"  # or "laplace": scale learned; "mse", "l1": scale 1; "bernoulli"
    config.data.images = ""  # a folder of images, or of their records, that a causal VAE learns from as well,
    config.model.images = 1.0  # with this weight: one image beside each clip
    config.model.beta = 20.0  # weight of the KL: pixels are not independent, so that 1 leaves samples far from the data
    config.model.warm_up = 600  # steps over which that weight grows from 0
    config.model.free_nats = 0.0  # of KL in every dimension that are free of charge
    config.model.perceptual = 0.0  # weight of the distance between features, if a method calls make() with `features`
    config.model.turn = 0  # steps for which the decoder learns alone, then the encoder; 0: both at every step
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and latents stay float32
    config.condition = config_lib.condition(())  # or some of "label", "text", "first_frames", "action"
    config.sample = ConfigDict({"temperature": 1.0})  # factor on the noise of the prior: below 1, samples differ less
    config.optim = config_lib.optimizer(1e-3, schedule="warmup_cosine_decay_schedule")
    config.data.update(frames=8, resolution=32, stride=2)
    config.train.update(steps=4000, batch_size=16, save_every=1000)
    config.eval.every = 1000
    if variant == "frame":
        config.data.update(frames=4, resolution=64, stride=4)
        config.model.beta = 40.0
        config.train.update(steps=3000)
    if kind == "grid":
        config.data.update(frames=16, resolution=64, stride=1)
        config.model.update(beta=1.0, warm_up=100)
        config.train.update(steps=5000, batch_size=4)
    if variant == "causal":
        config.data.frames = 17
        config.model.network.causal = True
    if variant == "turns":
        config.model.update(likelihood="laplace", free_nats=0.05, turn=10)
    if variant == "mnist":
        config.data.update(name="moving_mnist", frames=16, resolution=64, stride=1)
        config.model.network = ConfigDict({**NETWORKS["temporal"], "strides": (4, 2, 2)})
        config.model.update(likelihood="bernoulli", beta=1.0)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.network.update(foreground_size=8, content=8, width=8, hidden=32, strides=(2, 2), heads=2)
        config.model.network.memory = 16
        config.model.update(beta=1.0, warm_up=10)
    return config
