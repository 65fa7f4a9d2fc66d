"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

The discriminator also says which class it sees. It learns that from real clips alone, so that it cannot agree with the
generator on a false one.

    python -m jaxvid.main --config configs/acgan.py

Default: clips of moving shapes, drawn as it goes, 8 frames of 16x16 at every second moment, 40 classes (shape x
motion); a recurrent generator, and a discriminator that is told the class as well. On two CPU cores 4 min 46 s, 1.4
GB. Not good enough yet: samples are fuzzy blobs of mixed colours, three in four of them on light grounds, where the
data has as many dark ones. configs/classifier.py finds the asked class in 35 % of 512 samples (31 to 40 %; 99 % of
held-out clips, chance 2.5 %), the motion in 85 %, the shape in 43 %. The Frechet distance in its features is 502
(untrained some 3100, other held-out clips 20 to 42), in motion features 5.9 (10.7, 0.1 to 0.2). The auxiliary
classifier itself is fooled: it finds the asked class in all of them.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/acgan.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config.condition = config_lib.condition(("label",))
    config.loss.classes = 1.0
    config.train.steps = 6000
    if variant == "tiny":
        config_lib.gan_tiny(config)
    return config
