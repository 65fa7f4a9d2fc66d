"""One pass over held-out clips against NumPy, and what an eval_step may not return."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import parallel
from jaxvid.core import Evaluated, Profile
from jaxvid.evaluate.heldout import Evaluation, evaluate, make_eval
from jaxvid.evaluate.suite import Score

RNG = np.random.default_rng(0)
VIDEOS = RNG.integers(0, 256, (21, 2, 4, 4, 3), np.uint8)
ONE = parallel.make_mesh(jax.devices()[:1])


def eval_step(state: float, batch: dict, key: jax.Array) -> Evaluated:
    video = batch["video"].astype(jnp.float32)
    codes = batch["video"].reshape(len(video), -1).astype(jnp.int32) // 32
    columns = video.mean((1, 2, 4))
    return Evaluated(
        scalars={"brightness": state * video.mean((1, 2, 3, 4)), "is_dark": columns[:, 0] < 127},
        counts={"codes": jax.vmap(lambda row: jnp.zeros(10, jnp.int32).at[row].add(1))(codes)},
        profiles={
            "columns": Profile(columns, ("a", "b", "c", "d")),
            "bright_columns": Profile(jnp.where(columns > 127, columns, jnp.nan)),
            "never": Profile(jnp.full((len(video), 2), jnp.nan)),
        },
        panels={"original": batch["video"], "negative": 255 - video},
    )


def batches(size: int) -> Iterator[dict]:
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
    columns = VIDEOS.mean((1, 2, 4))
    np.testing.assert_allclose(found.scalars["brightness"], 2 * VIDEOS.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.scalars["is_dark"], (columns[:, 0] < 127).mean(), rtol=1e-12)
    counts = np.bincount((VIDEOS // 32).ravel(), minlength=10)
    np.testing.assert_array_equal(found.histograms["codes"], counts)
    assert found.scalars["codes_used"] == 0.8
    share = counts[:8] / counts.sum()
    np.testing.assert_allclose(found.scalars["codes_perplexity"], np.exp(-(share * np.log(share)).sum()), rtol=1e-9)
    np.testing.assert_allclose(found.profiles["columns"].values, columns.mean(0), rtol=1e-6)
    assert found.profiles["columns"].names == ("a", "b", "c", "d") and found.profiles["never"].names == ()
    bright = np.nanmean(np.where(columns > 127, columns, np.nan), 0)
    np.testing.assert_allclose(found.profiles["bright_columns"].values, bright, rtol=1e-6)
    assert np.isnan(found.profiles["never"].values).tolist() == [True, True]
    assert list(found.panels) == ["original", "negative"]  # as eval_step has them
    np.testing.assert_array_equal(found.panels["original"], VIDEOS[:size])
    np.testing.assert_allclose(found.panels["negative"], 255.0 - VIDEOS[:size])


def test_padding_is_neither_counted_nor_drawn() -> None:
    found = evaluate(make_eval(eval_step, ONE), jnp.float32(1.0), batches(32), ONE)
    assert len(found.panels["original"]) == len(found.panels["negative"]) == len(VIDEOS)
    assert found.histograms["codes"].sum() == VIDEOS.size


def test_counts_beyond_the_integers_of_float32_are_exact() -> None:
    def many(state: float, batch: dict, key: jax.Array) -> Evaluated:
        return Evaluated(scalars={}, counts={"codes": jnp.full((len(batch["video"]), 2), 2**24 + 1, jnp.int32)})

    found = evaluate(make_eval(many, ONE), jnp.float32(1.0), batches(7), ONE)
    assert found.histograms["codes"].tolist() == [21 * (2**24 + 1)] * 2


def test_nothing_comes_of_no_batches() -> None:
    found = evaluate(make_eval(eval_step, ONE), jnp.float32(1.0), [], ONE)
    assert found == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda n: {"loss": jnp.zeros(n)}, "returned dict, expected core.Evaluated"),
        (lambda n: Evaluated({"loss": jnp.zeros(())}), r"loss of eval_step's scalars is float32 \[\], expected \[7\]"),
        (lambda n: Evaluated({"loss": jnp.zeros((n, 3))}), r"scalars is float32 \[7,3\], expected \[7\]"),
        (lambda n: Evaluated({"loss": 0.5}), r"scalars is float32 \[\], expected \[7\]"),
        (lambda n: Evaluated({}, {"codes": jnp.zeros(n, int)}), r"counts is int32 \[7\], expected int \[7,K\]"),
        (lambda n: Evaluated({}, {"codes": jnp.zeros((n, 3))}), r"counts is float32 \[7,3\], expected int \[7,K\]"),
        (
            lambda n: Evaluated({}, {}, {"kl": jnp.zeros((n, 3))}),
            "profiles is .*, but profiles are core.Profile",
        ),
        (lambda n: Evaluated({}, {}, {"kl": Profile(jnp.zeros(n))}), r"profiles is float32 \[7\], expected \[7,K\]"),
        (lambda n: Evaluated({"kl": Profile(jnp.zeros((n, 3)))}), "scalars is Profile, but profiles are"),
        (lambda n: Evaluated({}, {}, {"kl": Profile(jnp.zeros((n, 3)), ("a",))}), "profiles has 1 names for 3 entries"),
        (lambda n: Evaluated({}, panels={"film": jnp.zeros((n, 4, 4, 3))}), r"panels is float32 \[7,4,4,3\], expected"),
        (
            lambda n: Evaluated({}, panels={"film": jnp.zeros((2, 1, 4, 4, 3))}),
            r"\[2,1,4,4,3\], expected \[7,T,",
        ),
        (
            lambda n: Evaluated({"codes_used": jnp.zeros(n)}, {"codes": jnp.zeros((n, 3), jnp.int32)}),
            "scalars codes_used, which is computed from counts codes: rename one",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_name(returned: Callable[[int], Evaluated], sentence: str) -> None:
    step = make_eval(lambda state, batch, key: returned(len(batch["video"])), ONE)
    with pytest.raises(ValueError, match=sentence) as caught:
        evaluate(step, jnp.float32(1.0), batches(7), ONE)
    assert str(caught.value).count("\n") == 0


def test_a_score_never_takes_the_name_of_a_scalar() -> None:
    scores = [Score(name, 2.0, None, 8, 8, "clips", {"generated": "reconstructions"}) for name in ("psnr", "fvd")]
    found = Evaluation({"psnr": 1.0, "loss": 3.0}, {}, {}, {}).with_scores(scores)
    assert found.scalars == {"psnr": 1.0, "loss": 3.0, "psnr_of_reconstructions": 2.0, "fvd": 2.0}
