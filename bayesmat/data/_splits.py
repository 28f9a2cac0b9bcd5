"""Seeded divisions of a table into training and test rows."""

from __future__ import annotations

import numpy as np

from .._types import BayesmatError


def random_split(
    n: int, seed: int, test_fraction: float = 0.2, num_train: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and testing, from one seeded permutation.

    The last fraction of the permutation is the test set and the first `num_train` of the rest the training set. So
    for one seed, training sets of growing size are nested and share their test set.

    Args:
        n: number of rows.
        seed: of the permutation.
        test_fraction: share of the rows held out, in [0, 1).
        num_train: training rows; None for all that are not held out.

    Returns:
        (train, test), disjoint int64 arrays.

    Raises:
        BayesmatError: a number is out of range, or there are fewer than `num_train` rows to train on.
    """
    if n < 0 or not 0.0 <= test_fraction < 1.0:
        raise BayesmatError(f"need n >= 0 and 0 <= test_fraction < 1, got n={n} and test_fraction={test_fraction}")
    available = n - round(n * test_fraction)
    if num_train is None:
        num_train = available
    if not 0 <= num_train <= available:
        raise BayesmatError(f"num_train={num_train}, but {available} of {n} rows are not held out for testing")
    order = np.random.default_rng(seed).permutation(n)
    return order[:num_train], order[available:]
