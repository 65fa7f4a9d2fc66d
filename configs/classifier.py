"""Video classifier: the class of a clip, one of 40. It judges the samples of conditional generators.

Command: jaxvid train --config classifier
Device: one of two CPU cores, with other work beside it.
Time and memory: 3 min 23 s, 0.95 GB.
Score: 98.9 % of the 1024 evaluation clips, of one run.
Samples: none; python -m jaxvid.evaluate --workdir runs/acgan --classifier runs/classifier --references --num 512

Synthetic clips of moving shapes, 8 frames of 16x16 at every second moment, as the recipes of GANs have them.
For other labeled videos set data.name and data.path; frames, resolution and stride are those of the generator that it
will judge. Crops and flips would change some classes, so there are none.
`:domains`: the color at 32x32, one of 8, to judge translations: python -m jaxvid.evaluate --workdir runs/stargan
--classifier runs/classifier_domains. It finds all of 1024. For domains of one's own set data.name=folder, data.path,
data.label=class, and frames, resolution and stride as those of the translator.
`:32`: the same at 32x32. Nobody has run it to its end yet.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

VARIANTS = ("16", "32", "domains", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of classifier", variant or "16", VARIANTS)
    config = config_lib.base()
    config.method = "classifier"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.widths = (32, 64, 128)  # channels of the convolutions, multiples of 8
    config.model.strides = ((2, 2, 2), (1, 1, 1), (2, 2, 2))  # of their time, height, width
    config.model.features = 256  # of the penultimate layer
    config.model.dtype = "float32"  # of the convolutions, or "bfloat16"
    config.condition = config_lib.condition(("label",))
    config.optim = config_lib.optimizer(2e-3, schedule="warmup_cosine_decay_schedule")
    config.train.update(steps=3000, batch_size=32)
    config.eval.update(every=500, examples=1024)
    if variant == "32":
        config.data.resolution = 32
        config.model.widths = (32, 48, 64, 128)
        config.model.strides = ((1, 2, 2), *config.model.strides)
    if variant == "domains":
        config.data.update(resolution=32, layout="domains", label="color")
        config.model.strides = ((1, 4, 4), (1, 2, 2), (2, 2, 2))
        config.train.steps = 300
        config.eval.update(every=100)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.update(widths=(8, 16), strides=((1, 2, 2), (2, 2, 2)), features=16)
    return config
