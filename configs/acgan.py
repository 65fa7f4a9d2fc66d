"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

The discriminator also says which class it sees, which it is not told. It learns that from real clips alone, so that it
cannot agree with the generator on a false one.

    python -m jaxvid.main --config configs/acgan.py

Default: clips of moving shapes, drawn as it goes, 8 frames of 16x16 at every second moment, 40 classes (shape x
motion); an outline that moves over a ground, and discriminators of clips and of frames. On two CPU cores 8 min 44 s in
all, 0.9 GB. Shapes can be told at sight, and move as asked over plain grounds, in all colours; a class keeps to one
start, and often to one digit. configs/classifier.py finds the asked class in 92.0 % of 512 samples (89.3 to 94.0 %; of
another run 91.6 %; 99.0 % of held-out clips, chance 2.5 %). The Frechet distance in its features is 75 (of another run
80, untrained 2007, other held-out clips 20), in motion features 0.87 (2.7, 0.1). Two samples of a class differ by 0.76,
any two clips of the data by 0.66; where the colours and the discriminator are told the class, samples differ by 0.09
(with 93.2 and 90.8 % of the classes, in two runs).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of configs/acgan.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config_lib.of_classes(config)
    config.optim.schedule = "warmup_cosine_decay_schedule"
    config.train.steps = 5000
    if variant == "tiny":
        config_lib.gan_tiny(config)
    return config
