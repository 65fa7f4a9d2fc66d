"""Inception Score (Salimans et al. 2016), in float64 on the host."""

from typing import Any

import numpy as np

from jaxvid.metrics.frechet import as_features


def inception_score(logits: Any, splits: int = 10, seed: int | None = 2020) -> tuple[float, float]:
    """Mean and population standard deviation over the splits of exp(mean over x of KL(p(y|x) || p(y))).

    p(y) is the mean of p(y|x) over the split; split i holds the rows from i N // splits to (i + 1) N // splits.

    Args:
      logits: [N,K], before the softmax; common programs leave out the bias of the Inception network's last layer.
      splits: at least 1 and at most N; the score decreases with fewer samples in a split.
      seed: rows are permuted by NumPy's `RandomState(seed)`, as in torch-fidelity (2020) and StyleGAN-V's video
        Inception Score (42); None keeps their order, as in StyleGAN.

    Raises ValueError for more splits than samples or none, or as `as_features`.
    """
    logits = as_features(logits, "logits")
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} samples make 1 to {len(logits)} splits, got splits={splits}.")
    order = np.arange(len(logits)) if seed is None else np.random.RandomState(seed).permutation(len(logits))
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = [_score(logits[order[a:b]].astype(np.float64)) for a, b in zip(bounds, bounds[1:], strict=False)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray) -> float:
    """The score of one split [N,K], in logarithms, since probabilities may underflow float64."""
    log_conditional = logits - _log_sum_exp(logits, axis=1)
    log_marginal = _log_sum_exp(log_conditional, axis=0) - np.log(len(logits))
    divergences = (np.exp(log_conditional) * (log_conditional - log_marginal)).sum(axis=1)
    return float(np.exp(divergences.mean()))


def _log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    """log(sum(exp(x))) over an axis, which stays with size 1."""
    highest = x.max(axis=axis, keepdims=True)
    return highest + np.log(np.exp(x - highest).sum(axis=axis, keepdims=True))
