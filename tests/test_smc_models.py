"""SMC on models with continuous and discrete sites: closed forms, another library, simulation-based calibration."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

from bayesmat import chem, nn, prior, smc

NUM_SEEDS = 12


def runs(sampler: smc.SMC, num: int, *args) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Log evidences and samples of several seeds."""
    evidences, samples = [], []
    for seed in range(num):
        sampler.run(jax.random.key(seed), *args)
        assert sampler.status == smc.Status.CONVERGED
        evidences.append(sampler.log_evidence)
        samples.append({name: np.asarray(value) for name, value in sampler.get_samples().items()})
    return np.array(evidences), samples


def assert_mean(values: np.ndarray, exact: np.ndarray | float, factor: float = 4.0) -> None:
    """Means over runs against what is exact, within `factor` of their standard errors."""
    values = np.asarray(values)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - exact) < factor * error).all(), (values.mean(0), exact, error)


@pytest.mark.parametrize("kernel", [smc.RandomWalk(), smc.HMC()], ids=lambda kernel: kernel.name)
def test_linear_gaussian_model_has_its_closed_form(kernel) -> None:
    """y = Xw + ε: evidence, posterior mean and covariance are known."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)) @ np.array([[1.0, 0.9, 0], [0, 0.5, 0.2], [0, 0, 1.5]])
    y = x @ np.array([1.0, -0.5, 0.3]) + 0.4 * rng.normal(size=12)

    def linear(x, y) -> None:
        w = numpyro.sample("w", dist.Normal(0.2, 1.5).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ w, 0.4), obs=y)

    precision = np.eye(3) / 1.5**2 + x.T @ x / 0.4**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.full(3, 0.2) / 1.5**2 + x.T @ y / 0.4**2)
    exact = scipy.stats.multivariate_normal(x @ np.full(3, 0.2), 0.4**2 * np.eye(12) + 1.5**2 * x @ x.T).logpdf(y)
    sampler = smc.SMC(linear, 512, [kernel], num_moves=8, progress_bar=False)
    evidences, samples = runs(sampler, NUM_SEEDS, jnp.asarray(x), jnp.asarray(y))
    assert_mean(np.exp(evidences - exact), 1.0)
    assert np.std(evidences) < 0.4
    assert_mean([s["w"].mean(0) for s in samples], mean)
    second = [((s["w"] - mean)[:, :, None] * (s["w"] - mean)[:, None]).mean(0).ravel() for s in samples]
    assert_mean(second, covariance.ravel())


def test_constrained_sites_and_priors_that_depend_on_each_other() -> None:
    """s ~ Gamma, z ~ U(0, s), both constrained, against quadrature; the support of one site depends on the other."""

    def nested() -> None:
        s = numpyro.sample("s", dist.Gamma(2.0, 1.0))
        z = numpyro.sample("z", dist.Uniform(0.0, s))
        numpyro.sample("y", dist.Normal(z, 0.5), obs=jnp.array(1.7))

    s = np.linspace(1e-4, 25, 4001)[:, None]
    u = (np.arange(2000) + 0.5)[None] / 2000
    density = scipy.stats.gamma(2.0).pdf(s) * scipy.stats.norm(1.7, 0.5).pdf(u * s)
    weight = density / density.sum()
    exact = np.log(density.mean(1).sum() * (s[1, 0] - s[0, 0]))
    evidences, samples = runs(smc.SMC(nested, 512, num_moves=6, progress_bar=False), NUM_SEEDS)
    assert_mean(np.exp(evidences - exact), 1.0)
    assert all(((draw["z"] > 0) & (draw["z"] < draw["s"])).all() for draw in samples)
    statistics = [[draw["s"].mean(), draw["z"].mean(), (draw["s"] < 2).mean()] for draw in samples]
    assert_mean(statistics, [(weight * s).sum(), (weight * u * s).sum(), (weight * (s < 2)).sum()])


def test_counts_without_end_and_classes_in_plates() -> None:
    """A Poisson site gets draws from its prior, Bernoulli sites in a plate a Gibbs sweep; both by summation."""

    def counting(y) -> None:
        n = numpyro.sample("n", dist.Poisson(3.0))
        with numpyro.plate("flags", 3):
            flag = numpyro.sample("flag", dist.Bernoulli(jnp.array([0.2, 0.5, 0.7])))
        numpyro.sample("y", dist.Normal(n + (flag * jnp.array([1.0, 2.0, 4.0])).sum(), 0.9), obs=y)

    n = np.arange(40)
    flags = np.array(list(np.ndindex(2, 2, 2)))
    p_flag = np.prod(np.where(flags == 1, [0.2, 0.5, 0.7], [0.8, 0.5, 0.3]), 1)
    weight = scipy.stats.poisson(3.0).pmf(n)[:, None] * p_flag
    weight = weight * scipy.stats.norm(n[:, None] + flags @ np.array([1.0, 2, 4]), 0.9).pdf(7.3)
    posterior = weight / weight.sum()
    sampler = smc.SMC(counting, 512, num_moves=6, progress_bar=False)
    evidences, samples = runs(sampler, NUM_SEEDS, jnp.array(7.3))
    assert_mean(np.exp(evidences - np.log(weight.sum())), 1.0)
    statistics = [[s["n"].mean(), *s["flag"].mean(0)] for s in samples]
    assert_mean(statistics, [n @ posterior.sum(1), *(posterior.sum(0) @ flags)])
    columns = set(sampler.diagnostics().columns)
    assert {"n: prior draw accepted", "flag: Gibbs accepted"} <= columns
    assert {"flag[0]", "flag[2]", "n", "weight"} <= set(sampler.to_dataframe().columns)


def banana_log_likelihood(z):
    return -0.5 * ((z[1] - z[0] ** 2) / 0.25) ** 2 - 0.5 * ((z[0] - 0.8) / 0.6) ** 2


def test_banana_agrees_with_blackjax_and_with_quadrature() -> None:
    blackjax = pytest.importorskip("blackjax")
    from blackjax.smc import extend_params, resampling

    def banana() -> None:
        z = numpyro.sample("z", dist.Normal(0.0, 1.5).expand([2]).to_event(1))
        numpyro.factor("target", banana_log_likelihood(z))

    grid = np.linspace(-6, 8, 1401)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"))
    density = scipy.stats.norm(0, 1.5).pdf(points).prod(0) * np.exp(banana_log_likelihood(points))
    exact = density.sum() * (grid[1] - grid[0]) ** 2
    weight = density / density.sum()
    exact_means = np.array([(weight * points[0]).sum(), (weight * points[1]).sum(), (weight * points[0] ** 2).sum()])

    sampler = smc.SMC(banana, 512, num_moves=10, progress_bar=False)
    evidences, samples = runs(sampler, NUM_SEEDS)
    ours = np.array([[s["z"][:, 0].mean(), s["z"][:, 1].mean(), (s["z"][:, 0] ** 2).mean()] for s in samples])

    algorithm = blackjax.adaptive_tempered_smc(
        lambda z: dist.Normal(0.0, 1.5).log_prob(z).sum(),
        banana_log_likelihood,
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        extend_params({"step_size": 0.2, "inverse_mass_matrix": jnp.ones(2), "num_integration_steps": 8}),
        resampling.systematic,
        0.5,
        num_mcmc_steps=10,
    )
    step = jax.jit(algorithm.step)
    theirs, their_evidences = [], []
    for seed in range(NUM_SEEDS):
        key = jax.random.key(seed)
        state = algorithm.init(1.5 * jax.random.normal(key, (512, 2)))
        log_evidence, count = 0.0, 0
        while float(state.tempering_param) < 1 and count < 50:
            state, info = step(jax.random.fold_in(key, count), state)
            log_evidence, count = log_evidence + float(info.log_likelihood_increment), count + 1
        z = np.asarray(state.particles)
        theirs.append([z[:, 0].mean(), z[:, 1].mean(), (z[:, 0] ** 2).mean()])
        their_evidences.append(log_evidence)
    assert_mean(np.exp(evidences) / exact, 1.0)
    assert_mean(ours, exact_means)
    theirs, difference = np.array(theirs), ours.mean(0) - np.mean(theirs, 0)
    error = np.sqrt((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / NUM_SEEDS)
    assert (np.abs(difference) < 4 * error).all()
    ratio = np.exp(evidences).mean() / np.exp(their_evidences).mean()
    spread = np.hypot(np.exp(evidences - np.log(exact)).std(), np.exp(np.array(their_evidences) - np.log(exact)).std())
    assert abs(ratio - 1) < 4 * spread / np.sqrt(NUM_SEEDS)


ALPHABET = chem.Alphabet.organic(length=16)
CORPUS = ["CCO", "CCCO", "CC(C)O", "CCN", "CC(=O)O", "c1ccccc1", "CCOCC", "CC(=O)C", "CCCCCC", "OCCO", "CC#N", "CCF"]
CORPUS += ["C1CCCCC1", "CCCl", "C=CC=C", "CC(N)=O", "COC=O", "c1ccoc1", "NCCO", "CC(C)(C)C", "O=CC", "CSC", "CCCCO"]


def log_p(x):
    """The octanol-water partition coefficient of a string (Crippen), some -2 … 4."""
    values = nn.physicochemical(chem.decode(x, ALPHABET), ALPHABET)
    return values[nn.PHYSICOCHEMICAL_NAMES.index("log_p")]


def weight_of(x):
    """Molecular weight [g/mol]."""
    return nn.physicochemical(chem.decode(x, ALPHABET), ALPHABET)[nn.PHYSICOCHEMICAL_NAMES.index("molecular_weight")]


def calibration_ranks(noise_of_model: float, repeats: int, slope_of_model: float = 0.2) -> np.ndarray:
    """Ranks `(repeats,)` of the true molecular weight among 9 posterior draws.

    Draw a molecule from the prior and a measurement from the forward model, whose slope is uncertain; then sample the
    posterior of the molecule. Talts et al. 2018, arXiv:1804.06788.
    """
    p_x = prior.fit_ngram(CORPUS, ALPHABET, order=4)

    def inverse(y, noise) -> None:
        x = numpyro.sample("molecule", p_x)
        slope = numpyro.sample("slope", dist.Normal(1.0, slope_of_model))
        numpyro.deterministic("weight", weight_of(x))
        numpyro.sample("y", dist.Normal(slope * log_p(x), noise), obs=y)

    sampler = smc.SMC(inverse, 256, num_moves=4, jit_model_args=True, progress_bar=False)
    truth = np.random.default_rng(0)
    strings = jax.jit(lambda key: p_x.sample(key, (repeats,)))(jax.random.key(11))
    described = jax.jit(jax.vmap(lambda x: (log_p(x), weight_of(x))))(strings)
    ranks = []
    for i, (value, weight) in enumerate(zip(*map(np.asarray, described), strict=True)):
        y = truth.normal(1.0, 0.2) * value + 0.3 * truth.normal()
        sampler.run(jax.random.key(i), jnp.float32(y), jnp.float32(noise_of_model))
        drawn = np.asarray(sampler.get_samples()["weight"])[truth.choice(256, 9, replace=False)]
        # Molecules repeat, so ties are broken by chance.
        below, ties = (drawn < weight - 1e-3).sum(), (np.abs(drawn - weight) <= 1e-3).sum()
        ranks.append(below + truth.integers(0, ties + 1))
    return np.array(ranks)


def chi_square(ranks: np.ndarray) -> float:
    """p-value of uniform ranks 0 … 9."""
    return float(scipy.stats.chisquare(np.bincount(ranks, minlength=10)).pvalue)


@pytest.mark.slow
def test_inverse_problem_is_calibrated_end_to_end() -> None:
    ranks = calibration_ranks(0.3, 60)
    assert chi_square(ranks) > 0.005, np.bincount(ranks, minlength=10)


@pytest.mark.slow
def test_calibration_notices_a_wrong_forward_model() -> None:
    """The power of the test above: a model ten times too sure of noise and slope is caught, and 600 runs are fine."""
    assert chi_square(calibration_ranks(0.03, 120, slope_of_model=0.02)) < 1e-4
    assert chi_square(calibration_ranks(0.3, 600)) > 0.005


def test_inference_data_holds_every_island() -> None:
    def normal() -> None:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.deterministic("square", z**2)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.array(1.0))

    sampler = smc.SMC(normal, 64, [smc.RandomWalk()], num_moves=2, islands=3, progress_bar=False)
    sampler.run(jax.random.key(0))
    idata = sampler.to_inference_data()
    assert idata.posterior["z"].shape == (3, 64) and idata.prior["square"].shape == (3, 64)
    np.testing.assert_allclose(idata.posterior["square"], idata.posterior["z"] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(idata.constant_data["log_evidence"], sampler.log_evidences)
    grouped = sampler.get_samples(group_by_island=True)["z"]
    np.testing.assert_array_equal(grouped, idata.posterior["z"])
    assert 0 < sampler.log_evidence_se < 1
    assert abs(sampler.weights.sum() - 1) < 1e-12
    pooled = np.asarray(sampler.get_samples()["z"])
    assert pooled.shape == (192,)
    assert abs(pooled.mean() - sampler.weights @ np.asarray(grouped).ravel()) < 0.05
