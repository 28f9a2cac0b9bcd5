"""Many values of one structure → one value, or none: the rule that every table states.

The value is the median over sources of the median inside each source. It stands if the values agree: their spread is
within the tolerance, or there are at least three and a strict majority of them lies within the tolerance of the value.
The test is made twice, once between sources and once between registered compounds: stereoisomers share a flat
structure, and one that melts 150 K above its twin must not pass for it because only one source lists both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

ROUNDING = 1e-9
"""Relative slack of comparisons, so that 10.0 K apart counts as within 10 K after float arithmetic."""


@dataclass(frozen=True)
class Tolerance:
    """How far apart values of one structure may lie.

    Attributes:
        value: in the unit of the property, or a fraction of the median where `relative`.
        relative: whether `value` is a fraction.
        unit: for the text; empty for fractions and pure numbers.
    """

    value: float
    relative: bool
    unit: str = ""

    def around(self, y: pd.Series) -> pd.Series:
        """The tolerance in the unit of y, at each y."""
        width = self.value * y.abs() if self.relative else pd.Series(self.value, index=y.index)
        return width + ROUNDING * y.abs()

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Reconciled:
    """What `reconcile` found.

    Attributes:
        kept: one row per kept structure, indexed by structure and sorted; columns y, num_sources, num_values.
        disagreeing: single values of structures whose sources disagree.
        isomers: single values of structures whose registered compounds (stereoisomers) disagree.
    """

    kept: pd.DataFrame
    disagreeing: int
    isomers: int


def reconcile(values: pd.DataFrame, tolerance: Tolerance) -> Reconciled:
    """One value per structure by the rule of this module.

    Args:
        values: columns structure, source, compound (what tells stereoisomers apart), value; one row per single value.
        tolerance: how far apart values may lie.
    """
    by_source = values.groupby(["structure", "source"], sort=True)["value"].median()
    by_compound = values.groupby(["structure", "compound"], sort=True)["value"].median()
    y = by_source.groupby(level=0).median()
    table = pd.DataFrame(
        {
            "y": y,
            "num_sources": by_source.groupby(level=0).size(),
            "num_values": values.groupby("structure").size(),
        }
    )
    sources_agree = _agree(by_source, y, tolerance)
    isomers_agree = _agree(by_compound, y, tolerance)
    return Reconciled(
        kept=table[sources_agree & isomers_agree],
        disagreeing=int(table.num_values[~sources_agree].sum()),
        isomers=int(table.num_values[sources_agree & ~isomers_agree].sum()),
    )


def _agree(votes: pd.Series, y: pd.Series, tolerance: Tolerance) -> pd.Series:
    """Whether the votes (indexed by structure and voter) on each structure agree on its y."""
    width = tolerance.around(y)
    groups = votes.groupby(level=0)
    structure = votes.index.get_level_values(0)
    near = np.abs(votes.to_numpy() - y.loc[structure].to_numpy()) <= width.loc[structure].to_numpy()
    supporters = pd.Series(near, index=structure).groupby(level=0).sum()
    count = groups.size()
    return ((groups.max() - groups.min()) <= width) | ((count >= 3) & (2 * supporters > count))
