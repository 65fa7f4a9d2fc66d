"""Pixel-wise GAN: one dense layer from the noise, one from the condition, and one from both to every pixel of the
clip.

The condition is the first two frames; the mean absolute error (times 100) holds the rest near the real clip.

    python -m jaxvid.main --config configs/pixel_gan.py

Default: 8x16x16 clips of moving shapes; what is made is the change from the last given frame. On two CPU cores 8 min
50 s in all, 1.5 GB. Mean absolute error (of values in [-1, 1]) on held-out clips 0.0340, the given frames included; to
repeat the last given frame leaves 0.0388. Of 512 samples the Frechet distance to held-out clips, in the features of
configs/classifier.py, is 301, and of their motion 2.9; before training, when the last given frame is all but repeated,
515 and 8.5; of other real clips 20 and 0.1. Shapes go where they should in their colours, and get soft on the way.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of configs/pixel_gan.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config.model.generator = ConfigDict({"name": "dense", "noise": 100, "width": 1024})
    config.model.conditioning = "none"  # the discriminator sees the given frames in the video
    del (
        config.model.discriminators.frames
    )  # given actions, dense layers of 256 and 128 led to a Frechet of 364, not 248
    config.condition = config_lib.condition(("first_frames",), first_frames=2, features=512)
    config.loss.reconstruction = 100.0
    # From gray and without the game, 400 steps at this rate left an error of 0.100 so, 0.117 at b1 0.5 and b2 0.99.
    adam = {"arguments": {"b1": 0.9, "b2": 0.999}, "schedule": "warmup_cosine_decay_schedule"}
    config.optim.players = {"generator": adam, "discriminator": {"learning_rate": 5e-4}}
    config.train.update(steps=3000, batch_size=128)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(width=32, noise=16)
        config.loss.penalized = 2
        config.model.discriminators.video.update(widths=(8, 16), factors=(config_lib.DOUBLE, config_lib.DOUBLE))
    return config
