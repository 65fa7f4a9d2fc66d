"""Pixel-wise GAN: one dense layer from the noise, one from the condition, and one from both to every pixel of the
clip.

The condition is the first two frames; the mean absolute error (times 100) holds the rest near the real clip.

    python -m jaxvid.main --config configs/pixel_gan.py

Default: 8x16x16 clips of moving shapes; what is made is the change from the last given frame. On one CPU core beside
other work 23 min 46 s, 1.6 GB; two cores alone make 449 clips/s, so that 3000 steps take 7 min 8 s. Mean absolute error
(of values in [-1, 1]) on held-out clips 0.0265, the given frames included; to repeat the last given frame leaves
0.0269. Shapes stay as sharp as they were given, and hardly move. Made from grey instead, they moved as soft spots, with
an error of 0.030.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/pixel_gan.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config.data.stride = 1
    config.model.conditioning = "none"  # the discriminator sees the given frames in the video
    config.model.generator = ConfigDict({"name": "dense", "noise": 100, "width": 1024})
    config.model.discriminators = ConfigDict({"dense": {"widths": (256, 128), "spectral": True}})
    config.condition = config_lib.condition(("first_frames",), first_frames=2, features=256)
    config.loss = config_lib.gan_loss("non_saturating", reconstruction=100.0)
    config.optim.generator.update(learning_rate=1e-3, schedule="warmup_cosine_decay_schedule")
    # From grey and without the game, 400 steps at this rate left an error of 0.100 so, 0.117 at b1 0.5 and b2 0.99.
    config.optim.generator.arguments.update(b1=0.9, b2=0.999)
    config.optim.discriminator.learning_rate = 2e-4
    config.train.update(steps=3000, batch_size=64, save_every=1000)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(width=32, noise=16)
        config.model.discriminators.dense.update(widths=(32, 16))
    return config
