"""The alphabet, the automaton and the graph, against RDKit and against exhaustive search."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import TINY, all_strings
from graphs import mismatch
from hypothesis import given, strategies as st

from bayesmat import BayesmatError, chem, data

ORGANIC = chem.Alphabet.organic()
SHORT = chem.Alphabet.organic(length=24, max_depth=3, max_rings=3)
POLYMER = chem.Alphabet.polymer()
SHORT_POLYMER = chem.Alphabet.polymer(length=40, max_depth=4, max_rings=4)

decode = jax.jit(jax.vmap(chem.decode, (0, None)), static_argnums=1)


def check_graphs(tokens: np.ndarray, alphabet: chem.Alphabet = ORGANIC) -> None:
    graph = jax.tree.map(np.asarray, decode(jnp.asarray(tokens), alphabet))
    for row, string in enumerate(tokens):
        smiles = chem.to_smiles(string, alphabet)
        problem = mismatch(smiles, graph, row, alphabet)
        assert problem is None, f"{smiles}: {problem}"


def test_uniform_strings_are_molecules_with_the_graph_rdkit_reads() -> None:
    strings = np.asarray(chem.random_strings(jax.random.key(0), 50_000, ORGANIC))
    assert np.asarray(chem.is_legal(strings, ORGANIC)).all()
    check_graphs(strings[:12_000])
    assert all(chem.is_accepted(chem.to_smiles(string, ORGANIC)) for string in strings[12_000:])


@pytest.mark.parametrize("alphabet", [chem.Alphabet.druglike(), POLYMER], ids=["druglike", "polymer"])
def test_the_other_presets_write_molecules_only(alphabet) -> None:
    strings = np.asarray(chem.random_strings(jax.random.key(5), 3_000, alphabet))
    assert np.asarray(chem.is_legal(strings, alphabet)).all()
    check_graphs(strings, alphabet)
    assert {chem.to_smiles(string, alphabet).count("*") for string in strings} == {alphabet.attachments}


def test_an_alphabet_of_many_rings_keeps_all_of_them() -> None:
    """More than 32 ring bonds: the sets of rings take several words."""
    alphabet = chem.Alphabet((chem.AtomType("C", 0, 4), chem.AtomType("S", 0, 6)), 240, 3, 12)
    strings = np.asarray(chem.random_strings(jax.random.key(2), 3_000, alphabet))
    check_graphs(strings, alphabet)
    assert ((strings == alphabet.ring_open_token).sum(1) > 32).any()


@pytest.mark.slow
@pytest.mark.slow
def test_decode_maps_over_any_number_of_axes() -> None:
    strings = chem.random_strings(jax.random.key(3), 24, SHORT)
    one_by_one = [chem.decode(row, SHORT) for row in strings]
    expected = jax.tree.map(lambda *rows: jnp.stack(rows), *one_by_one)
    batch = jax.vmap(lambda x: chem.decode(x, SHORT))(strings)
    nested = jax.vmap(jax.vmap(lambda x: chem.decode(x, SHORT)))(strings.reshape(4, 6, -1))
    chunks = chem.in_chunks(lambda x: chem.decode(x, SHORT), strings, size=5)
    columns = jax.vmap(lambda x: chem.decode(x, SHORT), in_axes=1)(strings.T)
    flat = jax.tree.map(lambda field: field.reshape(24, -1), nested)
    for other in (batch, flat, chunks, columns):
        jax.tree.map(np.testing.assert_array_equal, expected, other)


def test_memory_of_a_large_batch_is_bounded_by_chunks() -> None:
    def total(tokens: jax.Array) -> jax.Array:
        graph = chem.decode(tokens, ORGANIC)
        return (graph.hydrogens * graph.degree + graph.bond_class).sum()

    def working_memory(function) -> int:
        strings = jax.ShapeDtypeStruct((100_000, ORGANIC.length), jnp.int32)
        return jax.jit(function).lower(strings).compile().memory_analysis().temp_size_in_bytes

    whole = working_memory(jax.vmap(total))
    chunked = working_memory(lambda x: chem.in_chunks(total, x))
    assert chunked < 0.3 * whole < 60e6, (chunked, whole)


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


@pytest.mark.parametrize(
    ("length", "max_depth", "max_rings", "attachments"),
    [(5, 1, 1, 0), (7, 2, 2, 0), (10, 1, 4, 0), (13, 3, 2, 2), (19, 6, 7, 0)],
)
def test_no_dead_ends_where_every_budget_binds(length, max_depth, max_rings, attachments) -> None:
    """Short arrays, all atom types: strings that end only when nothing else is legal."""
    atoms = POLYMER.atoms if attachments else ORGANIC.atoms
    alphabet = chem.Alphabet(atoms, length, max_depth, max_rings, attachments)

    def one(key: jax.Array) -> jax.Array:
        def step(state: chem.State, key: jax.Array) -> tuple[chem.State, tuple[jax.Array, jax.Array]]:
            mask = chem.legal(state, alphabet)
            liking = jnp.zeros(alphabet.num_tokens).at[chem.END].set(-1e6)
            token = jax.random.categorical(key, jnp.where(mask, liking, -jnp.inf)).astype(jnp.int32)
            return chem.advance(state, token, alphabet), (token, mask.any())

        return jax.lax.scan(step, chem.start(alphabet), jax.random.split(key, length))[1]

    strings, has_next = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(length), 2_000))
    assert np.asarray(has_next).all()
    assert np.asarray(chem.is_legal(strings, alphabet)).all()
    texts = {chem.to_smiles(row, alphabet) for row in np.asarray(strings)}
    assert all(chem.is_accepted(text) for text in texts) and len(texts) > 20


@given(seed=st.integers(0, 2**31 - 1))
def test_no_dead_ends_on_repeat_units(seed) -> None:
    strings = np.asarray(chem.random_strings(jax.random.key(seed), 64, SHORT_POLYMER))
    assert np.asarray(chem.is_legal(strings, SHORT_POLYMER)).all()
    texts = [chem.to_smiles(row, SHORT_POLYMER) for row in strings]
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
        graph = jax.tree.map(np.asarray, decode(jnp.asarray(np.stack(tokens)), ORGANIC))
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
        ("C[SnH3]", "element Sn"),
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
    chem.is_legal.clear_cache()
    for number in (1, 2, 50, 5_000):  # corpora of any size are checked in blocks of two sizes
        chem.encode(["CCO"] * number, SHORT)
    assert chem.is_legal._cache_size() == 2
    traces = []

    @jax.jit
    def decode_all(tokens: jax.Array) -> chem.Graph:
        traces.append(tokens.shape)
        return jax.vmap(lambda x: chem.decode(x, SHORT))(tokens)

    for seed in range(3):
        decode_all(chem.random_strings(jax.random.key(seed), 8, SHORT))
    assert len(traces) == 1


def test_an_alphabet_from_a_corpus_says_what_it_was_asked_to() -> None:
    corpus = data.corpus("organic").smiles[::29]
    for coverage in (0.9, 1.0):
        alphabet = chem.Alphabet.from_corpus(corpus, coverage)
        encoded = chem.encode(corpus, alphabet)
        sizes = sum(n for reason, n in encoded.refused.items() if reason.startswith(("does not fit", "more than")))
        assert 1 - sizes / len(corpus) >= 1 - 3.1 * (1 - coverage) - 0.01  # three sizes, each chosen by itself
        strings = np.asarray(chem.random_strings(jax.random.key(0), 2_000, alphabet))
        texts = [chem.to_smiles(row, alphabet) for row in strings]
        refused = set(chem.canonicalize(texts).refused)
        assert not refused, refused  # molecules, and no radical among them
    assert {"Sn4", "Al", "Hg"} & set(alphabet.names) or "Sn" in alphabet.names
    assert chem.Alphabet.from_corpus(corpus, length=50, max_depth=2, max_rings=3).with_length(80).max_rings == 3
    assert len(set(alphabet.names)) == alphabet.num_tokens


def test_an_alphabet_from_repeat_units() -> None:
    alphabet = chem.Alphabet.from_corpus(["*CC*", "*OCC*", "*c1ccc(C*)cc1", "*CC", "CC"], coverage=1)
    assert alphabet.attachments == 2 and {atom.element for atom in alphabet.atoms} == {"*", "C", "O"}
    encoded = chem.encode(["*CC*", "*CC", "CC", "*C(*)C*"], alphabet)
    assert encoded.refused == {"1 attachment points": 1, "0 attachment points": 1, "3 attachment points": 1}


def test_random_strings_of_a_repeat_unit_begin_at_an_attachment_point() -> None:
    units = ["*CC(*)c1ccccc1", "*OCCOC(=O)c1ccc(C(*)=O)cc1", "*Nc1ccc(Cc2ccc(NC(=O)OCCCCOC(*)=O)cc2)cc1"]
    canonical = chem.canonicalize(units).smiles
    seen = set()
    for seed in range(0, 600, 100):
        encoded = chem.encode(units, POLYMER, seed=seed)
        texts = [chem.to_smiles(row, POLYMER) for row in encoded.tokens]
        assert chem.canonicalize(texts).smiles == canonical
        seen.update(texts)
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((["CCO"], 0.0), "coverage"), ((["C[", "[Na+].[Cl-]"],), "none of the 2"), ((["O", "F"],), "valence four")],
)
def test_corpora_without_an_alphabet_are_refused(arguments, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        chem.Alphabet.from_corpus(*arguments)
