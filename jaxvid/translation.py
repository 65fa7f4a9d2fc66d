"""What translators of videos share: setup, augmentations by kind, losses in time, a history, and measures."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from jaxvid import adversarial, optim
from jaxvid.adversarial import Game, Panel
from jaxvid.core import Metrics, TrainState
from jaxvid.losses import mean_absolute_error
from jaxvid.metrics.image import change_error, psnr, standing_still, still_flicker
from jaxvid.models.translator import make_discriminator, make_generator
from jaxvid.names import choice
from jaxvid.nn.augment import color
from jaxvid.parallel import fold_keys

GENERATOR, DISCRIMINATOR = ("generator", "discriminator")
DOMAINS = ("A", "B")  # of two: `input` shows the first, `video` the second, unless data.direction is BtoA
MARGIN = 1 / 16  # of height and width, by which frames move at most
SAME = 1.0  # gray levels, up to which a translation is its input
INVERTED = -0.2  # correlation of a translation with its input, from which down light and dark have changed places
LARGE_IDENTITY_ERROR = 0.15  # in [-1, 1], from which on colors of the target domain change


class Setup(NamedTuple):
    """What stays the same from step to step."""

    config: ConfigDict
    domains: tuple[str, ...]  # their names, in the order of their numbers
    generator: Any  # `models.translator.Generator` or `TwoDomains`
    discriminator: Any  # a panel of `models.translator.PatchDiscriminator`s
    game: Game
    optimizers: dict[str, optax.GradientTransformation]
    axis_name: str | None


def make_setup(config: ConfigDict, axis_name: str | None, domains: tuple[str, ...], classes: int = 0) -> Setup:
    """The setup of a config; the discriminator tells so many classes, too. Raises ValueError for what cannot work."""
    model, loss, steps = config.model, config.loss, config.train.steps
    dtype = jnp.dtype(choice("model.dtype", model.dtype, ("float32", "bfloat16")))
    updates = {GENERATOR: steps, DISCRIMINATOR: steps * loss.get("n_critic", 1)}
    return Setup(
        config=config,
        domains=domains,
        generator=make_generator(model.generator, dtype=dtype),
        discriminator=make_discriminator(model.discriminators, config.data.frames, classes, dtype),
        game=adversarial.make_game(loss),
        optimizers=optim.make_optimizers(config.optim, updates),
        axis_name=axis_name,
    )


def domains(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the domains that `input` and `video` show, by `config.data`."""
    return DOMAINS if data.get("direction", "AtoB") == "AtoB" else DOMAINS[::-1]


def augmented(kinds: Mapping[str, bool], video: jax.Array, keys: jax.Array, photometric: bool = True) -> jax.Array:
    """Videos [B,T,H,W,C] in [-1, 1] under augmentations by kind, one draw for each clip.

    Args:
      kinds: which apply. "geometric": mirrored left to right or not, and moved by up to MARGIN; "photometric":
        brightness, saturation and contrast (`nn.augment.color`); "temporal": played backwards or not.
      keys: [B]; the same keys change two videos alike.
      photometric: False leaves colors as they are.
    """
    if kinds["geometric"]:
        video = jax.vmap(_mirrored_and_moved)(video, fold_keys(keys, 0))
    if kinds["photometric"] and photometric:
        video = jax.vmap(color)(video, fold_keys(keys, 1)).clip(-1, 1)
    if kinds["temporal"]:
        backwards = jax.vmap(jax.random.bernoulli)(fold_keys(keys, 2)).reshape(-1, 1, 1, 1, 1)
        video = jnp.where(backwards, video[:, ::-1], video)
    return video


def _mirrored_and_moved(video: jax.Array, key: jax.Array) -> jax.Array:
    """A video [T,H,W,C], the same for all frames."""
    mirrored = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 0)), video[:, :, ::-1], video)
    margins = margins_of(video.shape[1:3])
    moves = [jax.random.randint(jax.random.fold_in(key, 1 + i), (), -m, m + 1) for i, m in enumerate(margins)]
    return moved(mirrored, jnp.broadcast_to(jnp.stack(moves), (len(video), 2)))


def margins_of(size: tuple[int, ...]) -> tuple[int, ...]:
    """By how many pixels frames of this height and width move at most."""
    return tuple(max(1, round(MARGIN * side)) for side in size)


def moved(video: jax.Array, moves: jax.Array) -> jax.Array:
    """A video [T,H,W,C] with each frame moved down and right by int [T,2], within `margins_of`; edges are repeated."""
    vertical, horizontal = margins_of(video.shape[1:3])
    padded = jnp.pad(video, [(0, 0), (vertical,) * 2, (horizontal,) * 2, (0, 0)], "edge")

    def frame(padded: jax.Array, move: jax.Array) -> jax.Array:
        start = (vertical - move[0], horizontal - move[1], 0)
        return lax.dynamic_slice(padded, start, video.shape[1:])

    return jax.vmap(frame)(padded, moves)


def motion(key: jax.Array, frames: int, size: tuple[int, ...]) -> jax.Array:
    """A straight camera path: int [T,2], by how many pixels each frame is moved, within `margins_of`."""
    ends = jax.random.uniform(key, (2, 2), minval=-1.0) * jnp.array(margins_of(size))
    share = jnp.linspace(0, 1, frames)[:, None]
    return jnp.round(ends[0] * (1 - share) + ends[1] * share).astype(jnp.int32)


def commuting_error(
    generate: Callable[[jax.Array], jax.Array], video: jax.Array, made: jax.Array, keys: jax.Array
) -> jax.Array:
    """|G(W a) - W G(a)|, averaged over what a known motion W leaves in view: [B].

    The warping consistency of Unsupervised Recycle-GAN (Wang et al., 2022), with straight camera paths for W.

    Args:
      generate: G.
      video: a, [B,T,H,W,C].
      made: G(a).
      keys: [B], of the motion.
    """
    size = video.shape[2:4]
    paths = jax.vmap(lambda key: motion(key, video.shape[1], size))(keys)
    warp = jax.vmap(moved)
    vertical, horizontal = margins_of(size)
    view = (..., slice(vertical, -vertical), slice(horizontal, -horizontal), slice(None))
    return mean_absolute_error(generate(warp(video, paths))[view], warp(made, paths)[view])


def stillness_error(made: jax.Array, video: jax.Array) -> jax.Array:
    """Mean absolute change of translations from frame to frame where the video stands still: [B]."""
    still = standing_still(video)[..., None]
    changes = jnp.abs(jnp.diff(made, axis=1)) * still
    return changes.sum((1, 2, 3, 4)) / jnp.maximum(still.sum((1, 2, 3, 4)) * made.shape[-1], 1)


def temporal_losses(
    weights: Mapping[str, float],
    generate: Callable[[jax.Array], jax.Array],
    video: jax.Array,
    made: jax.Array,
    cycled: jax.Array,
    keys: jax.Array,
) -> Metrics:
    """The losses [B] in time whose weight, "commuting", "differences" or "stillness", is above 0; none of images."""
    if video.shape[1] == 1:
        return {}
    losses = {
        "commuting": lambda: commuting_error(generate, video, made, keys),
        "differences": lambda: mean_absolute_error(jnp.diff(cycled, axis=1), jnp.diff(video, axis=1)),
        "stillness": lambda: stillness_error(made, video),
    }
    return {name: loss() for name, loss in losses.items() if weights[name]}


def feature_error(real: Panel, fake: Panel) -> jax.Array:
    """Mean |features of a video - those of its counterpart|, summed over layers and averaged over the panel: [B].

    Wang et al. (2018, pix2pixHD, equation 2) for pairs; on the cycle, of a video and its way there and back.
    """
    distances = []
    for of_real, of_fake in zip(real, fake, strict=True):
        layers = zip(of_fake.features, lax.stop_gradient(of_real.features), strict=True)
        distances += [mean_absolute_error(a, b) for a, b in layers]
    return jnp.stack(distances).sum(0) / len(real)


def discriminator_loss(
    game: Game,
    judge: Callable[[jax.Array], Panel],
    real: jax.Array,
    fake: jax.Array,
    keys: jax.Array,
    labels: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """The mean loss [] of a discriminator on videos as they are judged, penalties included, and the metrics [].

    Args:
      judge: video [B,T,H,W,C] -> critiques.
      keys: [B], of the points where the gradient is penalized.
      labels: as of `adversarial.discriminator_loss`.
    """
    loss, metrics = adversarial.discriminator_loss(game, judge(real), judge(fake), labels)
    total, averages = loss.mean(), {name: value.mean() for name, value in metrics.items()}
    if game.gradient_penalty or game.r1:

        def critic(video: jax.Array) -> jax.Array:
            return adversarial.summed_logits(judge(video))

        share = slice(None, None, game.penalized)
        penalty, more = adversarial.penalties(game, critic, real[share], fake[share], keys[share])
        total, averages = total + penalty, averages | more
    return total, averages


def initial_pool(size: int, video: jax.Array) -> dict[str, jax.Array]:
    """An empty history of `size` translations like one [T,H,W,C], for `pooled`."""
    return {"videos": jnp.zeros((size, *video.shape), jnp.uint8), "count": jnp.zeros((), jnp.int32)}


def pooled(
    pool: Mapping[str, jax.Array], fake: jax.Array, key: jax.Array, axis_name: str | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a discriminator learns from in place of translations [B,T,H,W,C], and the new history.

    Shrivastava et al. (2017, section 2.3), as in CycleGAN: as long as the history is not full it takes what comes, and
    passes it on; then a fair coin decides for each translation whether it is passed on, or changes places with one of
    the history, each with another. Translations are kept, and passed on, in 8 bits.

    Args:
      pool: from `initial_pool`; it has at least as many places as all devices have translations.
      key: of the step, the same on all devices.
    """
    fake = jnp.round((fake.clip(-1, 1) + 1) * 127.5).astype(jnp.uint8)
    everything = fake if axis_name is None else lax.all_gather(fake, axis_name, tiled=True)
    size, count = len(pool["videos"]), len(everything)
    full = pool["count"] >= size
    swapped = jax.random.bernoulli(jax.random.fold_in(key, 0), shape=(count,)) & full
    free = pool["count"] + jnp.arange(count)
    slots = jnp.where(full, jax.random.permutation(jax.random.fold_in(key, 1), size)[:count], free)
    chosen = jnp.where(swapped.reshape(-1, 1, 1, 1, 1), pool["videos"][slots.clip(0, size - 1)], everything)
    stored = jnp.where(swapped | (~full & (free < size)), slots, size)  # past the end: dropped
    new = {
        "videos": pool["videos"].at[stored].set(everything, mode="drop"),
        "count": jnp.minimum(pool["count"] + count, size),
    }
    if axis_name is not None:
        chosen = lax.dynamic_slice_in_dim(chosen, lax.axis_index(axis_name) * len(fake), len(fake))
    return chosen.astype(jnp.float32) / 127.5 - 1, new


def rounded(video: jax.Array) -> jax.Array:
    """Videos in [-1, 1] as they come back from 8 bits: what no cycle can hide a signal in."""
    return jnp.round((video.clip(-1, 1) + 1) * 127.5) / 127.5 - 1


def remember_start(key: jax.Array) -> dict[str, jax.Array]:
    """What `TrainState.extra` needs so that an evaluation can make the first parameters again, by `start_key`."""
    return {"start": jax.random.key_data(key)}


def start_key(state: TrainState) -> jax.Array:
    """The key of `remember_start`."""
    return jax.random.wrap_key_data(state.extra["start"])


def measures(videos: Mapping[str, jax.Array], source: jax.Array, truth: jax.Array | None) -> Metrics:
    """Measures [B] of translations: {"": the model's, "_of_input": the identity map's, ...} by the end of their names.

    `psnr` in dB and `change_error` in gray levels, where the truth [B,T,H,W,C] is known, beside `change_error_of_still`
    of its first frame repeated; `still_flicker`, in gray levels. All of videos in [-1, 1].
    """
    found: dict[str, jax.Array] = {}
    several = source.shape[1] > 1
    for end, video in videos.items():
        if truth is not None:
            found[f"psnr{end}"] = psnr(video, truth)
        if truth is not None and several:
            found[f"change_error{end}"] = change_error(video, truth)
        if several:
            found[f"still_flicker{end}"] = still_flicker(video, source)
    if truth is not None and several:
        found["change_error_of_still"] = change_error(jnp.broadcast_to(truth[:, :1], truth.shape), truth)
    return found


def health(made: jax.Array, source: jax.Array) -> Metrics:
    """[B]: by how many gray levels translations differ from their input, and how they correlate with it."""
    a, b = (x.mean(-1) - x.mean((1, 2, 3, 4), keepdims=True)[..., 0] for x in (made, source))
    norms = jnp.sqrt(jnp.square(a).mean((1, 2, 3)) * jnp.square(b).mean((1, 2, 3)))
    return {
        "difference_from_input": 127.5 * mean_absolute_error(made, source),
        "correlation_with_input": (a * b).mean((1, 2, 3)) / jnp.maximum(norms, 1e-6),
    }


def warnings(loss: Mapping[str, Any], metrics: Mapping[str, float]) -> list[str]:
    """What an evaluation's averages show about the health of a translator.

    Args:
      loss: `config.loss`, for advice about fields that there are.
      metrics: the averages by name.
    """
    holding = [f"loss.{name}" for name in ("cycle", "identity") if name in loss]  # what keeps inputs as they are
    found = []
    if metrics["difference_from_input"] < SAME:
        advice = [f"lower {' or '.join(holding)}"] if holding else []
        advice += ["set loss.reject_source"] if not loss.get("reject_source", True) else []
        found.append(
            f"translations differ from their inputs by {metrics['difference_from_input']:.2f} gray levels: nothing "
            f"changes; {', '.join([*advice, 'or train longer'] if advice else ['train longer'])}."
        )
    if holding and metrics["correlation_with_input"] < INVERTED:  # pairs say by themselves where to
        found.append(
            f"translations correlate with their inputs by {metrics['correlation_with_input']:.2f}: light and dark may "
            f"have changed places; raise {holding[-1]}, or set model.generator.output to masked."
        )
    if holding and metrics.get("identity_error", 0.0) > LARGE_IDENTITY_ERROR:
        found.append(
            f"videos of the target domain change by {metrics['identity_error']:.2f} of 2 when they are translated to "
            f"it: colors may be exchanged; train longer, or raise {holding[-1]}."
        )
    return found
