"""The property tables by name: their units, bounds and tolerances, and the road from sources to one table."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from .._types import BayesmatError
from ._reconcile import Tolerance, reconcile
from ._sources import ESTIMATE_WINDOW, SOURCES, near_estimate
from ._structures import registry
from ._table import PropertyTable


@dataclass(frozen=True)
class Property:
    """What a table is about.

    Attributes:
        label: in words.
        unit: of every number here and in the table.
        bounds: values outside cannot be the property of a molecular substance and are dropped.
        tolerance: how far sources may differ.
        conditions: at what temperature and phase the values hold, and what a user should know.
    """

    label: str
    unit: str
    bounds: tuple[float, float]
    tolerance: Tolerance
    conditions: str


def _relative(fraction: float) -> Tolerance:
    return Tolerance(fraction, relative=True)


def _absolute(value: float, unit: str) -> Tolerance:
    return Tolerance(value, relative=False, unit=unit)


PROPERTIES: dict[str, Property] = {
    "thermal_conductivity": Property(
        "thermal conductivity",
        "W/m/K",
        (0.03, 1.0),
        _relative(0.10),
        "liquid at 298.15 K, at its own vapour pressure where it boils lower; correlations are read "
        "inside their range only",
    ),
    "boiling_point": Property(
        "boiling point", "K", (50.0, 1000.0), _absolute(10.0, "K"), "normal boiling point, at 101.325 kPa"
    ),
    "melting_point": Property("melting point", "K", (50.0, 1000.0), _absolute(10.0, "K"), "melting point"),
    "refractive_index": Property(
        "refractive index",
        "1",
        (1.2, 2.0),
        _absolute(0.01, ""),
        "liquid, sodium D line, measured between 288 and 303 K (mostly 293 K)",
    ),
    "density": Property(
        "density",
        "kg/m3",
        (400.0, 4000.0),
        _relative(0.03),
        "liquid near 298 K: correlations at 298.15 K, handbook values mostly at 293 K (about 0.5 % higher)",
    ),
    "heat_of_vaporisation": Property("heat of vaporisation", "J/mol", (3.0e3, 2.5e5), _relative(0.10), "at 298.15 K"),
    "permittivity": Property(
        "relative permittivity",
        "1",
        (1.0, 250.0),
        _relative(0.10),
        "liquid, static, at 298.15 K by the handbook's polynomial or a single value taken within 10 K of it",
    ),
    "flash_point": Property(
        "flash point", "K", (150.0, 700.0), _absolute(15.0, "K"), "closed and open cup are not told apart"
    ),
    "critical_temperature": Property(
        "critical temperature",
        "K",
        (50.0, 1200.0),
        _absolute(10.0, "K"),
        "measured, or critically evaluated by the compilers (DIPPR and PSRK include a few estimates)",
    ),
    "viscosity": Property("viscosity", "Pa s", (2.0e-5, 10.0), _relative(0.20), "dynamic, liquid at 298.15 K"),
}


def names() -> tuple[str, ...]:
    """The properties that `load` knows."""
    return tuple(PROPERTIES)


@cache
def load(name: str) -> PropertyTable:
    """A measured property of organic and other molecular compounds, from the files of the `chemicals` package.

    Takes about half a second once the structures are cached (see `structures`). The rule, the sources and what was
    left out are attributes of the table.

    Args:
        name: one of `names()`.

    Raises:
        BayesmatError: there is no property of that name.
    """
    if name not in PROPERTIES:
        close = difflib.get_close_matches(name, PROPERTIES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise BayesmatError(f"no property {name!r}; {hint}known: {', '.join(PROPERTIES)}")
    prop = PROPERTIES[name]
    values = _gather(name)
    num_read = len(values)
    dropped: Counter[str] = Counter()
    values = _with_structure(_in_bounds(values, prop, dropped), dropped)
    values = _corroborated(name, values, dropped)
    result = reconcile(values, prop.tolerance)
    dropped[f"sources disagree by more than {prop.tolerance}"] += result.disagreeing
    dropped[f"stereoisomers differ by more than {prop.tolerance}"] += result.isomers
    kept = result.kept
    # Of the registered stereoisomers, the smallest number is the earliest and mostly the plain name.
    named = values.sort_values("compound").drop_duplicates("structure").set_index("structure")["name"]
    return PropertyTable(
        name=name,
        label=prop.label,
        unit=prop.unit,
        smiles=tuple(kept.index),
        y=kept.y.to_numpy(np.float64, copy=True),
        num_sources=kept.num_sources.to_numpy(np.int64, copy=True),
        num_values=kept.num_values.to_numpy(np.int64, copy=True),
        names=tuple(named.loc[kept.index]),
        sources=tuple(source.citation for source in SOURCES[name]),
        rule=_rule(prop),
        num_read=num_read,
        dropped={reason: count for reason, count in dropped.most_common() if count},
    )


def _gather(name: str) -> pd.DataFrame:
    parts = [(source.key, source.read()) for source in SOURCES[name]]
    return pd.concat(
        [pd.DataFrame({"compound": series.index, "value": series.to_numpy(), "source": key}) for key, series in parts],
        ignore_index=True,
    )


def _in_bounds(values: pd.DataFrame, prop: Property, dropped: Counter[str]) -> pd.DataFrame:
    low, high = prop.bounds
    inside = values["value"].between(low, high)
    unit = "" if prop.unit == "1" else f" {prop.unit}"
    dropped[f"outside {low:g} to {high:g}{unit}"] += int((~inside).sum())
    return values[inside]


def _with_structure(values: pd.DataFrame, dropped: Counter[str]) -> pd.DataFrame:
    """Adds the columns structure and name; values of compounds without a usable structure are dropped by reason."""
    entries = registry()
    found = [entries.get(cas) for cas in values["compound"].tolist()]
    dropped.update(
        "no structure" if entry is None else entry.reason for entry in found if entry is None or entry.reason
    )
    usable = np.array([entry is not None and not entry.reason for entry in found], dtype=bool)
    good = [entry for entry in found if entry is not None and not entry.reason]
    return values[usable].assign(structure=[e.smiles for e in good], name=[e.name for e in good])


def _corroborated(name: str, values: pd.DataFrame, dropped: Counter[str]) -> pd.DataFrame:
    """Drops structures that rest on sources which are not trusted alone, unless an estimate supports the value."""
    weak = {source.key for source in SOURCES[name] if not source.alone}
    if not weak:
        return values
    supported = values["structure"].isin(values.loc[~values["source"].isin(weak), "structure"].unique())
    plausible = near_estimate(values["compound"], values["value"])
    # All of a structure's values, or none: a vote must not be lost because it lies on the other side of the window.
    keep = supported | plausible.groupby(values["structure"]).transform("all")
    reason = f"only in {' or '.join(sorted(weak))}, and more than {ESTIMATE_WINDOW:g} K from the Joback estimate"
    dropped[reason] += int((~keep).sum())
    return values[keep]


def _rule(prop: Property) -> str:
    return (
        f"{prop.conditions}; one row per flat structure (stereoisomers merged), the median over sources of the median "
        f"inside each source; kept if all sources lie within {prop.tolerance} of one another, or if there are three or "
        f"more and a strict majority is within {prop.tolerance} of the median; the same test between stereoisomers"
    )
