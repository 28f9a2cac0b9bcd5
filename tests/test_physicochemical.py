"""Rings, aromaticity and physico-chemical descriptors on the device: equal to RDKit's, whatever the string."""

from __future__ import annotations

import csv
import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors

from bayesmat import chem, data, nn
from bayesmat._types import BayesmatError

_MORE = [("C", 1, 3), ("Te", 0, 2), ("As", 0, 3), ("Ge", 0, 4)]
ORGANIC = chem.Alphabet((*chem.Alphabet.organic().atoms, *(chem.AtomType(*atom) for atom in _MORE)))
POLYMER = chem.Alphabet.polymer(length=96)
BATCH = 512
TOLERANCE = {"molecular_weight": 0.01, "fraction_sp3": 1e-5, "polar_surface_area": 0.01} | dict.fromkeys(
    ("log_p", "molar_refractivity"), 0.01
)

HARD = {
    "benzene": "c1ccccc1",
    "naphthalene": "c1ccc2ccccc2c1",
    "azulene": "c1ccc2cccc2cc1",
    "pyracylene": "C1=Cc2ccc3c4c(ccc1c24)C=C3",
    "biphenylene": "c1ccc2c(c1)-c1ccccc12",
    "acepentalene-like": "C1=CC2=CC=C3C=CC1=C23",
    "[2.2.3]cyclazine": "c1cc2ccc3cccc1n23",
    "indolizine": "c1ccn2cccc2c1",
    "cyclobutadiene": "C1=CC=C1",
    "cyclooctatetraene": "C1=CC=CC=CC=C1",
    "[18]annulene": "C1=CC=CC=CC=CC=CC=CC=CC=CC=C1",
    "tropylium": "[CH+]1C=CC=CC=C1",
    "cyclopropenylium": "[CH+]1C=C1",
    "cyclopentadienide": "[CH-]1C=CC=C1",
    "tropone": "O=c1cccccc1",
    "tropolone": "O=c1cccccc1O",
    "pyridone": "O=c1cccc[nH]1",
    "quinone": "O=C1C=CC(=O)C=C1",
    "fulvene": "C=C1C=CC=C1",
    "fulvalene": "C1=CC(=C2C=CC=C2)C=C1",
    "dibenzofulvene": "C=C1c2ccccc2-c2ccccc12",
    "purine": "c1ncc2[nH]cnc2n1",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
    "porphyrin": "c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)[nH]5)n4)[nH]3",
    "18-crown with furans": "c1cc2ccc(o1)Cc1ccc(o1)C2",
    "macrocycle of ethers and alkenes": "O1C=COC=COC=COC=C1",
    "thieno macrocycle": "C1=CC=CSC=CC=CC=C1",
    "bridged thia annulene": "C1=CC=C2SC(=CC=C1)C=C2",
    "dithiaporphyrin": "c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)s5)n4)s3",
    "bridged oxa annulene": "C1=CC=C2C=CC(O2)=CC=CC=C1",
    "oxonin": "C1=CC=COC=CC=C1",
    "azonine": "C1=CC=CNC=CC=C1",
    "thiophene": "c1ccsc1",
    "thiophene S-oxide": "O=S1C=CC=C1",
    "thiophene S,S-dioxide": "O=S1(=O)C=CC=C1",
    "selenophene": "c1cc[se]c1",
    "benzoselenadiazole": "c1ccc2n[se]nc2c1",
    "tellurophene": "c1cc[te]c1",
    "arsole": "C1=C[AsH]C=C1",
    "arsenic and germanium": "C[As](C)C[GeH2]C",
    "thiopyrylium": "c1cc[s+]cc1",
    "pyrylium": "c1cc[o+]cc1",
    "phosphole": "C1=CPC=C1",
    "phosphinine": "c1ccpcc1",
    "borazine": "B1NBNBN1",
    "borepin": "B1C=CC=CC=C1",
    "silole": "C1=C[SiH2]C=C1",
    "pyridine N-oxide": "[O-][n+]1ccccc1",
    "pyridinium": "C[n+]1ccccc1",
    "imidazolium": "C[n+]1cc[nH]c1",
    "nitrobenzene": "O=[N+]([O-])c1ccccc1",
    "pyridinium ylide": "[CH2-][n+]1ccccc1",
    "sydnone": "[O-]c1c[n+](-c2ccccc2)no1",
    "tetrazole": "c1nnn[nH]1",
    "azide": "CN=[N+]=[N-]",
    "diazo": "C=[N+]=[N-]",
    "isocyanide": "C[N+]#[C-]",
    "aziridine": "C1CN1",
    "N-methylaziridine": "CN1CC1",
    "epoxide": "C1CO1",
    "bicyclobutane": "C1C2CC12",
    "tetrahedrane": "C12C3C1C23",
    "cubane": "C12C3C4C1C5C2C3C45",
    "norbornane": "C1CC2CCC1C2",
    "bicyclo[2.2.2]octane": "C1CC2CCC1CC2",
    "adamantane": "C1C2CC3CC1CC(C2)C3",
    "propellane": "C1CC23CCC2(C1)CC3",
    "spiro": "C1CCC2(CC1)CCCC2",
    "cucurbit-like cage": "C1N2CN3CN1CN(C2)C3",
    "paracyclophane": "C1Cc2ccc(cc2)CCc2ccc1cc2",
    "cyclododecane": "C1CCCCCCCCCCC1",
    "cyclooctyne": "C1CCCC#CCC1",
    "benzyne": "C1=CC#CC=C1",
    "cumulene ring": "C1=C=NC=N1",
    "coronene": "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61",
    "violanthrone": "O=C1c2ccccc2-c2ccc3c4ccc5c6c(ccc(c7ccc1c2c73)c64)-c1ccccc1C5=O",
    "indigo": "O=C1C(=C2Nc3ccccc3C2=O)Nc2ccccc21",
    "phenalenone": "O=C1C=Cc2cccc3cccc1c23",
    "carbazole": "c1ccc2c(c1)[nH]c1ccccc12",
    "phthalimide": "O=C1NC(=O)c2ccccc21",
    "strychnine": "O=C1CC2OCC=C3CN4CCC56C4CC3C2C6N1c1ccccc15",
    "urea, carbamate, oxalamide": "CCOC(=O)NCC(=O)NC(=O)C(=O)NC(N)=O",
    "hindered groups": "CC(C)(C)CC(C(F)(F)F)C(C)C(Cl)(Cl)Cl",
    "acids, esters, aldehydes": "O=CCC(=O)OC(=O)c1ccc(C=O)cc1C(=O)O",
    "carbonate ion and oximes": "[O-]C(=O)CC(C)=NOC(=O)C(=O)Cl",
    "sulfur": "CS(=O)CS(=O)(=O)NSSC(=S)NC=S",
    "sulfonium and thiolate": "C[S+](C)CC[S-]",
    "phosphorus": "COP(=O)(O)OCP(C)CP(=S)(N)N",
    "ammonium": "C[NH+](C)CC[NH3+]",
    "enamine, amidine, hydrazone": "NC(=N)N=C(N)NN=CC=CN",
    "halogens": "FC(Cl)(Br)c1c(F)c(Cl)c(Br)c(I)c1",
    "alkynes": "C#CC#CC(C#N)c1ccc(C#C)cc1",
    "peroxide": "OOCOO",
    "water": "O",
    "methane": "C",
    "hydrogen chloride": "Cl",
}


def _rows(tokens: jax.Array, alphabet: chem.Alphabet) -> tuple[jax.Array, nn.Aromaticity]:
    graph = chem.decode(tokens, alphabet)
    return nn.physicochemical(graph, alphabet), nn.aromaticity(graph, alphabet)


_compiled = {a: jax.jit(jax.vmap(lambda x, a=a: _rows(x, a))) for a in (ORGANIC, POLYMER)}


def ours(tokens: np.ndarray, alphabet: chem.Alphabet = ORGANIC) -> tuple[np.ndarray, nn.Aromaticity]:
    """Descriptors `(n, ·)` and aromaticity of n strings, in batches of one shape."""
    padded = np.concatenate([tokens, np.zeros((-len(tokens) % BATCH, alphabet.length), np.int32)])
    parts = [_compiled[alphabet](padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)]
    values, found = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(tokens)], *parts)
    assert np.isfinite(values).all()
    return values, found


def rdkit_row(molecule: Chem.Mol) -> list[float]:
    log_p, refractivity = rdMolDescriptors.CalcCrippenDescriptors(molecule)
    row = {
        "molecular_weight": Descriptors.MolWt(molecule),
        "heavy_atoms": molecule.GetNumHeavyAtoms(),
        "hydrogen_bond_donors": rdMolDescriptors.CalcNumHBD(molecule),
        "hydrogen_bond_acceptors": rdMolDescriptors.CalcNumHBA(molecule),
        "rotatable_bonds": rdMolDescriptors.CalcNumRotatableBonds(molecule),
        "rings": rdMolDescriptors.CalcNumRings(molecule),
        "aromatic_rings": rdMolDescriptors.CalcNumAromaticRings(molecule),
        "aromatic_atoms": sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()),
        "fraction_sp3": rdMolDescriptors.CalcFractionCSP3(molecule),
        "polar_surface_area": rdMolDescriptors.CalcTPSA(molecule),
        "log_p": log_p,
        "molar_refractivity": refractivity,
        "lipinski_donors": rdMolDescriptors.CalcNumLipinskiHBD(molecule),
        "lipinski_acceptors": rdMolDescriptors.CalcNumLipinskiHBA(molecule),
    }
    return [row[name] for name in nn.PHYSICOCHEMICAL_NAMES]


def differences(values: np.ndarray, smiles: list[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """What differs from RDKit: SMILES → descriptor → (ours, theirs)."""
    theirs = np.array([rdkit_row(Chem.MolFromSmiles(text)) for text in smiles])
    allowed = np.array([TOLERANCE.get(name, 0.0) for name in nn.PHYSICOCHEMICAL_NAMES])
    wrong = ~(np.abs(values - theirs) <= allowed)
    return {
        smiles[i]: {
            name: (float(values[i, j]), float(theirs[i, j]))
            for j, name in enumerate(nn.PHYSICOCHEMICAL_NAMES)
            if wrong[i, j]
        }
        for i in np.flatnonzero(wrong.any(1))
    }


def test_equal_to_rdkit_on_the_organic_corpus() -> None:
    corpus = data.corpus("organic").smiles[5::29]
    encoded = chem.encode(corpus, ORGANIC)
    values, found = ours(encoded.tokens)
    assert len(values) > 1800 and found.complete.mean() > 0.995
    kept = np.flatnonzero(found.complete)
    assert not differences(values[kept], [corpus[encoded.kept[i]] for i in kept])


def test_equal_to_rdkit_on_zinc(shared_data) -> None:
    with gzip.open(shared_data / "zinc250k.csv.gz", "rt", encoding="utf-8") as lines:
        smiles = [row["smiles"].strip() for row in csv.DictReader(lines)][7::125]
    encoded = chem.encode(smiles, ORGANIC)
    values, found = ours(encoded.tokens)
    assert len(values) > 1950 and found.complete.mean() > 0.999
    assert not differences(values, [smiles[i] for i in encoded.kept])


@pytest.mark.slow
def test_equal_to_rdkit_on_repeat_units(shared_data) -> None:
    with open(shared_data / "radonpy_pi1070.csv", encoding="utf-8") as lines:
        smiles = [row["smiles"] for row in csv.DictReader(lines)][::3]
    encoded = chem.encode(smiles, POLYMER)
    values, found = ours(encoded.tokens, POLYMER)
    assert len(values) > 250 and found.complete.all()
    assert not differences(values, [chem.to_smiles(row, POLYMER) for row in encoded.tokens])  # isotopes are stripped


def test_hard_cases_atom_by_atom() -> None:
    encoded = chem.encode(list(HARD.values()), ORGANIC)
    assert not encoded.refusals, encoded.refusals
    values, found = ours(encoded.tokens)
    texts = [chem.to_smiles(row, ORGANIC) for row in encoded.tokens]
    assert not differences(values, texts)
    assert not differences(values, list(HARD.values()))  # nor as written with aromatic symbols
    is_atom = ORGANIC.kind[encoded.tokens] == ORGANIC.kind[1]
    for name, text, row, aromatic in zip(HARD, texts, is_atom, found.atom, strict=True):
        expected = [atom.GetIsAromatic() for atom in Chem.MolFromSmiles(text).GetAtoms()]
        assert aromatic[row].tolist() == expected, name
    known = {"azulene": 10, "tropone": 7, "pyridone": 6, "quinone": 0, "thiophene S-oxide": 0, "cyclobutadiene": 0}
    names = list(HARD)
    assert {name: int(found.atom[names.index(name)].sum()) for name in known} == known


def test_rings_are_those_of_rdkit() -> None:
    encoded = chem.encode(list(HARD.values()), ORGANIC)
    _, found = ours(encoded.tokens)
    for index, name in enumerate(HARD):
        row = encoded.tokens[index]
        place = np.flatnonzero(ORGANIC.kind[row] == ORGANIC.kind[1])
        molecule = Chem.MolFromSmiles(chem.to_smiles(row, ORGANIC))
        expected = {frozenset(place[list(ring)].tolist()) for ring in molecule.GetRingInfo().AtomRings()}
        bits = np.unpackbits(found.rings.atoms[index].view(np.uint8), axis=-1, bitorder="little")
        listed = {frozenset(np.flatnonzero(ring).tolist()) for ring in bits} - {frozenset()}
        assert len(listed) == (found.rings.size[index] > 0).sum(), name  # none twice
        assert (listed == expected) | ~found.complete[index], name
        assert int(found.rings.num_rings[index]) == len(expected), name
    assert found.complete.sum() >= len(HARD) - 1  # violanthrone has nine fused cycles


def _ring_rich_strings(num: int) -> np.ndarray:
    """Random legal strings in which rings and multiple bonds are frequent, `(num, length)`."""
    weight = np.zeros(ORGANIC.num_tokens, np.float32)
    weight[ORGANIC.ring_open_token], weight[ORGANIC.first_ring_close_token :] = 1.5, 1.0
    weight[ORGANIC.bond_token(2)], weight[chem.END] = 2.0, -4.0
    for element, valence, value in (("C", 4, 3.0), ("N", 3, 1.5), ("O", 2, 1.5), ("S", 2, 1.5)):
        weight[ORGANIC.atom_token[chem.AtomType(element, 0, valence)]] = value

    def one(key: jax.Array) -> jax.Array:
        def step(state: chem.State, inputs: tuple) -> tuple[chem.State, jax.Array]:
            key, place = inputs
            # Short strings have fewer rings than the static sizes allow.
            logits = jnp.asarray(weight).at[chem.END].add(jnp.where(place > 28, 30.0, 0.0))
            token = jax.random.categorical(key, jnp.where(chem.legal(state, ORGANIC), logits, -jnp.inf))
            return chem.advance(state, token.astype(jnp.int32), ORGANIC), token.astype(jnp.int32)

        places = jnp.arange(ORGANIC.length)
        return jax.lax.scan(step, chem.start(ORGANIC), (jax.random.split(key, ORGANIC.length), places))[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), num)))


def test_equal_to_rdkit_on_random_strings_full_of_rings() -> None:
    tokens = _ring_rich_strings(4 * BATCH)
    values, found = ours(tokens)
    texts = [chem.to_smiles(row, ORGANIC) for row in tokens]
    charges = [[int(ORGANIC.charge[t]) for t in row if ORGANIC.kind[t] == ORGANIC.kind[1]] for row in tokens]
    as_written = [  # RDKit rewrites C=P=O as it reads it
        [atom.GetFormalCharge() for atom in Chem.MolFromSmiles(text).GetAtoms()] == charge
        for text, charge in zip(texts, charges, strict=True)
    ]
    kept = np.flatnonzero(found.complete & as_written & (found.rings.num_rings > 0))
    assert len(kept) > 600 and (found.rings.num_rings[kept] > 2).sum() > 200
    assert not differences(values[kept], [texts[i] for i in kept])


def test_invariant_to_root_and_kekule_form() -> None:
    cases = [*HARD.values(), *data.corpus("organic").smiles[11::97]]
    forms = [chem.encode(cases, ORGANIC, seed=seed) for seed in (None, 5, 6, 7)]
    shared = sorted(set.intersection(*(set(form.kept.tolist()) for form in forms)))
    reference, first = None, None
    for form in forms:
        values, found = ours(form.tokens[np.searchsorted(form.kept, shared)])
        reference, first = (values, found) if reference is None else (reference, first)
        np.testing.assert_allclose(values[first.complete], reference[first.complete], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(found.complete, first.complete)
    assert first.complete.sum() > 500


def test_beyond_the_static_sizes_is_said_and_finite() -> None:
    dodecahedrane = "C12C3C4C5C1C1C6C2C2C3C3C4C4C5C1C1C6C2C3C41"
    no_room = "C1CC1" + "C1CC1" * 13  # 14 ring bonds, where 80 tokens keep account of 13
    values, found = ours(chem.encode([dodecahedrane, no_room, "c1ccccc1"], ORGANIC).tokens)
    assert found.complete.tolist() == [False, False, True]
    rings = values[:, nn.PHYSICOCHEMICAL_NAMES.index("rings")]
    assert rings[0] in (11, 12) and rings[1] == 14 and rings[2] == 1


def test_nothing_is_nothing() -> None:
    values, found = ours(np.zeros((1, ORGANIC.length), np.int32))
    assert not values.any() and found.complete.all() and not found.atom.any()


def test_one_trace_per_shape_and_one_molecule_at_a_time() -> None:
    traces = 0

    @jax.jit
    def aromatic(tokens: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return jax.vmap(lambda x: nn.aromatic_atoms(chem.decode(x, small), small))(tokens)

    small = ORGANIC.with_length(24)
    for smiles in (["c1ccccc1", "CCO"], ["C1CC1", "c1ccoc1"]):
        flags = aromatic(chem.encode(smiles, small).tokens)
    assert traces == 1 and flags.sum(1).tolist() == [0, 5]
    batch = chem.decode(jnp.zeros(24, jnp.int32), small)
    with pytest.raises(BayesmatError, match=r"shape \(24,\) where one molecule of shape \(80,\)"):
        nn.rings(batch, ORGANIC)


@pytest.mark.slow
def test_unchanged_when_64_bit_types_are_enabled() -> None:
    small = ORGANIC.with_length(40)
    tokens = chem.encode(["Cn1c(=O)c2c(ncn2C)n(C)c1=O", "c1ccc2cccc2cc1"], small).tokens

    def work(x: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jit(jax.vmap(lambda r: nn.physicochemical(chem.decode(r, small), small)))(x))

    narrow = work(tokens)
    with jax.enable_x64(True):
        wide = work(tokens)
    assert wide.dtype == np.float32
    np.testing.assert_allclose(wide, narrow, rtol=1e-6)
