"""Pix2Pix for videos: a paired translator and a conditional discriminator of patches (Isola et al., 2017).

In each step the discriminator learns to tell (a, b) from (a, G(a)), joined in channels, and then the generator from its
verdict and from L1 to b.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid import adversarial, core, optim, parallel
from jaxvid import translation as translation_lib
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, Translation, normalize
from jaxvid.data import Source, first_clip, is_paired
from jaxvid.losses import mean_absolute_error
from jaxvid.parallel import fold_keys
from jaxvid.translation import DISCRIMINATOR, GENERATOR, Setup


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """See `core.find_method`. Raises ValueError where the training clips are no pairs."""
    if "input" not in first_clip(source) or not is_paired(source):
        raise ValueError(
            f"pix2pix learns from pairs, and {source.summary()} has none: set data.layout to pairs or side_by_side."
        )
    return config


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of Pix2Pix; `configs/pix2pix.py` documents the fields. Raises ValueError for what cannot work."""
    setup = translation_lib.make_setup(config, axis_name, translation_lib.domains(config.data))
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, reconstruct=reconstruct)

    def apply(state: TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        return generate(setup, core.sampled_params(state, GENERATOR), normalize(video))

    first, second = setup.domains
    return Method(
        **bound,
        translation=Translation(apply, targets=(second,), origins=(first,), radius=setup.generator.trunk.radius),
        warnings=functools.partial(translation_lib.warnings, config.loss),
        headline=("d_loss", "g_loss", "l1"),
    )


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    generator_key, discriminator_key, key = jax.random.split(key, 3)
    video = normalize(batch["video"][:1])
    params = {
        GENERATOR: setup.generator.init(generator_key, video)["params"],
        DISCRIMINATOR: setup.discriminator.init(discriminator_key, joined(video, video), None, False)["params"],
    }
    extra = translation_lib.remember_start(generator_key)
    return core.new_state(key, params, setup.optimizers, averaged=(GENERATOR,), extra=extra)


def generate(setup: Setup, params: Any, video: jax.Array) -> jax.Array:
    """The translation of videos [B,T,H,W,3]."""
    return setup.generator.bind({"params": params})(video)


def joined(source: jax.Array, video: jax.Array) -> jax.Array:
    """A pair as the discriminator sees it: [B,T,H,W,6]."""
    return jnp.concatenate([source, video], -1)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    config, game, axis_name = setup.config, setup.game, setup.axis_name
    keys = parallel.example_keys(core.step_key(state), len(batch["video"]), axis_name)
    source = translation_lib.augmented(config.augment, normalize(batch["input"]), keys)
    video = translation_lib.augmented(config.augment, normalize(batch["video"]), keys, photometric=False)
    fake, backward = jax.vjp(lambda params: generate(setup, params, source), state.params[GENERATOR])
    progress = state.step / config.train.steps

    def judged(video: jax.Array, number: int) -> jax.Array:
        """A pair as it is judged: each half augmented by itself, since colors are averaged over channels, but alike."""
        own = fold_keys(keys, number)  # from 3 on: those before augment the clips
        return joined(*(adversarial.augmented(game, each, own, progress) for each in (source, video)))

    def critiques(params: Any, pairs: jax.Array) -> adversarial.Panel:
        return setup.discriminator.bind({"params": params})(pairs, None, True)

    def d_objective(params: Any) -> tuple[jax.Array, Metrics]:
        pairs, penalized = (judged(video, 3), judged(fake, 4)), fold_keys(keys, 5)
        return translation_lib.discriminator_loss(game, lambda x: critiques(params, x), *pairs, penalized)

    grads, d_metrics = jax.grad(d_objective, has_aux=True)(state.params[DISCRIMINATOR])
    state, d_norm = core.apply_gradients(state, DISCRIMINATOR, grads, setup.optimizers[DISCRIMINATOR], axis_name)

    def g_objective(fake: jax.Array) -> tuple[jax.Array, Metrics]:
        params = state.params[DISCRIMINATOR]
        of_fake = critiques(params, judged(fake, 6))
        total, metrics = adversarial.generator_loss(game, of_fake)
        metrics["l1"] = mean_absolute_error(fake, video)
        total += config.loss.l1 * metrics["l1"]
        if config.loss.features:
            metrics["features"] = translation_lib.feature_error(critiques(params, judged(video, 6)), of_fake)
            total += config.loss.features * metrics["features"]
        return total.mean(), {name: value.mean() for name, value in metrics.items()}

    to_fake, g_metrics = jax.grad(g_objective, has_aux=True)(fake)
    (grads,) = backward(to_fake)
    state, g_norm = core.apply_gradients(state, GENERATOR, grads, setup.optimizers[GENERATOR], axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), GENERATOR, optim.ema_decay(config.optim, GENERATOR))
    metrics = parallel.pmean({**d_metrics, **g_metrics}, axis_name)
    return state, {**metrics, "d_norm": d_norm, "g_norm": g_norm}


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`: the translation of the input."""
    return generate(setup, core.sampled_params(state, GENERATOR), normalize(batch["input"]))


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: how far translations of held-out clips are from the truth."""
    source, truth = normalize(batch["input"]), normalize(batch["video"])
    made = reconstruct(setup, state, batch)
    start = setup.generator.init(translation_lib.start_key(state), source[:1])["params"]
    videos = {"": made, "_of_input": source, "_of_untrained": generate(setup, start, source)}
    scalars = {
        "l1": mean_absolute_error(made, truth),
        **translation_lib.measures(videos, source, truth),
        **translation_lib.health(made, source),
    }
    return Evaluated(scalars=scalars, panels={"input": source, "translation": made, "truth": truth})
