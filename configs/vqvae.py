"""Video VQ-VAE."""

from ml_collections import ConfigDict

from jaxvid import config as config_lib


def get_config(variant: str = "") -> ConfigDict:
    """The default, `tiny` (seconds, for tests) or `ucf101` (a recipe for an accelerator)."""
    config_lib.choice("the variant of configs/vqvae.py", variant or "default", ("default", "tiny", "ucf101"))
    config = config_lib.base()
    config.method = "vqvae"
    config.model = ConfigDict()
    config.model.downsample = (4, 4, 4)  # frames, height, width
    config.model.width = 64  # channels of the latent grid, a multiple of 8
    config.model.blocks = 2  # residual blocks in the encoder, and in the decoder
    config.model.heads = 0  # of axial attention in each block; 0: none
    config.model.norm = "group"  # or "batch"
    config.model.dim = 32  # of a code
    config.model.loss = "mse"  # or "mae"
    config.model.dtype = "float32"  # of computing; parameters and statistics stay float32
    config.model.remat = False  # recompute activations in the backward pass: less memory, more time
    # name "ema", "vq", "fsq" or "lfq", and fields of that class in jaxvid/nn/quantize.py
    config.model.quantizer = ConfigDict({"name": "ema", "codes": 1024, "decay": 0.9, "commitment": 1.0})
    config.optim = config_lib.optimizer(5e-3, schedule="warmup_cosine_decay_schedule")
    config.train.update(steps=500)
    if variant == "tiny":
        config.data.frames, config.data.resolution = 8, 16
        config.model.update(width=16, blocks=1, dim=8)
        config.model.quantizer.codes = 32
        config.train.update(steps=20, batch_size=8, log_every=1, save_every=10)
        config.eval.update(every=10, examples=12, videos=4)
    return config
