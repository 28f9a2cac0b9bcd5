"""From features of training molecules to the design matrix of the linear model, and from its weights back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from ..nn import DESCRIPTOR_NAMES, Features
from ._basis import Basis

ABUNDANT = 1000
"""From this many rows on a model has a fingerprint and landmarks; below, they overfit and transfer does better."""
NUM_LANDMARKS = 512
GAMMA = 0.01
"""Of the landmark kernel: the length is 7 standard deviations, the typical distance of two of 49 descriptors is 10."""
MIN_DESCRIPTOR_SCALE = 0.1
"""Floor of a descriptor's standard deviation, where one more atom is 0.7: rare atoms must not have endless leverage."""
JITTER = 1e-6

_apply = jax.jit(lambda basis, features: basis(features))


@dataclass(frozen=True)
class Design:
    """Training rows in the columns that the linear model is fitted on.

    Attributes:
        basis: columns as at prediction.
        matrix: `(n, D)` float64; groups normalised to a mean squared row norm of one, landmarks whitened.
        groups: `(G, D)` which column belongs to which group; the intercept belongs to none.
        group_names: G names.
        active: `(f,)` bool, fingerprint bins that some training molecule has; the others are not in the matrix.
        factor: `(D,)` matrix column = factor × column.
        whitening: `(s, s)` Cholesky factor of the kernel between landmarks, or `(0, 0)`.
    """

    basis: Basis
    matrix: np.ndarray
    groups: np.ndarray
    group_names: tuple[str, ...]
    active: np.ndarray
    factor: np.ndarray
    whitening: np.ndarray

    def to_basis(self, weights: np.ndarray, scale: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Weights `(K, D)` of the matrix as weights `(K, B)` of the basis.

        Bins that no training molecule has keep their prior: a draw N(0, scale²) each, or zero without `rng`. So a
        molecule with an environment never seen is predicted with the uncertainty that the model gives it.

        Args:
            weights: draws or means.
            scale: `(K, G)` scales of the groups that they belong to.
            rng: for the draws.
        """
        weights = weights * self.factor
        sizes = self.basis.sizes
        dense = 1 + sizes["descriptors"]
        num_active = int(self.active.sum())
        parts = [weights[:, :dense]]
        if sizes["fingerprint"]:
            group = self.group_names.index("fingerprint")
            first = int(np.flatnonzero(self.groups[group])[0])
            bins = np.zeros((len(weights), sizes["fingerprint"]))
            if rng is not None:
                unseen = rng.standard_normal((len(weights), int((~self.active).sum())))
                bins[:, ~self.active] = unseen * scale[:, [group]] * self.factor[first]
            bins[:, self.active] = weights[:, dense : dense + num_active]
            parts.append(bins)
        if sizes["landmarks"]:
            parts.append(solve_triangular(self.whitening, weights[:, dense + num_active :].T, lower=True, trans="T").T)
        return np.concatenate(parts, axis=1)

    def column_names(self) -> list[str]:
        """A name for each column of the basis."""
        sizes = self.basis.sizes
        return [
            "intercept",
            *(f"descriptor:{name}" for name in DESCRIPTOR_NAMES[: sizes["descriptors"]]),
            *(f"fingerprint:{index}" for index in range(sizes["fingerprint"])),
            *(f"landmark:{index}" for index in range(sizes["landmarks"])),
        ]


def build(features: Features, rng: np.random.Generator) -> Design:
    """The design of n training rows.

    Args:
        features: of the rows.
        rng: picks the landmarks.
    """
    descriptors = np.asarray(features.descriptors, np.float64)
    fingerprint = np.asarray(features.fingerprint)
    mean, scale = descriptors.mean(0), np.maximum(descriptors.std(0), MIN_DESCRIPTOR_SCALE)
    z = (descriptors - mean) / scale
    chosen = rng.choice(len(z), min(NUM_LANDMARKS, len(z) // 2), replace=False)

    arrays = {
        "descriptor_mean": mean,
        "descriptor_scale": scale,
        "fingerprint_mean": fingerprint.mean(0, dtype=np.float64),
        "landmarks": z[chosen],
        "landmark_mean": np.zeros(len(chosen)),
    }
    single: dict[str, Any] = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    basis = Basis(**single, gamma=GAMMA)
    columns = _columns(basis, features)
    first_landmark = columns.shape[1] - len(chosen)
    single["landmark_mean"] = jnp.asarray(columns[:, first_landmark:].mean(0), jnp.float32)
    columns[:, first_landmark:] -= np.asarray(single["landmark_mean"], np.float64)
    return _normalised(Basis(**single, gamma=GAMMA), columns, np.asarray((fingerprint > 0).any(axis=0)))


def _columns(basis: Basis, features: Features, batch: int = 2048) -> np.ndarray:
    """The basis at all rows, `(n, B)` float64; evaluated as at prediction, in float32."""
    n = len(features.descriptors)
    result = np.empty((n, sum(basis.sizes.values())))
    for start in range(0, n, batch):
        rows = slice(start, start + batch)
        part = Features(*(jnp.asarray(array[rows]) for array in features))
        result[rows] = np.asarray(_apply(basis, part))
    return result


def _normalised(basis: Basis, columns: np.ndarray, active: np.ndarray) -> Design:
    sizes = basis.sizes
    ends = np.cumsum(list(sizes.values()))
    whitening: np.ndarray = np.zeros((0, 0))
    if sizes["landmarks"]:
        z = basis.landmarks
        gram = np.asarray(jax.jit(lambda basis, z: basis.kernel(z))(basis, z), np.float64)
        whitening = np.linalg.cholesky(0.5 * (gram + gram.T) + JITTER * np.eye(len(gram)))
        columns[:, ends[2] :] = solve_triangular(whitening, columns[:, ends[2] :].T, lower=True).T
    keep = np.ones(columns.shape[1], bool)
    keep[ends[1] : ends[2]] = active
    group_of = np.repeat(np.arange(len(sizes)), list(sizes.values()))[keep]
    matrix = columns[:, keep] if not keep.all() else columns
    names = tuple(name for name in list(sizes)[1:] if (group_of == list(sizes).index(name)).any())
    groups = np.array([group_of == list(sizes).index(name) for name in names], np.float64)
    factor = np.ones(matrix.shape[1])
    for group in groups.astype(bool):
        norm = np.sqrt((matrix[:, group] ** 2).sum(1).mean())
        factor[group] = 1.0 / norm if norm > 0 else 1.0
    matrix *= factor
    return Design(basis, matrix, groups, names, active, factor, whitening)
