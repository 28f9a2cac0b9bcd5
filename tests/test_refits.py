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
    errors = np.random.default_rng(0).standard_t(4, size=30)
    kept = np.arange(30) % 3 > 0
    values = [
        float(log_density(_process.error_model, (jnp.asarray(z), jnp.asarray(kept)), {},
                          {"noise_log_stretch": 0.1, "noise_excess": 2.0})[0])
        for z in (errors, np.where(kept, errors, 50.0))
    ]  # fmt: skip
    assert values[0] == values[1]
    t = scipy.stats.t(3.0, 0.0, np.exp(0.1)).logpdf(errors[kept]).sum()
    prior = scipy.stats.norm(0, 0.3).logpdf(0.1) + scipy.stats.lognorm(1.0, scale=np.exp(0.3)).logpdf(2.0)
    np.testing.assert_allclose(values[0], t + prior, rtol=1e-5)


def test_refits_see_nothing_of_their_part(monkeypatch) -> None:
    """A measurement changes every other prediction, and its own not by a bit."""
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(18, 3)) / np.sqrt(3)]
    y = rows[0] @ np.array([1.0, -1.0, 0.5]) + 0.1 * rng.normal(size=18)
    monkeypatch.setattr(_process_fit, "num_proposals", lambda n: 48)
    key = jax.random.key(0)
    loc, scale = _process_fit.out_of_fold(rows, ["descriptors"], y, key, 2, 3, False)
    assert loc.shape == scale.shape == (18, 2 * _process_fit.NUM_HYPER) and (scale > 0.02).all()
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
