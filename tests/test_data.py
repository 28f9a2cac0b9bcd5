"""Measured tables: handbook values, the reconciliation rule, accounting of every value, and the cache."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesmat import data
from bayesmat._types import BayesmatError
from bayesmat.chem import canonicalize
from bayesmat.data import _sources, _structures
from bayesmat.data._phase import liquid_at
from bayesmat.data._reconcile import Tolerance, reconcile

KELVIN = Tolerance(10.0, relative=False, unit="K")
PERCENT = Tolerance(0.1, relative=True)

# From the CRC Handbook and the NIST WebBook, typed by hand; not from the files under test.
HANDBOOK = {
    "thermal_conductivity": (
        0.03,
        {"O": 0.6065, "CCO": 0.167, "Cc1ccccc1": 0.1310, "c1ccccc1": 0.1411, "OCCO": 0.256, "OCC(O)CO": 0.292},
    ),
    "boiling_point": (0.01, {"CCO": 351.4, "c1ccccc1": 353.2, "Cc1ccccc1": 383.8, "OCCO": 470.4, "O": 373.15}),
    "melting_point": (0.01, {"CCO": 159.0, "c1ccccc1": 278.7, "Cc1ccccc1": 178.2, "OCC(O)CO": 291.3}),
    "refractive_index": (0.003, {"CCO": 1.3611, "c1ccccc1": 1.5011, "Cc1ccccc1": 1.4961, "OCC(O)CO": 1.4746}),
    "density": (0.01, {"CCO": 785.0, "c1ccccc1": 873.7, "Cc1ccccc1": 862.2, "OCCO": 1110.0}),
    "heat_of_vaporisation": (0.03, {"CCO": 42.3e3, "c1ccccc1": 33.8e3, "Cc1ccccc1": 38.0e3, "O": 44.0e3}),
    "permittivity": (0.05, {"O": 78.4, "CCO": 24.6, "c1ccccc1": 2.27, "Cc1ccccc1": 2.37}),
    "flash_point": (0.02, {"CCO": 286.0, "Cc1ccccc1": 278.0}),
    "critical_temperature": (0.005, {"O": 647.1, "CCO": 514.0, "c1ccccc1": 562.0, "Cc1ccccc1": 591.8}),
    "viscosity": (0.05, {"CCO": 1.08e-3, "c1ccccc1": 0.604e-3, "Cc1ccccc1": 0.556e-3, "O": 0.890e-3}),
}
UNITS = {
    "thermal_conductivity": "W/m/K",
    "boiling_point": "K",
    "melting_point": "K",
    "refractive_index": "1",
    "density": "kg/m3",
    "heat_of_vaporisation": "J/mol",
    "permittivity": "1",
    "flash_point": "K",
    "critical_temperature": "K",
    "viscosity": "Pa s",
}
SMALLEST = {
    "thermal_conductivity": 300,
    "boiling_point": 5000,
    "melting_point": 15000,
    "refractive_index": 2500,
    "density": 3000,
    "heat_of_vaporisation": 2500,
    "permittivity": 900,
    "flash_point": 600,
    "critical_temperature": 1800,
    "viscosity": 300,
}


@pytest.mark.parametrize("name", data.names())
def test_handbook_values(name: str) -> None:
    table = data.load(name)
    assert table.unit == UNITS[name]
    values = dict(zip(table.smiles, table.y, strict=True))
    tolerance, expected = HANDBOOK[name]
    for smiles, y in expected.items():
        (canonical,) = canonicalize([smiles]).smiles
        assert canonical in values, f"{smiles} is not in the table of {name}"
        assert values[canonical] == pytest.approx(y, rel=tolerance), smiles


@pytest.mark.parametrize("name", data.names())
def test_every_table_is_whole(name: str) -> None:
    table = data.load(name)
    n = len(table)
    assert n >= SMALLEST[name]
    assert len(table.names) == n and table.y.shape == table.num_sources.shape == table.num_values.shape == (n,)
    assert table.y.dtype == np.float64 and np.isfinite(table.y).all()
    assert list(table.smiles) == sorted(set(table.smiles)), "one row per structure, in a fixed order"
    assert table.num_read == table.num_values.sum() + sum(table.dropped.values())
    assert table.num_read == sum(len(source.read()) for source in _sources.SOURCES[name])
    assert (1 <= table.num_sources).all() and (table.num_sources <= table.num_values).all()
    assert table.num_sources.max() <= len(table.sources)
    assert all(count > 0 for count in table.dropped.values())
    for text in (table.label, str(table.num_read), "median"):
        assert text in table.summary()
    sample = list(table.smiles[:: max(1, n // 100)])
    assert canonicalize(sample).smiles == sample


def test_weak_sources_do_not_stand_alone() -> None:
    table = data.load("boiling_point")
    # 2-Ethylhexyl salicylate boils near 600 K; Yaws alone lists 462 K, taken at reduced pressure.
    (smiles,) = canonicalize(["CCCCC(CC)COC(=O)c1ccccc1O"]).smiles
    assert smiles not in table.smiles
    assert any("Joback" in reason for reason in table.dropped)


def test_computed_flash_points_are_left_out() -> None:
    (source,) = (source for source in _sources.SOURCES["flash_point"] if source.key == "DIPPR")
    values = source.read()
    assert 64175 not in values.index  # 260.009281 K there; measured 286 K
    assert values[109660] == pytest.approx(224.15)


def test_vapours_and_solids_are_no_liquids() -> None:
    cas = pd.Index([_structures.cas_number(text) for text in ("64-17-5", "74-98-6", "91-20-3", "74-82-8")])
    # ethanol, propane, naphthalene, methane
    assert liquid_at(cas, 298.15).tolist() == [True, False, False, False]
    assert liquid_at(cas, 298.15, above_boiling=True).tolist() == [True, True, False, False]


def test_unknown_property_names_the_known_ones() -> None:
    with pytest.raises(BayesmatError, match="did you mean 'thermal_conductivity'.*boiling_point"):
        data.load("thermal_conductvity")


def frame(*rows: tuple[str, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["structure", "source", "compound", "value"])


def test_conflict_of_two_is_dropped_and_edge_is_kept() -> None:
    result = reconcile(
        frame(("A", "s", 1, 300.0), ("A", "t", 1, 310.0), ("B", "s", 2, 300.0), ("B", "t", 2, 310.5)), KELVIN
    )
    assert result.kept.y.to_dict() == {"A": 305.0}
    assert (result.disagreeing, result.isomers) == (2, 0)


def test_majority_of_three_is_kept_with_the_median() -> None:
    result = reconcile(frame(("A", "s", 1, 300.0), ("A", "t", 1, 304.0), ("A", "u", 1, 500.0)), KELVIN)
    assert result.kept.loc["A"].tolist() == [304.0, 3, 3]
    # Two of four are no strict majority.
    split = reconcile(
        frame(("A", "s", 1, 300.0), ("A", "t", 1, 301.0), ("A", "u", 1, 400.0), ("A", "v", 1, 401.0)), KELVIN
    )
    assert len(split.kept) == 0 and split.disagreeing == 4


def test_median_inside_a_source_comes_first() -> None:
    # Pooled, the median would be 300; by source it is (300 + 308) / 2.
    rows = [("A", "s", 1, 300.0), ("A", "s", 2, 300.0), ("A", "s", 3, 300.0), ("A", "t", 1, 308.0)]
    result = reconcile(frame(*rows), KELVIN)
    assert result.kept.loc["A"].tolist() == [304.0, 2, 4]


def test_disagreeing_stereoisomers_are_dropped() -> None:
    # Maleic and fumaric acid: each source is at peace with itself only if one looks at the median.
    rows = [("A", "s", 1, 404.0), ("A", "s", 2, 560.0), ("A", "t", 1, 405.0), ("A", "t", 2, 560.0)]
    result = reconcile(frame(*rows), KELVIN)
    assert len(result.kept) == 0 and (result.disagreeing, result.isomers) == (0, 4)
    assert canonicalize(["OC(=O)C=CC(=O)O"]).smiles[0] not in data.load("melting_point").smiles


def test_relative_tolerance_scales_with_the_value() -> None:
    rows = [("A", "s", 1, 1.00), ("A", "t", 1, 1.08), ("B", "s", 2, 100.0), ("B", "t", 2, 115.0)]
    result = reconcile(frame(*rows), PERCENT)
    assert list(result.kept.index) == ["A"]


def test_tables_do_not_depend_on_the_order_of_the_values() -> None:
    rng = np.random.default_rng(3)
    values = frame(*[(f"S{i}", f"s{j}", i, 300.0 + rng.normal(0, 5)) for i in range(20) for j in range(3)])
    first, second = reconcile(values, KELVIN).kept, reconcile(values.sample(frac=1.0, random_state=7), KELVIN).kept
    pd.testing.assert_frame_equal(first, second)


def test_subset_and_read_only() -> None:
    table = data.load("thermal_conductivity")
    part = table.subset([5, 2])
    assert part.smiles == (table.smiles[5], table.smiles[2]) and part.y.tolist() == table.y[[5, 2]].tolist()
    assert len(table.subset(table.y > 0.2)) == int((table.y > 0.2).sum()) > 0
    assert len(table.subset([])) == 0
    assert table.subset([]).summary()
    with pytest.raises(ValueError, match="read-only"):
        table.y[0] = 0.0


def test_corpus_accounts_for_every_structure() -> None:
    corpus = data.corpus("organic")
    assert len(corpus) > 50_000 and len(corpus.names) == len(corpus)
    assert len(set(corpus.smiles)) == len(corpus)
    assert corpus.num_read == len(corpus) + sum(corpus.dropped.values())
    assert not any("." in smiles or "@" in smiles for smiles in corpus.smiles)
    with pytest.raises(BayesmatError, match="organic"):
        data.corpus("inorganic")


def test_structures_by_registry_number() -> None:
    known = data.structures()
    assert known[64175] == ("CCO", "ethanol")
    assert known[7732185] == ("O", "water")
    assert all(smiles for smiles, _ in known.values())
    # Heavy water must not count as a measurement of water.
    assert 7789200 not in known and _structures.registry()[7789200].reason == "isotope label"


@pytest.fixture
def small_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two identifier lines and an empty cache folder, instead of 75,000 and the user's."""
    line = "{}\t{}\t-\t{}\t{}\t-\t-\t-\t{}\tsynonym\n"
    (tmp_path / "ids.tsv").write_text(
        line.format(1, "64-17-5", 46.07, "OCC", "ethanol") + line.format(2, "7647-14-5", 58.4, "[Na+].[Cl-]", "salt")
    )
    monkeypatch.setenv("BAYESMAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_structures, "FILES", ("ids.tsv",))
    monkeypatch.setattr(_structures.identifiers, "folder", str(tmp_path))
    _structures.registry.cache_clear()
    yield tmp_path / "cache"
    _structures.registry.cache_clear()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"not gzip at all",
        lambda whole: whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
        lambda whole: gzip.compress(b"7\n1\tC\tmethane\t\t16.0"),
        lambda whole: gzip.compress(b"1\n1\tC\tmethane"),
    ],
)
def test_damaged_cache_is_computed_again(small_registry: Path, damage) -> None:
    first = dict(_structures.registry())
    assert first[64175].smiles == "CCO" and first[7647145].reason == "several fragments"
    (path,) = small_registry.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    _structures.registry.cache_clear()
    assert _structures.registry() == first
    assert path.read_bytes() == whole and list(small_registry.iterdir()) == [path]


def test_cache_is_used(small_registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dict(_structures.registry())
    _structures.registry.cache_clear()
    monkeypatch.setattr(_structures, "canonicalize", lambda *_: pytest.fail("computed again"))
    assert _structures.registry() == first


CSV = """\ufeffid,SMILES,k,note
1,CCO,0.16,
2,OCC,0.20,same structure
3,c1ccccc1,0.14,
4,not a molecule,0.1,
5,CC.O,0.1,
6,CCN,,
7,CCC,high,
8,CCCC,inf,

9,CCCCC
10,"CCCl",0.12,"two
lines"
"""


def test_from_csv_sets_bad_rows_aside(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(CSV, encoding="utf-8")
    table = data.from_csv(path, "SMILES", "k", "W/m/K", name="thermal_conductivity")
    assert dict(zip(table.smiles, table.y, strict=True)) == pytest.approx({"CCO": 0.18, "CCCl": 0.12, "c1ccccc1": 0.14})
    assert [line for line, _ in table.bad_rows] == [5, 6, 7, 8, 9, 11]
    reasons = [reason for _, reason in table.bad_rows]
    assert reasons[1:] == ["several fragments", "no value", *["value is not a finite number"] * 2, "no value"]
    assert table.num_read == 10 == table.num_values.sum() + sum(table.dropped.values())
    assert table.unit == "W/m/K" and table.label == "thermal conductivity"


def test_from_csv_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with pytest.raises(BayesmatError, match="cannot read"):
        data.from_csv(path, "SMILES", "k", "1")
    path.write_text(CSV, encoding="utf-8")
    with pytest.raises(BayesmatError, match="no column 'smiles'.*SMILES.*note"):
        data.from_csv(path, "smiles", "k", "1")
    path.write_text("SMILES,k\n??,1\n")
    with pytest.raises(BayesmatError, match="none of 1 rows"):
        data.from_csv(path, "SMILES", "k", "1")
    path.write_bytes(b"")
    with pytest.raises(BayesmatError, match="no column"):
        data.from_csv(path, "SMILES", "k", "1")
    path.write_bytes(b"SMILES,k\n\xff\xfe,1\n")
    with pytest.raises(BayesmatError, match="cannot read"):
        data.from_csv(path, "SMILES", "k", "1")


def test_random_split() -> None:
    train, test = data.random_split(101, seed=5)
    assert len(test) == 20 and sorted([*train, *test]) == list(range(101))
    again = data.random_split(101, seed=5, num_train=30)
    assert again[0].tolist() == train[:30].tolist() and again[1].tolist() == test.tolist()
    assert data.random_split(101, seed=6)[1].tolist() != test.tolist()
    with pytest.raises(BayesmatError, match="81 of 101"):
        data.random_split(101, seed=5, num_train=82)
    with pytest.raises(BayesmatError, match="test_fraction"):
        data.random_split(10, seed=0, test_fraction=1.0)
