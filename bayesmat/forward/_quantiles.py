"""Quantiles of equal-weight mixtures of normals, several together, to the accuracy of float32.

Φ⁻¹(F(x)) is nearly a straight line where F is the distribution function of a mixture, so Halley's method on it needs
three evaluations from a rough start. A bracket, the least and the greatest quantile of a component, halved whenever
the step leaves it or gains too little, makes it safe for mixtures of any shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from .._types import Array

CHUNK = 64
"""Mixtures that are worked on together: they stay in a core's cache, and only they wait for the slowest of them."""
_MAX_STEPS = 200
_TOLERANCE = 2e-6
"""Of Φ⁻¹(F), standard deviations; rounding moves it by half as much in float32."""
_TAIL = (0.0997355659, 0.0997364891, 0.0934651852, 0.081613786, 0.0589230489,
         0.0638467247, -0.0319676846, 0.0958467216, -0.0810124366, 0.0198125832)  # fmt: skip
"""Φ(−a) exp(a²/2) as a polynomial without constant in 1/(1 + a/4); its relative error is below 4e-8 for a ≥ 0."""


def mixture_quantiles(loc: Array, scale: Array, q: Array) -> Array:
    """x with mean over k of Φ((x − loc_k)/scale_k) = q; without a gradient.

    Args:
        loc: `(..., K)`.
        scale: `(..., K)` positive.
        q: `(..., Q)` in (0, 1), with the leading axes of `loc`.

    Returns:
        `(..., Q)`; NaN where a component or q is.
    """
    loc, scale, q = jax.lax.stop_gradient((loc, scale, q))
    batch = loc.shape[:-1]
    flat = [array.reshape(-1, array.shape[-1]) for array in (loc, scale, q)]
    n = len(flat[0])
    chunk = min(CHUNK, max(n, 1))
    padded = [jnp.pad(array, ((0, -n % chunk), (0, 0)), constant_values=0.5) for array in flat]
    pieces = [array.reshape(-1, chunk, array.shape[-1]) for array in padded]
    found = jax.lax.map(lambda piece: _solve(*piece), pieces)
    return found.reshape(-1, q.shape[-1])[:n].reshape(*batch, q.shape[-1])


def _solve(loc: Array, scale: Array, q: Array) -> Array:
    """`mixture_quantiles` of `(n, K)` and `(n, Q)`."""
    middle = loc.mean(-1, keepdims=True)
    loc, inverse = (loc - middle)[:, None], 1.0 / scale[:, None]
    z = ndtri(q)
    ends = loc + scale[:, None] * z[..., None]  # of each component; the mixture's lies between the least and the last
    side = jnp.where(q > 0.5, -1.0, 1.0).astype(loc.dtype)  # the upper tail is worked out mirrored, to keep its digits
    goal = side * z

    def halve(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, low, high, last, done, count = state
        probability, density, slope = _tails(side[..., None] * (x[..., None] - loc) * inverse, inverse)
        h = ndtri(jnp.minimum(probability, 1.0))  # goes up with side · x
        error = goal - h
        low, high = jnp.where(side * error > 0, x, low), jnp.where(side * error > 0, high, x)
        first = density / jnp.exp(-0.5 * h**2)  # dh/dx, and half the second derivative of x by h times the error
        bend = 0.5 * error * (slope / density / first + h)
        gained = jnp.abs(error) <= 0.5 * last
        step = x + side * error / first / jnp.clip(1.0 + bend, 0.5, 2.0)
        good = (step > low) & (step < high) & gained
        # What Halley's third-order step leaves is judged by what the last one left, and by the curvature here.
        size = jnp.abs(error)
        left = jnp.maximum(size * (size / last) ** 3, size * bend**2)
        closed = (high - low) <= 2e-7 * jnp.maximum(jnp.abs(low), jnp.abs(high))
        over = (size <= _TOLERANCE) | (good & (last < jnp.inf) & (left <= 0.1 * _TOLERANCE)) | closed
        elsewhere = jnp.where(size <= _TOLERANCE, x, 0.5 * (low + high))
        x = jnp.where(done, x, jnp.where(good, step, elsewhere))
        return x, low, high, jnp.where(good, size, jnp.inf), done | over | ~(size >= 0), count + 1

    start = ends.mean(-1)
    none = jnp.full_like(start, jnp.inf)
    state: tuple[Array, ...] = (start, ends.min(-1), ends.max(-1), none, jnp.zeros(start.shape, bool), jnp.int32(0))
    return middle + jax.lax.while_loop(lambda s: ~s[4].all() & (s[5] < _MAX_STEPS), halve, state)[0]


def _tails(u: Array, inverse: Array) -> tuple[Array, Array, Array]:
    """Means over the last axis of Φ(u), and of its first and second derivative by x times √2π, du/dx = `inverse`."""
    size = jnp.abs(u)
    t = 1.0 / (1.0 + 0.25 * size)
    density = jnp.exp(-0.5 * size**2)
    tail = jnp.zeros_like(t)
    for coefficient in reversed(_TAIL):
        tail = (tail + coefficient) * t
    tail = tail * density
    density = density * inverse
    return jnp.where(u < 0, tail, 1.0 - tail).mean(-1), density.mean(-1), -(density * u * inverse).mean(-1)
