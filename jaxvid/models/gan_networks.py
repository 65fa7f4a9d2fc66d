"""Builders of GANs' networks from plain options: a generator, and a panel of discriminators.

Errors name the fields where a recipe has them: `model.generator`, `model.discriminators`, `model.conditioning`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxvid.models import gan3d, gan_blocks, gan_fc, gan_layered, gan_rnn
from jaxvid.names import choice
from jaxvid.nn.condition import ConditionEncoder
from jaxvid.nn.norm import NORMS

UNCHANGED = 1e-4  # variance of first changes from a given frame


def stages(field: str, options: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """Widths and factors of a network of stages; raises ValueError where they do not fit each other or the video."""
    widths, factors = tuple(options["widths"]), tuple(map(tuple, options["factors"]))
    if not widths or len(widths) != len(factors) or any(len(factor) != 3 for factor in factors):
        raise ValueError(
            f"{field} has widths {widths} and factors {factors}, expected one factor (time, height, width) per width."
        )
    if any(n < 1 for n in (*widths, *sum(factors, ()))):
        raise ValueError(f"{field} has widths {widths} and factors {factors}, expected whole numbers of at least 1.")
    choice(f"{field}.norm", options["norm"], NORMS)
    if options["norm"] == "group" and any(width % 8 for width in widths):
        raise ValueError(f"{field}.widths are {widths}, expected multiples of 8, since {field}.norm is group.")
    grows = "discriminators" not in field  # a strided convolution takes any size, unless what it skips is pooled
    for axis, length, factor in zip(("frames", "height", "width"), size, gan_blocks.total(factors), strict=True):
        if length % factor and (grows or options["residual"]):
            raise ValueError(f"{field}.factors {factors} do not divide the video: {axis} {length} by {factor}.")
    return {"widths": widths, "factors": factors, "norm": options["norm"], "residual": options["residual"]}


def make_generator(
    options: Mapping[str, Any],
    size: gan_blocks.Triple,
    encoder: ConditionEncoder | None = None,
    first_frames: int = 0,
    axis_name: str | None = None,
    dtype: Any = None,
) -> gan_blocks.Conditioned | gan_fc.Continuation:
    """A generator: noise and conditions -> video.

    Args:
      options: `name`, and the fields of that network; see configs/gan3d.py, gan_rnn.py, acgan.py and pixel_gan.py.
      size: frames, height and width of the videos.
      encoder: of the conditions; None where there are none.
      first_frames: how many frames are given as a condition; a dense generator makes those that follow.
      axis_name: the mapped axis under pmap; None under jit.
      dtype: of computing; parameters and statistics stay float32.

    Raises:
      ValueError: sizes do not fit, or a field has no such value.
    """
    field = "model.generator"
    name = choice(f"{field}.name", options["name"], ("conv", "recurrent", "layered", "dense"))
    positive(field, options)
    if name == "dense":
        dense = {"noise": options["noise"], "width": options["width"], "dtype": dtype}
        if first_frames and encoder:
            following = gan_fc.DenseGenerator((size[0] - first_frames, *size[1:], 3), **dense, first=UNCHANGED)
            return gan_fc.Continuation(following, encoder)
        return gan_blocks.Conditioned(gan_fc.DenseGenerator((*size, 3), **dense), encoder)
    if name != "conv":
        still(field, options)

    def painter(size: gan_blocks.Triple, channels: int = 3, **changed: Any) -> gan_blocks.Painter:
        fields = stages(field, {**options, **changed}, size)
        fields["modulated"] = options["modulated"]
        return gan_blocks.Painter(size, **fields, channels=channels, axis_name=axis_name, dtype=dtype)

    front = (1, options["picture"], options["picture"]) if name == "layered" else size
    layers = make_layers(options, size, front, painter, dtype)
    if name == "conv":
        return gan_blocks.Conditioned(gan3d.Generator(layers, options["noise"]), encoder)
    cell = choice(f"{field}.cell", options["cell"], gan_rnn.CELLS)
    codes: dict[str, Any] = {"content": options["content"], "motion": options["motion"], "memory": options["memory"]}
    codes |= {"cell": cell, "dtype": dtype}
    if name == "layered":
        network: Any = gan_layered.LayeredGenerator(layers, size=size, **codes)
    else:
        network = gan_rnn.RecurrentGenerator(layers, **codes)
    return gan_blocks.Conditioned(network, encoder)


def make_layers(
    options: Mapping[str, Any],
    size: gan_blocks.Triple,
    front: gan_blocks.Triple,
    painter: Callable[..., gan_blocks.Painter],
    dtype: Any,
) -> gan_blocks.Layers:
    """The layers of videos of `size`; what `painter(front, channels)` paints is as large as `front`."""
    field = "model.generator"
    choice(f"{field}.background", options["background"], ("none", "painted", "smooth"))
    choice(f"{field}.foreground", options["foreground"], ("painted", "smooth"))
    if options["background"] == "none":
        if options["name"] == "layered" or options["foreground"] != "painted":
            raise ValueError(f'{field}.background is "none", and there is a layer in front: set it to "smooth".')
        return gan_blocks.Layers(painter(front, 3))
    background: Any = gan_blocks.SmoothPainter(size[1:], soft=not options["told"], dtype=dtype)
    if options["background"] == "painted":
        # Without a norm, which would take away what tells a dark picture from a light one.
        factors = [(1, *factor[1:]) for factor in options["factors"]]
        background = painter((1, *size[1:]), factors=factors, norm="none")
    if options["foreground"] == "smooth":
        foreground = gan_blocks.SmoothPainter(front[1:], soft=not options["told"], dtype=dtype)
        return gan_blocks.Layers(painter(front, 1), background, foreground, options["told"])
    return gan_blocks.Layers(painter(front, 4), background, told=options["told"])


def make_discriminator(
    panel: Mapping[str, Any],
    size: gan_blocks.Triple,
    encoder: ConditionEncoder | None = None,
    conditioning: str = "projection",
    classes: int = 0,
    axis_name: str | None = None,
    dtype: Any = None,
) -> gan_blocks.Conditioned:
    """A panel of discriminators: video and conditions -> a critique of each.

    Args:
      panel: fields by kind: some of "video", "frames", "recurrent" and "dense"; see configs/gan3d.py.
      size: frames, height and width of the videos.
      encoder: of the conditions; None where there are none.
      conditioning: "projection", "concatenation", or "none": the discriminators do not read the conditions.
      classes: of their auxiliary classifiers; 0 for none.
      axis_name: the mapped axis under pmap; None under jit.
      dtype: of computing; parameters and statistics stay float32.

    Raises:
      ValueError: sizes do not fit, or a field has no such value.
    """
    choice("model.conditioning", conditioning, ("projection", "concatenation", "none"))
    members: list[Any] = []
    for name, options in panel.items():
        field = f"model.discriminators.{name}"
        choice("a field of model.discriminators", name, ("video", "frames", "recurrent", "dense"))
        positive(field, options)
        head = gan_blocks.Head(classes, conditioning == "projection", options["spectral"], dtype=dtype)
        if name == "dense":
            members.append(gan_fc.DenseDiscriminator(tuple(options["widths"]), head, dtype))
            continue
        fields = {**stages(field, options, size), "spectral": options["spectral"]}
        fields |= {"deviation": options["deviation"], "pooled": options["pooled"]}
        trunk = gan_blocks.Trunk(**fields, axis_name=axis_name, dtype=dtype)
        if name != "video":
            still(field, options)
        if name == "recurrent":
            members.append(gan_rnn.RecurrentDiscriminator(trunk, head, options["memory"], dtype=dtype))
        elif name == "frames":
            members.append(gan_blocks.Discriminator(trunk, head, options["shown"]))
        else:
            members.append(gan_blocks.Discriminator(trunk, head))
    if not members:
        raise ValueError("model.discriminators is empty, expected one at least, say video.")
    return gan_blocks.Conditioned(gan_blocks.Panel(tuple(members)), encoder if conditioning != "none" else None)


def positive(field: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where a size of a network is below 1."""
    for name, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{field}.{name} is {value}, expected at least 1.")


def still(field: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where the stages of a network that goes frame by frame change time, or look beside a frame."""
    if any(factor[0] != 1 for factor in options["factors"]):
        raise ValueError(
            f"{field}.factors are {tuple(options['factors'])}, expected 1 in time: it goes frame by frame."
        )
    if options["residual"]:
        raise ValueError(f"{field}.residual is True, and such stages see the frames beside: set it to False.")
