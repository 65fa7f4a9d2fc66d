"""Video GAN of 3-D convolutions: a class and noise to clips, in the layout of DCGAN.

    python -m jaxvid.main --config configs/gan3d.py

Default: clips of moving shapes, drawn as it goes, 8 frames of 16x16 at every second moment, 40 classes (shape x
motion); residual blocks that paint the mask between two smooth layers, and discriminators of clips and of frames. On
two CPU cores 6 min 34 s, 0.9 GB. Shapes can be told at sight, and move as asked, in all colours; stars and digits are
ragged, grounds are speckled, and a class always starts from the same place. configs/classifier.py finds the asked class
in 93.9 % of 512 samples (91.5 to 95.7 %; 99.0 % of held-out clips, chance 2.5 %). The Frechet distance in its features
is 85 (untrained 1183, other held-out clips 20), in motion features 2.0 (12, 0.1). With a weight of 1 for R1, and a
discriminator whose rate falls too, 86.1 %.
`:dcgan`: the widths and batch of the literature, no condition, batch norm on both sides; too slow for two cores (on an
H100 a step takes 3.7 ms), not run to its end.
`:64`, `:128`: residual blocks for 16x64x64 and 16x128x128 videos of anything, for accelerators; not run to their end
(`:64` takes 0.9 s a step on two CPU cores; after 300 steps on 16 videos samples are textures).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.config import DOUBLE, FRAME, STENCIL
from jaxvid.names import choice


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of configs/gan3d.py", variant or "dcgan", ("dcgan", "64", "128", "tiny"))
    config = config_lib.gan_base()
    shape = {"name": "conv", "noise": 100, "residual": True}
    config.model.generator = config_lib.painter((48, 48), (FRAME, DOUBLE), **shape, **STENCIL)
    if variant in ("", "tiny"):
        config_lib.of_classes(config)
        config.optim.players.generator = {"schedule": "warmup_cosine_decay_schedule"}
        config.train.steps = 3500
    else:
        del config.model.discriminators.frames
        config.model.generator.update(background="none", foreground="painted")  # of any videos
    if variant == "dcgan":
        config.data.update(frames=16, stride=1)
        dcgan = {"factors": (DOUBLE, DOUBLE), "norm": "batch"}
        config.model.generator.update(widths=(256, 128), residual=False, modulated=False, **dcgan)
        config.model.discriminators.video.update(widths=(128, 256), pooled=False, deviation=False, **dcgan)
        config.loss = config_lib.gan_loss("non_saturating")
        config.optim.learning_rate = 2e-4
        config.optim.players = ConfigDict()
        config.train.update(steps=2500, batch_size=64)
    if variant in ("64", "128"):
        count = {"64": 4, "128": 5}[variant]
        widths, factors = (256, 128, 64, 32, 16)[-count:], (DOUBLE, DOUBLE, FRAME, FRAME, FRAME)[:count]
        config.data.update(frames=16, resolution=int(variant), stride=1)
        config.model.generator.update(widths=widths, factors=factors)
        config.model.discriminators.video.update(widths=widths[::-1], factors=factors[::-1], residual=True)
        config.train.update(batch_size=8)
    if variant == "tiny":
        config_lib.gan_tiny(config)
        config.model.generator.factors = (DOUBLE, DOUBLE)
    return config
