"""Video VQ-VAE behind invertible flows, which fold time into channels: clips to a small grid of codes and back.

Command: jaxvid train --config vqvae_flow
Device: two CPU cores.
Time and memory: about 6 min, from 53 clips/s on idle cores. Memory was not measured.
Score: PSNR 26.6 dB over 64 evaluation clips, on which 97 % of the codes are in use, run to its end on an H200 (26.5
    with model.flows.scale); vqvae.py:prior has 26.9.
Samples: none, since a tokenizer has no prior; reconstructions beside the originals are in the report.

The clips and the grid of vqvae.py:prior: 8x32x32 synthetic clips at every second moment, 512 codes on a 4x8x8 grid. A
prior learns its tokens with --config.tokenizer.path=runs/vqvae_flow.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of vqvae_flow", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "vqvae"
    config.model = ConfigDict()
    config.model.flows = ConfigDict()
    config.model.flows.number = 4  # an even number begins as the identity, an odd one reverses the channels
    config.model.flows.width = 128  # channels within a coupling
    config.model.flows.scale = False  # whether couplings scale as well as shift
    config.model.downsample = (2, 4, 4)  # frames, height, width; the first 2 of each by the flows
    config.model.width = 64  # channels of the latent grid, a multiple of 8
    config.model.blocks = 2  # residual blocks in the encoder, and in the decoder
    config.model.heads = 0  # of axial attention in each block; 0: none
    config.model.norm = "group"  # or "batch"
    config.model.dim = 32  # of a code
    config.model.loss = "mse"  # or "mae"
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters, statistics and flows stay float32
    config.model.remat = False  # recompute activations in the backward pass: less memory, more time
    config.model.quantizer = ConfigDict()
    config.model.quantizer.update(name="ema", codes=512, decay=0.9, commitment=1.0, revive_below=0.05, warm_up=100)
    config.optim = config_lib.optimizer(5e-3, schedule="warmup_cosine_decay_schedule")
    config.data.update(frames=8, resolution=32, stride=2)
    config.train.update(steps=600, batch_size=32)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.flows.width = 16
        config.model.update(width=16, blocks=1, dim=8, downsample=(4, 4, 4))
        config.model.quantizer.update(codes=32, warm_up=0)
    return config
