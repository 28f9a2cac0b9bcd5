"""Scores of predictions against observations. NumPy in, NumPy out; n observations, m draws of the prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from .._types import BayesmatError

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Probabilities of the central intervals that coverage is reported for."""


def coverage(
    observed: ArrayLike,
    predictive: ArrayLike | Callable[[float], ArrayLike],
    levels: Sequence[float] = LEVELS,
) -> dict[float, float]:
    """The share of observations inside the central interval of each level; a calibrated prediction has share = level.

    Args:
        observed: `(n,)`.
        predictive: draws `(m, n)`, or the quantile function q → `(n,)`.
        levels: probabilities of the intervals, in (0, 1).

    >>> coverage([0.0, 3.0], lambda q: scipy.special.ndtri(q) * np.ones(2), [0.9])
    {0.9: 0.5}
    """
    y = np.asarray(observed, float)
    if callable(predictive):
        quantile = predictive
    else:
        draws = _draws(y, predictive)

        def quantile(q: float) -> np.ndarray:
            return np.quantile(draws, q, axis=0)

    result = {}
    for level in levels:
        if not 0.0 < level < 1.0:
            raise BayesmatError(f"levels lie in (0, 1), got {level}")
        lower, upper = quantile(0.5 - level / 2), quantile(0.5 + level / 2)
        result[float(level)] = float(np.mean((lower <= y) & (y <= upper)))
    return result


def _draws(observed: np.ndarray, draws: ArrayLike) -> np.ndarray:
    array = np.asarray(draws, float)
    if array.ndim != observed.ndim + 1 or array.shape[1:] != observed.shape or len(array) < 1:
        raise BayesmatError(f"draws of shape {array.shape} do not belong to observations of shape {observed.shape}")
    return array


def pit(observed: ArrayLike, draws: ArrayLike) -> np.ndarray:
    """Probability integral transform: the share of draws `(m, n)` below each observation `(n,)`, ties counted half.

    Uniform on [0, 1] where predictions are calibrated.
    """
    y = np.asarray(observed, float)
    samples = _draws(y, draws)
    return np.mean((samples < y) + 0.5 * (samples == y), axis=0)


def nll(log_density: ArrayLike) -> float:
    """Mean negative log predictive density of the observations [nats], from the log density of each."""
    return float(-np.mean(np.asarray(log_density, float)))


def crps(observed: ArrayLike, draws: ArrayLike) -> np.ndarray:
    """Continuous ranked probability score of each observation, `(n,)`, in the observation's unit; less is better.

    E|Y − y| − ½ E|Y − Y′| with both expectations over the m draws `(m, n)` of the prediction.

    Source: Gneiting and Raftery 2007, doi 10.1198/016214506000001437.
    """
    y = np.asarray(observed, float)
    samples = np.sort(_draws(y, draws), axis=0)
    m = len(samples)
    # Of sorted draws, the k-th enters the m² pairwise distances with weight 2(2k − m + 1).
    rank = (2.0 * np.arange(m) - m + 1.0).reshape(-1, *[1] * y.ndim)
    return np.mean(np.abs(samples - y), axis=0) - np.sum(rank * samples, axis=0) / m**2


def crps_normal_mixture(observed: ArrayLike, loc: ArrayLike, scale: ArrayLike) -> np.ndarray:
    """The score of `crps` in closed form for equal-weight mixtures of K normals; takes K² numbers an observation.

    Args:
        observed: `(n,)`.
        loc: means `(n, K)`.
        scale: standard deviations `(n, K)`.

    Source: Grimit et al. 2006, doi 10.1256/qj.05.235.
    """
    y, loc, scale = (np.asarray(value, float) for value in (observed, loc, scale))
    first = _mean_absolute(y[:, None] - loc, scale).mean(-1)
    spread = np.hypot(scale[:, :, None], scale[:, None, :])
    second = _mean_absolute(loc[:, :, None] - loc[:, None, :], spread).mean((-1, -2))
    return first - 0.5 * second


def _mean_absolute(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """E|N(mean, sd²)|."""
    z = mean / sd
    return mean * (2.0 * scipy.special.ndtr(z) - 1.0) + 2.0 * sd * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
