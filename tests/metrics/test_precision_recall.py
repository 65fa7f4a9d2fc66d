"""Precision and recall against torch-fidelity's numbers and against integer arithmetic, where ties are exact."""

import numpy as np
import pytest
from feature_rules import features

from jaxvid.metrics.precision_recall import precision_recall

# Number of fake and of real samples, d, shift of the real ones, k; then precision and recall.
EXPECTED = {
    "prc_d64": (180, 220, 64, 10, 3, 0.9444444179534912, 0.9363636374473572),
    "prc_d16_k5": (150, 150, 16, 30, 5, 0.9933333396911621, 0.9800000190734863),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_equals_torch_fidelity(case):
    count_fake, count_real, dim, shift, k, precision, recall = EXPECTED[case]
    fake, real = features(f"{case}/1", count_fake, dim), features(f"{case}/2", count_real, dim, shift)
    np.testing.assert_allclose(precision_recall(real, fake, k), (precision, recall), atol=1e-7)  # float32 there


def by_definition(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    def squares(a, b):
        return np.square(a[:, None] - b[None]).sum(-1)

    def share(inside, of):
        radii = np.sort(squares(of, of), axis=1)[:, k]  # position 0 is the sample itself
        return float((squares(inside, of) <= radii).any(axis=1).mean())

    return share(fake, real), share(real, fake)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("tile", [4, 1024])
def test_ties_and_repeated_samples_as_in_integers(monkeypatch, k, tile):
    """Small integers have many equal distances and many equal samples; an offset and a scale change no decision."""
    monkeypatch.setattr("jaxvid.metrics.precision_recall.TILE", tile)
    rng = np.random.default_rng(k)
    precisions = []
    for _ in range(10):
        real, fake = rng.integers(0, 5, (30, 3)), rng.integers(2, 7, (23, 3))
        expected = by_definition(real, fake, k)
        assert precision_recall(real, fake, k) == expected
        assert precision_recall(0.1 * real + 100 / 3, 0.1 * fake + 100 / 3, k) == expected
        precisions.append(expected[0])
    assert 0 < min(precisions) < 1


def test_equal_and_far_sets():
    x = np.random.default_rng(0).normal(size=(50, 8))
    assert precision_recall(x, x[::-1]) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)
    assert precision_recall(x, np.repeat(x[:5], 4, axis=0))[0] == 1.0  # collapsed: realistic, but little is covered
    assert precision_recall(x, np.repeat(x[:5], 4, axis=0))[1] == 0.1


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        ((9, 3), (9, 4), 3, "equal dimension, got 3 and 4"),
        ((9, 3), (3, 3), 3, "got k=3 and N of 9 and 3"),
        ((9, 3), (9, 3), 0, "got k=0"),
    ],
)
def test_impossible_requests_are_named(real, fake, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(np.zeros(real), np.zeros(fake), k)
