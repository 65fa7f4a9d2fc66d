"""Augmentations: the same for all frames of a clip, differentiable, and each from its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.augment import POLICIES, augment

KEYS = jax.random.split(jax.random.key(0), 3)


def clips(frames: int) -> jax.Array:
    """Clips of one repeated picture each."""
    picture = jax.random.uniform(jax.random.key(1), (3, 1, 16, 16, 3), minval=-1)
    return jnp.broadcast_to(picture, (3, frames, 16, 16, 3))


@pytest.mark.parametrize("policy", POLICIES)
def test_all_frames_of_a_clip_change_alike(policy: str) -> None:
    video = clips(4)
    changed = augment(video, KEYS, [policy])
    assert changed.shape == video.shape
    np.testing.assert_allclose(changed, jnp.broadcast_to(changed[:, :1], changed.shape), atol=1e-5)
    assert all(jnp.abs(a - b).max() > 0.01 for a, b in zip(changed, video, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_clip_depends_on_its_own_key_alone(policy: str) -> None:
    video = clips(2)
    together = augment(video, KEYS, [policy])
    np.testing.assert_allclose(augment(video[1:2], KEYS[1:2], [policy])[0], together[1], atol=1e-6)
    same_clip = jnp.broadcast_to(video[:1], video.shape)
    drawn = augment(same_clip, KEYS, [policy])
    assert jnp.abs(drawn[0] - drawn[1]).max() > 0.01


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_those_of_finite_differences(policy: str) -> None:
    # All policies are linear in the clip but for their offset: a step of any size gives the slope.
    video, direction = clips(1), jax.random.normal(jax.random.key(2), (3, 1, 16, 16, 3))

    def value(video: jax.Array) -> jax.Array:
        return jnp.sum(augment(video, KEYS, [policy]) * jnp.linspace(0.5, 1, 16)[:, None])

    slope = jnp.sum(jax.grad(value)(video) * direction)
    np.testing.assert_allclose(slope, value(video + direction) - value(video), atol=3e-3)
    assert abs(slope) > 0.03


def test_translation_moves_what_is_there() -> None:
    video = jnp.zeros((8, 1, 16, 16, 1)).at[:, :, 8, 8].set(1.0)
    moved = augment(video, jax.random.split(jax.random.key(0), 8), ["translation"])
    np.testing.assert_array_equal(moved.sum((1, 2, 3, 4)), 1.0)
    places = {tuple(int(i) for i in jnp.argwhere(clip[0, :, :, 0])[0]) for clip in moved}
    assert len(places) > 3 and all(abs(i - 8) <= 2 for place in places for i in place)


def test_cutout_blanks_at_most_a_quarter() -> None:
    blank = augment(jnp.ones((8, 1, 16, 16, 1)), jax.random.split(jax.random.key(0), 8), ["cutout"]) == 0
    shares = blank.mean((1, 2, 3, 4))
    assert (0 < shares).all() and (shares <= 0.25).all() and len(set(shares.tolist())) > 1
