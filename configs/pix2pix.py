"""Pix2Pix for videos: from outlines to filled shapes, learned from pairs.

Command: jaxvid train --config pix2pix
Device: two CPU cores.
Time and memory: 13 min 11 s on one core with other work on the second; 1.4 GB.
Score: 31.4 dB to the truth (the input: 20.7 dB), change error 2.46 gray levels (the input 6.02, a still video 3.43), of
    64 held-out clips.
Samples: shapes are filled in their colors, follow the motion, and keep their holes; edges are soft, wide ones spotted.

Synthetic scenes, 8 frames of 32x32 at every second moment: the input as outlines, the truth filled.
Tried, each after 1000 steps: norms of frames in both networks, 27.0 dB and colors in blotches, since a norm takes away
how light a frame is (28.8 dB after 2000); no norms, and rates of 1e-3 for both players, 27.9 dB.
`:folder`: pairs of one's own, matched by name (data.path=DIR with A/ and B/; data.layout=side_by_side for halves of one
picture; data.direction=BtoA for translating to A), 8 frames of 64x64; images with data.frames=1. Tried with
model.generator.widths=(16,32,64): a video to its optical flow, 36.9 dB of held-out frames after 100 steps of 4
(untrained: 33.7), a blur of the right color on the nearest person; two or three facades: photos become blue and red
without the shapes of the drawing (150 steps of 4), drawings become fronts with rows of dark windows (300 steps).
`:256`: for accelerators, 256x256. Nobody has run it to its end yet.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

GENERATOR = {
    "name": "unet",  # or "resnet": without skip connections
    "widths": (16, 32, 64),  # channels at each scale, half as high and wide from one to the next
    "blocks": 4,  # residual blocks at the coarsest scale
    "kernel": 3,  # pixels of the first and of the last convolution
    "norm": "none",  # or "frame", as in the paper, which takes away how light a frame is
    "taps": True,  # a convolution over three frames in each block
    "window": 0,  # frames to each side of axial attention in the middle; 0: none
    "heads": 4,  # of that attention
    "output": "direct",  # or "residual": added to the input; or "masked": a mask between new colors and it
}
PATCHES = {
    "frames": 1,  # judged together
    "stride": 1,  # between them
    "widths": (32, 64, 128),  # channels of the stages, each with half of the height and width
    "norm": "none",  # or "frame"
}
DECAY = {"end_value": 0.0, "transition_begin": 0.5}  # constant, then linear to 0 from half of the run on
VARIANTS = ("folder", "256", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of pix2pix", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "pix2pix"
    config.data.update(frames=8, resolution=32, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.generator = ConfigDict(GENERATOR)
    # Of single frames, and of three together.
    config.model.discriminators = ConfigDict({"frames": PATCHES, "clips": {**PATCHES, "frames": 3}})
    config.augment = ConfigDict({"geometric": False, "photometric": False, "temporal": False})  # one draw for a pair
    config.loss = ConfigDict()
    config.loss.adversarial = "least_squares"  # a name in losses.ADVERSARIAL
    config.loss.l1 = 100.0  # weight of the mean absolute error to the truth
    config.loss.features = 0.0  # weight of the distance between features of the discriminator
    config.loss.r1 = 0.0  # weight of slope^2 / 2 at real pairs
    config.loss.augment = ()  # of all that is judged: names in nn/augment.py
    config.optim = config_lib.optimizer(
        2e-3,
        arguments={"b1": 0.5},
        schedule="linear_schedule",
        schedule_arguments=DECAY,
        clip=0.0,
        players={"discriminator": {"learning_rate": 2e-4}},
    )
    config.train.update(steps=2500, batch_size=8, save_every=250)
    config.eval.update(every=250)
    if variant in ("folder", "256"):
        config.data.update(name="folder", layout="pairs", resolution=64, stride=1)
        config.model.generator.update(widths=(32, 64, 128), norm="frame")
        config.optim.learning_rate = 2e-4
        config.train.update(steps=10_000, save_every=1000)
        config.eval.update(every=1000)
    if variant == "256":
        config.data.resolution = 256
        config.model.dtype = "bfloat16"
        config.model.generator.update(widths=(64, 128, 256), blocks=9, kernel=7)
        config.train.update(steps=100_000, workers=8)
    if variant == "tiny":
        config_lib.tiny(config)
        config.model.generator.update(widths=(8, 16), blocks=1)
        for panel in config.model.discriminators.values():
            panel.widths = (8, 16)
    return config
