"""Motion features against the definition in loops, a moving wave, and what they are to see and not to see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxvid.data.synthetic import Synthetic
from jaxvid.metrics.frechet import frechet_distance, statistics
from jaxvid.metrics.motion import motion_features

features = jax.jit(motion_features)


def clips(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def names() -> list[tuple]:
    """(windows per side, wave down, wave right, which) in the order of the features."""
    waves = [(2, 0), (0, 2), (2, 2), (2, -2)]
    return [(n, *k, which) for n in (1, 2, 4) for k in waves for which in ("re1", "im1", "re2", "im2", "steady")]


def by_definition(video: np.ndarray) -> list[float]:
    """The docstring in float64 for one clip [T,H,W,C], window by window, frame by frame."""
    frames, height, width, channels = video.shape
    pixels = video - video.mean(axis=(0, 1, 2))
    values: list[float] = []
    for grid, down, right in dict.fromkeys(name[:3] for name in names()):
        length = 2 / (grid + 1)

        def wave(size, start, cycles, length=length):
            place = ((np.arange(size) + 0.5) / size - start) / length
            hann = np.array([0.5 - 0.5 * np.cos(2 * np.pi * z) if 0 < z < 1 else 0 for z in place])
            return hann * np.exp(-2j * np.pi * cycles * place)

        starts = [i * length / 2 for i in range(grid)]
        waves = [np.outer(wave(height, y, down), wave(width, x, right)) for y in starts for x in starts]
        noise = 4**2 * channels * np.mean([np.square(np.abs(w)).sum() for w in waves])
        c = np.array([[[(w * frame[..., k]).sum() for k in range(channels)] for frame in pixels] for w in waves])

        def spectra(lag, c=c, noise=noise):
            a, b = c[:, :-lag], c[:, lag:]
            return (b * a.conj()).sum(-1) + noise, 0.5 * (np.abs(a) ** 2 + np.abs(b) ** 2).sum(-1) + noise

        for lag in (1, min(2, frames - 1)):
            s, e = spectra(lag)
            values += [(s.sum() / e.sum()).real, (s.sum() / e.sum()).imag]
        s, e = spectra(1)
        root = np.sqrt(e[:, 1:] * e[:, :-1])
        values.append((s[:, 1:] * s[:, :-1].conj() / root).real.sum() / root.sum() if frames > 2 else 1.0)
    return values


@pytest.mark.parametrize("shape", [(2, 5, 18, 26, 3), (2, 2, 16, 16, 1), (1, 3, 33, 17, 3)])
def test_equals_the_definition(shape):
    video = clips(*shape) // 2 + clips(shape[0], 1, *shape[2:], seed=1) // 2  # noise over a static image
    got = features(video)
    assert got.dtype == jnp.float32 and got.shape == (shape[0], 60)
    np.testing.assert_allclose(got, [by_definition(clip) for clip in video.astype(float)], atol=2e-5)


@pytest.mark.parametrize(("frames", "size"), [(2, (1, 1)), (3, (3, 200)), (17, (64, 7))])
def test_any_size_and_length(frames, size):
    got = features(clips(1, frames, *size, 3))
    assert got.shape == (1, 60) and np.isfinite(got).all() and np.abs(got).max() < 1 + 1e-5


def test_a_moving_wave_turns_the_phase_by_its_step():
    """A wave that fits the large window moves right by v, or by v (1 + t) / 2 and so unsteadily."""
    x, t = (np.arange(64) + 0.5) / 64, np.arange(8)[:, None]
    for speed in (-0.05, 0.02, 0.11):
        for way, turn in ((speed * t, 0.0), (speed * t * (t + 1) / 4, 2 * np.pi * speed)):
            frames = 128 + 100 * np.cos(4 * np.pi * (x - way))
            video = np.broadcast_to(np.round(frames)[None, :, None, :, None], (1, 8, 32, 64, 3)).astype(np.uint8)
            got = dict(zip(names(), np.asarray(features(video))[0].tolist(), strict=True))
            if turn == 0:
                for lag in (1, 2):
                    phase = complex(got[1, 0, 2, f"re{lag}"], got[1, 0, 2, f"im{lag}"])
                    np.testing.assert_allclose(phase, np.exp(-4j * np.pi * speed * lag), atol=0.01)
            np.testing.assert_allclose(got[1, 0, 2, "steady"], np.cos(turn), atol=0.01)


def test_static_clips_are_static():
    """Whatever their content, even if there is none."""
    for frame in (clips(1, 1, 20, 24, 3), np.zeros((1, 1, 20, 24, 3), np.uint8)):
        got = features(np.repeat(frame, 6, axis=1)).reshape(12, 5)
        np.testing.assert_allclose(got, np.tile([1.0, 0, 1, 0, 1], (12, 1)), atol=1e-5)


def test_time_backwards_conjugates_and_a_mirror_exchanges_directions():
    video = clips(2, 5, 24, 24, 3) // 2 + clips(2, 1, 24, 24, 3, seed=1) // 2
    got, back, mirrored = (features(v).reshape(2, 3, 4, 5) for v in (video, video[:, ::-1], video[:, :, :, ::-1]))
    np.testing.assert_allclose(back, got * np.array([1, -1, 1, -1, 1]), atol=1e-5)
    # A wave to the right becomes one to the left, which is its conjugate; the two diagonals change places.
    np.testing.assert_allclose(mirrored[:, :, 1], got[:, :, 1] * np.array([1, -1, 1, -1, 1]), atol=1e-5)
    np.testing.assert_allclose(mirrored[:, :, [0, 3, 2]], got[:, :, [0, 2, 3]], atol=1e-5)


def test_colors_do_not_matter():
    video = clips(2, 4, 24, 24, 3)
    for changed in (255 - video, video[..., [2, 0, 1]], np.where([True, False, True], video, 255 - video)):
        np.testing.assert_allclose(features(changed), features(video), atol=1e-5)
    np.testing.assert_allclose(features(video // 2), features(video), atol=0.05)  # half the contrast, rounded


def test_motion_moves_the_distance_and_appearance_does_not():
    """128 real clips of the synthetic source against 128 others, as they are or changed, in units of the former."""
    count, rng = 128, np.random.default_rng(0)
    world = Synthetic(32, 32)
    videos = np.stack([world[i]["video"] for i in range(2 * count)])
    real, source = statistics(features(videos[:count, :16])), videos[count:]
    clip = source[:, :16]
    jittered = np.clip(np.arange(16) + rng.integers(-1, 2, (count, 16)), 0, 15)
    every = np.arange(count)[:, None]
    rotations = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    motion = {
        "shuffled": clip[every, rng.permuted(np.tile(np.arange(16), (count, 1)), axis=1)],
        "frozen": np.repeat(clip[:, :1], 16, axis=1),
        "frozen from the middle": clip[:, np.minimum(np.arange(16), 7)],
        "twice as fast": source[:, ::2],
        "half as fast": source[:, np.arange(16) // 2],
        "jittered in time": clip[every, jittered],
        "shaken": np.stack([[np.roll(f, rng.integers(-2, 3, 2), (0, 1)) for f in frames] for frames in clip]),
    }
    appearance = {
        "blurred": gaussian_filter(clip, (0, 0, 1, 1, 0)),
        "noisy": np.clip(clip + rng.normal(0, 10, clip.shape), 0, 255),
        "gray": np.repeat(clip.mean(-1, keepdims=True), 3, axis=-1),
        "half the contrast": clip * 0.5 + 60,
        "other colors": np.einsum("ntijc,ncd->ntijd", clip - 128.0, rotations) * 0.55 + 128,
        "half the resolution": clip.reshape(count, 16, 16, 2, 16, 2, 3).mean((3, 5)),
    }

    def distance(video):
        return frechet_distance(real, statistics(features(np.asarray(video, np.uint8))))

    floor = distance(clip)
    moved = {name: distance(video) / floor for name, video in motion.items()}
    looked = {name: distance(video) / floor for name, video in appearance.items()}
    assert min(moved.values()) > 2 * max(looked.values()) and max(looked.values()) < 2.2, (moved, looked)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((1, 4, 8, 8, 3), np.float32), r"video is float32 \[1,4,8,8,3\], expected uint8"),
        (np.zeros((4, 8, 8, 3), np.uint8), r"video is uint8 \[4,8,8,3\], expected uint8 \[B,T>=2,H,W,C\]"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), r"video is uint8 \[1,1,8,8,3\], expected uint8 \[B,T>=2,H,W,C\]"),
    ],
)
def test_other_videos_are_refused(video, message):
    with pytest.raises(ValueError, match=message):
        motion_features(video)
