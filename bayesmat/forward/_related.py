"""Whether what others say of the molecules has anything to do with the property: asked before it is believed.

Stacking gives a source that says nothing some weight, as leave-one-out densities of few measurements hardly tell it
from none, and that weight costs. A permutation test tells: such a source alone is believed one time in twenty.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import scipy.stats

from .._types import Array
from ._process_fit import block

LEVEL = 0.05
"""Share of the believed sources that may have nothing to do with the property."""
NUM_SHUFFLES = 999


def believed(chances: Sequence[float]) -> list[bool]:
    """Which sources to believe, by their p-values: of these, a share of `LEVEL` at most is believed by mistake.

    >>> believed([0.001, 0.4, 0.04, 0.06])
    [True, False, False, False]
    >>> believed([0.001, 0.04])
    [True, True]

    Source: Benjamini and Hochberg 1995, doi 10.1111/j.2517-6161.1995.tb02031.x.
    """
    rank = np.arange(1, len(chances) + 1)
    passed = np.flatnonzero(np.sort(chances) <= LEVEL * rank / max(len(chances), 1))
    limit = np.sort(chances)[passed[-1]] if len(passed) else -1.0
    return [bool(p <= limit) for p in chances]


def chances(columns: np.ndarray, y: np.ndarray, key: Array) -> list[float]:
    """`chance` of each source by itself, which says one of the columns `(n, s)`."""
    return [chance(np.asarray(block("sources", column[:, None]).rows), y, key) for column in columns.T]


def chance(rows: np.ndarray, y: np.ndarray, key: Array) -> float:
    """How often y would agree with shuffled rows at least as well as with these, a p-value.

    Agreement is yᵀKy, the score of the variance of a function of covariance K: of a linear function and of a smooth
    one of length one. The one that is the rarer among the shuffles counts, for each of them too.

    Args:
        rows: `(n, d)` standardised, of mean squared norm one.
        y: `(n,)` standardised.
        key: random key, of the shuffles.

    Source: Phipson and Smyth 2010, doi 10.2202/1544-6115.1585, of p-values of random permutations.
    """
    rows = np.asarray(rows, np.float64)
    gram = rows @ rows.T
    norm = np.diagonal(gram)
    smooth = np.exp(-0.5 * np.maximum(norm[:, None] + norm - 2 * gram, 0.0))
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    shuffled = np.vstack([y, rng.permuted(np.tile(y, (NUM_SHUFFLES, 1)), axis=1)])
    shuffled = shuffled - y.mean()
    agreement = np.stack([np.einsum("sn,sn->s", shuffled @ kernel, shuffled) for kernel in (gram, smooth)])
    # Rows that are all alike agree as well however they are shuffled, but for rounding.
    rank = scipy.stats.rankdata(np.round(agreement / len(y), 9), "min", axis=1)
    rarest = rank.max(0)
    return float((rarest >= rarest[0]).mean())
