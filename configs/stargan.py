"""StarGAN for videos: one generator that changes the color of a moving shape to any of eight.

Command: jaxvid train --config stargan
Device: two CPU cores.
Time and memory: 12 min 14 s on one core with other work on the second; 1.8 GB.
Score: 26.3 dB to the true scene in the asked color (the input: 20.3 dB), change error 2.70 gray levels (the input
    3.25, a still video 3.41), of 64 held-out clips. Of 256 a classifier of real clips, classifier:domains,
    assigns 100 % (98.5 to 100) to the asked color, and none of an untrained model's.
Samples: shapes take the asked color and keep their place, size and motion; a rim of the old color stays, and the small
    hole in them is often painted over.

Synthetic scenes, 8 frames of 32x32 at every second moment; a domain is the color of the main shape.
`:paper`: with the losses of the paper (Choi et al., 2018): Wasserstein with gradient penalty, five steps of the
discriminator for one of the generator. Of 49 steps all losses were finite, and the penalty fell from 7.7 to 1.1; nobody
has run it to its end yet.
`:folder`: videos or images of one's own, a sub-folder for each domain (data.path=DIR), 8 frames of 64x64; data.frames=1
for images, data.layout=attributes and data.attributes for a folder like CelebA's. Tried with
model.generator.widths=(16,32,64), 150 steps of 4 on 28 animals of AFHQ and 46 faces of CelebA-HQ: heads stay where they
are and take on light and tint of another domain; the way back reaches 17.1 and 15.0 dB.
`:256`: for accelerators, 256x256. Nobody has run it to its end yet.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

GENERATOR = {
    "name": "resnet",  # or "unet": with skip connections
    "widths": (16, 32, 64),  # channels at each scale, half as high and wide from one to the next
    "blocks": 4,  # residual blocks at the coarsest scale
    "kernel": 3,  # pixels of the first and of the last convolution
    "norm": "frame",  # or "none"
    "taps": False,  # a convolution over three frames in each block
    "window": 1,  # frames to each side of axial attention in the middle; 0: none
    "heads": 4,  # of that attention
    "output": "masked",  # a mask between new colors and the input; or "residual": added to it; or "direct"
}
PATCHES = {
    "frames": 1,  # judged together
    "stride": 1,  # between them
    "widths": (32, 64, 128),  # channels of the stages, each with half of the height and width
    "norm": "none",  # or "frame", which takes away how dark or colorful a frame is
}
LOSS = {
    "adversarial": "hinge",  # a name in losses.ADVERSARIAL
    "n_critic": 1,  # discriminator steps per generator step, each on its own share of the batch
    "gradient_penalty": 0.0,  # weight of (slope - 1)^2 between real videos and translations
    "r1": 0.01,  # weight of slope^2 / 2 at real videos
    "penalized": 1,  # every n-th video of a batch has its slope penalized
    "classes": 1.0,  # weight of the cross-entropy of domains
    "cycle": 10.0,  # weight of |G(G(x, t), own) - x|
    "commuting": 0.0,  # weight of |G(W x) - W G(x)| under a known motion W
    "differences": 0.0,  # weight of |change of the way back - change of x| from frame to frame
    "stillness": 0.0,  # weight of the change of translations where x stands still
    "augment": (),  # of all that is judged: names in nn/augment.py
}
DECAY = {"end_value": 0.0, "transition_begin": 0.5}  # constant, then linear to 0 from half of the run on
VARIANTS = ("paper", "folder", "256", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of stargan", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "stargan"
    config.data.update(frames=8, resolution=32, stride=2, layout="domains", label="color")
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.generator = ConfigDict(GENERATOR)
    config.model.discriminators = ConfigDict({"frames": PATCHES})
    config.condition = config_lib.condition(("label",))
    # Of training clips, by kind: mirrored and moved; brightness, saturation and contrast; played backwards.
    config.augment = ConfigDict({"geometric": False, "photometric": False, "temporal": False})
    config.loss = ConfigDict(LOSS)
    config.optim = config_lib.optimizer(
        1e-3, arguments={"b1": 0.5}, schedule="linear_schedule", schedule_arguments=DECAY, ema_decay=0.99, clip=0.0
    )
    config.train.update(steps=1000, batch_size=8, save_every=250)
    config.eval.update(every=250)
    if variant == "paper":
        config.loss.update(adversarial="wasserstein", n_critic=5, gradient_penalty=10.0, r1=0.0)
        config.optim.learning_rate = 1e-4
        config.train.batch_size = 40
    if variant in ("folder", "256"):
        config.data.update(name="folder", resolution=64, stride=1, label="class")
        config.model.generator.update(widths=(32, 64, 128), output="direct")
        config.augment.geometric = True
        config.train.update(steps=20_000, save_every=1000)
        config.eval.update(every=1000)
    if variant == "256":
        config.data.resolution = 256
        config.model.dtype = "bfloat16"
        config.model.generator.update(widths=(64, 128, 256), blocks=6, kernel=7)
        config.train.update(steps=200_000, workers=8)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(widths=(8, 16), blocks=1)
        config.model.discriminators.frames.widths = (8, 16)
    return config
