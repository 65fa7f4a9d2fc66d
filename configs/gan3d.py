"""Video GAN of 3-D convolutions: a class and noise to clips, in the layout of DCGAN.

Command: jaxvid train --config gan3d
Device: two CPU cores.
Time and memory: 6 min 34 s, 0.9 GB.
Score: configs/classifier.py finds the asked class in 93.9 % of 512 samples (91.5 to 95.7 %; 99.0 % of held-out clips,
    chance 2.5 %). The Frechet distance in its features is 85 (untrained 1183, other held-out clips 20), in motion
    features 2.0 (12, 0.1).
Samples: shapes can be recognized at sight, and move as asked, in all colors; stars and digits are ragged, backgrounds
    are speckled, and a class always starts from the same place.

Synthetic clips of moving shapes, 8 frames of 16x16 at every second moment, 40 classes (shape x motion);
residual blocks that render the mask between two color gradients, and discriminators of clips and of frames. With a
weight of 1 for R1, and a discriminator whose rate falls too, 86.1 %.
`:dcgan`: the widths and batch of the literature, no condition, batch norm on both sides; too slow for two cores (on an
H100 a step takes 3.7 ms), not run to its end.
`:64`, `:128`: residual blocks for 16x64x64 and 16x128x128 videos of any kind, for accelerators; not run to their end
(`:64` takes 0.9 s a step on two CPU cores; after 300 steps on 16 videos samples are textures).
`:wgan`: Wasserstein critics with a gradient penalty (Gulrajani et al., 2017), four steps of theirs to one of the
generator. Not run to its end: after 400 steps the critics tell 79 % of the pairs apart, and samples are color
gradients, some with a dark spot.
`:regularized`: a hinge game, projected classes, and all regularizers at once: spectral norm, LeCam, feature matching,
instance noise, augmentation. Not run to its end: after 200 steps the discriminators still tell 99 % of the pairs apart,
and samples are color gradients with specks.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

GENERATOR = {
    "name": "conv",  # models/gan3d.py
    "noise": 100,  # of a clip
    "widths": (48, 48),  # channels of the renderer's stages
    "factors": ((1, 2, 2), (2, 2, 2)),  # by which they grow in time, height and width
    "norm": "batch",  # or "group", "none"
    "residual": True,  # stages with a skip connection, for large videos
    "modulated": True,  # noise and condition also scale and shift the features of every stage
    # The renderer makes the mask between two layers whose colors change slowly: so outlines are learned from the first
    # step on, before even surfaces are.
    "background": "gradient",  # between the colors of the corners; or "rendered", or "none": the renderer makes all
    "foreground": "gradient",  # or "rendered"
    "static_conditioned": False,  # these layers depend on the class; False where classes do not determine colors
}
VIDEO = {
    "widths": (32, 64, 64),  # channels of the stages
    "factors": ((2, 2, 2), (2, 2, 2), (1, 1, 1)),  # by which they shrink time, height and width
    "norm": "none",  # or "group", "batch"
    "residual": False,
    "spectral": False,  # kernels divided by their largest singular value
    "pooled": True,  # judged by mean and maximum over space, and one layer more, instead of place by place
    "deviation": True,  # one feature more: how much the videos of a batch differ, so that they stay diverse
}
FRAMES = {
    **VIDEO,
    "widths": (32, 96, 128),
    "factors": ((1, 2, 2), (1, 1, 1), (1, 1, 1)),
    "frames": 2,  # of each video, judged in training
}
LOSS = {
    "adversarial": "non_saturating",  # a name in losses.ADVERSARIAL
    "n_critic": 1,  # discriminator steps per generator step, each on its own share of the batch
    "smoothing": 0.0,  # one-sided: the target of real videos is 1 - smoothing
    "gradient_penalty": 0.0,  # weight of (slope - 1)^2 between real and generated videos
    "r1": 0.25,  # weight of slope^2 / 2 at real videos
    "penalized": 8,  # every n-th video of a batch has its slope penalized: with n above 1 a step is shorter
    "lecam": 0.0,  # weight of LeCam's regularizer
    "feature_matching": 0.0,  # weight of the distance between mean features of real and generated videos
    "reconstruction": 0.0,  # weight of the mean absolute error against the real video of the same condition
    "classes": 1.0,  # weight of the auxiliary classifier's cross-entropy
    "instance_noise": 0.0,  # standard deviation of noise on all that is judged, falling to 0 over the run
    "augment": (),  # of all that is judged: names in nn/augment.py
}


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of gan3d", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.conditioning = "none"  # of the discriminators, or "projection", "concatenation"
    config.model.generator = ConfigDict(GENERATOR)
    config.model.discriminators = ConfigDict({"video": VIDEO, "frames": FRAMES})
    config.condition = config_lib.condition(("label",))
    config.loss = ConfigDict(LOSS)
    config.optim = config_lib.optimizer(
        1e-3,
        arguments={"b1": 0.5, "b2": 0.99},
        clip=0.0,
        ema_decay=0.995,
        players={
            "generator": {"schedule": "warmup_cosine_decay_schedule"},
            "discriminator": {"learning_rate": 1.5e-3},
        },
    )
    config.sample = ConfigDict({"temperature": 1.0})  # factor on the noise: below 1, samples differ less
    config.train.update(steps=3500, batch_size=32, save_every=500)
    config.eval.update(every=500, examples=256)
    if variant:
        VARIANTS[variant](config)
    return config


def any_videos(config: ConfigDict) -> None:
    """Videos of any kind, without a condition: all of a frame is rendered, and clips alone are judged."""
    config.data.update(frames=16, stride=1)
    config.model.conditioning = "projection"
    config.model.generator.update(background="none", foreground="rendered", static_conditioned=True)
    del config.model.discriminators.frames
    config.condition.on = ()
    config.loss.classes = 0.0
    del config.optim.players.generator


def dcgan(config: ConfigDict) -> None:
    """The widths and batch of the literature."""
    any_videos(config)
    stages = {"factors": ((2, 2, 2), (2, 2, 2)), "norm": "batch"}
    config.model.generator.update(widths=(256, 128), residual=False, modulated=False, **stages)
    config.model.discriminators.video.update(widths=(128, 256), pooled=False, deviation=False, **stages)
    config.loss.update(r1=0.0, penalized=1)
    config.optim.learning_rate = 2e-4
    del config.optim.players.discriminator
    config.train.update(steps=2500, batch_size=64)


def large(config: ConfigDict, resolution: int, widths: tuple[int, ...]) -> None:
    """Residual blocks for large videos."""
    any_videos(config)
    factors = ((2, 2, 2), (2, 2, 2), *((1, 2, 2),) * (len(widths) - 2))
    config.data.resolution = resolution
    config.model.generator.update(widths=widths, factors=factors)
    config.model.discriminators.video.update(widths=widths[::-1], factors=factors[::-1], residual=True)
    config.train.update(steps=4000, batch_size=8)


def wgan(config: ConfigDict) -> None:
    """Wasserstein critics with a gradient penalty."""
    config.loss.update(adversarial="wasserstein", n_critic=4, gradient_penalty=10.0, r1=0.0, penalized=1)


def regularized(config: ConfigDict) -> None:
    """Regularizers of the discriminators, all at once; they project the class (Miyato and Koyama, 2018)."""
    config.model.conditioning = "projection"
    for options in config.model.discriminators.values():
        options.spectral = True
    config.loss.update(adversarial="hinge", r1=0.0, lecam=0.1, feature_matching=1.0, classes=0.0, instance_noise=0.1)
    config.loss.augment = ("color", "translation", "cutout")


def tiny(config: ConfigDict) -> None:
    """Small networks for tests."""
    config_lib.tiny(config)
    config.model.generator.update(noise=16, widths=(16, 8), factors=((2, 2, 2), (2, 2, 2)))
    config.model.discriminators.video.update(widths=(8, 16), factors=((2, 2, 2), (2, 2, 2)))
    config.model.discriminators.frames.update(widths=(8, 16), factors=((1, 2, 2), (1, 2, 2)))
    config.loss.penalized = 2


VARIANTS = {
    "dcgan": dcgan,
    "64": lambda config: large(config, 64, (128, 64, 32, 16)),
    "128": lambda config: large(config, 128, (256, 128, 64, 32, 16)),
    "wgan": wgan,
    "regularized": regularized,
    "tiny": tiny,
}
