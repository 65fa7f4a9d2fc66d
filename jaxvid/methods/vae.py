"""The VAE method: the evidence lower bound of videos (Kingma and Welling, 2014), with a choice of networks.

    ELBO = E_q(z|x) [log p(x | z)] - KL(q(z | x) || p(z)), summed over frames, in nats per clip

Two players share it: "encoder" is the posterior q, "decoder" the model p, which is the decoder and the prior. Both
learn at every step, or in turns of `model.turn` steps, as in variational EM: the encoder is fixed while the decoder
learns, then the reverse.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import conditions as conditions_lib
from jaxvid import core, losses, optim, parallel
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState, normalize
from jaxvid.latent_modes import MODES
from jaxvid.latents import Codec
from jaxvid.losses import LIKELIHOODS, Likelihood
from jaxvid.metrics.image import psnr
from jaxvid.models.vae import VAE, Gaussians, Latents, bind, means, per_dimension, variables
from jaxvid.models.vae_networks import latent_shapes, make_vae
from jaxvid.names import choice
from jaxvid.nn.causal import PAST, codec_in_parts

__all__ = ["MODES", "codec", "make"]
ENCODER, DECODER = PLAYERS = ("encoder", "decoder")
Params = dict[str, Any]  # by player


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    model: VAE
    likelihood: Likelihood
    shapes: dict[str, tuple[int, ...]]  # of one clip's latents, by name
    optimizers: dict[str, optax.GradientTransformation]
    features: Callable[[jax.Array], jax.Array] | None  # for the perceptual term, see `make`
    axis_name: str | None


class Bound(NamedTuple):
    """The parts of an ELBO."""

    output: jax.Array  # of the decoder
    nll: jax.Array  # -log p(x | z) in nats, [B]
    kl: dict[str, jax.Array]  # by latent, in nats for each of its dimensions
    moment: jax.Array  # of the likelihood's scale, []


def make(
    config: ConfigDict, axis_name: str | None = None, features: Callable[[jax.Array], jax.Array] | None = None
) -> Method:
    """The functions of a VAE; `configs/vae.py` documents the fields. Raises ValueError for what cannot work.

    `features`, video [B,T,H,W,C] in [-1, 1] -> [B,...], add a perceptual term to the loss: `model.perceptual` times the
    mean squared difference of those of video and reconstruction, for each value of the clip, as the likelihood counts.
    A module of one's own whose `make` passes them is the `config.method` to train with.
    """
    options = config.model
    numbers = {f"model.{name}": options[name] for name in ("beta", "warm_up", "free_nats", "turn", "perceptual")}
    for field, number in {**numbers, "sample.temperature": config.sample.temperature}.items():
        if not number >= 0:
            raise ValueError(f"{field} is {number}, expected 0 or more.")
    if options.perceptual and features is None:
        raise ValueError(f"model.perceptual is {options.perceptual}, expected 0 unless make() is called with features.")
    if config.data.get("images") and (config.condition.on or not config.model.network.get("causal")):
        raise ValueError(
            f"data.images is {config.data.images}, and images have no conditions and need a causal model: train "
            "vae:causal, with condition.on=()."
        )
    model, size = make_model(config), (config.data.frames, config.data.resolution, config.data.resolution)
    steps = max(1, config.train.steps // (2 if options.turn else 1))
    setup = Setup(
        config=config,
        model=model,
        likelihood=likelihood_of(config),
        shapes=latent_shapes(model, (*size, 3)),
        optimizers=optim.make_optimizers(config.optim, dict.fromkeys(PLAYERS, steps)),
        features=features,
        axis_name=axis_name,
    )
    steps = {"init": init, "train_step": train_step, "eval_step": eval_step}
    return Method(**core.bind(setup, **steps, sample=sample, reconstruct=reconstruct), headline=("loss", "psnr"))


def make_model(config: ConfigDict) -> VAE:
    """The module of `config.model`. Raises ValueError where sizes do not fit, or a field has no such value."""
    conditions_lib.check(config.condition, config.data.frames)
    dtype = jnp.dtype(choice("model.dtype", config.model.dtype, ("float32", "bfloat16")))
    encoder = conditions_lib.make_encoder(config.condition, dtype) if config.condition.on else None
    size = (config.data.frames, config.data.resolution, config.data.resolution)
    return make_vae(size, config.model.network, encoder, dtype)


def likelihood_of(config: ConfigDict) -> Likelihood:
    """That of `config.model.likelihood`."""
    return LIKELIHOODS[choice("model.likelihood", config.model.likelihood, LIKELIHOODS)]


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    params_key, key = jax.random.split(key)
    noise = {name: jnp.zeros((1, *shape)) for name, shape in setup.shapes.items()}
    conditions = jax.tree.map(lambda x: x[:1], conditions_lib.take(setup.config.condition, batch))
    video = normalize(batch["video"][:1])
    params = setup.model.init(params_key, video, noise, train=False, conditions=conditions)["params"]
    players = {ENCODER: params.pop("encoder"), DECODER: params}
    return core.new_state(key, players, setup.optimizers, averaged=PLAYERS, extra={"moment": jnp.ones(())})


def bound(setup: Setup, params: Params, batch: Batch, keys: jax.Array, moment: jax.Array | None = None) -> Bound:
    """The evidence lower bound of a batch, under one sample of the posterior for each clip."""
    video, conditions = normalize(batch["video"]), conditions_lib.take(setup.config.condition, batch)
    power = setup.likelihood.power
    _, frames, height, width, channels = video.shape
    is_clip = frames == setup.config.data.frames  # or else an image
    shapes = setup.shapes if is_clip else latent_shapes(setup.model, (frames, height, width, channels))
    noise = parallel.example_noise(keys, shapes)
    posterior, prior, output = bind(setup.model, params)(video, noise, train=True, conditions=conditions)
    if moment is None:  # that of these videos, as a constant: the gradient is that of the likeliest scale's NLL
        error = jnp.abs(jax.lax.stop_gradient(output) - video)
        moment = parallel.pmean(jnp.mean(error**power), setup.axis_name)
    log_scale = jnp.log(moment + 1e-8) / max(power, 1)
    kl = {name: losses.gaussian_kl(*posterior[name], *prior[name]) for name in posterior}
    return Bound(output, setup.likelihood.nll(output, video, log_scale), kl, moment)


def objective(
    params: Params, setup: Setup, state: TrainState, batch: Batch, keys: jax.Array
) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
    """The loss [], with the metrics, and the moment of the likelihood's scale."""
    options = setup.config.model
    output, nll, kl, moment = bound(setup, params, batch, keys)
    video = normalize(batch["video"])
    mean, beta = setup.likelihood.mean(output), options.beta * warm_up(state.step, options.warm_up)
    loss = nll + beta * sum(losses.sum_by_example(jnp.maximum(part, options.free_nats)) for part in kl.values())
    values = {"nll": nll, **_kl_of_clips(kl), "psnr": psnr(mean, video)}
    values["reconstruction"] = losses.mean_squared_error(mean, video)
    if setup.features is not None:
        values["perceptual"] = losses.mean_squared_error(setup.features(mean), setup.features(video))
        loss += options.perceptual * video[0].size * values["perceptual"]
    metrics = {name: value.mean() for name, value in {"loss": loss, **values}.items()}
    # By value of the clip, so that gradients are of the same order for every size of video.
    return loss.mean() / video[0].size, ({**metrics, "beta": beta}, moment)


def objectives(
    params: Params, setup: Setup, state: TrainState, batch: Batch, keys: jax.Array
) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
    """`objective` of the videos, and with the weight `model.images` that of the images beside them, where there are."""
    loss, (metrics, moment) = objective(params, setup, state, batch, keys)
    if "image" in batch:
        images = {"video": batch["image"]}
        of_images, (others, _) = objective(params, setup, state, images, parallel.fold_keys(keys, 1))
        loss += setup.config.model.images * of_images
        metrics |= {f"{name}_of_images": others[name] for name in ("loss", "psnr")}
    return loss, (metrics, moment)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    turn, power, axis_name = setup.config.model.turn, setup.likelihood.power, setup.axis_name
    keys = parallel.example_keys(core.step_key(state), len(batch["video"]), axis_name)
    grads, (metrics, moment) = jax.grad(objectives, has_aux=True)(state.params, setup, state, batch, keys)
    metrics, squares = parallel.pmean(metrics, axis_name), jnp.zeros(())
    for index, player in enumerate((DECODER, ENCODER)):
        moved, norm = core.apply_gradients(state, player, grads[player], setup.optimizers[player], axis_name)
        # Both gradients are made in either turn: inside a conditional XLA:CPU convolves 10 to 40 times more slowly.
        learns = state.step // turn % 2 == index if turn else True
        state = select(learns, moved, state)
        squares += jnp.where(learns, jnp.square(norm), 0)
    rate = jnp.maximum(0.01, 9 / (10 + state.step))
    average = state.extra["moment"] + rate * (moment - state.extra["moment"])
    state = state.replace(step=state.step + 1, extra={"moment": average})
    for player in PLAYERS:
        state = core.update_ema(state, player, optim.ema_decay(setup.config.optim, player))
    return state, {**metrics, "scale": moment ** (1 / max(power, 1)), "grad_norm": jnp.sqrt(squares)}


def decode(setup: Setup, params: Params, z: Latents, condition: jax.Array | None) -> jax.Array:
    """Latents -> video [B,T,H,W,C] in [-1, 1]."""
    return jnp.clip(setup.likelihood.mean(bind(setup.model, params).decode(z, condition)), -1, 1)


def encoded_condition(setup: Setup, params: Params, batch: Batch) -> jax.Array | None:
    """What decoder and prior depend on, [B,F]; None without conditions."""
    return bind(setup.model, params).encode_conditions(conditions_lib.take(setup.config.condition, batch))


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`: from the means of the posterior."""
    params = sampled(state)
    z = means(bind(setup.model, params).encode(normalize(batch["video"])))
    return decode(setup, params, z, encoded_condition(setup, params, batch))


def sample(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`."""
    params, temperature = sampled(state), setup.config.sample.temperature
    noise = {name: temperature * each for name, each in parallel.example_noise(keys, setup.shapes).items()}
    condition = encoded_condition(setup, params, batch)
    return decode(setup, params, bind(setup.model, params).prior.sample(noise, condition), condition)


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: the bound at the running scale of the likelihood."""
    video, params = normalize(batch["video"]), sampled(state)
    key, sample_key = jax.random.split(key)
    _, nll, kl, _ = bound(setup, params, batch, parallel.example_keys(key, len(video)), state.extra["moment"])
    reconstruction = reconstruct(setup, state, batch)
    return Evaluated(
        scalars={
            "loss": nll + sum(map(losses.sum_by_example, kl.values())),
            "nll": nll,
            **_kl_of_clips(kl),
            "psnr": psnr(reconstruction, video),
        },
        profiles={f"kl_{name}_dimensions": Profile(per_dimension(part)) for name, part in kl.items()},
        panels={
            "original": video,
            "reconstruction": reconstruction,
            "sample": sample(setup, state, batch, parallel.example_keys(sample_key, len(video))),
        },
    )


def select(condition: jax.Array | bool, yes: TrainState, no: TrainState) -> TrainState:
    """One of two states that differ in parameters and optimizers."""
    choose = functools.partial(jnp.where, condition)
    params = jax.tree.map(choose, yes.params, no.params)
    return no.replace(params=params, opt_state=jax.tree.map(choose, yes.opt_state, no.opt_state))


def warm_up(step: jax.Array, steps: int) -> jax.Array:
    """From 1/steps at step 0 in equal parts to 1; always 1 where steps is 0."""
    return jnp.minimum((step + 1) / max(steps, 1), 1.0)


def _kl_of_clips(kl: dict[str, jax.Array]) -> Metrics:
    """Nats [B], of each latent and of all."""
    parts = {f"kl_{name}": losses.sum_by_example(part) for name, part in kl.items()}
    return {"kl": functools.reduce(jnp.add, parts.values()), **parts}


def sampled(state: TrainState) -> Params:
    """The parameters of both players to evaluate and sample with."""
    return {player: core.sampled_params(state, player) for player in PLAYERS}


def codec(config: ConfigDict, state: TrainState, conditions: Batch | None = None) -> Codec:
    """The VAE of a trained run, with the parameters that it is sampled with.

    A causal one encodes and decodes videos of any length, `data.frames` of them at a time, as `vqvae.codec` does.

    Args:
      config, state: of the run.
      conditions: of a model that was trained with them, [1, ...] from `conditions.from_user`: those of all clips.
    """
    model, params, size = make_model(config), sampled(state), [config.data.resolution] * 2
    mean = likelihood_of(config).mean

    @functools.partial(jax.jit, static_argnums=2)
    def draw(params: dict, keys: jax.Array, frames: int) -> Latents:
        noise = parallel.example_noise(keys, latent_shapes(model, (frames, *size, 3)))
        return bind(model, params).prior.sample(noise, condition(params, len(keys)))

    def condition(params: dict, clips: int) -> jax.Array | None:
        vector = bind(model, params).encode_conditions(conditions_lib.take(config.condition, conditions or {}))
        return None if vector is None else jnp.repeat(vector, clips, 0)

    def clips(z: Latents) -> int:
        return len(next(iter(z.values())))

    # The parameters are arguments, since constants would be compiled into the program.
    @jax.jit
    def encode(params: dict, past: dict, video: jax.Array) -> tuple[Gaussians, Any]:
        return model.apply({**variables(params), **past}, normalize(video), method="encode", mutable=[PAST])

    @jax.jit
    def decode(params: dict, past: dict, z: Latents) -> tuple[jax.Array, Any]:
        inputs = z, condition(params, clips(z))
        output, kept = model.apply({**variables(params), **past}, *inputs, method="decode", mutable=[PAST])
        return jnp.clip(mean(output), -1, 1), kept

    prior = jax.jit(lambda params, z: bind(model, params).prior(z, condition(params, clips(z))))
    frames = config.data.frames
    shapes = latent_shapes(model, (frames, *size, 3))
    functions = map(core.in_32_bits, (encode, decode, prior, draw))
    encode_part, decode_part, *of_prior = (functools.partial(function, params) for function in functions)
    if not config.model.network.get("causal"):
        return Codec(shapes, lambda video: encode_part({}, video)[0], lambda z: decode_part({}, z)[0], *of_prior)
    factor = config.model.network.downsample[0]
    return Codec(shapes, *codec_in_parts(encode_part, decode_part, frames, factor), *of_prior)
