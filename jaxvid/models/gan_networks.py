"""Builders of GANs' networks from plain options: a generator, and a panel of discriminators.

Of both builders, `size` is (frames, height, width) of the videos, `encoder` that of the conditions (None where there
are none), `axis_name` the mapped axis under pmap, and `dtype` that of computing (parameters stay float32).
Errors name the fields where a recipe has them: `model.generator`, `model.discriminators`, `model.conditioning`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxvid.models.gan3d import Generator
from jaxvid.models.gan_blocks import (
    ColorGradient,
    Compositor,
    Conditioned,
    Discriminator,
    Head,
    Panel,
    Renderer,
    Trunk,
    total_factor,
)
from jaxvid.models.gan_fc import Continuation, DenseDiscriminator, DenseGenerator
from jaxvid.models.gan_layered import LayeredGenerator
from jaxvid.models.gan_rnn import CELLS, RecurrentDiscriminator, RecurrentGenerator
from jaxvid.names import choice
from jaxvid.nn.condition import ConditionEncoder
from jaxvid.nn.conv import Triple
from jaxvid.nn.norm import NORMS

CHANGE_VARIANCE = 1e-4  # of the changes from a given frame, before training


def make_generator(
    size: Triple,
    options: Mapping[str, Any],
    encoder: ConditionEncoder | None = None,
    first_frames: int = 0,
    axis_name: str | None = None,
    dtype: Any = None,
) -> Conditioned | Continuation:
    """A generator: noise and conditions -> video.

    Args:
      options: `name`, one of "conv", "recurrent", "layered" and "dense", and the fields of that network; see
        configs/gan3d.py, gan_rnn.py, acgan.py and pixel_gan.py.
      first_frames: how many frames are given as a condition; a dense generator makes those that follow.

    Raises ValueError: sizes do not fit, or a field has no such value.
    """
    field = "model.generator"
    name = choice(f"{field}.name", options["name"], ("conv", "recurrent", "layered", "dense"))
    without_hidden_layer = name == "dense" and options["width"] == 0
    check_positive(field, {**options, "width": 1} if without_hidden_layer else options)
    if name == "dense":
        dense = {"noise": options["noise"], "width": options["width"], "dtype": dtype}
        if first_frames and encoder:
            following = (size[0] - first_frames, *size[1:], 3)
            changes = DenseGenerator(size=following, variance=CHANGE_VARIANCE, **dense)
            return Continuation(network=changes, encoder=encoder)
        return Conditioned(network=DenseGenerator(size=(*size, 3), **dense), encoder=encoder)
    if name != "conv":
        check_framewise(field, options)

    def renderer(size: Triple, channels: int = 3, **changed: Any) -> Renderer:
        stages = make_stages(field, {**options, **changed}, size)
        shared = {"modulated": options["modulated"], "axis_name": axis_name, "dtype": dtype}
        return Renderer(size=size, **stages, channels=channels, **shared)

    foreground_size = (1, *[options["foreground_size"]] * 2) if name == "layered" else size
    compositor = make_compositor(size, options, foreground_size, renderer, dtype)
    if name == "conv":
        return Conditioned(network=Generator(compositor=compositor, noise=options["noise"]), encoder=encoder)
    network = {"recurrent": RecurrentGenerator, "layered": LayeredGenerator}[name](
        compositor=compositor,
        frames=size[0],
        **{each: options[each] for each in ("content", "motion", "memory")},
        cell=choice(f"{field}.cell", options["cell"], CELLS),
        dtype=dtype,
    )
    return Conditioned(network=network, encoder=encoder)


def make_compositor(
    size: Triple, options: Mapping[str, Any], foreground_size: Triple, renderer: Callable[..., Renderer], dtype: Any
) -> Compositor:
    """The compositor of a generator's `options`; `renderer(size, channels, **changed options)` makes one.

    Raises ValueError: `background` and `foreground` do not fit each other, or have no such value.
    """
    field, conditioned = "model.generator", options["static_conditioned"]
    choice(f"{field}.background", options["background"], ("none", "rendered", "gradient"))
    choice(f"{field}.foreground", options["foreground"], ("rendered", "gradient"))
    static: dict[str, Any] = {}
    if options["background"] == "none":
        if options["name"] == "layered" or options["foreground"] != "rendered":
            raise ValueError(f'{field}.background is "none", and there is a foreground: set it to "gradient".')
    elif options["background"] == "rendered":
        # Without a norm, which would take away the difference between a dark image and a light one.
        factors = [(1, *factor[1:]) for factor in options["factors"]]
        static["background"] = renderer((1, *size[1:]), factors=factors, norm="none")
    else:
        static["background"] = ColorGradient(size=size[1:], soft=not conditioned, dtype=dtype)
    channels = 4 if static else 3
    if options["foreground"] == "gradient":
        channels = 1
        static["foreground"] = ColorGradient(size=foreground_size[1:], soft=not conditioned, dtype=dtype)
    # The names of parameters decide their initial values.
    rendered = renderer(foreground_size, channels).clone(name="painter")
    return Compositor(renderer=rendered, **static, static_conditioned=conditioned, name="layers")


def make_discriminator(
    size: Triple,
    panel: Mapping[str, Any],
    encoder: ConditionEncoder | None = None,
    conditioning: str = "projection",
    classes: int = 0,
    axis_name: str | None = None,
    dtype: Any = None,
) -> Conditioned:
    """A panel of discriminators: video and conditions -> a critique by each.

    Args:
      panel: fields by kind: some of "video", "frames", "recurrent" and "dense"; see configs/gan3d.py.
      conditioning: "projection", "concatenation", or "none": the discriminators do not depend on the conditions.
      classes: of their auxiliary classifiers; 0 for none.

    Raises ValueError: sizes do not fit, or a field has no such value.
    """
    choice("model.conditioning", conditioning, ("projection", "concatenation", "none"))
    if not panel:
        raise ValueError("model.discriminators is empty, expected one at least, say video.")
    members: list[Any] = []
    for name, options in panel.items():
        field = f"model.discriminators.{name}"
        choice("a field of model.discriminators", name, ("video", "frames", "recurrent", "dense"))
        check_positive(field, options)
        shared = {"spectral": options["spectral"], "dtype": dtype}
        head = Head(classes=classes, projection=conditioning == "projection", **shared)
        if name == "dense":
            members.append(DenseDiscriminator(widths=tuple(options["widths"]), head=head, dtype=dtype))
            continue
        if name != "video":
            check_framewise(field, options)
        shared |= {each: options[each] for each in ("deviation", "pooled")}
        trunk = Trunk(**make_stages(field, options, size), **shared, axis_name=axis_name)
        if name == "recurrent":
            members.append(RecurrentDiscriminator(trunk=trunk, head=head, memory=options["memory"], dtype=dtype))
        else:
            frames = options["frames"] if name == "frames" else None
            members.append(Discriminator(trunk=trunk, head=head, frames=frames))
    return Conditioned(network=Panel(members=tuple(members)), encoder=encoder if conditioning != "none" else None)


def make_stages(field: str, options: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """`widths`, `factors`, `norm` and `residual` of a network of stages.

    Raises ValueError: they do not fit each other or videos of `size`. It names `field`.
    """
    widths, factors = tuple(options["widths"]), tuple(map(tuple, options["factors"]))
    found = f"{field} has widths {widths} and factors {factors}"
    if not widths or len(widths) != len(factors) or any(len(factor) != 3 for factor in factors):
        raise ValueError(f"{found}, expected one factor (time, height, width) per width.")
    if any(n < 1 for n in (*widths, *sum(factors, ()))):
        raise ValueError(f"{found}, expected whole numbers of at least 1.")
    choice(f"{field}.norm", options["norm"], NORMS)
    if options["norm"] == "group" and any(width % 8 for width in widths):
        raise ValueError(f"{field}.widths are {widths}, expected multiples of 8, since {field}.norm is group.")
    grows = "discriminators" not in field  # a strided convolution takes any size, unless what it skips is pooled
    for axis, length, factor in zip(("frames", "height", "width"), size, total_factor(factors), strict=True):
        if length % factor and (grows or options["residual"]):
            raise ValueError(f"{field}.factors {factors} do not divide the video: {axis} {length} by {factor}.")
    return {"widths": widths, "factors": factors, "norm": options["norm"], "residual": options["residual"]}


def check_positive(field: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where a size of a network is below 1."""
    for name, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{field}.{name} is {value}, expected at least 1.")


def check_framewise(field: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where the stages of a network that goes frame by frame change time, or look beside a frame."""
    if any(factor[0] != 1 for factor in options["factors"]):
        factors = tuple(options["factors"])
        raise ValueError(f"{field}.factors are {factors}, expected 1 in time: it goes frame by frame.")
    if options["residual"]:
        raise ValueError(f"{field}.residual is True, and such stages see the frames beside: set it to False.")
