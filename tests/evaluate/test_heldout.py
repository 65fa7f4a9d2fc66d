import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import parallel
from jaxvid.evaluate.heldout import evaluate, make_eval

RNG = np.random.default_rng(0)
VIDEOS = RNG.integers(0, 256, (21, 2, 4, 4, 3), np.uint8)


def eval_step(state: float, batch: dict, key: jax.Array) -> dict:
    video = batch["video"].astype(jnp.float32)
    codes = batch["video"].reshape(len(video), -1).astype(jnp.int32) // 32
    return {
        "brightness": state * video.mean((1, 2, 3, 4)),
        "codes": jax.vmap(lambda row: jnp.zeros(10, jnp.int32).at[row].add(1))(codes),
        "columns": video.mean((1, 2, 4)),
        "bright_columns": jnp.where(video.mean((1, 2, 4)) > 127, video.mean((1, 2, 4)), jnp.nan),
        "never": jnp.full((len(video), 2), jnp.nan),
        "negative": 255 - video,
    }


def batches(size: int):
    for start in range(0, len(VIDEOS), size):
        rows = np.arange(start, start + size)
        yield {
            "video": VIDEOS[np.minimum(rows, len(VIDEOS) - 1)],
            "mask": (rows < len(VIDEOS)).astype(np.float32),
        }


@pytest.mark.parametrize(("devices", "size"), [(1, 7), (1, 8), (8, 8), (8, 16)])
def test_means_and_counts_are_those_of_the_real_rows(devices: int, size: int) -> None:
    mesh = parallel.make_mesh(jax.devices()[:devices])
    found = evaluate(make_eval(eval_step, mesh), jnp.float32(2.0), batches(size), mesh)
    np.testing.assert_allclose(found.scalars["brightness"], 2 * VIDEOS.mean(), rtol=1e-6)
    counts = np.bincount((VIDEOS // 32).ravel(), minlength=10)
    np.testing.assert_array_equal(found.histograms["codes"], counts)
    np.testing.assert_allclose(found.profiles["columns"], VIDEOS.mean((0, 1, 2, 4)), rtol=1e-6)
    columns = VIDEOS.mean((1, 2, 4))
    bright = np.nanmean(np.where(columns > 127, columns, np.nan), 0)
    np.testing.assert_allclose(found.profiles["bright_columns"], bright, rtol=1e-6)
    assert np.isnan(found.profiles["never"]).tolist() == [True, True]
    assert found.histograms.keys() == {"codes"} and found.profiles.keys() == {"columns", "bright_columns", "never"}
    assert found.scalars["codes_used"] == 0.8
    share = counts[:8] / counts.sum()
    np.testing.assert_allclose(found.scalars["codes_perplexity"], np.exp(-(share * np.log(share)).sum()), rtol=1e-9)
    np.testing.assert_array_equal(found.videos["original"], VIDEOS[:size])
    np.testing.assert_allclose(found.videos["negative"], 255.0 - VIDEOS[:size])


def test_padding_is_neither_counted_nor_drawn() -> None:
    mesh = parallel.make_mesh(jax.devices()[:1])
    found = evaluate(make_eval(eval_step, mesh), jnp.float32(1.0), batches(32), mesh)
    assert len(found.videos["original"]) == len(found.videos["negative"]) == len(VIDEOS)
    assert found.histograms["codes"].sum() == VIDEOS.size
