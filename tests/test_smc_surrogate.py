"""Moves by a surrogate: exact on enumerable spaces whatever the estimate, learnt from what was evaluated."""

from __future__ import annotations

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from enumeration import SMALL, TINY, assert_follows
from hypothesis import given, settings, strategies as st
from test_smc_exact import P_X, exact, mixed_model, model, problem, rows_of
from test_smc_kernels import BETAS, regrow_paths, space, tail_cut, tempered, uniform_cut

from bayesmat import BayesmatError, forward, smc
from bayesmat.smc import _model, _moves, _plan, _surrogate, _tuning

KERNELS = [smc.Regrow(), smc.RegrowTail(), smc.Infill(), smc.Reorder()]


def has_oxygen(sites):
    """One feature, which tells part of what the likelihood of the small space depends on."""
    return (sites["molecule"] == SMALL.names.index("O")).sum(keepdims=True).astype(jnp.float32)


def observed(log_likelihood):
    """What is seen where no outputs are named."""
    return _model.Observed(log_likelihood, jnp.zeros((len(log_likelihood), 0)))


def transition(kernel, law, ell, beta):
    """P of a kernel on the tiny space, towards prior × exp(β ell)."""
    here, there, probability, correction = regrow_paths(kernel, law, TINY, 1.2)
    alpha = np.exp(np.minimum(0, beta * (ell[there] - ell[here]) + correction))
    matrix = np.zeros((len(ell), len(ell)))
    np.add.at(matrix, (here, there), probability * alpha)
    return matrix + np.diag(1 - matrix.sum(1))


@pytest.mark.parametrize("beta", BETAS)
def test_sweeps_by_any_estimate_leave_the_target_invariant(beta) -> None:
    _, p, ell = space(TINY)
    estimate = np.random.default_rng(4).normal(size=len(p))  # knows nothing of the likelihood
    one = transition(smc.Regrow(), uniform_cut, estimate, beta)
    other = transition(smc.RegrowTail(), tail_cut, estimate, beta)
    orders = list(itertools.permutations([one, one, other]))  # as `_tuning.order` shuffles them
    sweeps = sum(a @ b @ c for a, b, c in orders) / len(orders)
    target, wrong = tempered(p, ell, beta), tempered(p, estimate, beta)
    assert np.abs(wrong @ sweeps - wrong).sum() <= 1e-10
    with jax.enable_x64(True):
        change = beta * (estimate[:, None] - estimate[None])
        log_alpha = smc.accept_log_prob(jnp.float64(beta), ell[:, None] + 0 * change, ell[None] + 0 * change, change)
    moved = target[:, None] * sweeps * np.exp(np.asarray(log_alpha))
    np.fill_diagonal(moved, 0)
    assert np.abs(moved.sum(0) - moved.sum(1)).sum() <= 1e-10  # what leaves a state and what comes to it
    assert np.abs(moved - moved.T).sum() <= 1e-10  # and pair by pair
    unshuffled = target[:, None] * (one @ other) * np.exp(np.asarray(log_alpha))
    assert np.abs(unshuffled - unshuffled.T).sum() > 1e-3, "one order alone is not reversible: the shuffle is needed"


LOOKS: list[int] = []


def _dear(x):
    LOOKS.append(x.size // x.shape[-1])
    length = (x > 0).sum(-1).astype(np.float32)
    return np.stack([length, length**2], -1)


def with_outputs() -> None:
    """A number and an array, which a host works out at a cost, make the likelihood."""
    x = numpyro.sample("molecule", P_X)
    oxygens = numpyro.deterministic("oxygens", (x == SMALL.names.index("O")).sum().astype(jnp.float32))
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    sizes = numpyro.deterministic("sizes", jax.pure_callback(_dear, shape, x, vmap_method="broadcast_all"))
    numpyro.factor("target", -0.5 * (oxygens - 2.0) ** 2 - jnp.abs(sizes[0] - 3.0))


def log_likelihood_with_outputs() -> np.ndarray:
    strings = problem()[0]
    oxygens, length = (strings == SMALL.names.index("O")).sum(1), (strings > 0).sum(1)
    return -0.5 * (oxygens - 2.0) ** 2 - np.abs(length - 3.0)


FAR_OFF = {
    # An estimate that is far from the likelihood, which rises with the oxygens.
    "log likelihood": (model, (), [[-0.9], [0.3], [-np.inf], [0.0]]),
    # Fewer oxygens than there are, and a size that is none.
    "outputs": (
        with_outputs,
        ("oxygens", "sizes"),
        [[0.3, 0.5, 0.0], [0.8, 2.0, 0.0], [-np.inf] * 3, [np.inf] * 3],
    ),
}


@pytest.mark.parametrize("case", FAR_OFF)
def test_moves_of_a_population_keep_its_law(case) -> None:
    """Particles of the target moved with an estimate that is far from the likelihood."""
    of, outputs, estimate = FAR_OFF[case]
    strings, p, ell = problem()
    if outputs:
        ell = log_likelihood_with_outputs()
    num, beta = 20_000, 0.7
    program, _ = _model.split(of, (), {}, outputs=outputs)
    kernels = _plan.assign_kernels(program, program.closed, KERNELS)
    surrogate = smc.Surrogate(has_oxygen, num_moves=4, outputs=outputs)

    @jax.jit
    def moved(key, arrays, x, values):
        weights = jnp.array(estimate)
        tuning = _tuning.start(kernels, jnp.float32)._replace(rate={"molecule": jnp.ones(4)}, surrogate=weights)
        population = _moves.Population({"molecule": x}, values)
        keys = jax.random.split(key)
        return _surrogate.surrogate_move(
            *keys, population, jnp.float32(beta), tuning, program.bind(arrays), kernels, surrogate, 2, 1
        )

    target = tempered(p, ell, beta)
    start = np.random.default_rng(3).choice(len(strings), num, p=target)
    x, values = jnp.asarray(strings[start]), jnp.asarray(ell[start], jnp.float32)
    LOOKS.clear()
    kept, counts, evaluations, outer, seen = jax.block_until_ready(moved(jax.random.key(5), program.closed, x, values))
    assert sum(LOOKS) == (evaluations if outputs else 0), "an estimate looked at what is dear"
    assert (np.asarray(counts["molecule"].tried) == 2 * num).all()
    assert outer.tried == 2 * num and 0.1 < outer.changed / outer.differed < 0.9
    assert outer.differed <= evaluations <= outer.differed + 2 * num / 8
    rows = rows_of(kept.particles["molecule"][0])
    assert (rows != start).mean() > 0.3
    np.testing.assert_allclose(kept.log_likelihood[0], ell[rows], rtol=1e-5)
    assert_follows(rows, target)
    candidates = rows_of(seen.particles["molecule"].reshape(-1, SMALL.length))
    which = np.asarray(seen.which).ravel()
    np.testing.assert_allclose(
        np.asarray(seen.observed.log_likelihood).ravel()[which], ell[candidates][which], rtol=1e-5
    )


@pytest.mark.slow
def test_evidence_is_unbiased_on_a_frozen_plan() -> None:
    """The estimate is part of the plan."""
    surrogate = smc.Surrogate(has_oxygen, num_moves=3, memory=300)
    pilot = smc.SMC(model, 256, num_moves=1, surrogate=surrogate, progress_bar=False)
    pilot.run(jax.random.key(0))
    assert np.abs(pilot.plan.tuning.surrogate[:, 0, 0]).min() > 0.1
    frozen = smc.SMC(model, 16, num_moves=1, surrogate=surrogate, schedule=pilot.plan, islands=400, progress_bar=False)
    frozen.run(jax.random.key(1))
    ratios = np.exp(frozen.log_evidences - exact()[0])
    assert abs(ratios.mean() - 1) < 3.5 * ratios.std(ddof=1) / np.sqrt(len(ratios))
    assert ratios.std(ddof=1) > 0.05, "too certain to show a bias"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=6), st.integers(1, 7))
def test_memory_keeps_the_latest(turns, size) -> None:
    surrogate = smc.Surrogate(lambda sites: sites["z"][None], memory=size)
    numbers = iter(itertools.count(1))
    first = jnp.array([next(numbers) for _ in range(3)], jnp.float32)
    memory = _surrogate.first_memory(surrogate, {"z": first}, observed(-first))
    expected = collections.deque(first.tolist(), maxlen=size)
    for which in turns:
        values = jnp.array([next(numbers) for _ in range(5)], jnp.float32)
        memory = _surrogate.remember(memory, {"z": values}, observed(-values), jnp.array(which))
        expected.extend(value for value, kept in zip(values.tolist(), which, strict=True) if kept)
    value = np.asarray(memory.observed.log_likelihood)
    there = ~np.isnan(value)
    assert sorted(np.asarray(memory.particles["z"])[there]) == sorted(expected)
    np.testing.assert_array_equal(-value[there], np.asarray(memory.particles["z"])[there])


class Plain:
    """A model without outputs."""

    given = None


def test_estimate_finds_what_is_linear() -> None:
    rng = np.random.default_rng(0)
    z, slope = rng.normal(size=(500, 3)).astype(np.float32), np.array([2.0, -1.0, 0.5])
    value = z @ slope - 3.0
    surrogate = smc.Surrogate(lambda sites: sites["z"], memory=600, penalty=1e-3)
    memory = _surrogate.first_memory(surrogate, {"z": jnp.asarray(z)}, observed(jnp.asarray(value, jnp.float32)))
    weights = _surrogate.fit(surrogate, memory, jnp.float32(0.5))
    np.testing.assert_allclose(weights[:, 0], [*slope, -3.0, -np.inf, value.max()], atol=1e-3)
    # Beyond the best that was seen nothing is promised; and impossible ones count as very bad, not as -inf.
    assert surrogate.log_likelihood(weights, Plain, {"z": jnp.asarray(100 * slope)}) == weights[-1, 0]

    def weights_of(seen):
        found = _surrogate.fit(surrogate, memory._replace(observed=observed(seen)), jnp.float32(0.5))
        return np.delete(np.asarray(found), -2)

    seen = memory.observed.log_likelihood
    assert np.isfinite(weights_of(seen.at[:50].set(-jnp.inf))).all()
    assert np.isfinite(weights_of(jnp.where(jnp.isnan(seen), jnp.nan, -jnp.inf))).all()


@pytest.mark.slow
def test_good_estimate_saves_evaluations() -> None:
    """The likelihood is linear in the features, so nearly every look at it is an acceptance."""

    def steep() -> None:
        x = numpyro.sample("molecule", P_X)
        numpyro.factor("target", 4.0 * (x == SMALL.names.index("O")).sum() - 8.0)

    plain = smc.SMC(steep, 256, num_moves=16, progress_bar=False)
    plain.run(jax.random.key(0))
    helped = smc.SMC(steep, 256, num_moves=1, surrogate=smc.Surrogate(has_oxygen, 16), progress_bar=False)
    helped.run(jax.random.key(0))
    assert helped.diagnostics()["surrogate accepted"].iloc[-1] > 0.95
    assert helped.num_evaluations < 0.5 * plain.num_evaluations
    assert abs(helped.log_evidence - plain.log_evidence) < 0.5


def test_all_kinds_of_sites_can_have_one() -> None:
    def features(sites):
        return jnp.stack([(sites["molecule"] > 0).sum(), sites["kind"], sites["z"]]).astype(jnp.float32)

    sampler = smc.SMC(mixed_model, 64, num_moves=1, surrogate=smc.Surrogate(features, 3), progress_bar=False)
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.CONVERGED
    assert {"surrogate accepted", "kind: Gibbs accepted", "continuous: random walk accepted"} <= set(
        sampler.diagnostics().columns
    )


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BayesmatError, match="num_moves ≥ 1"):
        smc.Surrogate(has_oxygen, num_moves=0)
    for outputs, message in ((["oxygen"], "output 'oxygen' is no numpyro.deterministic site.*'oxygens', 'sizes'"),
                             (["molecule"], "output 'molecule' is no numpyro.deterministic")):  # fmt: skip
        sampler = smc.SMC(with_outputs, 16, surrogate=smc.Surrogate(has_oxygen, outputs=outputs), progress_bar=False)
        with pytest.raises(BayesmatError, match=message):
            sampler.run(jax.random.key(0))
    sampler = smc.SMC(model, 16, [smc.Crossover()], surrogate=smc.Surrogate(has_oxygen), progress_bar=False)
    with pytest.raises(BayesmatError, match="two particles at once"):
        sampler.run(jax.random.key(0))


@pytest.mark.parametrize("helped", [False, True])
def test_extension_goes_on_where_the_run_ended(tmp_path, helped) -> None:
    given = {"surrogate": smc.Surrogate(has_oxygen, 2, memory=100)} if helped else {"waste_free": 4}
    given |= {"num_moves": 1, "islands": 2, "progress_bar": False, "checkpoint": tmp_path}
    sampler = smc.SMC(model, 32, **given)
    with pytest.raises(BayesmatError, match="call run"):
        sampler.extend(1)
    sampler.run(jax.random.key(0))
    reached = len(sampler.temperatures)
    sampler.extend(1)
    sampler.extend(2)
    by_parts = jax.tree.leaves(sampler.islands)
    assert len(sampler.temperatures) == reached + 3 and (sampler.temperatures[-4:] == 1).all()
    sampler.run(jax.random.key(0))
    assert len(sampler.temperatures) == reached
    sampler.extend(3)
    for a, b in zip(by_parts, jax.tree.leaves(sampler.islands), strict=True):
        np.testing.assert_array_equal(a, b)
    again = smc.SMC(model, 32, **given, resume=True)
    again.run(jax.random.key(0))
    np.testing.assert_array_equal(again.particles()["molecule"], sampler.particles()["molecule"])
    for one in (sampler, again):
        one.extend(1)
    np.testing.assert_array_equal(again.particles()["molecule"], sampler.particles()["molecule"])


@pytest.mark.slow
def test_outputs_are_learnt() -> None:
    """What is linear in the features is found, and the posterior's evidence is that of enumeration."""
    p, ell = problem()[1], log_likelihood_with_outputs()

    def features(sites):
        x = sites["molecule"]
        return jnp.stack([(x == SMALL.names.index("O")).sum(), (x > 0).sum()]).astype(jnp.float32)

    surrogate = smc.Surrogate(features, 8, memory=4096, penalty=0.01, outputs=["oxygens", "sizes"])
    sampler = smc.SMC(with_outputs, 2048, num_moves=1, surrogate=surrogate, progress_bar=False)
    sampler.run(jax.random.key(0))
    assert abs(sampler.log_evidence - np.log(p @ np.exp(ell))) < 0.1
    weights = sampler.plan.tuning.surrogate[-1]
    np.testing.assert_allclose(weights[:3, :2], [[1, 0], [0, 1], [0, 0]], atol=0.02)
    assert weights[3, 1] <= 1 and SMALL.length <= weights[4, 1], "it may not go where particles were"
    assert sampler.diagnostics()["surrogate accepted"].iloc[-1] > 0.95


def test_bounds_of_outputs() -> None:
    """Once the range that was seen further, but of the same sign; rows that are no numbers do not count."""
    outputs = jnp.array([[1.0, -3.0, 2.0], [4.0, -1.0, -1.0], [jnp.nan, 0.0, 0.0]])
    memory = _surrogate.first_memory(
        smc.Surrogate(lambda sites: sites["z"][None], memory=5, outputs=["y"]),
        {"z": jnp.arange(3.0)},
        _model.Observed(jnp.zeros(3), outputs),
    )
    weights = _surrogate.fit(smc.Surrogate(lambda sites: sites["z"][None], outputs=["y"]), memory, jnp.float32(1.0))
    np.testing.assert_allclose(weights[-2:], [[0.25, -5.0, -4.0], [7.0, -0.25, 5.0]])
    assert np.isfinite(weights).all()


def test_a_predictive_can_be_an_output() -> None:
    def of_predictive() -> None:
        x = numpyro.sample("molecule", P_X)
        mean = (x > 0).sum() + jnp.array([-0.5, 0.5])
        y = numpyro.deterministic("y", forward.Predictive(mean, jnp.array([0.5, 0.7]), log=False))
        numpyro.factor("hit", y.log_prob_interval(2.5, 3.5))

    sampler = smc.SMC(of_predictive, 64, num_moves=1, surrogate=smc.Surrogate(has_oxygen, 2, outputs=["y"]),
                      progress_bar=False)  # fmt: skip
    sampler.run(jax.random.key(0))
    assert sampler.status == smc.Status.CONVERGED
    assert (sampler.plan.tuning.surrogate[:, -2, 2:] > 0).all(), "a standard deviation may come to be negative"
