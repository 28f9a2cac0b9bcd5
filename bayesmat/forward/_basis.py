"""φ(x) of the linear models: features of a molecule, brought to one scale and extended by a kernel."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array
from ..nn import Features, Weights
from . import _network

PRECISION = jax.lax.Precision.HIGHEST
"""Of every product at prediction: the default on GPUs keeps ten bits, an error of kelvins."""


class Basis(eqx.Module):
    """Columns of a linear model: 1, descriptors, fingerprint, kernel at landmarks, what a network says.

    Empty arrays switch a part off. The kernel exp(−γ|z − l|²) between standardised descriptors and S landmarks is
    the Nyström approximation of a Gaussian process (Williams and Seeger 2001).

    Attributes:
        descriptor_mean: `(d,)` of the training rows.
        descriptor_scale: `(d,)` standard deviations, with a floor.
        fingerprint_mean: `(f,)`, or `(0,)` without the fingerprint.
        landmarks: `(s, d)` standardised descriptors of some training rows.
        landmark_mean: `(s,)` mean kernel value of the training rows.
        gamma: inverse squared length of the kernel.
        network: of fingerprint and standardised descriptors, or None.
    """

    descriptor_mean: Array
    descriptor_scale: Array
    fingerprint_mean: Array
    landmarks: Array
    landmark_mean: Array
    gamma: float = eqx.field(static=True)
    network: Weights | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Columns of each part, in order."""
        return {
            "intercept": 1,
            "descriptors": self.descriptor_mean.shape[0],
            "fingerprint": self.fingerprint_mean.shape[0],
            "landmarks": self.landmark_mean.shape[0],
            "network": 0 if self.network is None else 1,
        }

    def __call__(self, features: Features) -> Array:
        """Columns `(..., sum(sizes))` of a batch `(...)`."""
        z = (features.descriptors - self.descriptor_mean) / self.descriptor_scale
        parts = [jnp.ones_like(z[..., :1]), z]
        if self.fingerprint_mean.size:
            parts.append(features.fingerprint - self.fingerprint_mean)
        if self.landmark_mean.size:
            parts.append(self.kernel(z) - self.landmark_mean)
        if self.network is not None:
            parts.append(_network.says(self.network, features.fingerprint, z)[..., None])
        return jnp.concatenate(parts, axis=-1)

    def kernel(self, z: Array) -> Array:
        """exp(−γ|z − l|²) of standardised descriptors `(..., d)` at each landmark, `(..., s)`."""
        product = jnp.einsum("...d,sd->...s", z, self.landmarks, precision=PRECISION)
        distance = (z**2).sum(-1, keepdims=True) + (self.landmarks**2).sum(-1) - 2 * product
        return jnp.exp(-self.gamma * jnp.maximum(distance, 0.0))
