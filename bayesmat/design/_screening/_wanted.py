"""Targets as people write them on a command line: "boiling_point > 473 K"."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..._types import BayesmatError
from ...forward import Fitted
from .._targets import Interval, Near

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(rf"\s*({_NUMBER})\s*(?:(?:±|\+/?-)\s*({_NUMBER}))?\s*(.*?)\s*")
ALLOWED = "'NAME>a', 'NAME<b', 'a<NAME<b' and 'NAME=a+-d', with the unit or % of the measurements behind a number"


def read_targets(texts: Sequence[str], fits: Mapping[str, Fitted]) -> dict[str, Interval]:
    """Targets from text; several of one property are all to be met.

    Args:
        texts: each names a property, one or two limits, and possibly their unit, which must be the model's: nothing is
            converted. "90%" is that percentile of the model's own measurements.
        fits: by name.

    Raises:
        BayesmatError: a text is no target, its property has no model, its unit is another one, or nothing meets all.

    >>> read_targets(["density > 1"], {})
    Traceback (most recent call last):
    bayesmat._types.BayesmatError: 'density > 1': there is no model of 'density'; there are models of none
    """
    found: dict[str, Interval] = {}
    for text in texts:
        name, interval = _read(text, fits)
        if name in found:
            other = found[name]
            interval = Interval(max(interval.lower, other.lower), min(interval.upper, other.upper))
        found[name] = interval
    return found


def _read(text: str, fits: Mapping[str, Fitted]) -> tuple[str, Interval]:
    parts = re.split(r"\s*(<=|>=|≤|≥|<|>|=)\s*", text)
    signs = [{"≤": "<", "≥": ">"}.get(sign, sign[0]) for sign in parts[1::2]]
    if len(parts) == 3:
        name, fit = _fit_of(parts[0], text, fits)
        value, within = _value(parts[2], text, fit)
        if signs == ["="] and within is not None:
            return name, Near(value, within)
        if within is None and signs != ["="]:
            return name, Interval(value, math.inf) if signs == [">"] else Interval(-math.inf, value)
    if len(parts) == 5 and signs in (["<", "<"], [">", ">"]):
        name, fit = _fit_of(parts[2], text, fits)
        ends = [_value(part, text, fit) for part in (parts[0], parts[4])]
        if all(within is None for _, within in ends):
            low, high = (value for value, _ in (ends if signs[0] == "<" else ends[::-1]))
            return name, Interval(low, high)
    raise BayesmatError(f"{text!r} is not a target; allowed are {ALLOWED}")


def _fit_of(name: str, text: str, fits: Mapping[str, Fitted]) -> tuple[str, Fitted]:
    name = name.strip()
    if name in fits:
        return name, fits[name]
    close = difflib.get_close_matches(name, list(fits), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are models of {', '.join(fits) or 'none'}"
    raise BayesmatError(f"{text!r}: there is no model of {name!r}{hint}")


def _value(part: str, text: str, fit: Fitted) -> tuple[float, float | None]:
    match = _VALUE.fullmatch(part)
    if match is None:
        raise BayesmatError(f"{text!r}: {part!r} is not a number with or without a unit; allowed are {ALLOWED}")
    value, unit = float(match[1]), match[3]
    if unit == "%" and fit.unit != "%":
        if not 0 <= value <= 100:
            raise BayesmatError(f"{text!r}: a percentile of the measurements is between 0 and 100 %")
        value, unit = float(np.percentile(fit.y, value)), fit.unit
    if unit and unit != fit.unit:
        raise BayesmatError(f"{text!r} is in {unit}, the model of {fit.name} in {fit.unit}; nothing is converted")
    return value, None if match[2] is None else float(match[2])
