"""What every reader of measured data returns: one row per canonical structure, with provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from ..chem import is_organic


@dataclass(frozen=True, eq=False)
class PropertyTable:
    """A measured property of n compounds, one row per canonical flat structure, sorted by SMILES.

    Everything that was read is accounted for: `num_read == num_values.sum() + sum(dropped.values())`,
    all three counted in single values (one source's value for one registered compound, or one line of a file). What a
    source gives at other conditions than the table's (another temperature, a solid, a correlation outside its range)
    was not read.
    A subset keeps `num_read` and `dropped` of the table that it was taken from.

    Attributes:
        name: as in `names()`, or given by the user.
        label: the property in words, for axes and reports.
        unit: unit of `y`; "1" for pure numbers.
        smiles: n canonical SMILES, no two equal.
        y: (n,) float64, read-only; property values in `unit`.
        num_sources: (n,) how many sources have a value for the structure.
        num_values: (n,) how many single values stand behind a row; more than the sources where several stereoisomers
            are registered.
        names: n common names, possibly "".
        sources: where the values come from.
        rule: how several values of one structure became one, and at what conditions they hold.
        num_read: single values read.
        dropped: how many of them were left out, by reason.
        bad_rows: for a user's own file, (line number, reason) of each line set aside.
    """

    name: str
    label: str
    unit: str
    smiles: tuple[str, ...]
    y: np.ndarray
    num_sources: np.ndarray
    num_values: np.ndarray
    names: tuple[str, ...]
    sources: tuple[str, ...]
    rule: str
    num_read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad_rows: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        for column in (self.y, self.num_sources, self.num_values):
            column.setflags(write=False)  # tables are shared: `load` gives every caller the same one

    def __len__(self) -> int:
        return len(self.smiles)

    def subset(self, index: ArrayLike) -> PropertyTable:
        """The rows of an integer index array or a boolean mask, in that order; provenance is kept."""
        selected = np.asarray(index)
        if selected.size == 0:
            selected = selected.astype(np.int64)  # an empty list arrives as floats, which cannot index
        rows = np.arange(len(self))[selected].ravel()
        return replace(
            self,
            smiles=tuple(self.smiles[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            y=self.y[rows],
            num_sources=self.num_sources[rows],
            num_values=self.num_values[rows],
        )

    def organic(self) -> PropertyTable:
        """The rows of organic molecules, see `chem.is_organic`: the domain of the organic priors."""
        return self.subset(np.array([is_organic(smiles) for smiles in self.smiles], bool))

    def summary(self) -> str:
        """A few lines of text: size, range, sources, the rule, and what was left out and why."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        lines = [f"{self.label}: {len(self)} structures from {self.num_read} values"]
        if len(self):
            low, middle, high = np.quantile(self.y, [0.0, 0.5, 1.0])
            lines.append(f"  range {low:.4g} to {high:.4g}{unit}, median {middle:.4g}{unit}")
            lines.append(f"  {int((self.num_sources > 1).sum())} structures have more than one source")
        lines += [f"  source: {source}" for source in self.sources]
        lines.append(f"  rule: {self.rule}")
        lines += [f"  left out: {count} {reason}" for reason, count in self.dropped.items()]
        return "\n".join(lines)
