"""A fit judged by fits without a part of its rows, and what of a fit is compiled before its features are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from numpyro.infer.util import log_density

from bayesmat.forward import _process, _process_fit
from bayesmat.infer import _laplace


def test_errors_of_rows_left_out_do_not_count() -> None:
    rng = np.random.default_rng(0)
    errors, apart = rng.standard_t(4, size=30), rng.uniform(2.0, 4.0, 30)
    kept = np.arange(30) % 3 > 0
    values = [
        float(log_density(_process.error_model, (jnp.asarray(z), jnp.asarray(apart), jnp.asarray(0.1),
                                                 jnp.asarray(kept)), {},
                          {"noise_log_stretch": 0.1, "noise_excess": 2.0})[0])
        for z in (errors, np.where(kept, errors, 50.0))
    ]  # fmt: skip
    assert values[0] == values[1]
    usual = scipy.stats.t(3.0, 0.0, np.exp(0.1)).pdf(errors[kept])
    exceptional = scipy.stats.norm(0.0, apart[kept]).pdf(errors[kept])
    prior = scipy.stats.norm(0, 0.4).logpdf(0.1) + scipy.stats.lognorm(1.0, scale=np.exp(1.5)).logpdf(2.0)
    np.testing.assert_allclose(values[0], np.log(0.9 * usual + 0.1 * exceptional).sum() + prior, rtol=1e-5)


def test_an_exception_is_as_far_from_its_prediction_as_measurements_are() -> None:
    """And so costs little more than for the one who predicts what the measurements look like, whatever is measured."""
    rng = np.random.default_rng(2)
    measured = rng.normal(1.0, 0.7, 2_000)
    center, spread = measured.mean(), measured.std()
    measured = np.r_[measured, center + spread * np.array([-1e3, -5.0, 5.0, 1e3])]
    for away in (-30.0, -1.0, 0.0, 0.2, 3.0):
        drawn = center + away * spread + np.array([-0.3, 0.1, 0.3])
        mean, sd = _process.exception(jnp.asarray(drawn), jnp.asarray(center), jnp.asarray(spread))
        np.testing.assert_allclose(mean, drawn.mean(), rtol=1e-5)
        np.testing.assert_allclose(sd**2, ((measured[:-4] - drawn.mean()) ** 2).mean(), rtol=1e-5)
        d = (drawn.mean() - center) / spread
        cost = scipy.stats.norm(center, spread).logpdf(measured) - scipy.stats.norm(mean, sd).logpdf(measured)
        assert (cost < 0.5 + 0.5 * np.log1p(d**2) + 1e-3).all()
        worst = center - spread / d  # where Cauchy and Schwarz are equal
        cost = scipy.stats.norm(center, spread).logpdf(worst) - scipy.stats.norm(mean, sd).logpdf(worst)
        np.testing.assert_allclose(cost, 0.5 + 0.5 * np.log1p(d**2), atol=1e-3)


def test_components_are_those_of_each_draw_and_the_exceptions() -> None:
    rng = np.random.default_rng(3)
    mean, variance, stretch = rng.normal(size=(5, 3)), rng.uniform(0.5, 2.0, (5, 3)), rng.uniform(0.5, 2.0, (3, 2))
    center, spread = rng.normal(size=5), rng.uniform(1.0, 2.0, 5)
    loc, scale = map(np.asarray, _process.components(*map(jnp.asarray, (mean, variance, stretch, center, spread)), 4))
    assert loc.shape == scale.shape == (5, 3 * 2 + 4)
    for row in range(5):
        usual = [(mean[row, k], np.sqrt(variance[row, k]) * stretch[k, r]) for k in range(3) for r in range(2)]
        np.testing.assert_allclose(np.stack([loc[row, :6], scale[row, :6]], 1), usual, rtol=1e-5)
        np.testing.assert_allclose(loc[row, 6:], mean[row].mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scale[row, 6:], np.hypot(spread[row], mean[row].mean() - center[row]), rtol=1e-5)


def test_what_the_others_say_of_each() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(2.0, 3.0, 12)
    kept = np.arange(12) % 4 > 0
    for among in (np.ones(12, bool), kept):
        mean, sd = _process_fit.without(y, among)
        for row in range(12):
            others = y[among & (np.arange(12) != row)]
            np.testing.assert_allclose(mean[row], others.mean())
            np.testing.assert_allclose(sd[row], others.std(ddof=1) * np.sqrt(1 + 1 / len(others)))
    alike = np.r_[np.zeros(11), 1.0]
    assert (_process_fit.without(alike)[1] > 0.09).all(), "eleven equal measurements promise nothing of the twelfth"


def test_stretch_is_the_posterior_of_the_errors_by_quantiles() -> None:
    """Against a grid, where the process is too sure by a half."""
    rng = np.random.default_rng(5)
    n, draws = 60, 16
    y = 1.5 * rng.normal(size=n)
    stacked = _process_fit.Stacked(np.ones(1), None, np.zeros((draws, n)), np.ones((draws, n)), np.zeros(draws, int))  # type: ignore[arg-type]
    stretch, _ = _process_fit.learn_stretch(stacked, y, jax.random.key(0), 4)
    log_stretch, log_excess = np.linspace(-2.0, 2.0, 121), np.linspace(-3.0, 6.0, 91)
    apart = np.hypot(*_process_fit.without(y))  # from zero, which is what is predicted
    usual = scipy.stats.t(1 + np.exp(log_excess)[:, None]).logpdf(y / np.exp(log_stretch)[:, None, None])
    usual -= log_stretch[:, None, None]
    other = scipy.stats.norm(0.0, apart).logpdf(y)
    density = np.logaddexp(np.log(62 / 64) + usual, np.log(2 / 64) + other).sum(-1)
    density += scipy.stats.norm(0, 0.4).logpdf(log_stretch)[:, None] + scipy.stats.norm(1.5, 1.0).logpdf(log_excess)
    weight = np.exp(density - density.max()) / np.exp(density - density.max()).sum()
    # Of a normal error times the factor, the share within 1 and within 4.
    for limit in (1.0, 4.0):
        t = scipy.stats.t(1 + np.exp(log_excess)).cdf(limit / np.exp(log_stretch)[:, None])
        expected = (weight * (2 * t - 1)).sum()
        found = (2 * scipy.stats.norm.cdf(limit / stretch) - 1).mean()
        # 64 quantiles are exact to some 1/64 of what lies outside; the 96 draws that they are of, to 2 % of the scale.
        assert abs(found - expected) < 0.02, limit
    assert stretch.shape == (draws, 4) and (np.ptp(np.sort(stretch, 1), axis=0) < np.ptp(stretch)).all()
    ranks = np.argsort(np.argsort(stretch.ravel())).reshape(draws, 4) // draws
    assert (np.sort(ranks, 1) == np.arange(4)).all(), "each draw has one factor of each range"


def test_refits_see_nothing_of_their_part(monkeypatch) -> None:
    """A measurement changes every other prediction, and its own not by a bit."""
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(18, 3)) / np.sqrt(3)]
    y = rows[0] @ np.array([1.0, -1.0, 0.5]) + 0.1 * rng.normal(size=18)
    monkeypatch.setattr(_process_fit, "num_proposals", lambda n: 48)
    key = jax.random.key(0)
    loc, scale = _process_fit.out_of_fold(rows, ["descriptors"], y, key, 2, 3, False)
    more = _process_fit.exceptions(18, 2 * _process_fit.NUM_HYPER)
    assert loc.shape == scale.shape == (18, 2 * _process_fit.NUM_HYPER + more) and (scale > 0.02).all()
    assert np.corrcoef(loc.mean(1), y)[0, 1] > 0.8
    changed = y.copy()
    changed[4] += 2.0
    other, _ = _process_fit.out_of_fold(rows, ["descriptors"], changed, key, 2, 3, False)
    moved = np.abs(other - loc).max(1)
    assert moved[4] < 1e-3 and (moved > 0.02).sum() >= 10
    part = np.flatnonzero(moved < 1e-3)
    assert len(part) == 6, "its part of the rows alone is predicted as before"


def test_what_is_compiled_ahead_is_what_a_fit_runs(monkeypatch) -> None:
    monkeypatch.setattr(_process_fit, "num_proposals", lambda n: 48)
    monkeypatch.setattr(_process_fit, "_COMPILED", set())
    _process_fit.compile_ahead(18, 1, 2)
    compiled = list(_laplace._PROGRAMS)
    sizes = [program.values._cache_size() for program in _laplace._PROGRAMS.values()]
    rng = np.random.default_rng(4)
    found = _process_fit.compare([rng.normal(size=(18, 3))], ["descriptors"], rng.normal(size=18), jax.random.key(1))
    _process_fit.learn_stretch(_process_fit.combine(found), rng.normal(size=18), jax.random.key(2), 2)
    assert set(_laplace._PROGRAMS) == set(compiled)
    assert [program.values._cache_size() for program in _laplace._PROGRAMS.values()] == sizes
    monkeypatch.setattr(_process_fit, "_candidate", None)  # a second time would fail
    _process_fit.compile_ahead(18, 1, 2)
    _process_fit.compile_ahead(_process_fit.FEW_ROWS + 1, 1, 2)
