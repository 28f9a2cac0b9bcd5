"""Polymers made by rule: textbook repeat units, exact mass balance, accounting, the user's own rules, the cache."""

from __future__ import annotations

import gzip
from collections import Counter

import pytest
from rdkit import Chem

from bayesmat import chem, data
from bayesmat._types import BayesmatError
from bayesmat.data import MonomerClass, PolymerRule, _polymers, polymerise

# Polymer, class, monomers and its repeat unit as a textbook draws it; typed by hand.
TEXTBOOK = {
    "polyethylene": ("polyolefin", ["C=C"], "*CC*"),
    "polystyrene": ("polyolefin", ["C=Cc1ccccc1"], "*CC(*)c1ccccc1"),
    "poly(methyl methacrylate)": ("polyolefin", ["C=C(C)C(=O)OC"], "*CC(*)(C)C(=O)OC"),
    "poly(tetrafluoroethylene)": ("polyolefin", ["FC(F)=C(F)F"], "*C(F)(F)C(*)(F)F"),
    "1,4-polybutadiene": ("polyolefin", ["C=CC=C"], "*CC=CC*"),
    "1,4-polyisoprene": ("polyolefin", ["C=CC(=C)C"], "*CC=C(C)C*"),
    "polynorbornene by metathesis": ("polyolefin", ["C1=CC2CCC1C2"], "*C=CC1CCC(*)C1"),
    "polynorbornene by addition": ("polyolefin", ["C1=CC2CCC1C2"], "*C1C2CCC(C2)C1*"),
    "styrene and maleic anhydride": ("polyolefin", ["C=Cc1ccccc1", "O=C1C=CC(=O)O1"], "*CC(c1ccccc1)C1C(=O)OC(=O)C1*"),
    "polyacetylene": ("polyacetylene", ["C#C"], "*C=C*"),
    "polyketone": ("polyketone", ["C=C", "[C-]#[O+]"], "*CCC(*)=O"),
    "poly(ethylene terephthalate)": ("polyester", ["OCCO", "O=C(O)c1ccc(cc1)C(=O)O"], "*OCCOC(=O)c1ccc(C(*)=O)cc1"),
    "poly(butylene adipate)": ("polyester", ["OCCCCO", "ClC(=O)CCCCC(=O)Cl"], "*OCCCCOC(=O)CCCCC(=O)*"),
    "polylactide": ("polyester", ["CC(O)C(=O)O"], "*OC(C)C(*)=O"),
    "polycaprolactone": ("polyester", ["O=C1CCCCCO1"], "*OCCCCCC(*)=O"),
    "poly(3-hydroxybutyrate)": ("polyester", ["CC1CO1", "[C-]#[O+]"], "*OC(C)CC(*)=O"),
    "phthalic anhydride and ethylene oxide": (
        "polyester",
        ["O=C1OC(=O)c2ccccc21", "C1CO1"],
        "*CCOC(=O)c1ccccc1C(=O)O*",
    ),
    "a polythioester": ("polyester", ["SCCS", "O=C(O)CCC(=O)O"], "*SCCSC(=O)CCC(*)=O"),
    "nylon 6": ("polyamide", ["O=C1CCCCCN1"], "*NCCCCCC(*)=O"),
    "nylon 11": ("polyamide", ["NCCCCCCCCCCC(=O)O"], "*NCCCCCCCCCCC(*)=O"),
    "nylon 6,6": ("polyamide", ["NCCCCCCN", "O=C(O)CCCCC(=O)O"], "*NCCCCCCNC(=O)CCCCC(*)=O"),
    "Kevlar": ("polyamide", ["Nc1ccc(N)cc1", "O=C(Cl)c1ccc(C(=O)Cl)cc1"], "*Nc1ccc(cc1)NC(=O)c1ccc(cc1)C(*)=O"),
    "a polypiperazine": ("polyamide", ["C1CNCCN1", "O=C(O)CCCCC(=O)O"], "*N1CCN(CC1)C(=O)CCCCC(*)=O"),
    "Kapton": (
        "polyimide",
        ["O=C1OC(=O)c2cc3C(=O)OC(=O)c3cc21", "Nc1ccc(Oc2ccc(N)cc2)cc1"],
        "*c1ccc(cc1)Oc1ccc(cc1)N1C(=O)c2cc3C(=O)N(*)C(=O)c3cc2C1=O",
    ),
    "MDI and butanediol": (
        "polyurethane",
        ["O=C=Nc1ccc(Cc2ccc(N=C=O)cc2)cc1", "OCCCCO"],
        "*OCCCCOC(=O)Nc1ccc(cc1)Cc1ccc(cc1)NC(*)=O",
    ),
    "a thiocarbamate": ("polyurethane", ["S=C=NCCN=C=S", "OCCO"], "*OCCOC(=S)NCCNC(*)=S"),
    "a polyurea": ("polyurea", ["O=C=NCCCCCCN=C=O", "NCCN"], "*NCCNC(=O)NCCCCCCNC(*)=O"),
    "bisphenol-A polycarbonate": (
        "polycarbonate",
        ["CC(C)(c1ccc(O)cc1)c1ccc(O)cc1", "O=C(Cl)Cl"],
        "*Oc1ccc(cc1)C(C)(C)c1ccc(cc1)OC(*)=O",
    ),
    "the same by melt": ("polycarbonate", ["OCCO", "O=C(Oc1ccccc1)Oc1ccccc1"], "*OCCOC(*)=O"),
    "poly(trimethylene carbonate)": ("polycarbonate", ["O=C1OCCCO1"], "*OCCCOC(*)=O"),
    "poly(propylene carbonate)": ("polycarbonate", ["CC1CO1", "O=C=O"], "*OC(C)COC(*)=O"),
    "poly(ethylene oxide)": ("polyether", ["C1CO1"], "*CCO*"),
    "polytetrahydrofuran": ("polyether", ["C1CCOC1"], "*CCCCO*"),
    "polyoxymethylene": ("polyether", ["C=O"], "*CO*"),
    "polydioxolane": ("polyether", ["C1COCO1"], "*CCOCO*"),
    "PPO": ("polyether", ["Cc1cccc(C)c1O"], "*Oc1c(C)cc(*)cc1C"),
    "PEEK": (
        "polyether",
        ["Fc1ccc(cc1)C(=O)c1ccc(F)cc1", "Oc1ccc(O)cc1"],
        "*Oc1ccc(cc1)Oc1ccc(cc1)C(=O)c1ccc(*)cc1",
    ),
    "PES": (
        "polyether",
        ["O=S(=O)(c1ccc(Cl)cc1)c1ccc(Cl)cc1", "O=S(=O)(c1ccc(O)cc1)c1ccc(O)cc1"],
        "*Oc1ccc(cc1)S(=O)(=O)c1ccc(cc1)Oc1ccc(cc1)S(=O)(=O)c1ccc(*)cc1",
    ),
    "polyethylenimine": ("polyamine", ["C1CN1"], "*CCN*"),
    "poly(phenylene sulfide)": ("polysulfide", ["Clc1ccc(Cl)cc1", "S"], "*Sc1ccc(*)cc1"),
    "a sulfide sulfone": (
        "polysulfide",
        ["O=S(=O)(c1ccc(Cl)cc1)c1ccc(Cl)cc1", "SCCS"],
        "*SCCSc1ccc(cc1)S(=O)(=O)c1ccc(*)cc1",
    ),
    "poly(propylene sulfide)": ("polysulfide", ["CC1CS1"], "*CC(C)S*"),
    "thiol and diene": ("polysulfide", ["SCCS", "C=CCCC=C"], "*SCCSCCCCCC*"),
    "poly(propylene sulfone)": ("polysulfone", ["CC=C", "O=S=O"], "*CC(C)S(*)(=O)=O"),
    "a polysulfonamide": (
        "polysulfonamide",
        ["O=S(=O)(Cl)c1cccc(c1)S(=O)(=O)Cl", "NCCN"],
        "*NCCNS(=O)(=O)c1cccc(c1)S(*)(=O)=O",
    ),
    "a polyoxazolidone": (
        "polyoxazolidone",
        ["C1OC1COCC1CO1", "O=C=Nc1ccc(N=C=O)cc1"],
        "*c1ccc(cc1)N1CC(OC1=O)COCC1CN(*)C(=O)O1",
    ),
    "poly(sebacic anhydride)": ("polyanhydride", ["O=C(O)CCCCCCCCC(=O)O"], "*OC(=O)CCCCCCCCC(*)=O"),
    "polydimethylsiloxane": ("polysiloxane", ["C[Si](C)(Cl)Cl", "O"], "*O[Si](C)(C)*"),
    "poly(p-phenylene)": ("polyarylene", ["Brc1ccc(Br)cc1"], "*c1ccc(*)cc1"),
    "poly(3-hexylthiophene)": ("polyarylene", ["CCCCCCc1ccsc1"], "*c1cc(CCCCCC)c(*)s1"),
}
# What no textbook polymer above is made from, so that every rule makes something in the test of mass balance.
MORE_MONOMERS = ["CNCCNC", "CNCCN", "O=C(Cl)CC(=O)Cl", "S=C=NCCN=C=S", "CC=CC", "ClC=CCl", "FC=CF", "C1=CCCC1", "OCCS"]


@pytest.fixture(scope="module")
def everything() -> dict[str, data.PolymerCorpus]:
    """What each rule makes of all the monomers of this file."""
    monomers = list(dict.fromkeys([text for _, group, _ in TEXTBOOK.values() for text in group] + MORE_MONOMERS))
    return {
        rule.name: polymerise(monomers, [rule], max_per_rule=25, orientations="all") for rule in data.polymer_rules()
    }


@pytest.mark.parametrize("name", TEXTBOOK)
def test_textbook_polymers(name: str) -> None:
    kind, monomers, unit = TEXTBOOK[name]
    rules = [rule for rule in data.polymer_rules() if rule.polymer_class == kind]
    made = polymerise(monomers, rules, orientations="all")
    units = [chem.repeat_unit(text) for text in made.smiles]
    assert chem.repeat_unit(unit) in units
    index = units.index(chem.repeat_unit(unit))
    assert made.polymer_class[index] == kind
    assert sorted(made.monomers[index]) == sorted(chem.canonicalize(monomers).smiles)


def _formula(smiles: str) -> Counter[str]:
    """Atoms by element with hydrogens, and the charge; free ends are no atoms."""
    count: Counter[str] = Counter()
    for part in filter(None, smiles.split(".")):
        for atom in Chem.MolFromSmiles(part).GetAtoms():
            count[atom.GetSymbol()] += atom.GetAtomicNum() > 0
            count["H"] += atom.GetTotalNumHs()
            count["charge"] += atom.GetFormalCharge()
    return Counter({key: number for key, number in count.items() if number})


@pytest.mark.parametrize("rule", data.polymer_rules(), ids=lambda rule: rule.name)
def test_mass_balance(rule: PolymerRule, everything: dict[str, data.PolymerCorpus]) -> None:
    """Exact: monomers = repeat unit + what the rule says is split off, element by element, hydrogens included."""
    made = everything[rule.name]
    assert len(made) and set(made.polymer_class) == {rule.polymer_class}
    for unit, monomers in zip(made.smiles, made.monomers, strict=True):
        assert unit.count("*") == 2 and chem.is_accepted(unit)
        assert chem.canonicalize([unit]).smiles == [unit]
        total = sum((_formula(text) for text in monomers), Counter())
        assert any(total == _formula(unit) + _formula(lost) for lost in rule.lost), (unit, monomers)


def test_groups_listed_for_a_class_are_those_that_react(everything: dict[str, data.PolymerCorpus]) -> None:
    """A repeat unit keeps none of the groups that its rule spends, so that no second chain could grow from it."""
    groups = chem.Groups({name: _polymers.GROUPS[name] for name in ("acid", "acyl halide", "isocyanate", "epoxide")})
    for name in ("diacid and diol", "diacyl halide and diol", "diisocyanate and diol", "diepoxide and diisocyanate"):
        assert all(not sum(groups.count(unit).values()) for unit in everything[name].smiles)


def test_unsymmetric_monomers_are_turned_both_ways() -> None:
    monomers = ["CC(O)CO", "O=C(O)CC(C)C(=O)O"]
    rules = [rule for rule in data.polymer_rules() if rule.name == "diacid and diol"]
    both, first = polymerise(monomers, rules, orientations="all"), polymerise(monomers, rules)
    assert len(both) == 2 and len(first) == 1 and first.smiles[0] in both.smiles
    assert both.num_read == len(both) + sum(both.dropped.values())
    head_to_tail = polymerise(["C=CC", "C=CCl"], [r for r in data.polymer_rules() if "alternating vinyl" in r.name])
    assert [chem.repeat_unit(text) for text in head_to_tail.smiles] == [chem.repeat_unit("*CC(C)CC(*)Cl")]


def test_monomers_are_counted_by_reason() -> None:
    monomers = [
        "C=Cc1ccccc1",
        "C(=C)c1ccccc1",  # styrene again
        "not-a-molecule",
        "CC.O",
        "*CC*",
        "CCCC",
        "OCC(O)CO",  # three hydroxyls
        "OCC(=O)NCCN=C=O",  # isocyanate and hydroxyl: no class, nothing twice
        "OCC(CN)CO",  # the amine reacts as well
        "C" * 40 + "C=C",
        "C=CC[SnH3]",
    ]
    made = polymerise(monomers)
    assert made.smiles == ("*CC(*)c1ccccc1",) and made.num_monomers == len(monomers)
    assert made.unused == {
        "RDKit cannot read it": 1,
        "several fragments": 1,
        "same structure as another": 1,
        "has an attachment point already": 1,
        "no group that polymerises": 2,
        "too many groups of one kind": 1,
        "a group that would react as well": 1,
        "more than 32 heavy atoms": 1,
        "an element other than H, B, C, N, O, F, Si, P, S, Cl, Se, Br, I": 1,
    }
    assert sum(made.unused.values()) == len(monomers) - 1
    assert len(polymerise([])) == 0 and polymerise([]).num_read == 0


DIOLS = ["O" + "C" * n + "O" for n in range(2, 22)]
DIACIDS = ["O=C(O)" + "C" * n + "C(=O)O" for n in range(20)]


def test_samples_are_reproducible_and_favour_small_monomers() -> None:
    rules = [rule for rule in data.polymer_rules() if rule.name == "diacid and diol"]
    settings = {"rules": rules, "max_per_rule": 100}
    first, second = (polymerise(DIOLS + DIACIDS, seed=3, **settings) for _ in range(2))
    assert first == second
    assert set(first.smiles) != set(polymerise(DIOLS + DIACIDS, seed=4, **settings).smiles)
    assert first.num_read == 400 and first.dropped["beyond the sample of its rule"] == 300
    # Without weights a monomer's mean size would be that of all: 13.5 atoms of diols, 15.5 of diacids, 29 in sum.
    # The sample's mean has a standard error below 29 * 0.3 / sqrt(100) < 1; the weights shift it by five and more.
    sizes = [sum(sum(_formula(text)[e] for e in "CO") for text in pair) for pair in first.monomers]
    assert sum(sizes) / len(sizes) < 25
    # A weight of a million puts every polymer of one diol into the sample.
    weights = [1e6 if text == DIOLS[-1] else 1.0 for text in DIOLS + DIACIDS]
    weighted = polymerise(DIOLS + DIACIDS, weights=weights, **settings)
    assert sum(DIOLS[-1] in pair for pair in weighted.monomers) == len(DIACIDS)


def test_names_and_the_first_way_to_make_a_chain() -> None:
    made = polymerise(["NCCCCCC(=O)O", "O=C1CCCCCN1"], names=["6-aminohexanoic acid", "caprolactam"])
    assert made.names == ("poly(6-aminohexanoic acid)",) and made.monomers == (("NCCCCCC(=O)O",),)
    assert made.dropped == {"same chain as another": 1}
    assert polymerise(["C=C"], names=[""]).names == ("",)


def test_a_rule_of_your_own() -> None:
    with pytest.raises(BayesmatError, match="allowed are 1 and 2"):
        PolymerRule("none", "none", ())
    halide = MonomerClass("dibromide", ("[CX4]Br", "[CX4]Br"), ("[CX4:1]Br>>[CX4:1]*",) * 2)
    dithiol = next(r.monomers[0] for r in data.polymer_rules() if r.name == "dithiol and diene")
    rule = PolymerRule("dithiol and dibromide", "polysulfide", (halide, dithiol), ("Br.Br",))
    made = polymerise(["BrCCCBr", "SCCS"], [rule])
    assert [chem.repeat_unit(text) for text in made.smiles] == [chem.repeat_unit("*CCCSCCS*")]
    assert _formula("BrCCCBr") + _formula("SCCS") == _formula(made.smiles[0]) + _formula("Br.Br")
    assert len(polymerise(["BrCCCBr", "SCCS"], (*data.polymer_rules(), rule))) == 1


@pytest.mark.parametrize(
    ("opens", "what"),
    [
        (("[CX4:1]Br>>[CX4:1]",), "allowed are one reaction"),
        (("[CX4:1]Br>>[CX4:1]*",), "allowed are one reaction"),
        (("no reaction",), "is not a reaction"),
        (("[C:1].[C:2]>>[C:1]*",), "one reactant and one product"),
        ((), "has 0 reactions"),
    ],
)
def test_bad_rules_are_named(opens: tuple[str, ...], what: str) -> None:
    with pytest.raises(BayesmatError, match=what):
        rule = PolymerRule("bad", "bad", (MonomerClass("bad", ("[CX4]Br",), opens),))
        polymerise(["CBr"], [rule])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(BayesmatError, match="one string"):
        polymerise("C=C")
    with pytest.raises(BayesmatError, match="max_per_rule"):
        polymerise(["C=C"], max_per_rule=0)
    with pytest.raises(BayesmatError, match="2 names for 1 monomers"):
        polymerise(["C=C"], names=["a", "b"])
    with pytest.raises(BayesmatError, match="positive and finite"):
        polymerise(["C=C"], weights=[-1.0])
    with pytest.raises(BayesmatError, match="allowed are 'first' and 'all'"):
        polymerise(["C=C"], orientations="some")  # type: ignore[arg-type]
    with pytest.raises(BayesmatError, match="is not SMARTS"):
        polymerise(["C=C"], [PolymerRule("bad", "bad", (MonomerClass("bad", ("(((",), ("[C:1]>>[1*][C:1][2*]",)),))])
    with pytest.raises(BayesmatError, match="known: 'organic', 'polymer'"):
        data.corpus("metal")


def test_what_is_no_residue_is_refused() -> None:
    assert chem.join_residues("[1*]OCCO[2*]", "[1*]C([2*])=O") == "*OCCOC(*)=O"
    for bad in ("*OCCO*", "[1*]CC", "[1*]C.C[2*]", "no-smiles"):
        with pytest.raises(chem.RefusedError, match="not a residue"):
            chem.join_residues("[1*]OCCO[2*]", bad)
    # A reaction that falls apart makes no residue, and the monomer is counted.
    broken = MonomerClass("ester", ("COC",), ("[C:1]O[C:2]>>([1*][C:1].[2*][C:2])",))
    assert polymerise(["COC"], [PolymerRule("bad", "bad", (broken,))]).unused == {
        "its groups do not open to a chain": 1
    }


CHAINS = ["*CC(C)OC(=O)c1ccc(C(=O)O*)cc1", "*C(=O)CCNC(=O)c1cc(C)ccc1*", "*C=CC(C)C*", "*c1ccc(C#CC(F)(Cl)*)s1", "*CC*"]


@pytest.mark.parametrize("unit", CHAINS)
def test_repeat_unit_is_the_same_wherever_the_chain_is_cut(unit: str) -> None:
    """Oracle: two units of a chain are joined by text, every bond of the backbone is cut, and the piece compared."""
    expected = chem.repeat_unit(unit)
    assert chem.repeat_unit(expected) == expected and expected.count("*") == 2
    mol = Chem.MolFromSmiles(unit)
    ends = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0]
    path = Chem.GetShortestPath(mol, *ends)
    for left, right in zip(path[1:-2], path[2:-1], strict=True):
        bond = mol.GetBondBetweenAtoms(left, right)
        if bond.IsInRing() or bond.GetBondTypeAsDouble() != 1.0:
            continue
        cut = Chem.RWMol(mol)
        cut.RemoveBond(left, right)
        cut.AddBond(path[1], path[-2], Chem.BondType.SINGLE)
        for star, old, new in ((ends[0], path[1], left), (ends[1], path[-2], right)):
            cut.RemoveBond(star, old)
            cut.AddBond(star, new, Chem.BondType.SINGLE)
        Chem.SanitizeMol(cut)
        for seed in range(3):
            text = Chem.MolToRandomSmilesVect(cut, 1, randomSeed=seed + 1)[0]
            assert chem.repeat_unit(text) == expected


def test_repeat_unit_tells_chains_apart_and_refuses_others() -> None:
    # Closed to a ring without marks both are bicyclo[2.2.1]heptane; only the backbone tells them apart.
    assert chem.repeat_unit("*C1CCC(C1)CC*") != chem.repeat_unit("*C1CCC(CC1)C*")
    assert chem.repeat_unit("*CC(C)CC(*)Cl") != chem.repeat_unit("*CC(C)C(Cl)C*")
    assert chem.repeat_unit("*CCCC*") != chem.repeat_unit("*CC*")
    assert chem.repeat_unit("*[Si](C)(C)*") == "*[Si](*)(C)C"
    for bad in ("CC", "*CC", "*CC(*)C*", "*=CC=*", "*CC.CC*", "**"):
        with pytest.raises(chem.RefusedError):
            chem.repeat_unit(bad)


def test_cache_is_read_back_and_a_damaged_one_replaced(tmp_path, monkeypatch) -> None:
    path = tmp_path / "polymers.tsv.gz"
    made = polymerise(["C=CC", "OCCO", "O=C(O)CC(=O)O"], names=["propene", "", "malonic acid"])
    _polymers._write_cache(path, made)
    assert _polymers._read_cache(path) == made
    whole = path.read_bytes()
    for damage in (b"", whole[:40], b"not gzip", gzip.compress(b"{}\na\tb"), gzip.compress(b"[]")):
        path.write_bytes(damage)
        assert _polymers._read_cache(path) is None
    path.write_bytes(gzip.compress(b"\n".join(gzip.decompress(whole).split(b"\n")[:-1])))
    assert _polymers._read_cache(path) is None
    monkeypatch.setattr(_polymers, "_cache_path", lambda: path)
    monkeypatch.setattr(_polymers, "organic", lambda: data.Corpus(("C=CC", "OCCO"), ("propene", ""), 2))
    _polymers.polymer_corpus.cache_clear()
    try:
        computed = data.corpus("polymer")
        assert "*CC(*)C" in computed.smiles and _polymers._read_cache(path) == computed
        _polymers.polymer_corpus.cache_clear()
        monkeypatch.setattr(_polymers, "polymerise", lambda *_, **__: pytest.fail("computed again"))
        assert data.corpus("polymer") == computed
    finally:
        _polymers.polymer_corpus.cache_clear()
