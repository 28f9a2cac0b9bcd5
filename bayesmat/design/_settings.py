"""Conditions as the section [filters] of a problem file writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import nn
from .._types import BayesmatError
from ._conditions import Condition
from ._filters import Descriptor, Elements, HeteroatomChains, RingSizes, Smarts, SyntheticAccessibility
from ._unstable import NoUnstableGroups


def from_setting(name: str, value: Any) -> Condition:
    """A filter as a problem file writes it, name = value; `FILTER_NAMES` are known.

    Raises:
        BayesmatError: the name is unknown, or the value is not what it takes.

    >>> from_setting("ring_sizes", [5, 6]).text(), from_setting("molecular_weight", {"upper": 300}).text()
    ('rings of 5 or 6 atoms only', 'molecular weight at most 300 g/mol')
    """
    if name not in FILTER_NAMES:
        raise BayesmatError(f"unknown; allowed: {', '.join(FILTER_NAMES)}")
    return (
        _SETTINGS[name](value) if name in _SETTINGS else Descriptor(name, **_numbers(value, "lower", "upper", "slope"))
    )


def _numbers(value: Any, *keys: str) -> dict[str, float]:
    """A table of numbers; a number alone is the upper bound."""
    table = value if isinstance(value, dict) else {"upper": value}
    for key, number in table.items():
        if key not in keys or isinstance(number, bool) or not isinstance(number, int | float):
            raise BayesmatError(f"must be a number, or a table of numbers with {', '.join(keys)}; not {value!r}")
    return table


def _texts(value: Any, example: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BayesmatError(f"must be a list such as {example}; not {value!r}")
    return value


def _patterns(value: Any) -> Any:
    """SMARTS, as a list or as a table by name."""
    is_table = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return value if is_table else _texts(value, '["[#8][#8]"], or a table { name = "[#8][#8]" }')


def _no_unstable(value: Any) -> Condition:
    if value is True:
        return NoUnstableGroups()
    return NoUnstableGroups(_texts(value, '["peroxide"], or true for all'))


def _sizes(value: Any) -> Condition:
    if not isinstance(value, list):
        raise BayesmatError(f"must be a list such as [5, 6]; not {value!r}")
    return RingSizes(value)


def _accessibility(value: Any) -> Condition:
    numbers = _numbers(value, "upper", "slope")
    if "upper" not in numbers:
        raise BayesmatError("needs 'upper'")
    return SyntheticAccessibility(**numbers)


_SETTINGS: dict[str, Callable[[Any], Condition]] = {
    "elements": lambda value: Elements(_texts(value, '["C", "H", "O"]')),
    "ring_sizes": _sizes,
    "heteroatom_chains": HeteroatomChains,
    "no_unstable_groups": _no_unstable,
    "forbidden": lambda value: Smarts(forbidden=_patterns(value)),
    "required": lambda value: Smarts(required=_patterns(value)),
    "synthetic_accessibility": _accessibility,
}

FILTER_NAMES = (*_SETTINGS, *nn.PHYSICOCHEMICAL_NAMES)
"""What may stand in the section [filters] of a problem file."""
