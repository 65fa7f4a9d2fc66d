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

DOUBLE, FRAME = (2, 2, 2), (1, 2, 2)  # frames, height, width


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/acgan.py", variant or "tiny", ("tiny",))
    config = config_lib.toy_gan()
    codes = {"name": "recurrent", "content": 50, "motion": 10, "memory": 64, "cell": "gru"}
    config.model.generator = config_lib.painter((64, 64), (FRAME, FRAME), norm="batch", modulated=True, **codes)
    config.condition = config_lib.condition(("label",))
    config.loss.classes = 1.0
    if variant == "tiny":
        config_lib.tiny(config)
        config.data.stride = 1
        config.loss.penalized = 2
        config.model.generator.update(widths=(16, 8), content=8, motion=4, memory=8)
        config.model.discriminators.video.update(widths=(8, 16), factors=(DOUBLE, DOUBLE))
    return config
