"""Auxiliary-classifier video GAN (Odena et al., 2017): a class and noise to clips.

Command: jaxvid train --config acgan
Device: two CPU cores.
Time and memory: 8 min 44 s in all, 0.9 GB.
Score: configs/classifier.py finds the asked class in 92.0 % of 512 samples (89.3 to 94.0 %; of another run 91.6 %;
    99.0 % of held-out clips, chance 2.5 %). The Frechet distance in its features is 75 (of another run 80, untrained
    2007, other held-out clips 20), in motion features 0.87 (2.7, 0.1).
Samples: shapes can be recognized at sight, and move as asked over plain backgrounds, in all colors; a class keeps to
    one start, and often to one digit.

Synthetic clips of moving shapes, 8 frames of 16x16 at every second moment, 40 classes (shape x motion); a
foreground that moves over a background, and discriminators of clips and of frames. The discriminators also predict the
class, on which they do not depend. They learn that from real clips alone, so that they cannot agree with the generator
on a wrong one. Two samples of a class differ by 0.76, any two clips of the data by 0.66; where the colors and the
discriminators depend on the class, samples differ by 0.09 (with 93.2 and 90.8 % of the classes, in two runs).
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

GENERATOR = {
    "name": "layered",  # a foreground that moves over a static background: models/gan_layered.py
    "foreground_size": 12,  # pixels of its side
    "content": 50,  # noise of a clip
    "motion": 10,  # noise of a frame
    "memory": 64,  # features of the recurrent network over frames
    "cell": "gru",  # or "lstm"
    "widths": (64, 64),  # channels of the renderer's stages
    "factors": ((1, 2, 2), (1, 2, 2)),  # by which they grow in time, height and width
    "norm": "batch",  # or "group", "none"
    "residual": False,  # stages with a skip connection, for large videos
    "modulated": True,  # noise and condition also scale and shift the features of every stage
    # The renderer makes the mask between two layers whose colors change slowly: so outlines are learned from the first
    # step on, before even surfaces are.
    "background": "gradient",  # between the colors of the corners; or "rendered"
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
# As a classifier, a trunk of two frames found 79 % of the shapes after 500 steps; one of clips 48 %.
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
VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of acgan", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    # Of the discriminators: "none", "projection" or "concatenation". Those that depend on the class reject what the
    # generator has just made of a class; it moves on from one clip to another, and makes that alone.
    config.model.conditioning = "none"
    config.model.generator = ConfigDict(GENERATOR)
    config.model.discriminators = ConfigDict({"video": VIDEO, "frames": FRAMES})
    config.condition = config_lib.condition(("label",))
    config.loss = ConfigDict(LOSS)
    config.optim = config_lib.optimizer(
        1e-3,
        arguments={"b1": 0.5, "b2": 0.99},
        schedule="warmup_cosine_decay_schedule",
        clip=0.0,
        ema_decay=0.995,
        players={"discriminator": {"learning_rate": 1.5e-3}},
    )
    config.sample = ConfigDict({"temperature": 1.0})  # factor on the noise: below 1, samples differ less
    config.train.update(steps=5000, batch_size=32, save_every=500)
    config.eval.update(every=500, examples=256)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(foreground_size=8, content=8, motion=4, memory=8, widths=(16, 8))
        config.model.discriminators.video.update(widths=(8, 16), factors=((2, 2, 2), (2, 2, 2)))
        config.model.discriminators.frames.update(widths=(8, 16), factors=((1, 2, 2), (1, 2, 2)))
        config.loss.penalized = 2
    return config
