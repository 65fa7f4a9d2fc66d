"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

The discriminator also says which class it sees. It learns that from real clips alone, so that it cannot agree with the
generator on a false one.

    python -m jaxvid.main --config configs/acgan.py

Default: 16x16x16 clips of moving shapes, drawn as it goes, 40 classes (shape x motion). On two CPU cores, with other
work beside it: 8 min 10 s, 1.09 GB. Not good enough yet: samples are coloured blobs that move as asked on dark and
light grounds, without the asked shape. `jaxvid.evaluate --classifier runs/classifier --references --num 1024` finds
the asked class in 14 % of the samples (untrained: 2.5 %, held-out clips: 99 %); Frechet distance in the classifier's
features 623 (untrained 3872, other held-out clips 13), in motion features 5.0 (28.8, 0.04).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib

DOUBLE = (2, 2, 2)  # frames, height, width


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/acgan.py", variant or "tiny", ("tiny",))
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=16, resolution=16)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.conditioning = (
        "none"  # the discriminator is not told the class; "projection" or "concatenation": it is
    )
    config.model.generator = config_lib.painter((64, 32), (DOUBLE, DOUBLE), name="conv", noise=100)
    config.model.discriminators = ConfigDict()
    config.model.discriminators.video = config_lib.discriminator((32, 64), (DOUBLE, DOUBLE))
    config.condition = config_lib.condition(("label",))
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
