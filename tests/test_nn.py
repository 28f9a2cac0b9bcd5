"""Features: invariant to the string, sound against RDKit, named."""

from __future__ import annotations

import functools
from collections import Counter

import jax
import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from scipy.stats import spearmanr

from bayesmat import chem, data, nn

ORGANIC = chem.Alphabet.organic()
_featurize = jax.jit(jax.vmap(lambda x: nn.featurize(x, ORGANIC)))
environments = jax.jit(jax.vmap(lambda x: nn.environments(chem.decode(x, ORGANIC), ORGANIC, 3)))
CORPUS = data.corpus("organic").smiles[3::61]


def featurize(tokens: np.ndarray) -> nn.Features:
    """Features of n strings by a program of one shape, as its compilation takes longer than its work."""
    padded = np.zeros((len(CORPUS), ORGANIC.length), np.int32)
    padded[: len(tokens)] = tokens
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(tokens)], _featurize(padded))


def counts(values: np.ndarray) -> np.ndarray:
    return np.expm1(np.asarray(values, np.float64))


def test_features_are_invariant_to_root_and_kekule_form() -> None:
    forms = [chem.encode(CORPUS, ORGANIC, seed=seed) for seed in (None, 11, 22, 33)]
    shared = sorted(set.intersection(*(set(form.kept.tolist()) for form in forms)))
    reference = None
    for form in forms:
        rows = form.tokens[np.searchsorted(form.kept, shared)]
        features = featurize(rows)
        reference = reference or features
        np.testing.assert_array_equal(features.fingerprint, reference.fingerprint)
        np.testing.assert_allclose(features.descriptors, reference.descriptors, rtol=1e-6)
    assert len(shared) > 500


def in_narrow_arrays(smiles, alphabet, names) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of strings that fill less than half of their arrays, from whole and from half arrays."""
    tokens = chem.encode(smiles, alphabet).tokens
    half = alphabet.length // 2
    tokens = tokens[~tokens[:, half:].any(axis=1)][:200]
    assert len(tokens) > 10

    @functools.partial(jax.jit, static_argnums=1)
    def asked(tokens, alphabet):
        features = jax.vmap(lambda x: nn.featurize(x, alphabet))(tokens)
        return [getattr(features, name) for name in names]

    return asked(tokens, alphabet), asked(tokens[:, :half], alphabet.with_length(half))


def test_short_strings_have_the_same_features_in_arrays_of_half_the_length() -> None:
    """Screening relies on it: what follows the end of a string says nothing."""
    whole, narrow = in_narrow_arrays(CORPUS, ORGANIC, ("fingerprint", "descriptors"))
    np.testing.assert_array_equal(narrow[0], whole[0])
    np.testing.assert_allclose(narrow[1], whole[1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("polymer", [False, True])
def test_what_is_learned_is_the_same_in_arrays_of_half_the_length(polymer) -> None:
    smiles = [f"*{text}*" for text in ("CC", "CCO", "c1ccc(cc1)", "CC(C)O", "C(F)(F)C", "CCCCCC", "CC(=O)N")] * 2
    alphabet = chem.Alphabet.polymer() if polymer else ORGANIC
    for narrow, whole in zip(
        *in_narrow_arrays(smiles if polymer else CORPUS, alphabet, nn.Features._fields), strict=True
    ):
        np.testing.assert_allclose(narrow, whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


def test_descriptors_agree_with_rdkit() -> None:
    encoded = chem.encode(CORPUS, ORGANIC)
    values = counts(featurize(encoded.tokens).descriptors)
    column = {name: values[:, i] for i, name in enumerate(nn.DESCRIPTOR_NAMES)}
    assert values.shape[1] == len(nn.DESCRIPTOR_NAMES)
    molecules = [Chem.MolFromSmiles(CORPUS[i]) for i in encoded.kept]
    theirs = {
        "heavy_atoms": [m.GetNumHeavyAtoms() for m in molecules],
        "mass": [Descriptors.MolWt(m) for m in molecules],
        "rings": [m.GetNumBonds() - m.GetNumAtoms() + 1 for m in molecules],
        "atoms_7": [sum(a.GetAtomicNum() == 7 for a in m.GetAtoms()) for m in molecules],
        "hydrogens": [sum(a.GetTotalNumHs() for a in m.GetAtoms()) for m in molecules],
        "ring_atoms": [sum(a.IsInRing() for a in m.GetAtoms()) for m in molecules],
        "cations": [sum(a.GetFormalCharge() > 0 for a in m.GetAtoms()) for m in molecules],
    }
    for name, expected in theirs.items():
        np.testing.assert_allclose(column[name], expected, rtol=2e-4, atol=2e-3, err_msg=name)


def test_fingerprint_ranks_pairs_as_morgan_counts_do() -> None:
    encoded = chem.encode(CORPUS, ORGANIC)
    ours = np.rint(counts(featurize(encoded.tokens).fingerprint))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=4096)
    theirs = np.stack([
        generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(CORPUS[i])).astype(float) for i in encoded.kept
    ])  # fmt: skip
    a, b = np.random.default_rng(0).integers(0, len(ours), (2, 3000))

    def tanimoto(x: np.ndarray) -> np.ndarray:
        low = np.minimum(x[a], x[b]).sum(1)
        return low / (x[a].sum(1) + x[b].sum(1) - low)

    assert spearmanr(tanimoto(ours), tanimoto(theirs)).statistic > 0.97


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
def test_unfolded_counts_rank_pairs_as_morgan_counts_do(radius) -> None:
    encoded = chem.encode(CORPUS, ORGANIC)
    molecules = [Chem.MolFromSmiles(CORPUS[i]) for i in encoded.kept]
    hashes = np.asarray(environments(encoded.tokens))
    ours = [Counter((r, h) for r in range(radius + 1) for h in row[r].tolist() if h) for row in hashes]
    pairs = np.random.default_rng(0).integers(0, len(molecules), (4_000, 2))
    common = [sum((ours[i] & ours[j]).values()) for i, j in pairs]
    either = [sum((ours[i] | ours[j]).values()) for i, j in pairs]
    for redundant, least in ((False, 0.99), (True, 0.998)):  # RDKit leaves out what covers the same bonds
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, includeRedundantEnvironments=redundant)
        prints = [generator.GetSparseCountFingerprint(molecule) for molecule in molecules]
        theirs = [DataStructs.TanimotoSimilarity(prints[i], prints[j]) for i, j in pairs]
        assert spearmanr(np.divide(common, either), theirs).statistic > least


def test_padding_has_no_features() -> None:
    empty = featurize(np.zeros((1, ORGANIC.length), np.int32))
    assert not empty.fingerprint.any() and not empty.descriptors.any() and not empty.physical.any()
    assert np.isfinite(empty.learned).all() and np.isfinite(empty.properties).all()


@pytest.mark.slow
def test_features_do_not_change_when_64_bit_types_are_enabled() -> None:
    tokens = chem.encode(CORPUS[:20], ORGANIC).tokens
    narrow = featurize(tokens)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda x: nn.featurize(x, ORGANIC)))(tokens))
    np.testing.assert_allclose(wide.fingerprint, narrow.fingerprint, rtol=1e-6)
    np.testing.assert_allclose(wide.descriptors, narrow.descriptors, rtol=1e-5)
    for name in ("physical", "learned", "properties"):
        found, expected = getattr(wide, name), getattr(narrow, name)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max(), err_msg=name)
