"""CycleGAN for videos: from outlines to filled shapes and back, learned from clips that are no pairs.

Command: jaxvid train --config cyclegan
Device: two CPU cores.
Time and memory: 24 min on one core, busy with other work (13 at its speed before that); 2.2 GB.
Score: 23.1 dB from A to the truth in B (the input: 20.7 dB; the goal, 24, is not met), 21.6 dB from B to A, change
    error 5.38 gray levels (the input 6.02, but a still video 3.43), 29.3 dB of the way back, of 64 held-out clips.
Samples: outlines are filled in their colors, paler and with spots, keep a rim and mostly lose their small holes; on the
    way back shapes open again. Backgrounds stay.

Synthetic scenes, 8 frames of 32x32 at every second moment: A are outlines, B are filled, of other scenes in training.
What made it learn: discriminators that see frames without their mean color (models/translator.py), which alone tell the
domains apart in 89 instead of 59 % after 200 steps; an output that is added to the input; weights of 2 and 1 instead of
5 and 2.5 for cycle and identity; that discriminators reject the other domain, too (22.1 dB after 500 steps instead of
21.7). Without norms in the generator, runs reached 23.1 dB after 1000 steps, or broke down after 400 to 700. Tried
before: a direct output, which falls back to the input, 21.7 dB; a mask, which closes; a rate of 2e-4 for the
discriminators; hinge losses with R1.
`:shared`: bidirectional, both directions share one trunk between two ends: 22.9 dB to B, 20.9 to A.
`:improved`: with the losses and augmentations that keep videos steady. All losses were finite in 100 steps of an older
form with a direct output: 21.6 dB.
`:folder`: videos or images of one's own, in trainA/ and trainB/ (data.path=DIR), 8 frames of 64x64; data.frames=1 for
images. Tried with model.generator.widths=(16,32,64), 300 steps of 4 on two horses and two zebras: dark and white parts
where the horses are, on paler grass; the way back reaches 16.8 dB.
`:256`: for accelerators, 256x256. Nobody has run it to its end yet.
`:tiny`: seconds, for tests.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import choice

GENERATOR = {
    "name": "unet",  # or "resnet": without skip connections, as in the paper
    "widths": (16, 32, 64),  # channels at each scale, half as high and wide from one to the next
    "blocks": 4,  # residual blocks at the coarsest scale
    "kernel": 3,  # pixels of the first and of the last convolution
    "norm": "frame",  # as in the paper; or "none": with a direct output, norms take away how light a frame is
    "taps": False,  # a convolution over three frames in each block
    "window": 0,  # frames to each side of axial attention in the middle; 0: none
    "heads": 4,  # of that attention
    "output": "residual",  # added to the input; or "direct"; or "masked": a mask between new colors and the input
}
PATCHES = {
    "frames": 1,  # judged together
    "stride": 1,  # between them
    "widths": (32, 64, 128),  # channels of the stages, each with half of the height and width
    "norm": "none",  # or "frame"
}
LOSS = {
    "adversarial": "least_squares",  # a name in losses.ADVERSARIAL
    "cycle": 2.0,  # weight of |F(G(a)) - a|
    "identity": 1.0,  # weight of |G(b) - b|, which keeps colors; 0 where they should change
    "cycle_features": 0.0,  # share of the cycle's pixels that features replace by the end (arXiv 2408.15374)
    "commuting": 0.0,  # weight of |G(W a) - W G(a)| under a known motion W
    "differences": 0.0,  # weight of |change of F(G(a)) - change of a| from frame to frame
    "stillness": 0.0,  # weight of the change of G(a) where a stands still
    "bound": 0.0,  # the largest weight of any of these; 0: none
    "reject_source": True,  # each discriminator also rejects real videos of the other domain
    "pool": 50,  # translations that the discriminators learn from again; 0: none
    "r1": 0.0,  # weight of slope^2 / 2 at real videos
    "augment": (),  # of all that is judged: names in nn/augment.py
}
DECAY = {"end_value": 0.0, "transition_begin": 0.5}  # constant, then linear to 0 from half of the run on
VARIANTS = ("shared", "improved", "folder", "256", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of cyclegan", variant or "tiny", VARIANTS)
    config = config_lib.base()
    config.method = "cyclegan"
    config.data.update(frames=8, resolution=32, stride=2, layout="two_sides")
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.generator = ConfigDict(GENERATOR)
    config.model.shared = variant == "shared"  # one trunk for both directions
    # Of single frames, and of three together.
    config.model.discriminators = ConfigDict({"frames": PATCHES, "clips": {**PATCHES, "frames": 3}})
    # Of training clips, by kind: mirrored and moved; brightness, saturation and contrast; played backwards.
    config.augment = ConfigDict({"geometric": False, "photometric": False, "temporal": False})
    config.loss = ConfigDict(LOSS)
    config.optim = config_lib.optimizer(
        1e-3, arguments={"b1": 0.5}, schedule="linear_schedule", schedule_arguments=DECAY, ema_decay=0.99, clip=1.0
    )
    config.train.update(steps=1500, batch_size=4, save_every=250)
    config.eval.update(every=250)
    if variant == "improved":
        config.augment.update(geometric=True, temporal=True)
        config.loss.update(cycle_features=0.5, commuting=1.0, differences=2.0, stillness=1.0)
        config.loss.update(augment=("translation",), bound=5.0)
    if variant in ("folder", "256"):
        config.data.update(name="folder", resolution=64, stride=1)
        # The literature's networks, losses and rate, for pictures that have to change more.
        config.model.generator.update(name="resnet", widths=(32, 64, 128), blocks=6, output="direct")
        for panel in config.model.discriminators.values():
            panel.norm = "frame"
        config.loss.update(cycle=5.0, identity=2.5, reject_source=False)
        config.optim.learning_rate = 2e-4
        config.augment.geometric = True
        config.train.update(steps=20_000, save_every=1000)
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
        config.loss.pool = 16
    return config
