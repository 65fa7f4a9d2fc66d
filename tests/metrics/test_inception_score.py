"""The Inception Score against torch-fidelity's numbers and closed forms."""

import numpy as np
import pytest
from feature_rules import logits

from jaxvid.metrics.inception_score import inception_score

EXPECTED = [
    ("is_1008", 500, 1008, 1, 2020, 22.83400260765483, 0.0),
    ("is_1008", 500, 1008, 10, 2020, 15.25731168931814, 1.3743237967450144),
    ("is_1008", 500, 1008, 10, None, 15.469453777721238, 0.6870189058079142),
    ("is_101_odd", 203, 101, 1, None, 11.375334697454997, 0.0),
    ("is_101_odd", 203, 101, 10, 2020, 8.002290459334535, 0.5072895723292824),
    ("is_101_odd", 203, 101, 10, None, 7.701953471092544, 0.6150610916707862),
]


@pytest.mark.parametrize(("case", "count", "classes", "splits", "seed", "mean", "deviation"), EXPECTED)
def test_equals_torch_fidelity(case, count, classes, splits, seed, mean, deviation):
    got = inception_score(logits(case, count, classes), splits, seed)
    np.testing.assert_allclose(got, (mean, deviation), rtol=1e-11, atol=1e-13)


def test_closed_forms():
    """One sure class each: the number of classes. No opinion, or always the same one: 1. A constant: nothing."""
    sure = np.tile(1e4 * np.eye(7), (3, 1))  # probabilities of exp(-10000), which float64 does not hold
    np.testing.assert_allclose(inception_score(sure, splits=3, seed=None), (7.0, 0.0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(inception_score(np.zeros((20, 5))), (1.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(inception_score(np.tile(sure[:1], (20, 1))), (1.0, 0.0), atol=1e-12)
    shifts = 1e5 * np.arange(21)[:, None]
    np.testing.assert_allclose(inception_score(sure + shifts, splits=1), (7.0, 0.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("splits", [0, 6])
def test_impossible_splits_are_named(splits):
    with pytest.raises(ValueError, match=f"5 samples make 1 to 5 splits, got splits={splits}"):
        inception_score(np.zeros((5, 3)), splits)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="logits holds NaN"):
        inception_score(np.full((20, 3), np.nan))
