"""Variational inference against closed forms, beside the other two ways to a posterior."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.handlers import condition
from numpyro.infer.autoguide import AutoDiagonalNormal

from bayesmat import infer
from bayesmat._types import BayesmatError
from bayesmat.forward._heads import Rows, frozen_model

N, D, SIGMA, SCALE = 25, 3, 0.4, 0.8
RNG = np.random.default_rng(0)
PHI = RNG.normal(size=(N, D)) @ [[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]]  # two columns go together
Y = PHI @ [1.0, -0.5, 0.3] + SIGMA * RNG.normal(size=N)
DATA = {"data": Rows(PHI, Y)}


def conjugate(data):
    """The linear head with its variances known: the posterior is a Gaussian."""
    condition(frozen_model, {"sigma": SIGMA, "scale": SCALE})(data)


def exact():
    """Precision and mean of the standardised (intercept, white), and the log evidence."""
    design = np.column_stack([np.ones(N), SCALE * PHI])
    precision = design.T @ design / SIGMA**2 + np.eye(D + 1)
    known = scipy.stats.halfnorm.logpdf(SIGMA) + scipy.stats.halfnorm.logpdf(SCALE)
    evidence = scipy.stats.multivariate_normal(np.zeros(N), design @ design.T + SIGMA**2 * np.eye(N)).logpdf(Y)
    return np.linalg.solve(precision, design.T @ Y / SIGMA**2), precision, evidence + known


def draws(idata):
    """`(chain, draw, 1 + D)` of the intercept and the standardised weights."""
    posterior = idata.posterior
    return np.concatenate([posterior["intercept"].values[..., None], posterior["white"].values], -1)


@pytest.fixture(scope="module")
def fitted():
    return infer.svi(conjugate, DATA, jax.random.key(0), num_draws=4000)


def test_svi_is_the_closed_form(fitted):
    mean, precision, evidence = exact()
    cov = np.linalg.inv(precision)
    sd, found = np.sqrt(np.diag(cov)), draws(fitted)[0]
    assert found.dtype == np.float64 and not jax.config.jax_enable_x64
    assert np.abs((found.mean(0) - mean) / sd).max() < 4 / np.sqrt(4000)
    assert np.abs(found.std(0) / sd - 1).max() < 4 / np.sqrt(2 * 4000)
    correlation = cov / np.outer(sd, sd)
    assert correlation[1, 2] < -0.5  # what a diagonal guide would miss
    np.testing.assert_allclose(np.corrcoef(found.T), correlation, atol=4 / np.sqrt(4000))
    np.testing.assert_allclose(fitted.posterior["weights"], SCALE * fitted.posterior["white"])
    # The gap of the ELBO is KL(q, p): 0.001 nats is a shift of the mean by 0.045 standard deviations.
    assert fitted.attrs["inference"] == "svi"
    assert 0 < fitted.attrs["elbo_error"] < 1e-3
    assert -4 * fitted.attrs["elbo_error"] < evidence - fitted.attrs["elbo"] < 1e-3
    assert fitted.constant_data["loss"].shape == (fitted.attrs["num_steps"],)


def test_laplace_is_the_closed_form():
    mean, precision, evidence = exact()
    key = jax.random.key(1)
    idata = infer.laplace(conjugate, DATA, key, num_draws=20)
    # Its draws are mode + root · noise: regressing them on the noise gives mode and root, without Monte Carlo error.
    with jax.enable_x64(True):
        noise = np.asarray(jax.random.normal(jax.random.split(key)[1], (20, D + 1)))
    (mode, *root), residual, *_ = np.linalg.lstsq(np.column_stack([np.ones(20), noise]), draws(idata)[0], rcond=None)
    assert residual.max() < 1e-20
    np.testing.assert_allclose(np.transpose(root) @ root, np.linalg.inv(precision), rtol=1e-6)
    np.testing.assert_allclose(idata.attrs["log_evidence"], evidence, rtol=1e-6)
    # L-BFGS stops when the density rises by less than 2e-9 of itself, a step of √(2 · 2e-9 · |log p|) deviations.
    tolerance = np.sqrt(4.4e-9 * abs(evidence))
    assert np.sqrt((mode - mean) @ precision @ (mode - mean)) < 4 * tolerance


def test_nuts_is_the_closed_form():
    mean, precision, _ = exact()
    with jax.enable_x64(True):
        idata = infer.nuts(conjugate, DATA, jax.random.key(2), num_samples=500, progress_bar=False)
    sd, effective = np.sqrt(np.diag(np.linalg.inv(precision))), min(infer.diagnose(idata).effective.values())
    assert effective > 200
    assert np.abs((draws(idata).mean((0, 1)) - mean) / sd).max() < 4 / np.sqrt(effective)
    assert np.abs(draws(idata).std((0, 1)) / sd - 1).max() < 4 / np.sqrt(2 * effective)


def test_a_diagonal_guide_keeps_the_mean_and_has_the_conditional_width():
    """The minimiser of KL(q, p) over diagonal q is known: the mean of p, and sd 1/√Λ_jj."""
    mean, precision, evidence = exact()
    idata = infer.svi(conjugate, DATA, jax.random.key(3), guide="normal", num_draws=4000)
    sd, found = np.diag(precision) ** -0.5, draws(idata)[0]
    assert np.abs((found.mean(0) - mean) / sd).max() < 4 / np.sqrt(4000) + 0.03
    assert np.abs(found.std(0) / sd - 1).max() < 4 / np.sqrt(2 * 4000) + 0.03
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    np.testing.assert_allclose(evidence - idata.attrs["elbo"], gap, atol=4 * idata.attrs["elbo_error"] + 2e-3)


def positive(y):
    """Its posterior is log-normal: of log v, precision 1 + n / 0.25 and mean Σ log y / 0.25 over that."""
    v = numpyro.sample("v", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("half", v / 2)
    numpyro.sample("y", dist.LogNormal(jnp.log(v), 0.5), obs=y)


def own_guide(y):
    loc = numpyro.param("loc", 0.0)
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("v", dist.LogNormal(loc, scale))


@pytest.mark.parametrize("guide", [own_guide, AutoDiagonalNormal])
def test_guides_of_your_own(guide):
    y = np.array([0.5, 1.9, 1.5, 0.2, 0.7, 3.0])
    precision = 1 + len(y) / 0.25
    exact = scipy.stats.norm(np.log(y).sum() / 0.25 / precision, precision**-0.5)
    idata = infer.svi(positive, {"y": y}, jax.random.key(0), guide=guide, num_steps=1000, num_draws=1000)
    values = idata.posterior["v"].values[0]  # mapped back to the support
    assert set(idata.posterior) == {"v", "half"}
    np.testing.assert_allclose(idata.posterior["half"].values[0], values / 2)
    assert scipy.stats.kstest(np.log(values), exact.cdf).pvalue > 0.01
    log_y = scipy.stats.multivariate_normal(np.zeros(len(y)), 1.0 + 0.25 * np.eye(len(y))).logpdf(np.log(y))
    np.testing.assert_allclose(idata.attrs["elbo"], log_y - np.log(y).sum(), atol=4 * idata.attrs["elbo_error"] + 2e-3)


def test_draws_repeat_for_a_key_and_steps_that_fall_short_are_warned_about():
    runs = []
    for _ in range(2):
        with pytest.warns(infer.InferenceWarning, match="still falling.*raise num_steps or learning_rate"):
            runs.append(infer.svi(conjugate, DATA, jax.random.key(4), num_steps=200, learning_rate=0.01, num_draws=3))
    np.testing.assert_array_equal(*map(draws, runs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer._svi._warn_if_falling(np.random.default_rng(0).normal(100.0, 3.0, size=1000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 50}, "num_steps >= 100"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"num_draws": 1}, "num_draws >= 2"),
        ({"guide": "diagonal"}, "'diagonal'; allowed are 'multivariate', 'normal'"),
        ({"model": lambda data: numpyro.sample("y", dist.Normal(), obs=0.0)}, "has 0"),
        ({"model": lambda data: numpyro.sample("k", dist.Poisson(1.0))}, "discrete are k"),
        ({"model": lambda data: numpyro.sample("w", dist.Normal().expand([2001]))}, 'has 2001; use guide="normal"'),
        ({"learning_rate": 1e6, "num_steps": 100}, "not finite.*lower learning_rate"),
    ],
)
def test_bad_input(options, message):
    arguments = {"model": conjugate, "data": DATA, "key": jax.random.key(0)} | options
    with pytest.raises(BayesmatError, match=message):
        infer.svi(**arguments)
