"""Quantiles of mixtures of normals against root finding in float64."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings, strategies as st

from bayesmat.forward import Predictive
from bayesmat.forward._quantiles import CHUNK, _tails

Q = (1e-6, 1e-3, 0.05, 0.15865525, 0.3, 0.5, 0.84134475, 0.95, 0.999, 0.99999)
summary = eqx.filter_jit(lambda p: (p.quantiles(Q), p.summary()))


def distribution(x, loc, scale):
    return scipy.special.ndtr((x - loc) / scale).mean()


def exact(loc, scale, q):
    """By bracketing in float64."""
    ends = loc + scale * scipy.special.ndtri(q)
    low, high = ends.min() - 0.01 * scale.max(), ends.max() + 0.01 * scale.max()
    return scipy.optimize.brentq(lambda x: distribution(x, loc, scale) - q, low, high, xtol=1e-300, rtol=1e-14)


def assert_exact(loc, scale):
    """Every quantile has its share of the probability, as nearly as float32 can say where it is."""
    p = Predictive(jnp.asarray(loc, jnp.float32), jnp.asarray(scale, jnp.float32), log=False)
    loc, scale = np.asarray(p.loc, float), np.asarray(p.scale, float)
    found, told = summary(p)
    for q, x in zip(np.float64(np.float32(Q)), np.asarray(found, float), strict=True):
        rounding = 4e-7 * max(abs(x), np.abs(loc).max())
        low, high = (scipy.special.ndtri(distribution(x + side * rounding, loc, scale)) for side in (-1, 1))
        assert low - 1e-5 <= scipy.special.ndtri(q) <= high + 1e-5, (q, x)
    sd = 0.5 * (exact(loc, scale, 0.84134475) - exact(loc, scale, 0.15865525))
    assert float(told.sd) == pytest.approx(sd, rel=1e-4, abs=4e-7 * np.abs(loc).max())
    assert (np.diff(found) >= 0).all()


@st.composite
def mixtures(draw):
    """Mixtures of 16 normals of many shapes: heavy tails, several modes, components far from each other."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    unit = 10.0 ** draw(st.floats(-12, 12))
    middle = draw(st.sampled_from([0.0, 1.0, -300.0]))
    modes = rng.choice(draw(st.lists(st.floats(-30, 30), min_size=1, max_size=3)), 16)
    spread, heaviness = draw(st.floats(0, 5)), draw(st.floats(0, 3))
    loc, scale = middle + modes + spread * rng.normal(size=16), np.exp(heaviness * rng.normal(size=16))
    return unit * loc, unit * scale


@settings(max_examples=150)
@given(mixtures())
def test_quantiles_against_root_finding(mixture):
    assert_exact(*mixture)


@pytest.mark.parametrize("dof", [0.6, 1.0, 3.0])
def test_heavy_tails(dof):
    mixing = scipy.special.gammaincinv(dof / 2, (np.arange(128) + 0.5) / 128) * 2 / dof
    assert_exact(400 + 20 * np.cos(np.arange(128)), 15 / np.sqrt(mixing))


def test_one_component_and_two_far_apart():
    assert_exact(np.array([-2.5]), np.array([0.3]))
    assert_exact(np.array([-2.5e4]), np.array([1e-3]))
    assert_exact(np.array([-10.0, 10.0]), np.array([0.1, 0.1]))
    assert_exact(np.array([0.0, 0.0]), np.array([1e-4, 1e4]))


def test_a_batch_is_its_members_and_a_log_is_one():
    rng = np.random.default_rng(0)
    n = 2 * CHUNK + 5
    loc, scale = rng.normal(size=(n, 8)), np.exp(rng.normal(size=(n, 8)))
    p = Predictive(jnp.asarray(loc, jnp.float32), jnp.asarray(scale, jnp.float32), log=False)
    whole, told = summary(p)
    assert whole.shape == (n, len(Q)) and told.quantiles.shape == (n, 3) and told.sd.shape == (n,)
    one = jax.jit(jax.vmap(lambda p: p.quantiles(Q)))(p)
    np.testing.assert_allclose(one, whole, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(p.quantile(jnp.full(n, 0.05)), told.quantiles[:, 0], rtol=1e-5, atol=2e-5)
    logarithmic = Predictive(p.loc, p.scale, log=True)
    np.testing.assert_allclose(logarithmic.quantile(0.3), np.exp(whole[:, 4]), rtol=1e-4)
    none = Predictive(p.loc[:0], p.scale[:0], log=False).summary()
    assert none.quantiles.shape == (0, 3) and none.mean.shape == none.sd.shape == (0,)
    wrong = p.loc.at[1, 3].set(jnp.nan)
    assert np.isnan(Predictive(wrong, p.scale, log=False).sd()).tolist() == [row == 1 for row in range(n)]


def test_the_tail_of_a_normal():
    x = np.linspace(-12, 12, 4001).astype(np.float32)
    found, density, slope = _tails(jnp.asarray(x)[:, None], jnp.ones((1, 1)))
    np.testing.assert_allclose(found, scipy.special.ndtr(x.astype(float)), rtol=1e-5)
    np.testing.assert_allclose(density, np.exp(-0.5 * x.astype(float) ** 2), rtol=1e-5)
    np.testing.assert_allclose(slope, -x * np.exp(-0.5 * x.astype(float) ** 2), rtol=1e-5)
