"""Ready conditions: equal to RDKit's answer, in words, and in problem files."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors

from bayesmat import BayesmatError, chem, data, design, forward, prior
from bayesmat.design._settings import from_setting
from bayesmat.design._unstable import unstable_groups

ALPHABET = chem.Alphabet.organic()
RANDOM = 1500


@pytest.fixture(scope="module")
def tokens():
    """800 molecules of the corpus and then 1500 strings drawn uniformly, full of what nobody would make."""
    corpus = data.corpus("organic").smiles
    known = chem.encode(corpus[:: len(corpus) // 800], ALPHABET).tokens
    return np.concatenate([known, np.asarray(chem.random_strings(jax.random.key(0), RANDOM, ALPHABET))])


@pytest.fixture(scope="module")
def molecules(tokens):
    return [Chem.MolFromSmiles(chem.to_smiles(x, ALPHABET)) for x in tokens]


def values(conditions, tokens):
    filters = design.Filters(conditions, ALPHABET)
    return np.asarray(jax.jit(jax.vmap(lambda x: jax.numpy.stack(filters.each(x))))(tokens)).T


def test_descriptors_and_rings_equal_rdkit(tokens, molecules) -> None:
    known = len(tokens) - RANDOM
    tokens, molecules = tokens[:known], molecules[:known]
    conditions = {
        design.MolecularWeight(100.05, 200.05): lambda m: 100.05 <= Descriptors.MolWt(m) <= 200.05,
        design.HeavyAtoms(6, 12): lambda m: 6 <= m.GetNumHeavyAtoms() <= 12,
        design.RotatableBonds(3): lambda m: rdMolDescriptors.CalcNumRotatableBonds(m) <= 3,
        design.LogP(lower=1.0): lambda m: Descriptors.MolLogP(m) >= 1.0,
        design.PolarSurfaceArea(upper=40.0): lambda m: rdMolDescriptors.CalcTPSA(m) <= 40.0,
        design.Descriptor("rings", 1, 2): lambda m: 1 <= rdMolDescriptors.CalcNumRings(m) <= 2,
        design.RingSizes({5, 6}): lambda m: {len(ring) for ring in m.GetRingInfo().AtomRings()} <= {5, 6},
        design.RingSizes([]): lambda m: not m.GetRingInfo().NumRings(),
        design.Elements(["C", "N", "O"]): lambda m: {atom.GetSymbol() for atom in m.GetAtoms()} <= {"C", "N", "O"},
    }
    for condition, found, reference in zip(conditions, values(conditions, tokens), conditions.values(), strict=True):
        expected = np.array([reference(molecule) for molecule in molecules])
        np.testing.assert_array_equal(found, np.where(expected, 0, -np.inf), err_msg=condition.text())
        assert 20 < expected.sum() < len(expected) - 20, condition.text()


def test_unstable_groups_equal_their_smarts(tokens, molecules) -> None:
    """Group by group, also on molecules that have nothing else; and each pattern is met."""
    found = jax.jit(jax.vmap(lambda x: unstable_groups(chem.decode(x, ALPHABET), ALPHABET)))
    examples = {
        "peroxide": "CC(C)(C)OO",
        "nitrogen or oxygen with halogen": "CNCl",
        "chain of three nitrogens": "CN(C)N=NC",
        "diazo, diazonium or azide": "CC=[N+]=[N-]",
        "nitroso": "CN(C)N=O",
        "nitrate or nitramine": "CCO[N+](=O)[O-]",
        "geminal alcohol": "CC(O)O",
        "geminal amine": "CC(N)OC",
        "alpha-halo ether or amine": "ClCOC",
        "acyl or sulfonyl halide": "CC(=O)Cl",
        "carbonic or carbamic acid": "CNC(=O)O",
        "enol": "CC=C(C)O",
        "cumulene or isocyanate": "CN=C=O",
        "alkyne in a ring": "C1#CCCCC1",
    }
    stable = ["Oc1ccccc1", "OC1OCCCC1O", "c1cn[nH]n1", "C[N+](=O)[O-]", "FC(F)(F)OC", "CC(=O)O", "OC(=O)C=C", "CN=NC"]
    stable += ["O=S1(=O)CCCC1", "CC#CC", "NCCO", "ON=C(C)C", "COC(C)OC", "CS(=O)(=O)N", "Nc1ccccc1N", "NC(N)=O"]
    named = chem.encode([*examples.values(), *stable], ALPHABET).tokens
    flags = {name: np.asarray(value) for name, value in found(np.concatenate([named, tokens])).items()}
    table = np.array([flags[name] for name in design.UNSTABLE])
    np.testing.assert_array_equal(table[:, : len(examples)], np.eye(len(examples), dtype=bool))
    assert list(examples) == list(design.UNSTABLE)
    assert not table[:, len(examples) : len(named)].any()
    for name, pattern in design.UNSTABLE.items():
        query = Chem.MolFromSmarts(pattern)
        expected = [molecule.HasSubstructMatch(query) for molecule in molecules]
        np.testing.assert_array_equal(flags[name][len(named) :], expected, err_msg=name)
    (some,) = values([design.NoUnstableGroups(["peroxide", "enol"])], named)
    np.testing.assert_array_equal(some < 0, [name in ("peroxide", "enol") for name in [*examples, *stable]])


def longest_chain(molecule) -> int:
    """Heteroatoms that hang together, by search over the Kekulé graph."""
    molecule = Chem.Mol(molecule)
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    valence = {"N": 3, "O": 2, "S": 2, "F": 1, "Cl": 1, "Br": 1, "I": 1}
    pi = {a.GetIdx() for a in molecule.GetAtoms() if any(b.GetBondTypeAsDouble() > 1 for b in a.GetBonds())}
    counted = {
        a.GetIdx()
        for a in molecule.GetAtoms()
        if valence.get(a.GetSymbol()) == a.GetTotalValence() and not a.GetFormalCharge()
    }
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.IsInRing()) for b in molecule.GetBonds()]
    links = [{a, b} for a, b, ring in ends if {a, b} <= counted and not (ring and {a, b} & pi)]
    chains = [{index} for index in counted]
    for link in links:
        merged = set().union(*(chain for chain in chains if chain & link))
        chains = [chain for chain in chains if not chain & link] + [merged]
    return max(map(len, chains), default=0)


def test_heteroatom_chains_equal_a_search(tokens, molecules) -> None:
    expected = np.array([longest_chain(molecule) for molecule in molecules])
    for length, found in zip((1, 2, 3), values([design.HeteroatomChains(k) for k in (1, 2, 3)], tokens), strict=True):
        np.testing.assert_array_equal(found < 0, expected > length)
        assert 3 < (found < 0).sum() < len(found) - 100
    named = chem.encode(["COOC", "NN", "c1cc[nH]n1", "CON=C", "CS(=O)(=O)NC", "CSSC", "C[N+](=O)[O-]"], ALPHABET).tokens
    (found,) = values([design.HeteroatomChains()], named)
    np.testing.assert_array_equal(found < 0, [True, True, False, True, False, True, False])
    (found,) = values([design.HeteroatomChains(elements=("N", "O"))], named)
    np.testing.assert_array_equal(found < 0, [True, True, False, True, False, False, False])


def test_smarts_and_synthetic_accessibility_equal_rdkit(tokens, molecules) -> None:
    tokens, molecules = tokens[::10], molecules[::10]
    smarts = design.Smarts(forbidden=["[#7]", "Cl"], required={"ring": "[R]"})
    accessible = design.SyntheticAccessibility(3.0, slope=2.0)
    nitrogen, chlorine, ring = map(Chem.MolFromSmarts, ("[#7]", "Cl", "[R]"))
    has = np.array([[m.HasSubstructMatch(q) for q in (nitrogen, chlorine, ring)] for m in molecules])
    passes = ~has[:, 0] & ~has[:, 1] & has[:, 2]
    scores = np.array([chem.sa_score(Chem.MolToSmiles(molecule)) for molecule in molecules])
    (found,) = values([smarts], tokens)
    np.testing.assert_array_equal(found, np.where(passes, 0, -np.inf))
    (soft,) = values([accessible], tokens)
    np.testing.assert_allclose(soft, -2 * np.maximum(scores - 3, 0), rtol=1e-5, atol=1e-5)
    (hard,) = values([design.SyntheticAccessibility(3.0)], tokens)
    np.testing.assert_array_equal(hard < 0, scores > 3)
    assert 5 < passes.sum() < 200 and 5 < (scores > 3).sum()
    assert smarts.text() == "without [#7] or Cl; with ring"


def test_the_host_is_asked_only_about_what_has_passed(tokens) -> None:
    """Device first, then the functions in order; a molecule that has failed is not written as SMILES."""
    asked = []
    score = design.Score(lambda texts: [asked.append(text) or 1.0 for text in texts], ALPHABET, name="slow")
    smarts = design.Smarts(required=["[#8]"])
    filters = design.Filters([score, smarts, design.Elements(["C", "O"])], ALPHABET)
    elements, oxygen = values([design.Elements(["C", "O"]), design.Smarts(required=["[#8]"])], tokens[:400])
    found = np.asarray(jax.jit(jax.vmap(filters))(tokens[:400]))
    np.testing.assert_array_equal(found, np.where((elements == 0) & (oxygen == 0), 1.0, -np.inf))
    assert score.tally.asked == smarts.host.tally.asked == (elements == 0).sum()
    asked.clear()
    again = design.Score(lambda texts: [asked.append(text) or 1.0 for text in texts], ALPHABET, name="slow")
    reordered = design.Filters([smarts, again, design.Elements(["C", "O"])], ALPHABET)
    np.testing.assert_array_equal(jax.jit(jax.vmap(reordered))(tokens[:400]), found)
    assert again.tally.asked == np.isfinite(found).sum() and all("O" in text or "o" in text for text in asked)
    assert filters.hosts == [score.host, smarts.host] and not filters.hard


def test_soft_bounds() -> None:
    conditions = [design.HeavyAtoms(3, 4, slope=0.5), design.MolecularWeight(upper=50, slope=0.1)]
    tokens = chem.encode(["CC", "CCC", "CCCCCC"], ALPHABET).tokens
    atoms, weight = values(conditions, tokens)
    np.testing.assert_allclose(atoms, [-0.5, 0, -1])
    np.testing.assert_allclose(weight, [0, 0, -0.1 * (Descriptors.MolWt(Chem.MolFromSmiles("CCCCCC")) - 50)], rtol=1e-5)
    assert not design.Filters(conditions, ALPHABET).hard and design.Filters([design.HeavyAtoms(3)], ALPHABET).hard


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: design.Descriptor("weight", 1, 2), "'weight' is not known; known are molecular_weight"),
        (lambda: design.LogP(), "lower or an upper"),
        (lambda: design.LogP(3, 2), "at least 3 and at most 2"),
        (lambda: design.LogP(math.nan, 2), "at least nan"),
        (lambda: design.LogP(1, 2, slope=0), "slope is 0"),
        (lambda: design.RingSizes({2, 6}), "from 3 on"),
        (lambda: design.HeteroatomChains(0), "allowed are 1 to 8"),
        (lambda: design.HeteroatomChains(1, ("C",)), "not heteroatoms"),
        (lambda: design.Smarts(), "at least one"),
        (lambda: design.Smarts(forbidden=["C", "not smarts"]), "'not smarts' is not SMARTS"),
        (lambda: design.Smarts(required={"bad": "[#6"}), "pattern 'bad'"),
        (lambda: design.SyntheticAccessibility(0), "1 to 10"),
        (lambda: design.NoUnstableGroups(["explosive"]), "known are peroxide"),
        (lambda: design.Elements(["H"]), "at least one element"),
        (lambda: design.Filters([design.Elements(["Hg"])], ALPHABET), "'Hg'.*allowed are B"),
        (lambda: design.Filters([len], ALPHABET), "no conditions"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("elements", ["C", "O"], "made of C, O and H"),
        ("ring_sizes", [6], "rings of 6 atoms only"),
        ("heteroatom_chains", 2, "at most 2 of N, O, S, F, Cl, Br, I in a chain"),
        ("no_unstable_groups", True, "no unstable groups"),
        ("no_unstable_groups", ["enol"], "no unstable groups (enol)"),
        ("forbidden", ["[#8][#8]"], "without [#8][#8]"),
        ("required", {"a phenyl ring": "c1ccccc1"}, "with a phenyl ring"),
        ("synthetic_accessibility", 4, "SA score at most 4"),
        (
            "synthetic_accessibility",
            {"upper": 4, "slope": 2},
            "SA score at most 4 (2 of log probability per unit outside)",
        ),
        ("rotatable_bonds", 5, "rotatable bonds at most 5"),
        ("log_p", {"lower": -1, "upper": 3}, "log p between -1 and 3"),
    ],
)
def test_filters_of_problem_files(name, value, text) -> None:
    assert name in design.FILTER_NAMES and from_setting(name, value).text() == text


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("ring_size = [5]", ("line 2", "did you mean 'ring_sizes'", "molecular_weight")),
        ("ring_sizes = 5", ("line 2", "ring_sizes", "[5, 6]")),
        ("molecular_weight = { above = 3 }", ("line 2", "molecular_weight", "lower, upper, slope")),
        ("molecular_weight = 'light'", ("line 2", "number", "'light'")),
        ("log_p = { lower = 3, upper = 2 }", ("line 2", "log_p", "at least 3")),
        ("forbidden = ['[#6']", ("line 2", "forbidden", "not SMARTS")),
        ("required = 'C'", ("line 2", "required", "list")),
        ("no_unstable_groups = false", ("line 2", "no_unstable_groups", "true for all")),
        ("synthetic_accessibility = { slope = 2 }", ("line 2", "needs 'upper'")),
        ("synthetic_accessibility = true", ("line 2", "number")),
        ("heteroatom_chains = 'short'", ("line 2", "heteroatom_chains", "1 to 8")),
    ],
)
def test_errors_in_filters_name_file_line_and_key(tmp_path, line, parts) -> None:
    path = tmp_path / "problem.toml"
    path.write_text(f"[filters]\n{line}\n[targets.boiling_point]\nabove = 400\n")
    with pytest.raises(BayesmatError) as caught:
        design.read_problem(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


class Constant:
    """A forward model that predicts the same for every molecule: above 1.0 with a probability of one half."""

    alphabet = ALPHABET

    def __call__(self, phi):
        return forward.Predictive(jax.numpy.ones(1), jax.numpy.ones(1), log=False)


@pytest.mark.slow
def test_conditions_are_factors_of_an_inverse_problem() -> None:
    carbons = design.Score(lambda text: text.count("C"), ALPHABET, name="carbons", vectorized=False)
    p_x, targets = prior.load("organic"), {"y": design.Above(1.0)}
    inverse = design.Inverse(p_x, {"y": Constant()}, targets, [carbons, design.RingSizes([])])
    plain = design.Inverse(p_x, {"y": Constant()}, targets)

    @jax.jit
    def densities(x):
        (a, trace), (b, _) = (log_density(model, (), {}, {"molecule": x}) for model in (inverse, plain))
        return a, trace["carbons"]["value"], b

    for x, carbons_of_x, ring in zip(
        chem.encode(["CCCO", "C1CCCCC1"], ALPHABET).tokens, (3, 0), (0, -np.inf), strict=True
    ):
        with_conditions, recorded, without = map(float, densities(x))
        assert without == pytest.approx(float(p_x.log_prob(x)) + np.log(0.5), rel=1e-5)
        assert with_conditions == pytest.approx(without + carbons_of_x + ring, rel=1e-5)
        assert recorded == carbons_of_x  # 0 where it was not asked, for the molecule had failed before
    with pytest.raises(BayesmatError, match="several scores or properties are called \\['carbons'\\]"):
        design.Inverse(p_x, {"y": Constant()}, targets, [carbons, carbons])
