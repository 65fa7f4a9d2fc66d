"""Weights of the FID Inception and of I3D, from any naming to one, and which weights they are.

The one naming is that of the PyTorch ports: "Mixed_3b.b1a.bn.running_mean", convolutions as [out, in, *kernel]. For
Inception it is pytorch-fid's (Szegedy et al. 2015, the graph of 2015-12-05), for I3D (Carreira and Zisserman 2017)
that of piergiaj's and VideoGPT's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from jaxvid.metrics.crc32c import masked_crc32c

NETWORKS = ("inception", "i3d")
NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
COUNTER = "num_batches_tracked"
# What a unit calls its convolution, the name of the last layer, and the shape of its weight.
CONVOLUTION = {"inception": "conv", "i3d": "conv3d"}
HEAD = {"inception": ("fc", (1008, 2048)), "i3d": ("logits.conv3d", (400, 1024, 1, 1, 1))}

# Kind of block: its branches, each (name, tower of the TensorFlow graph, layers as channels@height x width).
BRANCHES = {
    "A": (
        ("branch1x1", "", "64@1x1"),
        ("branch5x5", "tower", "48@1x1 64@5x5"),
        ("branch3x3dbl", "tower_1", "64@1x1 96@3x3 96@3x3"),
        ("branch_pool", "tower_2", "{0}@1x1"),
    ),
    "B": (
        ("branch3x3", "", "384@3x3"),
        ("branch3x3dbl", "tower", "64@1x1 96@3x3 96@3x3"),
    ),
    "C": (
        ("branch1x1", "", "192@1x1"),
        ("branch7x7", "tower", "{0}@1x1 {0}@1x7 192@7x1"),
        ("branch7x7dbl", "tower_1", "{0}@1x1 {0}@7x1 {0}@1x7 {0}@7x1 192@1x7"),
        ("branch_pool", "tower_2", "192@1x1"),
    ),
    "D": (
        ("branch3x3", "tower", "192@1x1 320@3x3"),
        ("branch7x7x3", "tower_1", "192@1x1 192@1x7 192@7x1 192@3x3"),
    ),
    "E": (  # a last layer of two kernels is two layers side by side
        ("branch1x1", "", "320@1x1"),
        ("branch3x3", "tower", "384@1x1 384@1x3|3x1"),
        ("branch3x3dbl", "tower_1", "448@1x1 384@3x3 384@1x3|3x1"),
        ("branch_pool", "tower_2", "192@1x1"),
    ),
}
STEM = (
    ("Conv2d_1a_3x3", 3, 32, (3, 3)),
    ("Conv2d_2a_3x3", 32, 32, (3, 3)),
    ("Conv2d_2b_3x3", 32, 64, (3, 3)),
    ("Conv2d_3b_1x1", 64, 80, (1, 1)),
    ("Conv2d_4a_3x3", 80, 192, (3, 3)),
)
INCEPTION_BLOCKS = (  # name, kind, input channels, what {0} stands for
    ("Mixed_5b", "A", 192, 32),
    ("Mixed_5c", "A", 256, 64),
    ("Mixed_5d", "A", 288, 64),
    ("Mixed_6a", "B", 288, 0),
    ("Mixed_6b", "C", 768, 128),
    ("Mixed_6c", "C", 768, 160),
    ("Mixed_6d", "C", 768, 160),
    ("Mixed_6e", "C", 768, 192),
    ("Mixed_7a", "D", 768, 0),
    ("Mixed_7b", "E", 1280, 0),
    ("Mixed_7c", "E", 2048, 0),
)
I3D_STEM = (
    ("Conv3d_1a_7x7", 3, 64, (7, 7, 7)),
    ("Conv3d_2b_1x1", 64, 64, (1, 1, 1)),
    ("Conv3d_2c_3x3", 64, 192, (3, 3, 3)),
)
I3D_BLOCKS = (  # name, input channels, output channels of b0, b1a, b1b, b2a, b2b and b3b
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
# SHA-256 of the masked CRC-32Cs, little-endian, of TensorFlow's tensors in the order of their names.
RGB_SCRATCH = "b595be092dc26a938063a4ffd522224517b5f0dabb6d8c7ffe4cb6eff714bc27"
RGB_IMAGENET = "ebca55ef8894ceea45a3c8855f53738cac247eef72a237750899a2882d95e8f6"
KNOWN_I3D = {
    RGB_SCRATCH: "rgb_scratch of kinetics-i3d, the TF-Hub weights of published FVD",
    RGB_IMAGENET: "rgb_imagenet of kinetics-i3d: ImageNet+Kinetics, wrong for published FVD",
}
# The first digits of a file's SHA-256, or its name as a Git object.
KNOWN_FILES = {
    "6726825d": "pytorch-fid's pt_inception-2015-12-05-6726825d.pth",
    "a867b87ac3a9097d200598b1d48a1b890d8ec744": "i3d_pretrained_400.pt of VideoGPT and TATS",
    "93daef59c7ae0e9e8f76225521407e60cbafa6aa": "i3d_torchscript.pt of StyleGAN-V",
    "73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a": "rgb_imagenet.pt of piergiaj: ImageNet+Kinetics, wrong for FVD",
    "2a7c22e23e6c74f50a0166ce61110bccd2ab48bb": "model_rgb.pth of hassony2: ImageNet+Kinetics, wrong for FVD",
}


class _Unit(NamedTuple):
    """A convolution with its normalisation."""

    name: str
    graph_name: str  # in TensorFlow's graph
    channels_in: int
    channels_out: int
    kernel: tuple[int, ...]


class Naming(NamedTuple):
    """How one family of files names a network's tensors."""

    network: str
    family: str
    names: dict[str, str]  # the file's name of each tensor; a name that is left out stands for ones
    from_tensorflow: bool  # kernels are [*kernel, in, out], vectors may be [1,1,1,1,C]


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of "inception" (472 tensors) or "i3d" (287), by name."""
    found: dict[str, tuple[int, ...]] = {}
    for unit in _units(network):
        found[f"{unit.name}.{CONVOLUTION[network]}.weight"] = (unit.channels_out, unit.channels_in, *unit.kernel)
        found |= {f"{unit.name}.{part}": (unit.channels_out,) for part in NORM}
    head, shape = HEAD[network]
    return found | {f"{head}.weight": shape, f"{head}.bias": shape[:1]}


def convert(tensors: Mapping[str, np.ndarray], network: str) -> dict[str, np.ndarray]:
    """The network's weights under the names, shapes and order of `shapes(network)`, float32.

    Every tensor has to be there in its shape, and no other but the counters `num_batches_tracked`. Where a program
    has no scale in its normalisation, it is one.

    Args:
      tensors: what `read` gives of a file of pytorch-fid, torch-fidelity, StyleGAN (TorchScript) for "inception"; of
        VideoGPT, piergiaj, hassony2, StyleGAN-V (TorchScript), kinetics-i3d, TF-Hub for "i3d".

    Raises:
      ValueError: it holds another network; a tensor is missing, misshapen, not finite or unknown, and which.
    """
    naming = _naming(tensors)
    if naming.network != network:
        raise ValueError(f"it holds the weights of {naming.network}, not of {network}")
    unknown = set(tensors) - set(naming.names.values())
    if surplus := sorted(name for name in unknown if name.rpartition(".")[2] != COUNTER):
        raise ValueError(f"{naming.family} has no tensor {surplus[0]!r} of shape {tensors[surplus[0]].shape}")
    return {name: _converted(tensors, naming, name, shape) for name, shape in shapes(network).items()}


def network_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The network, "inception" or "i3d", whose names the tensors bear; ValueError where it is neither."""
    return _naming(tensors).network


def identify(network: str, weights: Mapping[str, np.ndarray], data: bytes) -> str:
    """Which weights these are, for a report: known ones by name, others as "unknown weights, sha256 ...".

    I3D's are known by their numbers, whatever file they come in, through the checksums that TensorFlow stored of them;
    else, as Inception's, by the file.

    Args:
      weights: from `convert`.
      data: the file they came in; of a TensorFlow checkpoint the data file.
    """
    known = KNOWN_I3D.get(i3d_digest(weights)) if network == "i3d" else None
    sha256 = hashlib.sha256(data).hexdigest()
    git_object = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    git_object.update(data)
    known = known or KNOWN_FILES.get(sha256[:8]) or KNOWN_FILES.get(git_object.hexdigest())
    return known or f"unknown weights, sha256 {sha256}"


def i3d_digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the masked CRC-32Cs of I3D's tensors as TensorFlow stores them, in the order of its names.

    "" where a scale of the normalisation is not one: TensorFlow has none.
    """
    naming = next(naming for naming in _namings() if naming.from_tensorflow)
    if any((weights[name] != 1).any() for name in weights if name not in naming.names):
        return ""
    digest = hashlib.sha256()
    for _, name in sorted((graph_name, name) for name, graph_name in naming.names.items()):
        tensor = weights[name]
        stored = np.ascontiguousarray(tensor.transpose(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor, "<f4")
        digest.update(masked_crc32c(stored.data.cast("B")).to_bytes(4, "little"))
    return digest.hexdigest()


def _converted(tensors: Mapping[str, np.ndarray], naming: Naming, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in naming.names:
        return np.ones(shape, np.float32)
    source = naming.names[name]
    if source not in tensors:
        raise ValueError(f"{naming.family} needs the tensor {source!r} of shape {shape}, which is missing")
    tensor = tensors[source]
    expected = shape
    if naming.from_tensorflow and len(shape) == 5:
        expected = (*shape[2:], shape[1], shape[0])
    elif naming.from_tensorflow and tensor.shape == (1, 1, 1, 1, *shape):
        tensor = tensor.reshape(shape)
    if tensor.shape != expected or not np.issubdtype(tensor.dtype, np.floating):
        raise ValueError(f"its tensor {source!r} is {tensor.dtype} {tensor.shape}, expected float32 {expected}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"its tensor {source!r} holds values that are not finite")
    if naming.from_tensorflow and tensor.ndim == 5:
        tensor = tensor.transpose(4, 3, 0, 1, 2)
    return np.ascontiguousarray(tensor, np.float32)


def _naming(tensors: Mapping[str, np.ndarray]) -> Naming:
    """The naming of which the tensors have the most names, and at least half."""

    def share(naming: Naming) -> float:
        return sum(name in tensors for name in naming.names.values()) / len(naming.names)

    best = max(_namings(), key=share)
    if share(best) < 0.5:
        first = next(iter(tensors), None)
        raise ValueError(f"it holds neither the FID Inception nor I3D, but other tensors, such as {first!r}")
    return best


@lru_cache(maxsize=1)
def _namings() -> tuple[Naming, ...]:
    fid = {name: name for name in shapes("inception")}
    i3d = {name: name for name in shapes("i3d")}
    return (
        Naming("inception", "pytorch-fid's Inception", fid, False),
        Naming("inception", "StyleGAN's Inception", _stylegan_names(), False),
        Naming("i3d", "VideoGPT's I3D", i3d, False),
        Naming("i3d", "hassony2's I3D", _hassony2_names(), False),
        Naming("i3d", "TensorFlow's I3D", _tensorflow_names(), True),
    )


def _stylegan_names() -> dict[str, str]:
    """The TorchScript module's names follow TensorFlow's graph, and lie flat in the blocks of the kind E."""
    names = {"fc.weight": "output.weight", "fc.bias": "output.bias"}
    parts = ("conv.weight", "weight"), ("bn.bias", "beta"), ("bn.running_mean", "mean"), ("bn.running_var", "var")
    for unit in _units("inception"):
        block, _, rest = unit.graph_name.partition("/")
        path = [block, rest.replace("/", "_" if block in ("mixed_9", "mixed_10") else ".")]
        for name, part in parts:
            names[f"{unit.name}.{name}"] = ".".join(["layers", *filter(None, path), part])
    return names


def _hassony2_names() -> dict[str, str]:
    names = {"logits.conv3d.weight": "conv3d_0c_1x1.conv3d.weight", "logits.conv3d.bias": "conv3d_0c_1x1.conv3d.bias"}
    for unit in _units("i3d"):
        block, _, branch = unit.name.partition(".")
        path = block.lower() + (f".branch_{branch[1]}" + {"": "", "a": ".0", "b": ".1"}[branch[2:]] if branch else "")
        names[f"{unit.name}.conv3d.weight"] = f"{path}.conv3d.weight"
        names |= {f"{unit.name}.{part}": f"{path}.{part.replace('bn', 'batch3d')}" for part in NORM}
    return names


def _tensorflow_names() -> dict[str, str]:
    scope = "RGB/inception_i3d"
    names = {f"logits.conv3d.{part}": f"{scope}/Logits/Conv3d_0c_1x1/conv_3d/{part[0]}" for part in ("weight", "bias")}
    parts = ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance")
    for unit in _units("i3d"):
        names[f"{unit.name}.conv3d.weight"] = f"{scope}/{unit.graph_name}/conv_3d/w"
        names |= {f"{unit.name}.bn.{part}": f"{scope}/{unit.graph_name}/batch_norm/{other}" for part, other in parts}
    return names


def _units(network: str) -> Iterator[_Unit]:
    return _inception_units() if network == "inception" else _i3d_units()


def _inception_units() -> Iterator[_Unit]:
    for index, (name, channels_in, channels_out, kernel) in enumerate(STEM):
        yield _Unit(name, _numbered("conv", index), channels_in, channels_out, kernel)
    for index, (block, kind, channels, width) in enumerate(INCEPTION_BLOCKS):
        for branch, tower, layers in BRANCHES[kind]:
            graph_name = "/".join(filter(None, [_numbered("mixed", index), tower]))
            yield from _branch(f"{block}.{branch}", graph_name, channels, layers.format(width).split())


def _branch(name: str, graph_name: str, channels: int, layers: list[str]) -> Iterator[_Unit]:
    """The units of a chain of layers, each "channels@kernel", or "channels@kernel|kernel" for two side by side."""
    for index, layer in enumerate(layers):
        size, _, kernels = layer.partition("@")
        number = f"_{index + 1}" if len(layers) > 1 else ""
        for side, text in enumerate(kernels.split("|")):
            kernel = tuple(int(length) for length in text.split("x"))
            if "|" in kernels:
                leaf, letter = _numbered("mixed/conv", side), "ab"[side]
            else:
                leaf, letter = _numbered("conv", index), ""
            yield _Unit(f"{name}{number}{letter}", f"{graph_name}/{leaf}", channels, int(size), kernel)
        channels = int(size)


def _i3d_units() -> Iterator[_Unit]:
    for name, channels_in, channels_out, kernel in I3D_STEM:
        yield _Unit(name, name, channels_in, channels_out, kernel)
    for block, channels, (b0, b1a, b1b, b2a, b2b, b3b) in I3D_BLOCKS:
        last = "0a_3x3" if block == "Mixed_5b" else "0b_3x3"  # a slip in the published graph
        for name, graph_name, channels_in, channels_out, size in (
            ("b0", "Branch_0/Conv3d_0a_1x1", channels, b0, 1),
            ("b1a", "Branch_1/Conv3d_0a_1x1", channels, b1a, 1),
            ("b1b", "Branch_1/Conv3d_0b_3x3", b1a, b1b, 3),
            ("b2a", "Branch_2/Conv3d_0a_1x1", channels, b2a, 1),
            ("b2b", f"Branch_2/Conv3d_{last}", b2a, b2b, 3),
            ("b3b", "Branch_3/Conv3d_0b_1x1", channels, b3b, 1),
        ):
            yield _Unit(f"{block}.{name}", f"{block}/{graph_name}", channels_in, channels_out, (size,) * 3)


def _numbered(name: str, number: int) -> str:
    """TensorFlow's names of the same thing: conv, conv_1, conv_2."""
    return f"{name}_{number}" if number else name
