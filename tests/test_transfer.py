"""Transfer models and heads: their special cases against direct computation, and the calibration of one of them."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC, NUTS, Predictive, init_to_median
from numpyro.infer.util import log_density
from scipy.stats import multivariate_normal

from bayesmat._types import BayesmatError
from bayesmat.forward._heads import (
    NoisyRows,
    Rows,
    binary_model,
    class_model,
    frozen_model,
    horseshoe_weights,
    multitask_model,
    noisy_model,
)
from bayesmat.forward._transfer import (
    ModuleRows,
    SourceRows,
    TauRho,
    affine_model,
    affine_predict,
    anchored_model,
    anchored_prior,
    linear,
    rbf,
    tau_rho_model,
    tau_rho_predict,
)

RNG = np.random.default_rng(0)
N, D, NEW = 8, 3, 4
X, SOURCE, Y = RNG.normal(size=(N, D)), RNG.normal(size=N), RNG.normal(size=N)
X_NEW, SOURCE_NEW = RNG.normal(size=(NEW, D)), RNG.normal(size=NEW)
DATA = SourceRows(SOURCE, X, Y)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def density(model, theta, **data):
    """log p(y | θ) and log p(θ)."""

    @jax.jit  # eager, each of its operations would be compiled alone
    def evaluate(theta, data):
        total, sites = log_density(model, (), data, theta)
        likelihood = sites["y"]["fn"].log_prob(sites["y"]["value"]).sum()
        return likelihood, total - likelihood

    return jax.tree.map(float, evaluate(jax.tree.map(jnp.asarray, theta), data))


def drawn(model, data):
    """Values of all sites in a draw from the prior, and of the latent ones alone."""
    latent = []

    @jax.jit
    def draw(data):
        sites = trace(seed(model, 7)).get_trace(data)
        latent.extend(name for name, site in sites.items() if site["type"] == "sample" and name != "y")
        return {name: site["value"] for name, site in sites.items() if site["type"] in ("sample", "deterministic")}

    values = draw(data)
    return values, {name: values[name] for name in latent}


def sampler(model, num_warmup, num_samples, **kernel):
    """Independent runs of the No-U-Turn sampler on data sets of one shape, in one program."""

    def run(key, data):
        kernel_ = NUTS(model, init_strategy=init_to_median(num_samples=15), **kernel)
        runs = MCMC(kernel_, num_warmup=num_warmup, num_samples=num_samples, progress_bar=False)
        runs.run(key, data)
        return runs.get_samples()

    return jax.jit(jax.vmap(run))


# The (τ, ρ) class: every special case against the problem that it is said to solve.


def basis_regression(ridge):
    """f = w·(1, x), minimising Σ(z − f)² + ridge |w|²."""

    def fit(x, z):
        phi = np.column_stack([np.ones(len(x)), x])
        w = np.linalg.solve(phi.T @ phi + ridge * np.eye(phi.shape[1]), phi.T @ z)
        return lambda new: np.column_stack([np.ones(len(new)), new]) @ w

    return fit


def kernel_ridge(ridge, kernel=rbf, scale=1.0, length=1.0):
    """f = k(x)ᵀα, minimising Σ(z − f)² + ridge αᵀKα."""

    def fit(x, z):
        alpha = np.linalg.solve(scale**2 * np.asarray(kernel(x, x, length)) + ridge * np.eye(len(x)), z)
        return lambda new: scale**2 * np.asarray(kernel(new, x, length)) @ alpha

    return fit


def stationary_weights(phi, prior, rho, penalty):
    """argmin_w Σ(y − ρ f_s − (1 − ρ) Φw)² + λ Σ(f_s − Φw)² + wᵀPw, by stacking the terms into one least squares."""
    root = np.linalg.cholesky(prior + 1e-300 * np.eye(len(prior))).T if prior.any() else prior
    rows = np.vstack([(1 - rho) * phi, np.sqrt(penalty) * phi, root])
    return np.linalg.lstsq(
        rows, np.concatenate([Y - rho * SOURCE, np.sqrt(penalty) * SOURCE, np.zeros(len(root))]), rcond=None
    )[0]


def test_no_transfer_and_the_source_itself():
    regressor = basis_regression(0.3)
    alone = regressor(X, Y)(X_NEW)
    np.testing.assert_allclose(TauRho(0.0, 0.0).fit(regressor, X, Y, SOURCE)(X_NEW, SOURCE_NEW), alone, rtol=1e-12)
    for tau in (-2.0, 0.4):
        np.testing.assert_array_equal(TauRho(tau, 1.0).fit(regressor, X, Y, SOURCE)(X_NEW, SOURCE_NEW), SOURCE_NEW)


@pytest.mark.parametrize(
    ("rho", "penalty"),
    [
        (0.0, 0.7),  # similarity regularisation: ρ = 0, τ = −λ
        (0.6, 0.0),  # density-ratio transfer: τ = ρ
        (0.4, 1.3),
    ],
)
def test_tau_rho_minimises_its_objective(rho, penalty):
    member = TauRho.penalised(rho, penalty)
    assert member.tau == pytest.approx(rho - penalty / (1 - rho)) and member.tau <= rho
    basis = np.column_stack([np.ones(N), X])
    w = stationary_weights(basis, np.zeros((D + 1, D + 1)), rho, penalty)
    expected = rho * SOURCE_NEW + (1 - rho) * np.column_stack([np.ones(NEW), X_NEW]) @ w
    found = member.fit(basis_regression(0.0), X, Y, SOURCE)(X_NEW, SOURCE_NEW)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    # With a penalty η αᵀKα of its own, the regressor takes η / ((1 − ρ)² + λ) = η / ((1 − ρ)(1 − τ)).
    eta, gram = 0.5, np.asarray(rbf(X, X, 1.0))
    alpha = stationary_weights(gram, eta * gram, rho, penalty)
    expected = rho * SOURCE_NEW + (1 - rho) * np.asarray(rbf(X_NEW, X, 1.0)) @ alpha
    regressor = kernel_ridge(eta / ((1 - rho) * (1 - member.tau)))
    np.testing.assert_allclose(member.fit(regressor, X, Y, SOURCE)(X_NEW, SOURCE_NEW), expected, atol=1e-10)


def pulled(theta, kernel):
    """Covariance of (f_s, y, y_new − ρ f_s,new): f ~ GP, f_s = f + noise at old rows, y = ρ f_s + (1 − ρ) f + noise."""
    rows = np.vstack([X, X_NEW])
    f = theta["scale"] ** 2 * np.asarray(kernel(rows, rows, theta["length"]))
    rho, sigma = theta["rho"], theta["sigma"]
    to_f = np.vstack([np.eye(N, N + NEW), np.eye(N, N + NEW), (1 - rho) * np.eye(N + NEW)[N:]])
    to_noise = np.zeros((2 * N + NEW, 2 * N + NEW))
    to_noise[:N, :N] = np.eye(N) * sigma / np.sqrt(theta["penalty"])
    to_noise[N : 2 * N, :N] = rho * to_noise[:N, :N]
    to_noise[N:, N:] = sigma * np.eye(N + NEW)
    return to_f @ f @ to_f.T + to_noise @ to_noise.T


@pytest.mark.parametrize("kernel", [rbf, linear])
def test_bayesian_tau_rho_is_a_conditional_gaussian(kernel):
    theta = {"rho": 0.35, "penalty": 0.8, "scale": 1.2, "length": 0.7, "sigma": 0.5}
    model = partial(tau_rho_model, kernel=kernel)
    joint = pulled(theta, kernel)
    expected = multivariate_normal(cov=joint[: 2 * N, : 2 * N]).logpdf(np.concatenate([SOURCE, Y]))
    expected -= multivariate_normal(cov=joint[:N, :N]).logpdf(SOURCE)
    likelihood, prior = density(model, theta, data=DATA)
    np.testing.assert_allclose(likelihood, expected, atol=1e-10)
    half = scipy.stats.halfnorm.logpdf
    expected = half(1.2) + half(0.5) + scipy.stats.halfcauchy.logpdf(0.8) + scipy.stats.lognorm.logpdf(0.7, 0.5)
    np.testing.assert_allclose(prior, expected, atol=1e-10)
    gain = joint[2 * N :, : 2 * N] @ np.linalg.inv(joint[: 2 * N, : 2 * N])
    draws = {name: np.array([value]) for name, value in theta.items()}
    mean, sd = tau_rho_predict(draws, DATA, SOURCE_NEW, X_NEW, kernel)
    np.testing.assert_allclose(mean[0], 0.35 * SOURCE_NEW + gain @ np.concatenate([SOURCE, Y]), atol=1e-10)
    np.testing.assert_allclose(
        sd[0] ** 2, np.diag(joint[2 * N :, 2 * N :] - gain @ joint[: 2 * N, 2 * N :]), atol=1e-10
    )


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_bayesian_tau_rho_predicts_as_its_member_of_the_class(penalty):
    theta = {"rho": 0.35, "penalty": penalty, "scale": 1.2, "length": 0.7, "sigma": 0.5}
    sites = trace(seed(substitute(tau_rho_model, theta), 0)).get_trace(DATA)
    member = TauRho(float(sites["tau"]["value"]), 0.35)
    ridge = 0.5**2 / ((1 - member.rho) * (1 - member.tau))
    expected = member.fit(kernel_ridge(ridge, rbf, 1.2, 0.7), X, Y, SOURCE)(X_NEW, SOURCE_NEW)
    draws = {name: np.array([value]) for name, value in theta.items()}
    np.testing.assert_allclose(tau_rho_predict(draws, DATA, SOURCE_NEW, X_NEW)[0][0], expected, atol=1e-10)


@pytest.mark.parametrize(
    "call",
    [lambda: TauRho(1.0, 0.5), lambda: TauRho(0.0, -0.1), lambda: TauRho(0.0, 1.1), lambda: TauRho(float("nan"), 0.0),
     lambda: TauRho.penalised(1.0, 0.1), lambda: TauRho.penalised(0.5, -0.1)],
)  # fmt: skip
def test_tau_rho_outside_its_range(call):
    with pytest.raises(BayesmatError, match="tau is below 1 and rho in|rho is in"):
        call()


# Affine transfer.

THETA = {"scale": np.array([0.9, 0.6, 1.1]), "length": np.array([0.8, 1.3, 1.0]), "sigma": 0.4}


def gram(a, b, length):
    """`rbf` from its definition, one pair at a time."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return np.array([[np.exp(-((p - q) ** 2).sum() / (2 * a.shape[1] * length**2)) for q in b] for p in a])


def gaussian_process(kernel, y=Y, sigma=0.4):
    """log p(y), and mean and sd at new rows, of a covariance function of row numbers 0 … N + NEW."""
    joint = kernel + sigma**2 * np.eye(N + NEW)
    gain = joint[N:, :N] @ np.linalg.inv(joint[:N, :N])
    sd = np.sqrt(np.diag(joint[N:, N:] - gain @ joint[:N, N:]))
    return multivariate_normal(cov=joint[:N, :N]).logpdf(y), gain @ y, sd


@pytest.mark.parametrize("source", [SOURCE, RNG.normal(size=(N, 2))])
def test_kernel_is_its_definition(source):
    rows = source.reshape(N, -1)
    np.testing.assert_allclose(rbf(rows, rows[:3], 0.7), gram(source, source[:3], 0.7), atol=1e-13)
    np.testing.assert_allclose(linear(X, X_NEW, 2.0), X @ X_NEW.T / 12)


def test_predictions_need_measurements():
    for call in (lambda data: affine_predict({}, data, SOURCE_NEW, X_NEW, jax.random.key(0)),
                 lambda data: tau_rho_predict({}, data, SOURCE_NEW, X_NEW)):  # fmt: skip
        with pytest.raises(BayesmatError, match="with their y"):
            call(DATA._replace(y=None))


@pytest.mark.parametrize(("case", "zero"), [("g2 = 1", 1), ("g3 = 0", 2), ("g1 = g2 - 1 = 0", 0)])
def test_affine_special_cases_are_exact(case, zero):
    scale = THETA["scale"].copy()
    scale[[zero, 1]] = 0.0
    source, rows = np.concatenate([SOURCE, SOURCE_NEW]), np.vstack([X, X_NEW])
    first, third = gram(source, source, THETA["length"][0]), gram(rows, rows, THETA["length"][2])
    expected = {  # additive process; regression on f_s; regression on x without transfer
        "g2 = 1": 0.9**2 * first + 1.1**2 * third,
        "g3 = 0": 0.9**2 * first,
        "g1 = g2 - 1 = 0": 1.1**2 * third,
    }[case]
    evidence, mean, sd = gaussian_process(expected)
    theta = THETA | {"scale": scale, "white": np.linspace(-2, 2, N)}
    np.testing.assert_allclose(density(affine_model, theta, data=DATA)[0], evidence, atol=1e-10)
    draws = {name: np.asarray(value)[None] for name, value in theta.items()}
    for found, exact in zip(affine_predict(draws, DATA, SOURCE_NEW, X_NEW, jax.random.key(0)), (mean, sd), strict=True):
        np.testing.assert_allclose(found[0], exact, atol=1e-10)


def test_affine_predicts_g2_at_new_rows_from_its_conditional():
    """Mean and variance of y at new rows, g2 there integrated out in closed form, against many draws of one θ."""
    m, white = 4000, np.linspace(-1.5, 1.5, N)
    draws = {name: np.repeat(np.asarray(value)[None], m, 0) for name, value in (THETA | {"white": white}).items()}
    mean, sd = affine_predict(draws, DATA, SOURCE_NEW, X_NEW, jax.random.key(0))
    source, rows = np.concatenate([SOURCE, SOURCE_NEW]), np.vstack([X, X_NEW])
    (s1, s2, s3), (l1, l2, l3) = THETA["scale"], THETA["length"]
    k1, k2, k3 = gram(source, source, l1), gram(source, source, l2), gram(rows, rows, l3)
    nugget = 10 * np.finfo(float).eps ** 0.5
    g2 = 1 + s2 * np.linalg.cholesky(k2[:N, :N] + nugget * np.eye(N)) @ white
    gain = k2[N:, :N] @ np.linalg.inv(k2[:N, :N] + nugget * np.eye(N))
    mu, var = 1 + gain @ (g2 - 1), s2**2 * np.diag(k2[N:, N:] - gain @ k2[:N, N:])
    inverse = np.linalg.inv(s1**2 * k1[:N, :N] + np.outer(g2, g2) * s3**2 * k3[:N, :N] + 0.4**2 * np.eye(N))
    a, b = s1**2 * k1[N:, :N], s3**2 * k3[N:, :N] * g2  # the cross covariance is a + h2 b
    exact = (a + mu[:, None] * b) @ inverse @ Y
    inside = s1**2 - np.diag(a @ inverse @ a.T) + 0.4**2 - 2 * mu * np.diag(a @ inverse @ b.T)
    inside += (mu**2 + var) * (s3**2 - np.diag(b @ inverse @ b.T))
    np.testing.assert_allclose(np.mean(mean, 0), exact, atol=4 * np.std(mean, 0).max() / np.sqrt(m))
    squares = np.asarray(sd) ** 2
    np.testing.assert_allclose(squares.mean(0), inside, atol=4 * squares.std(0).max() / np.sqrt(m))
    np.testing.assert_allclose(np.var(mean, 0), var * (b @ inverse @ Y) ** 2, rtol=4 * np.sqrt(2 / m))


def block_relaxation(k1, k2, k3, penalties, sweeps):
    """The algorithm published for y = g1 + g2 g3 with g1 = K1 a, g2 = 1 + K2 b, g3 = K3 c (intercept 0)."""
    a, b, c = np.zeros(N), np.zeros(N), np.full(N, 0.1)
    for _ in range(sweeps):
        g3 = k3 @ c
        b = np.linalg.solve(g3[:, None] ** 2 * k2 + penalties[1] * np.eye(N), g3 * (Y - k1 @ a - g3))
        g2 = 1 + k2 @ b
        c = np.linalg.solve(g2[:, None] ** 2 * k3 + penalties[2] * np.eye(N), g2 * (Y - k1 @ a))
        a = np.linalg.solve(k1 + penalties[0] * np.eye(N), Y - g2 * (k3 @ c))
    return a, b, c


def test_block_relaxation_stops_at_the_mode():
    """Its fixed point has gradient zero under the joint density of (y, g1, g2, g3), of which the model's is the
    integral over g1 and g3: Laplace's formula at that point is exact, as both are Gaussian given g2."""
    (s1, s2, s3), sigma = THETA["scale"], THETA["sigma"]
    inputs, nugget = (SOURCE, SOURCE, X), 10 * np.finfo(float).eps ** 0.5
    length = np.array([0.1, 0.1, 0.5])  # covariances that can be inverted
    k1, k2, k3 = (gram(rows, rows, one) for rows, one in zip(inputs, length, strict=True))
    k2 = k2 + nugget * np.eye(N)
    a, b, c = block_relaxation(k1, k2, k3, sigma**2 / THETA["scale"] ** 2, sweeps=500)
    g1, g2, g3 = k1 @ a, 1 + k2 @ b, k3 @ c
    assert np.abs(g2 - 1).max() > 0.1
    p1, p3 = np.linalg.inv(s1**2 * k1), np.linalg.inv(s3**2 * k3)

    def joint(g1, g2, g3):
        error = (Y - g1 - g2 * g3) / sigma
        change = jnp.linalg.solve(s2**2 * k2, g2 - 1)
        return -0.5 * (error @ error + g1 @ p1 @ g1 + (g2 - 1) @ change + g3 @ p3 @ g3)

    for gradient in jax.grad(joint, argnums=(0, 1, 2))(g1, g2, g3):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-8)
    hessian = np.block([[p1 + np.eye(N) / sigma**2, np.diag(g2) / sigma**2],
                        [np.diag(g2) / sigma**2, p3 + np.diag(g2**2) / sigma**2]])  # fmt: skip
    log_det = sum(np.linalg.slogdet(matrix)[1] for matrix in (p1, p3)) - np.linalg.slogdet(hessian)[1]
    white = np.linalg.solve(np.linalg.cholesky(k2), g2 - 1) / s2
    expected = joint(g1, g2, g3) + 0.5 * white @ white + 0.5 * log_det - 0.5 * N * np.log(2 * np.pi * sigma**2)
    theta = THETA | {"length": length, "white": white}
    np.testing.assert_allclose(density(affine_model, theta, data=DATA)[0], expected, atol=1e-8)


@pytest.mark.slow
def test_a_scrambled_source_is_switched_off_and_costs_nothing():
    """The same target with its source, with the source's rows permuted, and with a constant for a source."""
    rng, n, total = np.random.default_rng(5), 30, 230
    x = rng.normal(size=(total, 3))
    source = np.sin(4 * x[:, 0]) + np.cos(5 * x[:, 1])  # too rough to be learned from 30 rows
    y = source * (1 + 0.2 * source) + 1.5 * x[:, 2] + 0.2 * rng.normal(size=total)
    y, source = ((v - v[:n].mean()) / v[:n].std() for v in (y, source))
    sources = np.array([source, rng.permutation(source), np.zeros(total)])
    data = SourceRows(sources[:, :n], np.tile(x[:n], (3, 1, 1)), np.tile(y[:n], (3, 1)))
    draws = sampler(affine_model, 200, 200, target_accept_prob=0.9)(jax.random.split(jax.random.key(0), 3), data)
    predict = jax.jit(jax.vmap(affine_predict))
    mean, sd = predict(draws, data, sources[:, n:], np.tile(x[n:], (3, 1, 1)), jax.random.split(jax.random.key(1), 3))
    log_density = scipy.special.logsumexp(scipy.stats.norm.logpdf(y[n:], mean, sd), 1) - np.log(200)
    nll, error = -log_density.mean(1), lambda k: (log_density[k] - log_density[2]).std() / np.sqrt(total - n)
    assert nll[0] < nll[2] - 0.3 - 4 * error(0)  # it does transfer
    assert nll[1] < nll[2] + 0.05 + 2 * error(1)  # and is not hurt
    inside = np.abs(scipy.stats.norm.cdf(y[n:], mean, sd).mean(1) - 0.5) < 0.45
    assert np.abs(inside.mean(1) - 0.9).max() < 0.1  # of 90 %; rows to predict share what was learned from 30
    first, _, third = np.median(draws["scale"], 1).T  # of g1 and g3; their prior median is 0.67
    assert first[0] > 0.67 > 2 * first[1]
    share = first**2 / (first**2 + third**2)
    assert share[1] < 0.15 < 0.3 < share[0]


# Anchored weights.

LINE = eqx.nn.Linear(2, "scalar", key=jax.random.key(3))
NET = eqx.nn.MLP(2, 1, width_size=3, depth=1, key=jax.random.key(4))


def test_anchored_weights_are_one_model_in_two_forms():
    data = ModuleRows(X[:, :2], Y)
    for module in (LINE, NET):
        model = partial(anchored_model, module=module, scale=0.5)
        _, theta = drawn(model, data)
        tau, prior = theta["tau"], anchored_prior(module, theta["tau"])
        assert {f"change/{name}" for name in prior} == set(theta) - {"tau", "sigma"}
        assert ("weight" in prior) if module is LINE else ("layers[0].weight" in prior)
        moved = {f"net/{name}": prior[name].loc + tau * theta[f"change/{name}"] for name in prior}
        moved |= {"tau": tau, "sigma": theta["sigma"]}
        likelihood, log_prior = density(model, theta, data=data)
        again, log_prior_again = density(partial(model, centred=True), moved, data=data)
        np.testing.assert_allclose(again, likelihood, rtol=1e-12)
        size = sum(np.size(value) for value in theta.values()) - 2
        np.testing.assert_allclose(log_prior_again, log_prior - size * np.log(tau), rtol=1e-12)
        direct = dist.Normal(jax.vmap(module)(X[:, :2]).reshape(-1), theta["sigma"]).log_prob(Y).sum()
        np.testing.assert_allclose(density(model, theta | {"tau": 0.0}, data=data)[0], direct, rtol=1e-6)


def test_a_module_that_cannot_be_anchored():
    with pytest.raises(BayesmatError, match=r"shape \(2,\); one number"):
        seed(anchored_model, 0)(ModuleRows(X[:, :2], Y), eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    with pytest.raises(BayesmatError, match="Identity has no floating arrays"):
        seed(anchored_model, 0)(ModuleRows(X, Y), eqx.nn.Identity())


@pytest.mark.slow
def test_simulation_based_calibration_of_the_anchored_model():
    """Ranks of true values among posterior draws are uniform, and are not where the prior of τ is wrong (×5).

    Talts et al. 2018, https://arxiv.org/abs/1804.06788. Every tenth draw is close to independent.
    """
    replications, bins, rows = 160, 8, X[:6, :2]
    model = partial(anchored_model, module=LINE)

    def simulate(key):
        return Predictive(partial(model, scale=0.3), num_samples=1)(key, ModuleRows(rows, None))

    truth = jax.tree.map(lambda leaf: leaf[:, 0], jax.vmap(simulate)(jax.random.split(jax.random.key(0), replications)))

    def run(key, y, scale):
        kernel = NUTS(partial(model, scale=scale), target_accept_prob=0.9, max_tree_depth=6)
        runs = MCMC(kernel, num_warmup=200, num_samples=310, thinning=10, progress_bar=False)
        runs.run(key, ModuleRows(rows, y))
        return runs.get_samples()

    keys = jax.random.split(jax.random.key(1), replications)
    sample = jax.jit(jax.vmap(run, in_axes=(0, 0, None)))

    quantities = {
        "tau": lambda sites: sites["tau"],
        "sigma": lambda sites: sites["sigma"],
        "change": lambda sites: sites["change/bias"].squeeze(),
        "prediction": lambda sites: sites["tau"] * (sites["change/weight"].reshape(*sites["tau"].shape, 2) @ rows[0]),
    }

    def p_value(draws, quantity):
        rank = (quantity(draws) < quantity(truth)[:, None]).sum(1)
        return scipy.stats.chisquare(np.bincount(rank * bins // 32, minlength=bins)).pvalue

    right, wrong = sample(keys, truth["y"], 0.3), sample(keys, truth["y"], 1.5)
    assert min(p_value(right, quantity) for quantity in quantities.values()) > 0.01 / len(quantities)
    assert p_value(wrong, quantities["tau"]) < 1e-4


# Heads.


LABELS = np.array([0, 1, 1, 0, 1, 0, 0, 1])
CLASSES = np.array([0, 2, 1, 0, 1, 2, 2, 1])
NOISE = np.linspace(0.1, 1.0, N)
TASKS = np.column_stack([Y, SOURCE, np.where(np.arange(N) < 3, Y + 1, np.nan)])


def by_hand(name, theta, weights):
    """log p(y | θ) in NumPy."""
    eta = theta["intercept"] + X @ weights
    if name in ("frozen", "horseshoe"):
        return scipy.stats.norm.logpdf(Y, eta, theta["sigma"]).sum()
    if name == "noisy":
        return scipy.stats.norm.logpdf(Y, eta, np.hypot(NOISE, theta["sigma"])).sum()
    if name == "binary":
        return -np.logaddexp(0, np.where(LABELS == 1, -eta, eta)).sum()
    if name == "class":
        return (eta[np.arange(N), CLASSES] - scipy.special.logsumexp(eta, 1)).sum()
    return np.nansum(scipy.stats.norm.logpdf(TASKS, eta, theta["sigma"]))


HEADS = {
    "frozen": (frozen_model, Rows(X, Y)),
    "horseshoe": (partial(frozen_model, weights=horseshoe_weights), Rows(X, Y)),
    "noisy": (noisy_model, NoisyRows(X, NOISE, Y)),
    "binary": (binary_model, Rows(X, LABELS)),
    "class": (partial(class_model, num_classes=3), Rows(X, CLASSES)),
    "multitask": (partial(multitask_model, num_tasks=3), Rows(X, TASKS)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_the_density_they_promise_and_predict(name):
    model, data = HEADS[name]
    values, theta = drawn(model, data)
    weights = np.asarray(values["weights"])
    np.testing.assert_allclose(density(model, theta, data=data)[0], by_hand(name, theta, weights), rtol=1e-10)
    draws = {key: jnp.stack([value, value]) for key, value in theta.items()}
    new = data._replace(y=None, **{field: getattr(data, field)[:4] for field in data._fields if field != "y"})
    predicted = Predictive(model, draws)(jax.random.key(0), new)
    assert predicted["y"].shape == (2, 4, *np.shape(data.y)[1:]) and np.isfinite(predicted["y"]).all()
    np.testing.assert_allclose(predicted["weights"][1], weights, rtol=1e-12)


def test_horseshoe_weights_are_those_of_its_source():
    model = partial(frozen_model, weights=horseshoe_weights)
    values, theta = drawn(model, Rows(X, Y))
    c2, tau2, local2 = 4 * theta["slab"], theta["global"] ** 2, theta["local"] ** 2
    variance = tau2 * c2 * local2 / (c2 + tau2 * local2)
    np.testing.assert_allclose(values["weights"], theta["white"] * np.sqrt(variance), rtol=1e-12)
    half, expected = scipy.stats.halfcauchy, 0.1 / 0.9 * theta["sigma"] / np.sqrt(N)
    prior = half.logpdf(theta["local"]).sum() + half.logpdf(theta["global"], scale=expected)
    prior += scipy.stats.invgamma.logpdf(theta["slab"], 2, scale=2) + scipy.stats.halfnorm.logpdf(theta["sigma"])
    prior += scipy.stats.norm.logpdf(np.append(theta["white"], theta["intercept"])).sum()
    np.testing.assert_allclose(density(model, theta, data=Rows(X, Y))[1], prior, rtol=1e-10)


def test_multitask_weights_have_the_matrix_normal_covariance():
    _, theta = drawn(*HEADS["multitask"])
    m = 20000
    white = jax.random.normal(jax.random.key(0), (m, D, 3))
    draws = {name: jnp.broadcast_to(value, (m, *np.shape(value))) for name, value in theta.items()} | {"white": white}
    weights = Predictive(HEADS["multitask"][0], draws, return_sites=["weights"])(jax.random.key(1), Rows(X, None))
    flat = np.asarray(weights["weights"]).reshape(m, -1)
    chol = np.diag(theta["scale"]) @ theta["correlation"]
    expected = np.kron(np.eye(D), chol @ chol.T)
    np.testing.assert_allclose(np.cov(flat.T), expected, atol=6 * expected.max() / np.sqrt(m))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multitask_model(Rows(X, TASKS), 1), "num_tasks is 2 or more, got 1; frozen_model"),
        (lambda: class_model(Rows(X, CLASSES), 1), "num_classes is 2 or more"),
        (lambda: horseshoe_weights(X, 1.0, share=1.0), "share lies in"),
        (lambda: horseshoe_weights(X, 1.0, slab=0.0), "slab is positive"),
    ],
)
def test_heads_out_of_range(call, message):
    with pytest.raises(BayesmatError, match=message), numpyro.handlers.seed(rng_seed=0):
        call()
