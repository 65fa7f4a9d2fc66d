"""The VAE method: the evidence lower bound of videos (Kingma and Welling, 2014), with a choice of networks.

    ELBO = E_q(z|x) [log p(x | z)] - KL(q(z | x) || p(z)), summed over frames, in nats per clip

Two players share it: "encoder" is the posterior q, "decoder" the model p, which is the decoder and the prior. Both
learn at every step, or in turns of `model.turn` steps, as in variational EM: the encoder is fixed while the decoder
learns, then the reverse.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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
from jaxvid.methods import condition
from jaxvid.metrics.image import psnr
from jaxvid.models.vae import VAE, Latents, bind, means, per_dimension
from jaxvid.models.vae_networks import latent_shapes, make_vae
from jaxvid.names import choice

ENCODER, DECODER = PLAYERS = ("encoder", "decoder")
Params = dict[str, Any]  # by player


class Bound(NamedTuple):
    """The parts of an ELBO, and what they are of.

    output: of the decoder.
    nll: -log p(x | z) in nats, [B].
    kl: by latent, in nats for each of its dimensions.
    moment: of the likelihood's scale, [].
    """

    output: jax.Array
    nll: jax.Array
    kl: dict[str, jax.Array]
    moment: jax.Array


def make_model(config: ConfigDict) -> VAE:
    """The module of `config.model`; raises ValueError where sizes do not fit, or a field has no such value."""
    dtype = jnp.dtype(choice("model.dtype", config.model.dtype, ("float32", "bfloat16")))
    condition.check(config.condition, config.data.frames)
    encoder = condition.make_encoder(config.condition, dtype) if config.condition.on else None
    size = (config.data.frames, config.data.resolution, config.data.resolution)
    return make_vae(config.model.network, size, encoder, dtype)


def make(
    config: ConfigDict, axis_name: str | None = None, features: Callable[[jax.Array], jax.Array] | None = None
) -> Method:
    """The four functions of a VAE. `sample` draws from the prior.

    Args:
      config: with `data`, `model`, `optim` and `train.steps`; see `configs/vae.py`.
      axis_name: the mapped axis under pmap; None under jit.
      features: video [B,T,H,W,C] in [-1, 1] -> features [B,...], for a perceptual term: `model.perceptual` times the
        mean squared difference of the features of video and reconstruction joins the loss, for each value of the clip,
        as the likelihood counts. `METHODS["vae"] = functools.partial(make, features=...)` trains with it.

    Raises:
      ValueError: sizes do not fit, or a field has no such value.
    """
    options = config.model
    for field in ("beta", "warm_up", "free_nats", "turn", "perceptual"):
        if options[field] < 0:
            raise ValueError(f"model.{field} is {options[field]}, expected 0 or more.")
    if options.perceptual and features is None:
        raise ValueError(f"model.perceptual is {options.perceptual}, expected 0 unless features are given to make().")
    model = make_model(config)
    likelihood = losses.LIKELIHOODS[choice("model.likelihood", options.likelihood, losses.LIKELIHOODS)]
    shapes = latent_shapes(model, (config.data.frames, config.data.resolution, config.data.resolution, 3))
    steps = max(1, config.train.steps // (2 if options.turn else 1))
    tx = optim.make_optimizers(config.optim, dict.fromkeys(PLAYERS, steps))

    def init(key: jax.Array, batch: Batch) -> TrainState:
        params_key, key = jax.random.split(key)
        noise = {name: jnp.zeros((1, *shape)) for name, shape in shapes.items()}
        given = jax.tree.map(lambda x: x[:1], condition.take(config.condition, batch))
        params = model.init(params_key, normalize(batch["video"][:1]), noise, train=False, given=given)["params"]
        players = {ENCODER: params.pop("encoder"), DECODER: params}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=players,
            opt_state={player: tx[player].init(params) for player, params in players.items()},
            collections={DECODER: {"moment": jnp.ones(())}},
            ema=players,
            extra={},
        )

    def bound(params: Params, batch: Batch, keys: jax.Array, moment: jax.Array | None = None) -> Bound:
        video, given = normalize(batch["video"]), condition.take(config.condition, batch)
        noise = parallel.example_noise(keys, shapes)
        posterior, prior, output = bind(model, params)(video, noise, train=True, given=given)
        if moment is None:  # that of these videos, as a constant: the gradient is that of the likeliest scale's NLL
            error = jnp.abs(jax.lax.stop_gradient(output) - video)
            moment = parallel.pmean(jnp.mean(error**likelihood.power), axis_name)
        log_scale = jnp.log(moment + 1e-8) / max(likelihood.power, 1)
        kl = {name: losses.gaussian_kl(*posterior[name], *prior[name]) for name in posterior}
        return Bound(output, likelihood.nll(output, video, log_scale), kl, moment)

    def objective(params: Params, state: TrainState, batch: Batch, keys: jax.Array) -> tuple[jax.Array, Any]:
        output, nll, kl, moment = bound(params, batch, keys)
        video = normalize(batch["video"])
        mean, beta = likelihood.mean(output), options.beta * warm_up(state.step, options.warm_up)
        loss = nll + beta * sum(_per_clip(jnp.maximum(part, options.free_nats)) for part in kl.values())
        values = {"nll": nll, **_kl_of_clips(kl), "psnr": psnr(mean, video)}
        values["reconstruction"] = losses.mean_squared_error(mean, video)
        if features is not None:
            values["perceptual"] = losses.mean_squared_error(features(mean), features(video))
            loss += options.perceptual * video[0].size * values["perceptual"]
        metrics = {name: value.mean() for name, value in {"loss": loss, **values}.items()}
        # By value of the clip, so that gradients are of the same order for every size of video.
        return loss.mean() / video[0].size, ({**metrics, "beta": beta}, moment)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = parallel.example_keys(step_key(state), len(batch["video"]), axis_name)
        grads, (metrics, moment) = jax.grad(objective, has_aux=True)(state.params, state, batch, keys)
        metrics, squares = parallel.pmean(metrics, axis_name), jnp.zeros(())
        for index, player in enumerate((DECODER, ENCODER)):
            moved, norm = apply_gradients(state, player, grads[player], tx[player], axis_name)
            # Both gradients are made in either turn: inside a conditional XLA:CPU convolves 10 to 40 times more slowly.
            learns = state.step // options.turn % 2 == index if options.turn else True
            state = select(learns, moved, state)
            squares += jnp.where(learns, jnp.square(norm), 0)
        rate = jnp.maximum(0.01, 9 / (10 + state.step))
        average = state.collections[DECODER]["moment"] + rate * (moment - state.collections[DECODER]["moment"])
        state = state.replace(step=state.step + 1, collections={DECODER: {"moment": average}})
        for player in PLAYERS:
            state = update_ema(state, player, optim.ema_decay(config.optim, player))
        scale = moment ** (1 / max(likelihood.power, 1))
        return state, {**metrics, "scale": scale, "grad_norm": jnp.sqrt(squares)}

    def decode(params: Params, z: Latents, told: jax.Array | None) -> jax.Array:
        return jnp.clip(likelihood.mean(bind(model, params).decode(z, told)), -1, 1)

    def eval_step(state: TrainState, batch: Batch, key: jax.Array) -> Metrics:
        video, params = normalize(batch["video"]), sampled(state)
        key, sample_key = jax.random.split(key)
        keys = parallel.example_keys(key, len(video))
        _, nll, kl, _ = bound(params, batch, keys, state.collections[DECODER]["moment"])
        told = bind(model, params).tell(condition.take(config.condition, batch))
        reconstruction = decode(params, means(bind(model, params).encode(video)), told)
        return {
            "loss": nll + sum(map(_per_clip, kl.values())),
            "nll": nll,
            **_kl_of_clips(kl),
            **{f"kl_{name}_dimensions": per_dimension(part) for name, part in kl.items()},
            "psnr": psnr(reconstruction, video),
            "reconstruction": reconstruction,
            "sample": sample(state, batch, parallel.example_keys(sample_key, len(video))),
        }

    def sample(state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
        params = sampled(state)
        told = bind(model, params).tell(condition.take(config.condition, batch))
        return decode(params, bind(model, params).sample_prior(parallel.example_noise(keys, shapes), told), told)

    return Method(init, train_step, eval_step, sample)


def select(condition: jax.Array | bool, yes: TrainState, no: TrainState) -> TrainState:
    """One of two states that differ in parameters and optimizers."""
    choose = functools.partial(jnp.where, condition)
    params = jax.tree.map(choose, yes.params, no.params)
    return no.replace(params=params, opt_state=jax.tree.map(choose, yes.opt_state, no.opt_state))


def warm_up(step: jax.Array, steps: int) -> jax.Array:
    """From 1/steps at step 0 in equal parts to 1; always 1 where steps is 0."""
    return jnp.minimum((step + 1) / max(steps, 1), 1.0)


def sampled(state: TrainState) -> Params:
    """The parameters of both players to evaluate and sample with."""
    return {player: sampled_params(state, player) for player in PLAYERS}


def _per_clip(values: jax.Array) -> jax.Array:
    """Sums [B, ...] to [B]."""
    return values.reshape(len(values), -1).sum(1)


def _kl_of_clips(kl: dict[str, jax.Array]) -> Metrics:
    """Nats [B], of each latent and of all."""
    parts = {f"kl_{name}": _per_clip(part) for name, part in kl.items()}
    return {"kl": functools.reduce(jnp.add, parts.values()), **parts}
