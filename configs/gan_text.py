"""Text-to-video GAN: a caption and noise to clips, the text encoder trained with it on the data's own captions.

Command: jaxvid train --config gan_text
Device: two CPU cores.
Time and memory: 9 min 21 s, 1.0 GB.
Score: configs/classifier.py finds the class of the caption in 95.9 % of 512 samples (93.8 to 97.3 %; 99.0 % of held-out
    clips, chance 2.5 %). The Frechet distance in its features is 28 (untrained 1962, other held-out clips 20), in
    motion features 0.83 (3.0, 0.1).
Samples: shape, color, background and motion are those of the caption; digits are hard to recognize, and spinning
    shapes turn too little.

Synthetic clips of moving shapes, 8 frames of 16x16 at every second moment; networks as in configs/acgan.py. The
discriminators project the caption, and also predict the class, where the data have classes. Three in ten of the clauses
after the first are left out in training, so that short captions work as well.
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
    "static_conditioned": True,  # these layers depend on the caption
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
VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of gan_text", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.conditioning = "projection"  # of the discriminators, or "concatenation", "none"
    config.model.generator = ConfigDict(GENERATOR)
    config.model.discriminators = ConfigDict({"video": VIDEO, "frames": FRAMES})
    config.condition = config_lib.condition(("text",), left_out=0.3)
    config.loss = ConfigDict(LOSS)
    config.optim = config_lib.optimizer(
        1e-3,
        arguments={"b1": 0.5, "b2": 0.99},
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
