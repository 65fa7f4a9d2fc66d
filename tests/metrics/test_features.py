"""Batches and devices, with a small network in the place of the large ones; the scores of arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import metrics
from jaxvid.metrics import features as module
from jaxvid.metrics.features import make_extractor
from jaxvid.metrics.protocol import PROTOCOLS, prepare

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (21, 16, 16, 3), np.uint8)


class Small(nn.Module):
    """Stands for Inception and I3D."""

    setting: object = None
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        h = nn.Dense(5)(jnp.tanh(x)).mean(tuple(range(1, x.ndim - 1)))
        return {"2048": h, "logits": h * 2, "unused": h}


@pytest.fixture(name="params")
def small_networks(monkeypatch) -> dict:
    module._program.cache_clear()
    monkeypatch.setattr(module, "Inception", Small)
    monkeypatch.setattr(module, "I3D", Small)
    monkeypatch.setitem(module.PER_DEVICE, "inception", 2)
    return Small().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]


def test_features_do_not_depend_on_batches_or_devices(params) -> None:
    found = []
    for devices in (1, 8):
        extract = make_extractor(PROTOCOLS["clean"], params, ["2048"], devices=jax.devices()[:devices])
        for size in (1, 5, 21):
            batches = [IMAGES[start : start + size] for start in range(0, len(IMAGES), size)]
            found.append(np.concatenate([part["2048"] for part in map(extract, batches)]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    expected = Small().apply({"params": params}, prepare(jnp.asarray(IMAGES), PROTOCOLS["clean"]))["2048"]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_scores_of_arrays_are_those_of_their_features(params) -> None:
    fake = np.clip(IMAGES.astype(int) // 2 + 60, 0, 255).astype(np.uint8)

    def moments(images, protocol: str):
        rows = Small().apply({"params": params}, prepare(jnp.asarray(images), PROTOCOLS[protocol]))["2048"]
        rows = np.asarray(rows, np.float64)
        return rows.mean(0), np.cov(rows, rowvar=False)

    (m1, s1), (m2, s2) = (moments(images, "pytorch_fid") for images in (IMAGES, fake))
    values = np.linalg.eigvals(s1 @ s2)
    expected = np.square(m1 - m2).sum() + np.trace(s1 + s2) - 2 * np.sqrt(np.maximum(values.real, 0)).sum()
    np.testing.assert_allclose(metrics.fid(IMAGES, fake, params), expected, rtol=1e-3)
    floats = fake.astype(np.float32) / 127.5 - 1
    assert metrics.fid(IMAGES, floats, params) == metrics.fid(IMAGES, fake, params)
    videos = RNG.integers(0, 256, (6, 9, 8, 8, 3), np.uint8)
    assert abs(metrics.fvd(videos, videos, params, protocol="videogpt")) < 1e-6
    with pytest.warns(UserWarning, match="3 samples of 5 dimensions"):
        assert metrics.fvd(videos, videos[:3] // 2, params, "cdfvd") > 0.01


@pytest.mark.parametrize(
    ("real", "protocol", "sentence"),
    [
        (IMAGES, "original", r"real is uint8 \[21,16,16,3\], expected \[N>=2,T>=9,H,W,3\]"),
        (np.zeros((1, 9, 8, 8, 3), np.uint8), "original", r"real is uint8 \[1,9,8,8,3\], expected \[N>=2,T>=9,H,W,3\]"),
        (np.zeros((2, 9, 8, 8, 3), np.float32), "original", "looks like .0, 1."),
        (np.full((2, 9, 8, 8, 3), 200.0), "original", "from 200 to 200, expected uint8"),
        (np.zeros((2, 9, 8, 8, 3), np.uint8), "clean", "protocol is .clean., expected one of original"),
    ],
)
def test_wrong_input_is_said_before_anything_is_computed(real, protocol, sentence, params) -> None:
    with pytest.raises(ValueError, match=sentence):
        metrics.fvd(real, real, None, protocol)
