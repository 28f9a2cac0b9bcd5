"""Resampling: which particles go on, given their weights.

Each scheme takes `(key, log_weights, num)` and gives `(num,)` indices with E[copies of i] = num · w_i. A particle of
zero weight is never chosen, also not by rounding. Douc, Cappé and Moulines 2005, doi 10.1109/ISPA.2005.195385.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array


def _choose(weights: Array, points: Array) -> Array:
    """The particle whose share of the cumulative weight holds each point of [0, 1)."""
    cumulative = jnp.cumsum(weights)
    points = jnp.minimum(points * cumulative[-1], cumulative[-1] * (1 - jnp.finfo(weights.dtype).eps))
    # The first particle whose cumulative weight exceeds the point has a positive weight of its own.
    chosen = jnp.searchsorted(cumulative, points, side="right").astype(jnp.int32)
    last_positive = len(weights) - 1 - jnp.argmax(weights[::-1] > 0)
    return jnp.minimum(chosen, last_positive)


def _weights(log_weights: Array) -> Array:
    top = jnp.max(log_weights)
    return jnp.exp(log_weights - jnp.where(jnp.isfinite(top), top, 0.0))


def systematic(key: Array, log_weights: Array, num: int) -> Array:
    """One uniform for all: each particle is kept floor or ceil of num · w times."""
    weights = _weights(log_weights)
    return _choose(weights, (jnp.arange(num) + jax.random.uniform(key, dtype=weights.dtype)) / num)


def stratified(key: Array, log_weights: Array, num: int) -> Array:
    """One uniform in each of `num` strata."""
    weights = _weights(log_weights)
    return _choose(weights, (jnp.arange(num) + jax.random.uniform(key, (num,), weights.dtype)) / num)


def multinomial(key: Array, log_weights: Array, num: int) -> Array:
    """Independent draws."""
    weights = _weights(log_weights)
    return _choose(weights, jax.random.uniform(key, (num,), weights.dtype))


def residual(key: Array, log_weights: Array, num: int) -> Array:
    """floor(num · w) copies for certain, the rest drawn independently from the remainders."""
    weights = _weights(log_weights)
    expected = num * weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)
    # What rounding left a hair below a whole number counts as whole, or its remainder would be noise.
    copies = jnp.floor(expected * (1 + 4 * jnp.finfo(weights.dtype).eps)).astype(jnp.int32)
    rest = jnp.maximum(expected - copies, 0.0)
    certain = jnp.repeat(jnp.arange(len(weights), dtype=jnp.int32), copies, total_repeat_length=num)
    drawn = _choose(jnp.where(rest.sum() > 0, rest, weights), jax.random.uniform(key, (num,), weights.dtype))
    return jnp.where(jnp.arange(num) < copies.sum(), certain, drawn)


RESAMPLING: dict[str, Callable[[Array, Array, int], Array]] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}
