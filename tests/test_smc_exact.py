"""SMC against enumeration: exact transition matrices first, Monte Carlo second."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from enumeration import TINY, all_strings, regrow_matrices, tiny_prior

from bayesmat import BayesmatError, smc


@pytest.fixture(scope="module")
def strings() -> np.ndarray:
    return all_strings(TINY)


@pytest.fixture(scope="module")
def p(strings) -> np.ndarray:
    values = np.exp(np.asarray(jax.jit(tiny_prior().log_prob)(strings), np.float64))
    return values / values.sum()


def asymmetric_log_likelihood(strings: np.ndarray) -> np.ndarray:
    """Favours oxygen and long strings, forbids fluorine in all but the shortest; nothing symmetric about it."""
    carbon, oxygen, fluorine = (TINY.names.index(name) for name in "COF")
    length = (strings > 0).sum(1)
    value = 1.7 * (strings == oxygen).sum(1) + 0.9 * length - 0.4 * (strings == carbon).sum(1) ** 1.5
    return np.where(((strings == fluorine).any(1)) & (length > 2), -np.inf, value - 4.0)


def tempered(p: np.ndarray, log_likelihood: np.ndarray, beta: float) -> np.ndarray:
    weight = np.where(np.isfinite(log_likelihood), p * np.exp(beta * np.nan_to_num(log_likelihood, neginf=0)), 0)
    return weight / weight.sum()


def regrow_transition(strings: np.ndarray, p: np.ndarray, ell: np.ndarray, beta: float, corrected: bool) -> np.ndarray:
    """The exact transition matrix of `regrow_suffix`, with the acceptance that the sampler itself computes."""
    with jax.enable_x64(True):
        n = jnp.asarray((strings > 0).sum(1), jnp.float64)
        correction = smc.cut_correction(n[:, None], n[None, :]) if corrected else jnp.zeros((len(n), len(n)))
        here, there = jnp.asarray(ell)[:, None], jnp.asarray(ell)[None]
        log_alpha = smc.accept_log_prob(jnp.float64(beta), here, there, correction)
        alpha = np.exp(np.asarray(log_alpha))
    lengths = (strings > 0).sum(1)
    moves = np.zeros((len(strings), len(strings)))
    for cut, law in enumerate(regrow_matrices(strings, p)):
        moves += np.where(cut <= lengths, 1.0 / (lengths + 1), 0.0)[:, None] * law * alpha
    moves[np.diag_indices_from(moves)] += 1.0 - moves.sum(1)
    return moves


def test_space_is_worth_the_name(strings) -> None:
    assert 200 < len(strings) < 20_000
    assert len(np.unique(strings, axis=0)) == len(strings)


@pytest.mark.parametrize("beta", [0.15, 0.6, 1.0])
def test_regrow_leaves_the_tempered_target_invariant(strings, p, beta) -> None:
    ell = asymmetric_log_likelihood(strings)
    target = tempered(p, ell, beta)
    transition = regrow_transition(strings, p, ell, beta, corrected=True)
    assert (transition >= -1e-15).all()
    assert np.abs(target @ transition - target).sum() <= 1e-10


def test_without_its_correction_the_kernel_is_wrong(strings, p) -> None:
    ell = asymmetric_log_likelihood(strings)
    target = tempered(p, ell, 1.0)
    transition = regrow_transition(strings, p, ell, 1.0, corrected=False)
    assert np.abs(target @ transition - target).sum() > 1e-3


def test_published_loop_fails_the_same_test(strings, p) -> None:
    """iQSPR (Ikebata 2017): delete a tail, regrow, always keep, then resample by the likelihood.

    Its fixed point is the leading left eigenvector of mutation times selection, not the posterior.
    """
    ell = asymmetric_log_likelihood(strings)
    target = tempered(p, ell, 1.0)
    mutation = regrow_transition(strings, p, np.zeros(len(p)), 0.0, corrected=False)
    selection = np.where(np.isfinite(ell), np.exp(np.nan_to_num(ell, neginf=0)), 0.0)
    after = (target @ mutation) * selection
    assert np.abs(after / after.sum() - target).sum() > 0.01
    fixed = np.full(len(p), 1.0 / len(p))
    for _ in range(500):
        fixed = (fixed @ mutation) * selection
        fixed /= fixed.sum()
    assert 0.5 * np.abs(fixed - target).sum() > 0.05


def test_regrow_draws_from_the_conditional_prior(strings, p) -> None:
    """The compiled draw against the exact law, by a chi-square at one string and every cut."""
    prior, num = tiny_prior(), 20_000
    index = {row.tobytes(): i for i, row in enumerate(strings)}
    start = int(np.argmax((strings > 0).sum(1) * (p > np.quantile(p, 0.9))))
    laws = regrow_matrices(strings, p)
    draw = jax.jit(jax.vmap(prior.regrow, in_axes=(0, None, None)))
    for cut in range(TINY.length + 1):
        keys = jax.random.split(jax.random.key(cut), num)
        drawn = np.asarray(draw(keys, jnp.asarray(strings[start]), jnp.asarray(cut)))
        counts = np.bincount([index[row.tobytes()] for row in drawn], minlength=len(strings))
        expected = num * laws[cut][start]
        assert counts[expected == 0].sum() == 0
        big = expected >= 5
        counts, expected = np.append(counts[big], counts[~big].sum()), np.append(expected[big], expected[~big].sum())
        keep = expected > 0
        chi2, freedom = ((counts - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1
        assert chi2 < freedom + 5 * np.sqrt(2 * freedom) + 5


def inverse_problem(strings: np.ndarray, ell: np.ndarray):
    """A NumPyro model whose likelihood is the table `ell`, looked up by a hash of the string."""
    base = TINY.num_tokens ** np.arange(TINY.length)
    keys = strings @ base
    order = np.argsort(keys)
    sorted_keys, values = jnp.asarray(keys[order].astype(np.int32)), jnp.asarray(ell[order], jnp.float32)

    def model() -> None:
        x = numpyro.sample("molecule", tiny_prior())
        numpyro.factor("target", values[jnp.searchsorted(sorted_keys, (x * jnp.asarray(base, jnp.int32)).sum())])

    return model


def test_evidence_and_marginals_agree_with_enumeration(strings, p) -> None:
    ell = 0.5 * asymmetric_log_likelihood(strings)
    log_evidence = np.log(np.where(np.isfinite(ell), p * np.exp(np.nan_to_num(ell, neginf=0)), 0).sum())
    target = tempered(p, ell, 1.0)
    sampler = smc.SMC(inverse_problem(strings, ell), num_particles=1024, num_moves=4, progress_bar=False)
    index = {row.tobytes(): i for i, row in enumerate(strings)}
    lengths, oxygens = (strings > 0).sum(1), (strings == TINY.names.index("O")).sum(1)
    errors, statistics = [], []
    for seed in range(20):
        sampler.run(jax.random.key(seed))
        assert sampler.status == smc.Status.CONVERGED
        rows = [index[row.tobytes()] for row in np.asarray(sampler.get_samples()["molecule"])]
        assert np.isfinite(ell[rows]).all()
        errors.append(sampler.log_evidence - log_evidence)
        statistics.append([lengths[rows].mean(), oxygens[rows].mean(), (oxygens[rows] == 0).mean()])
    ratios, statistics = np.exp(errors), np.array(statistics)
    exact = np.array([target @ lengths, target @ oxygens, target @ (oxygens == 0)])
    # Means over 20 runs, within four standard errors of themselves.
    assert abs(ratios.mean() - 1) < 4 * ratios.std(ddof=1) / np.sqrt(20)
    assert ratios.std(ddof=1) < 0.25
    assert (np.abs(statistics.mean(0) - exact) < 4 * statistics.std(0, ddof=1) / np.sqrt(20)).all()


def test_same_key_same_particles_and_one_compilation(strings) -> None:
    ell = asymmetric_log_likelihood(strings)
    sampler = smc.SMC(inverse_problem(strings, ell), num_particles=64, num_moves=1, progress_bar=False)
    sampler.run(jax.random.key(3))
    first = np.asarray(sampler.get_samples()["molecule"])
    sampler.run(jax.random.key(3))
    np.testing.assert_array_equal(first, np.asarray(sampler.get_samples()["molecule"]))
    sampler.run(jax.random.key(4))
    assert not np.array_equal(first, np.asarray(sampler.get_samples()["molecule"]))
    (program,) = sampler._compiled.values()
    assert program._cache_size() == 1


def test_impossible_target_ends_with_a_status(strings) -> None:
    sampler = smc.SMC(inverse_problem(strings, np.full(len(strings), -np.inf)), num_particles=32, progress_bar=False)
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.NO_MASS
    assert sampler.log_evidence == -np.inf
    assert "zero everywhere" in sampler.summary()


def test_sharp_target_ends_below_one_when_temperatures_run_out(strings) -> None:
    ell = 500.0 * np.arange(len(strings)) - 1e6
    sampler = smc.SMC(
        inverse_problem(strings, ell), num_particles=32, num_moves=1, max_temperatures=2, progress_bar=False
    )
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.TOO_MANY_TEMPERATURES
    assert 0 < sampler.temperatures[-1] < 1 and np.isfinite(sampler.log_evidence)


def test_models_that_cannot_be_sampled_are_refused() -> None:
    def continuous() -> None:
        z = numpyro.sample("z", numpyro.distributions.Normal(0, 1))
        numpyro.factor("target", -(z**2))

    def nothing() -> None:
        numpyro.factor("target", jnp.asarray(0.0))

    def prior_only() -> None:
        numpyro.sample("molecule", tiny_prior())

    for model, message in ((continuous, "'z'"), (nothing, "no latent site"), (prior_only, "no observed site")):
        with pytest.raises(BayesmatError, match=message):
            smc.SMC(model, progress_bar=False).run(jax.random.key(0))
    with pytest.raises(BayesmatError, match="target_ess"):
        smc.SMC(prior_only, target_ess=1.5)
