"""Text-to-video GAN: a caption and noise to clips, the text encoder trained with it on the data's own captions.

Captions are projected into the discriminator, which besides says which class it sees, where the data have classes.

    python -m jaxvid.main --config configs/gan_text.py

Default: 16x16x16 clips of moving shapes. Nobody has run it to its end yet: no time, memory or score.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib

DOUBLE = (2, 2, 2)  # frames, height, width


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/gan_text.py", variant or "tiny", ("tiny",))
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=16, resolution=16)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.conditioning = (
        "projection"  # of the caption; "concatenation", or "none": the discriminator is not told
    )
    config.model.generator = config_lib.painter((64, 32), (DOUBLE, DOUBLE), name="conv", noise=100)
    config.model.discriminators = ConfigDict()
    config.model.discriminators.video = config_lib.discriminator((32, 64), (DOUBLE, DOUBLE))
    config.condition = config_lib.condition(("text",))
    config.loss = config_lib.gan_loss("non_saturating", r1=10.0, classes=1.0)
    config.optim = ConfigDict()
    adam = {"arguments": {"b1": 0.5, "b2": 0.99}, "clip": 0.0, "schedule": "cosine_decay_schedule"}
    config.optim.generator = config_lib.optimizer(1e-3, **adam, ema_decay=0.99)
    config.optim.discriminator = config_lib.optimizer(1e-3, **adam)
    config.train.update(steps=2500, batch_size=32, save_every=500)
    config.eval.update(every=500, examples=256)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(widths=(16, 8), noise=16)
        config.model.discriminators.video.update(widths=(8, 16))
    return config
