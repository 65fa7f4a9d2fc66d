"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

The discriminator also says which class it sees. It learns that from real clips alone, so that it cannot agree with the
generator on a false one.

    python -m jaxvid.main --config configs/acgan.py

Default: clips of moving shapes, drawn as it goes, 8 frames of 16x16 at every second moment, 40 classes (shape x
motion); a layered generator, and discriminators of clips and of frames that are told the class as well. On one CPU core
beside other work 16 min 48 s (843 s of computing), 0.8 GB; two cores take 326 clips a second, so that 10 min and
evaluations are to be expected. Shapes can be told at sight, and move as asked; their colours are speckled where the
data's are flat, and those of one class are much alike. configs/classifier.py finds the asked class in 94.3 % of 512
samples (92.0 to 96.0 %; 99.0 % of held-out clips, chance 2.5 %). The Frechet distance in its features is 48 (untrained
1162, other held-out clips 20), in motion features 0.67 (3.4, 0.1).
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
    config.train.steps = 5000
    if variant == "tiny":
        config_lib.gan_tiny(config)
    return config
