"""Weights of the FID Inception and of I3D: conversion from any naming to one, and identification.

The target naming is that of the PyTorch ports: "Mixed_3b.b1a.bn.running_mean", convolutions as [out, in, *kernel]. For
Inception it is pytorch-fid's (Szegedy et al. 2015, the graph of 2015-12-05), for I3D (Carreira and Zisserman 2017)
that of piergiaj and VideoGPT.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from jaxvid.metrics import i3d, inception
from jaxvid.metrics.tensor_bundle import masked_crc32c

NETWORKS = {"inception": inception, "i3d": i3d}
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
# The towers of TensorFlow's graph.
TOWERS = {
    **dict.fromkeys(("branch5x5", "branch7x7", "branch3x3"), "tower"),
    **dict.fromkeys(("branch3x3dbl", "branch7x7dbl", "branch7x7x3"), "tower_1"),
    "branch_pool": "tower_2",
}
COUNTER = "num_batches_tracked"
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


class Naming(NamedTuple):
    """The names of a network's tensors in one family of files."""

    network: str
    family: str
    names: dict[str, str]  # our name of each tensor -> the file's; tensors without an entry are ones
    from_tensorflow: bool  # kernels are [*kernel, in, out], vectors may be [1,1,1,1,C]


@cache
def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of "inception" (472 tensors) or "i3d" (287), by name."""
    return dict(sorted(NETWORKS[network].torch_shapes().items()))


def convert(tensors: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """The network, "inception" or "i3d", and its weights float32, with the names and order of `shapes(network)`.

    Every tensor has to be present with its shape, and no other but the counters `num_batches_tracked`. What names have
    in front, such as "module." or "state_dict.", is left out, and so is what has other words there. If a program has no
    scale in its normalization, the scale is one. `tensors` come from a file of pytorch-fid, torch-fidelity or
    StyleGAN (TorchScript) for "inception"; of VideoGPT, piergiaj, hassony2, StyleGAN-V (TorchScript), kinetics-i3d or
    TF-Hub for "i3d". Raises ValueError if they are of neither network or of several, or one of them is missing, of
    another shape, not finite or unknown.
    """
    naming, prefix = _naming(tensors)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    unknown = set(tensors) - set(naming.names.values())
    if surplus := sorted(name for name in unknown if name.rpartition(".")[2] != COUNTER):
        raise ValueError(f"{naming.family} has no tensor {surplus[0]!r} of shape {tensors[surplus[0]].shape}")
    network = naming.network
    return network, {name: _converted(tensors, naming, name, shape) for name, shape in shapes(network).items()}


def identify(network: str, weights: Mapping[str, np.ndarray], data: bytes) -> str:
    """Which weights these are, for a report: known ones by name, others as "unknown weights, sha256 ...".

    Those of I3D are identified by their values, whatever file they are stored in, through the checksums of TensorFlow's
    checkpoints; otherwise, as those of Inception, by the file.

    `weights` come from `convert`, `data` from the file they were stored in (the data file of a TensorFlow checkpoint).
    """
    known = KNOWN_I3D.get(i3d_digest(weights)) if network == "i3d" else None
    sha256 = hashlib.sha256(data).hexdigest()
    git_object = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    known = known or KNOWN_FILES.get(sha256[:8]) or KNOWN_FILES.get(git_object)
    return known or f"unknown weights, sha256 {sha256}"


def i3d_digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the masked CRC-32Cs of I3D's tensors as TensorFlow stores them, in the order of its names.

    "" if a scale of the normalization is not one: TensorFlow has none.
    """
    names = _tensorflow_names()
    if any((weights[name] != 1).any() for name in weights if name not in names):
        return ""
    digest = hashlib.sha256()
    for name in sorted(names, key=names.__getitem__):
        tensor = weights[name]
        stored = np.ascontiguousarray(tensor.transpose(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor, "<f4")
        digest.update(masked_crc32c(stored.tobytes()).to_bytes(4, "little"))
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
        raise ValueError(f"its tensor {source!r} has values that are not finite")
    if naming.from_tensorflow and tensor.ndim == 5:
        tensor = tensor.transpose(4, 3, 0, 1, 2)
    return np.ascontiguousarray(tensor, np.float32)


def _naming(tensors: Mapping[str, np.ndarray]) -> tuple[Naming, str]:
    """The naming with the largest share of names among the tensors, at least half, and what stands before them."""
    found: Counter[tuple[int, str]] = Counter()  # names by the naming's number and the prefix
    known = [set(naming.names.values()) for naming in _namings()]
    for name in tensors:
        for cut in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            found.update((number, name[:cut]) for number, names in enumerate(known) if name[cut:] in names)
    shares = sorted((-count / len(known[number]), number, prefix) for (number, prefix), count in found.items())
    if not shares or -shares[0][0] < 0.5:
        first = next(iter(tensors), None)
        raise ValueError(f"it contains neither the FID Inception nor I3D, but other tensors, such as {first!r}")
    several = [prefix for share, _, prefix in shares if share == shares[0][0]]
    if len(set(several)) > 1:
        raise ValueError(f"it contains several networks, {' and '.join(map(repr, several[:2]))}: keep one of them")
    return _namings()[shares[0][1]], several[0]


@cache
def _namings() -> tuple[Naming, ...]:
    fid, videogpt = ({name: name for name in shapes(network)} for network in NETWORKS)
    return (
        Naming("inception", "pytorch-fid's Inception", fid, False),
        Naming("inception", "StyleGAN's Inception", _stylegan_names(), False),
        Naming("i3d", "VideoGPT's I3D", videogpt, False),
        Naming("i3d", "hassony2's I3D", _hassony2_names(), False),
        Naming("i3d", "TensorFlow's I3D", _tensorflow_names(), True),
    )


def _stylegan_names() -> dict[str, str]:
    """Names of the TorchScript module: they follow TensorFlow's graph, flattened in the blocks of the kind E."""
    parts = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}
    names = {"fc.weight": "output.weight", "fc.bias": "output.bias"}
    for unit, kind, leaf in (name.rsplit(".", 2) for name in shapes("inception") if not name.startswith("fc.")):
        if f"{kind}.{leaf}" in parts:
            block, _, rest = inception_graph_name(unit).partition("/")
            path = [block, rest.replace("/", "_" if block in ("mixed_9", "mixed_10") else ".")]
            names[f"{unit}.{kind}.{leaf}"] = ".".join(["layers", *filter(None, path), parts[f"{kind}.{leaf}"]])
    return names


def inception_graph_name(unit: str) -> str:
    """Name of a unit in TensorFlow's graph of 2015: "Mixed_5b.branch5x5_2" is "mixed/tower/conv_1"."""
    block, _, layer = unit.partition(".")
    if not layer:
        return _numbered("conv", STEM.index(block))
    ((branch, number, side),) = re.findall(r"^(branch(?:_pool|[0-9x]+(?:dbl)?))(?:_(\d))?([ab]?)$", layer)
    towers = {"branch3x3dbl": "tower"} if block == "Mixed_6a" else TOWERS
    # A branch of a single layer has no tower, except for the one behind the pool.
    tower = towers.get(branch) if number or branch == "branch_pool" else None
    leaf = _numbered("mixed/conv", "ab".index(side)) if side else _numbered("conv", int(number or 1) - 1)
    return "/".join(filter(None, [_numbered("mixed", list(inception.BLOCKS).index(block)), tower, leaf]))


def _hassony2_names() -> dict[str, str]:
    def renamed(name: str) -> str:
        name = re.sub("^logits", "conv3d_0c_1x1", name.lower().replace(".bn.", ".batch3d."))
        unit = {"": "", "a": "0.", "b": "1."}
        return re.sub(r"\.b(\d)([ab]?)\.", lambda found: f".branch_{found[1]}.{unit[found[2]]}", name)

    return {name: renamed(name) for name in shapes("i3d")}


def _tensorflow_names() -> dict[str, str]:
    keys = i3d.torch_keys()
    return {keys[path]: name for path, name in i3d.tf_names().items()}


def _numbered(name: str, number: int) -> str:
    """TensorFlow's names of repeated units: conv, conv_1, conv_2."""
    return f"{name}_{number}" if number else name
