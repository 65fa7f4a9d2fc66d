"""KID against the numbers of torch-fidelity and clean-fid, and against the definition pair by pair."""

import numpy as np
import pytest
from feature_rules import features

from jaxvid.metrics.kid import kid, polynomial_mmd

# N1, N2, d, shift; for (subsets, size) torch-fidelity's mean and deviation and clean-fid's mean, float64, seed 2020.
EXPECTED = {
    "kid_d64": (
        (200, 180, 64, 25),
        {
            (1, 180): (0.14103828090820514, 0.0, 0.08943850145001053),
            (10, 50): (-0.034821057751093495, 0.46706970547066773, 0.004717112194320635),
            (100, 100): (0.1295231270817612, 0.17663273097935595, 0.08013427517065771),
        },
    ),
    "kid_d400": (
        (120, 150, 400, 25),
        {
            (1, 120): (0.19507016820156053, 0.0, 0.12935461877315976),
            (10, 50): (0.0926158689891082, 0.2786825762159, 0.14075684245345654),
            (100, 100): (0.12117598414597136, 0.08193814433022975, 0.13375021391840755),
        },
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_draws_and_values_are_those_of_torch_fidelity_and_clean_fid(case):
    """Set 1 is input 1 of torch-fidelity, and the real one of clean-fid: both draw the fake set first."""
    (count1, count2, dim, shift), expected = EXPECTED[case]
    first, second = features(f"{case}/1", count1, dim), features(f"{case}/2", count2, dim, shift)
    for (subsets, size), (mean, deviation, clean_fid) in expected.items():
        np.testing.assert_allclose(kid(second, first, subsets, size), (mean, deviation), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(kid(first, second, subsets, size)[0], clean_fid, rtol=1e-11)
    assert kid(first, second, 2, 50, seed=1) != kid(first, second, 2, 50, seed=2)


def test_whole_sets_have_the_expected_values():
    for case, count, dim, shift, expected in [
        ("kid_d64", 180, 64, 25, 0.10264812470331464),
        ("kid_d400", 120, 400, 25, 0.19607132775374936),
        ("kid_d64_same_dist", 250, 64, 0, 0.0431448207741596),
    ]:
        sizes = (200, 180) if case == "kid_d64" else (120, 150) if case == "kid_d400" else (250, 250)
        first, second = features(f"{case}/1", sizes[0], dim), features(f"{case}/2", sizes[1], dim, shift)
        np.testing.assert_allclose(polynomial_mmd(first[:count], second[:count]), expected, rtol=1e-11)


def test_sizes_and_tiles_may_differ(monkeypatch):
    """The definition pair by pair; tiles of 4 leave rests on both sides."""
    x, y = (np.random.default_rng(i).normal(i, 1, (n, 3)) for i, n in enumerate((11, 6)))
    monkeypatch.setattr("jaxvid.metrics.kid.TILE", 4)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    def within(z):
        return np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

    expected = within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    np.testing.assert_allclose(polynomial_mmd(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(polynomial_mmd(y, x), expected, rtol=1e-12)


def test_unbiased_about_zero():
    """The mean over many pairs of sets of one distribution is 0 within its error; a biased estimate is far above."""
    rng = np.random.default_rng(0)
    values = [polynomial_mmd(rng.normal(size=(6, 2)), rng.normal(size=(9, 2))) for _ in range(1500)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


@pytest.mark.parametrize(
    ("real", "fake", "options", "message"),
    [
        ((9, 3), (5, 3), {"subset_size": 6}, "got 9 real and 5 fake: compute more, or pass a smaller subset_size"),
        ((9, 3), (9, 4), {"subset_size": 6}, "equal dimension, got 3 and 4"),
        ((9, 3), (9, 3), {"subset_size": 1}, "subset_size >= 2"),
        ((9, 3), (9, 3), {"subset_size": 6, "subsets": 0}, "subsets >= 1"),
    ],
)
def test_impossible_requests_are_named(real, fake, options, message):
    with pytest.raises(ValueError, match=message):
        kid(np.zeros(real), np.zeros(fake), **options)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match=r"real is float64 \[1,3\], expected \[N>=2,d>=1\]"):
        polynomial_mmd(np.zeros((1, 3)), np.zeros((5, 3)))
