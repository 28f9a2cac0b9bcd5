"""Which compounds are liquid at a temperature, from the measured transition temperatures of `chemicals`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from chemicals import critical, miscdata, phase_change

ROOM = 298.15
"""The one temperature of the temperature-dependent tables [K]."""

SUBCOOLED = 2.0
"""A melting point this much above the temperature still counts as liquid: handbooks disagree by as much [K]."""


def to_series(table: pd.DataFrame, column: str) -> pd.Series:
    """One column as float64, indexed by CAS number; missing values are left out."""
    index = table.index
    if not pd.api.types.is_integer_dtype(index.dtype):
        # Some files of `chemicals` index by "64-17-5", others by 64175.
        index = pd.Index(index.astype(str).str.replace("-", "").astype(np.int64))
    series = pd.Series(np.asarray(table[column], dtype=np.float64), index=index)
    return series[np.isfinite(series)]


def _median(*columns: tuple[pd.DataFrame, str]) -> pd.Series:
    return pd.concat([to_series(*column) for column in columns]).groupby(level=0).median()


@lru_cache(maxsize=1)
def transitions() -> pd.DataFrame:
    """Melting, boiling and critical temperature [K] by CAS number, medians over sources, NaN where unknown."""
    crc, common, webbook = miscdata.CRC_organic_data, miscdata.common_chemistry_data, miscdata.webbook_data
    inorganic = miscdata.CRC_inorganic_data
    melting = _median((crc, "Tm"), (inorganic, "Tm"), (common, "Tm"), (webbook, "Tm"), (phase_change.Tm_ON_data, "Tm"))
    boiling = _median(
        (crc, "Tb"), (inorganic, "Tb"), (common, "Tb"), (webbook, "Tb"), (phase_change.Tb_data_Yaws, "Tb")
    )
    tc = _median(
        (critical.critical_data_CRC, "Tc"), (critical.critical_data_PSRKR4, "Tc"), (critical.critical_data_IUPAC, "Tc")
    )
    return pd.DataFrame({"melting": melting, "boiling": boiling, "critical": tc})


def liquid_at(cas: pd.Index, temperature: float, above_boiling: bool = False) -> np.ndarray:
    """Whether each compound is known to be liquid at a temperature [K].

    A compound with a boiling point but no melting point on record counts as liquid below its boiling point;
    one with neither does not.

    Args:
        cas: n CAS numbers.
        temperature: [K].
        above_boiling: also accept what boils lower, as a saturated liquid under its own pressure below 95 % of the
            critical temperature.
    """
    known = transitions().reindex(cas)
    solid = (known.melting > temperature + SUBCOOLED).to_numpy()
    liquid = (known.boiling > temperature).to_numpy()
    if above_boiling:
        liquid = liquid | (0.95 * known.critical > temperature).to_numpy()
    return ~solid & liquid
