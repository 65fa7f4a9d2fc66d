"""Video VAE: clips to continuous latents and back, and new clips from its prior.

    python -m jaxvid.main --config configs/vae.py

Default: 16x64x64 clips of moving shapes, drawn as it goes; one code for what stays, one small code a frame for what
moves, with a recurrent prior. Not good enough yet, and no run of it has reached its end: after 500 of 1000 steps, on
two busy CPU cores, the ELBO is 39.9 thousand nats per clip (of 16x64x64x3 values in [-1, 1]) and PSNR 20.5 dB over the
64 evaluation clips. Reconstructions show the background and a blurred grey shape in its place; samples show nothing.
`:frame`: every frame alone. Its samples are frames without a story: each is drawn by itself. Not run to its end.
`:grid`: a 4x8x8 grid of latents, for a prior that is learned later. Not run to its end.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib

# By name, with the arguments of that function in jaxvid/methods/vae.py.
NETWORKS = {
    "frame": {"name": "frame", "width": 32, "hidden": 512, "strides": (2, 2, 2), "dim": 32},
    "temporal": {
        "name": "temporal",
        "width": 64,  # channels after the first convolution, twice as many after the next
        "hidden": 512,  # features of a frame
        "strides": (4, 2),  # of the convolutions
        "heads": 4,  # of the attention over time
        "content": 32,  # latents of a clip
        "motion": 8,  # latents of a frame
        "memory": 256,  # of the prior's GRU
    },
    "grid": {"name": "grid", "width": 64, "blocks": 2, "dim": 8, "downsample": (4, 8, 8)},
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/vae.py", variant or "temporal", (*NETWORKS, "tiny"))
    config = config_lib.base()
    config.method = "vae"
    config.model = ConfigDict()
    config.model.network = ConfigDict(NETWORKS.get(variant, NETWORKS["temporal"]))
    config.model.likelihood = "gaussian"  # or "laplace": scale learned; "mse", "l1": scale 1; "bernoulli"
    config.model.beta = 1.0  # weight of the KL
    config.model.warm_up = 100  # steps over which that weight grows from 0
    config.model.free_nats = 0.0  # of KL in every dimension that cost nothing more
    config.model.perceptual = 0.0  # weight of the distance between features, where make() is given some
    config.model.turn = 0  # steps for which the decoder learns alone, then the encoder; 0: both at every step
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and latents stay float32
    config.optim = config_lib.optimizer(2e-3, schedule="warmup_cosine_decay_schedule")
    config.train.update(steps=1000, batch_size=4)
    if variant == "tiny":
        config.data.update(frames=8, resolution=16)
        config.model.network.update(width=8, hidden=32, heads=2, content=8, motion=4, memory=16)
        config.model.warm_up = 10
        config.train.update(steps=20, batch_size=8, log_every=1, save_every=10)
        config.eval.update(every=10, examples=12, videos=4)
    return config
