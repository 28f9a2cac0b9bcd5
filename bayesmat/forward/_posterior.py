"""Posteriors of the weights given scales, and leave-one-out predictions; float64 linear algebra on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from ._models import Sufficient


class Weights(NamedTuple):
    """Draws of the weights and what the same posterior says about each training row without it.

    Attributes:
        draws: `(K, D)`; their average is the posterior mean exactly.
        scale: `(K, G)` group scales that each draw belongs to.
        sigma: `(K,)` noise that it belongs to.
        loo_mean: `(n,)` mean of the function at each row, given the others.
        loo_variance: `(n,)` its variance.
    """

    draws: np.ndarray
    scale: np.ndarray
    sigma: np.ndarray
    loo_mean: np.ndarray
    loo_variance: np.ndarray


def sufficient(matrix: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Sufficient:
    """Sufficient statistics of standardised rows."""
    return Sufficient(matrix.T @ matrix, matrix.T @ y, y @ y, np.float64(len(y)), groups)  # type: ignore[arg-type]


def given(stats: Sufficient, scale: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The Gaussian posterior of the weights for one set of scales: its mean and the Cholesky factor of its precision.

    Args:
        stats: sufficient statistics.
        scale: `(G,)`.
        sigma: noise.
    """
    precision = scale**-2.0 @ stats.groups + (1.0 - stats.groups.sum(0))
    factor = np.linalg.cholesky(np.asarray(stats.gram) / sigma**2 + np.diag(precision))
    half = solve_triangular(factor, np.asarray(stats.moment) / sigma**2, lower=True)
    return solve_triangular(factor, half, lower=True, trans="T"), factor


def leave_one_out(
    matrix: np.ndarray, y: np.ndarray, mean: np.ndarray, factor: np.ndarray, sigma: float, batch: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the function at each row, given the other rows and the scales; no refit.

    With leverage h = φᵀA⁻¹φ/σ²: y − r/(1 − h), and φᵀA⁻¹φ/(1 − h).

    Args:
        matrix: `(n, D)` rows φ.
        y: `(n,)`.
        mean: `(D,)` posterior mean with all rows.
        factor: `(D, D)` Cholesky factor of A.
        sigma: noise.
        batch: rows at a time.

    Source: Rasmussen and Williams 2006, equation 5.12.
    """
    variance = np.empty(len(y))
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        variance[rows] = (solve_triangular(factor, matrix[rows].T, lower=True) ** 2).sum(0)
    others = 1.0 - np.minimum(variance / sigma**2, 1.0 - 1e-9)
    return y - (y - matrix @ mean) / others, variance / others


def draw(
    matrix: np.ndarray,
    y: np.ndarray,
    stats: Sufficient,
    scales: np.ndarray,
    sigmas: np.ndarray,
    num_draws: int,
    rng: np.random.Generator,
) -> Weights:
    """Draws of the weights, shared evenly between M draws of the scales, and leave-one-out moments over all of them.

    The draws are shifted so that their average is the posterior mean: a search over many candidates would find those
    that Monte Carlo error favours.

    Args:
        matrix: `(n, D)`.
        y: `(n,)`.
        stats: their sufficient statistics.
        scales: `(M, G)`.
        sigmas: `(M,)`.
        num_draws: K.
        rng: random numbers.
    """
    owner = np.arange(num_draws) * len(scales) // num_draws
    draws = np.empty((num_draws, matrix.shape[1]))
    target = np.zeros(matrix.shape[1])
    loo_means, loo_variances = [], []
    for index, (scale, sigma) in enumerate(zip(scales, sigmas, strict=True)):
        mean, factor = given(stats, scale, sigma)
        mine = owner == index
        noise = rng.standard_normal((int(mine.sum()), matrix.shape[1]))
        draws[mine] = mean + solve_triangular(factor, noise.T, lower=True, trans="T").T
        target += mean / len(scales)
        loo_mean, loo_variance = leave_one_out(matrix, y, mean, factor, sigma)
        loo_means.append(loo_mean)
        loo_variances.append(loo_variance)
    draws += target - draws.mean(0)
    variance = np.mean(loo_variances, axis=0) + np.var(loo_means, axis=0)
    return Weights(draws, scales[owner], sigmas[owner], np.mean(loo_means, axis=0), variance)
