"""Text-to-video GAN: a caption and noise to clips, the text encoder trained with it on the data's own captions.

Captions are projected into the discriminator, which besides says which class it sees, where the data have classes.
Three in ten of the clauses after the first are left out in training, so that short captions work as well.

    python -m jaxvid.main --config configs/gan_text.py

Default: clips of moving shapes, 8 frames of 16x16 at every second moment; networks as in configs/acgan.py. On two CPU
cores 9 min 21 s, 1.0 GB. Shape, colour, ground and motion are those of the caption; digits are hard to tell, and what
spins turns too little. configs/classifier.py finds the class of the caption in 95.9 % of 512 samples (93.8 to 97.3 %;
99.0 % of held-out clips, chance 2.5 %). The Frechet distance in its features is 28 (untrained 1962, other held-out
clips 20), in motion features 0.83 (3.0, 0.1).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of configs/gan_text.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config.condition = config_lib.condition(("text",), left_out=0.3)
    config.loss.classes = 1.0
    config.train.steps = 5000
    if variant == "tiny":
        config_lib.gan_tiny(config)
    return config
