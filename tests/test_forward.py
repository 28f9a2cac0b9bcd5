"""Closed forms against brute force, the mixture against SciPy, and fits of real tables."""

from __future__ import annotations

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, strategies as st

from bayesmat import data, forward, infer
from bayesmat._types import BayesmatError
from bayesmat.chem import Alphabet, encode
from bayesmat.forward import Predictive, _design, _fit, _network, _posterior
from bayesmat.forward._fitted import compute_features
from bayesmat.nn import DESCRIPTOR_NAMES, FINGERPRINT_BINS, Features

ALPHABET = Alphabet.organic()
KEY = jax.random.key(0)


# The mixture


def mixture(log=False, seed=0, k=8, batch=()):
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(0.0, 1.0, (*batch, k)), np.exp(rng.normal(-0.5, 0.4, (*batch, k)))
    return Predictive(jnp.asarray(loc, jnp.float32), jnp.asarray(scale, jnp.float32), log)


def exact_log_interval(p, lower, upper):
    """In float64, from whichever tail is the smaller."""
    loc, scale = np.asarray(p.loc, float), np.asarray(p.scale, float)
    if np.isinf(lower) and np.isinf(upper):
        return 0.0
    a, b = (lower - loc) / scale, (upper - loc) / scale
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
    log_b, log_a = scipy.special.log_ndtr(b), scipy.special.log_ndtr(a)
    each = log_b + np.log(-np.expm1(np.minimum(log_a - log_b, -1e-300)))
    return scipy.special.logsumexp(each, axis=-1) - np.log(loc.shape[-1])


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-1.0, 1.0), (0.3, 0.31), (4.0, 5.0), (-np.inf, -3.0), (6.0, np.inf), (-np.inf, 7.0), (-np.inf, np.inf),
     (60.0, 61.0), (-201.0, -200.0), (150.0, 150.01), (200.0, np.inf), (-np.inf, -400.0), (-30.0, 30.0), (1e4, 2e4)],
)  # fmt: skip
def test_log_prob_interval_against_float64(lower, upper):
    p = mixture()
    expected = exact_log_interval(p, lower, upper)
    found = float(p.log_prob_interval(lower, upper))
    assert found == pytest.approx(expected, rel=2e-4, abs=2e-6)
    gradient = jax.grad(lambda p: p.log_prob_interval(lower, upper))(p)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@given(st.floats(-30, 30), st.floats(1e-4, 40), st.integers(0, 20))
def test_log_prob_interval_over_widths(lower, width, seed):
    p = mixture(seed=seed)
    low, high = np.float32(lower), np.float32(lower + width)
    if high > low:
        assert float(p.log_prob_interval(low, high)) == pytest.approx(
            exact_log_interval(p, float(low), float(high)), rel=1e-3, abs=1e-3
        )


def test_impossible_intervals():
    for p in (mixture(), mixture(log=True)):
        for lower, upper in ((2.0, 1.0), (1.0, 1.0), (np.inf, np.inf), (-np.inf, -np.inf), (np.inf, -np.inf)):
            assert float(p.log_prob_interval(lower, upper)) == -np.inf
            gradient = jax.grad(lambda p: p.log_prob_interval(lower, upper))(p)  # noqa: B023
            assert not np.isnan(gradient.loc).any()
    assert float(mixture(log=True).log_prob_interval(-2.0, -1.0)) == -np.inf
    p = mixture(log=True)
    np.testing.assert_allclose(p.log_prob_interval(-5.0, 2.0), p.log_prob_interval(-np.inf, 2.0))
    far = Predictive(jnp.full(4, 1e9), jnp.full(4, 1e-3), log=False)
    assert np.isfinite(far.log_prob_interval(0.0, 1.0)) and np.isfinite(far.log_prob_interval(-np.inf, 1.0))


def test_far_candidates_keep_their_order():
    p = Predictive(jnp.linspace(0.0, 300.0, 61)[:, None] + jnp.zeros(4), jnp.ones((61, 4)), log=False)
    assert (np.diff(p.log_prob_interval(500.0, 510.0)) > 0).all()


@pytest.mark.parametrize("log", [False, True])
def test_density_integrates_to_the_distribution_function(log):
    p = mixture(log=log)
    y = np.linspace(*np.asarray([p.quantile(0.2), p.quantile(0.7)]), 2001)
    density = np.exp(jax.vmap(p.log_prob)(jnp.asarray(y, jnp.float32)))
    np.testing.assert_allclose(np.trapezoid(density, y), 0.5, atol=1e-4)
    lower, upper = float(y[0]), float(y[-1])
    np.testing.assert_allclose(np.exp(p.log_prob_interval(lower, upper)), 0.5, atol=1e-5)
    assert float(mixture(log=True).log_prob(-1.0)) == -np.inf


@given(st.floats(0.001, 0.999), st.integers(0, 50), st.booleans())
def test_quantile_is_the_inverse_of_cdf(q, seed, log):
    p = mixture(log, seed)
    assert float(p.cdf(p.quantile(q))) == pytest.approx(q, abs=1e-4)


def test_moments_and_samples():
    one = Predictive(jnp.full(16, 3.0), jnp.full(16, 0.7), log=False)
    assert float(one.mean()) == pytest.approx(3.0) and float(one.sd()) == pytest.approx(0.7, rel=1e-4)
    assert float(replace(one, log=True).median()) == pytest.approx(np.exp(3.0), rel=1e-4)
    for log in (False, True):
        p = mixture(log)
        draws = np.asarray(jax.vmap(p.sample)(jax.random.split(KEY, 4000)))
        assert scipy.stats.kstest(draws, lambda y, p=p: np.asarray(jax.vmap(p.cdf)(jnp.asarray(y)))).pvalue > 0.01


def test_predictive_is_a_pytree_in_batches_and_models():
    p = mixture(batch=(5, 3))
    whole = p.log_prob_interval(0.0, 1.0)
    each = jax.jit(jax.vmap(jax.vmap(lambda one: one.log_prob_interval(0.0, 1.0))))(p)
    np.testing.assert_allclose(whole, each, rtol=1e-5)
    assert p.sample(KEY).shape == p.quantile(0.3).shape == p.sd().shape == (5, 3)

    def model():
        y = numpyro.deterministic("y", p)
        numpyro.factor("target", y.log_prob_interval(0.0, 1.0).sum())

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, KEY)).get_trace()
    assert trace["y"]["value"].loc.shape == (5, 3, 8)


# The linear model


def regression(n=25, sizes=(3, 4), seed=0):
    rng = np.random.default_rng(seed)
    matrix = np.column_stack([np.ones(n), rng.normal(size=(n, sum(sizes)))])
    groups = np.array([np.repeat(np.arange(-1, len(sizes)), [1, *sizes]) == g for g in range(len(sizes))], float)
    y = matrix @ rng.normal(size=matrix.shape[1]) + 0.5 * rng.normal(size=n)
    return matrix, y, groups


def covariance(matrix, groups, scale, sigma):
    prior = groups.T @ scale**2 + (1 - groups.sum(0))
    return (matrix * prior) @ matrix.T + sigma**2 * np.eye(len(matrix))


@pytest.mark.parametrize("n", [4, 25, 80])  # fewer rows than columns, and more
def test_log_marginal_and_its_gradient(n):
    matrix, y, groups = regression(n)
    scale, sigma = np.array([0.7, 1.3]), 0.4
    with jax.enable_x64(True):
        stats = jax.tree.map(jnp.asarray, _posterior.sufficient(matrix, y, groups))
        value = lambda s: forward.log_marginal(s[:2], s[2], stats)  # noqa: E731
        at = jnp.array([*scale, sigma])
        found, gradient = jax.value_and_grad(value)(at)
        differences = [(value(at + d) - value(at - d)) / 2e-6 for d in 1e-6 * jnp.eye(3)]
    cov = covariance(matrix, groups, scale, sigma)
    np.testing.assert_allclose(found, scipy.stats.multivariate_normal(np.zeros(n), cov).logpdf(y), rtol=1e-10)
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)


def test_weights_and_leave_one_out_are_exact():
    matrix, y, groups = regression()
    scale, sigma = np.array([0.7, 1.3]), 0.4
    stats = _posterior.sufficient(matrix, y, groups)
    w = _posterior.draw(matrix, y, stats, scale[None], np.array([sigma]), 20000, np.random.default_rng(0))
    prior = groups.T @ scale**2 + (1 - groups.sum(0))
    cov = np.linalg.inv(matrix.T @ matrix / sigma**2 + np.diag(1 / prior))
    np.testing.assert_allclose(w.draws.mean(0), cov @ matrix.T @ y / sigma**2, rtol=1e-9)
    np.testing.assert_allclose(np.cov(w.draws.T), cov, atol=5 * cov.max() / np.sqrt(10000))
    for row in range(len(y)):
        rest = np.delete(np.arange(len(y)), row)
        rest_stats = _posterior.sufficient(matrix[rest], y[rest], groups)
        mean, factor = _posterior.given(rest_stats, scale, sigma)
        np.testing.assert_allclose(w.loo_mean[row], matrix[row] @ mean, rtol=1e-9)
        np.testing.assert_allclose(w.loo_variance[row], (np.linalg.solve(factor, matrix[row]) ** 2).sum(), rtol=1e-9)


def test_scales_by_laplace_are_those_of_the_posterior():
    matrix, y, groups = regression(200, (10, 10))
    matrix[:, 1:] /= np.sqrt(10)
    stats = _posterior.sufficient(matrix, y / y.std(), groups)
    near = infer.laplace(forward.linear_model, {"stats": stats}, KEY)
    weighted = infer.laplace(forward.linear_model, {"stats": stats}, KEY, num_proposals=4000, num_draws=2000)
    assert weighted.attrs["effective_draws"] > 1000
    for name in ("scale", "sigma"):
        a, b = (np.log(idata.posterior[name].values[0]) for idata in (near, weighted))
        np.testing.assert_allclose(a.mean(0), b.mean(0), atol=0.3 * b.std(0).max())
        np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.25)


def test_predictive_is_student():
    """Infinitely many draws of a function with variance v: the mixture is t_nu(m, e^a sqrt(v + s2))."""
    k, nu, v, s, a = 4096, 3.0, 2.0, 0.8, -0.3
    mixing = scipy.stats.gamma.ppf((np.arange(k) + 0.5) / k, nu / 2, scale=2 / nu) ** -0.5
    ones = jnp.ones(k)
    basis = forward.Basis(*[jnp.zeros(0)] * 3, jnp.zeros((0, 0)), jnp.zeros(0), gamma=1.0)
    predictor = forward.LinearPredictor(
        linear=forward.Linear(basis, ones[:, None]), noise_scale=s * ones, noise_log_stretch=a * ones,
        noise_slope=0 * ones, noise_mixing=jnp.asarray(mixing, jnp.float32), novelty_mean=jnp.zeros(()),
        novelty_scale=jnp.ones(()), alphabet=ALPHABET, log=False, name="", label="", unit="K",
    )  # fmt: skip
    p = _fit.leave_one_out_predictive(predictor, np.array([5.0]), np.array([v]))
    t = scipy.stats.t(nu, 5.0, np.exp(a) * np.sqrt(v + s**2))
    for q in (0.01, 0.05, 0.25, 0.5, 0.9, 0.99):
        assert float(p.cdf(t.ppf(q))[0]) == pytest.approx(q, abs=0.004)
    assert float(p.mean()[0]) == pytest.approx(5.0, abs=1e-4)


# Fits of measured tables


@pytest.fixture(scope="module")
def boiling():
    return data.load("boiling_point")


def rows(table, n, seed=0):
    return table.subset(np.random.default_rng(seed).permutation(len(table))[:n])


def fit(table, **options):
    return forward.fit(table, **({"key": KEY, "cache": False, "progress": False} | options))


NUM, NUM_SHARED = 40, 10
"""Rows of the small fits, as many as in test_process.py, whose compiled programs serve here too; and how many of
them the source and the dependent model have in common."""


@pytest.fixture(scope="module")
def small(boiling):
    """Boiling points, two of them of molecules that the alphabet cannot say, and thermal conductivities."""
    conducting = data.load("thermal_conductivity").organic()
    conducting = conducting.subset(encode(conducting.smiles, ALPHABET).kept)
    conducting = rows(conducting, NUM)
    row = {text: index for index, text in enumerate(boiling.smiles)}
    shared = [row[text] for text in conducting.smiles if text in row][:NUM_SHARED]
    others = rows(boiling, 1000, 4)
    encoded = encode(others.smiles, ALPHABET)
    new = [row[others.smiles[k]] for k in encoded.kept if others.smiles[k] not in conducting.smiles]
    refused = [row[refusal.smiles] for refusal in encoded.refusals[:2]]
    return boiling.subset(np.array([*refused, *shared, *new[: NUM - NUM_SHARED]])), conducting


@pytest.fixture(scope="module")
def source(small):
    return fit(small[0])


@pytest.fixture(scope="module")
def conductivity(small, source):
    return fit(small[1], sources=[source])


@pytest.fixture(scope="module")
def as_if_abundant():
    """The model of large tables, at a size for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_design, "ABUNDANT", 300)
        patch.setattr(_design, "NUM_LANDMARKS", 64)
        yield


@pytest.fixture(scope="module")
def abundant(boiling, as_if_abundant):
    return fit(rows(boiling, 450, 1))


def test_a_fit_accounts_for_its_rows(small, source, abundant):
    table = small[0]
    assert len(source.smiles) == NUM and len(source.set_aside) == len(table) - NUM == 2
    assert set(source.smiles) | {r.smiles for r in source.set_aside} == set(table.smiles)
    posterior = abundant.idata.posterior
    assert {"scale", "sigma", "noise_log_stretch", "noise_slope", "noise_dof", "weights"} <= set(posterior)
    assert posterior["weights"].shape == (1, 64, 1 + len(DESCRIPTOR_NAMES) + sum(FINGERPRINT_BINS) + 64 + 1)
    assert np.isfinite(posterior["weights"].sel(column="descriptor:mass")).all()
    for fitted in (source, abundant):
        np.testing.assert_array_equal(fitted.idata.observed_data["y"], fitted.y)
        assert not fitted.predictor.log and "leave-one-out" in fitted.summary()
    assert "linear in y" in abundant.summary() and "set aside: 2" in source.summary()


def test_leave_one_out_calibration(source, abundant, conductivity):
    for fitted in (source, abundant, conductivity):
        found = fitted.calibration
        assert found.num_points == len(fitted.smiles)
        assert abs(found.coverage[0.9] - 0.9) < 3 * found.coverage_error(0.9)
        assert found.rmse < 0.8 * fitted.y.std()


def test_refits_judge_the_same_fit(small, source, tmp_path):
    again = fit(small[0], refits=3)
    assert same(again.predictor, source.predictor)
    assert again.calibration.kind == "cross-validation" and "cross-validation, 40 points" in again.summary()
    found, leave_one_out = again.calibration, source.calibration
    assert np.corrcoef(found.mean, leave_one_out.mean)[0, 1] > 0.9 and not np.allclose(found.mean, leave_one_out.mean)
    assert 0.8 < found.rmse / leave_one_out.rmse < 2.0
    assert again.interval_ends(0.9, "conformal") != source.interval_ends(0.9, "conformal")
    assert forward.load(forward.save(again, tmp_path / "fit")).calibration.kind == "cross-validation"


@pytest.mark.slow
def test_predictor_agrees_with_the_exact_posterior(boiling, abundant, as_if_abundant):
    """Finite draws and float32: the predictive of new molecules against its closed form."""
    many = fit(rows(boiling, 450, 1), num_draws=512)
    new = boiling.subset(~np.isin(boiling.smiles, rows(boiling, 450, 1).smiles)).subset(np.arange(0, 8000, 8))
    features = compute_features(encode(new.smiles, ALPHABET).tokens, ALPHABET)
    few, exact = (f.predict_features(features) for f in (abundant, many))
    width = np.asarray(exact.sd())
    assert np.median(np.abs(few.mean() - exact.mean()) / width) < 0.05
    np.testing.assert_allclose(np.median(np.asarray(few.sd()) / width), 1.0, atol=0.06)
    coverages = [f.evaluate(new).coverage[0.9] for f in (abundant, many)]
    assert abs(coverages[0] - coverages[1]) < 0.015
    assert abs(coverages[0] - 0.9) < 0.04
    with pytest.raises(BayesmatError, match="1 molecules were trained on"):
        abundant.evaluate(boiling.subset([boiling.smiles.index(abundant.smiles[0]), 3]))


def test_an_environment_never_seen_widens_the_prediction(abundant):
    known = np.asarray(abundant.predictor.linear.basis.fingerprint_mean) > 0
    weights = np.asarray(abundant.predictor.linear.weights)
    first = weights.shape[1] - 1 - 64 - len(known)
    bins = weights[:, first : first + len(known)]
    np.testing.assert_allclose(bins[:, ~known].mean(0), 0.0, atol=1e-3 * bins.std())
    assert bins[:, ~known].std() > 0.5 * bins[:, known].std()


def test_what_a_network_says_unseen_is_unseen(boiling):
    """Another value of one row changes nothing of what is said about its fold, and something about all other rows."""
    table = boiling.subset(encode(boiling.smiles[:260], ALPHABET).kept)
    features = compute_features(encode(table.smiles, ALPHABET).tokens, ALPHABET)
    y = (table.y - table.y.mean()) / table.y.std()
    z = (features.descriptors - features.descriptors.mean(0)) / np.maximum(features.descriptors.std(0), 0.1)
    network, before = _network.learn(features.fingerprint, z, y, np.random.default_rng(3))
    changed = np.where(np.arange(len(y)) == 7, y + 3.0, y)
    _, after = _network.learn(features.fingerprint, z, changed, np.random.default_rng(3))
    fold = np.random.default_rng(3).permutation(len(y)) % _network.FOLDS
    np.testing.assert_array_equal(before[fold == fold[7]], after[fold == fold[7]])
    assert (before != after)[fold != fold[7]].mean() > 0.99
    assert np.sqrt(np.mean((before - y) ** 2)) < 0.8
    seen = np.asarray(_network.says(network, features.fingerprint, z))
    assert np.sqrt(np.mean((seen - y) ** 2)) < 0.8 * np.sqrt(np.mean((before - y) ** 2))


def test_an_abundant_model_is_averaged_with_its_network(boiling, abundant):
    """Every draw has the network's share, and columns times weights are what the predictor says."""
    linear = abundant.predictor.linear
    features = compute_features(encode(boiling.smiles[:50], ALPHABET).tokens, ALPHABET)
    columns, weights = np.asarray(linear.basis(features), float), np.asarray(linear.weights, float)
    share = abundant.idata.constant_data["network_share"].values.item()
    assert 0.0 < share < 1.0
    width = abundant.y.std()
    np.testing.assert_allclose(weights[:, -1], share * width, rtol=1e-5)
    np.testing.assert_allclose(linear(features), columns @ weights.T, atol=2e-3 * width)


def test_batches_maps_and_compilations(abundant):
    smiles = ["CCO", "c1ccccc1", "CCCCCC", "OCCO"]
    features = Features(*map(jnp.asarray, compute_features(encode(smiles, ALPHABET).tokens, ALPHABET)))
    predictor, traces = abundant.predictor, []

    @eqx.filter_jit
    def run(predictor, features):
        traces.append(features.learned.shape)
        return jax.vmap(predictor)(features)

    mapped = run(predictor, features)
    run(jax.tree.map(lambda leaf: leaf * 1.0, predictor), features)
    assert len(traces) == 1
    whole = abundant.predict(features)
    assert mapped.loc.shape == (4, predictor.num_draws) and mapped.loc.dtype == jnp.float32
    np.testing.assert_allclose(mapped.loc, whole.loc, rtol=1e-4)
    np.testing.assert_allclose(mapped.scale, whole.scale, rtol=1e-3)
    one = abundant.predict(jax.tree.map(lambda leaf: leaf[0], features))
    np.testing.assert_allclose(one.loc, whole.loc[0], rtol=1e-4)


def test_predict_smiles(source):
    found = source.predict_smiles(["CCCCO", "[Na+].[Cl-]", "CCCCCCCCCO"])
    assert [r.reason for r in found.refusals] == ["several fragments"] and list(found.kept) == [0, 2]
    assert found.mean[0] < found.mean[1] and (found.lower90 < found.mean).all() and (found.mean < found.upper90).all()
    assert source.predict_smiles([]).mean.shape == (0,)


def test_transfer_uses_what_sources_say_without_the_molecule(boiling, source, conductivity):
    """For a molecule that the source has measured the transferred value is leave-one-out, else a prediction."""
    shared = [s for s in conductivity.smiles if s in set(source.smiles)]
    others = [s for s in conductivity.smiles if s not in set(source.smiles)]
    smiles = shared + others
    features = compute_features(encode(smiles, ALPHABET).tokens, ALPHABET)
    found = conductivity.transferred(smiles, features)[:, 0]
    row = {s: i for i, s in enumerate(source.smiles)}
    assert len(shared) == NUM_SHARED
    np.testing.assert_array_equal(found[: len(shared)], source.loo_mean[[row[s] for s in shared]])
    plain = np.asarray(source.predictor.average()(Features(*map(jnp.asarray, features))))[:, 0]
    np.testing.assert_allclose(found[len(shared) :], plain[len(shared) :], rtol=1e-4)
    given, made = (conductivity.predict_features(features, columns).loc for columns in (found[:, None], None))
    np.testing.assert_allclose(given[len(shared) :], made[len(shared) :], rtol=1e-3)
    assert np.abs(given - made)[: len(shared)].max() > 1e-3


def test_a_measured_value_does_not_reach_its_own_transferred_column(small, source):
    """Change one measurement by 200 K: the column of that molecule stays where it was."""
    table = small[0]
    victim = source.smiles[7]
    at = table.smiles.index(victim)
    y = table.y.copy()
    y[at] += 200.0
    changed = fit(replace(table, y=y))
    features = compute_features(encode([victim], ALPHABET).tokens, ALPHABET)
    moved = changed.transferable([victim], features) - source.transferable([victim], features)
    plain = changed.predict_smiles(victim).mean - source.predict_smiles(victim).mean
    assert abs(moved[0]) < 5.0 < plain[0] or abs(moved[0]) < 0.2 * plain[0]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_fits_repeat_for_a_key(boiling, abundant, as_if_abundant):
    again, other = (fit(rows(boiling, 450, 1), key=jax.random.key(k)) for k in (0, 1))
    assert same(abundant.predictor, again.predictor) and not same(abundant.predictor, other.predictor)


def test_save_and_load(tmp_path, abundant):
    folder = forward.save(abundant, tmp_path / "fit")
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    again = forward.load(folder)
    assert same(abundant.predictor, again.predictor)
    assert jax.tree.structure(abundant.predictor) == jax.tree.structure(again.predictor)
    assert again.summary() == abundant.summary() and again.set_aside == abundant.set_aside
    np.testing.assert_array_equal(again.loo_mean, abundant.loo_mean)
    forward.save(abundant, folder)  # over an older one
    arrays = folder / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(BayesmatError, match="damaged"):
        forward.load(folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"format": -1}))
    with pytest.raises(BayesmatError, match="format -1"):
        forward.load(folder)
    with pytest.raises(BayesmatError, match="not a saved fit"):
        forward.load(tmp_path / "nothing")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(BayesmatError, match="exists and is not a saved fit"):
        forward.save(abundant, tmp_path / "notes")


def test_cache(tmp_path, monkeypatch, small):
    monkeypatch.setenv("BAYESMAT_CACHE", str(tmp_path))
    table = small[0]
    first = fit(table, cache=True)
    folders = list((tmp_path / "forward").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(_fit, "_fit", None)  # a second fit would fail
        assert same(first.predictor, fit(table, cache=True).predictor)
        others = ({"num_draws": 32}, {"refits": 3}, {"key": jax.random.key(5)}, {"alphabet": ALPHABET.with_length(96)},
                  {"transfer": ("sources",)})  # fmt: skip
        for other in others:
            with pytest.raises(TypeError):
                fit(table, cache=True, **other)
    (folders[0] / "posterior.nc").write_bytes(b"damaged")
    assert same(first.predictor, fit(table, cache=True).predictor)
    assert same(first.predictor, forward.load(folders[0]).predictor)


def test_logarithm_is_chosen_by_rule():
    expected = {"thermal_conductivity": True, "viscosity": True, "boiling_point": False, "melting_point": False}
    assert {name: _fit.is_logarithmic(data.load(name).y) for name in expected} == expected
    assert not _fit.is_logarithmic(np.array([-1.0, 10.0, 1000.0]))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.subset(np.arange(9)), {}, "9 usable rows, at least 10"),
        (lambda t: replace(t.subset(np.arange(12)), smiles=("[Fe]",) * 12), {}, "12 were set aside.*element Fe"),
        (lambda t: replace(t.subset(np.arange(20)), y=np.ones(20)), {}, "all 20 values are equal"),
        (lambda t: replace(t.subset(np.arange(20)), y=np.full(20, np.nan)), {}, "20 values are not finite"),
        (lambda t: replace(t.subset(np.arange(20)), y=np.arange(20.0)), {"log": True}, "1 values are not positive"),
        (lambda t: t.subset(np.arange(20)), {"num_draws": 2}, "at least 8"),
        (lambda t: t.subset(np.arange(20)), {"refits": 2}, "refits is 2; allowed are 0, and 3 or more"),
        (lambda t: t.subset(np.arange(20)), {"transfer": ("learnt",)}, "'learnt' is unknown; allowed are learned"),
    ],
)
def test_bad_input(boiling, change, options, message):
    with pytest.raises(BayesmatError, match=message):
        fit(change(rows(boiling, 40)), **options)
