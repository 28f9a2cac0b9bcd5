"""Posteriors against exact ones, scores against quadrature, and what is said when something is wrong."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, strategies as st

from bayesmat import infer
from bayesmat._types import BayesmatError

X = np.random.default_rng(0).normal(size=(30, 2))
Y = X @ [1.5, -0.5] + 0.3 * np.random.default_rng(1).normal(size=30)
NOISE = 0.3


def gaussian(x, y):
    """Linear regression with known noise: the posterior is a Gaussian."""
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    numpyro.deterministic("sum", w.sum())
    numpyro.sample("y", dist.Normal(x @ w, NOISE), obs=y)


def exact():
    precision = X.T @ X / NOISE**2 + np.eye(2) / 4
    return np.linalg.solve(precision, X.T @ Y / NOISE**2), np.linalg.inv(precision)


@pytest.fixture(scope="module")
def sampled():
    return infer.nuts(gaussian, {"x": X, "y": Y}, jax.random.key(0), progress_bar=False)


def test_laplace_is_exact_on_a_gaussian():
    idata = infer.laplace(gaussian, {"x": X, "y": Y}, jax.random.key(0), num_draws=4000)
    mean, cov = exact()
    draws = idata.posterior["w"].values[0]
    assert draws.dtype == np.float64 and not jax.config.jax_enable_x64
    error = np.sqrt(np.diag(cov) / len(draws))
    np.testing.assert_allclose(draws.mean(0), mean, atol=4 * error.max())
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=5 * np.sqrt(2 / len(draws)) * cov.max())
    np.testing.assert_allclose(idata.posterior["sum"].values[0], draws.sum(1))
    evidence = scipy.stats.multivariate_normal(np.zeros(30), 4 * X @ X.T + NOISE**2 * np.eye(30)).logpdf(Y)
    np.testing.assert_allclose(idata.attrs["log_evidence"], evidence, rtol=1e-6)


def test_nuts_agrees_with_the_exact_posterior(sampled):
    mean, cov = exact()
    draws = sampled.posterior["w"].values
    assert draws.shape == (2, 300, 2)
    effective = infer.diagnose(sampled).effective["w"]
    np.testing.assert_allclose(draws.mean((0, 1)), mean, atol=4 * np.sqrt(np.diag(cov).max() / effective))
    np.testing.assert_allclose(draws.std((0, 1)), np.sqrt(np.diag(cov)), rtol=4 / np.sqrt(2 * effective))
    assert {"diverging", "lp", "n_steps", "acceptance_rate"} <= set(sampled.sample_stats)


def test_laplace_maps_back_to_the_support():
    def model(y):
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(0.0, sigma), obs=y)

    draws = infer.laplace(model, {"y": 0.5 * np.ones(400)}, jax.random.key(1)).posterior["sigma"].values
    assert (draws > 0).all()
    np.testing.assert_allclose(draws.mean(), 0.5, rtol=0.01)
    np.testing.assert_allclose(draws.std(), 0.5 / np.sqrt(800), rtol=0.2)


def test_draws_repeat_for_a_key():
    runs = [infer.laplace(gaussian, {"x": X, "y": Y}, jax.random.key(k), num_draws=5) for k in (3, 3, 4)]
    first, second, other = (run.posterior["w"].values for run in runs)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_a_bad_run_is_warned_about_with_advice():
    posterior = {
        "w": np.stack([np.random.default_rng(0).normal(size=200), 5 + np.random.default_rng(1).normal(size=200)])
    }
    idata = infer.to_inference_data(posterior, sample_stats={"diverging": np.ones((2, 200), bool)})
    with pytest.warns(infer.InferenceWarning, match="400 divergent.*target_accept.*R-hat.*num_warmup"):
        found = infer.diagnose(idata)
    assert found.num_divergences == 400 and found.r_hat["w"] > 1.5


def test_a_flat_direction_is_warned_about():
    def model(y):
        a, b = (numpyro.sample(name, dist.ImproperUniform(dist.constraints.real, (), ())) for name in "ab")
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    data = {"y": np.zeros(5)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            infer.laplace(model, data, jax.random.key(0), num_draws=3)
        except (RuntimeError, NotImplementedError):
            pytest.skip("improper sites cannot be started")
    assert any("flat or rises in 1 of 2" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: infer.laplace(gaussian, {"x": X, "y": Y}, jax.random.key(0), num_draws=0), "num_draws >= 1"),
        (lambda: infer.nuts(gaussian, {"x": X, "y": Y}, jax.random.key(0), num_chains=0), "num_chains=0"),
        (lambda: infer.laplace(lambda: numpyro.sample("y", dist.Normal(), obs=0.0), {}, jax.random.key(0)), "has 0"),
        (lambda: infer.to_inference_data({"w": np.zeros(3)}), r"\(chain, draw, ...\)"),
        (lambda: infer.to_inference_data({"w": np.zeros((1, 3)), "v": np.zeros((1, 4))}), "one length each"),
        (lambda: infer.load("/nowhere/posterior.nc"), "no file"),
        (lambda: infer.coverage([0.0], np.zeros((5, 2))), "do not belong"),
        (lambda: infer.coverage([0.0], np.zeros((5, 1)), [1.5]), r"\(0, 1\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(BayesmatError, match=message):
        call()


def test_netcdf_round_trip(tmp_path, sampled):
    idata = infer.to_inference_data(
        {"w": sampled.posterior["w"].values}, dims={"w": ["side"]}, coords={"side": ["left", "right"]},
        attrs={"unit": "K"}, observed_data={"y": Y},
    )  # fmt: skip
    path = infer.save(idata, tmp_path / "posterior.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    again = infer.load(path)
    np.testing.assert_array_equal(again.posterior["w"].sel(side="right"), sampled.posterior["w"].values[..., 1])
    np.testing.assert_array_equal(again.observed_data["y"], Y)
    assert again.attrs["unit"] == "K"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BayesmatError, match="NetCDF"):
        infer.load(path)


def test_coverage_and_pit_of_a_calibrated_prediction():
    rng = np.random.default_rng(0)
    loc = rng.normal(size=4000)
    y, draws = loc + 2 * rng.normal(size=4000), loc + 2 * rng.normal(size=(999, 4000))
    for predictive in (draws, lambda q: loc + 2 * scipy.stats.norm.ppf(q)):
        for level, share in infer.coverage(y, predictive).items():
            assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 4000)
    assert scipy.stats.kstest(infer.pit(y, draws), "uniform").pvalue > 0.01
    np.testing.assert_allclose(infer.pit([1.0], [[0.0], [1.0], [2.0], [3.0]]), [0.375])
    assert infer.nll(np.log([0.5, 0.25])) == pytest.approx(1.5 * np.log(2))


def crps_by_quadrature(y, loc, scale):
    cdf = lambda x: scipy.stats.norm.cdf(x, loc, scale).mean()  # noqa: E731
    reach = (loc - 12 * scale).min(), (loc + 12 * scale).max()
    left = scipy.integrate.quad(lambda x: cdf(x) ** 2, min(reach[0], y), y, limit=200)[0]
    return left + scipy.integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, max(reach[1], y), limit=200)[0]


def test_crps_closed_form_against_quadrature_and_draws():
    loc, scale = np.array([0.0, 3.0, 1.0]), np.array([1.0, 0.5, 2.0])
    draws = (loc[:, None] + scale[:, None] * scipy.stats.norm.ppf((np.arange(3000) + 0.5) / 3000)).reshape(-1, 1)
    for y in (-2.0, 0.7, 6.0):
        expected = crps_by_quadrature(y, loc, scale)
        np.testing.assert_allclose(infer.crps_normal_mixture([y], loc[None], scale[None]), expected, rtol=1e-6)
        np.testing.assert_allclose(infer.crps([y], draws), expected, rtol=1e-3)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-6, 6))
def test_crps_of_draws_is_the_double_sum(draws, y):
    x = np.array(draws)
    expected = np.abs(x - y).mean() - 0.5 * np.abs(x[:, None] - x).mean()
    np.testing.assert_allclose(infer.crps([y], x[:, None]), expected, atol=1e-9)


def test_calibration():
    y = np.array([1.0, 2.0, 4.0, 8.0])
    found = infer.Calibration(
        "boiling point", "K", "held-out", y, y + 1, y - 3, y + 3, np.array([0.5, 0.3, 0.04, 0.96]), 1.0, 0.5
    )
    assert (found.num_points, found.rmse, found.mae) == (4, 1.0, 1.0)
    assert found.coverage == {0.5: 0.5, 0.8: 0.5, 0.9: 0.5, 0.95: 1.0}
    assert "RMSE 1 K" in found.summary() and "90 % → 50.0 %" in found.summary()
    with pytest.raises(BayesmatError, match="leave-one-out, cross-validation, held-out"):
        infer.Calibration("", "K", "training", y, y, y, y, y, 0.0, 0.0)
    with pytest.raises(BayesmatError, match="one length"):
        infer.Calibration("", "K", "held-out", y, y[:2], y, y, y, 0.0, 0.0)


def judged(pit):
    y = np.zeros(len(pit))
    return infer.Calibration("k", "K", "leave-one-out", y, y, y, y, np.asarray(pit), 0.0, 0.0)


@pytest.mark.parametrize("believed", [0.7, 1.0, 4.0])
def test_conformal_intervals_hold_whatever_the_model_believes(believed):
    """Of n + 1 exchangeable errors the last is within the r-th smallest of the others with probability r / (n + 1)."""
    rng, n, repeats = np.random.default_rng(0), 39, 4000
    pit = scipy.stats.norm.cdf(rng.standard_normal((repeats, n + 1)) / believed)
    for level, rank in ((0.5, 20), (0.9, 36), (0.95, 38)):
        asked = np.array([judged(row[:-1]).conformal_level(level) for row in pit])
        held = (np.abs(pit[:, -1] - 0.5) <= asked / 2).mean()
        expected = rank / (n + 1)
        assert abs(held - expected) < 4 * np.sqrt(expected * (1 - expected) / repeats)
    assert (asked < 0.95).mean() > 0.9 if believed == 4.0 else believed == 1.0 or (asked > 0.95).mean() > 0.9


def test_conformal_level_at_its_ends():
    assert judged(np.ones(12)).conformal_level() < 1 and judged(np.full(12, 0.5)).conformal_level() > 0
    ranks = 0.5 + np.arange(1, 10) / 20
    assert judged(ranks).conformal_level(0.9) == pytest.approx(0.9) == judged(1 - ranks).conformal_level(0.9)
    with pytest.raises(BayesmatError, match="8 points; a conformal interval of 0.9 needs 9"):
        judged(ranks[1:]).conformal_level(0.9)
    for level in (0.0, 1.0, np.nan):
        with pytest.raises(BayesmatError, match="allowed is a number between 0 and 1"):
            judged(ranks).conformal_level(level)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([0.0, 0.5, 30.0, 1e4]), st.floats(0.01, 0.99)
)
def test_recalibrated_level_is_a_quantile(pit, belief, level):
    """Of (belief s + #{far ≤ s}) / (belief + n), on a grid."""
    found = judged(pit).recalibrated_level(level, belief)
    far, s = 2 * np.abs(np.array(pit) - 0.5), np.linspace(0, 1, 20001)
    share = (belief * s + (far[:, None] <= s).sum(0)) / (belief + len(far))
    expected = s[np.argmax(share >= level - 1e-9)]
    assert found == pytest.approx(np.clip(expected, 1e-4, 1 - 1e-5), abs=2e-4)


def test_recalibrated_level_between_model_and_measurements():
    narrow = judged(0.5 + np.linspace(-0.2, 0.2, 41))  # errors are smaller than the model believes
    levels = [narrow.recalibrated_level(0.9, belief) for belief in (0, 30, 1e9)]
    assert levels[0] == pytest.approx(0.36, abs=0.02) and levels == sorted(levels) and levels[2] == pytest.approx(0.9)
    with pytest.raises(BayesmatError, match="belief is -1; allowed is a number from 0 on"):
        narrow.recalibrated_level(0.9, -1)


def test_data_are_arguments_of_the_compiled_program():
    """A second data set of the same shape must give its own answer, in whatever precision it comes."""
    for shift in (0.0, 10.0):
        idata = infer.laplace(gaussian, {"x": jnp.asarray(X), "y": Y + shift * X[:, 0]}, jax.random.key(0))
        np.testing.assert_allclose(idata.posterior["w"].mean(("chain", "draw"))[0], exact()[0][0] + shift, atol=0.3)
