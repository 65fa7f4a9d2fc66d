"""Recurrent video GAN: a content code for the clip, a motion code for each frame (MoCoGAN), any number of frames.

A video discriminator judges the motion, a frame discriminator the pictures.

    python -m jaxvid.main --config configs/gan_rnn.py

Default: clips of moving shapes, 8 frames of 16x16 at every second moment; the content paints one picture, which the
motion moves. On one CPU core beside other work 15 min (580 s of computing), 1.6 GB. Not good enough yet: without a
class to tell it what is a shape, samples are spots of two colours that move on dotted grounds. Frechet distance of 512
samples to held-out clips in the features of configs/classifier.py: 731 (untrained 1066, other held-out clips 20), in
motion features 2.4 (3.6, 0.1).
`:mocogan`: every frame is painted from its own codes, as in the paper; not run to its end.
`:tiny`: seconds, for tests; with a recurrent discriminator too.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.config import FRAME, STENCIL


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/gan_rnn.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    codes = {"name": "recurrent", "content": 50, "motion": 10, "memory": 64, "cell": "gru"}  # or "lstm"
    config.model.generator = config_lib.painter((64, 64), (FRAME, FRAME), **codes, **STENCIL)
    config.condition = config_lib.condition(("label",))
    config.loss.classes = 1.0
    if variant == "tiny":
        config_lib.gan_tiny(config)
        config.model.discriminators.recurrent = config_lib.discriminator((8, 8), (FRAME, FRAME), memory=8)
    return config
