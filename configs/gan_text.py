"""Text-to-video GAN: a caption and noise to clips, the text encoder trained with it on the data's own captions.

Captions are projected into the discriminator, which besides says which class it sees, where the data have classes.

    python -m jaxvid.main --config configs/gan_text.py

Default: clips of moving shapes, 8 frames of 16x16 at every second moment; networks as in configs/acgan.py. On one CPU
core 8 min 44 s, 1.4 GB. Not good enough yet: colour, ground, place and motion are mostly those of the caption, but
the shapes are blobs. configs/classifier.py finds the class of the caption in 32 % of 512 samples (29 to 37 %; 99 % of
held-out clips, chance 2.5 %); Frechet distance in its features 384 (untrained 3051, other held-out clips 20), in
motion features 4.6 (10.7, 0.1).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/gan_text.py", variant or "tiny", ("tiny",))
    config = config_lib.gan_base()
    config.condition = config_lib.condition(("text",))
    config.loss.classes = 1.0
    if variant == "tiny":
        config_lib.gan_tiny(config)
    return config
