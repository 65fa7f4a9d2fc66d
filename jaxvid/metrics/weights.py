"""The evaluator's weights: converts them once into the user's cache, python -m jaxvid.metrics.weights FILE_OR_URL."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxvid.command import Parser, attempt
from jaxvid.files import cache_folder, local_path, replacing
from jaxvid.metrics.convert import NETWORKS, convert, identify, shapes
from jaxvid.metrics.weight_file import WeightFileError, errors_named, fetch, parse
from jaxvid.names import choice

FORMAT = "jaxvid weights 1"
FID_WEIGHTS = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"
KINETICS_I3D = "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/master/data/checkpoints"
# Download links, and sizes.
SOURCES = {
    "inception": (f"{FID_WEIGHTS}/pt_inception-2015-12-05-6726825d.pth", "95.5 MB"),
    "i3d": (f"{KINETICS_I3D}/rgb_scratch/model.ckpt", "50.8 MB"),
}


@dataclass(frozen=True)
class WeightInfo:
    """The origin of weights."""

    network: str  # "inception" or "i3d"
    source: str  # the file or URL they were converted from
    sha256: str  # of that file, hexadecimal; of a TensorFlow checkpoint's data file
    identity: str  # which weights they are, in words
    digest: str  # SHA-256 over names, shapes and values: equal for equal weights, whatever file they came from


def cache_path(network: str) -> Path:
    """The path of the converted weights of "inception" or "i3d" in the cache."""
    return cache_folder() / "weights" / f"{network}.safetensors"


def absent(network: str, path: Path) -> str:
    """The sentence about weights that are not there, with the command that makes them."""
    source, size = SOURCES[network]
    command = f"`python -m jaxvid.metrics.weights {source}`"
    return f"{path} with the weights of {network} does not exist: {command} fetches and converts them ({size})."


def load(network: str, path: str | Path | None = None) -> tuple[dict[str, Any], WeightInfo]:
    """Converted weights, checked against their digest; nothing is ever downloaded.

    Args:
      network: "inception" or "i3d".
      path: a file that the command wrote; None for the user's cache.

    Returns the parameters of `Inception` or `I3D`, float32, and their origin.
    Raises FileNotFoundError if there is no such file (the message states the command that makes it), WeightFileError if
    it is damaged, is no converted file, or contains the other network.
    """
    choice("network", network, NETWORKS)
    path = Path(path or cache_path(network))
    if not path.exists():
        raise FileNotFoundError(absent(network, path))
    with errors_named(path):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"it is damaged, or no converted file ({error})") from error
        if metadata.pop("format", None) != FORMAT:
            raise ValueError("it is no converted file: `python -m jaxvid.metrics.weights FILE` converts weights")
        info = WeightInfo(**metadata)
        if info.network != network:
            raise ValueError(f"it contains the weights of {info.network}, not of {network}")
        if info.digest != _digest(tensors) or {name: t.shape for name, t in tensors.items()} != shapes(network):
            raise ValueError("its weights do not match its digest: it is damaged, delete it and convert them again")
    return NETWORKS[network].from_torch(tensors), info


def save(source: str, path: str | Path | None = None) -> tuple[Path, WeightInfo]:
    """Converts the weights of a file or URL into `path`, or into the user's cache; writes the whole file or none.

    Other weights at that path are never replaced (FileExistsError): scores would change silently. Raises
    WeightFileError if the file is damaged, or has no weights of a known network.
    """
    parts = fetch(source)
    tensors = parse(source, parts)
    with errors_named(source):
        network, weights = convert(tensors)
    sha256 = hashlib.sha256(parts[-1]).hexdigest()
    info = WeightInfo(network, source, sha256, identify(network, weights, parts[-1]), _digest(weights))
    path = Path(path or cache_path(network))
    if path.exists():
        try:
            there = load(network, path)[1]
        except (WeightFileError, OSError) as error:
            raise FileExistsError(f"{path} exists and is not replaced ({error}) Delete it first.") from error
        if there.digest != info.digest:
            raise FileExistsError(f"{path} contains other weights ({there.identity}): delete it, or set --output.")
        return path, there
    with replacing(path) as temporary:
        save_file(weights, temporary, {"format": FORMAT, **asdict(info)})
    return path, info


def _digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and values in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].dtype} {weights[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts and reports what was found; returns 0, or 2 with one sentence on stderr."""
    known = "\n".join(f"  {network}: {source} ({size})" for network, (source, size) in SOURCES.items())
    about = "Converts the weights of the FID Inception or of I3D (FVD) into the user's cache, once."
    parser = Parser("jaxvid.metrics.weights", about, epilog=f"They are published at\n{known}")
    parser.add_argument("source", metavar="FILE_OR_URL", help="of a TensorFlow checkpoint the prefix, or the .index")
    parser.add_argument(
        "--output", type=local_path, metavar="PATH", help="write this file instead of the one in the cache"
    )
    options = parser.parse_args(arguments)

    def work() -> None:
        path, info = save(options.source, options.output)
        count = len(shapes(info.network))
        print(f"{info.network}: {info.identity}\n{path} contains {count} tensors, sha256 {info.digest}")

    return attempt(work)


if __name__ == "__main__":
    sys.exit(main())
