"""Video VQ-VAE: clips to a small grid of codes and back.

Command: jaxvid train --config vqvae
Device: two CPU cores.
Time and memory: 3 min 5 s with an empty compilation cache, 1.1 GB.
Score: PSNR 27.8 dB over the 64 evaluation clips, on which 92 % of the codes are in use. No step trained on these clips,
    and no setting was chosen by them.
Samples: none, since a tokenizer has no prior; reconstructions beside the originals are in the report.

16x64x64 synthetic clips of moving shapes, 1024 codes on a 4x16x16 grid.
`:vq`, `:fsq`, `:lfq`: the same with another quantizer. One run each, not tuned: 26.4 dB and 16 % of the codes in use,
25.1 dB and 40 %, 24.4 dB and 100 %.
`:prior`: the tokenizer of the default priors, 8x32x32 clips at every second moment, 512 codes on a 4x8x8 grid.
`:causal`: for images and videos of any length: tokens depend on no later frames. 17 frames, the first by itself, to a
5x16x16 grid; norms of single frames. 28.1 dB and 94 % of the codes in use, with a quarter more tokens than the default.
`:tiny`: seconds, for tests.
`:ucf101`: 16x128x128 clips of UCF-101 for an accelerator or several, bf16, the batch sharded. Prepare the data set with
TFDS, or set data.name=folder and data.path to the videos. Nobody has run it to its end yet: no score, time or memory.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

# By name, with fields of its class in jaxvid/nn/quantize.py; about 1000 codes each.
QUANTIZERS = {
    "ema": {"name": "ema", "codes": 1024, "decay": 0.9, "commitment": 1.0, "revive_below": 0.05, "warm_up": 100},
    "vq": {"name": "vq", "codes": 1024, "commitment": 0.25},
    "fsq": {"name": "fsq", "levels": (8, 5, 5, 5)},
    "lfq": {
        "name": "lfq",
        "bits": 10,
        "commitment": 0.25,
        "entropy_weight": 0.1,
        "diversity": 1.0,
        "temperature": 1.0,
        "anneal_from": 3.0,
        "anneal_steps": 500,
    },
}
VARIANTS = (*QUANTIZERS, "prior", "causal", "tiny", "ucf101")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of vqvae", variant or "ema", VARIANTS)
    config = config_lib.base()
    config.method = "vqvae"
    config.model = ConfigDict()
    config.model.downsample = (4, 4, 4)  # frames, height, width
    config.model.width = 64  # channels of the latent grid, a multiple of 8
    config.model.blocks = 2  # residual blocks in the encoder, and in the decoder
    config.model.heads = 0  # of axial attention in each block; 0: none
    config.model.norm = "group"  # or "batch", "frame", "none"
    config.model.causal = False  # no token sees later frames, the first frame is by itself; norm "frame" or "none"
    config.model.dim = 32  # of a code
    config.model.loss = "mse"  # or "mae"
    config.data.images = ""  # a folder of images, or of their records, that a causal tokenizer learns from as well,
    config.model.images = 1.0  # with this weight: one image beside each clip
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.remat = False  # recompute activations in the backward pass: less memory, more time
    config.model.quantizer = ConfigDict(QUANTIZERS.get(variant, QUANTIZERS["ema"]))
    config.optim = config_lib.optimizer(5e-3, schedule="warmup_cosine_decay_schedule")
    config.train.steps = 500
    if variant == "prior":
        config.data.update(frames=8, resolution=32, stride=2)
        config.model.downsample = (2, 4, 4)
        config.model.quantizer.codes = 512
        config.train.update(steps=600, batch_size=32)
    if variant == "causal":
        config.data.frames = 17
        config.model.update(causal=True, norm="frame")
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.update(width=16, blocks=1, dim=8)
        config.model.quantizer.update(codes=32, warm_up=0)
    if variant == "ucf101":
        config.data.update(name="tfds", dataset="ucf101", resolution=128)
        config.model.update(width=256, blocks=6, heads=4, dim=64, dtype="bfloat16", remat=True)
        config.model.quantizer.update(codes=4096, decay=0.99, warm_up=2000)
        config.optim.update(learning_rate=1e-3, name="adamw", ema_decay=0.9999)
        config.train.update(steps=200_000, batch_size=64, workers=8, log_every=100, save_every=2000)
        config.eval.update(every=5000, examples=1024, videos=8)
    return config
