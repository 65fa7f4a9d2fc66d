"""Recurrent video GAN after MoCoGAN: a content code for the clip, a motion code for each frame, any number of frames.

A video discriminator judges the motion, a frame discriminator the pictures.

    python -m jaxvid.main --config configs/gan_rnn.py

Default: clips of moving shapes, 8 frames of 16x16 at every second moment. Nobody has run it to its end yet: no time,
memory or score.
`:tiny`: seconds, for tests; with a recurrent discriminator too.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib

DOUBLE, FRAME = (2, 2, 2), (1, 2, 2)  # frames, height, width


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/gan_rnn.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    codes = {"name": "recurrent", "content": 50, "motion": 10, "memory": 64, "cell": "gru"}  # or "lstm"
    config.model.generator = config_lib.painter((64, 64), (FRAME, FRAME), norm="batch", modulated=True, **codes)
    if variant == "tiny":
        config_lib.tiny(config)
        config.loss.penalized = 2
        config.model.generator.update(widths=(16, 8), content=8, motion=4, memory=8)
        config.model.discriminators.video.update(widths=(8, 16), factors=(DOUBLE, DOUBLE))
        config.model.discriminators.frames.update(widths=(8, 16), factors=(FRAME, FRAME), shown=2)
        config.model.discriminators.recurrent = config_lib.discriminator((8, 8), (FRAME, FRAME), memory=8)
    return config
