"""The applicability score: a valid p-value by counting, uniform on real molecules, small off the domain."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bayesmat import data
from bayesmat._types import BayesmatError
from bayesmat.chem import Alphabet, canonical, encode
from bayesmat.forward import _applicability
from bayesmat.forward._applicability import Applicability, p_value
from bayesmat.forward._fitted import compute_features

ALPHABET = Alphabet.organic()
KEY = jax.random.key(0)
TAILS = ("CO", "CCO", "C(C)O", "C(O)C", "CC(C)O", "C(C)CO", "CCCO", "C(C)(C)O", "C(C)C(C)O", "C(CC)O")
ALCOHOLS = sorted({canonical("C" * length + tail) for length in range(1, 8) for tail in TAILS})

score = eqx.filter_jit(lambda applicability, features, log_variance: applicability(features, log_variance))


def features_of(smiles, seed=None):
    encoded = encode(smiles, ALPHABET, seed)
    assert not encoded.refusals
    return compute_features(encoded.tokens, ALPHABET)


def part(features, rows):
    return jax.tree.map(lambda array: array[rows], features)


@pytest.fixture(scope="module")
def alcohols():
    log_variance = np.random.default_rng(0).normal(size=len(ALCOHOLS))
    return ALCOHOLS, log_variance, Applicability.from_training(features_of(ALCOHOLS), log_variance, KEY)


def test_p_value_is_exact_by_counting():
    """Each of n + 1 points in the place of the new one: at most a share t of them has a p-value up to t."""
    rng = np.random.default_rng(1)
    for trial in range(3):
        measures = rng.normal(size=(41, 3)) @ rng.normal(size=(3, 3))
        measures[:, 2] = np.round(measures[:, 2], trial)  # with ties
        measures = measures.astype(np.float32)
        counts = np.array([[sum(m[a] >= point[a] for m in measures) - 1 for a in range(3)] for point in measures])
        usual = [(row.min(), row.sum()) for row in counts]
        p = np.array([np.mean([other <= mine for other in usual]) for mine in usual])
        for i in range(41):
            others = jnp.asarray(np.delete(measures, i, 0), jnp.float32)
            rank = (others[:, None] <= others).sum(1)
            found = p_value(others, rank, jnp.asarray(measures[i], jnp.float32))
            assert float(found) == pytest.approx(p[i], abs=1e-6)
        assert all(np.mean(p <= t) <= t for t in np.arange(1, 42) / 41)


def test_measures_against_their_definition(alcohols):
    smiles, log_variance, applicability = alcohols
    features = features_of(smiles)
    counts = np.expm1(features.fingerprint.astype(np.float64))
    logs = np.log1p(np.round(counts)).reshape(len(counts), 8, -1).sum(1)
    product = logs @ logs.T
    size = np.diag(product)
    similarity = product / (size[:, None] + size - product)
    z = features.descriptors.astype(np.float64)
    z = (z - z.mean(0)) / np.maximum(z.std(0), 0.1)
    distance = np.sqrt(((z[:, None] - z) ** 2).sum(-1))
    np.fill_diagonal(similarity, -np.inf)
    np.fill_diagonal(distance, np.inf)
    nearest = np.sort(distance, axis=1)[:, :3].mean(1)
    expected = np.stack([1 - similarity.max(1), nearest, log_variance], axis=1)
    expected[((similarity > 1 - 1e-5) & (distance < 1e-5)).any(1)] = -np.inf  # isomers that the features take for one
    np.testing.assert_allclose(applicability.unusual, expected, atol=2e-4)


def test_uniform_on_molecules_drawn_like_the_training_ones():
    """Boiling points at random, with the variance of a linear model: the score of the others is uniform."""
    table = data.load("boiling_point").organic()
    chosen = np.random.default_rng(2).permutation(len(table))[:2400]
    encoded = encode([table.smiles[row] for row in chosen], ALPHABET)
    features = compute_features(encoded.tokens, ALPHABET)
    train, test = np.arange(1200), np.arange(1200, len(encoded.kept))
    x = np.asarray(features.descriptors, np.float64)
    x = np.column_stack([np.ones(len(x)), (x - x[train].mean(0)) / np.maximum(x[train].std(0), 0.1)])
    variance = np.einsum("nd,de,ne->n", x, np.linalg.inv(x[train].T @ x[train] + np.eye(x.shape[1])), x)
    left_out = np.log(variance[train] / (1 - variance[train]))  # Sherman and Morrison
    applicability = Applicability.from_training(part(features, train), left_out, KEY)
    found = np.asarray(score(applicability, part(features, test), jnp.asarray(np.log(variance[test]), jnp.float32)))
    # Both samples are finite: the distance is that of two samples, 1.95 is its 0.1 % level.
    references = len(applicability.unusual)
    assert references == _applicability.MAX_REFERENCES < len(train)
    variation = 1 / references + 1 / len(test)
    limit = 1.95 * np.sqrt(variation)
    assert scipy.stats.kstest(found, "uniform").statistic < limit
    assert np.mean(found < 0.1) == pytest.approx(0.1, abs=3.3 * np.sqrt(0.09 * variation))
    again = np.asarray(score(applicability, part(features, train), jnp.asarray(np.log(variance[train]), jnp.float32)))
    assert (again == 1.0).sum() >= references  # the references themselves
    for column in range(3):  # none of the measures is the only one that counts
        alone = applicability.unusual[:, column]
        assert 0.2 < abs(scipy.stats.spearmanr(found_rank(applicability), alone).statistic) < 0.98


def found_rank(applicability):
    return np.asarray((applicability.rank - 1).min(1))


def test_off_the_domain(alcohols):
    smiles, log_variance, applicability = alcohols
    middle = jnp.full(4, np.median(log_variance), jnp.float32)
    strange = ["F" + "C(F)(F)" * 6 + "F", "c1ccc2ccccc2c1", "C[Si](C)(C)O[Si](C)(C)C", "N#CC#N"]
    lowest = 1 / (len(smiles) + 1)
    np.testing.assert_allclose(score(applicability, features_of(strange), middle), lowest, rtol=1e-5)
    like = ["CCCCCC(CC)CO", "CCCC(CC)CO", "CCC(C)CCO", "CCCCC(C)CCO"]
    assert np.asarray(score(applicability, features_of(like), middle)).min() > 0.1


def test_one_extreme_measure_is_enough(alcohols):
    smiles, log_variance, applicability = alcohols
    usual = features_of(["CCCC(CC)CCO", "CCCCC(CC)CO", "CCCCC(C)CCO", "CCCC(CC)CO"])
    lowest = 3.01 / (len(smiles) + 1)  # those that are the most unusual by another measure are as extreme
    middle = jnp.full(4, np.median(log_variance), jnp.float32)
    plain = np.asarray(score(applicability, usual, middle))
    uncertain = np.asarray(score(applicability, usual, middle + 20))
    foreign = usual._replace(descriptors=usual.descriptors + np.float32(4))
    unseen = usual._replace(fingerprint=np.roll(usual.fingerprint, 31, axis=1))
    assert (plain > 0.1).all() and uncertain.max() < lowest
    assert np.max(score(applicability, foreign, middle)) < lowest
    assert np.max(score(applicability, unseen, middle)) < lowest


def test_duplicates_score_high_and_strings_do_not_matter(alcohols):
    smiles, log_variance, applicability = alcohols
    doubtful = jnp.full(len(smiles), log_variance.max() + 1, jnp.float32)
    np.testing.assert_allclose(score(applicability, features_of(smiles), doubtful), 1.0)
    rings = ["Cc1ccccc1O", "c1ccc2ncccc2c1", "Cc1c[nH]cn1", "O=C1C=CC(=O)C=C1", "c1ccc2c(c1)Cc1ccccc1-2"]
    some = jnp.zeros(len(rings), jnp.float32)
    on_rings = Applicability.from_training(features_of(rings * 3, seed=5), np.zeros(15), KEY)
    for seed in (1, 2, 3):
        again = score(on_rings, features_of(rings, seed), some)
        np.testing.assert_array_equal(again, score(on_rings, features_of(rings), some))
    np.testing.assert_allclose(again, 1.0)


def test_references_maps_and_storing(alcohols, tmp_path, monkeypatch):
    smiles, log_variance, applicability = alcohols
    features = features_of(smiles)
    np.savez(tmp_path / "a.npz", **applicability.arrays())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        again = Applicability.from_arrays(dict(stored))
    assert jax.tree.structure(again) == jax.tree.structure(applicability)
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(applicability), strict=True)
    )
    whole = score(applicability, features, jnp.zeros(len(smiles)))
    one = jax.jit(jax.vmap(lambda single: applicability(single, jnp.zeros(()))))
    np.testing.assert_array_equal(one(features), whole)
    monkeypatch.setattr(_applicability, "MAX_REFERENCES", 20)
    few, same, other = (Applicability.from_training(features, log_variance, jax.random.key(k)) for k in (0, 0, 1))
    assert len(few.unusual) == 20 and np.array_equal(few.unusual, same.unusual)
    assert not np.array_equal(few.unusual, other.unusual)
    np.testing.assert_array_equal(few.descriptor_mean, applicability.descriptor_mean)
    with pytest.raises(BayesmatError, match="5 molecules or more"):
        Applicability.from_training(part(features, slice(4)), log_variance[:4], KEY)
    with pytest.raises(BayesmatError, match="a log variance for each"):
        Applicability.from_training(features, log_variance[:-1], KEY)
