"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

The discriminator also says which class it sees. It learns that from real clips alone, so that it cannot agree with the
generator on a false one.

    python -m jaxvid.main --config configs/acgan.py

Default: clips of moving shapes, drawn as it goes, 8 frames of 16x16 at every second moment, 40 classes (shape x
motion); a recurrent generator, and a discriminator that is told the class as well. Not good enough yet: samples are
coloured blobs that move as asked, with little of the asked shape. These very settings have not been run to their end;
a step takes some 0.1 s of one core. With rates of 5e-3 and 2e-3 and other first weights, a classifier of real clips
found the asked class in 42 to 51 % of 320 samples between steps 1500 and 3000 (the motion in 87 to 91 %, the shape in
45 to 58 %; chance is 2.5 %). Batches of 64 and 128 for as long ended between 25 and 49 %.
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
        config.loss.penalized = 2
        config.model.generator.update(widths=(16, 8), content=8, motion=4, memory=8)
        config.model.discriminators.video.update(widths=(8, 16), factors=(DOUBLE, DOUBLE))
    return config
