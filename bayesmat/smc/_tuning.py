"""What is learnt between temperatures: which kernels to use how often, and how far they reach.

Nothing is tuned within a temperature, so each move leaves its target invariant exactly. A frozen run takes its tuning
from a pilot, and its evidence is unbiased.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array
from ._kernels import Kernel

FLOOR = 0.05
"""The least share of the moves that any kernel of a mixture gets, so that it can come back."""

MAX_DENSE = 64
"""Up to so many continuous dimensions the full covariance is used, beyond it the variances."""


class Tuning(NamedTuple):
    """By block, arrays over its K kernels; and the scale of the continuous block.

    Attributes:
        rate: `(K,)` share of proposals that changed the particle, smoothed over temperatures.
        size: `(K,)` see `Kernel.size`.
        scale: `(d, d)` Cholesky factor of the particles' covariance in unconstrained space; `(0, 0)` without one.
        surrogate: weights of the estimate of the likelihood, see `_surrogate.fit`; `(0,)` without one.
    """

    rate: dict[str, Array]
    size: dict[str, Array]
    scale: Array
    surrogate: Array


class Counts(NamedTuple):
    """By block, arrays over its K kernels, summed over particles and moves.

    Attributes:
        tried: proposals.
        differed: those that were another particle.
        changed: those of them that were accepted.
    """

    tried: Array
    differed: Array
    changed: Array


def start(kernels: dict[str, list[Kernel]], dtype: Any) -> Tuning:
    """Before anything was seen: what the kernels expect of themselves."""
    rate = {name: jnp.asarray([kernel.rate for kernel in own], dtype) for name, own in kernels.items()}
    size = {name: jnp.asarray([kernel.size for kernel in own], dtype) for name, own in kernels.items()}
    return Tuning(rate, size, jnp.zeros((0, 0), dtype), jnp.zeros(0, dtype))


def proportions(rate: Array) -> Array:
    """Shares of the moves `(K,)`, by rate but never under `FLOOR`."""
    num = len(rate)
    floor = min(FLOOR, 0.5 / num)
    return floor + (1 - num * floor) * rate / jnp.maximum(rate.sum(), 1e-12)


def order(key: Array, rate: Array, num_moves: int) -> Array:
    """Which kernel each of the moves uses, `(num_moves,)` int32; as even as the proportions allow."""
    key_point, key_order = jax.random.split(key)
    points = (jnp.arange(num_moves) + jax.random.uniform(key_point, dtype=rate.dtype)) / num_moves
    upto = jnp.cumsum(proportions(rate))
    chosen = jnp.searchsorted(upto, points * upto[-1], side="right").clip(0, len(rate) - 1)
    return jax.random.permutation(key_order, chosen.astype(jnp.int32))


def update(tuning: Tuning, counts: dict[str, Counts], kernels: dict[str, list[Kernel]]) -> Tuning:
    """What the moves at one temperature teach for the next; kernels that were not used keep what they have."""
    rate, size = {}, {}
    for name, own in kernels.items():
        used = counts[name].tried > 0
        tried = jnp.maximum(counts[name].tried, 1)
        rate[name] = jnp.where(used, 0.5 * (tuning.rate[name] + counts[name].changed / tried), tuning.rate[name])
        target = jnp.asarray([kernel.target for kernel in own], tuning.size[name].dtype)
        low, high = (jnp.asarray([kernel.bounds[i] for kernel in own], target.dtype) for i in (0, 1))
        acceptance = counts[name].changed / jnp.maximum(counts[name].differed, 1)
        grown = tuning.size[name] + 1.5 * (acceptance - target)
        tunable = used & (high > low)
        size[name] = jnp.where(tunable, jnp.clip(grown, low, high), tuning.size[name])
    return tuning._replace(rate=rate, size=size)


def covariance_factor(z: Array) -> Array:
    """The Cholesky factor `(d, d)` of the covariance of particles `(n, d)`, shrunk towards its diagonal."""
    num, dim = z.shape
    if dim == 0:
        return jnp.zeros((0, 0), z.dtype)
    centred = z - z.mean(0)
    variance = (centred**2).mean(0)
    # Where all particles agree a small step is better than none.
    variance = jnp.where(variance > 0, variance, 1e-6)
    if dim > MAX_DENSE:
        return jnp.diag(jnp.sqrt(variance))
    share = dim / (num + dim)
    covariance = (1 - share) * (centred.T @ centred) / num + share * jnp.diag(variance)
    factor = jnp.linalg.cholesky(covariance + 1e-6 * jnp.diag(variance))
    return jnp.where(jnp.isfinite(factor).all(), factor, jnp.diag(jnp.sqrt(variance)))
