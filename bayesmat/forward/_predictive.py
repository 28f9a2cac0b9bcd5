"""p(y | x, D) of one property as a mixture of normals: one component for each posterior draw.

Probabilities are sums over the components, so the expectation over the posterior is exact for the draws at hand.
Everything is written for float32 and for candidates far from their target: log-probabilities of intervals stay finite
and keep their order hundreds of standard deviations away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, logsumexp, ndtr
from jax.scipy.stats import norm

from .._types import Array
from ._quantiles import mixture_quantiles

_NARROW = 0.03
"""Below this width in standard deviations an interval's probability is density times width (error 1e-4)."""
_FAR = 1e6
"""Standard deviations beyond which distances are not told apart; their squares are still float32."""
_SIGMA = (0.15865525, 0.84134475)
"""Quantiles one standard deviation from the middle of a normal."""


class Summary(NamedTuple):
    """A predictive in a few numbers, in the unit of y.

    Attributes:
        mean: `(...)` see `Predictive.mean`.
        sd: `(...)` see `Predictive.sd`.
        quantiles: `(..., Q)`.
    """

    mean: Array
    sd: Array
    quantiles: Array


class Predictive(eqx.Module):
    """Equal-weight mixture of K normals, in the modelling space of a property.

    Attributes:
        loc: `(..., K)` means of the components, in modelling space.
        scale: `(..., K)` their standard deviations.
        log: the modelling space is the natural logarithm of y; otherwise it is y itself.

    >>> narrow = Predictive(jnp.zeros(2), jnp.ones(2), log=False)
    >>> round(float(jnp.exp(narrow.log_prob_interval(-1.0, 1.0))), 4)
    0.6827
    """

    loc: Array
    scale: Array
    log: bool = eqx.field(static=True)

    def mean(self) -> Array:
        """The mean in modelling space, `(...)` brought back to the unit of y.

        Without a log it is the mean of the mixture. With a log it is the geometric mean, which lies near the median:
        the arithmetic mean would be decided by the far tail (it is infinite for Student errors of log y).
        """
        middle = jnp.mean(self.loc, axis=-1)
        return jnp.exp(middle) if self.log else middle

    def sd(self) -> Array:
        """Half the width of the central 68.27 % interval, `(...)` in the unit of y.

        The standard deviation of a normal, and for heavier tails a width that one draw in the tail cannot decide.
        """
        return self.summary(()).sd

    def median(self) -> Array:
        """The median, `(...)` in the unit of y."""
        return self.quantile(0.5)

    def quantile(self, q: Array | float) -> Array:
        """The value below which a share `q` in (0, 1) of the probability lies, without a gradient.

        `q` is broadcast against the batch shape; for several at once use `quantiles`.
        """
        shape = jnp.broadcast_shapes(jnp.shape(q), self.loc.shape[:-1])
        loc, scale = (jnp.broadcast_to(array, (*shape, array.shape[-1])) for array in (self.loc, self.scale))
        return Predictive(loc, scale, self.log)._quantiles(jnp.broadcast_to(q, shape)[..., None])[..., 0]

    def quantiles(self, q: Array | Sequence[float]) -> Array:
        """The values below which shares `q` `(Q,)` in (0, 1) lie, `(..., Q)`; faster together than one by one."""
        return self._quantiles(jnp.broadcast_to(jnp.asarray(q), (*self.loc.shape[:-1], len(q))))

    def summary(self, q: Array | Sequence[float] = (0.05, 0.5, 0.95)) -> Summary:
        """Mean, standard deviation and the quantiles `q`, found together.

        >>> narrow = Predictive(jnp.zeros(2), jnp.ones(2), log=False)
        >>> [round(float(x), 3) for x in narrow.summary().quantiles]
        [-1.645, 0.0, 1.645]
        """
        found = self.quantiles((*_SIGMA, *q))
        return Summary(self.mean(), 0.5 * (found[..., 1] - found[..., 0]), found[..., 2:])

    def cdf(self, y: Array | float) -> Array:
        """P(Y ≤ y), `(...)`; `y` in its unit, broadcast against the batch shape."""
        return self._cdf(self._modelled(y))

    def log_prob(self, y: Array | float) -> Array:
        """Log density at y, per unit of y, `(...)`; −inf at y ≤ 0 where the modelling space is log y."""
        value = self._modelled(y)
        jacobian = value if self.log else jnp.zeros_like(value)
        inside = jnp.isfinite(value)
        value = jnp.where(inside, value, 0.0)
        density = norm.logpdf(value[..., None], self.loc, self.scale)
        return jnp.where(inside, logsumexp(density, axis=-1) - jnp.log(self.loc.shape[-1]) - jacobian, -jnp.inf)

    def log_prob_interval(self, lower: Array | float, upper: Array | float) -> Array:
        """log P(lower < Y < upper), `(...)`, averaged over the posterior draws.

        The limits are in the unit of y and broadcast against the batch shape; −inf and inf leave a side open. An empty
        interval has −inf, never NaN; any other has a finite value with a finite gradient.
        """
        low, high = jnp.broadcast_arrays(self._modelled(lower), self._modelled(upper))
        possible = (low < high) & (low < jnp.inf) & (high > -jnp.inf)
        open_low, open_high = jnp.isneginf(low), jnp.isposinf(high)
        # Where a limit is not used, a harmless number stands in for it, so that no gradient becomes NaN.
        low = jnp.where(possible & ~open_low, low, jnp.where(possible & ~open_high, high - 1.0, 0.0))
        high = jnp.where(possible & ~open_high, high, low + 1.0)
        a = jnp.clip((low[..., None] - self.loc) / self.scale, -_FAR, _FAR)
        b = jnp.clip((high[..., None] - self.loc) / self.scale, -_FAR, _FAR)
        inside = _log_normal_interval(a, b, (high - low)[..., None] / self.scale)
        one_sided = jnp.where(open_low[..., None], log_ndtr(b), log_ndtr(-a))
        each = jnp.where((open_low | open_high)[..., None], one_sided, inside)
        each = jnp.where((open_low & open_high)[..., None], 0.0, each)
        return jnp.where(possible, logsumexp(each, axis=-1) - jnp.log(self.loc.shape[-1]), -jnp.inf)

    def sample(self, key: Array) -> Array:
        """One draw for each entry of the batch, `(...)` in the unit of y."""
        key_component, key_noise = jax.random.split(key)
        batch = self.loc.shape[:-1]
        component = jax.random.randint(key_component, (*batch, 1), 0, self.loc.shape[-1])
        loc = jnp.take_along_axis(self.loc, component, -1)[..., 0]
        scale = jnp.take_along_axis(self.scale, component, -1)[..., 0]
        value = loc + scale * jax.random.normal(key_noise, batch, self.loc.dtype)
        return jnp.exp(value) if self.log else value

    def _quantiles(self, q: Array) -> Array:
        """At `(..., Q)` shares, with the leading axes of the batch."""
        value = mixture_quantiles(self.loc, self.scale, q.astype(self.loc.dtype))
        return jnp.exp(value) if self.log else value

    def _modelled(self, y: Array | float) -> Array:
        """y in modelling space, −inf where it has no logarithm."""
        y = jnp.asarray(y, self.loc.dtype)
        if not self.log:
            return y
        return jnp.where(y > 0, jnp.log(jnp.where(y > 0, y, 1.0)), -jnp.inf)

    def _cdf(self, value: Array) -> Array:
        return jnp.mean(ndtr((value[..., None] - self.loc) / self.scale), axis=-1)


def _log_normal_interval(a: Array, b: Array, width: Array) -> Array:
    """log(Φ(b) − Φ(a)) for a < b, given the width b − a from before it was rounded."""
    right = a + b > 0  # mirrored to the left half, where Φ is small and its logarithm exact
    a, b = jnp.where(right, -b, a), jnp.where(right, -a, b)
    narrow = width < _NARROW
    # Narrow: φ(m) w · sinh(mw/2)/(mw/2) about the midpoint m, as the density is exponential over a short interval.
    middle, w = 0.5 * (a + b), jnp.where(narrow, jnp.maximum(width, 1e-30), _NARROW)
    tilt = 0.5 * jnp.abs(middle) * w
    big = jnp.maximum(tilt, 0.1)
    log_sinhc = jnp.where(tilt < 0.1, tilt**2 / 6, big + jnp.log1p(-jnp.exp(-2 * big)) - jnp.log(2 * big))
    thin = norm.logpdf(middle) + jnp.log(w) + log_sinhc
    # Wide: Φ(b)(1 − Φ(a)/Φ(b)).
    log_b = log_ndtr(b)
    gap = jnp.maximum(log_b - log_ndtr(jnp.where(narrow, b - _NARROW, a)), 1e-7)
    return jnp.where(narrow, thin, log_b + jnp.where(gap < 0.7, jnp.log(-jnp.expm1(-gap)), jnp.log1p(-jnp.exp(-gap))))
