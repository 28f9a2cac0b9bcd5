"""Factors on the n-gram's probabilities that keep whole strings like those of the corpus; plain NumPy.

A context of ten tokens does not know how much of a molecule is written already. Left alone, an n-gram ends too many
strings early, and lets others wander until the array is full. Two factors correct that.

One is on the kind of a token, in cells (position and situation of the grammar). With factors r the share q_k of a kind
becomes q_k r_k / Σ_l q_l r_l. Where the expected counts equal the observed ones, the likelihood of the corpus has its
maximum. But contexts of real strings tell how far the molecule is and those of the model's own strings do not, so the
model also reads its own samples: there each kind shall be as frequent as in the corpus, with a small weight.

The other is on ending, by the information -log2 p of the string so far. A corpus of distinct molecules holds none that
is likely, and only its own samples show a model where it ends such strings: what is likely is what it repeats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ENDS = 0
"""The kind of token that ends a string."""

LIMITS = (1e-4, 1e4)
"""Of the factors on kinds."""

LEAST_END = 1e-12
"""Of the factor on ending."""


class Places(NamedTuple):
    """Places in strings where more than one kind of token may come next.

    Attributes:
        share: `(K, n)` the probability of each kind there, without factors; sums to one.
        cell: `(n,)` position and situation of the grammar, as one number.
        bucket: `(n,)` the information of the string so far, in steps.
        kind: `(n,)` the kind that was written.
        reached: `(B,)` the share of the strings that came to each bucket or beyond it.
        strings: how many strings these are.
    """

    share: np.ndarray
    cell: np.ndarray
    bucket: np.ndarray
    kind: np.ndarray
    reached: np.ndarray
    strings: int


def _weighted(places: Places, factor: np.ndarray, end: np.ndarray) -> np.ndarray:
    """`(K, n)` the shares with their factors."""
    weights = places.share * factor.T[:, places.cell]
    weights[ENDS] *= end[places.bucket]
    weights /= weights.sum(0)
    return weights


def _sums(values: np.ndarray, cell: np.ndarray, num_cells: int) -> np.ndarray:
    """`(num_cells, K)` the sums of `(K, n)` values over each cell."""
    return np.stack([np.bincount(cell, row, num_cells) for row in values], 1)


def kind_factors(
    corpus: Places,
    own: Places,
    factor: np.ndarray,
    end: np.ndarray,
    weight: float = 0.1,
    pseudo: float = 5.0,
    rounds: int = 15,
) -> np.ndarray:
    """Factors on kinds in every cell, by iterative scaling from those given.

    Args:
        corpus: places of real strings.
        own: places of strings drawn from the model.
        factor: `(C, K)` to begin with.
        end: `(B,)` the factors on ending.
        weight: of the own places in a cell, as a part of those of the corpus; and no more than that for a string.
        pseudo: added to observed and expected counts; it draws factors towards one where there is little to see.
        rounds: of the scaling.

    Returns:
        `(C, K)`, within `LIMITS`.
    """
    num_cells, num_kinds = factor.shape
    observed = np.bincount(corpus.cell * num_kinds + corpus.kind, minlength=factor.size).reshape(factor.shape)
    num = observed.sum(1, keepdims=True)
    own_num = np.bincount(own.cell, minlength=num_cells)[:, None]
    each = weight * np.minimum(num / np.maximum(own_num, 1), corpus.strings / max(own.strings, 1))
    for _ in range(rounds):
        drawn = _sums(_weighted(own, factor, end), own.cell, num_cells)
        wanted = (own_num * observed + pseudo * drawn) / (num + pseudo)
        expected = _sums(_weighted(corpus, factor, end), corpus.cell, num_cells)
        factor = factor * (observed + each * wanted + pseudo) / (expected + each * drawn + pseudo)
        factor = factor.clip(*LIMITS)
    return factor


def end_factors(
    corpus: Places, own: Places, factor: np.ndarray, below: float = 0.003, pseudo: float = 5.0
) -> np.ndarray:
    """Factors on ending, by the information so far, that make the model's own strings end as rarely as real ones.

    Args:
        corpus: places of real strings.
        own: places of strings drawn from the model.
        factor: `(C, K)` the factors on kinds.
        below: steps of information are corrected as long as less than this share of the corpus ends within them. In
            later steps the factor is one, since the likelihood of real strings would pay for it.
        pseudo: strings of the corpus that count as ending like the model's own.

    Returns:
        `(B,)`, in [`LEAST_END`, 1].
    """
    num_buckets = len(corpus.reached)
    ends = np.bincount(corpus.bucket[corpus.kind == ENDS], minlength=num_buckets)
    share = _weighted(own, factor, np.ones(num_buckets))[ENDS]
    come, own_come = corpus.reached * corpus.strings, own.reached * own.strings
    wanted = own_come * ends / (come + pseudo) + pseudo / (come + pseudo) * np.bincount(own.bucket, share, num_buckets)
    corrected = (ends.cumsum() < below * ends.sum()) & (own_come > 0)
    asked = corrected[own.bucket]
    share, bucket = share[asked], own.bucket[asked]
    low, high = np.full(num_buckets, np.log(LEAST_END)), np.zeros(num_buckets)
    for _ in range(50):  # what is expected grows with the factor: bisection
        middle = (low + high) / 2
        e = np.exp(middle)[bucket]
        few = np.bincount(bucket, share * e / (1 - share + share * e), num_buckets) < wanted
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    return np.where(corrected, np.exp(high), 1.0)
