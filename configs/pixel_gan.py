"""Pixel-wise GAN: one dense layer from the noise, one from the condition, and one from both to every pixel of the clip.

Command: jaxvid train --config pixel_gan
Device: two CPU cores.
Time and memory: 8 min 50 s in all, 1.5 GB.
Score: mean absolute error (of values in [-1, 1]) on held-out clips 0.0340, the first frames included; to repeat the
    last of these leaves 0.0388. Of 512 samples the Frechet distance to held-out clips, in the features of
    configs/classifier.py, is 301, and of their motion 2.9; before training, when the last of these is all but
    repeated, 515 and 8.5; of other real clips 20 and 0.1.
Samples: shapes go where they should in their colors, and get soft on the way.

8x16x16 synthetic clips of moving shapes. The condition is the first two frames; the generator makes the change
from the last of them, and the mean absolute error (times 100) holds it near the real clip.
`:cgan`: a class to clips, by dense layers on both sides; in the discriminator the class is concatenated to the features
(Mirza and Osindero, 2014). Not run to its end: after 400 steps samples are black or white with specks in the middle,
alike within a class.
`:celeba`: pictures, as of faces, 64x64 (data.path=DIR): one dense layer alone, from the noise to all pixels. It makes
sums of pictures, and the absolute error, with the literature's weight of 100, is taken against a picture that has
nothing to do with the noise: it draws every sample towards the median face. On 90 gray faces of 25x25 (LFW) 400 steps
led to one blurred face with faint differences, 27 % of those between real faces; without that error
(loss.reconstruction=0.0) to 65 %, and to faces that can be guessed behind colored noise. On 46 faces of CelebA-HQ 300
steps (5 minutes on a busy core, 1.2 GB) led to pale shades of heads.
`:celeba_conditional`: by the attributes that list_attr_celeba.txt names, in the folder or beside it: a dense layer of
50 for these, whose output joins the noise (a linear layer of the noise before the linear one to pixels, as in the
literature, could make nothing else). On 46 faces of CelebA-HQ, with a list of three made for them, 300 steps led
to men and women that can be told apart, on bright or dark backgrounds as asked, with noise over them; the same
attributes lead to the same face (samples differ 17 % as much as the data do).
Both log FID at each evaluation where Inception's weights are there; they were not in these runs. Nobody has run either
on the whole of CelebA yet. From TFDS: data.name=tfds, data.dataset=celeb_a and data.layout=classes.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

VIDEO = {
    "widths": (32, 64, 64),  # channels of the stages
    "factors": ((2, 2, 2), (2, 2, 2), (1, 1, 1)),  # by which they shrink time, height and width
    "norm": "none",  # or "group", "batch"
    "residual": False,
    "spectral": False,  # kernels divided by their largest singular value
    "pooled": True,  # judged by mean and maximum over space, and one layer more, instead of place by place
    "deviation": True,  # one feature more: how much the videos of a batch differ, so that they stay diverse
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
    "reconstruction": 100.0,  # weight of the mean absolute error against the real video of the same condition
    "classes": 0.0,  # weight of the auxiliary classifier's cross-entropy
    "instance_noise": 0.0,  # standard deviation of noise on all that is judged, falling to 0 over the run
    "augment": (),  # of all that is judged: names in nn/augment.py
}
FACTORS = ((1, 2, 2), (1, 2, 2), (1, 2, 2))  # of pictures
VARIANTS = ("cgan", "celeba", "celeba_conditional", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of pixel_gan", variant or "cgan", VARIANTS)
    config = config_lib.base()
    config.method = "gan"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    # Of the discriminator, or "projection", "concatenation"; the first frames are part of the video.
    config.model.conditioning = "none"
    # Width: of the hidden layer; 0: there is none.
    config.model.generator = ConfigDict({"name": "dense", "noise": 100, "width": 1024})
    # Conditioned on actions, dense layers of 256 and 128 led to a Frechet distance of 364, not 248.
    config.model.discriminators = ConfigDict({"video": VIDEO})
    config.condition = config_lib.condition(("first_frames",), first_frames=2, features=512)
    config.loss = ConfigDict(LOSS)
    # From gray and without the game, 400 steps at this rate left an error of 0.100 so, 0.117 at b1 0.5 and b2 0.99.
    config.optim = config_lib.optimizer(
        1e-3,
        arguments={"b1": 0.9, "b2": 0.999},
        schedule="warmup_cosine_decay_schedule",
        clip=0.0,
        ema_decay=0.995,
        players={
            "discriminator": {
                "arguments": {"b1": 0.5, "b2": 0.99},
                "learning_rate": 5e-4,
                "schedule": "constant_schedule",
            }
        },
    )
    config.sample = ConfigDict({"temperature": 1.0})  # factor on the noise: below 1, samples differ less
    config.train.update(steps=3000, batch_size=128, save_every=500)
    config.eval.update(every=500, examples=256)
    if variant == "cgan":
        config.model.conditioning = "concatenation"
        config.model.discriminators = ConfigDict({"dense": {"widths": (256, 128), "spectral": False}})
        config.condition.update(on=("label",), features=64)
        config.loss.update(r1=2.0, penalized=1, reconstruction=0.0)
    if variant in ("celeba", "celeba_conditional"):
        config.data.update(name="folder", frames=1, resolution=64, stride=1)
        config.model.generator.width = 0
        config.model.discriminators.video.update(widths=(32, 64, 128), factors=FACTORS)
        config.condition.update(on=(), features=50)
        config.loss.penalized = 4
        config.train.batch_size = 64
        config.eval.update(examples=2048, optional=("fid",))
    if variant == "celeba_conditional":
        config.data.layout = "attributes"
        config.model.conditioning = "projection"
        config.condition.on = ("attributes",)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(width=32, noise=16)
        config.model.discriminators.video.update(widths=(8, 16), factors=((2, 2, 2), (2, 2, 2)))
        config.loss.penalized = 2
    return config
