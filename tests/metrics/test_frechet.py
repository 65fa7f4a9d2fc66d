"""The Frechet distance against exact values, closed forms and SciPy; statistics that merge; files; intervals."""

import io
import pickle
import re
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from feature_rules import features

from jaxvid.metrics.frechet import (
    Statistics,
    accumulate,
    confidence_interval,
    distance_of_features,
    frechet_distance,
    load,
    merge,
    save,
    student,
)
from jaxvid.metrics.frechet import statistics as statistics_of

# N1, N2, d, shift, then the distance with covariances divided by N - 1 and by N: nuclear norms of the centered data.
EXACT = {
    "fd_d16": (200, 300, 16, 40, 0.8688214662641514, 0.8687752972449942),
    "fd_d64_meanshift": (256, 256, 64, 120, 33.37309598653749, 33.32584470869489),
    "fd_d400_full_rank": (640, 700, 400, 30, 41.253572029628685, 41.20729070980474),
    "fd_d400_n256_singular": (256, 256, 400, 30, 91.17543157658929, 90.85808893072044),
    "fd_d400_n16_vs_n900": (16, 900, 400, 30, 356.21730036529925, 349.1104042381679),
    "fd_d768_n50_singular": (50, 60, 768, 30, 512.2079685983417, 504.47823061630174),
    "fd_constant_vs_spread": (40, 60, 32, 0, 88.57569577726694, 87.83249401723344),
    "fd_n2_d10": (2, 2, 10, 60, 62.621083583682775, 54.42633978277445),
}
singular = pytest.mark.filterwarnings("ignore:.*singular covariance")


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def assert_statistics_close(got: Statistics, want: Statistics, rtol: float) -> None:
    assert got.count == want.count
    np.testing.assert_allclose(got.mean, want.mean, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(got.scatter, want.scatter, rtol=rtol, atol=rtol * np.abs(want.scatter).max())


@singular
@pytest.mark.parametrize("case", EXACT)
def test_distance_is_exact(case):
    """Also where covariances are singular, where square roots of the product are off by 1e-4."""
    count1, count2, dim, shift, unbiased, biased = EXACT[case]
    first, second = features(f"{case}/1", count1, dim), features(f"{case}/2", count2, dim, shift)
    if case == "fd_constant_vs_spread":
        first = np.repeat(first[:1], count1, axis=0)
    a, b = statistics_of(first), statistics_of(second)
    np.testing.assert_allclose(frechet_distance(a, b), unbiased, rtol=1e-11)
    np.testing.assert_allclose(frechet_distance(a, b, ddof=0), biased, rtol=1e-11)
    np.testing.assert_allclose(frechet_distance(b, a), unbiased, rtol=1e-11)


@singular
@pytest.mark.parametrize(("count", "dim"), [(64, 128), (300, 64), (2, 50)])
def test_a_set_has_no_distance_to_itself(count, dim):
    rows = features("fd_identical/1", count, dim) + 3
    for other in (rows, rows[::-1]):
        assert frechet_distance(statistics_of(rows), statistics_of(other)) == distance_of_features(rows, other) == 0


def test_one_dimension_in_closed_form():
    x, y = normal(0, 50, 1), 3 * normal(1, 70, 1) + 5
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    np.testing.assert_allclose(frechet_distance(statistics_of(x), statistics_of(y)), expected, rtol=1e-12)


def test_agrees_with_the_matrix_square_root_of_well_conditioned_covariances():
    x, y = normal(0, 400, 20) @ normal(1, 20, 20), normal(2, 500, 20) @ normal(3, 20, 20) + 1
    product = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    trace = np.trace(np.cov(x.T) + np.cov(y.T) - 2 * product)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + trace
    np.testing.assert_allclose(frechet_distance(statistics_of(x), statistics_of(y)), expected, rtol=1e-10)


def nuclear_distance(x: np.ndarray, y: np.ndarray) -> float:
    """From the nuclear norm of the features' product, which needs no covariance."""
    gap = np.square(x.mean(0) - y.mean(0)).sum()
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    return gap + np.square(x).sum() + np.square(y).sum() - 2 * np.linalg.norm(x @ y.T, "nuc")


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_collinear_features_of_many_samples(noise):
    x, y = normal(0, 300, 8) @ normal(1, 8, 40), normal(2, 200, 4) @ normal(3, 4, 40)
    x, y = x + noise * normal(4, 300, 40), y + noise * normal(5, 200, 40)
    got = frechet_distance(statistics_of(x), statistics_of(y))
    np.testing.assert_allclose(got, nuclear_distance(x, y), rtol=1e-9 if noise else 1e-12)


def test_a_covariance_that_is_singular_but_for_rounding():
    """Three features, the last the sum of the others: rounding decides whether Cholesky's method succeeds."""
    for seed in range(20):
        x, y = normal(seed, 30, 2) @ np.array([[1, 0, 1], [0, 1, 1]]), normal(seed + 100, 30, 3)
        got = frechet_distance(statistics_of(x), statistics_of(y))
        np.testing.assert_allclose(got, nuclear_distance(x, y), rtol=1e-12)


def test_few_samples_warn_with_their_number_and_the_dimension():
    few, enough = statistics_of(normal(0, 10, 10)), statistics_of(normal(1, 11, 10))
    with pytest.warns(UserWarning, match="10 samples of 10 dimensions .* use at least 11"):
        frechet_distance(enough, few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(enough, enough)


def test_statistics_are_numpys():
    x = (1000 + normal(0, 2500, 7)).astype(np.float32)  # more than two blocks, far from zero
    got = statistics_of(x)
    assert got.count == 2500 and got.mean.dtype == got.scatter.dtype == np.float64
    np.testing.assert_allclose(got.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    for ddof in (0, 1):
        np.testing.assert_allclose(got.covariance(ddof), np.cov(x.astype(np.float64).T, ddof=ddof), atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 1024, 1500])
def test_the_batch_size_changes_no_bit(size):
    x = normal(0, 2500, 5)
    whole, batches = statistics_of(x), accumulate(x[i : i + size] for i in range(0, len(x), size))
    assert batches.count == whole.count
    np.testing.assert_array_equal(batches.mean, whole.mean)
    np.testing.assert_array_equal(batches.scatter, whole.scatter)


def test_merged_parts_are_the_whole():
    """In any grouping, also of single rows, and far from zero, where sums of squares would lose every digit."""
    x = 1e6 + normal(0, 60, 4)
    whole, (a, b, c) = statistics_of(x), (statistics_of(part) for part in np.split(x, [1, 20]))
    for merged in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(c, merge(b, a))):
        assert_statistics_close(merged, whole, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 0)), np.zeros((2, 3, 4)), 1.0])
def test_features_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match=r"features is float64 .*, expected \[N>=1,d>=1\]"):
        statistics_of(bad)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    x = normal(0, 5, 3)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        statistics_of(x)


def test_impossible_requests_are_named():
    a, one, unknown = (
        statistics_of(normal(0, 9, 3)),
        statistics_of(normal(0, 1, 3)),
        Statistics(None, np.zeros(3), np.eye(3)),
    )
    other = statistics_of(normal(0, 9, 4))
    for call, message in [
        (lambda: accumulate([]), "at least one batch"),
        (lambda: accumulate([normal(0, 2, 3), normal(0, 2, 4)]), "dimension: 3 and then 4"),
        (lambda: merge(a, other), "equal dimension merge, got 3 and 4"),
        (lambda: merge(a, unknown), "unknown N"),
        (lambda: frechet_distance(a, other), "equal dimension, got 3 and 4"),
        (lambda: frechet_distance(a, one), "at least 2 samples in each set, got 1"),
        (lambda: frechet_distance(a, one, ddof=0), "at least 2 samples in each set, got 1"),
        (lambda: a.covariance(ddof=2), "got ddof=2"),
        (lambda: one.covariance(), "at least 2 samples, got 1"),
        (lambda: unknown.covariance(ddof=0), "needs ddof=1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_file_keeps_everything(tmp_path):
    path, want = tmp_path / "real.stats", statistics_of(normal(0, 50, 6))
    save(path, want, feature="i3d", frames=16, stride=2, scale=0.5)
    got, metadata = load(path)
    assert metadata == {"feature": "i3d", "frames": 16, "stride": 2, "scale": 0.5}
    assert_statistics_close(got, want, rtol=1e-14)
    with np.load(path) as archive:  # as pytorch-fid reads it
        np.testing.assert_array_equal(archive["mu"], want.mean)
        np.testing.assert_array_equal(archive["sigma"], want.covariance())


def test_a_file_without_a_count_is_good_for_distances_alone(tmp_path):
    path, x, y = tmp_path / "fid.npz", normal(0, 50, 6), normal(1, 40, 6)
    np.savez(path, mu=x.mean(0), sigma=np.cov(x.T))
    got, metadata = load(path)
    assert got.count is None and metadata == {}
    want = frechet_distance(statistics_of(x), statistics_of(y))
    np.testing.assert_allclose(frechet_distance(got, statistics_of(y)), want, rtol=1e-10)
    with pytest.raises(ValueError, match="needs ddof=1"):
        frechet_distance(got, statistics_of(y), ddof=0)
    save(tmp_path / "again.npz", got)
    assert load(tmp_path / "again.npz")[0].count is None


def test_a_file_divided_by_n_is_read_as_such(tmp_path):
    path, want = tmp_path / "biased.npz", statistics_of(normal(0, 50, 6))
    np.savez(path, mu=want.mean, sigma=want.covariance(ddof=0), n=50, ddof=0)
    assert_statistics_close(load(path)[0], want, rtol=1e-14)


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


class Touch:
    def __reduce__(self):
        return open, (Touch.path, "w")


GOOD = {"mu": np.zeros(3), "sigma": np.eye(3)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npz file"),
        (b"mu,sigma\n0,1\n", "no .npz file"),
        (archive(**GOOD)[:-40], "no .npz file"),
        (archive(**GOOD).replace(b"\x93NUMPY", b"\x93NAMPY"), "is damaged, or holds no array of numbers"),
        (archive(mu=np.zeros(3)), re.escape("holds ['mu'], but")),
        (archive(mu=np.zeros(3), sigma=np.eye(4)), re.escape("mu (3,) and sigma (4, 4), expected [d] and [d,d]")),
        (archive(mu=np.zeros((1, 3)), sigma=np.eye(3)), "expected"),
        (archive(mu=np.zeros(0), sigma=np.zeros((0, 0))), "expected"),
        (archive(mu=np.array([0, np.nan, 0]), sigma=np.eye(3)), "a mu that is not finite"),
        (archive(mu=np.zeros(3), sigma=np.full((3, 3), "x")), "a sigma that is not finite"),
        (archive(**GOOD, n=5), "a ddof that is not one integer"),
        (archive(**GOOD, n=5.5, ddof=1), "a n that is not one integer"),
        (archive(**GOOD, n=1, ddof=1), "has n=1 and ddof=1"),
        (archive(**GOOD, n=9, ddof=3), "has n=9 and ddof=3"),
    ],
    ids=range(14),
)
def test_files_of_something_else_are_refused(tmp_path, content, message):
    path = tmp_path / "stats.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


def test_other_dimensions_are_refused_before_they_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(4), sigma=np.full((4, 4), np.nan), note="x" * 20_000, more=np.zeros(9))
    with pytest.raises(ValueError, match="has statistics of 4 dimensions, expected 3"):
        load(tmp_path / "a.npz", dimension=3)
    np.savez(tmp_path / "b.npz", mu=np.zeros(4097), sigma=np.zeros((4097, 4097), "u1"))
    with pytest.raises(ValueError, match="has statistics of 4097 dimensions, expected at most 4096"):
        load(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **GOOD, note="x" * 20_000, more=np.zeros(9), short="y")
    assert load(tmp_path / "c.npz")[1] == {"short": "y"}


def test_nothing_in_a_file_is_executed(tmp_path):
    Touch.path = str(tmp_path / "executed")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Touch()))
    np.savez(tmp_path / "object.npz", mu=np.array([Touch()], object), sigma=np.eye(1))
    (tmp_path / "executed").unlink(missing_ok=True)
    for name, sentence in (("bare.npz", "no .npz file"), ("object.npz", "holds no array of numbers")):
        with pytest.raises(ValueError, match=sentence):
            load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_saving_refuses_what_could_not_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"arrays called \['mu', 'n'\]"):
        save(tmp_path / "a.npz", statistics_of(normal(0, 5, 2)), mu=1, n=2, feature="x")
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        save(tmp_path / "a.npz", statistics_of(normal(0, 1, 2)))
    assert not list(tmp_path.iterdir())


def mean_gap(real: np.ndarray, fake: np.ndarray) -> float:
    return float((real - fake.mean(axis=0)).mean())


def distance(real: np.ndarray, fake: np.ndarray) -> float:
    return frechet_distance(statistics_of(real), statistics_of(fake))


@pytest.mark.parametrize(("spread", "shift"), [(1.0, 0.3), (1.0, 0.0), (1 / np.sqrt(np.arange(1, 61)), 0.0)])
def test_the_interval_covers_where_samples_are_fewer_than_dimensions(spread, shift):
    """tests/benchmarks/coverage.py has 400 dimensions, and more of everything."""
    rng = np.random.default_rng(0)

    def draw():
        return rng.normal(0, spread, (16, 60)), rng.normal(shift, spread, (16, 60))

    target = np.mean([distance_of_features(*draw()) for _ in range(2000)])
    trials = [confidence_interval(distance_of_features, *draw(), seed=i, resamples=25) for i in range(400)]
    covered = np.mean([low <= target <= high for _, low, high in trials])
    assert 0.92 < covered < 0.98  # 400 trials of probability 0.95 have a standard deviation of 0.011


def test_the_interval_does_not_depend_on_the_order_of_rows():
    x, y = normal(0, 21, 5), normal(1, 30, 5)
    expected = confidence_interval(distance, x, y, seed=0, resamples=5)
    assert confidence_interval(distance, x[::-1], np.roll(y, 7, 0), seed=0, resamples=5) == expected


def test_quantiles_of_students_t():
    for freedom in (5, 7, 19, 49):
        assert student(0.975, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=0.01)


@pytest.mark.parametrize("metric", [mean_gap, distance])
def test_the_interval_covers_at_its_level(metric):
    """The mean over data sets of this size: 1 for the gap of means; for the distance, that of other data sets."""
    rng = np.random.default_rng(0)

    def draw():
        return rng.normal(1, 1, (80, 2)), rng.normal(0, 2, (60, 2))

    target = 1.0 if metric is mean_gap else np.mean([metric(*draw()) for _ in range(2000)])
    trials = [confidence_interval(metric, *draw(), seed=i, level=0.9, resamples=40) for i in range(400)]
    covered = np.mean([low <= target <= high for _, low, high in trials])
    assert 0.85 < covered < 0.94  # 400 trials of probability 0.9 have a standard deviation of 0.015


def test_half_samples_vary_as_the_whole_does_and_a_bootstrap_moves_upwards():
    x, y = normal(0, 100, 20), normal(1, 100, 20)
    value, low, high = confidence_interval(distance, x, y, seed=0, resamples=30)
    assert low < value < high and value == pytest.approx(distance(x, y), rel=1e-12)
    rng = np.random.default_rng(0)
    bootstrap = [distance(x[rng.integers(0, 100, 100)], y[rng.integers(0, 100, 100)]) for _ in range(20)]
    assert min(bootstrap) > high
    assert confidence_interval(distance, x, y, seed=0, resamples=30) == (value, low, high)
    assert confidence_interval(distance, x, y, seed=1, resamples=30)[1:] != (low, high)
    narrow = confidence_interval(distance, x, y, seed=0, level=0.5, resamples=30)
    np.testing.assert_allclose((narrow[2] - value) / (high - value), 0.683044 / 2.045230, rtol=1e-4)  # of t, 29


def test_an_interval_says_once_that_samples_are_few():
    with pytest.warns(UserWarning) as caught:
        confidence_interval(distance, normal(0, 20, 30), normal(1, 20, 30), seed=0, resamples=3)
    assert len(caught) == 1 and "20 samples of 30" in str(caught[0].message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": np.zeros((3, 2))}, r"real is float64 \[3,2\], expected \[N>=4,d>=1\]"),
        ({"level": 1.0}, "0 < level < 1"),
        ({"resamples": 1}, "resamples >= 2"),
        ({"fake": np.full((9, 2), np.nan)}, "fake holds NaN"),
    ],
)
def test_impossible_intervals_are_named(changes, message):
    arguments = {"metric": mean_gap, "real": np.zeros((9, 2)), "fake": np.zeros((9, 2)), "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        confidence_interval(**arguments)
