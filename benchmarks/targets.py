"""The small targets of the low-data benchmarks, and the molecules that nothing pre-trained may have seen.

Every molecule of every target is left out of pre-training: all of ESOL, FreeSolv, PI1070 and the measured polymer heat
capacities, and 2,000 molecules drawn from each of the tables of boiling and melting points, which take their place as
targets. So a table's other molecules can still teach, but no source ever saw a molecule it is tested on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bayesmat import chem, data

NUM_DRAWN = 2000
"""Molecules of the boiling and melting points that are targets."""


class Target(NamedTuple):
    """A property to be learned from few measurements.

    Attributes:
        name: of the property.
        smiles: n canonical SMILES, each once.
        y: `(n,)`.
        unit: of y.
        polymer: the structures are repeat units.
    """

    name: str
    smiles: tuple[str, ...]
    y: np.ndarray
    unit: str
    polymer: bool

    def table(self) -> data.PropertyTable:
        """As `forward.fit` wants it."""
        ones = np.ones(len(self.y), int)
        return data.PropertyTable(self.name, self.name, self.unit, self.smiles, self.y, ones, ones.copy(),
                                  ("",) * len(self.y), (), "", len(self.y))  # fmt: skip


def folder() -> Path:
    """Where the open data sets stand."""
    return Path(os.environ["BAYESMAT_DATA"])


@cache
def targets() -> dict[str, Target]:
    """All targets by name."""
    pi = pd.read_csv(folder() / "radonpy_pi1070.csv")
    cp = pd.read_csv(folder() / "polymer_cp_exp.csv")
    esol, free = pd.read_csv(folder() / "esol.csv"), pd.read_csv(folder() / "freesolv.csv")
    found = [
        make_target("ESOL", esol["smiles"], esol["logS"], "log10(mol/L)"),
        make_target("FreeSolv", free["smiles"], free["dG_hyd_expt"], "kcal/mol"),
        _drawn("boiling_point"),
        _drawn("melting_point"),
        make_target(
            "PI1070 log10 conductivity", pi["smiles"], np.log10(pi["thermal_conductivity"]), "log10(W/m/K)", True
        ),
        make_target("PI1070 Cp", pi["smiles"], pi["Cp"], "J/kg/K", True),
        make_target("polymer Cp", cp["smiles"], cp["Cp_specific_exp"], "J/g/K", True),
    ]
    return {target.name: target for target in found}


@cache
def held_out() -> frozenset[str]:
    """Canonical SMILES that nothing pre-trained may see."""
    return frozenset(smiles for target in targets().values() for smiles in target.smiles)


def without_held_out(table: data.PropertyTable) -> data.PropertyTable:
    """A table's other rows."""
    return table.subset(np.array([smiles not in held_out() for smiles in table.smiles], bool))


def make_target(name: str, smiles: Sequence[str], y: Sequence[float], unit: str, polymer: bool = False) -> Target:
    """Rows of one canonical structure become their median; rows without a value are left out."""
    known = np.isfinite(np.asarray(y, float))
    canonical = chem.canonicalize([text for text, keep in zip(smiles, known, strict=True) if keep]).smiles
    values = np.asarray(y, float)[known]
    kept = [row for row, text in enumerate(canonical) if text]
    by = [canonical_unit(canonical[row]) if polymer else canonical[row] for row in kept]
    series = pd.Series(values[kept]).groupby(by).median()
    return Target(name, tuple(series.index), series.to_numpy(), unit, polymer)


def canonical_unit(smiles: str) -> str:
    """A repeat unit whichever bond of the chain it was cut at; the text itself where it is none."""
    try:
        return chem.repeat_unit(smiles)
    except chem.RefusedError:
        return smiles


def _drawn(name: str) -> Target:
    table = data.load(name).organic()
    rows = np.sort(np.random.default_rng(2026).choice(len(table), NUM_DRAWN, replace=False))
    return Target(name, tuple(table.smiles[row] for row in rows), table.y[rows], table.unit, False)
