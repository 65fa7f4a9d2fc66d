"""What translators share: motion, losses in time, the history of translations, measures."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe

from jaxvid import translation
from jaxvid.models.gan_blocks import Critique

KEYS = jax.random.split(jax.random.key(0), 3)


def random_video(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def test_frames_move_by_whole_pixels_and_edges_are_repeated() -> None:
    clip = random_video(3, 32, 48)
    moves = np.array([[2, -3], [0, 0], [-2, 3]])
    found = np.asarray(translation.moved(jnp.asarray(clip), jnp.asarray(moves)))
    for frame, (down, right) in enumerate(moves):
        rows, columns = (np.arange(32) - down).clip(0, 31), (np.arange(48) - right).clip(0, 47)
        np.testing.assert_array_equal(found[frame], clip[frame][rows][:, columns])


def test_camera_paths_are_straight_and_stay_within_the_margin() -> None:
    paths = np.asarray(jax.vmap(lambda key: translation.motion(key, 9, (64, 32)))(jax.random.split(KEYS[0], 200)))
    assert (np.abs(paths).max((0, 1)) == (4, 2)).all()
    middle = (paths[:, 0] + paths[:, -1]) / 2
    assert np.abs(paths[:, 4] - middle).max() <= 1


def test_what_commutes_with_motion_has_no_error_and_what_depends_on_the_place_has() -> None:
    clip = jnp.asarray(random_video(3, 4, 32, 32))

    def inverted(x: jax.Array) -> jax.Array:
        return -x

    def shaded(x: jax.Array) -> jax.Array:
        return x + jnp.arange(32)[:, None, None] / 32

    assert float(translation.commuting_error(inverted, clip, inverted(clip), KEYS).max()) == 0
    error = translation.commuting_error(shaded, clip, shaded(clip), KEYS)
    paths = jax.vmap(lambda key: translation.motion(key, 4, (32, 32)))(KEYS)
    expected = np.abs(np.asarray(paths)[..., 0]).mean(1) / 32  # shades move by as many rows as the frame
    np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_stillness_counts_changes_where_the_video_stands_still() -> None:
    clip = np.zeros((1, 3, 32, 32, 3), np.float32)
    clip[0, 1:, :, 20:] = 1  # columns from 20 on change in the second frame, and windows of 9 see it from 16 on
    made = np.zeros_like(clip)
    made[0, 1] = 0.5
    moving, still = 0.5 * 16 * 32, 0.5 * 32 * 32  # left of column 16 in both changes, the rest in the second alone
    expected = (moving + still) / (16 * 32 + 32 * 32)
    np.testing.assert_allclose(translation.stillness_error(jnp.asarray(made), jnp.asarray(clip)), [expected], rtol=1e-6)


def test_losses_in_time_are_those_with_a_weight() -> None:
    clip, cycled = (jnp.asarray(random_video(3, 4, 32, 32, seed=seed)) for seed in (1, 2))
    weights = {"commuting": 0.0, "differences": 2.0, "stillness": 0.0}
    found = translation.temporal_losses(weights, lambda x: x, clip, clip, cycled, KEYS)
    changes = np.diff(np.asarray(cycled), axis=1) - np.diff(np.asarray(clip), axis=1)
    assert found.keys() == {"differences"}
    np.testing.assert_allclose(found["differences"], np.abs(changes).mean((1, 2, 3, 4)), rtol=1e-5)
    assert translation.temporal_losses(weights, lambda x: x, clip[:, :1], clip[:, :1], cycled[:, :1], KEYS) == {}


def test_features_are_compared_layer_by_layer_and_the_real_ones_are_targets() -> None:
    def panel(seed: int) -> list[Critique]:
        shapes = [(2, 3, 4), (2, 6)]
        features = [tuple(jnp.asarray(np.random.default_rng(seed + i).normal(size=s)) for s in shapes) for i in (0, 1)]
        return [Critique(jnp.zeros((2, 1)), None, each) for each in features]

    real, fake = panel(0), panel(10)
    expected = np.zeros(2)
    for a, b in zip(real, fake, strict=True):
        for x, y in zip(a.features, b.features, strict=True):
            expected += np.abs(np.asarray(x) - np.asarray(y)).reshape(2, -1).mean(1) / 2
    np.testing.assert_allclose(translation.feature_error(real, fake), expected, rtol=1e-6)
    gradient = jax.grad(lambda real: translation.feature_error(real, fake).sum(), allow_int=True)(real)
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(gradient))


def clips(numbers: list[int]) -> jax.Array:
    """Clips of one pixel that carry a number."""
    return jnp.asarray(np.array(numbers, np.float32)[:, None, None, None, None] / 127.5 - 1)


def numbers(videos: jax.Array) -> list[int]:
    return np.round((np.asarray(videos).ravel() + 1) * 127.5).astype(int).tolist()


def test_a_history_fills_then_half_of_what_comes_changes_places_with_distinct_clips() -> None:
    pool = translation.initial_pool(8, clips([0])[0])
    for start in (0, 4):
        passed, pool = translation.pooled(pool, clips([start + i for i in range(4)]), KEYS[0], None)
        assert numbers(passed) == [start + i for i in range(4)]
    assert pool["videos"].ravel().tolist() == list(range(8)) and pool["count"] == 8
    step, left, swaps = jax.jit(translation.pooled, static_argnums=3), 0, []
    for number in range(300):
        new = [100 + number % 100] * 4
        before = pool["videos"].ravel().tolist()
        passed, pool = step(pool, clips(new), jax.random.fold_in(KEYS[1], number), None)
        after = pool["videos"].ravel().tolist()
        given = numbers(passed)
        old = [each for each in given if each != new[0]]
        changed = [i for i in range(8) if before[i] != after[i]]
        assert len(changed) == len(old) and sorted(before[i] for i in changed) == sorted(old)
        left += len(changed)
        swaps.append(changed)
    assert abs(left / 1200 - 0.5) < 0.05  # a fair coin for each
    counts = np.bincount(np.concatenate(swaps).astype(int), minlength=8)
    assert counts.min() > 0.75 * counts.mean()  # each place as often


def test_a_history_that_is_partly_full_takes_what_fits() -> None:
    pool = translation.initial_pool(6, clips([0])[0])
    for start in (1, 5):
        passed, pool = translation.pooled(pool, clips([start + i for i in range(4)]), KEYS[0], None)
        assert numbers(passed) == [start + i for i in range(4)]
    assert pool["videos"].ravel().tolist() == [1, 2, 3, 4, 5, 6] and pool["count"] == 6


def test_the_same_keys_change_both_videos_of_a_pair_alike_and_colors_of_one_alone() -> None:
    clip = jnp.asarray(random_video(3, 4, 32, 32))
    every = {"geometric": True, "photometric": True, "temporal": True}
    same = translation.augmented({**every, "photometric": False}, clip, KEYS)
    np.testing.assert_array_equal(same, translation.augmented(every, clip, KEYS, photometric=False))
    assert np.abs(same - translation.augmented(every, clip, KEYS)).max() > 0.1
    np.testing.assert_array_equal(translation.augmented(dict.fromkeys(every, False), clip, KEYS), clip)
    many = translation.augmented(
        {**dict.fromkeys(every, False), "temporal": True},
        jnp.tile(clip[:1], (64, 1, 1, 1, 1)),
        jax.random.split(KEYS[0], 64),
    )
    backwards = [bool((video == clip[0, ::-1]).all()) for video in many]
    assert all(back or bool((video == clip[0]).all()) for back, video in zip(backwards, many, strict=True))
    assert 16 < sum(backwards) < 48


def test_measures_stand_beside_those_of_the_input_and_of_a_still_video() -> None:
    source, truth, made = (jnp.asarray(random_video(2, 4, 32, 32, seed=seed)) for seed in range(3))
    found = translation.measures({"": made, "_of_input": source}, source, truth)
    assert {name.partition("_of_")[0] for name in found} == {"psnr", "change_error", "still_flicker"}
    error = np.abs(np.diff(np.asarray(truth), axis=1)).mean((1, 2, 3, 4)) * 127.5
    np.testing.assert_allclose(found["change_error_of_still"], error, rtol=1e-5)
    assert {*translation.measures({"": made}, source, None)} == {"still_flicker"}
    assert {*translation.measures({"": made[:, :1]}, source[:, :1], truth[:, :1])} == {"psnr"}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"difference_from_input": 0.3}, "nothing changes"),
        ({"correlation_with_input": -0.5}, "light and dark may have changed places"),
        ({"identity_error": 0.4}, "colors may be exchanged"),
        ({}, ""),
    ],
)
def test_what_looks_wrong_is_said(found: dict, sentence: str) -> None:
    healthy = {"difference_from_input": 20.0, "correlation_with_input": 0.8, "identity_error": 0.01}
    said = translation.warnings({"cycle": 5.0, "identity": 0.0, "reject_source": False}, healthy | found)
    assert len(said) == bool(sentence) and sentence in "".join(said)


@pytest.mark.parametrize(
    ("method", "sentences"),
    [
        ("cyclegan", ["changes; lower loss.cycle or loss.identity, or train longer.", "raise loss.identity"]),
        ("stargan", ["nothing changes; lower loss.cycle, or train longer.", "raise loss.cycle, or"]),
        ("pix2pix", ["nothing changes; train longer."]),  # what is true of pairs need not be said
    ],
)
def test_advice_is_about_fields_that_the_method_has(method: str, sentences: list[str]) -> None:
    loss = recipe(f"{method}:tiny").loss
    metrics = {"difference_from_input": 0.1, "correlation_with_input": -0.9, "identity_error": 0.5}
    said = translation.warnings(loss, metrics)
    assert len(said) == (1 if method == "pix2pix" else 3)
    for sentence, warning in zip(sentences, said, strict=False):
        assert sentence in warning
    assert {*re.findall(r"loss\.(\w+)", " ".join(said))} <= {*loss}
    if method == "cyclegan":  # where it does not reject the other domain yet
        assert "set loss.reject_source, or" in translation.warnings({**loss, "reject_source": False}, metrics)[0]
