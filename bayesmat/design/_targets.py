"""What is wanted of a property, as a likelihood.

A target is a region U. Of a predictive distribution its `log_prob` is log p(y in U), marginal over the forward
model's posterior; of a plain number it is 0 inside U and -inf outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .._types import Array, BayesmatError


@dataclass(frozen=True)
class Interval:
    """lower < y < upper, in the unit of the property.

    Raises:
        BayesmatError: the interval is empty or not made of numbers.

    >>> Interval(350.0, 400.0).text("K")
    'between 350 and 400 K'
    """

    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper):
            raise BayesmatError("a target's bounds must be numbers")
        if self.lower >= self.upper:
            raise BayesmatError(
                f"no value is above {self.lower:g} and below {self.upper:g}; the lower bound must be the smaller"
            )
        if math.isinf(self.lower) and math.isinf(self.upper):
            raise BayesmatError("a target needs at least one bound")

    def log_prob(self, y: Any) -> Array:
        """log p(y in U) of a `forward.Predictive`, or 0 / -inf of a number or an array of numbers."""
        if hasattr(y, "log_prob_interval"):
            return y.log_prob_interval(self.lower, self.upper)
        y = jnp.asarray(y)
        return jnp.where((y > self.lower) & (y < self.upper), 0.0, -jnp.inf)

    def text(self, unit: str) -> str:
        """The target in words."""
        unit = "" if unit in ("", "1") else f" {unit}"
        if math.isinf(self.upper):
            return f"at least {self.lower:.4g}{unit}"
        if math.isinf(self.lower):
            return f"at most {self.upper:.4g}{unit}"
        return f"between {self.lower:.4g} and {self.upper:.4g}{unit}"


def Above(lower: float) -> Interval:
    """The target y > lower."""
    return Interval(lower=lower)


def Below(upper: float) -> Interval:
    """The target y < upper."""
    return Interval(upper=upper)


def Near(value: float, within: float) -> Interval:
    """The target |y - value| < within.

    Raises:
        BayesmatError: `within` is not positive.
    """
    if not within > 0:
        raise BayesmatError(f"within is {within}; it must be positive")
    return Interval(value - within, value + within)
