"""Samplers against enumeration: evidence, marginals, the moves of a whole population."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from enumeration import SMALL, TINY, TablePrior, all_strings, assert_follows, table_prior, tiny_prior

from bayesmat import BayesmatError, smc

NUM_SEEDS = 20
P_TINY = tiny_prior()


class Rewritable(TablePrior):
    """Strings of the same tokens are one thing; any of them is written with a probability of its own."""

    pytree_data_fields = ("log_q", "thing")

    def __init__(self, table, log_q, thing):
        super().__init__(table.mass, table.strings, table.log_p)
        self.log_q, self.thing = log_q, thing

    def rewrite(self, key, x):
        """Another string of the same thing and log q(x) / q(x')."""
        row = jnp.argmax((self.strings == x).all(1))
        new = jax.random.categorical(key, jnp.where(self.thing == self.thing[row], self.log_q, -jnp.inf))
        return self.strings[new], self.log_q[row] - self.log_q[new]


@functools.cache
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The small space, an asymmetric prior, and a log likelihood with impossible strings."""
    strings = all_strings(SMALL)
    p = np.random.default_rng(0).gamma(0.7, size=len(strings)) + 1e-3
    oxygen = SMALL.names.index("O")
    ell = 1.1 * (strings == oxygen).sum(1) + 0.6 * (strings > 0).sum(1) - 3.0
    forbidden = (strings == SMALL.open_token).any(1) & ((strings == oxygen).sum(1) == 1)
    return strings, p / p.sum(), np.where(forbidden, -np.inf, ell)


@functools.cache
def prior() -> Rewritable:
    strings, p, _ = problem()
    thing = np.unique(np.sort(strings, 1), axis=0, return_inverse=True)[1].ravel()
    q = np.random.default_rng(2).gamma(1.0, size=len(strings)) + 0.05
    q = q / np.bincount(thing, q)[thing]
    return Rewritable(table_prior(strings, p), jnp.log(jnp.asarray(q, jnp.float32)), jnp.asarray(thing))


P_X = prior()


def rows_of(x: Any) -> np.ndarray:
    strings = problem()[0]
    weights = (SMALL.num_tokens + 1) ** np.arange(SMALL.length)
    order = np.argsort(strings @ weights)
    return order[np.searchsorted((strings @ weights)[order], np.asarray(x) @ weights)]


def log_likelihood_of(x: Any) -> Any:
    """The log likelihood of the small space, computed from the string."""
    oxygens = (x == SMALL.names.index("O")).sum()
    forbidden = (x == SMALL.open_token).any() & (oxygens == 1)
    return jnp.where(forbidden, -jnp.inf, 1.1 * oxygens + 0.6 * (x > 0).sum() - 3.0)


def model() -> None:
    x = numpyro.sample("molecule", P_X)
    numpyro.factor("target", log_likelihood_of(x))


def exact() -> tuple[float, np.ndarray]:
    """log evidence and posterior."""
    _, p, ell = problem()
    weight = np.where(np.isfinite(ell), p * np.exp(np.nan_to_num(ell, neginf=0)), 0)
    return np.log(weight.sum()), weight / weight.sum()


ALL_KERNELS = [
    smc.Regrow(),
    smc.RegrowTail(delayed=True),
    smc.Infill(),
    smc.Independence(),
    smc.Crossover(delayed=False),
    smc.Reorder(),
]
SAMPLERS = {
    "default": {},
    "all kernels": {"kernels": ALL_KERNELS},
    "stratified": {"resampling": "stratified"},
    "residual": {"resampling": "residual"},
    "multinomial": {"resampling": "multinomial"},
    "fixed schedule": {"schedule": [0.1, 0.3, 0.6, 1.0]},
    "waste-free": {"waste_free": 8, "num_moves": 1},
    "islands": {"islands": 2},
    "surrogate": {"surrogate": smc.Surrogate(lambda sites: (sites["molecule"] > 2).sum(keepdims=True) * 1.0, 4)},
}


SLOW = {"all kernels", "stratified", "residual", "multinomial", "surrogate"}  # they have tests of their own


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SAMPLERS])
def test_evidence_and_marginals_agree_with_enumeration(name) -> None:
    log_evidence, posterior = exact()
    strings = problem()[0]
    settings = {"num_particles": 512, "num_moves": 3, "progress_bar": False, **SAMPLERS[name]}
    sampler = smc.SMC(model, **settings)
    lengths, oxygens = (strings > 0).sum(1), (strings == SMALL.names.index("O")).sum(1)
    features = np.stack([lengths, oxygens, oxygens == 0, np.arange(len(strings)) == posterior.argmax()], 1)
    errors, statistics = [], []
    for seed in range(NUM_SEEDS):
        sampler.run(jax.random.key(seed))
        assert sampler.status == smc.Status.CONVERGED
        rows = rows_of(sampler.get_samples()["molecule"])
        assert (posterior[rows] > 0).all()
        errors.append(sampler.log_evidence - log_evidence)
        statistics.append(features[rows].mean(0))
    ratios, statistics = np.exp(errors), np.array(statistics)
    # Means over the runs, within four standard errors of themselves.
    assert abs(ratios.mean() - 1) < 4 * ratios.std(ddof=1) / np.sqrt(NUM_SEEDS)
    assert ratios.std(ddof=1) < 0.2
    assert (
        np.abs(statistics.mean(0) - posterior @ features) < 4 * statistics.std(0, ddof=1) / np.sqrt(NUM_SEEDS)
    ).all()


def test_evidence_is_unbiased_on_a_frozen_plan() -> None:
    """Few particles, so that the adaptive schedule's bias and a wrong weight would show; 400 repetitions."""
    pilot = smc.SMC(model, 256, ALL_KERNELS, num_moves=2, progress_bar=False)
    pilot.run(jax.random.key(0))
    frozen = smc.SMC(model, 16, ALL_KERNELS, num_moves=2, schedule=pilot.plan, islands=400, progress_bar=False)
    frozen.run(jax.random.key(1))
    ratios = np.exp(frozen.log_evidences - exact()[0])
    assert abs(ratios.mean() - 1) < 3.5 * ratios.std(ddof=1) / np.sqrt(len(ratios))
    assert ratios.std(ddof=1) > 0.05, "too certain to show a bias"
    np.testing.assert_allclose(frozen.log_evidence_se, ratios.std(ddof=1) / 20 / ratios.mean(), rtol=1e-5)
    np.testing.assert_array_equal(frozen.temperatures[1:], pilot.plan.beta)


@pytest.mark.slow
def test_moves_of_a_population_keep_its_law() -> None:
    """Particles drawn from the target itself and moved by the mixture of all kernels are still the target's."""
    from bayesmat.smc import _model, _moves, _plan, _tuning

    strings, p, ell = problem()
    num = 20_000
    program, _ = _model.split(model, (), {})
    kernels = _plan.assign_kernels(program, program.closed, ALL_KERNELS)

    @jax.jit
    def moved(key, arrays, beta, x, values):
        tuning = _tuning.start(kernels, jnp.float32)._replace(rate={"molecule": jnp.ones(6)})
        key, key_kernels = jax.random.split(key)
        population = _moves.Population({"molecule": x}, values)
        return _moves.move(key, key_kernels, population, beta, tuning, program.bind(arrays), kernels, 6, 1)

    for beta in (0.3, 1.0):
        weight = np.where(np.isfinite(ell), p * np.exp(beta * np.nan_to_num(ell, neginf=0)), 0)
        target = weight / weight.sum()
        start = np.random.default_rng(3).choice(len(strings), num, p=target)
        x, values = jnp.asarray(strings[start]), jnp.asarray(ell[start], jnp.float32)
        kept, counts, _ = moved(jax.random.key(5), program.closed, jnp.float32(beta), x, values)
        assert (np.asarray(counts["molecule"].tried) == num).all()  # each of six kernels once
        assert (np.asarray(counts["molecule"].changed) > 0.01 * num).all()
        rows = rows_of(kept.particles["molecule"][0])
        assert (rows != start).mean() > 0.5
        np.testing.assert_allclose(kept.log_likelihood[0], ell[rows], rtol=1e-5)
        assert_follows(rows, target)


def mixed_model() -> None:
    """String, number and class; the number's prior depends on the class, the class's on the string."""
    x = numpyro.sample("molecule", P_X)
    oxygens = (x == SMALL.names.index("O")).sum()
    kind = numpyro.sample("kind", dist.Categorical(logits=jnp.array([0.4, -0.2, 0.1]) * oxygens))
    z = numpyro.sample("z", dist.Normal(0.7 * kind - 0.3, 1.0 + 0.5 * kind))
    numpyro.factor("target", jnp.where(log_likelihood_of(x) == -jnp.inf, -jnp.inf, 0.0))
    numpyro.sample("y", dist.Normal(z + 0.4 * (x > 0).sum(), 0.8), obs=jnp.array(2.0))


def exact_mixed() -> tuple[float, np.ndarray, np.ndarray]:
    """log evidence, joint posterior of string and class `(S, 3)`, and E[z] of each; z is integrated out."""
    strings, p, ell = problem()
    oxygens = (strings == SMALL.names.index("O")).sum(1)[:, None]
    logits = np.array([0.4, -0.2, 0.1]) * oxygens
    p_kind = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mean, sd = 0.7 * np.arange(3) - 0.3, 1.0 + 0.5 * np.arange(3)
    residual = 2.0 - 0.4 * (strings > 0).sum(1)[:, None]
    variance = sd**2 + 0.8**2
    density = np.exp(-0.5 * (residual - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    weight = np.where(np.isfinite(ell)[:, None], p[:, None] * p_kind * density, 0)
    z = mean + sd**2 / variance * (residual - mean)
    return np.log(weight.sum()), weight / weight.sum(), z


def first_look(sites: Any) -> Any:
    """Features of the mixed model, from which its likelihood cannot be had."""
    return jnp.stack([(sites["molecule"] > 0).sum(), sites["z"]]).astype(jnp.float32)


@pytest.mark.parametrize("surrogate", [None, pytest.param(smc.Surrogate(first_look, 4), marks=pytest.mark.slow)])
def test_mixed_model_agrees_with_enumeration(surrogate) -> None:
    log_evidence, joint, z = exact_mixed()
    strings = problem()[0]
    lengths = (strings > 0).sum(1)
    exact_values = np.array([joint.sum(1) @ lengths, *joint.sum(0), (joint * z).sum(), joint[:, 2] @ lengths])
    sampler = smc.SMC(mixed_model, 512, num_moves=4, surrogate=surrogate, progress_bar=False)
    errors, statistics = [], []
    for seed in range(NUM_SEEDS):
        sampler.run(jax.random.key(seed))
        samples = {name: np.asarray(value) for name, value in sampler.get_samples().items()}
        length, kind = lengths[rows_of(samples["molecule"])], samples["kind"]
        shares = [(kind == k).mean() for k in range(3)]
        statistics.append([length.mean(), *shares, samples["z"].mean(), (length * (kind == 2)).mean()])
        errors.append(sampler.log_evidence - log_evidence)
    ratios, statistics = np.exp(errors), np.array(statistics)
    assert abs(ratios.mean() - 1) < 4 * ratios.std(ddof=1) / np.sqrt(NUM_SEEDS)
    assert (np.abs(statistics.mean(0) - exact_values) < 4 * statistics.std(0, ddof=1) / np.sqrt(NUM_SEEDS)).all()
    assert {"molecule: regrow share", "kind: Gibbs accepted", "continuous: random walk accepted"} <= set(
        sampler.diagnostics().columns
    )


def test_strings_in_a_plate_agree_with_enumeration() -> None:
    """A set of two strings, scored together."""
    strings, p, _ = problem()

    def pair() -> None:
        with numpyro.plate("reactants", 2):
            x = numpyro.sample("molecule", P_X)
        numpyro.factor("target", -0.7 * jnp.abs((x > 0).sum() - 6.0))

    lengths = (strings > 0).sum(1)
    weight = p[:, None] * p[None] * np.exp(-0.7 * np.abs(lengths[:, None] + lengths[None] - 6.0))
    sampler = smc.SMC(pair, 512, num_moves=4, progress_bar=False)
    errors, means = [], []
    for seed in range(10):
        sampler.run(jax.random.key(seed))
        rows = rows_of(sampler.get_samples()["molecule"])
        assert rows.shape == (512, 2)
        errors.append(sampler.log_evidence - np.log(weight.sum()))
        means.append([lengths[rows].mean(), (lengths[rows[:, 0]] * lengths[rows[:, 1]]).mean()])
    posterior, means = weight / weight.sum(), np.array(means)
    exact_means = [posterior.sum(0) @ lengths, lengths @ posterior @ lengths]
    assert (np.abs(means.mean(0) - exact_means) < 4 * means.std(0, ddof=1) / np.sqrt(10)).all()
    assert abs(np.exp(errors).mean() - 1) < 4 * np.exp(errors).std(ddof=1) / np.sqrt(10)
    assert {"molecule[0]", "molecule[1]"} <= set(sampler.to_dataframe().columns)


def test_strings_of_one_design_are_added_up() -> None:
    """The table's weights are sums over particles; two strings with one text are one row."""

    class Named(Rewritable):
        def to_text(self, x):
            return ["".join(sorted(str(token) for token in row if token)) for row in x]

    table = prior()
    named = Named(table, table.log_q, table.thing)

    def named_model() -> None:
        x = numpyro.sample("molecule", named)
        numpyro.deterministic("length", (x > 0).sum())
        numpyro.factor("target", log_likelihood_of(x))

    sampler = smc.SMC(named_model, 256, num_moves=2, progress_bar=False)
    sampler.run(jax.random.key(0))
    frame = sampler.to_dataframe()
    texts = named.to_text(np.asarray(sampler.get_samples()["molecule"]))
    assert frame["molecule"].is_unique and abs(frame["weight"].sum() - 1) < 1e-12
    for _, row in frame.iterrows():
        assert row["weight"] == pytest.approx(texts.count(row["molecule"]) / 256)
        assert row["length"] == pytest.approx(len(row["molecule"]))


def test_same_key_same_particles_and_one_compilation() -> None:
    sampler = smc.SMC(model, 64, num_moves=1, progress_bar=False)
    sampler.run(jax.random.key(3))
    first = np.asarray(sampler.get_samples()["molecule"])
    sampler.run(jax.random.key(3))
    np.testing.assert_array_equal(first, np.asarray(sampler.get_samples()["molecule"]))
    sampler.run(jax.random.key(4))
    assert not np.array_equal(first, np.asarray(sampler.get_samples()["molecule"]))
    (setup,) = sampler._compiled.values()
    assert setup.compiled.step._cache_size() == 1 and setup.compiled.init._cache_size() == 1


@pytest.mark.parametrize("as_data", [False, True])
def test_other_data_of_one_shape_is_no_other_program(as_data) -> None:
    looks = []

    def line(x, y) -> None:
        looks.append(0)
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    x = jnp.arange(5.0)
    sampler = smc.SMC(line, 64, num_moves=2, jit_model_args=as_data, progress_bar=False)
    sampler.run(jax.random.key(0), x, 2 * x)
    up, first = np.asarray(sampler.get_samples()["slope"]).mean(), len(looks)
    sampler.run(jax.random.key(0), x, -2 * x)
    assert len(sampler._compiled) == 1
    assert up > 1 and np.asarray(sampler.get_samples()["slope"]).mean() < -1
    assert (len(looks) == first) == as_data


def test_impossible_target_ends_with_a_status() -> None:
    def impossible() -> None:
        x = numpyro.sample("molecule", P_TINY)
        numpyro.factor("target", jnp.where(x[0] >= 0, -jnp.inf, 0.0))

    sampler = smc.SMC(impossible, 32, progress_bar=False)
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.NO_MASS
    assert sampler.log_evidence == -np.inf
    assert "zero everywhere" in sampler.summary()


@pytest.mark.slow
def test_sharp_target_ends_below_one_when_temperatures_run_out() -> None:
    def sharp() -> None:
        x = numpyro.sample("molecule", P_TINY)
        numpyro.factor("target", 500.0 * (x * jnp.arange(TINY.length)).sum() - 1e6)

    sampler = smc.SMC(sharp, 32, num_moves=1, max_temperatures=1, progress_bar=False)
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.TOO_MANY_TEMPERATURES
    assert 0 < sampler.temperatures[-1] < 1 and np.isfinite(sampler.log_evidence)
    assert any("weaker target" in text for text in sampler.warnings())
    with pytest.raises(BayesmatError, match="reached the posterior"):
        sampler.extend(1)


def test_likelihood_that_is_no_number_counts_as_impossible() -> None:
    def broken() -> None:
        x = numpyro.sample("molecule", P_X)
        numpyro.factor("target", jnp.where((x > 0).sum() > 3, jnp.nan, 1e30 * (x[0] == 1)))

    sampler = smc.SMC(broken, 64, num_moves=2, progress_bar=False)
    sampler.run(jax.random.key(0))
    samples = np.asarray(sampler.get_samples()["molecule"])
    assert ((samples > 0).sum(1) <= 3).all()
    assert not np.isnan(sampler.log_likelihood).any() and not np.isnan(sampler.log_evidence)


def test_models_that_cannot_be_sampled_are_refused() -> None:
    def nothing() -> None:
        numpyro.factor("target", jnp.asarray(0.0))

    def prior_only() -> None:
        numpyro.sample("molecule", P_TINY)

    def parameter() -> None:
        x = numpyro.sample("molecule", P_TINY)
        numpyro.factor("target", numpyro.param("slope", 1.0) * x.sum())

    def subsampled() -> None:
        with numpyro.plate("data", 10, subsample_size=5):
            z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.factor("target", z.sum())

    cases = {nothing: "no latent site", prior_only: "no observed site", parameter: "slope", subsampled: "'z'"}
    for bad, message in cases.items():
        with pytest.raises(BayesmatError, match=message):
            smc.SMC(bad, 16, progress_bar=False).run(jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_ess": 1.5}, "target_ess"),
        ({"resampling": "none"}, "systematic, stratified"),
        ({"waste_free": 7}, "waste_free"),
        ({"schedule": [0.5, 0.2, 1.0]}, "schedule"),
        ({"schedule": "geometric"}, "adaptive"),
        ({"resume": True}, "checkpoint"),
        ({"num_devices": 500}, "num_devices"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(BayesmatError, match=message):
        smc.SMC(model, 64, **settings)
    with pytest.raises(BayesmatError, match="run"):
        _ = smc.SMC(model, 64).log_evidence
