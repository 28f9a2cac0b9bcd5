"""The alphabet, the automaton and the graph, against RDKit and against exhaustive search."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import TINY, all_strings
from hypothesis import given, strategies as st
from rdkit import Chem

from bayesmat import BayesmatError, chem, data

ORGANIC = chem.Alphabet.organic()
SHORT = chem.Alphabet.organic(length=24, max_depth=3, max_rings=3)
POLYMER = chem.Alphabet((*ORGANIC.atoms, chem.AtomType("*", 0, 1)), length=40, max_depth=4, max_rings=4, attachments=2)

decode = jax.jit(jax.vmap(lambda x: chem.decode(x, ORGANIC)))


def mismatch(smiles: str, graph: chem.Graph, row: int, alphabet: chem.Alphabet) -> str | None:
    """What differs between a decoded graph and RDKit's reading of the string, or None."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return "rejected by RDKit"
    positions = np.flatnonzero(graph.atom[row])
    if molecule.GetNumAtoms() != len(positions):
        return "number of atoms"
    index = {int(position): i for i, position in enumerate(positions)}
    for atom, position in zip(molecule.GetAtoms(), positions, strict=True):
        token = graph.atom[row, position]
        ours = (alphabet.atomic_number[token], alphabet.charge[token], graph.hydrogens[row, position], 0,
                graph.in_ring[row, position], graph.degree[row, position])  # fmt: skip
        theirs = (atom.GetAtomicNum(), atom.GetFormalCharge(), atom.GetTotalNumHs(), atom.GetNumRadicalElectrons(),
                  atom.IsInRing(), atom.GetDegree())  # fmt: skip
        if tuple(map(int, ours)) != tuple(map(int, theirs)):
            return f"atom {ours} is {theirs}"
    bonds = {}
    for k in np.flatnonzero(graph.bond_order[row]):
        ends = (index[int(graph.bond_from[row, k])], index[int(graph.bond_to[row, k])])
        bonds[tuple(sorted(ends))] = (int(graph.bond_order[row, k]), bool(graph.bond_in_ring[row, k]))
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    unsanitised = Chem.MolFromSmiles(smiles, sanitize=False)  # keeps the Kekulé form that was written
    orders = {
        tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))): int(b.GetBondTypeAsDouble())
        for b in unsanitised.GetBonds()
    }
    rings = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))): b.IsInRing() for b in molecule.GetBonds()}
    theirs = {ends: (orders[ends], rings[ends]) for ends in orders}
    return None if bonds == theirs else f"bonds {bonds} are {theirs}"


def check_graphs(tokens: np.ndarray) -> None:
    graph = jax.tree.map(np.asarray, decode(jnp.asarray(tokens)))
    for row, string in enumerate(tokens):
        smiles = chem.to_smiles(string, ORGANIC)
        problem = mismatch(smiles, graph, row, ORGANIC)
        assert problem is None, f"{smiles}: {problem}"


def test_uniform_strings_are_molecules_with_the_graph_rdkit_reads() -> None:
    strings = np.asarray(chem.random_strings(jax.random.key(0), 20_000, ORGANIC))
    assert np.asarray(chem.is_legal(strings, ORGANIC)).all()
    check_graphs(strings)


@jax.jit
def long_strings(key: jax.Array) -> jax.Array:
    """Strings that end only when nothing else is legal: they fill the array, and every budget binds."""

    def one(key: jax.Array) -> jax.Array:
        def step(state: chem.State, key: jax.Array) -> tuple[chem.State, jax.Array]:
            mask = chem.legal(state, ORGANIC)
            valence = jnp.asarray(ORGANIC.valence)
            liking = jnp.where(valence >= 3, 2.0, 0.0) - jnp.where((valence > 0) & (valence < 2), 3.0, 0.0)
            liking = liking.at[chem.END].set(-1e6)
            token = jax.random.categorical(key, jnp.where(mask, liking, -jnp.inf)).astype(jnp.int32)
            return chem.advance(state, token, ORGANIC), token

        return jax.lax.scan(step, chem.start(ORGANIC), jax.random.split(key, ORGANIC.length))[1]

    return jax.vmap(one)(jax.random.split(key, 2000))


def test_strings_that_fill_the_array_are_molecules() -> None:
    strings = np.asarray(long_strings(jax.random.key(1)))
    assert (strings > 0).sum(1).mean() > 30
    assert np.asarray(chem.is_legal(strings, ORGANIC)).all()
    check_graphs(strings)


@pytest.mark.parametrize(
    "alphabet",
    [
        TINY,
        chem.Alphabet((chem.AtomType("C", 0, 4),), length=8, max_depth=1, max_rings=2),
        chem.Alphabet((chem.AtomType("C", 0, 4), chem.AtomType("F", 0, 1)), length=7, max_depth=2, max_rings=1),
        chem.Alphabet(
            (chem.AtomType("C", 0, 4), chem.AtomType("*", 0, 1)), length=8, max_depth=2, max_rings=1, attachments=2
        ),
    ],
    ids=["three atoms", "two rings", "nested branches", "repeat units"],
)
def test_no_dead_ends_and_every_string_is_a_molecule(alphabet) -> None:
    strings = all_strings(alphabet)  # asserts that every prefix has a legal continuation and every end is complete
    assert len(np.unique(strings, axis=0)) == len(strings) > 20
    for string in strings[:: max(1, len(strings) // 3000)]:
        smiles = chem.to_smiles(string, alphabet)
        assert chem.is_accepted(smiles), smiles
        assert smiles.count("*") == alphabet.attachments


@given(seed=st.integers(0, 2**31 - 1))
def test_no_dead_ends_on_repeat_units(seed) -> None:
    strings = np.asarray(chem.random_strings(jax.random.key(seed), 64, POLYMER))
    assert np.asarray(chem.is_legal(strings, POLYMER)).all()
    texts = [chem.to_smiles(row, POLYMER) for row in strings]
    assert all(text.count("*") == 2 and chem.is_accepted(text) for text in texts)


def test_real_molecules_round_trip() -> None:
    corpus = data.corpus("organic").smiles[::7]
    encoded = chem.encode(corpus, ORGANIC)
    back = chem.canonicalize([chem.to_smiles(row, ORGANIC) for row in encoded.tokens]).smiles
    kept = [corpus[i] for i in encoded.kept]
    wrong = [(a, b) for a, b in zip(kept, back, strict=True) if a != b]
    assert len(wrong) <= 0.005 * len(kept), wrong[:5]
    assert len(encoded.tokens) + len(encoded.refusals) == len(corpus)
    assert all(refusal.reason for refusal in encoded.refusals)
    assert len(encoded.tokens) > 0.9 * len(corpus)
    check_graphs(encoded.tokens[:2000])


def test_features_of_the_graph_do_not_depend_on_the_string() -> None:
    corpus = [text for text in data.corpus("organic").smiles[5::97]]
    forms = [chem.encode(corpus, ORGANIC, seed=None if k == 0 else 1000 * k) for k in range(4)]
    shared = set.intersection(*(set(form.kept.tolist()) for form in forms))
    rows = [[form.tokens[np.searchsorted(form.kept, i)] for i in sorted(shared)] for form in forms]
    assert len(shared) > 300
    assert (np.stack(rows[0]) != np.stack(rows[1])).any(1).mean() > 0.8  # the strings do differ
    reference = None
    for tokens in rows:
        graph = jax.tree.map(np.asarray, decode(jnp.asarray(np.stack(tokens))))
        atoms = [
            sorted(zip(*(np.asarray(values[i])[graph.atom[i] > 0].tolist() for values in
                         (graph.atom, graph.hydrogens, graph.pi, graph.in_ring, graph.degree)), strict=True))
            for i in range(len(tokens))
        ]  # fmt: skip
        bonds = [np.bincount(row[row > 0], minlength=5).tolist() for row in graph.bond_class]
        reference = reference or (atoms, bonds)
        assert (atoms, bonds) == reference


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "empty"),
        ("C1CC", "RDKit cannot read"),
        ("nonsense", "RDKit cannot read"),
        ("[Na+].[Cl-]", "several fragments"),
        ("[CH3]", "radical"),
        ("C[Hg]C", "element Hg"),
        ("CI(=O)=O", "valence 5 of I"),
        ("*CC*", "attachment point"),
        ("C[S+2]", "radical"),
        ("C" * 200, "does not fit 80 tokens"),
        ("C" * 5000, "longer than"),
        ("C1CC#CCCC1", None),
        ("c1ccccc1\x00", "control character"),
        ("CCO ethanol", "blank"),
    ],
)
def test_refusals_name_their_reason(smiles, reason) -> None:
    encoded = chem.encode([smiles, "CCO"], ORGANIC)
    assert encoded.kept[-1] == 1
    if reason is None:
        assert not encoded.refusals
    else:
        assert reason in encoded.refusals[0].reason and encoded.refusals[0].index == 0


def test_stereo_is_stripped_and_counted() -> None:
    result = chem.canonicalize(["C[C@H](N)C(=O)O", "F/C=C/F", "CCO", "[13CH4]", "C.C"])
    assert result.smiles == ["CC(N)C(=O)O", "FC=CF", "CCO", "C", None]
    assert result.stripped == {"stereo": 2, "isotopes": 1}
    assert result.refused == {"several fragments": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 2}, "length"),
        ({"attachments": 1}, "attachments"),
        ({"attachments": 2}, r"'\*'"),
        ({"atoms": (chem.AtomType("O", 0, 2),)}, "valence four"),
        ({"atoms": (chem.AtomType("C", 0, 4), chem.AtomType("Xx", 0, 2))}, "Xx"),
        ({"atoms": (chem.AtomType("C", 0, 4), chem.AtomType("C", 0, 4))}, "twice"),
    ],
)
def test_impossible_alphabets_are_refused(settings, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        chem.Alphabet(**{"atoms": ORGANIC.atoms, **settings})


def test_one_compilation_per_shape() -> None:
    chem.random_strings.clear_cache()
    for seed in range(3):
        chem.random_strings(jax.random.key(seed), 8, SHORT)
    assert chem.random_strings._cache_size() == 1
    chem.random_strings(jax.random.key(0), 9, SHORT)
    assert chem.random_strings._cache_size() == 2
