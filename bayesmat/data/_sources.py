"""The measured sources of each property, each read as one series: CAS number → value in the property's unit.

All of them are files of the `chemicals` package (MIT licence). Estimates that the package also carries (Joback,
Wilson-Jasperson, Fedors) never enter a table; Joback's screens boiling points taken at reduced pressure.
Correlations in temperature are evaluated in `_correlations`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from chemicals import critical, miscdata, permittivity, phase_change, refractivity, safety

from . import _correlations as at_room
from ._phase import ROOM, liquid_at, to_series
from ._structures import registry


@dataclass(frozen=True)
class Source:
    """One collection of values.

    Attributes:
        key: short name, unique within a property.
        citation: where the values come from.
        read: gives the values, indexed by CAS number, in the unit of the property.
        alone: whether a structure may rest on this source only; if not, the source confirms, disputes and decides
            between others, and adds only structures whose value is near an estimate.
    """

    key: str
    citation: str
    read: Callable[[], pd.Series]
    alone: bool = True


CRC = "CRC Handbook of Chemistry and Physics, 95th ed. (2014)"
CRC_CRITICAL = f"{CRC}, critical constants of organic compounds"
YAWS = "C. L. Yaws, Thermophysical Properties of Chemicals and Hydrocarbons, 2nd ed. (2014)"
WEBBOOK = "NIST Chemistry WebBook, as tabulated in `chemicals`"
COMMON = "CAS Common Chemistry, as tabulated in `chemicals`"
WIKIDATA = "Wikidata, as tabulated in `chemicals`"
PERRY = "Perry's Chemical Engineers' Handbook, 8th ed. (2007)"
VDI = "VDI Heat Atlas, 2nd ed. (2010)"


def _column(table: Callable[[], pd.DataFrame], column: str) -> Callable[[], pd.Series]:
    return lambda: to_series(table(), column)


def _refractive_index() -> pd.Series:
    """n_D of liquids between 15 and 30 °C; the handbook also lists melts, solutions of solids and liquefied gases."""
    table = refractivity.RI_data_CRC_organic
    temperature = to_series(table, "RIT")
    values = to_series(table, "RI").loc[temperature[temperature.between(288.15, 303.15)].index]
    return values[liquid_at(values.index, ROOM)]


def _permittivity() -> pd.Series:
    """The polynomial at 298.15 K where it holds there (within 5 K), else the single value if taken within 10 K."""
    table = permittivity.permittivity_data_CRC
    single, temperature = to_series(table, "Permittivity"), to_series(table, "T")
    near = single[(temperature - ROOM).abs() <= 10.0]
    curve = at_room.permittivity(table)
    return pd.concat([curve, near[~near.index.isin(curve.index)]])


def _flash_point_dippr() -> pd.Series:
    """The values given to 0.05 K; those with six and more decimals were computed, not measured.

    Against the other sources the former differ by 2.5 K in the median (8 % by more than 15 K), the latter by 9.0 K
    (27 %), with a bias of -8 K: ethanol is 260 K there and 286 K everywhere else.
    """
    values = to_series(safety.DIPPR_SERAT_data, "T_flash")
    return values[np.isclose(20.0 * values, np.round(20.0 * values), rtol=0.0, atol=1e-6)]


def _liquid_density(values: pd.Series) -> pd.Series:
    return values[liquid_at(values.index, ROOM)]


def _common_chemistry_density() -> pd.Series:
    volume = to_series(miscdata.common_chemistry_data, "Vml")
    entries = registry()
    mass = pd.Series([entries[c].molar_mass if c in entries else np.nan for c in volume.index], volume.index)
    return _liquid_density((1e-3 * mass / volume).dropna())


LEFT_OUT: dict[str, dict[str, str]] = {
    "refractive_index": {"Wikidata": "states no temperature, adds 47 compounds, values up to 1448"},
    "thermal_conductivity": {
        "VDI saturation tables": "rows too far apart to interpolate: median 2 %, 90th percentile 8-9 % off the others"
    },
    "critical_temperature": {
        "Yaws": "estimates among the measured values: 9.5 % lie more than 15 K from the other sources, p90 of the "
        "difference from CRC 21 K, and 3,954 of 5,643 compounds are in no other source"
    },
    "viscosity": {
        "Viswanath-Natarajan, three-term": "11 of 112 compounds more than 20 % off, up to 3,000-fold (units)",
        "Viswanath-Natarajan, two-term": "30 % off by the equation of `chemicals`; right as powers of ten, but then "
        "still 4 of 42 compounds more than 20 % off",
        "Viswanath-Natarajan, power law": "units differ between rows (Pa s and mPa s)",
    },
}
"""Sources that were looked at and not used, with the figures that spoke against them (chemicals 1.5.2)."""


ESTIMATE_WINDOW = 100.0
"""How far [K] a boiling point that rests on weak sources may lie from the Joback estimate. 97 % of the trusted values
lie within; of the values only in Yaws, Common Chemistry or Wikidata, 37 to 46 % lie below it, taken at reduced
pressure, against 5 % of those only in WebBook."""


def near_estimate(cas: pd.Series, boiling_point: pd.Series) -> pd.Series:
    """Whether each boiling point [K] is within `ESTIMATE_WINDOW` of its group-contribution estimate; False without."""
    estimate = to_series(miscdata.joback_predictions, "Tb").reindex(cas).to_numpy()
    return (boiling_point - estimate).abs() <= ESTIMATE_WINDOW


SOURCES: dict[str, tuple[Source, ...]] = {
    "thermal_conductivity": (
        Source("Perry", f"{PERRY}, table 2-315", at_room.conductivity_perry),
        Source("VDI-PPDS", f"{VDI}, PPDS equation of table 9", at_room.conductivity_vdi),
    ),
    "boiling_point": (
        Source("Yaws", YAWS, _column(lambda: phase_change.Tb_data_Yaws, "Tb"), alone=False),
        Source("CRC", CRC, _column(lambda: miscdata.CRC_organic_data, "Tb")),
        Source("CommonChemistry", COMMON, _column(lambda: miscdata.common_chemistry_data, "Tb"), alone=False),
        Source("WebBook", WEBBOOK, _column(lambda: miscdata.webbook_data, "Tb")),
        Source("Wikidata", WIKIDATA, _column(lambda: miscdata.wikidata_data, "Tb"), alone=False),
    ),
    "melting_point": (
        Source(
            "OpenNotebook",
            "Bradley et al., Open Notebook melting point data (2014)",
            _column(lambda: phase_change.Tm_ON_data, "Tm"),
        ),
        Source("CRC", CRC, _column(lambda: miscdata.CRC_organic_data, "Tm")),
        Source("CommonChemistry", COMMON, _column(lambda: miscdata.common_chemistry_data, "Tm")),
        Source("WebBook", WEBBOOK, _column(lambda: miscdata.webbook_data, "Tm")),
        Source("Wikidata", WIKIDATA, _column(lambda: miscdata.wikidata_data, "Tm")),
    ),
    "refractive_index": (Source("CRC", CRC, _refractive_index),),
    "density": (
        Source("Perry", f"{PERRY}, table 2-32", at_room.density_perry),
        Source("VDI-PPDS", f"{VDI}, PPDS equation of table 2", at_room.density_vdi),
        Source("VDI-saturation", f"{VDI}, saturation tables", lambda: at_room.saturation("Density (l)")),
        Source("CRC", CRC, lambda: _liquid_density(to_series(miscdata.CRC_organic_data, "rho"))),
        Source("CommonChemistry", COMMON, _common_chemistry_density),
    ),
    "heat_of_vaporisation": (
        Source("CRC", CRC, _column(lambda: phase_change.Hvap_data_CRC, "Hvap298")),
        Source(
            "Gharagheizi",
            "Gharagheizi et al., Energy Fuels 26 (2012), compiled measurements",
            _column(lambda: phase_change.Hvap_data_Gharagheizi, "Hvap298"),
        ),
        Source("WebBook", WEBBOOK, _column(lambda: miscdata.webbook_data, "Hvap")),
        Source("Perry", f"{PERRY}, table 2-150", at_room.vaporisation_perry),
        Source("VDI-PPDS", f"{VDI}, PPDS equation of table 4", at_room.vaporisation_vdi),
    ),
    "permittivity": (Source("CRC", CRC, _permittivity),),
    "flash_point": (
        Source("DIPPR", "DIPPR values in Serat et al. (2017)", _flash_point_dippr),
        Source("IEC", "IEC 60079-20-1 (2010)", _column(lambda: safety.IEC_2010_data, "T_flash")),
        Source("NFPA", "NFPA 497 (2008)", _column(lambda: safety.NFPA_2008_data, "T_flash")),
        Source("Wikidata", WIKIDATA, _column(lambda: miscdata.wikidata_data, "T_flash")),
    ),
    "critical_temperature": (
        Source(
            "IUPAC",
            "IUPAC reviews of vapor-liquid critical properties, J. Chem. Eng. Data (1995-2015)",
            _column(lambda: critical.critical_data_IUPAC, "Tc"),
        ),
        Source("Matthews", "Mathews, Chem. Rev. 72 (1972) 71", _column(lambda: critical.critical_data_Matthews, "Tc")),
        Source("CRC", CRC_CRITICAL, _column(lambda: critical.critical_data_CRC, "Tc")),
        Source(
            "PSRK",
            "PSRK revision 4, Fluid Phase Equilib. 227 (2005)",
            _column(lambda: critical.critical_data_PSRKR4, "Tc"),
        ),
        Source(
            "PassutDanner",
            "Passut and Danner, Ind. Eng. Chem. Process Des. Dev. 12 (1973)",
            _column(lambda: critical.critical_data_PassutDanner, "Tc"),
        ),
        Source(
            "PinaMartinez",
            "Pina-Martinez et al. (2018), DIPPR",
            _column(lambda: critical.critical_data_PinaMartines, "Tc"),
        ),
        Source("WebBook", WEBBOOK, _column(lambda: miscdata.webbook_data, "Tc")),
    ),
    "viscosity": (
        Source(
            "Dutt-Prasad",
            "Dutt and Prasad, in Viswanath et al., Viscosity of Liquids (2007)",
            at_room.viscosity_dutt_prasad,
        ),
        Source("Perry", f"{PERRY}, table 2-313", at_room.viscosity_perry),
        Source("VDI-PPDS", f"{VDI}, PPDS equation of table 7", at_room.viscosity_vdi),
        Source("VDI-saturation", f"{VDI}, saturation tables", lambda: at_room.saturation("Mu (l)")),
    ),
}
