"""The message-passing extractor: a function of the molecule alone, right against RDKit, safe to read from a file."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from rdkit import Chem

from bayesmat import chem, data, nn
from bayesmat._types import BayesmatError
from bayesmat.nn import _extractor, _features
from bayesmat.nn._message import NUM_CLASSES, gather_neighbours

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

ORGANIC = chem.Alphabet.organic(length=48)
POLYMER = chem.Alphabet.polymer(length=64)
CORPUS = data.corpus("organic").smiles[5::290][:200]
HYPERVALENT = ["CS(=O)(=O)c1ccccc1", "OP(=O)(O)OC", "FS(F)(F)(F)(F)F", "ClP(Cl)(Cl)(Cl)Cl", "C[N+](=O)[O-]"]
UNITS = ["*CC(*)c1ccccc1", "*Oc1ccc(C(C)(C)c2ccc(OC(*)=O)cc2)cc1", "*C=C*", "*CCOC(=O)c1ccc(cc1)C(=O)O*", "*N*"]
TASKS = ("rdkit_a", "boiling", "polymer_glass", "rdkit_b", "log_viscosity")


def made(seed: int = 0, width: int = 24) -> nn.Extractor:
    """An extractor that nobody trained; what it is told of molecules is as large as what it sees of the graph."""
    given = jax.random.normal(jax.random.key(7), (50, len(nn.GIVEN_NAMES)))
    network = nn.MessageNetwork.init(jax.random.key(seed), 3.0 * given, len(TASKS), width=width, rounds=3, pooled=32,
                                     features=20)  # fmt: skip
    mean, scale = jnp.arange(5.0), 1.0 + jnp.arange(5.0)
    return nn.Extractor(network, mean, scale, TASKS, ("log_viscosity",), "none")


MADE = made()


GIVEN = jnp.linspace(-1.0, 4.0, len(nn.GIVEN_NAMES))


def numbers(tokens: jax.Array, given: jax.Array, alphabet: chem.Alphabet = ORGANIC, cap: bool = False) -> jax.Array:
    return MADE(chem.decode(tokens, alphabet), given, alphabet, cap)


phi = jax.jit(jax.vmap(numbers))
of_units = jax.jit(
    jax.vmap(lambda x, cap: MADE(chem.decode(x, POLYMER), GIVEN, POLYMER, cap), (0, None)), static_argnums=1
)
given_features = jax.jit(jax.vmap(lambda x: nn.given_features(chem.decode(x, ORGANIC), ORGANIC)))


def close(found, expected) -> None:
    """Equal to float32 sums in another order."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    encoded = chem.encode([*CORPUS, *HYPERVALENT], ORGANIC)
    return np.pad(encoded.tokens, ((0, 205 - len(encoded.tokens)), (0, 0)), mode="wrap")


@pytest.fixture(scope="module")
def given(tokens) -> jax.Array:
    return given_features(tokens)


@pytest.fixture(scope="module")
def molecules(tokens) -> nn.Atoms:
    return jax.jit(jax.vmap(lambda x: nn.atoms(chem.decode(x, ORGANIC), ORGANIC)))(tokens)


# A function of the molecule


def test_the_string_does_not_matter(tokens, given) -> None:
    texts = [chem.to_smiles(row, ORGANIC) for row in tokens]
    expected = np.asarray(phi(tokens, given))
    assert (expected.std(0) > 0.01 * np.abs(expected).max()).sum() > 5  # φ says something
    changed = 0
    for seed in (3, 4, 5):
        again = chem.encode(texts, ORGANIC, seed=seed)
        rows = np.pad(again.tokens, ((0, len(tokens) - len(again.tokens)), (0, 0)))
        changed += int((rows[: len(again.kept)] != tokens[again.kept]).any(1).sum())
        close(np.asarray(phi(rows, given_features(rows)))[: len(again.kept)], expected[again.kept])
    assert changed > 450


def test_slots_do_not_matter(tokens, molecules) -> None:
    small = (np.asarray(molecules.number) > 0).sum(1) <= 17
    assert small.sum() > 100
    some = jax.jit(jax.vmap(lambda x: MADE.network(nn.atoms(chem.decode(x, ORGANIC), ORGANIC, 17), GIVEN)))
    close(np.asarray(some(tokens))[small], np.asarray(phi(tokens, jnp.tile(GIVEN, (205, 1))))[small])


def test_the_batch_does_not_matter(tokens, given) -> None:
    """Sorted chunks of several sizes, one at a time, two axes of which one is shared."""
    expected = np.asarray(phi(tokens, given))
    one = jax.jit(numbers)
    close([one(row, told) for row, told in zip(tokens[:6], given[:6], strict=True)], expected[:6])
    close(phi(tokens[::-1], given[::-1])[::-1], expected)
    close(phi(tokens[:65], given[:65]), expected[:65])
    twice = jax.jit(jax.vmap(jax.vmap(numbers, (0, None))))(tokens.reshape(5, 41, -1), given[:5])
    close(twice.reshape(205, -1), phi(tokens, jnp.repeat(given[:5], 41, 0)))


def test_nothing_is_finite() -> None:
    assert np.isfinite(phi(np.zeros((65, ORGANIC.length), np.int32), jnp.zeros((65, len(GIVEN))))).all()


def test_gradients_go_beside_the_batch(tokens, given) -> None:
    """A model may differentiate with respect to something that stands beside a molecule."""
    slope = jax.grad(lambda z: z * phi(tokens[:65], given[:65]).sum())(2.0)
    np.testing.assert_allclose(slope, phi(tokens[:65], given[:65]).sum(), rtol=1e-4)


# Atoms and neighbours


def expected_atoms(text: str) -> list[tuple]:
    """RDKit's reading: what `Atoms` says of each atom, then its neighbours with the classes of bonds."""
    molecule, written = Chem.MolFromSmiles(text), Chem.MolFromSmiles(text, sanitize=False)
    orders = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())): int(b.GetBondTypeAsDouble())
              for b in written.GetBonds()}  # fmt: skip
    pi = {atom for pair, order in orders.items() if order > 1 for atom in pair}
    rows = []
    for a in molecule.GetAtoms():
        i = a.GetIdx()
        bonds = []
        for bond in a.GetBonds():
            j = bond.GetOtherAtomIdx(i)
            conjugated = bond.IsInRing() and i in pi and j in pi
            bonds.append((j, 3 if conjugated else orders[frozenset((i, j))] - 1))
        flags = (i in pi) + 2 * a.IsInRing()
        charge = int(np.sign(a.GetFormalCharge())) + 1
        rows.append((a.GetAtomicNum() + 1, a.GetTotalNumHs(), charge, a.GetDegree(), flags, sorted(bonds)))
    return rows


@pytest.mark.parametrize("alphabet", [ORGANIC, POLYMER], ids=["molecules", "repeat units"])
def test_atoms_are_those_of_rdkit(alphabet, tokens) -> None:
    strings = tokens if alphabet is ORGANIC else chem.encode(UNITS, alphabet).tokens
    found = jax.jit(jax.vmap(lambda x: nn.atoms(chem.decode(x, alphabet), alphabet)))(strings)
    found = nn.Atoms(*map(np.asarray, found))
    nobody = NUM_CLASSES * alphabet.length
    for row, string in enumerate(strings):
        expected = expected_atoms(chem.to_smiles(string, alphabet))
        n = len(expected)
        parts = [part[row] for part in found[:5]]
        assert not any(part[n:].any() for part in parts)
        assert (found.neighbour[row, n:] == nobody).all()
        bonds = [sorted(divmod(int(c), NUM_CLASSES) for c in codes if c < nobody) for codes in found.neighbour[row, :n]]
        ours = [(*(int(part[i]) for part in parts), bonds[i]) for i in range(n)]
        assert ours == expected, chem.to_smiles(string, alphabet)
    largest = found.degree.max()
    assert largest == (6 if alphabet is ORGANIC else 4)


def test_neighbours_are_summed_and_the_gradient_is_exact() -> None:
    row = chem.encode(["N#CC=CS(=O)(=O)c1ccccc1OC"], ORGANIC).tokens[0]
    molecule = jax.jit(lambda x: nn.atoms(chem.decode(x, ORGANIC), ORGANIC))(row)
    neighbour = molecule.neighbour
    slots = len(neighbour)
    dense = np.zeros((slots, slots, NUM_CLASSES))
    for i, codes in enumerate(np.asarray(neighbour)):
        for code in codes[codes < NUM_CLASSES * slots]:
            dense[i, code // NUM_CLASSES, code % NUM_CLASSES] += 1
    assert dense.sum((0, 1)).tolist() == [10, 6, 2, 12] and (dense == dense.transpose(1, 0, 2)).all()
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        messages = jnp.asarray(rng.normal(size=(slots, NUM_CLASSES, 3)))
        cotangent = jnp.asarray(rng.normal(size=(slots, 3)))
        heard, pull = jax.vjp(lambda m: gather_neighbours(m, neighbour), messages)
        np.testing.assert_allclose(heard, np.einsum("ijc,jcd->id", dense, messages), atol=1e-12)
        np.testing.assert_allclose(pull(cotangent)[0], np.einsum("ijc,id->jcd", dense, cotangent), atol=1e-12)
        small = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), MADE.network)
        given = jnp.asarray(GIVEN, jnp.float64)
        layer = small.layers[1]

        def value(say: jax.Array, bond: jax.Array) -> jax.Array:
            changed = eqx.tree_at(lambda n: (n.layers[1].say.weight, n.layers[1].bond), small, (say, bond))
            return changed(molecule, given).sum()

        check_grads(value, (layer.say.weight, layer.bond), order=1, modes=["rev"], atol=1e-4, rtol=1e-4, eps=1e-6)


def test_a_capped_repeat_unit_is_a_molecule() -> None:
    units = chem.encode(UNITS, POLYMER).tokens
    texts = [chem.to_smiles(row, POLYMER).replace("*", "C") for row in units]
    as_molecules = np.pad(chem.encode(texts, ORGANIC, seed=1).tokens, ((0, 60), (0, 0)), mode="wrap")
    expected = np.asarray(phi(as_molecules, jnp.tile(GIVEN, (65, 1))))[: len(units)]
    close(of_units(units, True), expected)
    assert (np.abs(of_units(units, False) - expected).max(1) > 1e-2).all()


def test_properties_are_asked_of_the_right_structure(monkeypatch, tokens) -> None:
    """Of a repeat unit as it is what is known of polymers, of the capped one what is known of molecules."""
    monkeypatch.setattr(_features, "extractor", lambda: MADE)
    assert nn.property_names(ORGANIC) == ("boiling", "log_viscosity")
    assert nn.property_names(POLYMER) == ("boiling", "polymer_glass", "log_viscosity")
    monkeypatch.setattr(_features, "given_features", lambda *_: GIVEN)
    units = chem.encode(UNITS, POLYMER).tokens
    head, scale, mean = MADE.network.tasks, np.asarray(MADE.task_scale), np.asarray(MADE.task_mean)

    def values(phi: jax.Array) -> np.ndarray:
        return mean + scale * (np.asarray(phi, np.float64) @ np.asarray(head.weight) + np.asarray(head.bias))

    as_molecule, whole = values(of_units(units, True)), values(of_units(units, False))
    of = [jax.jit(jax.vmap(lambda x, a=a: nn.featurize(x, a)[-2:])) for a in (POLYMER, ORGANIC)]
    learned, properties = of[0](units)
    np.testing.assert_allclose(properties, np.stack([as_molecule[:, 1], whole[:, 2], as_molecule[:, 4]], 1), rtol=1e-3)
    close(learned, of_units(units, False))
    expected = values(phi(tokens[:65], jnp.tile(GIVEN, (65, 1))))
    np.testing.assert_allclose(of[1](tokens[:65])[1], expected[:, [1, 4]], rtol=1e-3, atol=1e-3)


# Files


def card() -> dict:
    return {"tasks": [{"name": name, "mean": float(i), "sd": 1.0 + i, "log": name == "log_viscosity"}
                      for i, name in enumerate(TASKS)]}  # fmt: skip


def test_a_saved_network_predicts_the_same(tmp_path, tokens) -> None:
    folder = nn.save_network(MADE.network, tmp_path / "net", card())
    nn.save_network(MADE.network, folder, card())  # over an older one
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    again = nn.read_extractor(folder)
    assert again.task_names == TASKS and again.logarithmic == ("log_viscosity",) and again.num_features == 20
    assert again.property_names == ("boiling", "polymer_glass", "log_viscosity")
    assert again.digest == hashlib.sha256((folder / "arrays.npz").read_bytes()).hexdigest()
    for ours, theirs in zip(jax.tree.leaves(again.network), jax.tree.leaves(MADE.network), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs, np.float16).astype(np.float32))
    run = eqx.filter_jit(lambda extractor, x: jax.vmap(lambda x: extractor(chem.decode(x, ORGANIC), GIVEN, ORGANIC))(x))
    before, after = (
        run(e, tokens[:65]) for e in (MADE, replace(again, digest=MADE.digest))
    )  # a float16 has eleven bits, and errors of nine matrices add up
    np.testing.assert_allclose(after, before, atol=9 * 2**-11 * float(jnp.abs(before).max()))
    np.testing.assert_allclose(again.properties(after[0]), MADE.properties(before[0]), rtol=0.02, atol=0.02)
    with jax.enable_x64(True):  # whatever JAX is set to when it is first read
        assert {leaf.dtype for leaf in jax.tree.leaves(nn.read_extractor(folder))} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return nn.save_network(made(width=3).network, tmp_path_factory.mktemp("saved") / "net", card())


def rewrite(folder: Path, change_arrays=lambda arrays: None, change_card=lambda card: None) -> None:
    """A folder whose sums are right again after a change."""
    with np.load(folder / "arrays.npz") as stored:
        arrays = dict(stored)
    change_arrays(arrays)
    np.savez(folder / "arrays.npz", **arrays)
    found = json.loads((folder / "card.json").read_text())
    found["sha256"] = hashlib.sha256((folder / "arrays.npz").read_bytes()).hexdigest()
    change_card(found)
    (folder / "card.json").write_text(json.dumps(found))


HOSTILE = {
    "NaN": (lambda a: a["leaf_003"].__setitem__((0, 0), np.nan), "finite"),
    "a number too large": (lambda a: a.update(leaf_005=a["leaf_005"].astype(np.float64) + 1e300), "half precision"),
    "another shape": (lambda a: a.update(leaf_000=a["leaf_000"][:-1]), "shape"),
    "a vector for a matrix": (lambda a: a.update({n: a[n].ravel() for n in a}), "damaged"),
    "a missing leaf": (lambda a: a.pop("leaf_004"), "leaf_004"),
    "objects": (lambda a: a.update(leaf_001=np.array([{}], object)), "plain arrays"),
    "text": (lambda a: a.update(leaf_001=np.array(["a"])), "half precision"),
}
HOSTILE_CARDS = {
    "no tasks": (lambda c: c.pop("tasks"), "tasks"),
    "a task too few": (lambda c: c["tasks"].pop(), "shape"),
    "a task without a mean": (lambda c: c["tasks"][0].pop("mean"), "mean"),
    "NaN": (lambda c: c["tasks"][1].update(mean=float("nan")), "finite"),
    "no spread": (lambda c: c["tasks"][1].update(sd=0.0), "positive"),
    "rounds without end": (lambda c: c.update(rounds=10**9), "rounds"),
    "infinitely many rounds": (lambda c: c.update(rounds=float("inf")), "rounds"),
    "another version": (lambda c: c.update(format=99), "another version"),
    "other features": (lambda c: c["given"].pop(), "another version"),
    "damage": (lambda c: c.update(sha256="0" * 64), "sha256"),
}


@pytest.mark.parametrize("name", [*HOSTILE, *(f"card: {name}" for name in HOSTILE_CARDS)])
def test_a_hostile_folder_is_refused(tmp_path, saved, name) -> None:
    folder = shutil.copytree(saved, tmp_path / "net")
    if name.startswith("card: "):
        change, message = HOSTILE_CARDS[name.removeprefix("card: ")]
        rewrite(folder, change_card=change)
    else:
        change, message = HOSTILE[name]
        rewrite(folder, change)
    with pytest.raises(BayesmatError, match=message):
        nn.read_extractor(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 1}'])
def test_a_card_that_is_none(tmp_path, saved, text) -> None:
    folder = shutil.copytree(saved, tmp_path / "net")
    (folder / "card.json").write_text(text)
    with pytest.raises(BayesmatError, match="no saved network"):
        nn.read_extractor(folder)
    with pytest.raises(BayesmatError, match="no saved network"):
        nn.read_extractor(tmp_path / "nothing")


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(BayesmatError, match="no extractor is called 'nope'; there are graph"):
        nn.extractor("nope")
    with pytest.raises(BayesmatError, match="sizes of a network must be positive"):
        nn.MessageNetwork.init(jax.random.key(0), jnp.zeros((2, 3)), 0)


# What ships


@pytest.mark.slow
def test_the_shipped_extractor_is_read_within_a_program(tokens) -> None:
    nn.extractor.cache_clear()
    run = jax.jit(jax.vmap(lambda x: nn.extractor()(chem.decode(x, ORGANIC), GIVEN, ORGANIC)))
    inside, shipped = run(tokens[:65]), nn.extractor()
    assert inside.shape == (65, shipped.num_features) and np.asarray(inside).std(0).max() > 0.1
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(shipped))
    found = shipped.properties(inside)
    assert found.shape == (65, len(shipped.property_names)) and np.isfinite(found).all()
    assert set(nn.property_names(POLYMER)) == set(shipped.property_names) > set(nn.property_names(ORGANIC))


def test_nothing_that_ships_saw_a_held_out_molecule(shared_data) -> None:
    from targets import held_out

    about = json.loads((Path(_extractor.__file__).parent / "weights" / "graph" / "card.json").read_text())
    left_out = sorted(held_out())
    assert about["corpus"]["left_out"] == len(left_out) > 5000
    assert about["corpus"]["left_out_sha256"] == hashlib.sha256("\n".join(left_out).encode()).hexdigest()


@pytest.mark.slow
def test_what_is_gathered_for_training_leaves_them_out(shared_data) -> None:
    from pretrain_extractor import gather
    from targets import held_out, targets

    corpus = gather(np.random.default_rng(0))
    assert len(set(corpus.smiles)) == len(corpus.smiles) > 50_000
    assert set(corpus.described) <= set(corpus.smiles)
    for structures in (corpus.smiles, *corpus.values.values()):
        assert held_out().isdisjoint(structures)
    # Nor under another spelling: RDKit's own canonical SMILES of both sides.
    sample = np.random.default_rng(1).permutation(corpus.smiles)[:5000]
    forbidden = {Chem.CanonSmiles(text) for target in targets().values() for text in target.smiles}
    assert forbidden.isdisjoint(Chem.CanonSmiles(text) for text in sample)
