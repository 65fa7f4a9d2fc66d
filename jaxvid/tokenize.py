"""Caches the tokens of a dataset's training clips, for priors that train on more videos than they can encode each time.

    python -m jaxvid.tokenize --workdir runs/vqvae_prior --output DIR
    python -m jaxvid.main --config transformer --config.data.tokens=DIR

The data are those that the tokenizer was trained on, or others of the same size.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import data, parallel, pretrained
from jaxvid import run as run_lib
from jaxvid.cache import FIELDS, make_encoder, source_of
from jaxvid.command import Parser, attempt
from jaxvid.core import in_32_bits
from jaxvid.data.pipeline import Clip
from jaxvid.data.records import check_new
from jaxvid.data.tokens import PICTURES, Crops, write_tokens
from jaxvid.files import local_path
from jaxvid.names import plural
from jaxvid.progress import counted
from jaxvid.run import Run
from jaxvid.share import RUN, place
from jaxvid.tokens import PLAYER, make_tokenizer

DRAWN = 2**14  # clips of synthetic data, of which there are as many as one likes, unless --clips says
CHANGEABLE = ("name", "path", "dataset", "label", "holdout")  # fields of the data that need not be the tokenizer's


def config_of(run: Run, path: str, fields: dict[str, Any]) -> ConfigDict:
    """What `tokens.make_tokenizer` reads of a prior's config: the tokenizer, and its data with some other fields."""
    config = ConfigDict({"data": {**config_lib.base().data, **run.config.data, **fields}})
    config[PLAYER] = pretrained.reference(path)
    config[PLAYER].update({"step": int(run.state.step), "sha256": pretrained.digest(run)})
    config[PLAYER].config = run.config
    return config


@in_32_bits
def cache(
    run: Run, config: ConfigDict, output: str, clips: int | None = None, first_frames: int = 0,
    batch_size: int = 16, shards: int = 16, workers: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Writes the tokens of training clips to a folder, whole or not at all.

    Args:
      run: of the tokenizer.
      config: from `config_of`.
      output: the folder, which must not exist, or be empty.
      clips: how many, see `Crops`; None for all clips of the data, once each.
      first_frames: k, frames that are kept as they are beside the tokens, for priors that go on from them.
      batch_size: of encoding, over all devices. Where it is the prior's, a CPU makes the same tokens to the bit.
      shards, workers: files, and processes that load data (0: threads alone).

    Returns the content of `tokens.json`.
    Raises ValueError: the run makes no tokens, or the data or a number cannot work; OSError: it cannot be written.
    """
    tokenizer, mesh, frames = make_tokenizer(config), parallel.make_mesh(), config.data.frames
    if batch_size % mesh.size:
        raise ValueError(f"batch_size is {batch_size}, which the {mesh.size} devices cannot share equally.")
    if first_frames > frames:
        raise ValueError(f"first_frames is {first_frames}, and the clips have {frames} frames.")
    source, codes = data.make_source(config.data, "train"), math.prod(tokenizer.digits)
    crops = Crops(source, config.data.resolution, clips or len(source))
    about = {
        "tokenizer": {field: config[PLAYER][field] for field in ("path", "step", "sha256")},
        "data": {field: config.data[field] for field in FIELDS},
        "source": source_of(source),
        "grid": tokenizer.grid,
        "codes": codes,
        "first_frames": first_frames,
        "planned": len(crops),
    }
    program, state = make_encoder(tokenizer, mesh), jax.device_put(run.state, parallel.replicated(mesh))

    def encode(video: np.ndarray) -> np.ndarray:
        tokens = program(state, parallel.put_batch({"video": video}, mesh)["video"])
        return np.asarray(tokens).astype(np.uint16 if codes <= 2**16 else np.int32)

    size = config.data.resolution
    with data.eval_batches(crops, batch_size, size, len(crops), workers, shuffle=False) as batches:
        counting = counted(batches, len(crops), "clip", lambda batch: len(batch["mask"]))
        return write_tokens(tokenized(counting, encode, first_frames), about, output, shards)


def tokenized(
    batches: Iterable[Clip], encode: Callable[[np.ndarray], np.ndarray], first_frames: int
) -> Iterator[tuple[int, Clip]]:
    """The numbers of clips and their records, less those whose `mask` is 0."""
    start = 0
    for batch in batches:
        columns = {name: value for name, value in batch.items() if name not in (*PICTURES, "mask")}
        columns["tokens"] = encode(batch["video"])
        if first_frames:
            columns["first_frames"] = batch["video"][:, :first_frames]
        for row in np.flatnonzero(batch["mask"]).tolist():
            yield start + row, {name: np.asarray(value[row]) for name, value in columns.items()}
        start += len(batch["mask"])


def main(words: Sequence[str] | None = None) -> int:
    """Writes the cache and says where; returns 0, or 2 with one sentence on stderr."""

    def work() -> None:
        options = parse(words)
        check_new(Path(options.output))
        parallel.check_devices()
        run = run_lib.load(options.workdir)
        fields = {name: getattr(options, name) for name in CHANGEABLE if getattr(options, name) is not None}
        config = config_of(run, options.workdir, fields)
        if options.clips is None and config.data.name == "synthetic":
            options.clips = DRAWN
        numbers = {name: getattr(options, name) for name in ("clips", "first_frames", "batch_size")}
        about = cache(run, config, options.output, **numbers, shards=options.shards, workers=options.workers)
        grid, left_out = "x".join(map(str, about["grid"])), len(about["left_out"])
        print(f"wrote {plural(about['clips'], 'clip')} of {grid} tokens to {options.output}, {left_out} left out")
        print(f"A prior on {options.workdir} trains from them with --config.data.tokens={options.output}")

    return attempt(work)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""
    parser = Parser("jaxvid.tokenize", __doc__)
    parser.add_argument("--workdir", type=place, metavar="DIR", required=True, help=f"of a tokenizer, {RUN}")
    parser.add_argument("--output", type=local_path, metavar="DIR", required=True, help="receives the tokens")
    parser.add_argument(
        "--clips",
        type=int,
        help=f"how many; past all there are, with other crops (default: all, once; {DRAWN:,} synthetic ones)",
    )
    parser.add_argument("--first_frames", type=int, default=0, help="frames kept beside them, for priors that go on")
    parser.add_argument("--batch_size", type=int, default=16, help="encoded at once; best the prior's (default: 16)")
    parser.add_argument("--shards", type=int, default=16, help="files (default: 16)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load data (default: 0, threads alone)")
    kinds: dict[str, Callable[[str], Any]] = {"holdout": float, "path": local_path}
    for name in CHANGEABLE:
        default = f"data.{name} (default: that of the tokenizer)"
        parser.add_argument(f"--{name}", type=kinds.get(name, str), help=default)
    options = parser.parse_args(words)
    parser.check_least(options, clips=1, first_frames=0, batch_size=1, shards=1, workers=0)
    parser.check_writable("output", options.output, folder=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
