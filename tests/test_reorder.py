"""Reordered strings, against every depth first walk of small molecules and against RDKit."""

from __future__ import annotations

import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import TINY, all_strings
from rdkit import Chem
from scipy.stats import chisquare

from bayesmat import BayesmatError, chem

ORGANIC = chem.Alphabet.organic()
POLYMER = chem.Alphabet.polymer()
RINGS = chem.Alphabet((chem.AtomType("C", 0, 4), chem.AtomType("O", 0, 2)), length=10, max_depth=2, max_rings=2)
"""Small enough for every walk to be followed, and with rings that join branches or open at the same atom."""

Law = dict[tuple[int, ...], float]


def one(key, tokens, alphabet, canonical=0.0):
    return chem.reorder(key, tokens, alphabet, canonical)


draw = jax.jit(jax.vmap(one, (0, 0, None, None)), static_argnums=(2, 3))
log_prob = jax.jit(jax.vmap(chem.reorder_log_prob, (0, None, None)), static_argnums=(1, 2))


def step_score(bond: Chem.Bond, there: Chem.Atom, canonical: float) -> float:
    order, degree = int(bond.GetBondTypeAsDouble()), min(there.GetDegree(), 4) - 1
    protons = min(max(there.GetAtomicNum(), 6), 17) - 6
    random, best = 6.0, ((7, 3, 1.5, 1.5) if order == 1 else (8, 3, 0.5, 0.5))[degree]
    if bond.IsInRing():
        random, best = (-5.0, (0, -4, -7, -9)[degree]) if order == 1 else (0.0, (0, 0, -1, -1)[degree])
    return (1 - canonical) * random + canonical * (best - 0.3 * protons)


def root_score(atom: Chem.Atom, canonical: float) -> float:
    protons = min(max(atom.GetAtomicNum(), 6), 17) - 6
    return canonical * (6.0 * (atom.GetDegree() == 1) - 0.9 * protons)


def read(tokens: np.ndarray, alphabet: chem.Alphabet) -> Chem.Mol:
    """The molecule in the Kekulé form of its string; atoms are numbered in the order of the string."""
    molecule = Chem.MolFromSmiles(chem.to_smiles(tokens, alphabet), sanitize=False)
    molecule.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(molecule)
    return molecule


def same_form(tokens: np.ndarray, alphabet: chem.Alphabet) -> str:
    """A string that two strings share exactly if they are the same molecule in the same Kekulé form."""
    return Chem.MolToSmiles(read(tokens, alphabet))


def law_of(tokens: np.ndarray, alphabet: chem.Alphabet, canonical: float) -> Law:
    """The probability of every string of a molecule, by following every walk; strings of any length."""
    molecule = read(tokens, alphabet)
    atoms = [int(token) for token in tokens if 1 <= token <= len(alphabet.atoms)]
    neighbours = [[other.GetIdx() for other in atom.GetNeighbors()] for atom in molecule.GetAtoms()]
    law: Law = defaultdict(float)

    def order(a: int, b: int) -> int:
        return int(molecule.GetBondBetweenAtoms(a, b).GetBondTypeAsDouble())

    def go(path: list[int], parents: dict[int, int], probability: float) -> None:
        if len(parents) == len(atoms):
            law[write(parents)] += probability
            return
        while not (free := [u for u in neighbours[path[-1]] if u not in parents]):
            path = path[:-1]
        here = path[-1]
        scores = [
            step_score(molecule.GetBondBetweenAtoms(here, u), molecule.GetAtomWithIdx(u), canonical) for u in free
        ]
        weights = np.exp(scores)
        for u, share in zip(free, weights / weights.sum(), strict=True):
            go([*path, u], {**parents, u: here}, probability * share)

    def write(parents: dict[int, int]) -> tuple[int, ...]:
        time = {atom: place for place, atom in enumerate(parents)}
        out: list[int] = []
        rings: list[set[int]] = []  # open ones, newest first

        def bond(a: int, b: int) -> list[int]:
            return [alphabet.bond_token(order(a, b))] if order(a, b) > 1 else []

        def emit(v: int) -> None:
            out.append(atoms[v])
            for ring in [ring for ring in rings if v in ring]:
                out.append(alphabet.first_ring_close_token + rings.index(ring))
                rings.remove(ring)
            later = sorted((u for u in neighbours[v] if time[u] > time[v]), key=time.__getitem__)
            for u in (u for u in later if parents[u] != v):
                out.extend([*bond(v, u), alphabet.ring_open_token])
                rings.insert(0, {v, u})
            children = [u for u in later if parents[u] == v]
            for u in children:
                last = u == children[-1]
                out.extend([] if last else [alphabet.open_token])
                out.extend(bond(v, u))
                emit(u)
                out.extend([] if last else [alphabet.close_token])

        emit(next(iter(parents)))
        return tuple(out)

    points = [index for index, token in enumerate(atoms) if alphabet.is_attachment[token]]
    roots = points or list(range(len(atoms)))
    weights = np.exp([root_score(molecule.GetAtomWithIdx(root), canonical) for root in roots])
    for root, share in zip(roots, weights / weights.sum(), strict=True):
        go([root], {root: -1}, share)
    assert math.isclose(sum(law.values()), 1)
    return law


def legal_part(law: Law, alphabet: chem.Alphabet) -> tuple[np.ndarray, np.ndarray]:
    """The strings of a law that the grammar allows, `(S, length)`, and their probabilities."""
    fitting = [string for string in law if len(string) <= alphabet.length]
    tokens = np.zeros((256, alphabet.length), np.int32)
    assert len(fitting) <= len(tokens)
    for row, string in zip(tokens, fitting, strict=False):
        row[: len(string)] = string
    legal = np.asarray(chem.is_legal(tokens, alphabet))[: len(fitting)]
    return tokens[: len(fitting)][legal], np.array([law[string] for string in fitting])[legal]


def bare(tokens: np.ndarray) -> tuple[int, ...]:
    return tuple(int(token) for token in tokens if token != chem.END)


def molecules(alphabet: chem.Alphabet, canonical: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Strings by molecule and the probability of each to be written; zero for strings that no walk writes."""
    if alphabet == TINY:
        strings = all_strings(TINY)
    else:
        strings = np.unique(np.asarray(chem.random_strings(jax.random.key(0), 1_500, alphabet)), axis=0)
    laws: dict[str, Law] = {}
    unwritten = defaultdict(list)
    for string in strings:
        name = same_form(string, alphabet)
        if name not in laws:
            laws[name] = law_of(string, alphabet, canonical)
        if bare(string) not in laws[name]:
            unwritten[name].append(string)
    out = []
    for name, law in laws.items():
        tokens, probabilities = legal_part(law, alphabet)
        more = np.array(unwritten[name], np.int32).reshape(-1, alphabet.length)
        out.append((np.concatenate([tokens, more]), np.concatenate([probabilities, np.zeros(len(more))])))
    return out


@pytest.mark.parametrize(("alphabet", "canonical"), [(TINY, 0.0), (RINGS, 0.7)], ids=["tiny", "rings"])
def test_log_prob_is_that_of_all_walks_and_the_move_leaves_any_target_invariant(alphabet, canonical) -> None:
    groups = molecules(alphabet, canonical)
    sizes = [len(tokens) for tokens, _ in groups]
    with jax.enable_x64(True):
        got = np.asarray(log_prob(jnp.asarray(np.concatenate([tokens for tokens, _ in groups])), alphabet, canonical))
    assert got.dtype == np.float64 and max(sizes) >= 6
    never = 0
    rng = np.random.default_rng(1)
    for (_, written), log_q in zip(groups, np.split(got, np.cumsum(sizes)[:-1]), strict=True):
        np.testing.assert_array_equal(np.isneginf(log_q), written == 0)
        never += (written == 0).sum()
        possible = written > 0
        constant = log_q[possible] - np.log(written[possible])
        np.testing.assert_allclose(constant, constant.mean() if len(constant) else 0, atol=1e-12)
        # The chain: propose by the law of the walks, accept by the reported probabilities.
        target = rng.dirichlet(np.full(len(written), 0.5)) + 1e-3
        target /= target.sum()
        log_target = np.log(target)
        with np.errstate(invalid="ignore"):
            ratio = log_target[None] - log_target[:, None] + log_q[:, None] - log_q[None]
        moves = written[None] * np.exp(np.minimum(np.where(possible[None], ratio, -np.inf), 0))
        np.fill_diagonal(moves, 0)
        matrix = moves + np.diag(1 - moves.sum(1))
        assert np.abs(target @ matrix - target).sum() < 1e-10
    assert (never > 0) == (alphabet == RINGS)


def test_strings_are_drawn_with_their_probability() -> None:
    """Symmetric ones, one and two rings, and with more strings than the array holds."""
    canonical = 0.7
    smiles = ["CC(C)(C)C", "CC(C)O", "C1CCC1", "CC1=CO1", "C1=CC=C1", "C12CC1C2", "C1CC1C(C)O", "CCCCCCC", "C=C=C=O"]
    num = 20_000
    keys = jax.random.split(jax.random.key(7), num)
    misfits = 0
    for row in chem.encode(smiles, RINGS).tokens:
        strings, expected = legal_part(law_of(row, RINGS, canonical), RINGS)
        starts = np.resize(strings, (num, RINGS.length))
        tokens, log_ratio = map(np.asarray, draw(keys, starts, RINGS, canonical))
        moved = np.isfinite(log_ratio)
        assert (tokens[~moved] == starts[~moved]).all()
        place = {bare(string): index for index, string in enumerate(strings)}
        observed = np.bincount([place[bare(string)] for string in tokens[moved]], minlength=len(place))
        observed, expected = np.append(observed, (~moved).sum()), np.append(expected, max(1 - expected.sum(), 0))
        misfits += observed[-1]
        assert observed[num * expected < 1e-9].sum() == 0
        common = num * expected >= 8
        pooled = [np.append(values[common], values[~common].sum()) for values in (observed, num * expected)]
        filled = pooled[1] > 1e-9
        if filled.sum() > 1:
            assert chisquare(pooled[0][filled], pooled[1][filled]).pvalue > 1e-4, chem.to_smiles(row, RINGS)
    assert misfits > 0


def test_a_string_that_no_walk_writes_is_left_by_no_move() -> None:
    """Rings that join branches; closed or opened in another order."""
    symbols = RINGS.symbol_token
    carbon = RINGS.atoms[0]
    for text in (["C", "(", "C", "~", ")", "C", 0], ["C", "~", "~", "C", "C", 0, "C", 0]):
        row = np.zeros((1, RINGS.length), np.int32)
        row[0, : len(text)] = [symbols[carbon if symbol == "C" else symbol] for symbol in text]
        assert bool(chem.is_legal(row, RINGS)[0])
        assert np.isneginf(log_prob(row, RINGS, 0.0)[0])
        tokens, log_ratio = chem.reorder(jax.random.key(0), row[0], RINGS)
        assert np.isneginf(log_ratio) and same_form(np.asarray(tokens), RINGS) == same_form(row[0], RINGS)
        assert np.isfinite(log_prob(tokens[None], RINGS, 0.0)[0])


REAL = [
    "CC(=O)Oc1ccccc1C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "CC12CCC3C(CCC4=CC(=O)CCC34C)C1CCC2O",
    "O=[N+]([O-])c1ccc(S(=O)(=O)N2CCOCC2)cc1", "C12C3C4C1C5C2C3C45", "CC(C)(C)[Si](C)(C)OP(=O)(OCC)OCC",
    "C#CC1(C#N)CC1", "FC(F)(F)C(Cl)Br", "c1ccc2c(c1)ccc1ccccc12", "C1CC2CCC1C2", "OB(O)c1ccsc1",
    "N#Cc1c[nH]c2ncc(Br)cc12",
]  # fmt: skip
UNITS = ["*CC*", "*CC(*)c1ccccc1", "*OCCOC(=O)c1ccc(C(*)=O)cc1", "*Nc1ccc(Cc2ccc(NC(=O)OCCCCOC(*)=O)cc2)cc1"]


@pytest.mark.parametrize(
    ("alphabet", "smiles", "num"), [(ORGANIC, REAL, 2_000), (POLYMER, UNITS, 600)], ids=["organic", "polymer"]
)
def test_another_string_of_the_same_molecule(alphabet, smiles, num) -> None:
    real = np.concatenate([chem.encode(smiles, alphabet, seed=seed).tokens for seed in (None, *range(0, 1000, 100))])
    strings = np.concatenate([real, np.asarray(chem.random_strings(jax.random.key(3), num - len(real), alphabet))])
    keys = jax.random.split(jax.random.key(4), num)
    tokens, log_ratio = draw(keys, strings, alphabet, 0.0)
    again, _ = draw(keys, strings, alphabet, 0.0)
    np.testing.assert_array_equal(tokens, again)
    assert np.asarray(chem.is_legal(tokens, alphabet)).all()
    tokens, moved = np.asarray(tokens), np.isfinite(log_ratio)
    for old, new in zip(strings, tokens, strict=True):
        assert same_form(old, alphabet) == same_form(new, alphabet)
    before, after = log_prob(strings, alphabet, 0.0), log_prob(tokens, alphabet, 0.0)
    assert np.isfinite(before[: len(real)]).all()  # what `encode` writes, `reorder` can write
    np.testing.assert_allclose(np.asarray(before - after)[moved], log_ratio[moved], atol=1e-4)
    assert moved[: len(real)].mean() > 0.95 and (tokens != strings)[moved].any(1).mean() > 0.5
    texts = [[chem.to_smiles(row, alphabet) for row in rows[: len(real)]] for rows in (strings, tokens)]
    assert chem.canonicalize(texts[0]).smiles == chem.canonicalize(texts[1]).smiles


def test_it_imitates_the_strings_of_encode() -> None:
    """The canonical string of a molecule is the likelier one with `canonical` 1, and not with 0."""
    strings = np.concatenate([chem.encode(REAL, ORGANIC, seed=seed).tokens for seed in (None, *range(0, 500, 100))])
    for canonical, least, most in ((0.0, -1.5, 1.5), (1.0, 5.0, 50.0)):
        log_q = np.asarray(log_prob(strings, ORGANIC, canonical))
        assert least < log_q[: len(REAL)].mean() - log_q[len(REAL) :].mean() < most


def test_the_longest_array() -> None:
    """Times, ranks and positions still fit their words."""
    alphabet = chem.Alphabet.organic(length=1024)
    texts = ["C" * 990 + "O", "C1CC(N)C1" * 110, "C1CC1CO" * 140]
    strings = chem.encode(texts, alphabet).tokens
    assert len(strings) == 3 and ((strings > 0).sum(1) > 900).all()
    tokens, log_ratio = draw(jax.random.split(jax.random.key(1), 3), strings, alphabet, 0.0)
    assert np.isfinite(log_ratio).any() and (np.asarray(tokens) != strings).any()
    for old, new in zip(strings, np.asarray(tokens), strict=True):
        assert same_form(old, alphabet) == same_form(new, alphabet)


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(BayesmatError, match="0 to 1"):
        chem.reorder_log_prob(np.zeros(80, np.int32), ORGANIC, 1.5)


def test_maps_over_any_axes_and_is_traced_once_per_shape() -> None:
    strings = chem.encode(["CC(C)O", "C1CC1C(C)O", "C12CC1C2", "OCC=O", "CC1=CO1", "CCC(C)C"], RINGS).tokens
    keys = jax.random.split(jax.random.key(2), 6)
    traces = []

    @jax.jit
    def batch(keys: jax.Array, tokens: jax.Array) -> chem.Reordered:
        traces.append(tokens.shape)
        return jax.vmap(lambda key, x: chem.reorder(key, x, RINGS))(keys, tokens)

    expected = batch(keys, strings)
    batch(jax.random.split(jax.random.key(3), 6), strings[::-1])
    assert len(traces) == 1
    single = chem.reorder(keys[4], strings[4], RINGS)
    np.testing.assert_array_equal(single.tokens, expected.tokens[4])
    assert single.log_ratio == expected.log_ratio[4] and single.log_ratio.shape == ()
    nested = jax.vmap(jax.vmap(lambda key, x: chem.reorder(key, x, RINGS)))(
        keys.reshape(2, 3), strings.reshape(2, 3, -1)
    )
    np.testing.assert_array_equal(nested.tokens.reshape(6, -1), expected.tokens)
    fan = jax.vmap(lambda key: chem.reorder(key, strings[0], RINGS))(keys)
    np.testing.assert_array_equal(fan.tokens[0], expected.tokens[0])
    assert len(np.unique(fan.tokens, axis=0)) > 1
