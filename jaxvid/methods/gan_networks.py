"""The networks of `config.model` for `methods.gan`: a generator, and a panel of discriminators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxvid.methods import condition
from jaxvid.models import gan3d, gan_fc, gan_layered, gan_rnn
from jaxvid.names import choice
from jaxvid.nn.condition import ConditionEncoder
from jaxvid.nn.norm import NORMS

UNCHANGED = 1e-4  # variance of first changes from a given frame


def stages(field: str, options: ConfigDict, size: Sequence[int]) -> dict[str, Any]:
    """Widths and factors of a network of stages; raises ValueError where they do not fit each other or the video."""
    widths, factors = tuple(options.widths), tuple(map(tuple, options.factors))
    if not widths or len(widths) != len(factors) or any(len(factor) != 3 for factor in factors):
        raise ValueError(
            f"{field} has widths {widths} and factors {factors}, expected one factor (time, height, width) per width."
        )
    if any(n < 1 for n in (*widths, *sum(factors, ()))):
        raise ValueError(f"{field} has widths {widths} and factors {factors}, expected whole numbers of at least 1.")
    choice(f"{field}.norm", options.norm, NORMS)
    if options.norm == "group" and any(width % 8 for width in widths):
        raise ValueError(f"{field}.widths are {widths}, expected multiples of 8, since {field}.norm is group.")
    grows = "discriminators" not in field  # a strided convolution takes any size, unless what it skips is pooled
    for axis, length, factor in zip(("frames", "height", "width"), size, gan3d.total(factors), strict=True):
        if length % factor and (grows or options.residual):
            raise ValueError(f"{field}.factors {factors} do not divide the video: {axis} {length} by {factor}.")
    return {"widths": widths, "factors": factors, "norm": options.norm, "residual": options.residual}


def make_generator(config: ConfigDict, axis_name: str | None, dtype: Any) -> gan3d.Conditioned | gan_fc.Continuation:
    """The module of `config.model.generator`."""
    options, field = config.model.generator, "model.generator"
    size = (config.data.frames, config.data.resolution, config.data.resolution)
    name = choice(f"{field}.name", options.name, ("conv", "recurrent", "layered", "dense"))
    positive(field, options)
    if name == "dense":
        if "first_frames" in config.condition.on:
            following = (config.data.frames - config.condition.first_frames, *size[1:], 3)
            changes = gan_fc.DenseGenerator(following, options.noise, options.width, UNCHANGED, dtype)
            return gan_fc.Continuation(changes, condition.make_encoder(config.condition, dtype))
        whole = gan_fc.DenseGenerator((*size, 3), options.noise, options.width, dtype=dtype)
        return gan3d.Conditioned(whole, encoder(config, dtype))
    if name != "conv":
        still(field, options)

    def painter(size: gan3d.Triple, channels: int = 3, **changed: Any) -> gan3d.Painter:
        fields = stages(field, ConfigDict({**options, **changed}), size)
        fields["modulated"] = options.modulated
        return gan3d.Painter(size, **fields, channels=channels, axis_name=axis_name, dtype=dtype)

    front = (1, options.picture, options.picture) if name == "layered" else size
    layers = make_layers(options, size, front, painter, dtype)
    if name == "conv":
        return gan3d.Conditioned(gan3d.Generator(layers, options.noise), encoder(config, dtype))
    cell = choice(f"{field}.cell", options.cell, gan_rnn.CELLS)
    codes: dict[str, Any] = {"content": options.content, "motion": options.motion, "memory": options.memory}
    codes |= {"cell": cell, "dtype": dtype}
    if name == "layered":
        network: Any = gan_layered.LayeredGenerator(layers, size=size, **codes)
    else:
        network = gan_rnn.RecurrentGenerator(layers, **codes)
    return gan3d.Conditioned(network, encoder(config, dtype))


def make_layers(
    options: ConfigDict, size: gan3d.Triple, front: gan3d.Triple, painter: Callable[..., gan3d.Painter], dtype: Any
) -> gan3d.Layers:
    """The layers of videos of `size`; what `painter(front, channels)` paints is as large as `front`."""
    field = "model.generator"
    choice(f"{field}.background", options.background, ("none", "painted", "smooth"))
    choice(f"{field}.foreground", options.foreground, ("painted", "smooth"))
    if options.background == "none":
        if options.name == "layered" or options.foreground != "painted":
            raise ValueError(f'{field}.background is "none", and there is a layer in front: set it to "smooth".')
        return gan3d.Layers(painter(front, 3))
    background: Any = gan3d.SmoothPainter(size[1:], soft=not options.told, dtype=dtype)
    if options.background == "painted":
        # Without a norm, which would take away what tells a dark picture from a light one.
        factors = [(1, *factor[1:]) for factor in options.factors]
        background = painter((1, *size[1:]), factors=factors, norm="none")
    if options.foreground == "smooth":
        foreground = gan3d.SmoothPainter(front[1:], soft=not options.told, dtype=dtype)
        return gan3d.Layers(painter(front, 1), background, foreground, options.told)
    return gan3d.Layers(painter(front, 4), background, told=options.told)


def make_discriminator(config: ConfigDict, axis_name: str | None, dtype: Any) -> gan3d.Conditioned:
    """The panel of `config.model.discriminators`: some of "video", "frames", "recurrent" and "dense"."""
    size = (config.data.frames, config.data.resolution, config.data.resolution)
    conditioning = choice("model.conditioning", config.model.conditioning, ("projection", "concatenation", "none"))
    classes = len(config.condition.classes) if config.loss.classes else 0
    members: list[Any] = []
    for name, options in config.model.discriminators.items():
        field = f"model.discriminators.{name}"
        choice("a field of model.discriminators", name, ("video", "frames", "recurrent", "dense"))
        positive(field, options)
        head = gan3d.Head(classes, conditioning == "projection", options.spectral, dtype=dtype)
        if name == "dense":
            members.append(gan_fc.DenseDiscriminator(tuple(options.widths), head, dtype))
            continue
        fields = {**stages(field, options, size), "spectral": options.spectral}
        fields |= {"deviation": options.deviation, "pooled": options.pooled}
        trunk = gan3d.Trunk(**fields, axis_name=axis_name, dtype=dtype)
        if name != "video":
            still(field, options)
        if name == "recurrent":
            members.append(gan_rnn.RecurrentDiscriminator(trunk, head, options.memory, dtype=dtype))
        elif name == "frames":
            members.append(gan3d.Discriminator(trunk, head, options.shown))
        else:
            members.append(gan3d.Discriminator(trunk, head))
    if not members:
        raise ValueError("model.discriminators is empty, expected one at least, say video.")
    return gan3d.Conditioned(gan3d.Panel(tuple(members)), encoder(config, dtype) if conditioning != "none" else None)


def encoder(config: ConfigDict, dtype: Any) -> ConditionEncoder | None:
    """A player's own module for the conditions of `config.condition`; None where there are none."""
    return condition.make_encoder(config.condition, dtype) if config.condition.on else None


def positive(field: str, options: ConfigDict) -> None:
    """Raises ValueError where a size of a network is below 1."""
    for name, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{field}.{name} is {value}, expected at least 1.")


def still(field: str, options: ConfigDict) -> None:
    """Raises ValueError where the stages of a network that goes frame by frame change time, or look beside a frame."""
    if any(factor[0] != 1 for factor in options.factors):
        raise ValueError(f"{field}.factors are {tuple(options.factors)}, expected 1 in time: it goes frame by frame.")
    if options.residual:
        raise ValueError(f"{field}.residual is True, and such stages see the frames beside: set it to False.")
