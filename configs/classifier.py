"""Video classifier: which of 40 classes does a clip show? It judges the samples of conditional generators.

    python -m jaxvid.main --config configs/classifier.py
    python -m jaxvid.evaluate --workdir runs/acgan --classifier runs/classifier --references --num 2048

Default: 16x16x16 clips of moving shapes, drawn as it goes. One run: 97.4 % of the 1024 evaluation clips and 98.6 % of
8192 other held-out ones; of these it mistakes the motion of 0.02 %, the shape of 1.4 %. It took 18 min on half of one
busy core; about 0.3 s of processor time a step.
`:32`: the same for 16x32x32. Nobody has run it to its end yet.
`:tiny`: seconds, for tests.
For other labelled videos set data.name and data.path; frames, resolution and stride are those of the generator that it
will judge. Crops and flips would change some classes, so that there are none.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    config_lib.choice("the variant of configs/classifier.py", variant or "16", ("16", "32", "tiny"))
    config = config_lib.base()
    config.method = "classifier"
    config.data.resolution = 16
    config.model = ConfigDict()
    config.model.widths = (48, 64, 128)  # channels of the convolutions, multiples of 8
    config.model.strides = ((2, 2, 2), (1, 1, 1), (2, 2, 2))  # of their time, height, width
    config.model.features = 256  # of the penultimate layer
    config.model.dtype = "float32"  # of the convolutions, or "bfloat16"
    config.condition = config_lib.condition(("label",))
    config.optim = config_lib.optimizer(2e-3, schedule="warmup_cosine_decay_schedule")
    config.train.update(steps=1500, batch_size=32)
    config.eval.update(every=500, examples=1024)
    if variant == "32":
        config.data.resolution = 32
        config.model.widths = (32, 48, 64, 128)
        config.model.strides = ((1, 2, 2), *config.model.strides)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.update(widths=(8, 16), strides=((1, 2, 2), (2, 2, 2)), features=16)
    return config
