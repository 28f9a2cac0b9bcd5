"""How usual a molecule is among those that a model was trained on, as one conformal p-value."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError
from ..nn import Features
from ._basis import PRECISION

MAX_REFERENCES = 384
FOLDS = 8
"""Columns of the fingerprint that share one of the score's: 208 are left, which tell molecules apart as well."""
CHUNK = 128
"""Molecules that are scored together; what they take stays in a core's cache."""
NUM_NEAREST = 3
MIN_SCALE = 0.1
"""Floor of a descriptor's standard deviation, where one more atom is 0.7: a constant column says what is foreign."""
SAME = 1e-5
"""A dissimilarity and a squared distance relative to the molecules' squared norms below are rounding errors, and the
two molecules the same to the features."""


class Applicability(eqx.Module):
    """The share of training molecules that, each left out, are at least as unusual as a given one.

    Three measures say how unusual a molecule is: 1 − Tanimoto similarity of its folded log counts to the nearest
    reference, the mean distance to the three nearest ones in standardised descriptors, and the variance of the latent
    function. References are training molecules. A molecule is as unusual as its most extreme rank among the three; the
    references are ranked the same way, so on molecules drawn like them the score is uniform: 0.01 is what one molecule
    in a hundred has. One that the features cannot tell from a reference is not unusual at all and has the score 1.

    The Tanimoto similarity of count vectors is a·b / (|a|² + |b|² − a·b) (Willett et al. 1998, doi 10.1021/ci9800211);
    conformal p-values: Bates et al. 2023, doi 10.1214/22-AOS2244.

    Attributes:
        fingerprint: `(r, f/8)` log(1 + count) of the r reference molecules, summed over eight columns; they are the
            training molecules or a random 384 of them.
        descriptors: `(r, d)` their standardised descriptors.
        descriptor_mean: `(d,)` of the training molecules.
        descriptor_scale: `(d,)` their standard deviations, with a floor.
        unusual: `(r, 3)` the measures of each reference, left out of the others.
        rank: `(r, 3)` int32, how many references, itself included, are at least as unusual by a measure.
    """

    fingerprint: Array
    descriptors: Array
    descriptor_mean: Array
    descriptor_scale: Array
    unusual: Array
    rank: Array

    @classmethod
    def from_training(cls, features: Features, log_variance: np.ndarray | Array, key: Array) -> Applicability:
        """From the n training molecules.

        Args:
            features: of the molecules, `(n, ·)`.
            log_variance: `(n,)` log variance of the latent function at each molecule given the others; in the space
                of what `__call__` will be given.
            key: chooses the references where there are more than 384 molecules.

        Raises:
            BayesmatError: fewer than five molecules, or the lengths differ.
        """
        n = len(features.descriptors)
        if n < NUM_NEAREST + 2 or np.shape(log_variance) != (n,):
            raise BayesmatError(
                f"{n} molecules and log variances of shape {np.shape(log_variance)}; needed are "
                f"{NUM_NEAREST + 2} molecules or more and a log variance for each"
            )
        chosen = np.arange(n)
        if n > MAX_REFERENCES:
            chosen = np.sort(np.asarray(jax.random.choice(key, n, (MAX_REFERENCES,), replace=False)))
        descriptors = np.asarray(features.descriptors, np.float32)
        arrays = {
            "fingerprint": np.asarray(_folded(jnp.asarray(np.asarray(features.fingerprint)[chosen]))),
            "descriptors": descriptors[chosen],
            "descriptor_mean": descriptors.mean(0),
            "descriptor_scale": np.maximum(descriptors.std(0), MIN_SCALE),
            "unusual": np.zeros((len(chosen), 3), np.float32),
        }
        arrays["descriptors"] = (arrays["descriptors"] - arrays["descriptor_mean"]) / arrays["descriptor_scale"]
        unranked = cls.from_arrays(arrays)
        log_variance = jnp.asarray(np.asarray(log_variance)[chosen], jnp.float32)
        arrays["unusual"] = np.asarray(_left_out(unranked, log_variance))
        return cls.from_arrays(arrays)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Applicability:
        """What `arrays` gave, with the same bits."""
        unusual = np.asarray(arrays["unusual"], np.float32)
        at_least = [len(column) - np.searchsorted(np.sort(column), column) for column in unusual.T]
        return cls(
            unusual=jnp.asarray(unusual),
            rank=jnp.asarray(np.stack(at_least, axis=1), jnp.int32),
            **{name: jnp.asarray(arrays[name], jnp.float32) for name in _STORED},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays to be stored."""
        return {name: np.asarray(getattr(self, name)) for name in (*_STORED, "unusual")}

    def __call__(self, features: Features, log_variance: Array) -> Array:
        """The score of molecules, `(...)` in (0, 1]; small for those unlike the training molecules.

        Args:
            features: `(..., f)` and `(..., d)`, one molecule or a batch.
            log_variance: `(...)` log variance of the latent function, without noise.
        """
        batch = log_variance.shape
        rows = (features.fingerprint, features.descriptors, log_variance[..., None])
        flat = tuple(array.reshape(-1, array.shape[-1]) for array in rows)
        return jax.lax.map(lambda row: self._score(*row), flat, batch_size=CHUNK).reshape(batch)

    def _score(self, fingerprint: Array, descriptors: Array, log_variance: Array) -> Array:
        """Of one molecule; log variance `(1,)`."""
        z = (descriptors - self.descriptor_mean) / self.descriptor_scale
        return p_value(self.unusual, self.rank, self._measure(_folded(fingerprint), z, log_variance[0]))

    def _measure(self, fingerprint: Array, z: Array, log_variance: Array, left_out: Array | None = None) -> Array:
        """How unusual a molecule is by each measure, `(3,)`; `left_out` names a reference not to compare it with."""
        product = jnp.einsum("rf,f->r", self.fingerprint, fingerprint, precision=PRECISION)
        sizes = (self.fingerprint**2).sum(-1) + (fingerprint**2).sum()
        dissimilarity = 1 - product / (sizes - product)
        norm, own = (self.descriptors**2).sum(-1, keepdims=True), (z**2).sum(keepdims=True)
        # One product gives |r|² + |z|² − 2 r·z, with no pass over the references for the sums.
        rows = jnp.concatenate([-2 * self.descriptors, norm, jnp.ones_like(norm)], -1)
        squared = jnp.einsum("rd,d->r", rows, jnp.concatenate([z, jnp.ones(1), own]), precision=PRECISION)
        if left_out is not None:
            far = jnp.arange(len(product)) == left_out
            dissimilarity, squared = jnp.where(far, jnp.inf, dissimilarity), jnp.where(far, jnp.inf, squared)
        same = (dissimilarity < SAME) & (squared < SAME * (norm[:, 0] + 1.0))
        nearest = jnp.sqrt(jnp.maximum(_least(squared, NUM_NEAREST), 0.0)).mean()
        return jnp.where(same.any(), -jnp.inf, jnp.stack([dissimilarity.min(), nearest, log_variance]))


_STORED = ("fingerprint", "descriptors", "descriptor_mean", "descriptor_scale")


def _folded(fingerprint: Array) -> Array:
    """Sums over every f/8-th column, `(..., f)` → `(..., f/8)`."""
    return fingerprint.reshape(*fingerprint.shape[:-1], FOLDS, -1).sum(-2)


def _least(values: Array, count: int) -> Array:
    """The `count` least of `(n,)` values, in order; sorting whole blocks side by side takes a third of `top_k`."""
    for lanes in (64, 16, 4, 1):
        values = jnp.pad(values, (0, -len(values) % lanes), constant_values=jnp.inf)
        kept = [jnp.full(lanes, jnp.inf)] * count
        for row in values.reshape(-1, lanes):
            for place in range(count):
                kept[place], row = jnp.minimum(kept[place], row), jnp.maximum(kept[place], row)
        values = jnp.concatenate(kept)
    return values


def p_value(unusual: Array, rank: Array, found: Array) -> Array:
    """The share of r references and one more molecule that are at least as unusual as the latter, itself included.

    Every one of the r + 1 is judged alike: by each measure count how many of the others are at least as unusual, and
    order by the smallest count, then by their sum. So the share is a valid p-value whatever the measures are and
    however they depend.

    Args:
        unusual: `(r, 3)` the measures of the references.
        rank: `(r, 3)` how many references, itself included, are at least as unusual.
        found: `(3,)` the measures of the molecule.
    """
    counts = jnp.concatenate([rank - 1 + (found >= unusual), (unusual >= found).sum(0)[None]])
    usual = counts.min(-1) * (counts.size + 1) + counts.sum(-1)
    return jnp.mean(usual <= usual[-1])


@eqx.filter_jit
def _left_out(applicability: Applicability, log_variance: Array) -> Array:
    """The measures of each reference, left out of the others, `(r, 3)`."""
    rows = (applicability.fingerprint, applicability.descriptors, log_variance, jnp.arange(len(log_variance)))
    return jax.lax.map(lambda row: applicability._measure(*row), rows, batch_size=256)
