"""CycleGAN for videos: translators between two domains, from clips that are no pairs (Zhu et al., 2017).

In each step both generators learn at once, A -> B and B -> A, and then the discriminators of both domains, from a
history of translations. `model.shared` makes them the two directions of one network between two ends.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from jaxvid import adversarial, core, optim, parallel
from jaxvid import translation as translation_lib
from jaxvid.core import Batch, Evaluated, Method, Metrics, TrainState, Translation, normalize
from jaxvid.data import Source, first_clip
from jaxvid.losses import mean_absolute_error
from jaxvid.metrics.image import psnr
from jaxvid.models.translator import TwoDomains, make_generator
from jaxvid.parallel import fold_keys
from jaxvid.translation import DISCRIMINATOR, DOMAINS, GENERATOR, Setup

KEYS = ("input", "video")  # in a batch, of the two domains
PAIRED = ("pairs", "side_by_side")  # layouts of data whose `video` is the true translation of the input


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """See `core.find_method`. Raises ValueError where the training clips show no two domains."""
    if "input" not in first_clip(source):
        raise ValueError(
            f"cyclegan translates between two domains, and {source.summary()} has one: set data.layout to two_sides."
        )
    return config


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of CycleGAN; `configs/cyclegan.py` documents the fields. Raises ValueError for what cannot work."""
    loss = config.loss
    if loss.pool and loss.pool < config.train.batch_size:
        raise ValueError(
            f"loss.pool is {loss.pool}, expected train.batch_size {config.train.batch_size} or more, or 0."
        )
    if not 0 <= loss.cycle_features <= 1:
        raise ValueError(f"loss.cycle_features is {loss.cycle_features}, expected a share from 0 to 1.")
    names = translation_lib.domains(config.data)
    setup = translation_lib.make_setup(config, axis_name, names)
    one = setup.generator
    other = make_generator(config.model.generator, dtype=one.encoder.dtype)
    setup = setup._replace(generator=TwoDomains(generators=[one, other], shared=config.model.shared))

    def apply(state: TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        params = core.sampled_params(state, GENERATOR)
        branches = [functools.partial(generate, setup, params, origin=1 - domain, target=domain) for domain in (0, 1)]
        return lax.switch(target[0], branches, normalize(video))

    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, reconstruct=reconstruct)
    return Method(
        **bound,
        translation=Translation(apply, names, names[::-1], radius=one.trunk.radius),
        warnings=functools.partial(translation_lib.warnings, config.loss),
        headline=("d_loss", "g_loss", "cycle"),
        training_only=("pool",),
    )


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    generator_key, discriminator_key, key = jax.random.split(key, 3)
    video = normalize(batch["video"][:1])
    params = {
        GENERATOR: start(setup, generator_key, video),
        DISCRIMINATOR: {
            domain: setup.discriminator.init(jax.random.fold_in(discriminator_key, i), video, None, False)["params"]
            for i, domain in enumerate(DOMAINS)
        },
    }
    extra: dict[str, Any] = translation_lib.remember_start(generator_key)
    if size := setup.config.loss.pool:
        extra["pool"] = {domain: translation_lib.initial_pool(size, video[0]) for domain in DOMAINS}
    return core.new_state(key, params, setup.optimizers, averaged=(GENERATOR,), extra=extra)


def start(setup: Setup, key: jax.Array, video: jax.Array) -> Any:
    """The generators' first parameters."""
    return setup.generator.init(key, video, method="both")["params"]


def generate(setup: Setup, params: Any, video: jax.Array, origin: int, target: int) -> jax.Array:
    """Videos [B,T,H,W,3] of one domain in another, or the same."""
    return setup.generator.bind({"params": params})(video, origin, target)


def there_and_back(setup: Setup, params: Any, video: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The translation A -> B of videos, and the way back from it in 8 bits."""
    made = generate(setup, params, video, 0, 1)
    return made, generate(setup, params, translation_lib.rounded(made), 1, 0)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    config, axis_name = setup.config, setup.axis_name
    key = core.step_key(state)
    keys = parallel.example_keys(key, len(batch["video"]), axis_name)
    videos = [
        translation_lib.augmented(config.augment, normalize(batch[name]), fold_keys(keys, i))
        for i, name in enumerate(KEYS)
    ]
    learn = functools.partial(jax.grad(generator_loss, argnums=2, has_aux=True), setup, state)
    grads, (fakes, g_metrics) = learn(state.params[GENERATOR], videos, keys)
    state, g_norm = core.apply_gradients(state, GENERATOR, grads, setup.optimizers[GENERATOR], axis_name)
    if "pool" in state.extra:
        first = config.train.batch_size  # past the numbers of the examples, which have keys of their own
        found = [
            translation_lib.pooled(state.extra["pool"][domain], fake, jax.random.fold_in(key, first + i), axis_name)
            for i, (domain, fake) in enumerate(zip(DOMAINS, fakes, strict=True))
        ]
        fakes, pools = zip(*found, strict=True)
        state = state.replace(extra={**state.extra, "pool": dict(zip(DOMAINS, pools, strict=True))})
    learn = functools.partial(jax.grad(discriminator_loss, argnums=2, has_aux=True), setup, state)
    grads, d_metrics = learn(state.params[DISCRIMINATOR], videos, fakes, keys)
    state, d_norm = core.apply_gradients(state, DISCRIMINATOR, grads, setup.optimizers[DISCRIMINATOR], axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), GENERATOR, optim.ema_decay(config.optim, GENERATOR))
    return state, {**parallel.pmean({**d_metrics, **g_metrics}, axis_name), "d_norm": d_norm, "g_norm": g_norm}


def critic(
    setup: Setup, state: TrainState, params: Any, domain: int, keys: jax.Array, number: int
) -> Callable[[jax.Array], adversarial.Panel]:
    """video -> critiques by the discriminator of a domain, of videos that are augmented by keys of this number."""
    progress = state.step / setup.config.train.steps

    def judge(video: jax.Array) -> adversarial.Panel:
        video = adversarial.augmented(setup.game, video, fold_keys(keys, number), progress)
        return setup.discriminator.bind({"params": params[DOMAINS[domain]]})(video, None, True)

    return judge


def generator_loss(
    setup: Setup, state: TrainState, params: Any, videos: list[jax.Array], keys: jax.Array
) -> tuple[jax.Array, tuple[list[jax.Array], Metrics]]:
    """The loss of both generators; the translations into each domain, and the metrics.

    The sum over kinds of losses of their weight, bounded by `loss.bound` if that is above 0, times their mean over both
    directions.
    """
    loss, progress = setup.config.loss, state.step / setup.config.train.steps

    def go(video: jax.Array, origin: int, target: int) -> jax.Array:
        return generate(setup, params, video, origin, target)

    fakes = [go(videos[1 - domain], 1 - domain, domain) for domain in (0, 1)]
    terms: list[Metrics] = []
    for domain in (0, 1):
        other = 1 - domain
        real, cycled = videos[domain], go(fakes[other], other, domain)
        judge = critic(setup, state, state.params[DISCRIMINATOR], domain, keys, 2 + domain)
        verdict, metrics = adversarial.generator_loss(setup.game, judge(fakes[domain]))
        found = {"adversarial": verdict / len(setup.discriminator.members), "cycle": mean_absolute_error(cycled, real)}
        if loss.cycle_features:
            share = loss.cycle_features * progress
            features = translation_lib.feature_error(judge(real), judge(cycled))
            found["cycle"] = (1 - share) * found["cycle"] + share * features
        if loss.identity:
            found["identity"] = mean_absolute_error(go(real, domain, domain), real)
        forward = functools.partial(go, origin=domain, target=other)
        own = fold_keys(keys, 8 + domain)
        found |= translation_lib.temporal_losses(loss, forward, real, fakes[other], cycled, own)
        terms.append({"g_loss": metrics["g_loss"], **found})
    means = {name: (terms[0][name] + terms[1][name]).mean() / 2 for name in terms[0]}
    total = sum(weight(loss, name) * value for name, value in means.items() if name != "g_loss")
    return jnp.asarray(total), (fakes, {name: value for name, value in means.items() if name != "adversarial"})


def weight(loss: ConfigDict, name: str) -> float:
    """Of a kind of loss; that of the adversarial one is 1."""
    own = 1.0 if name == "adversarial" else loss[name]
    return min(own, loss.bound) if loss.bound else own


def discriminator_loss(
    setup: Setup, state: TrainState, params: Any, videos: list[jax.Array], fakes: list[jax.Array], keys: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The mean loss of both discriminators, and the metrics.

    With `loss.reject_source` half of what each learns to reject are real videos of the other domain.
    """
    total, terms = jnp.zeros(()), []
    for domain in (0, 1):
        judge = critic(setup, state, params, domain, keys, 4 + domain)
        fake = fakes[domain]
        if setup.config.loss.reject_source:
            coin = jax.vmap(jax.random.bernoulli)(fold_keys(keys, 6 + domain)).reshape(-1, 1, 1, 1, 1)
            fake = jnp.where(coin, videos[1 - domain], fake)
        value, metrics = translation_lib.discriminator_loss(setup.game, judge, videos[domain], fake, keys)
        total += value / 2
        terms.append(metrics)
    return total, {name: (terms[0][name] + terms[1][name]) / 2 for name in terms[0]}


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`: the translation of the input."""
    return generate(setup, core.sampled_params(state, GENERATOR), normalize(batch["input"]), 0, 1)


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: translations A -> B and back, beside the truth where there is one."""
    source, other = normalize(batch["input"]), normalize(batch["video"])
    paired = other if setup.config.data.layout in PAIRED else None
    truth = normalize(batch["truth"]) if "truth" in batch else paired
    params = core.sampled_params(state, GENERATOR)
    first = start(setup, translation_lib.start_key(state), source[:1])
    (made, cycled), (untrained, untrained_cycled) = (there_and_back(setup, each, source) for each in (params, first))
    scalars = {
        **translation_lib.measures({"": made, "_of_input": source, "_of_untrained": untrained}, source, truth),
        **translation_lib.health(made, source),
        "cycle_psnr": psnr(cycled, source),
        "cycle_psnr_of_untrained": psnr(untrained_cycled, source),
        "identity_error": mean_absolute_error(generate(setup, params, other, 1, 1), other),
    }
    panels = {"input": source, "translation": made, "way back": cycled}
    if truth is None:
        return Evaluated(scalars, panels=panels | {"other domain": other})
    scalars[f"psnr_to_{setup.domains[0]}"] = psnr(generate(setup, params, truth, 1, 0), source)
    return Evaluated(scalars, panels=panels | {"truth": truth})
