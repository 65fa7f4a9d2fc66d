"""The VQ-VAE method: reconstruction through a codebook (van den Oord et al., 2017; for video Yan et al., 2021)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid import losses, optim, parallel
from jaxvid.core import (
    Batch,
    Method,
    Metrics,
    TrainState,
    apply_gradients,
    normalize,
    sampled_params,
    step_key,
    update_ema,
)
from jaxvid.metrics.image import psnr
from jaxvid.models.vqvae import VQVAE, Decoder, Encoder, ResidualStack
from jaxvid.names import choice
from jaxvid.nn import quantize
from jaxvid.nn.norm import NORMS

PLAYER = "tokenizer"
QUANTIZERS = {
    "ema": quantize.EMAVectorQuantizer,
    "vq": quantize.VectorQuantizer,
    "fsq": quantize.FSQ,
    "lfq": quantize.LFQ,
}


def make_quantizer(options: ConfigDict, dim: int, axis_name: str | None) -> nn.Module:
    """`config.model.quantizer`: its `name`, and the fields of that class in `nn.quantize`."""
    kind = QUANTIZERS[choice("model.quantizer.name", options.name, QUANTIZERS)]
    fields = {name: value for name, value in options.items() if name != "name"}
    all_fields = {field.name for field in dataclasses.fields(kind)}
    known = all_fields - {"parent", "name", "axis_name", "dim"}
    if unknown := [name for name in fields if name not in known]:
        raise ValueError(
            f"model.quantizer {options.name} has no field {unknown[0]}, only {', '.join(sorted(known))}; "
            f"--config configs/vqvae.py:{options.name} is the recipe with this quantizer."
        )
    shared = {"dim": dim, "axis_name": axis_name}
    return kind(**{name: value for name, value in shared.items() if name in all_fields}, **fields)


def make_model(config: ConfigDict, axis_name: str | None = None) -> VQVAE:
    """The module of `config.model`.

    Raises:
      ValueError: the video does not divide by `model.downsample`, or a field has no such value.
    """
    model, data = config.model, config.data
    factors = tuple(model.downsample)
    if len(factors) != 3 or not all(isinstance(factor, int) for factor in factors):
        raise ValueError(f"model.downsample is {factors}, expected whole factors of time, height and width: (4, 4, 4).")
    sizes = {"frames": data.frames, "height": data.resolution, "width": data.resolution}
    for (axis, size), factor in zip(sizes.items(), factors, strict=True):
        if factor < 1 or size % factor:
            raise ValueError(f"model.downsample {factors} does not divide the video: {axis} {size} by {factor}.")
    choice("model.norm", model.norm, NORMS)
    choice("model.dtype", model.dtype, ("float32", "bfloat16"))
    for field, least in {"width": 8, "blocks": 0, "heads": 0, "dim": 1}.items():
        if model[field] < least:
            raise ValueError(f"model.{field} is {model[field]}, expected at least {least}.")
    if model.width % 8 or model.width % max(model.heads, 1):
        heads = f" and of the {model.heads} model.heads" if model.heads else ""
        raise ValueError(f"model.width is {model.width}, expected a multiple of 8{heads}.")
    quantizer = make_quantizer(model.quantizer, model.dim, axis_name)
    dim = {"fsq": lambda: len(quantizer.levels), "lfq": lambda: quantizer.bits}.get(
        model.quantizer.name, lambda: model.dim
    )

    dtype = jnp.dtype(model.dtype)

    def stack() -> ResidualStack:  # one each: a module shared by both would share its parameters
        return ResidualStack(model.blocks, model.heads, model.norm, axis_name, dtype, model.remat)

    encoder = Encoder(stack(), model.width, dim(), factors, dtype)
    return VQVAE(encoder, Decoder(stack(), model.width, factors, dtype=dtype), quantizer)


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The four functions of a VQ-VAE. `sample` decodes what it encodes from `batch["video"]`: a tokenizer has no prior.

    Args:
      config: with `data`, `model`, `optim` and `train.steps`; see `configs/vqvae.py`.
      axis_name: the mapped axis under pmap; None under jit.

    Raises:
      ValueError: sizes do not fit, or a field has no such value.
    """
    model = make_model(config, axis_name)
    tx = optim.make_optimizers(config.optim, {PLAYER: config.train.steps})[PLAYER]
    decay = optim.ema_decay(config.optim, PLAYER)
    distance = losses.RECONSTRUCTION[choice("model.loss", config.model.loss, losses.RECONSTRUCTION)]

    def init(key: jax.Array, batch: Batch) -> TrainState:
        params_key, quantizer_key, key = jax.random.split(key, 3)
        rngs = {"params": params_key, "quantizer": quantizer_key}
        collections = model.init(rngs, normalize(batch["video"][:1]), train=False)
        params = collections.pop("params")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params={PLAYER: params},
            opt_state={PLAYER: tx.init(params)},
            collections={PLAYER: collections},
            ema={PLAYER: params},
            extra={},
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        video = normalize(batch["video"])

        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            (reconstruction, quantized), collections = model.apply(
                {"params": params, **state.collections[PLAYER]},
                video,
                train=True,
                mutable=list(state.collections[PLAYER]),
                rngs={"quantizer": step_key(state)},
            )
            error = distance(reconstruction, video).mean()
            metrics = {
                "reconstruction": error,
                "psnr": psnr(reconstruction, video).mean(),
                **quantized.losses,
                **quantized.metrics,
            }
            return error + sum(quantized.losses.values()), (collections, metrics)

        (loss, (collections, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(state.params[PLAYER])
        state, norm = apply_gradients(state, PLAYER, grads, tx, axis_name)
        state = state.replace(step=state.step + 1, collections={PLAYER: collections})
        state = update_ema(state, PLAYER, decay)
        return state, {**parallel.pmean({"loss": loss, **metrics}, axis_name), "grad_norm": norm}

    def reconstruct(state: TrainState, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        (reconstruction, quantized), _ = model.apply(_variables(state), video, train=False, mutable=[])
        return quantized.indices, jnp.clip(reconstruction, -1, 1)

    def eval_step(state: TrainState, batch: Batch, key: jax.Array) -> Metrics:
        video = normalize(batch["video"])
        indices, reconstruction = reconstruct(state, video)
        codes = indices.reshape(len(video), -1)
        counts = jax.vmap(lambda row: jnp.zeros(model.quantizer.codebook_size, jnp.int32).at[row].add(1))(codes)
        return {
            "loss": distance(reconstruction, video),
            "psnr": psnr(reconstruction, video),
            "codes": counts,
            "reconstruction": reconstruction,
        }

    def sample(state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
        if "video" not in batch:
            raise ValueError("A tokenizer makes no videos of its own: it reconstructs given ones (--mode reconstruct).")
        return reconstruct(state, normalize(batch["video"]))[1]

    return Method(init, train_step, eval_step, sample)


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": sampled_params(state, PLAYER), **state.collections[PLAYER]}


class Codec(NamedTuple):
    """A trained tokenizer as two compiled functions.

    encode: video [B,T,H,W,3], uint8 or float in [-1, 1] -> indices [B,T/t,H/h,W/w] int32.
    decode: indices -> video [B,T,H,W,3] float32 in [-1, 1].
    """

    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]


def codec(config: ConfigDict, state: TrainState) -> Codec:
    """The tokenizer of a trained run: `codec(run.config, run.state)` with `run = checkpoint.load(workdir)`."""
    model, variables = make_model(config), _variables(state)
    # The variables are arguments, since constants would be compiled into the program.
    encode = jax.jit(lambda variables, video: model.bind(variables).encode(normalize(video)))
    decode = jax.jit(lambda variables, indices: jnp.clip(model.bind(variables).decode(indices), -1, 1))
    return Codec(functools.partial(encode, variables), functools.partial(decode, variables))
