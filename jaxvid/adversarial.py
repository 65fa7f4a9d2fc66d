"""Adversarial learning: the losses of both sides, regularizers and scores, over critiques of any discriminators.

A method judges real and generated videos with its own networks, under its own conditions, and passes the critiques
here; this module depends on no network, no optimizer and no state. A critique has logits [B,N] of N parts of each video
(above 0 for real), logits of classes or None, and the features of all layers: `models.gan_blocks.Critique`. Functions
raise ValueError where panels are empty or differ from each other, and where what a game's regularizer needs is lacking.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvid import losses, parallel
from jaxvid.core import Metrics
from jaxvid.models.gan_blocks import Critique
from jaxvid.names import choice
from jaxvid.nn.augment import POLICIES, augment
from jaxvid.shapes import expect, expect_equal

PROBABILITIES = ("minimax", "non_saturating")  # games whose logits are those of a probability
SMOOTHED = ("minimax", "non_saturating", "least_squares")
LECAM_DECAY = 0.99
Panel = Sequence[Critique]  # of several discriminators on the same videos


class Game(NamedTuple):
    """The losses and regularizers of both sides. A weight of 0 costs nothing."""

    adversarial: str  # a name in `losses.ADVERSARIAL`
    smoothing: float = 0.0  # one-sided: the target of real videos is 1 - smoothing
    gradient_penalty: float = 0.0  # weight of (norm - 1)^2 of gradients between real and generated videos
    r1: float = 0.0  # weight of norm^2 / 2 of gradients at real videos
    penalized: int = 1  # every n-th video of a batch has its gradient penalized
    lecam: float = 0.0  # weight of LeCam's regularizer
    feature_matching: float = 0.0  # weight of the distance between mean features of real and generated videos
    classes: float = 0.0  # weight of the auxiliary classifier's cross-entropy
    instance_noise: float = 0.0  # standard deviation of noise on all that is judged, falling to 0 over the run
    augment: tuple[str, ...] = ()  # of all that is judged: names in `nn.augment.POLICIES`

    @property
    def loss(self) -> losses.Adversarial:
        """The losses of logits."""
        return losses.ADVERSARIAL[self.adversarial]


def make_game(options: Mapping[str, Any]) -> Game:
    """The game of a `config.loss`, which may have other fields besides, and lack those that stay as in `Game`.

    Raises ValueError for what cannot work.
    """
    game = Game(**{field: options[field] for field in Game._fields if field in options})
    choice("loss.adversarial", game.adversarial, losses.ADVERSARIAL)
    for name in game.augment:
        choice("an item of loss.augment", name, POLICIES)
    for name, value in options.items():
        if isinstance(value, float) and not value >= 0:
            raise ValueError(f"loss.{name} is {value}, expected 0 or more.")
    if game.smoothing and game.adversarial not in SMOOTHED:
        raise ValueError(f"loss.smoothing is for {', '.join(SMOOTHED)}, not for {game.adversarial}: set it to 0.")
    if game.smoothing >= 0.5:
        raise ValueError(f"loss.smoothing is {game.smoothing}, expected less than 0.5.")
    return game


def check_shares(config: ConfigDict, devices: int) -> None:
    """Raises ValueError where a batch has no equal shares: every n-th video of a device's rows must be that of all.

    It reads `train.batch_size`, `loss.n_critic` and `loss.penalized`.
    """
    batch_size, n_critic, penalized = config.train.batch_size, config.loss.n_critic, config.loss.penalized
    videos = max(1, batch_size // devices)  # train says where a batch is too small for the devices
    where = f" on each of {devices} devices" if devices > 1 else ""
    if n_critic < 1:
        raise ValueError(f"loss.n_critic is {n_critic}, expected at least 1.")
    if videos % n_critic:
        steps = f"the loss.n_critic {n_critic} steps of the discriminator{where}"
        raise ValueError(f"train.batch_size {batch_size} is shared by {steps}: expected a multiple.")
    if not 1 <= penalized <= videos // n_critic:
        most = f"as many as the discriminator sees in a step{where}, {videos // n_critic}"
        raise ValueError(f"loss.penalized is {penalized}, expected at least 1 (every video) and at most {most}.")
    if devices > 1 and videos // n_critic % penalized:
        seen = f"the {videos // n_critic} videos that a device's discriminator sees in a step"
        raise ValueError(
            f'loss.penalized is {penalized}, expected a divisor of {seen}: set it so, or train.parallel to "jit".'
        )


def augmented(game: Game, video: jax.Array, keys: jax.Array, progress: jax.Array) -> jax.Array:
    """Videos [B,T,H,W,C] as they are judged in training, by keys [B], at `progress` of the run, 0 to 1."""
    if game.instance_noise:
        noise = parallel.example_noise(keys, {"video": video.shape[1:]})["video"]
        video = video + game.instance_noise * (1 - progress) * noise
    return augment(video, keys, game.augment)


def discriminator_loss(
    game: Game, real: Panel, fake: Panel, labels: Any = None, averages: Mapping[str, jax.Array] | None = None
) -> tuple[jax.Array, Metrics]:
    """The loss [B] of critiques of real and generated videos without `penalties`, and the metrics, [B] each.

    Args:
      game: from `make_game`.
      real, fake: critiques.
      labels: int [B], where `game.classes` is above 0. The classifier learns from real videos alone, so that it cannot
        agree with the generator on wrong ones.
      averages: from `initial_averages` and `update_averages`, where `game.lecam` is above 0.
    """
    target = 1.0 - game.smoothing
    total = over(lambda r, f: game.loss.real(r.logits, target) + game.loss.fake(f.logits), real, fake)
    metrics = {"d_loss": total, **scores(game, real, fake)}
    if game.lecam:
        if averages is None:
            raise ValueError("loss.lecam needs averages: of initial_averages, moved on by update_averages.")
        means = averages["real"], averages["fake"]
        metrics["lecam"] = over(lambda r, f: losses.lecam(r.logits, f.logits, *means), real, fake)
        total += game.lecam * metrics["lecam"]
    if game.classes:
        error, metrics["d_class_accuracy"] = classified(real, labels)
        total += game.classes * error
    return total, metrics


def penalties(
    game: Game, critic: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, keys: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The gradient penalties [] of a discriminator, and the metrics.

    Args:
      game: from `make_game`.
      critic: video [n,T,H,W,C] -> summed logits [n], see `summed_logits`.
      real, fake: videos [n,T,H,W,C], as they are judged.
      keys: [n].
    """
    expect_equal("[B,T,H,W,C]", float, real=real, fake=fake)
    expect(f"[{len(real)}]", keys=keys)
    total, metrics = jnp.zeros(()), {}
    if game.gradient_penalty:
        share = jax.vmap(jax.random.uniform)(keys).reshape(-1, 1, 1, 1, 1)
        norms = losses.gradient_norms(critic, share * real + (1 - share) * fake)
        metrics["gradient_penalty"] = jnp.square(norms - 1).mean()
        total += game.gradient_penalty * metrics["gradient_penalty"]
    if game.r1:
        metrics["r1"] = jnp.square(losses.gradient_norms(critic, real)).mean() / 2
        total += game.r1 * metrics["r1"]
    return total, metrics


def generator_loss(
    game: Game, fake: Panel, real: Panel | None = None, labels: Any = None, axis_name: str | None = None
) -> tuple[jax.Array, Metrics]:
    """The loss [B] of critiques of generated videos, and the metrics.

    `real`, critiques of real videos, is read where `game.feature_matching` is above 0; `labels` as of
    `discriminator_loss`.
    """
    total = over(lambda f: game.loss.generator(f.logits), fake)
    metrics = {"g_loss": total}
    if game.feature_matching:
        if real is None:
            raise ValueError("loss.feature_matching needs the critiques of real videos, too.")
        metrics["feature_matching"] = feature_distance(real, fake, axis_name)
        total += game.feature_matching * metrics["feature_matching"]
    if game.classes:
        error, metrics["g_class_accuracy"] = classified(fake, labels)
        total += game.classes * error
    return total, metrics


def initial_averages() -> dict[str, jax.Array]:
    """The moving averages of logits that LeCam's regularizer needs, at step 0."""
    return {"real": jnp.zeros(()), "fake": jnp.zeros(())}


def update_averages(
    averages: Mapping[str, jax.Array], real: Panel, fake: Panel, axis_name: str | None
) -> Mapping[str, jax.Array]:
    """Moves the averages towards the mean logits of a batch, over all devices."""
    panels = {"real": real, "fake": fake}
    means = {name: over(lambda c: c.logits, panel).mean() / len(panel) for name, panel in panels.items()}
    return optax.incremental_update(parallel.pmean(means, axis_name), averages, 1 - LECAM_DECAY)


def scores(game: Game, real: Panel, fake: Panel) -> Metrics:
    """[B]: D(real) and D(fake), as probabilities where the game has them, and how often D ranks a pair correctly."""
    score = jax.nn.sigmoid if game.adversarial in PROBABILITIES else lambda logits: logits
    return {
        "d_real": over(lambda c: score(c.logits), real) / len(real),
        "d_fake": over(lambda c: score(c.logits), fake) / len(fake),
        "d_accuracy": over(lambda r, f: 1.0 * (r.logits > f.logits), real, fake) / len(real),
    }


def over(value: Callable[..., jax.Array], *panels: Panel) -> jax.Array:
    """The sum over a panel's members of `value` of their critiques [B,N], averaged over the parts: [B]."""
    check(*panels)
    return jnp.stack([value(*critiques).mean(1) for critiques in zip(*panels, strict=True)]).sum(0)


def check(*panels: Panel) -> None:
    """Raises ValueError for panels that are empty, or not of the same discriminators on as many videos."""
    sizes = [len(panel) for panel in panels]
    if not min(sizes) or len({*sizes}) > 1:
        raise ValueError(f"The panels have {sizes} critiques, expected as many of each, and at least one.")
    for critiques in zip(*panels, strict=True):
        expect_equal("[B,N]", float, **{f"logits of panel {number}": c.logits for number, c in enumerate(critiques)})
        expect(f"[{len(panels[0][0].logits)},N]", logits=critiques[0].logits)


def summed_logits(panel: Panel) -> jax.Array:
    """The sum [B] of all logits of a video."""
    check(panel)
    return jnp.stack([critique.logits.sum(1) for critique in panel]).sum(0)


def votes(panel: Panel) -> jax.Array:
    """Logits of the classes [B,K], averaged over the parts and summed over the panel."""
    return jnp.stack([critique.classes.mean(1) for critique in panel if critique.classes is not None]).sum(0)


def classified(panel: Panel, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B]: the cross-entropy of labels [B] (summed over the panel), and whether the panel's vote is right."""
    check(panel)
    for critique in panel:
        expect("[B,N,K]", float, classes=critique.classes)
    expect(f"[{len(panel[0].logits)}]", int, labels=labels)
    error = over(lambda c: optax.softmax_cross_entropy_with_integer_labels(c.classes, labels[:, None]), panel)
    return error, (votes(panel).argmax(-1) == labels).astype(jnp.float32)


def feature_distance(real: Panel, fake: Panel, axis_name: str | None) -> jax.Array:
    """Squared distance [] between the mean features of real and of generated videos, averaged over each layer.

    Salimans et al., 2016, section 3.1; over all layers, as in Larsen et al., 2016.
    """
    distances = []
    for of_real, of_fake in zip(real, fake, strict=True):
        for a, b in zip(of_real.features, of_fake.features, strict=True):
            expect_equal("[B,...]", float, **{"features of real": a, "features of fake": b})
            means = parallel.pmean((a.astype(jnp.float32).mean(0), b.astype(jnp.float32).mean(0)), axis_name)
            distances.append(jnp.square(means[0] - means[1]).mean())
    return jnp.stack(distances).sum()
