"""The Gaussian process of scarce properties: closed forms against float64, sampling against quadrature, small fits."""

from __future__ import annotations

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax.test_util import check_grads
from numpyro.infer.util import log_density

from bayesmat import data, forward, infer
from bayesmat._types import BayesmatError
from bayesmat.chem import Alphabet, encode
from bayesmat.forward import _process, _process_fit
from bayesmat.forward._fitted import calibrate, compute_features
from bayesmat.forward._process import JITTER, Hyper, ProcessData
from bayesmat.infer import _laplace
from bayesmat.nn import Features

ALPHABET = Alphabet.organic()
N, M = 14, 9


# Closed forms


def some_rows(seed: int = 0, n: int = N) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, d)) / np.sqrt(d) for d in (3, 5, 2)]


HYPER = Hyper(np.array([0.7, 0.3, 0.0]), np.array([0.5, 0.9, 0.2]), np.array([0.8, 1.5, 0.4]), np.array(0.25))


def kernel(hyper: Hyper, left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    """Written out from the definition: 1 + Σ a² x·x' + b² exp(−|x − x'|² / 2 l²)."""
    total = np.ones((len(left[0]), len(right[0])))
    for b, (x, z) in enumerate(zip(left, right, strict=True)):
        squared = ((x[:, None] - z) ** 2).sum(-1)
        total += hyper.linear[b] ** 2 * x @ z.T + hyper.smooth[b] ** 2 * np.exp(-squared / 2 / hyper.length[b] ** 2)
    return total


@pytest.fixture(scope="module")
def exact():
    """Rows, y, the data of the model and its float64 posterior."""
    rows = some_rows()
    y = np.random.default_rng(1).normal(size=N)
    with jax.enable_x64(True):
        between = _process.pairs([jnp.asarray(row) for row in rows])
        made = ProcessData(between, jnp.asarray(y), jnp.ones(3), jnp.zeros(N))
        found = _process.posterior(Hyper(*map(jnp.asarray, HYPER)), made)
        return rows, y, made, _process.Posterior(*map(np.asarray, found))


def noisy(rows: list[np.ndarray]) -> np.ndarray:
    return kernel(HYPER, rows, rows) + (HYPER.sigma**2 + JITTER) * np.eye(len(rows[0]))


def test_log_evidence_is_that_of_a_normal(exact) -> None:
    rows, y, made, _ = exact
    with jax.enable_x64(True):
        found = _process.log_evidence(Hyper(*map(jnp.asarray, HYPER)), made)
    np.testing.assert_allclose(found, scipy.stats.multivariate_normal(np.zeros(N), noisy(rows)).logpdf(y), rtol=1e-10)


def test_gradient_of_the_log_evidence(exact) -> None:
    _, _, made, _ = exact
    hyper = HYPER._replace(linear=np.array([0.7, 0.3, 0.1]))
    with jax.enable_x64(True):
        point = Hyper(*map(jnp.asarray, hyper))
        check_grads(lambda hyper: 3 * _process.log_evidence(hyper, made), (point,), 1, ["rev"])


def test_posterior_and_leave_one_out_against_refits(exact) -> None:
    rows, y, _, found = exact
    whole = noisy(rows)
    np.testing.assert_allclose(found.weights, np.linalg.solve(whole, y), atol=1e-8)
    np.testing.assert_allclose(found.root.T @ found.root, np.linalg.inv(whole), atol=1e-8)
    for row in range(N):
        rest = np.delete(np.arange(N), row)
        gain = np.linalg.solve(whole[np.ix_(rest, rest)], whole[rest, row])
        np.testing.assert_allclose(found.loo_mean[row], gain @ y[rest], atol=1e-8)
        np.testing.assert_allclose(found.loo_variance[row], whole[row, row] - gain @ whole[rest, row], atol=1e-8)


def test_rows_apart_are_rows_left_out(exact) -> None:
    """Evidence and predictions are those of the other rows, whatever was measured apart."""
    rows, y, made, _ = exact
    out = np.isin(np.arange(N), [2, 5, 6])
    whole = noisy(rows)
    other = whole[np.ix_(~out, ~out)]
    gain = np.linalg.solve(other, whole[np.ix_(~out, out)])
    hyper = Hyper(*map(np.asarray, HYPER))
    evidence = []
    for measured in (y, np.where(out, 3.0, y)):
        with jax.enable_x64(True):
            apart = jnp.asarray(np.where(out, _process_fit.LEFT_OUT, 0.0))
            data_ = made._replace(y=jnp.asarray(measured), apart=apart)
            found = jax.tree.map(np.asarray, _process.posterior(Hyper(*map(jnp.asarray, hyper)), data_))
            evidence.append(float(_process.log_evidence(Hyper(*map(jnp.asarray, hyper)), data_)))
        np.testing.assert_allclose(found.loo_mean[out], gain.T @ y[~out], atol=1e-4)
        variance = np.diag(whole)[out] - (gain * whole[np.ix_(~out, out)]).sum(0)
        np.testing.assert_allclose(found.loo_variance[out] - _process_fit.LEFT_OUT, variance, atol=1e-4)
    assert abs(evidence[0] - evidence[1]) < 1e-4
    alone = scipy.stats.multivariate_normal(np.zeros((~out).sum()), other).logpdf(y[~out])
    noise = scipy.stats.norm(0.0, np.sqrt(_process_fit.LEFT_OUT)).logpdf(0.0)
    assert abs(evidence[0] - alone - out.sum() * noise) < 1e-4


def test_a_block_that_is_masked_has_no_influence(exact) -> None:
    _, _, made, _ = exact
    with jax.enable_x64(True):
        other = made.pairs._replace(gram=made.pairs.gram.at[1].multiply(3.0), squared=made.pairs.squared.at[1].add(2.0))
        drawn = {"linear": jnp.full(3, 0.5), "smooth": jnp.full(3, 0.4), "length": jnp.ones(3), "sigma": 0.3}
        values = [
            float(
                log_density(
                    _process.process_model, (ProcessData(between, made.y, jnp.array(used), made.apart),), {}, drawn
                )[0]
            )
            for used in ([1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
            for between in (made.pairs, other)
        ]
    assert values[0] == values[1] and abs(values[2] - values[3]) > 0.01 < abs(values[0] - values[2])


class Doubled(eqx.Module):
    """A source: twice the first descriptor."""

    def __call__(self, features: Features) -> jax.Array:
        return 2.0 * features.descriptors[..., :1]


def some_features(seed: int, n: int) -> Features:
    rng = np.random.default_rng(seed)
    raw = [rng.normal(3.0, 2.0, (n, d)) for d in (6, 4, 3, 7, 2)]
    return Features(*(jnp.asarray(part, jnp.float32) for part in raw))


@pytest.fixture(scope="module")
def process():
    """A process of three draws on four blocks, one of which no draw uses; what it was made of."""
    train = some_features(0, 12)
    raw = [train.descriptors, train.physical, train.properties, 2.0 * train.descriptors[:, :1]]
    names = ("descriptors", "physical", "properties", "sources")
    blocks = [_process_fit.block(n, np.asarray(r, float)) for n, r in zip(names, raw, strict=True)]
    rng = np.random.default_rng(5)
    used = np.array([1.0, 1.0, 0.0, 1.0])
    hyper = Hyper(rng.uniform(0.2, 0.9, (3, 4)) * used, rng.uniform(0.2, 0.9, (3, 4)) * used,
                  rng.uniform(0.5, 2.0, (3, 4)), np.array([0.2, 0.3, 0.4]))  # fmt: skip
    y = rng.normal(size=12)
    stacked = _process_fit.Stacked(np.ones(1), hyper, np.zeros((3, 12)), np.ones((3, 12)), np.zeros(3, int))
    made = _process_fit.to_process(blocks, stacked, y, 10.0, 5.0, (Doubled(),), None)
    return made, blocks, hyper, y


def test_the_fingerprint_is_for_many_rows() -> None:
    few, many = (some_features(2, n) for n in (_process_fit.MANY - 1, _process_fit.MANY))
    for features, own, names in (
        (few, _process_fit.OWN, ["descriptors", "physical"]),
        (many, _process_fit.OWN, ["descriptors", "physical", "fingerprint"]),
        (few, ("fingerprint",), ["fingerprint"]),
    ):
        blocks = _process_fit.make_blocks(features, np.zeros((len(features.descriptors), 0)), None, (), own)
        assert [block.name for block in blocks] == names
    rows, raw = np.asarray(blocks[0].rows, float), np.asarray(few.fingerprint, float)
    ratio = (rows[0] - rows[1]) / (raw[0] - raw[1])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)  # one length for all environments


def test_prediction_is_the_closed_form(process) -> None:
    made, blocks, hyper, y = process
    assert [block.name for block in made.blocks] == ["descriptors", "physical", "sources"]
    test = some_features(1, M)
    raw = [test.descriptors, test.physical, test.properties, 2.0 * test.descriptors[:, :1]]
    rows = [np.asarray(b(jnp.asarray(r)), float) for b, r in zip(blocks, raw, strict=True)]
    train = [np.asarray(block.rows, float) for block in blocks]
    mean, variance = eqx.filter_jit(made)(test)
    assert mean.dtype == variance.dtype == jnp.float32 and mean.shape == variance.shape == (M, 3)
    for k in range(3):
        one = Hyper(*(part[k] for part in hyper))
        solved = np.linalg.inv(kernel(one, train, train) + (one.sigma**2 + JITTER) * np.eye(12))
        cross = kernel(one, rows, train)
        np.testing.assert_allclose(mean[:, k], 10.0 + 5.0 * cross @ solved @ y, rtol=1e-4)
        prior = np.array([kernel(one, [r[i : i + 1] for r in rows], [r[i : i + 1] for r in rows])[0, 0]
                          for i in range(M)])  # fmt: skip
        own = 25.0 * (prior - np.einsum("mn,nk,mk->m", cross, solved, cross))
        np.testing.assert_allclose(variance[:, k], own, rtol=1e-4, atol=25.0 * 3e-6)
    average = made.average()
    assert average.process.root.size == 0
    np.testing.assert_allclose(average(test)[:, 0], mean.mean(-1), rtol=1e-5)
    # Given in place of what the sources say, and one molecule in place of a batch.
    moved = eqx.filter_jit(made)(test, jnp.zeros((M, 1)))
    assert np.abs(moved[0] - mean).max() > 0.01
    alone = made(jax.tree.map(lambda leaf: leaf[2], test))
    np.testing.assert_allclose(alone[0], mean[2], rtol=1e-4)


def test_blocks_have_unit_rows_and_a_limit() -> None:
    raw = np.random.default_rng(0).normal(5.0, 3.0, (30, 4))
    raw[:, 2] = 7.0
    block = _process_fit.block("learned", raw)
    assert float((block.rows**2).sum(1).mean()) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(block(jnp.asarray(raw, jnp.float32)), block.rows, atol=1e-5)
    far = np.asarray(block(jnp.array([1e9, -1e9, 1e9, 5.0])))
    assert far[0] == -far[1] == pytest.approx(float(block.limit)) and abs(far[2]) < 1e-6


# Stacking


def test_stacking_weights_are_the_best_ones() -> None:
    """The mode of Σ log Σ w p under a prior of one observation each, which a grid finds too."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=200) + np.where(rng.random(200) < 0.3, 4.0, 0.0)
    density = np.stack([scipy.stats.norm.logpdf(truth, m, 1.0) for m in (0.0, 4.0, 1.0)])

    def value(weight: np.ndarray, density: np.ndarray) -> np.ndarray:
        return np.log(np.exp(density.T) @ weight).sum(0) + np.log(weight).sum(0)

    grid = np.linspace(0.001, 0.999, 999)
    two = _process_fit.stack(density[:2])
    assert abs(two[0] - grid[value(np.stack([grid, 1 - grid]), density[:2]).argmax()]) < 0.0011
    assert abs(two[0] - 0.7) < 3 * np.sqrt(0.21 / 200) and two.sum() == pytest.approx(1.0)
    a, b = (g.ravel() for g in np.meshgrid(grid[::5], grid[::5]))
    simplex = np.stack([a, b, 1 - a - b])[:, a + b < 0.999]
    three = _process_fit.stack(density, iterations=5000)
    assert value(three[:, None], density)[0] >= value(simplex, density).max() - 1e-6
    hopeless = _process_fit.stack(np.stack([density[0], np.full(200, -1e4)]))
    np.testing.assert_allclose(hopeless, [201 / 202, 1 / 202], rtol=1e-6)


def test_draws_are_taken_in_proportion_to_weights() -> None:
    rng = np.random.default_rng(0)

    def candidate(level: float) -> _process_fit.Candidate:
        hyper = Hyper(np.full((16, 2), level), np.ones((16, 2)), np.ones((16, 2)), level + np.arange(16) / 100)
        return _process_fit.Candidate("", np.ones(2), hyper, np.full((16, 5), level), np.ones((16, 5)),
                                      rng.normal(level, 0.1, 5), 0.0, 1.0)  # fmt: skip

    found = [candidate(level) for level in (0.0, 1.5, 1.0)]
    stacked = _process_fit.combine(found)
    count = np.bincount(stacked.owner, minlength=3)
    assert (np.abs(count - 16 * stacked.weight) <= 1).all() and len(set(count)) > 1
    np.testing.assert_array_equal(stacked.loo_mean[:, 0], np.array([0.0, 1.5, 1.0])[stacked.owner])
    np.testing.assert_array_equal(stacked.hyper.linear[:, 0], stacked.loo_mean[:, 0])
    for m in range(3):
        sigma = stacked.hyper.sigma[stacked.owner == m]
        assert len(set(sigma)) == len(sigma)  # a draw is taken once


def test_leaving_out_undoes_the_row_that_draws_have_seen() -> None:
    """Equal draws of p(θ | y): the density of y_i without it is the harmonic mean, while no weight is cut."""
    log_density = np.random.default_rng(0).normal(-1.0, 0.3, (50, 6))
    weight = _process_fit.leave_out(log_density)
    found = scipy.special.logsumexp(log_density + np.log(weight), axis=0)
    np.testing.assert_allclose(found, -np.log(np.exp(-log_density).mean(0)), rtol=1e-10)
    log_density[7, 2] -= 30.0  # a draw that all but excludes y_2 would decide alone, were its weight not cut
    cut = _process_fit.leave_out(log_density)
    np.testing.assert_allclose(cut.sum(0), 1.0)
    np.testing.assert_allclose(np.delete(cut, 2, 1), np.delete(weight, 2, 1))
    assert np.delete(cut[:, 2], 7).max() < 1e-8


# Importance sampling around Laplace's approximation


def skewed(y: jax.Array) -> None:
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(0.0, sigma), obs=y)


def heavy(y: jax.Array) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    shift = numpyro.sample("shift", dist.StudentT(3.0, 0.0, 2.0))
    numpyro.sample("y", dist.Normal(shift, scale + 0.1), obs=y)


def quadrature(model: str, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Log evidence, and means and standard deviations of the sites, on a fine grid."""
    positive = np.exp(np.linspace(-9, 4, 1201))
    norm = scipy.stats.norm
    if model == "skewed":
        log_p = scipy.stats.halfnorm.logpdf(positive, scale=2.0) + norm.logpdf(y[:, None], 0.0, positive).sum(0)
        weight, sites = np.exp(log_p) * np.gradient(positive), [positive]
    else:
        shift = np.linspace(-12, 12, 1201)
        log_p = scipy.stats.halfnorm.logpdf(positive)[:, None] + scipy.stats.t.logpdf(shift, 3.0, 0.0, 2.0)
        log_p = log_p + norm.logpdf(y[:, None, None], shift, positive[:, None] + 0.1).sum(0)
        weight = np.exp(log_p) * np.gradient(positive)[:, None] * np.gradient(shift)
        sites = [positive[:, None], shift]
    total = weight.sum()
    mean = [(weight * site).sum() / total for site in sites]
    sd = [np.sqrt((weight * (site - m) ** 2).sum() / total) for site, m in zip(sites, mean, strict=True)]
    return float(np.log(total)), np.array([mean, sd])


@pytest.mark.parametrize(("model", "sites"), [(skewed, ("sigma",)), (heavy, ("scale", "shift"))])
def test_importance_sampling_against_quadrature(model, sites) -> None:
    y = np.array([0.4, -1.1, 0.9])
    log_evidence, (mean, sd) = quadrature(model.__name__, y)
    num, far = 4000, []
    for seed in range(6):
        idata = infer.laplace(model, {"y": y}, jax.random.key(seed), num_draws=num, num_proposals=num)
        effective = idata.attrs["effective_draws"]
        assert 0.3 * num < effective <= num and idata.attrs["num_proposals"] == num
        far.append((idata.attrs["log_evidence"] - log_evidence) / np.sqrt(1 / effective - 1 / num))
        for site, m, s in zip(sites, mean, sd, strict=True):
            draws = idata.posterior[site].values[0]
            assert abs(draws.mean() - m) < 4 * s / np.sqrt(effective / 2)
            assert draws.std() == pytest.approx(s, rel=0.15)
    assert np.abs(far).max() < 4 and abs(np.mean(far)) < 4 / np.sqrt(6)
    plain = infer.laplace(model, {"y": y}, jax.random.key(0))
    error = abs(plain.attrs["log_evidence"] - log_evidence)
    assert error > 4 * abs(np.mean(far)) * np.sqrt(1 / effective - 1 / num) / np.sqrt(6)  # what the proposals mend


def test_programs_are_shared_and_fits_do_not_depend_on_their_order() -> None:
    traced = []

    def model(x: jax.Array, y: jax.Array) -> None:
        traced.append(x.shape)
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.StudentT(4.0, x @ w, sigma), obs=y)

    def run(seed: int, n: int = 8, num: int = 64) -> np.ndarray:
        x = np.random.default_rng(seed).normal(size=(n, 2))
        idata = infer.laplace(model, {"x": x, "y": x @ [1.0, seed]}, jax.random.key(seed), num_draws=num,
                              num_proposals=num)  # fmt: skip
        return idata.posterior["w"].values[0]

    first, count = run(3), len(traced)
    second = run(4)
    assert len(traced) == count and not np.array_equal(first, second)
    run(5, n=9)
    assert len(traced) > count
    _laplace._PROGRAMS.clear()
    np.testing.assert_array_equal(run(4), second)  # now it comes first
    np.testing.assert_array_equal(run(3), first)
    assert len(_laplace._PROGRAMS) == 1
    with pytest.raises(BayesmatError, match="num_proposals >= 0"):
        infer.laplace(model, {"x": np.ones((8, 2)), "y": np.ones(8)}, jax.random.key(0), num_proposals=-1)


# Small fits of a property that is known


ROWS = 40
CORPUS = data.load("boiling_point").organic()


def property_of(smiles: tuple[str, ...], noise: float = 5.0, seed: int = 0) -> np.ndarray:
    """A property that grows with size and with hydrogen bonds, and is measured with errors."""
    size = np.array([sum(c.isalpha() for c in text) for text in smiles])
    bonds = np.array([text.count("O") + text.count("N") for text in smiles])
    return 300 + 60 * np.sqrt(size) + 25 * bonds + noise * np.random.default_rng(seed).normal(size=len(smiles))


def table(rows: np.ndarray, name: str = "known", scramble: bool = False) -> data.PropertyTable:
    part = CORPUS.subset(rows)
    y = property_of(part.smiles)
    y = np.random.default_rng(1).permutation(y) if scramble else y
    return replace(part, name=name, label=name, unit="K", y=y)


def fit(rows: np.ndarray, seed: int = 0, scramble: bool = False, **options) -> forward.Fitted:
    options = {"key": jax.random.key(seed), "cache": False, "progress": False} | options
    return forward.fit(table(rows, scramble=scramble), **options)


@pytest.fixture(scope="module")
def split() -> list[np.ndarray]:
    """Ten sets of rows that share none."""
    readable = encode(CORPUS.smiles, ALPHABET).kept
    order = np.random.default_rng(7).permutation(readable)
    return list(order[: 10 * ROWS].reshape(10, ROWS))


@pytest.fixture(scope="module")
def source(split) -> forward.Fitted:
    return fit(split[8])


@pytest.fixture(scope="module")
def scrambled(split) -> forward.Fitted:
    return fit(split[9], scramble=True)


@pytest.fixture(scope="module")
def fitted(split, source) -> forward.Fitted:
    return fit(split[0], sources=[source])


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_same_key_same_bits(split, source, fitted) -> None:
    assert same(fit(split[0], sources=[source]).predictor, fitted.predictor)
    other = fit(split[0], seed=1, sources=[source])
    assert not same(other.predictor, fitted.predictor)
    apart = np.asarray(other.loo_mean - fitted.loo_mean)
    assert np.sqrt((apart**2).mean()) < 0.5 * fitted.calibration.rmse  # another key is another estimate of the same


def test_save_and_load_same_bits(tmp_path, fitted) -> None:
    folder = forward.save(fitted, tmp_path / "fit")
    again = forward.load(folder)
    assert same(again.predictor, fitted.predictor) and same(again.applicability, fitted.applicability)
    assert same(again.sources[0].predictor, fitted.sources[0].predictor)
    assert again.summary() == fitted.summary() and again.fingerprint == fitted.fingerprint
    for name in ("mean", "sd", "applicability"):
        found, expected = (getattr(f.predict_smiles(["CCO", "c1ccccc1"]), name) for f in (again, fitted))
        np.testing.assert_array_equal(found, expected)


def test_conformal_intervals_of_a_fit(fitted) -> None:
    """They have the training molecules' own leave-one-out errors inside, as many as they say."""
    low, high = fitted.interval_ends(0.9, "conformal")
    pit = fitted.calibration.pit
    assert low + high == pytest.approx(1.0)
    assert ((pit >= low - 1e-9) & (pit <= high + 1e-9)).sum() == np.ceil(0.9 * (len(pit) + 1))
    smiles = ["CCO", "c1ccccc1", "CC(=O)CC"]
    kinds = ("posterior", "conformal")
    usual, conformal = (fitted.predict_smiles(smiles, choice) for choice in kinds)
    expected = np.asarray(usual.predictive.loc), np.asarray(usual.predictive.scale)
    exact = forward.Predictive(*expected, usual.predictive.log).quantiles((low, high))
    np.testing.assert_allclose(np.stack([conformal.lower90, conformal.upper90], 1), exact, rtol=1e-5)
    for name in ("mean", "sd", "applicability"):
        np.testing.assert_allclose(getattr(usual, name), getattr(conformal, name), rtol=1e-5)
    assert fitted.interval_ends() == pytest.approx((0.05, 0.95))
    assert fitted.interval_ends(0.9, "recalibrated")[0] == pytest.approx(
        0.5 - fitted.calibration.recalibrated_level() / 2
    )
    with pytest.raises(BayesmatError, match="intervals 'bayes'; allowed are posterior, recalibrated, conformal"):
        fitted.interval_ends(0.9, "bayes")
    with pytest.raises(BayesmatError, match="level is 90; allowed is a number between 0 and 1"):
        fitted.interval_ends(90)


HOSTILE = {
    "a module that is not on the list": (lambda p: p.update(module="Popen"), "not a saved fit"),
    "a builtin": (lambda p: p.update(module="eval"), "not a saved fit"),
    "a class that is no predictor": (lambda p: p.update(p["parts"]["process"]), "no predictor"),
    "a missing part": (lambda p: p["parts"].pop("stretch"), "has parts"),
    "a part too many": (lambda p: p["parts"].update(more=1), "has parts"),
    "an array that is not there": (lambda p: p["parts"].update(stretch={"array": "nowhere"}), "not a saved fit"),
    "another alphabet": (lambda p: p["parts"]["alphabet"]["alphabet"].update(height=3), "not a saved fit"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_card_is_refused(tmp_path_factory, fitted, name) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    if not folder.exists():
        forward.save(fitted, folder)
    card = folder / "card.json"
    text = card.read_text()
    change, message = HOSTILE[name]
    content = json.loads(text)
    change(content["predictor"])
    try:
        card.write_text(json.dumps(content))
        with pytest.raises(BayesmatError, match=message):
            forward.load(folder)
    finally:
        card.write_text(text)


def test_what_a_fit_says_of_itself(fitted) -> None:
    constant, posterior = fitted.idata.constant_data, fitted.idata.posterior
    names = ["no transfer", "learned", "properties", "sources", "all"]
    assert constant["candidate"].values.tolist() == names
    assert float(constant["weight"].sum()) == pytest.approx(1.0)
    assert (constant["effective_draws"].values > 3).all()
    assert posterior["scale"].shape == (1, 32, 10) and posterior["length"].shape == (1, 32, 5)
    assert (posterior["scale"].sel(group="descriptors linear") > 0).all() and (posterior["model"] < 5).all()
    assert fitted.predictor.num_draws == 64 + _process_fit.exceptions(len(fitted.y), 64) > 64
    assert fitted.idata.attrs["inference"] == "importance"
    said = fitted.summary()
    assert "Gaussian process in y" in said and "stacked: no transfer" in said and "nats per measurement" in said
    assert "one molecule in 22 may be an exception" in said  # 3 of 67 components
    assert "transfers from known" in said


@pytest.mark.parametrize("away", [-8.0, -2.0, 0.0, 3.0, 8.0])
def test_no_measurement_costs_much_more_than_predicting_the_mean(fitted, away) -> None:
    """However sure a fit is: 3 of its 67 components are for exceptions, see `_process.exception`."""
    value = np.log(fitted.y) if fitted.predictor.log else fitted.y
    n, center, sd = len(value), value.mean(), value.std(ddof=1)
    measured = center + away * sd
    predicts_the_mean = scipy.stats.norm(center, sd * np.sqrt(1 + 1 / n)).logpdf(measured)
    found = fitted.predict_smiles(["CCCO", "CCCCCCN", "O=C(C)OCC"]).predictive
    in_modelling_space = forward.Predictive(found.loc, found.scale, False)
    d = (np.asarray(found.loc).mean(1) - center) / sd
    bound = np.log(67 / 3) + 0.5 + 0.5 * np.log1p(d**2)
    assert (np.asarray(in_modelling_space.log_prob(measured)) > predicts_the_mean - bound - 1e-3).all()


def test_leave_one_out_predictions_cover(fitted, source) -> None:
    for found in (fitted.calibration, source.calibration):
        assert found.num_points == ROWS and found.kind == "leave-one-out"
        assert abs(found.coverage[0.9] - 0.9) < 3 * found.coverage_error(0.9)
        assert scipy.stats.kstest(found.pit, "uniform").pvalue > 0.001
        assert found.rmse < 0.5 * found.observed.std()


def test_a_scrambled_source_costs_nothing_and_a_true_one_helps(split, source, scrambled) -> None:
    held_out = table(np.concatenate(split[5:8]))
    features = compute_features(encode(held_out.smiles, ALPHABET).tokens, ALPHABET)
    errors, scale, inside = [], [], []
    for rows in split[:4]:
        fits = [fit(rows, sources=sources) for sources in ([], [scrambled], [source])]
        judged = [calibrate(f.predict_features(features), held_out.y, "", "K", "held-out") for f in fits]
        errors.append([np.log(found.rmse) for found in judged])
        inside.append(judged[1].coverage[0.9])
        scale.append([float(f.idata.posterior["scale"].sel(group=f"sources {kind}").mean())
                      for f in fits[1:] for kind in ("linear", "smooth")])  # fmt: skip
    without, wrong, right = np.array(errors).T
    spread = np.sqrt((wrong - without).var(ddof=1) / 4)
    assert (wrong - without).mean() < 3 * spread + 0.02, (wrong - without, spread)
    assert (right - without).mean() < 0.0 and (right - wrong).mean() < 0.0
    linear_wrong, _, linear_right, _ = np.mean(scale, 0)
    assert linear_wrong < 0.5 * linear_right
    assert 0.8 < np.mean(inside) < 0.99


@pytest.mark.slow
def test_every_way_to_ask_gives_one_answer(fitted) -> None:
    smiles = ["CCCO", "c1ccccc1C", "CCCCCCN", "O=C(C)OCC"]
    tokens = jnp.asarray(encode(smiles, ALPHABET).tokens)
    traces = []

    @eqx.filter_jit
    def inside(predictor, tokens):
        traces.append(tokens.shape)
        return jax.vmap(predictor)(tokens)

    whole = fitted.predict(tokens)
    mapped = inside(fitted.predictor, tokens)
    inside(jax.tree.map(lambda leaf: 1.0 * leaf, fitted.predictor), tokens[::-1])
    assert len(traces) == 1 and whole.loc.shape == (4, fitted.predictor.num_draws) and whole.loc.dtype == jnp.float32
    found = fitted.predict_smiles(smiles)
    for name in ("loc", "scale"):
        expected = np.asarray(getattr(whole, name))
        for p in (mapped, found.predictive):
            np.testing.assert_allclose(getattr(p, name), expected, rtol=2e-4)
    np.testing.assert_allclose(found.mean, whole.mean(), rtol=1e-4)
    np.testing.assert_allclose(found.sd, whole.sd(), rtol=1e-3)
    given = fitted.predict_features(fitted.predictor.features(tokens))
    np.testing.assert_allclose(given.loc, whole.loc, rtol=2e-4)
    with pytest.raises(BayesmatError, match="length 80"):
        fitted.predictor(tokens[:, :40])


def test_applicability_of_a_fit(fitted) -> None:
    known = fitted.predict_smiles(fitted.smiles[:20])
    np.testing.assert_allclose(known.applicability, 1.0)
    foreign = fitted.predict_smiles(["F" + "C(F)(F)" * 12 + "F", "C[Si](C)(C)O[Si](C)(C)O[Si](C)(C)C"])
    assert (foreign.applicability < 2.01 / (ROWS + 1)).all()
    assert foreign.sd.min() > np.median(known.sd)
