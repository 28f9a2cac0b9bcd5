"""How usual a molecule is among those that a model was trained on, as one conformal p-value."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError
from ..nn import Features
from ._basis import PRECISION

MAX_REFERENCES = 2000
NUM_NEAREST = 3
MIN_SCALE = 0.1
"""Floor of a descriptor's standard deviation, where one more atom is 0.7: a constant column says what is foreign."""
SAME = 1e-5
"""A dissimilarity and a distance below are rounding errors, and the two molecules the same to the features."""


class Applicability(eqx.Module):
    """The share of training molecules that, each left out, are at least as unusual as a given one.

    Three measures say how unusual a molecule is: 1 − Tanimoto similarity of its log counts to the nearest training
    molecule, the mean distance to the three nearest ones in standardised descriptors, and the variance of the latent
    function. It is as unusual as its most extreme rank among the three; the training molecules are ranked the same
    way, so on molecules drawn like them the score is uniform: 0.01 is what one molecule in a hundred has. One that the
    features cannot tell from a training molecule is not unusual at all and has the score 1.

    The Tanimoto similarity of count vectors is a·b / (|a|² + |b|² − a·b) (Willett et al. 1998, doi 10.1021/ci9800211);
    conformal p-values: Bates et al. 2023, doi 10.1214/22-AOS2244.

    Attributes:
        fingerprint: `(r, f)` log(1 + count) of the r reference molecules, which are the training molecules or a
            random 2,000 of them.
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
            key: chooses the references where there are more than 2,000 molecules.

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
            "counts": _counts(np.asarray(features.fingerprint)[chosen]),
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
        names = ("descriptors", "descriptor_mean", "descriptor_scale")
        return cls(
            fingerprint=jnp.log1p(jnp.asarray(arrays["counts"], jnp.float32)),
            unusual=jnp.asarray(unusual),
            rank=jnp.asarray(np.stack(at_least, axis=1), jnp.int32),
            **{name: jnp.asarray(arrays[name], jnp.float32) for name in names},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays to be stored; the fingerprint as whole counts, which take half the space."""
        names = ("descriptors", "descriptor_mean", "descriptor_scale", "unusual")
        return {"counts": _counts(np.asarray(self.fingerprint))} | {n: np.asarray(getattr(self, n)) for n in names}

    def __call__(self, features: Features, log_variance: Array) -> Array:
        """The score of molecules, `(...)` in (0, 1]; small for those unlike the training molecules.

        Args:
            features: `(..., f)` and `(..., d)`, one molecule or a batch.
            log_variance: `(...)` log variance of the latent function, without noise.
        """
        score = jnp.vectorize(self._score, signature="(f),(d),()->()")
        return score(features.fingerprint, features.descriptors, log_variance)

    def _score(self, fingerprint: Array, descriptors: Array, log_variance: Array) -> Array:
        z = (descriptors - self.descriptor_mean) / self.descriptor_scale
        return p_value(self.unusual, self.rank, self._measure(fingerprint, z, log_variance))

    def _measure(self, fingerprint: Array, z: Array, log_variance: Array, left_out: Array | int = -1) -> Array:
        """How unusual a molecule is by each measure, `(3,)`; `left_out` names a reference not to compare it with."""
        product = jnp.einsum("rf,f->r", self.fingerprint, fingerprint, precision=PRECISION)
        sizes = (self.fingerprint**2).sum(-1) + (fingerprint**2).sum()
        far = jnp.arange(len(product)) == left_out
        dissimilarity = jnp.where(far, jnp.inf, 1 - product / (sizes - product))
        distance = jnp.where(far, jnp.inf, jnp.sqrt(((self.descriptors - z) ** 2).sum(-1)))
        nearest = -jax.lax.top_k(-distance, NUM_NEAREST)[0]
        found = jnp.stack([dissimilarity.min(), nearest.mean(), log_variance])
        return jnp.where(jnp.any((dissimilarity < SAME) & (distance < SAME)), -jnp.inf, found)


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


def _counts(fingerprint: np.ndarray) -> np.ndarray:
    """Whole counts of log(1 + count)."""
    return np.rint(np.expm1(fingerprint)).astype(np.uint16)
