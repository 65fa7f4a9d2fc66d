"""StarGAN for videos: one generator between all domains of a data set (Choi et al., 2018).

A domain is a label. In each step the discriminator learns to tell translations from real videos, and the domains of
real ones, `loss.n_critic` times, each time on its own share of the batch; then the generator learns from its verdict,
from the domain that was asked for, and from the way back.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid import adversarial, conditions, core, optim, parallel
from jaxvid import translation as translation_lib
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState, Translation, normalize
from jaxvid.data import Source
from jaxvid.losses import mean_absolute_error
from jaxvid.metrics.image import psnr
from jaxvid.parallel import fold_keys
from jaxvid.translation import DISCRIMINATOR, GENERATOR, Setup


class Examples(NamedTuple):
    """What a player learns from at once."""

    video: jax.Array  # [B,T,H,W,3] in [-1, 1]
    label: jax.Array  # [B]: their domains,
    target: jax.Array  # and others
    keys: jax.Array  # [B]


def complete(config: ConfigDict, source: Source) -> ConfigDict:
    """See `core.find_method`. Raises ValueError where the training data have fewer than two domains."""
    if len(source.classes) < 2:
        raise ValueError(
            f"stargan translates between domains, at least two, and {source.summary()} has {len(source.classes)}: put "
            "each into a sub-folder, or set data.attributes."
        )
    return conditions.complete(config, source)


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of StarGAN; `configs/stargan.py` documents the fields. Raises ValueError for what cannot work."""
    domains = tuple(config.condition.classes)
    if len(domains) < 2:
        raise ValueError("condition.classes has fewer than two domains: stargan takes them from its training data.")
    adversarial.check_shares(config, jax.device_count() if axis_name else 1)
    setup = translation_lib.make_setup(config, axis_name, domains, len(domains))

    def apply(state: TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        return generate(setup, core.sampled_params(state, GENERATOR), normalize(video), target)

    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, reconstruct=reconstruct)
    origins = ("",) * len(domains)
    return Method(
        **bound,
        asked=functools.partial(target_of, setup),
        translation=Translation(apply, domains, origins, radius=setup.generator.trunk.radius),
        warnings=functools.partial(translation_lib.warnings, config.loss),
        headline=("d_loss", "g_loss", "cycle"),
    )


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    generator_key, discriminator_key, key = jax.random.split(key, 3)
    video = normalize(batch["video"][:1])
    params = {
        GENERATOR: start(setup, generator_key, video),
        DISCRIMINATOR: setup.discriminator.init(discriminator_key, video, None, False)["params"],
    }
    extra = translation_lib.remember_start(generator_key)
    return core.new_state(key, params, setup.optimizers, averaged=(GENERATOR,), extra=extra)


def start(setup: Setup, key: jax.Array, video: jax.Array) -> Any:
    """The generator's first parameters."""
    return setup.generator.init(key, video, jnp.zeros((1, len(setup.domains))))["params"]


def generate(setup: Setup, params: Any, video: jax.Array, target: jax.Array) -> jax.Array:
    """Videos [B,T,H,W,3] in the domains `target` [B]."""
    return setup.generator.bind({"params": params})(video, jax.nn.one_hot(target, len(setup.domains)))


def there_and_back(
    setup: Setup, params: Any, video: jax.Array, label: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The translation of videos of the domains `label` [B] to `target` [B], and the way back from it in 8 bits."""
    made = generate(setup, params, video, target)
    return made, generate(setup, params, translation_lib.rounded(made), label)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    config, axis_name = setup.config, setup.axis_name
    keys = parallel.example_keys(core.step_key(state), len(batch["video"]), axis_name)
    video = translation_lib.augmented(config.augment, normalize(batch["video"]), keys)
    target = other_domains(batch["label"], len(setup.domains), fold_keys(keys, 3))
    everything = Examples(video, batch["label"], target, keys)
    for turn in range(config.loss.n_critic):
        # Every n-th row, since contiguous shares would move rows between devices.
        share = jax.tree.map(lambda rows, i=turn: rows[i :: config.loss.n_critic], everything)
        translate = functools.partial(generate, setup, video=share.video, target=share.target)
        made, backward = jax.vjp(translate, state.params[GENERATOR])
        learn = jax.grad(discriminator_loss, argnums=2, has_aux=True)
        grads, d_metrics = learn(setup, state, state.params[DISCRIMINATOR], made, share)
        optimizer = setup.optimizers[DISCRIMINATOR]
        state, d_norm = core.apply_gradients(state, DISCRIMINATOR, grads, optimizer, axis_name)
    learn = jax.grad(generator_loss, argnums=(2, 3), has_aux=True)
    (direct, to_made), g_metrics = learn(setup, state, state.params[GENERATOR], made, share)
    grads = jax.tree.map(jnp.add, direct, backward(to_made)[0])
    state, g_norm = core.apply_gradients(state, GENERATOR, grads, setup.optimizers[GENERATOR], axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), GENERATOR, optim.ema_decay(config.optim, GENERATOR))
    return state, {**parallel.pmean({**d_metrics, **g_metrics}, axis_name), "d_norm": d_norm, "g_norm": g_norm}


def other_domains(label: jax.Array, count: int, keys: jax.Array) -> jax.Array:
    """For each label [B] one of the other domains, drawn by keys [B]."""
    return (label + jax.vmap(lambda key: jax.random.randint(key, (), 1, count))(keys)) % count


def judge(
    setup: Setup, state: TrainState, params: Any, video: jax.Array, keys: jax.Array, number: int
) -> adversarial.Panel:
    """Critiques of videos, augmented by keys of this number."""
    progress = state.step / setup.config.train.steps
    video = adversarial.augmented(setup.game, video, fold_keys(keys, number), progress)
    return setup.discriminator.bind({"params": params})(video, None, True)


def discriminator_loss(
    setup: Setup, state: TrainState, params: Any, made: jax.Array, examples: Examples
) -> tuple[jax.Array, Metrics]:
    """The mean loss of the discriminator, and the metrics."""

    def critiques(video: jax.Array) -> adversarial.Panel:
        return judge(setup, state, params, video, examples.keys, 4)

    return translation_lib.discriminator_loss(
        setup.game, critiques, examples.video, made, fold_keys(examples.keys, 5), examples.label
    )


def generator_loss(
    setup: Setup, state: TrainState, params: Any, made: jax.Array, examples: Examples
) -> tuple[jax.Array, Metrics]:
    """The mean loss of translations, whose way back is made with the generator's parameters, and the metrics."""
    loss, (video, label, target, keys) = setup.config.loss, examples
    of_made = judge(setup, state, state.params[DISCRIMINATOR], made, keys, 6)
    total, metrics = adversarial.generator_loss(setup.game, of_made, labels=target)
    cycled = generate(setup, params, made, label)
    terms = {"cycle": mean_absolute_error(cycled, video)}
    terms |= translation_lib.temporal_losses(
        loss, lambda video: generate(setup, params, video, target), video, made, cycled, fold_keys(keys, 7)
    )
    total += sum(loss[name] * value for name, value in terms.items())
    return total.mean(), {name: value.mean() for name, value in {**metrics, **terms}.items()}


def target_of(setup: Setup, batch: Batch) -> jax.Array:
    """The domains [B] that held-out clips are translated to: those of the batch, or else the next one of each."""
    return batch["target"] if "target" in batch else (batch["label"] + 1) % len(setup.domains)


def reconstruct(setup: Setup, state: TrainState, batch: Batch) -> jax.Array:
    """`Method.reconstruct`: the translations to `target_of`."""
    return generate(setup, core.sampled_params(state, GENERATOR), normalize(batch["video"]), target_of(setup, batch))


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: translations and the way back, beside the truth where there is one."""
    source, target, params = normalize(batch["video"]), target_of(setup, batch), core.sampled_params(state, GENERATOR)
    truth = normalize(batch["truth"]) if "truth" in batch else None
    first = start(setup, translation_lib.start_key(state), source[:1])
    (made, cycled), (untrained, untrained_cycled) = (
        there_and_back(setup, each, source, batch["label"], target) for each in (params, first)
    )
    videos = {"": made, "_of_input": source, "_of_untrained": untrained}
    critiques = setup.discriminator.bind({"params": state.params[DISCRIMINATOR]})
    found = {
        f"domain_accuracy{end}": adversarial.classified(critiques(video, None, False), target)[1]
        for end, video in videos.items()
    }
    scalars = {
        **translation_lib.measures(videos, source, truth),
        **translation_lib.health(made, source),
        "cycle_psnr": psnr(cycled, source),
        "cycle_psnr_of_untrained": psnr(untrained_cycled, source),
        "identity_error": mean_absolute_error(generate(setup, params, source, batch["label"]), source),
        **found,
    }
    asked = jax.nn.one_hot(target, len(setup.domains), dtype=bool)
    values = jnp.where(asked, found["domain_accuracy"][:, None], jnp.nan)
    profiles = {"accuracy_by_domain": Profile(values, setup.domains)}
    panels = {"input": source, "translation": made, "way back": cycled, **({} if truth is None else {"truth": truth})}
    return Evaluated(scalars, profiles=profiles, panels=panels)
