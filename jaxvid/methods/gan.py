"""The GAN method: one step for every choice of networks, game, regularizers and conditions.

In each step the discriminator learns `loss.n_critic` times, each time on its own share of the batch, and then the
generator once, from the last of the videos that the discriminator has just been shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
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
from jaxvid.models.gan_blocks import Conditioned, Critique
from jaxvid.models.gan_fc import Continuation
from jaxvid.models.gan_networks import make_discriminator, make_generator
from jaxvid.names import choice
from jaxvid.nn.augment import POLICIES, augment

GENERATOR, DISCRIMINATOR = PLAYERS = ("generator", "discriminator")
PROBABILITIES = ("minimax", "non_saturating")
SMOOTHED = ("minimax", "non_saturating", "least_squares")
LECAM_DECAY = 0.99
SATURATED = 0.98  # share of pairs that a discriminator tells apart, from which the generator learns little,
SURE = 0.9  # if it is that sure, too: the distance between its scores of real and of generated videos
COLLAPSED = 0.4  # of the data's diversity,
ALIKE = 0.2  # and within a class, where data differ less


class Examples(NamedTuple):
    """What a player learns from at once.

    video: real, [B,T,H,W,C] in [-1, 1].
    given: their conditions, from `methods.condition.take`.
    label: [B], where the data have classes.
    keys: one for each.
    """

    video: jax.Array
    given: dict[str, jax.Array]
    label: Any
    keys: jax.Array


def check(config: ConfigDict) -> None:
    """Raises ValueError for what no GAN can be trained with."""
    loss = config.loss
    choice("loss.adversarial", loss.adversarial, losses.ADVERSARIAL)
    for name in loss.augment:
        choice("an item of loss.augment", name, POLICIES)
    for name, value in loss.items():
        if isinstance(value, float) and value < 0:
            raise ValueError(f"loss.{name} is {value}, expected 0 or more.")
    if loss.smoothing and loss.adversarial not in SMOOTHED:
        raise ValueError(f"loss.smoothing is for {', '.join(SMOOTHED)}, not for {loss.adversarial}: set it to 0.")
    if loss.smoothing >= 0.5:
        raise ValueError(f"loss.smoothing is {loss.smoothing}, expected less than 0.5.")
    if loss.n_critic < 1 or config.train.batch_size % loss.n_critic:
        raise ValueError(
            f"train.batch_size {config.train.batch_size} is shared by the loss.n_critic {loss.n_critic} steps of the "
            "discriminator: expected a multiple."
        )
    if loss.classes and len(config.condition.classes) < 2:
        raise ValueError("loss.classes trains an auxiliary classifier, which needs data with classes: set it to 0.")
    if loss.classes and not config.condition.on:
        raise ValueError(
            "loss.classes makes the generator show a class that it is not told: set it to 0, or condition.on to "
            "('label',)."
        )
    if not 1 <= loss.penalized <= config.train.batch_size // loss.n_critic:
        raise ValueError(
            f"loss.penalized is {loss.penalized}, expected at least 1 (every video) and at most as many as the "
            f"discriminator sees in a step, {config.train.batch_size // loss.n_critic}."
        )
    condition.check(config.condition, config.data.frames)
    seen = ("first_frames", "label") if loss.classes else ("first_frames",)
    unseen = [name for name in config.condition.on if name not in seen]
    if config.model.conditioning == "none" and unseen:
        told = " and model.generator.told to True" if "told" in config.model.generator else ""
        raise ValueError(
            f'model.conditioning is "none", so that the discriminator does not know the {unseen[0]}, and the generator '
            f'need not obey it: set it to "projection"{told}.'
        )


class Players(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    generator: Conditioned | Continuation
    discriminator: Conditioned
    game: losses.Adversarial
    tx: dict[str, optax.GradientTransformation]
    axis_name: str | None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the noise that a video is made of."""
        return self.generator.network.noise_shapes()


def make(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The functions of a GAN.

    Args:
      config: with `data`, `model`, `loss`, `condition`, `optim` and `train`; see `configs/gan3d.py`.
      axis_name: the mapped axis under pmap; None under jit.

    Raises:
      ValueError: sizes do not fit, or a field has no such value.
    """
    check(config)
    dtype = jnp.dtype(choice("model.dtype", config.model.dtype, ("float32", "bfloat16")))
    steps = {GENERATOR: config.train.steps, DISCRIMINATOR: config.train.steps * config.loss.n_critic}
    conditions, size = config.condition, (config.data.frames, config.data.resolution, config.data.resolution)
    encoder = condition.make_encoder(conditions, dtype) if conditions.on else None
    given = conditions.first_frames if "first_frames" in conditions.on else 0
    classes = len(conditions.classes) if config.loss.classes else 0
    model = config.model
    players = Players(
        config,
        make_generator(model.generator, size, encoder, given, axis_name, dtype),
        make_discriminator(model.discriminators, size, encoder, model.conditioning, classes, axis_name, dtype),
        losses.ADVERSARIAL[config.loss.adversarial],
        optim.make_optimizers(config.optim, steps),
        axis_name,
    )
    bound = functools.partial
    return Method(
        bound(init, players), bound(train_step, players), bound(eval_step, players), bound(sample, players), warnings
    )


def init(players: Players, key: jax.Array, batch: Batch) -> TrainState:
    """`Method.init`."""
    generator_key, discriminator_key, key = jax.random.split(key, 3)
    given = jax.tree.map(lambda x: x[:1], condition.take(players.config.condition, batch))
    noise = parallel.example_noise(generator_key[None], players.shapes)
    video = normalize(batch["video"][:1])
    collections = {
        GENERATOR: dict(players.generator.init(generator_key, noise, given, train=False)),
        DISCRIMINATOR: dict(players.discriminator.init(discriminator_key, video, given, train=False)),
    }
    params = {player: collections[player].pop("params") for player in PLAYERS}
    if players.config.loss.lecam:
        collections[DISCRIMINATOR]["lecam"] = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        opt_state={player: players.tx[player].init(params[player]) for player in PLAYERS},
        collections=collections,
        ema={GENERATOR: params[GENERATOR]},
        extra={},
    )


def train_step(players: Players, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`Method.train_step`."""
    video, config = normalize(batch["video"]), players.config
    keys = parallel.example_keys(step_key(state), len(video), players.axis_name)
    everything = Examples(video, condition.take(config.condition, batch), batch.get("label"), keys)
    for turn in range(config.loss.n_critic):
        # Every n-th row, since contiguous shares would move rows between devices.
        examples = jax.tree.map(lambda rows, i=turn: rows[i :: config.loss.n_critic], everything)
        make_videos = functools.partial(
            generate, players, state.collections[GENERATOR], keys=examples.keys, given=examples.given, train=True
        )
        fake, backward, collections = jax.vjp(make_videos, state.params[GENERATOR], has_aux=True)
        state = state.replace(collections={**state.collections, GENERATOR: collections})
        state, d_metrics = learn_discriminator(players, state, fake, examples)
    towards, g_metrics = jax.grad(generator_loss, argnums=2, has_aux=True)(players, state, fake, examples)
    (grads,) = backward(towards)
    state, g_norm = apply_gradients(state, GENERATOR, grads, players.tx[GENERATOR], players.axis_name)
    decay = optim.ema_decay(config.optim, GENERATOR)
    state = update_ema(state.replace(step=state.step + 1), GENERATOR, decay)
    norms = {"d_norm": d_metrics.pop("d_norm"), "g_norm": g_norm}
    return state, {**parallel.pmean({**d_metrics, **g_metrics}, players.axis_name), **norms}


def generate(
    players: Players, collections: Any, params: Any, keys: jax.Array, given: Batch, train: bool
) -> tuple[jax.Array, dict[str, Any]]:
    """Videos [B,T,H,W,C], which begin with the frames that are given, and the generator's collections."""
    noise = parallel.example_noise(keys, players.shapes)
    changing = list(collections) if train else []
    variables = {"params": params, **collections}
    video, changed = players.generator.apply(variables, noise, given, train=train, mutable=changing)
    if "first_frames" in given:
        known = given["first_frames"]
        video = jnp.concatenate([known, video[:, known.shape[1] :]], 1)
    return video, {**collections, **changed}


def judge(
    players: Players, collections: Any, params: Any, video: jax.Array, given: Batch, train: bool = True
) -> tuple[tuple[Critique, ...], dict[str, Any]]:
    """The panel's critiques, and the discriminator's collections."""
    changing = [name for name in collections if train and name != "lecam"]
    variables = {"params": params, **collections}
    critiques, changed = players.discriminator.apply(variables, video, given, train=train, mutable=changing)
    return critiques, {**collections, **changed}


def shown(players: Players, video: jax.Array, keys: jax.Array, step: jax.Array) -> jax.Array:
    """What the discriminator sees of videos: augmented, and under noise that fades over the run."""
    loss, steps = players.config.loss, players.config.train.steps
    if loss.instance_noise:
        noise = parallel.example_noise(keys, {"video": video.shape[1:]})["video"]
        video = video + loss.instance_noise * (1 - step / steps) * noise
    return augment(video, keys, loss.augment)


def learn_discriminator(
    players: Players, state: TrainState, fake: jax.Array, examples: Examples
) -> tuple[TrainState, Metrics]:
    """One step of the discriminator on real videos and as many generated ones."""
    real = shown(players, examples.video, fold(examples.keys, 1), state.step)
    fake = shown(players, fake, fold(examples.keys, 2), state.step)
    objective = jax.grad(discriminator_loss, argnums=2, has_aux=True)
    grads, (collections, metrics) = objective(
        players, state.collections[DISCRIMINATOR], state.params[DISCRIMINATOR], real, fake, examples
    )
    state = state.replace(collections={**state.collections, DISCRIMINATOR: collections})
    tx = players.tx[DISCRIMINATOR]
    state, metrics["d_norm"] = apply_gradients(state, DISCRIMINATOR, grads, tx, players.axis_name)
    return state, metrics


def discriminator_loss(
    players: Players, old: dict[str, Any], params: Any, real: jax.Array, fake: jax.Array, examples: Examples
) -> tuple[jax.Array, tuple[dict[str, Any], Metrics]]:
    """The mean loss of videos as they are shown; the collections and what is to be logged."""
    loss, given = players.config.loss, examples.given
    of_real, collections = judge(players, old, params, real, given)
    of_fake, collections = judge(players, collections, params, fake, given)
    few = slice(None, None, loss.penalized)  # strided as the shares of `train_step` are

    def logits(video: jax.Array) -> jax.Array:
        told = jax.tree.map(lambda rows: rows[few], given)
        return over(lambda c: c.logits * c.logits.shape[1], judge(players, old, params, video, told)[0])

    target = 1.0 - loss.smoothing
    total = over(lambda r, f: players.game.real(r.logits, target) + players.game.fake(f.logits), of_real, of_fake)
    metrics = {"d_loss": total, **scores(loss.adversarial, of_real, of_fake)}
    if loss.gradient_penalty:
        share = jax.vmap(jax.random.uniform)(fold(examples.keys, 3)).reshape(-1, 1, 1, 1, 1)
        slopes = losses.gradient_norms(logits, (share * real + (1 - share) * fake)[few])
        metrics["gradient_penalty"] = jnp.square(slopes - 1).mean()
        total += loss.gradient_penalty * metrics["gradient_penalty"]
    if loss.r1:
        metrics["r1"] = jnp.square(losses.gradient_norms(logits, real[few])).mean() / 2
        total += loss.r1 * metrics["r1"]
    if loss.lecam:
        held = old["lecam"]["real"], old["lecam"]["fake"]
        metrics["lecam"] = over(lambda r, f: losses.lecam(r.logits, f.logits, *held), of_real, of_fake)
        total += loss.lecam * metrics["lecam"]
        seen = [over(lambda c: c.logits, panel).mean() / len(panel) for panel in (of_real, of_fake)]
        means = dict(zip(("real", "fake"), parallel.pmean(seen, players.axis_name), strict=True))
        collections["lecam"] = optax.incremental_update(means, old["lecam"], 1 - LECAM_DECAY)
    if loss.classes:
        error, metrics["d_class_accuracy"] = classified(of_real, examples.label)
        total += loss.classes * error
    return total.mean(), (collections, averages(metrics))


def generator_loss(
    players: Players, state: TrainState, fake: jax.Array, examples: Examples
) -> tuple[jax.Array, Metrics]:
    """The mean loss of generated videos, and what is to be logged."""
    loss = players.config.loss

    def say(video: jax.Array, number: int) -> tuple[Critique, ...]:
        seen = shown(players, video, fold(examples.keys, number), state.step)
        params, collections = state.params[DISCRIMINATOR], state.collections[DISCRIMINATOR]
        return judge(players, collections, params, seen, examples.given)[0]

    of_fake = say(fake, 4)
    total = over(lambda f: players.game.generator(f.logits), of_fake)
    metrics = {"g_loss": total}
    if loss.feature_matching:
        metrics["feature_matching"] = feature_distance(say(examples.video, 5), of_fake, players.axis_name)
        total += loss.feature_matching * metrics["feature_matching"]
    if loss.reconstruction:
        metrics["reconstruction"] = losses.mean_absolute_error(fake, examples.video)
        total += loss.reconstruction * metrics["reconstruction"]
    if loss.classes:
        error, metrics["g_class_accuracy"] = classified(of_fake, examples.label)
        total += loss.classes * error
    return total.mean(), averages(metrics)


def sample(players: Players, state: TrainState, batch: Batch, keys: jax.Array) -> jax.Array:
    """`Method.sample`."""
    params, collections = sampled_params(state, GENERATOR), state.collections[GENERATOR]
    given = condition.take(players.config.condition, batch)
    return generate(players, collections, params, keys, given, train=False)[0]


def eval_step(players: Players, state: TrainState, batch: Batch, key: jax.Array) -> Metrics:
    """`Method.eval_step`: how well the discriminator tells held-out videos from samples, and how samples differ."""
    loss, real = players.config.loss, normalize(batch["video"])
    given = condition.take(players.config.condition, batch)
    keys = parallel.example_keys(key, len(real))
    fake = sample(players, state, batch, keys)
    params, collections = state.params[DISCRIMINATOR], state.collections[DISCRIMINATOR]
    of_real, of_fake = (judge(players, collections, params, video, given, False)[0] for video in (real, fake))
    values = {
        **scores(loss.adversarial, of_real, of_fake),
        "diversity": losses.mean_absolute_error(fake, jnp.roll(fake, 1, 0)),
        "data_diversity": losses.mean_absolute_error(real, jnp.roll(real, 1, 0)),
        "sample": fake,
    }
    if loss.reconstruction:
        values["l1"] = losses.mean_absolute_error(fake, real)
    if loss.classes:
        right = (votes(of_fake).argmax(-1) == batch["label"]).astype(jnp.float32)
        asked = jax.nn.one_hot(batch["label"], len(players.config.condition.classes), dtype=bool)
        values["class_accuracy"], values["accuracy_by_class"] = right, jnp.where(asked, right[:, None], jnp.nan)
    if players.config.condition.on == ("label",):
        others = sample(players, state, batch, fold(keys, 1))
        values["class_diversity"] = losses.mean_absolute_error(fake, others)
    return values


def scores(adversarial: str, of_real: Sequence[Critique], of_fake: Sequence[Critique]) -> Metrics:
    """[B]: D(real) and D(fake), as probabilities where the game has them, and how often D tells one pair apart."""
    score = jax.nn.sigmoid if adversarial in PROBABILITIES else lambda logits: logits
    return {
        "d_real": over(lambda c: score(c.logits), of_real) / len(of_real),
        "d_fake": over(lambda c: score(c.logits), of_fake) / len(of_fake),
        "d_accuracy": over(lambda r, f: 1.0 * (r.logits > f.logits), of_real, of_fake) / len(of_real),
    }


def fold(keys: jax.Array, number: int) -> jax.Array:
    """Other keys [B], for another use of the same examples."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def over(value: Callable[..., jax.Array], *panels: Sequence[Critique]) -> jax.Array:
    """The sum over a panel's members of `value` of their critiques [B,N], averaged over the parts: [B]."""
    return jnp.stack([value(*critiques).mean(1) for critiques in zip(*panels, strict=True)]).sum(0)


def averages(metrics: Metrics) -> Metrics:
    """Scalars of values per example."""
    return {name: value.mean() for name, value in metrics.items()}


def votes(panel: Sequence[Critique]) -> jax.Array:
    """Logits of the classes [B,K], averaged over the parts and summed over the panel."""
    return jnp.stack([critique.classes.mean(1) for critique in panel if critique.classes is not None]).sum(0)


def classified(panel: Sequence[Critique], labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B]: the cross-entropy of labels [B] (summed over the panel), and whether the panel's vote is right."""
    error = over(lambda c: optax.softmax_cross_entropy_with_integer_labels(c.classes, labels[:, None]), panel)
    return error, (votes(panel).argmax(-1) == labels).astype(jnp.float32)


def feature_distance(of_real: Sequence[Critique], of_fake: Sequence[Critique], axis_name: str | None) -> jax.Array:
    """Squared distance between the mean features of real and of generated videos, averaged over each layer.

    Salimans et al., 2016, section 3.1; over all layers, as in Larsen et al., 2016.
    """
    distances = []
    for real, fake in zip(of_real, of_fake, strict=True):
        for a, b in zip(real.features, fake.features, strict=True):
            means = parallel.pmean((a.astype(jnp.float32).mean(0), b.astype(jnp.float32).mean(0)), axis_name)
            distances.append(jnp.square(means[0] - means[1]).mean())
    return jnp.stack(distances).sum()


def warnings(metrics: Mapping[str, float]) -> list[str]:
    """What an evaluation's averages say about the health of the game."""
    said = []
    if metrics["d_accuracy"] >= SATURATED and metrics["d_real"] - metrics["d_fake"] >= SURE:
        said.append(
            f"the discriminator tells {metrics['d_accuracy']:.0%} of the pairs apart: the generator learns little from "
            "it; lower optim.players.discriminator.learning_rate, or add loss.r1, loss.instance_noise or loss.augment."
        )
    share = metrics["diversity"] / max(metrics["data_diversity"], 1e-9)
    if share < COLLAPSED:
        said.append(
            f"samples differ from each other {share:.0%} as much as the data do: the generator collapses; lower "
            "optim.learning_rate, or add loss.r1 or loss.lecam."
        )
    share = metrics.get("class_diversity", jnp.inf) / max(metrics["data_diversity"], 1e-9)
    if share < ALIKE:
        said.append(
            f"samples of one class differ from each other {share:.0%} as much as the data do: the generator shows one "
            "clip of each; lower optim.learning_rate, or set model.generator.told to False, if it has layers."
        )
    return said
