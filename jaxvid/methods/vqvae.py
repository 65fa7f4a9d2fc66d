"""The VQ-VAE method: reconstruction through a codebook (van den Oord et al., 2017; for video Yan et al., 2021)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import core, losses, optim, parallel
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, in_32_bits, normalize
from jaxvid.metrics.image import psnr
from jaxvid.models.invertible import FOLDED, Invertible
from jaxvid.models.vqvae import CAUSAL_NORMS, VQVAE, Decoder, Encoder, ResidualStack, latent_grid
from jaxvid.names import choice
from jaxvid.nn import quantize
from jaxvid.nn.causal import PAST, codec_in_parts
from jaxvid.nn.norm import NORMS
from jaxvid.token_modes import MODES
from jaxvid.tokens import Tokenizer, grouped

__all__ = ["MODES", "Codec", "codec", "make", "tokenizer"]
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
            f"--config vqvae:{options.name} is the recipe with this quantizer."
        )
    shared = {"dim": dim, "axis_name": axis_name}
    return kind(**{name: value for name, value in shared.items() if name in all_fields}, **fields)


def make_model(config: ConfigDict, axis_name: str | None = None) -> VQVAE:
    """The module of `config.model`.

    Raises ValueError: the video does not divide by `model.downsample`, or a field has no such value.
    """
    model, data = config.model, config.data
    factors = tuple(model.downsample)
    if len(factors) != 3 or not all(isinstance(factor, int) for factor in factors):
        raise ValueError(f"model.downsample is {factors}, expected whole factors of time, height and width: (4, 4, 4).")
    causal = is_causal(config)
    latent_grid((data.frames, data.resolution, data.resolution), factors, causal, "model.downsample")
    choice("model.norm", model.norm, CAUSAL_NORMS if causal else NORMS)
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
    shared = {"width": model.width, "dtype": jnp.dtype(model.dtype)}
    flows, channels = make_flows(model), 3
    if flows is not None:
        factors = tuple(factor // fold for factor, fold in zip(factors, FOLDED, strict=True))
        channels *= math.prod(FOLDED)

    def stack() -> ResidualStack:  # one each: a module shared by both would share its parameters
        fields = {name: model[name] for name in ("blocks", "heads", "norm", "remat")}
        return ResidualStack(**fields, causal=causal, axis_name=axis_name, dtype=shared["dtype"])

    encoder = Encoder(stack=stack(), features=dim(), downsample=factors, **shared)
    decoder = Decoder(stack=stack(), upsample=factors, channels=channels, **shared)
    return VQVAE(encoder=encoder, decoder=decoder, quantizer=quantizer, flows=flows)


def is_causal(config: ConfigDict) -> bool:
    """Whether tokens depend on no later frames; configs of older runs do not say. Raises ValueError for what cannot."""
    causal = config.model.get("causal", False)
    if config.data.get("images") and not causal:
        raise ValueError(f"data.images is {config.data.images}, and images need model.causal: train vqvae:causal.")
    if causal and "flows" in config.model:
        raise ValueError("model.causal is true, and model.flows halve the frames, later ones with earlier: use vqvae.")
    return causal


def make_flows(model: ConfigDict) -> Invertible | None:
    """The module of `config.model.flows`; None in a recipe without them. Raises ValueError for what cannot work."""
    if "flows" not in model:
        return None
    for field in ("number", "width"):
        if model.flows[field] < 1:
            raise ValueError(f"model.flows.{field} is {model.flows[field]}, expected at least 1.")
    if any(factor % fold for factor, fold in zip(model.downsample, FOLDED, strict=True)):
        raise ValueError(
            f"model.downsample is {tuple(model.downsample)}, and model.flows halve frames, height and width before the "
            "encoder: expected a multiple of 2 for each, such as (2, 4, 4)."
        )
    return Invertible(**model.flows, remat=model.remat)


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    model: VQVAE
    distance: Callable[[jax.Array, jax.Array], jax.Array]
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a VQ-VAE, which has no prior and generates no videos; `configs/vqvae.py` documents the
    fields. Raises ValueError for what cannot work.
    """
    setup = Setup(
        config=config,
        model=make_model(config, axis_name),
        distance=losses.RECONSTRUCTION[choice("model.loss", config.model.loss, losses.RECONSTRUCTION)],
        optimizers=optim.make_optimizers(config.optim, {PLAYER: config.train.steps}),
        axis_name=axis_name,
    )
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, reconstruct=reconstruct)
    return Method(**bound, headline=("loss", "psnr"))


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    params_key, quantizer_key, key = jax.random.split(key, 3)
    rngs = {"params": params_key, "quantizer": quantizer_key}
    collections = setup.model.init(rngs, normalize(batch["video"][:1]), train=False)
    params = collections.pop("params")
    return core.new_state(key, {PLAYER: params}, setup.optimizers, {PLAYER: collections}, averaged=(PLAYER,))


def objective(
    params: Any, setup: Setup, collections: Any, video: jax.Array, key: jax.Array
) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """The loss [], the new collections and the metrics."""
    (reconstruction, quantized), collections = setup.model.apply(
        {"params": params, **collections}, video, train=True, mutable=list(collections), rngs={"quantizer": key}
    )
    error = setup.distance(reconstruction, video).mean()
    loss = error + sum(quantized.losses.values())
    metrics = {"loss": loss, "reconstruction": error, "psnr": psnr(reconstruction, video).mean()}
    return loss, (collections, {**metrics, **quantized.losses, **quantized.metrics})


def objectives(params: Any, setup: Setup, state: TrainState, batch: Batch) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """`objective` of the videos, and with the weight `model.images` that of the images beside them, where there are."""
    key, collections = core.step_key(state), state.collections[PLAYER]
    loss, (collections, metrics) = objective(params, setup, collections, normalize(batch["video"]), key)
    if "image" in batch:
        inputs = normalize(batch["image"]), jax.random.fold_in(key, 1)
        of_images, (collections, others) = objective(params, setup, collections, *inputs)
        loss += setup.config.model.images * of_images
        metrics |= {f"{name}_of_images": others[name] for name in ("loss", "psnr")}
    return loss, (collections, {**metrics, "loss": loss})


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    grads, (collections, metrics) = jax.grad(objectives, has_aux=True)(state.params[PLAYER], setup, state, batch)
    state, norm = core.apply_gradients(state, PLAYER, grads, setup.optimizers[PLAYER], setup.axis_name)
    state = state.replace(step=state.step + 1, collections={PLAYER: collections})
    state = core.update_ema(state, PLAYER, optim.ema_decay(setup.config.optim, PLAYER))
    return state, {**parallel.pmean(metrics, setup.axis_name), "grad_norm": norm}


def autoencode(setup: Setup, state: TrainState, video: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Video in [-1, 1] -> indices [B,T/t,H/h,W/w], and the reconstruction in [-1, 1]."""
    (reconstruction, quantized), _ = setup.model.apply(_variables(state), video, train=False, mutable=[])
    return quantized.indices, jnp.clip(reconstruction, -1, 1)


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`."""
    return autoencode(setup, state, normalize(batch["video"]))[1]


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: reconstructions, and how often each code is used."""
    video = normalize(batch["video"])
    indices, reconstruction = autoencode(setup, state, video)
    codes = indices.reshape(len(video), -1)
    size = setup.model.quantizer.codebook_size
    scalars: dict[str, Any] = {"loss": setup.distance(reconstruction, video), "psnr": psnr(reconstruction, video)}
    if setup.model.flows is not None:
        scalars["log_determinant"] = setup.model.apply(_variables(state), video, method="log_determinant")
    return Evaluated(
        scalars=scalars,
        counts={"codes": quantize.code_counts(codes, size)},
        panels={"original": video, "reconstruction": reconstruction},
    )


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": core.sampled_params(state, PLAYER), **state.collections[PLAYER]}


def tokenizer(config: ConfigDict) -> Tokenizer:
    """The tokenizer of a trained run, for priors over its tokens."""
    model, options, data, causal = make_model(config), config.model.quantizer, config.data, is_causal(config)
    digits = {"fsq": lambda: options.levels, "lfq": lambda: (2,) * options.bits}.get(
        options.name, lambda: (model.quantizer.codebook_size,)
    )()
    factors = tuple(config.model.downsample)
    return Tokenizer(
        grid=latent_grid((data.frames, data.resolution, data.resolution), factors, causal, "model.downsample"),
        factors=factors,
        causal=causal,
        digits=grouped(digits),
        encode=lambda state, video: model.bind(_variables(state)).encode(video),
        decode=lambda state, indices: jnp.clip(model.bind(_variables(state)).decode(indices), -1, 1),
    )


class Codec(NamedTuple):
    """A trained tokenizer as two compiled functions."""

    encode: Callable[[Any], Any]  # video [B,T,H,W,3], uint8 or in [-1, 1] -> indices [B,T',H/h,W/w] int32
    decode: Callable[[Any], Any]  # indices -> video [B,T,H,W,3] float32 in [-1, 1]


def codec(config: ConfigDict, state: TrainState, frames: int | None = None) -> Codec:
    """The tokenizer of a trained run: `codec(run.config, run.state)` with `run = jaxvid.run.load(workdir)`.

    A causal one takes videos of any length T, to T' = 1 + ceil((T - 1) / t) frames of tokens and back to 1 + t (T' - 1)
    of video: the last frame is repeated that far. It reads `frames` of them at a time (default: as in training), whose
    memory is all that a device needs, and returns arrays on the host.

    Raises ValueError where `frames` is not 1 + a multiple of t, or the tokenizer is not causal.
    """
    made, model, variables = tokenizer(config), make_model(config), _variables(state)
    factor, options, causal = made.factors[0], parallel.compiler_options(), made.causal
    if frames is not None and not causal:
        raise ValueError(
            f"frames is {frames}, and the tokenizer sees whole clips: leave it out, or train vqvae:causal."
        )
    if frames is not None and (frames <= factor or (frames - 1) % factor):
        raise ValueError(f"frames is {frames}, expected 1 + a multiple of {factor}, such as {1 + factor}.")

    def step(method: str, before: Callable, after: Callable) -> Callable[[Any, jax.Array], tuple[jax.Array, Any]]:
        def program(variables: Any, past: Any, part: jax.Array) -> tuple[jax.Array, Any]:
            y, past = model.apply({**variables, **past}, before(part), method=method, mutable=[PAST])
            return after(y), past

        # The variables are an argument, since constants would be compiled into the program.
        return functools.partial(in_32_bits(jax.jit(program, compiler_options=options)), variables)

    encode = step("encode", normalize, lambda indices: indices)
    decode = step("decode", lambda indices: indices, lambda video: jnp.clip(video, -1, 1))
    if not causal:
        return Codec(lambda video: encode({}, video)[0], lambda indices: decode({}, indices)[0])
    return Codec(*codec_in_parts(encode, decode, made.frames if frames is None else frames, factor))
