"""The GAN method: one step for every choice of networks, game, regularizers and conditions.

In each step the discriminator learns `loss.n_critic` times, each time on its own share of the batch, and then the
generator once, from the last of the videos that the discriminator has just judged.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import adversarial, core, losses, optim, parallel
from jaxvid import conditions as conditions_lib
from jaxvid.adversarial import Game
from jaxvid.core import Batch, Evaluated, Method, Metrics, Profile, TrainState, normalize
from jaxvid.models.gan_blocks import Conditioned, Critique
from jaxvid.models.gan_fc import Continuation
from jaxvid.models.gan_networks import make_discriminator, make_generator
from jaxvid.names import choice
from jaxvid.parallel import fold_keys

GENERATOR, DISCRIMINATOR = PLAYERS = ("generator", "discriminator")
SATURATED = 0.98  # share of pairs that a discriminator tells apart, from which the generator learns little,
SURE = 0.9  # if it is that sure, too: the distance between its scores of real and of generated videos
COLLAPSED = 0.4  # of the data's diversity,
ALIKE = 0.2  # and within a class, where data differ less


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    generator: Conditioned | Continuation
    discriminator: Conditioned
    game: Game
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the noise that a video is generated from."""
        return self.generator.network.noise_shapes()


class Examples(NamedTuple):
    """What a player learns from at once."""

    video: jax.Array  # real, [B,T,H,W,C] in [-1, 1]
    conditions: dict[str, jax.Array]  # of the videos, from `conditions.take`
    label: Any  # [B], where the data have classes
    keys: jax.Array  # [B]


def check(config: ConfigDict, axis_name: str | None) -> None:
    """Raises ValueError for what no GAN can be trained with."""
    loss, temperature = config.loss, config.sample.temperature
    if not temperature >= 0:
        raise ValueError(f"sample.temperature is {temperature}, expected 0 or more.")
    if loss.classes and len(config.condition.classes) < 2:
        raise ValueError("loss.classes trains an auxiliary classifier, which needs data with classes: set it to 0.")
    if loss.classes and not config.condition.on:
        raise ValueError(
            "loss.classes makes the generator show a class that it is not conditioned on: set it to 0, or condition.on "
            "to ('label',)."
        )
    adversarial.check_shares(config, jax.device_count() if axis_name else 1)
    conditions_lib.check(config.condition, config.data.frames)
    judged = ("first_frames", "label") if loss.classes else ("first_frames",)
    ignored = [name for name in config.condition.on if name not in judged]
    if config.model.conditioning == "none" and ignored:
        static = " and model.generator.static_conditioned to True"
        both = static if "static_conditioned" in config.model.generator else ""
        raise ValueError(
            f'model.conditioning is "none", so that the discriminator ignores the {ignored[0]}, and the generator '
            f'need not obey it: set it to "projection"{both}.'
        )


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a GAN; `configs/gan3d.py` documents the fields. Raises ValueError for what cannot work."""
    game = adversarial.make_game(config.loss)
    check(config, axis_name)
    model, condition, size = config.model, config.condition, (config.data.frames, *[config.data.resolution] * 2)
    dtype = jnp.dtype(choice("model.dtype", model.dtype, ("float32", "bfloat16")))
    encoder = conditions_lib.make_encoder(condition, dtype) if condition.on else None
    steps = {GENERATOR: config.train.steps, DISCRIMINATOR: config.train.steps * config.loss.n_critic}
    setup = Setup(
        config=config,
        generator=make_generator(
            size,
            model.generator,
            encoder=encoder,
            first_frames=condition.first_frames if "first_frames" in condition.on else 0,
            axis_name=axis_name,
            dtype=dtype,
        ),
        discriminator=make_discriminator(
            size,
            model.discriminators,
            encoder=encoder,
            conditioning=model.conditioning,
            classes=len(condition.classes) if config.loss.classes else 0,
            axis_name=axis_name,
            dtype=dtype,
        ),
        game=game,
        optimizers=optim.make_optimizers(config.optim, steps),
        axis_name=axis_name,
    )
    bound = core.bind(setup, init=init, train_step=train_step, eval_step=eval_step, sample=sample)
    return Method(**bound, warnings=warnings, headline=("d_loss", "g_loss"), training_only=("lecam",))


def init(setup: Setup, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    generator_key, discriminator_key, key = jax.random.split(key, 3)
    conditions = jax.tree.map(lambda x: x[:1], conditions_lib.take(setup.config.condition, batch))
    noise = parallel.example_noise(generator_key[None], setup.noise_shapes)
    video = normalize(batch["video"][:1])
    collections = {
        GENERATOR: dict(setup.generator.init(generator_key, noise, conditions, train=False)),
        DISCRIMINATOR: dict(setup.discriminator.init(discriminator_key, video, conditions, train=False)),
    }
    params = {player: collections[player].pop("params") for player in PLAYERS}
    extra = {"lecam": adversarial.initial_averages()} if setup.game.lecam else {}
    return core.new_state(key, params, setup.optimizers, collections, averaged=(GENERATOR,), extra=extra)


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    video, config, axis_name = normalize(batch["video"]), setup.config, setup.axis_name
    keys = parallel.example_keys(core.step_key(state), len(video), axis_name)
    everything = Examples(video, conditions_lib.take(config.condition, batch), batch.get("label"), keys)
    for turn in range(config.loss.n_critic):
        # Every n-th row, since contiguous shares would move rows between devices.
        share = jax.tree.map(lambda rows, i=turn: rows[i :: config.loss.n_critic], everything)
        make_videos = functools.partial(
            generate, setup, state.collections[GENERATOR], keys=share.keys, conditions=share.conditions, train=True
        )
        fake, backward, collections = jax.vjp(make_videos, state.params[GENERATOR], has_aux=True)
        state = state.replace(collections={**state.collections, GENERATOR: collections})
        state, d_metrics = learn_discriminator(setup, state, fake, share)
    to_fake, g_metrics = jax.grad(generator_loss, argnums=2, has_aux=True)(setup, state, fake, share)
    (grads,) = backward(to_fake)
    state, g_norm = core.apply_gradients(state, GENERATOR, grads, setup.optimizers[GENERATOR], axis_name)
    state = core.update_ema(state.replace(step=state.step + 1), GENERATOR, optim.ema_decay(config.optim, GENERATOR))
    norms = {"d_norm": d_metrics.pop("d_norm"), "g_norm": g_norm}
    return state, {**parallel.pmean({**d_metrics, **g_metrics}, axis_name), **norms}


def generate(
    setup: Setup, collections: Any, params: Any, keys: jax.Array, conditions: Batch, train: bool, temperature: float = 1
) -> tuple[jax.Array, dict[str, Any]]:
    """Videos [B,T,H,W,C], which begin with the first_frames of the conditions, and the generator's collections."""
    noise = parallel.example_noise(keys, setup.noise_shapes)
    if temperature != 1:
        noise = {name: temperature * each for name, each in noise.items()}
    changing = list(collections) if train else []
    variables = {"params": params, **collections}
    video, changed = setup.generator.apply(variables, noise, conditions, train=train, mutable=changing)
    if "first_frames" in conditions:
        first = conditions["first_frames"]
        video = jnp.concatenate([first, video[:, first.shape[1] :]], 1)
    return video, {**collections, **changed}


def judge(
    setup: Setup, collections: Any, params: Any, video: jax.Array, conditions: Batch, train: bool = True
) -> tuple[tuple[Critique, ...], dict[str, Any]]:
    """The panel's critiques, and the discriminator's collections."""
    changing = list(collections) if train else []
    variables = {"params": params, **collections}
    critiques, changed = setup.discriminator.apply(variables, video, conditions, train=train, mutable=changing)
    return critiques, {**collections, **changed}


def augmented(setup: Setup, state: TrainState, video: jax.Array, keys: jax.Array) -> jax.Array:
    """Videos as they are judged at this step."""
    return adversarial.augmented(setup.game, video, keys, state.step / setup.config.train.steps)


def learn_discriminator(
    setup: Setup, state: TrainState, fake: jax.Array, examples: Examples
) -> tuple[TrainState, Metrics]:
    """One step of the discriminator on real videos and as many generated ones."""
    real = augmented(setup, state, examples.video, fold_keys(examples.keys, 1))
    fake = augmented(setup, state, fake, fold_keys(examples.keys, 2))
    objective = jax.grad(discriminator_loss, argnums=2, has_aux=True)
    grads, (collections, extra, metrics) = objective(setup, state, state.params[DISCRIMINATOR], real, fake, examples)
    state = state.replace(collections={**state.collections, DISCRIMINATOR: collections}, extra=extra)
    optimizer = setup.optimizers[DISCRIMINATOR]
    state, metrics["d_norm"] = core.apply_gradients(state, DISCRIMINATOR, grads, optimizer, setup.axis_name)
    return state, metrics


def discriminator_loss(
    setup: Setup, state: TrainState, params: Any, real: jax.Array, fake: jax.Array, examples: Examples
) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, Any], Metrics]]:
    """The mean loss of videos as they are judged; the new collections, the new `extra`, and the metrics."""
    game, conditions, old = setup.game, examples.conditions, state.collections[DISCRIMINATOR]
    of_real, collections = judge(setup, old, params, real, conditions)
    of_fake, collections = judge(setup, collections, params, fake, conditions)
    total, metrics = adversarial.discriminator_loss(game, of_real, of_fake, examples.label, state.extra.get("lecam"))
    extra = state.extra
    if game.lecam:
        extra = {"lecam": adversarial.update_averages(extra["lecam"], of_real, of_fake, setup.axis_name)}
    subset = slice(None, None, game.penalized)  # as the shares of `train_step`, see `adversarial.check_shares`
    penalized = jax.tree.map(lambda rows: rows[subset], conditions)

    def critic(video: jax.Array) -> jax.Array:
        return adversarial.summed_logits(judge(setup, old, params, video, penalized)[0])

    penalty, penalties = adversarial.penalties(
        game, critic, real[subset], fake[subset], fold_keys(examples.keys[subset], 3)
    )
    return total.mean() + penalty, (collections, extra, averages({**metrics, **penalties}))


def generator_loss(setup: Setup, state: TrainState, fake: jax.Array, examples: Examples) -> tuple[jax.Array, Metrics]:
    """The mean loss of generated videos, and the metrics."""
    loss, game = setup.config.loss, setup.game

    def critiques(video: jax.Array, number: int) -> tuple[Critique, ...]:
        video = augmented(setup, state, video, fold_keys(examples.keys, number))
        params, collections = state.params[DISCRIMINATOR], state.collections[DISCRIMINATOR]
        return judge(setup, collections, params, video, examples.conditions)[0]

    of_real = critiques(examples.video, 5) if game.feature_matching else None
    total, metrics = adversarial.generator_loss(game, critiques(fake, 4), of_real, examples.label, setup.axis_name)
    if loss.reconstruction:
        metrics["reconstruction"] = losses.mean_absolute_error(fake, examples.video)
        total += loss.reconstruction * metrics["reconstruction"]
    return total.mean(), averages(metrics)


def sample(setup: Setup, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`."""
    params, collections = core.sampled_params(state, GENERATOR), state.collections[GENERATOR]
    conditions = conditions_lib.take(setup.config.condition, batch)
    return generate(setup, collections, params, keys, conditions, False, setup.config.sample.temperature)[0]


def eval_step(setup: Setup, state: TrainState, batch: Batch, key: jax.Array) -> Evaluated:
    """`Method.eval_step`: how well the discriminator tells held-out videos from samples, and how samples differ."""
    loss, condition, real = setup.config.loss, setup.config.condition, normalize(batch["video"])
    conditions = conditions_lib.take(condition, batch)
    keys = parallel.example_keys(key, len(real))
    fake = sample(setup, state, batch, keys)
    params, collections = state.params[DISCRIMINATOR], state.collections[DISCRIMINATOR]
    of_real, of_fake = (judge(setup, collections, params, video, conditions, False)[0] for video in (real, fake))
    scalars = {
        **adversarial.scores(setup.game, of_real, of_fake),
        "diversity": losses.mean_absolute_error(fake, jnp.roll(fake, 1, 0)),
        "data_diversity": losses.mean_absolute_error(real, jnp.roll(real, 1, 0)),
    }
    profiles = {}
    if loss.reconstruction:
        scalars["l1"] = losses.mean_absolute_error(fake, real)
    if loss.classes:
        scalars["class_accuracy"] = adversarial.classified(of_fake, batch["label"])[1]
        asked = jax.nn.one_hot(batch["label"], len(condition.classes), dtype=bool)
        values = jnp.where(asked, scalars["class_accuracy"][:, None], jnp.nan)
        profiles["accuracy_by_class"] = Profile(values, condition.classes)
    if condition.on in (("label",), ("attributes",)):
        others = sample(setup, state, batch, fold_keys(keys, 1))
        scalars["class_diversity"] = losses.mean_absolute_error(fake, others)
    return Evaluated(scalars=scalars, profiles=profiles, panels={"original": real, "sample": fake})


def averages(metrics: Metrics) -> Metrics:
    """Scalars of values per example."""
    return {name: value.mean() for name, value in metrics.items()}


def warnings(metrics: Mapping[str, float]) -> list[str]:
    """What an evaluation's averages show about the health of the game."""
    found = []
    if metrics["d_accuracy"] >= SATURATED and metrics["d_real"] - metrics["d_fake"] >= SURE:
        found.append(
            f"the discriminator tells {metrics['d_accuracy']:.0%} of the pairs apart: the generator learns little from "
            "it; lower optim.players.discriminator.learning_rate, or add loss.r1, loss.instance_noise or loss.augment."
        )
    share = metrics["diversity"] / max(metrics["data_diversity"], 1e-9)
    if share < COLLAPSED:
        found.append(
            f"samples differ from each other {share:.0%} as much as the data do: the generator collapses; lower "
            "optim.learning_rate or loss.reconstruction, or add loss.r1 or loss.lecam."
        )
    share = metrics.get("class_diversity", jnp.inf) / max(metrics["data_diversity"], 1e-9)
    if share < ALIKE:
        found.append(
            f"samples of one class, or of the same attributes, differ from each other {share:.0%} as much as the data "
            "do: the generator shows one clip of each; lower optim.learning_rate or loss.reconstruction, or set "
            "model.generator.static_conditioned to False, if there is one."
        )
    return found
