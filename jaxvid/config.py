"""The fields every recipe shares, and what may be said about a config before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxvid.names import choice

# A run goes on under another value of these; all others would make it another run.
MAY_CHANGE = (
    "train.steps",
    "train.parallel",
    "train.workers",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "eval",
    "sample",
)

AT_LEAST_ONE = (
    *("data.frames", "data.resolution", "data.stride", "train.steps", "train.batch_size", "train.log_every"),
    *("train.save_every", "train.keep", "eval.every", "eval.examples", "eval.videos"),
)


def base() -> ConfigDict:
    """The fields that the loop and the data read, with their defaults; a recipe adds `method`, `model`, `optim`."""
    config = ConfigDict()
    config.data = ConfigDict()
    config.data.name = "synthetic"  # synthetic, moving_mnist, folder, records or tfds
    config.data.path = ""  # the folder of videos, records or MNIST files
    config.data.dataset = ""  # the name of a TFDS data set
    config.data.frames = 16
    config.data.resolution = 64
    config.data.label = "class"  # what the synthetic source labels: class, color or style
    config.data.stride = 1  # every stride-th frame
    config.data.fps = 0.0  # frames per second of the clips, instead of a stride
    config.data.holdout = 0.1  # share of a folder's files kept for evaluation
    config.train = ConfigDict()
    config.train.steps = 1000
    config.train.batch_size = 8  # over all devices
    config.train.seed = 0
    config.train.parallel = "jit"  # or "pmap"
    config.train.workers = 0  # processes that load data; 0: threads alone
    config.train.log_every = 10
    config.train.save_every = 100
    config.train.keep = 2  # checkpoints
    config.eval = ConfigDict()
    config.eval.every = 100
    config.eval.examples = 64
    config.eval.videos = 8  # drawn at each evaluation
    config.eval.metrics = ()  # of samples and reconstructions, at each evaluation: names in jaxvid/evaluate/suite.py
    config.eval.protocols = ()  # of fid and fvd: names in jaxvid/metrics/protocol.py
    return config


def optimizer(learning_rate: float, **fields: Any) -> ConfigDict:
    """The fields of `optim.make_optimizers`, with defaults: Adam at a constant rate, gradients clipped to norm 1."""
    options = ConfigDict()
    options.name = "adam"  # a function in optax
    options.arguments = ConfigDict()
    options.learning_rate = learning_rate
    options.schedule = "constant_schedule"  # a function in optax.schedules
    options.schedule_arguments = ConfigDict()
    options.clip = 1.0  # global norm; 0: no clipping
    options.accumulate = 1  # train steps per optimizer step
    options.ema_decay = 0.99  # of the parameters that are evaluated
    options.players = ConfigDict()  # {player: {field: value}}: the fields in which a player differs from the others
    options.update(fields)
    return options


def tiny(config: ConfigDict) -> None:
    """Makes of a recipe what the tests run in seconds; its networks are left to it."""
    config.data.update(frames=8, resolution=16, stride=1)
    config.train.update(steps=20, batch_size=8, log_every=1, save_every=10)
    config.eval.update(every=10, examples=12, videos=4)


def gan_tiny(config: ConfigDict) -> None:
    """Makes of a GAN's recipe what the tests run in seconds."""
    tiny(config)
    config.loss.penalized = 2
    sizes = {"picture": 8, "content": 8, "motion": 4, "memory": 8, "noise": 16}
    generator, panel = config.model.generator, config.model.discriminators
    generator.update(widths=(16, 8), **{name: size for name, size in sizes.items() if name in generator})
    panel.video.update(widths=(8, 16), factors=(DOUBLE, DOUBLE))
    panel.frames.update(widths=(8, 16), factors=(FRAME, FRAME))


SAME, FRAME, DOUBLE = (1, 1, 1), (1, 2, 2), (2, 2, 2)  # factors of stages: of frames, height, width


# Of a generator: a mask between what moves and what does not, whose colours change slowly over the frame. So it learns
# outlines from the first step on, instead of how to paint evenly.
STENCIL = {"background": "smooth", "foreground": "smooth", "norm": "batch", "modulated": True}


def gan_base() -> ConfigDict:
    """The fields of a GAN's recipe, with defaults for short clips of moving shapes: a picture that a GRU moves."""
    config = base()
    config.method = "gan"
    config.data.update(frames=8, resolution=16, stride=2)
    config.model = ConfigDict()
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and statistics stay float32
    config.model.conditioning = "projection"  # of D; or "concatenation", or "none": it is not told the condition
    # A picture of 12x12 pixels that moves over a ground; see models/gan_layered.py.
    codes = {"name": "layered", "picture": 12, "content": 50, "motion": 10, "memory": 64, "cell": "gru"}
    config.model.generator = painter((64, 64), (FRAME, FRAME), **codes, **STENCIL)
    video = discriminator((32, 64, 64), (DOUBLE, DOUBLE, SAME), pooled=True)
    # As a classifier, this trunk of two frames told 79 % of the shapes after 500 steps; one of clips told 48 %.
    frames = discriminator((32, 96, 128), (FRAME, SAME, SAME), pooled=True, shown=2)
    config.model.discriminators = ConfigDict({"video": video, "frames": frames})
    config.condition = condition(())
    config.loss = gan_loss("non_saturating", r1=0.25, penalized=8)
    config.sample = ConfigDict({"temperature": 1.0})  # standard deviation of the noise that samples are made of
    adam = {"arguments": {"b1": 0.5, "b2": 0.99}, "clip": 0.0, "ema_decay": 0.995}
    config.optim = optimizer(1e-3, **adam, players={"discriminator": {"learning_rate": 1.5e-3}})
    config.train.update(steps=4000, batch_size=32, save_every=500)
    config.eval.update(every=500, examples=256)
    return config


def of_classes(config: ConfigDict) -> None:
    """Changes a GAN's recipe to one of classes with an auxiliary classifier (Odena et al., 2017).

    The class is told to what is painted and moves, not to the layers that do not move, which are colours here. Nor to
    the discriminator, which says itself which class it sees: one that is told rejects what a class has just been seen
    to show, and the generator moves on from one clip to another, and shows that alone.
    """
    config.condition = condition(("label",))
    config.model.conditioning = "none"
    config.model.generator.told = False
    config.loss.classes = 1.0


def painter(widths: Sequence[int], factors: Sequence[tuple[int, int, int]], **fields: Any) -> ConfigDict:
    """The fields of a convolutional generator, with defaults; those of its noise are left to the recipe."""
    options = ConfigDict({"widths": tuple(widths), "factors": tuple(factors)})
    options.norm = "group"  # or "batch", "none"
    options.residual = False  # stages with a skip connection, for large videos
    options.modulated = False  # the noise and the condition scale and shift the features of every stage
    options.background = "none"  # or a frame behind what moves: "painted", or "smooth" between colours of its corners
    options.foreground = "painted"  # what moves; or "smooth": the painter makes its mask alone. With a background
    options.told = True  # whether layers that do not move know the condition: False where it says nothing of colours
    options.update(fields)
    return options


def discriminator(widths: Sequence[int], factors: Sequence[tuple[int, int, int]], **fields: Any) -> ConfigDict:
    """The fields of a convolutional discriminator, with defaults.

    One of frames has besides `shown`, of how many frames of each video it learns; a recurrent one `memory`.
    """
    options = ConfigDict({"widths": tuple(widths), "factors": tuple(factors)})
    options.norm = "none"  # or "group", "batch"
    options.residual = False  # as of the generator
    options.spectral = False  # kernels divided by their largest singular value
    options.pooled = False  # judged by mean and maximum over space, and one layer more, instead of place by place
    options.deviation = True  # it sees how much the videos of a batch differ: samples that are all alike give way
    options.update(fields)
    return options


def gan_loss(adversarial: str, **fields: Any) -> ConfigDict:
    """The fields of `config.loss` for `methods.gan`, with defaults: the game alone. A weight of 0 costs nothing."""
    loss = ConfigDict()
    loss.adversarial = adversarial  # a name in losses.ADVERSARIAL
    loss.n_critic = 1  # discriminator steps per generator step, each on its own share of the batch
    loss.smoothing = 0.0  # one-sided: real videos are to be judged as 1 - smoothing
    loss.gradient_penalty = 0.0  # weight of (slope - 1)^2 between real and generated videos
    loss.r1 = 0.0  # weight of slope^2 / 2 at real videos
    loss.penalized = 1  # every n-th video of a batch is asked for its slope: with n above 1 a step is shorter
    loss.lecam = 0.0  # weight of LeCam's regularizer
    loss.feature_matching = 0.0  # weight of the distance between mean features of real and generated videos
    loss.reconstruction = 0.0  # weight of the mean absolute error against the real video of the same condition
    loss.classes = 0.0  # weight of the auxiliary classifier's cross-entropy
    loss.instance_noise = 0.0  # standard deviation of noise on all that is judged, falling to 0 over the run
    loss.augment = ()  # of what is judged: names in nn/augment.py
    loss.update(fields)
    return loss


CONDITIONS = ("label", "text", "first_frames", "action")


def condition(on: tuple[str, ...] = (), **fields: Any) -> ConfigDict:
    """The fields of `methods.condition`, with defaults: what a model is told of each video, before it makes it."""
    options = ConfigDict()
    options.on = on  # some of CONDITIONS
    options.features = 64  # of the vector that they become
    options.first_frames = 1  # frames given
    options.words = 24  # of a caption that are read
    options.left_out = 0.0  # share of the clauses after a training caption's first, so that short captions work too
    options.embeddings = ""  # an .npz with text [N] and embedding [N, E], used instead of a trained text encoder
    options.classes = ()  # this field and the next three are filled in from the training data
    options.vocabulary = ()
    options.actions = 0  # components of an action
    options.action_scale = ()  # the root mean square of each
    for field in fields:
        choice("a field of condition", field, options)
    options.update(fields)
    return options


def check(config: ConfigDict, devices: int) -> None:
    """Raises ValueError for what cannot work on this many devices, before anything is built."""
    fields = flatten(config)
    for field in AT_LEAST_ONE:
        if fields[field] < 1:
            raise ValueError(f"{field} is {fields[field]}, expected at least 1.")
    if config.train.workers < 0:
        raise ValueError(f"train.workers is {config.train.workers}, expected 0 (threads alone) or more.")
    if not 0 <= config.train.seed < 2**32:
        raise ValueError(f"train.seed is {config.train.seed}, expected at least 0 and below 2^32.")
    if config.data.fps < 0:
        raise ValueError(f"data.fps is {config.data.fps}, expected 0 (by stride) or more.")
    if not 0 < config.data.holdout < 1:
        raise ValueError(f"data.holdout is {config.data.holdout}, expected a share between 0 and 1.")
    size = config.train.batch_size
    if size % devices:
        fitting = max(1, round(size / devices)) * devices
        raise ValueError(
            f"train.batch_size {size} is not divisible by the {devices} devices; {fitting} is the nearest."
        )


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Plain dicts, lists and numbers, as they come back from JSON."""
    return json.loads(config.to_json_best_effort())


def from_dict(fields: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `to_dict`: lists become tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return tuple(map(plain, value)) if isinstance(value, list) else value

    return ConfigDict(plain(fields))


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"train.steps": 100, ...}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping | ConfigDict) and len(value) > 0
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """One line per field that differs and may not change within a run. Both are as from `to_dict`."""
    before, now = flatten(saved), flatten(present)
    missing = "(absent)"
    return [
        f"  {name}: the run has {shown(before.get(name, missing))}, the config now says {shown(now.get(name, missing))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, missing) != now.get(name, missing)
        and not any(name == free or name.startswith(free + ".") for free in MAY_CHANGE)
    ]


def shown(value: Any, length: int = 200) -> str:
    """A value as text for people: a long one is cut, and says how long it is."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}... ({len(value):,} in all)"
