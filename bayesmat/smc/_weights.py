"""Weights in log space: effective sample size, the next temperature."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._types import Array


def ess(log_weights: Array) -> Array:
    """Effective sample size (Σw)² / Σw² of `(n,)` log weights; 0 when all are -inf.

    >>> float(ess(jnp.log(jnp.array([0.5, 0.5, 0.0]))))
    2.0
    """
    log_weights = _shifted(log_weights)
    weights = jnp.exp(log_weights)
    square = jnp.sum(weights**2)
    return jnp.where(square > 0, jnp.sum(weights) ** 2 / jnp.where(square > 0, square, 1), 0.0)


def log_mean_exp(log_weights: Array) -> Array:
    """log of the mean weight; -inf, not NaN, when all are -inf."""
    top = jnp.max(log_weights)
    safe = jnp.where(jnp.isfinite(top), top, 0.0)
    return safe + jnp.log(jnp.mean(jnp.exp(log_weights - safe)))


def _shifted(log_weights: Array) -> Array:
    top = jnp.max(log_weights)
    return log_weights - jnp.where(jnp.isfinite(top), top, 0.0)


def scaled(increment: Array, log_likelihood: Array) -> Array:
    """increment · log L, with -inf kept (0 · -inf is -inf: an impossible state stays impossible)."""
    possible = jnp.isfinite(log_likelihood)
    return jnp.where(possible, increment * jnp.where(possible, log_likelihood, 0.0), -jnp.inf)


def next_beta(beta: Array, log_likelihood: Array, target: float, iterations: int = 60) -> Array:
    """The largest inverse temperature ≤ 1 at which the increments keep their effective sample size.

    Bisection on ESS(β') = `target` × (number of particles with a finite log likelihood), by Del Moral, Doucet and
    Jasra 2012 (doi 10.1007/s11222-011-9271-y). Infeasible particles lose their weight in any case, so they do not
    count: with them the condition could not be met.

    Args:
        beta: the present inverse temperature.
        log_likelihood: `(n,)`, -inf allowed.
        target: share of the effective sample size to keep, in (0, 1).
        iterations: halvings of the interval, on a logarithmic scale.
    """
    floor = target * jnp.isfinite(log_likelihood).sum()

    def keeps(increment: Array) -> Array:
        return ess(scaled(increment, log_likelihood)) >= floor

    most = 1.0 - beta

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        good = keeps(jnp.exp(middle))
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    # Increments span many orders of magnitude when the likelihood is sharp, so the exponent is halved.
    top = jnp.log(jnp.maximum(most, jnp.finfo(log_likelihood.dtype).tiny))
    low, _ = jax.lax.fori_loop(0, iterations, halve, (top - 80.0, top))
    return jnp.where(keeps(most), 1.0, jnp.minimum(beta + jnp.exp(low), 1.0))
