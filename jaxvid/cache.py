"""Tokens that were computed before a run, in place of the videos of its training clips.

`python -m jaxvid.tokenize` writes them, and a prior reads them where `config.data.tokens` names their folder. They have
to be those of its tokenizer and its data: `find` compares what the folder says of itself, `compare` some of the tokens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvid import parallel, pretrained
from jaxvid.core import TrainState, normalize
from jaxvid.data import Source
from jaxvid.data.tokens import DESCRIPTION, Crops, Tokens
from jaxvid.files import local_path
from jaxvid.names import plural
from jaxvid.tokens import PLAYER, Tokenizer, make_tokenizer

FIELDS = ("name", "dataset", "label", "frames", "resolution", "stride", "fps", "holdout")  # of the data; they may move
ROUNDING = 0.01  # the share of tokens that may differ for no other reason


class Cache(NamedTuple):
    """Training clips as tokens, and the same ones as videos."""

    tokens: Tokens
    crops: Crops


def source_of(source: Source) -> dict[str, Any]:
    """What a cache keeps of the source of its videos."""
    digest = getattr(source, "sha256", "")
    return {"summary": source.summary(), "clips": len(source), "classes": list(source.classes), "sha256": digest}


def find(config: ConfigDict, source: Source) -> Cache | None:
    """The cache that `config.data.tokens` names; None where it names none.

    Args:
      config: of a prior, complete.
      source: of its training videos.

    Raises:
      FileNotFoundError: there is no cache, or no whole one.
      ValueError: it is damaged, or not of this tokenizer, of these data, or with as many first frames.
    """
    path = config.data.get("tokens", "")
    if not path:
        return None
    if PLAYER not in config:
        raise ValueError(f"data.tokens is {path}, and the method {config.method} reads no tokens: leave it empty.")
    condition = config.get("condition") or ConfigDict({"on": ()})
    first_frames = condition.first_frames if "first_frames" in condition.on else 0
    command = f"python -m jaxvid.tokenize --workdir {config[PLAYER].path} --output DIR"
    if first_frames:
        command += f" --first_frames {first_frames}"
    remedy = f"cache them with `{command}`, or leave data.tokens empty."
    try:
        tokens = Tokens(local_path(path), first_frames)
    except FileNotFoundError as error:
        begun = Path(local_path(path)).exists() or Path(f"{local_path(path)}.partial").exists()
        what = f"has no {DESCRIPTION}: the command did not finish" if begun else "is not there"
        raise FileNotFoundError(f"data.tokens is {path}, which {what}; {remedy}") from error
    except ValueError as error:
        raise ValueError(f"data.tokens is {path}, which cannot be read ({error}): {remedy}") from error
    if why := mismatch(tokens.about, config, source, first_frames):
        raise ValueError(f"data.tokens is {path}, {why}; {remedy}")
    return Cache(tokens, Crops(source, config.data.resolution, tokens.about["planned"]))


def mismatch(about: dict[str, Any], config: ConfigDict, source: Source, first_frames: int) -> str:
    """Why a cache is none for this run, as a clause; empty where it is one.

    Args:
      about: the content of its `tokens.json`.
      config, source: of the run.
      first_frames: how many frames the run needs beside the tokens.
    """
    theirs, ours = about["tokenizer"], config[PLAYER]
    if theirs["sha256"] != ours.sha256:
        was, now = (f"{each['path']} at step {each['step']} (SHA-256 {each['sha256'][:16]})" for each in (theirs, ours))
        return f"a cache of another tokenizer: {was}, and not {now}"
    for field in FIELDS:
        if about["data"][field] != config.data[field]:
            return f"made with data.{field} {about['data'][field]}, and the run has {config.data[field]}"
    there, here = ({**each, "summary": ""} for each in (about["source"], source_of(source)))
    if there != here:
        counts = [plural(each["clips"], "clip") for each in (there, here)]
        now = f"the data have {counts[1]}" + (", but not the same ones" if counts[0] == counts[1] else "")
        return f"made of data of {counts[0]}, and {now}"
    if about["first_frames"] < first_frames:
        return f"which has {about['first_frames']} first frames, and condition.first_frames is {first_frames}"
    return ""


def make_encoder(tokenizer: Tokenizer, mesh: Mesh) -> Callable[[TrainState, jax.Array], jax.Array]:
    """The compiled function of (state of the tokenizer, video [B,T,H,W,3]) -> tokens [B,t,h,w], over the mesh."""

    def encode(state: TrainState, video: jax.Array) -> jax.Array:
        return tokenizer.encode(state, normalize(video))

    shardings = (parallel.replicated(mesh), parallel.sharded(mesh))
    return jax.jit(encode, in_shardings=shardings, compiler_options=parallel.compiler_options())


def compare(cache: Cache, config: ConfigDict, state: TrainState, mesh: Mesh) -> str:
    """A sentence: the share of cached tokens that the tokenizer of a run would make differently now.

    One batch of clips, evenly spread over the cache, is encoded in the size of the training batch. Programs that were
    compiled for other batches or devices round differently, so that a token between two codes may become the other one.
    """
    size, place, places = config.train.batch_size, jax.process_index(), jax.process_count()
    chosen = np.linspace(0, len(cache.tokens) - 1, size).astype(int).reshape(places, -1)[place]
    videos = np.stack([cache.crops[int(cache.tokens.numbers[index])]["video"] for index in chosen])
    cached = np.stack([cache.tokens[int(index)]["tokens"] for index in chosen])
    batch = parallel.put_batch({"video": videos, "tokens": cached}, mesh)
    now = make_encoder(make_tokenizer(config), mesh)(pretrained.state_of(state, PLAYER), batch["video"])
    share = float(jax.jit(lambda now, then: (now != then).mean())(now, batch["tokens"]))
    found = f"cached tokens: {share:.2%} of {batch['tokens'].size:,} differ from those of the tokenizer now"
    if share > ROUNDING:
        found += f"\nwarning: more than {ROUNDING:.0%} is more than rounding: have the videos changed since?"
    return found
