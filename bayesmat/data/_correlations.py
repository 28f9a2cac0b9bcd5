"""Correlations in temperature of `chemicals`, evaluated at 298.15 K inside the range in which they hold.

Every function returns a series: CAS number → value at 298.15 K. A correlation with a range is used when 298.15 K lies
inside it. The equations of the VDI Heat Atlas state no range; they are used where the compound is known to be liquid
at 298.15 K, which includes liquids held under their own vapour pressure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from typing import Any

import numpy as np
import pandas as pd
from chemicals import dippr, miscdata, phase_change, thermal_conductivity, viscosity, volume
from chemicals.permittivity import permittivity_CRC

from ._phase import ROOM, liquid_at, to_series
from ._structures import cas_number, registry

PERMITTIVITY_REACH = 5.0
"""How far outside its range a permittivity polynomial is still read [K]."""


def _evaluate(
    table: pd.DataFrame,
    equation: Callable[..., float],
    columns: Sequence[str],
    reach: float = 0.0,
    ranged: bool = True,
    offset: float = 0.0,
) -> pd.Series:
    """The equation at 298.15 K for each row that may be read there.

    Args:
        table: coefficients, one row per compound, with `Tmin` and `Tmax` [K] when `ranged`.
        equation: a function of `chemicals` called as equation(T, *coefficients).
        columns: the coefficients in the order of the equation's arguments; an empty one counts as zero.
        reach: tolerated distance of 298.15 K from the nearest end of the range [K].
        ranged: False for tables without a range, of which only liquids are read.
        offset: added to the first coefficient (unit conversions of logarithmic equations).
    """
    coefficients = table[list(columns)].astype(np.float64).fillna(0.0).to_numpy()
    coefficients[:, 0] += offset
    index = to_series(table.assign(one=1.0), "one").index
    if ranged:
        keep = ((table["Tmin"] - reach <= ROOM) & (ROOM <= table["Tmax"] + reach)).to_numpy()
    else:
        keep = liquid_at(index, ROOM, above_boiling=True)
    values = [equation(ROOM, *row) for row in coefficients[keep].tolist()]
    return pd.Series(values, index=index[keep], dtype=np.float64)


def conductivity_perry() -> pd.Series:
    """Liquid thermal conductivity [W/m/K] by DIPPR equation 100."""
    table = thermal_conductivity.k_data_Perrys_8E_2_315
    return _evaluate(table, dippr.EQ100, ("C1", "C2", "C3", "C4", "C5"))


def conductivity_vdi() -> pd.Series:
    """Liquid thermal conductivity [W/m/K] by the polynomial of the VDI Heat Atlas."""
    return _evaluate(thermal_conductivity.k_data_VDI_PPDS_9, dippr.EQ100, "ABCDE", ranged=False)


def density_perry() -> pd.Series:
    """Saturated liquid density [kg/m3] by DIPPR equation 105."""
    molar = _evaluate(volume.rho_data_Perry_8E_105_l, dippr.EQ105, ("C1", "C2", "C3", "C4"))  # [mol/m3]
    entries = registry()
    mass = [entries[cas].molar_mass if cas in entries else np.nan for cas in molar.index]
    return (1e-3 * molar * np.asarray(mass)).dropna()


def density_vdi() -> pd.Series:
    """Saturated liquid density [kg/m3] by PPDS equation 10."""
    return _evaluate(volume.rho_data_VDI_PPDS_2, volume.volume_VDI_PPDS, ("Tc", "rhoc", *"ABCD"), ranged=False)


def vaporisation_perry() -> pd.Series:
    """Heat of vaporisation [J/mol] by DIPPR equation 106."""
    table = phase_change.phase_change_data_Perrys2_150
    return _evaluate(table, dippr.EQ106, ("Tc", "C1", "C2", "C3", "C4"))


def vaporisation_vdi() -> pd.Series:
    """Heat of vaporisation [J/mol] by PPDS equation 12."""
    return _evaluate(phase_change.phase_change_data_VDI_PPDS_4, phase_change.PPDS12, ("Tc", *"ABCDE"), ranged=False)


def permittivity(table: pd.DataFrame) -> pd.Series:
    """Relative permittivity [1] by the cubic of the CRC Handbook, where the table has one."""
    fitted = table[table["A"].notna()]
    return _evaluate(fitted, permittivity_CRC, "ABCD", reach=PERMITTIVITY_REACH)


def viscosity_dutt_prasad() -> pd.Series:
    """Liquid viscosity [Pa s]; the coefficients are in mPa s."""
    return _evaluate(viscosity.mu_data_Dutt_Prasad, viscosity.Viswanath_Natarajan_3, "ABC", offset=-log10(1000.0))


def viscosity_perry() -> pd.Series:
    """Liquid viscosity [Pa s] by DIPPR equation 101."""
    return _evaluate(viscosity.mu_data_Perrys_8E_2_313, dippr.EQ101, ("C1", "C2", "C3", "C4", "C5"))


def viscosity_vdi() -> pd.Series:
    """Liquid viscosity [Pa s] by PPDS equation 9."""
    return _evaluate(viscosity.mu_data_VDI_PPDS_7, viscosity.PPDS9, "ABCDE", ranged=False)


def saturation(column: str) -> pd.Series:
    """A liquid property at 298.15 K from the saturation tables of the VDI Heat Atlas, in SI units.

    The logarithm is interpolated linearly in 1/T; the tables have a row every 15 to 30 K.
    """
    values: dict[int, float] = {}
    tables: dict[str, Any] = miscdata.VDI_saturation_dict
    for cas, table in tables.items():
        rows = [(t, y) for t, y in zip(table["T"], table[column], strict=True) if y is not None]
        temperatures, column_values = np.array(rows, dtype=np.float64).T
        if temperatures.min() <= ROOM <= temperatures.max():
            logs = np.interp(-1.0 / ROOM, -1.0 / temperatures, np.log(column_values))
            values[cas_number(cas)] = float(np.exp(logs))
    return pd.Series(values, dtype=np.float64)
