"""Moves for a dear likelihood: many by a cheap estimate of it, then one look at the likelihood itself.

    x → x' by `num_moves` sweeps that leave p(x) L̂(x)^β invariant, accepted with
    α = min{1, (L(x') L̂(x) / (L(x) L̂(x')))^β}

which leaves p(x) L(x)^β invariant whatever L̂ is (the surrogate transition method of Liu 2001, "Monte Carlo Strategies
in Scientific Computing"; with one sweep it is delayed acceptance, Christen and Fox 2005, doi 10.1198/106186005X76983).
The sweeps are reversible as a whole, for the order of their kernels is as probable as the reverse order. A poor L̂
costs acceptances, never correctness.

log L̂ is a ridge regression of log L on features of the particle, fitted between temperatures to what was evaluated so
far; within a temperature it stays as it is. Where the model names what is dear in it, the predicted properties say, it
is these that are regressed, and the model makes log L̂ of them: a property is nearly linear in counts of groups where
the probability that it lies in a narrow interval is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, BayesmatError
from ._kernels import Kernel, accept_log_prob
from ._model import Observed, Particle, Problem, without_addresses
from ._moves import Population, choose, chunked, differing, evaluate_where, move
from ._tuning import Counts, Tuning

MOST_BELOW = 100.0
"""How far below the best β log L is told apart; what lies lower counts as lying there."""

LEAST_WEIGHT = 0.05
"""Of a poor particle in the fit, beside the best."""


@dataclass(frozen=True)
class Surrogate:
    """How to estimate a dear likelihood; see `SMC`.

    Args:
        features: from a particle, the latent sites by name, to a vector of numbers of the order of one; for a molecule
            `lambda sites: bm.nn.featurize(sites["molecule"], alphabet).vector`.
        num_moves: sweeps by the estimate between two evaluations of the likelihood.
        memory: how many evaluated particles are remembered, the latest ones.
        penalty: of the ridge regression, in particles.
        outputs: names of `numpyro.deterministic` sites of the model that are dear, and that the likelihood is made of
            at little cost; arrays, or trees of them such as a `Predictive`. They are estimated instead of the log
            likelihood.

    Raises:
        BayesmatError: a number is not positive.

    >>> import numpyro
    >>> from bayesmat import chem, prior, smc
    >>> alphabet = chem.Alphabet.organic(length=12)
    >>> p_x = prior.fit_ngram(["CCO", "CCCO", "CC(C)O", "CCN"], alphabet, order=4)
    >>> def dear():
    ...     x = numpyro.sample("molecule", p_x)
    ...     numpyro.factor("score", 1.0 * (x != 0).sum())
    >>> counts = lambda sites: (sites["molecule"][:, None] == jnp.arange(1, 4)).sum(0)
    >>> surrogate = Surrogate(counts, num_moves=4, memory=128)
    >>> sampler = smc.SMC(dear, 64, [smc.Regrow()], num_moves=1, surrogate=surrogate, progress_bar=False)
    >>> sampler.run(jax.random.key(0))
    >>> sampler.extend(2)
    >>> bool(sampler.diagnostics()["surrogate accepted"].iloc[-1] > 0.2)
    True

    Where a prediction is dear and the likelihood is not, given it, name the prediction:

    >>> def near_three():
    ...     x = numpyro.sample("molecule", p_x)
    ...     size = numpyro.deterministic("size", 1.0 * (x != 0).sum())
    ...     numpyro.factor("near", -0.5 * (size - 3.0) ** 2)
    >>> sampler = smc.SMC(near_three, 64, num_moves=1, surrogate=Surrogate(counts, outputs=["size"]))
    """

    features: Callable[[Particle], Array] = field(repr=False)
    num_moves: int = 64
    memory: int = 4096
    penalty: float = 10.0
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(self.outputs))
        if self.num_moves < 1 or self.memory < 1 or self.penalty <= 0:
            raise BayesmatError(
                "allowed for a surrogate: num_moves ≥ 1, memory ≥ 1, penalty > 0; "
                f"got {self.num_moves}, {self.memory}, {self.penalty}"
            )

    def identity(self, example: Particle) -> str:
        """What the features compute, in words that do not differ between processes."""
        return without_addresses(str(jax.make_jaxpr(self.features)(example)))

    def log_likelihood(self, weights: Array, problem: Problem, particle: Particle) -> Array:
        """The estimate for one particle.

        Args:
            weights: of `fit`.
            problem: the model.
            particle: the latent sites by name.
        """
        intercept, low, high = weights[-3:]
        value = jnp.dot(self.features(particle), weights[:-3], precision=jax.lax.Precision.HIGHEST) + intercept
        value = jnp.clip(value, low, high)
        return value[0] if problem.given is None else problem.given((particle, value))


class Memory(NamedTuple):
    """Particles that were evaluated; a ring.

    Attributes:
        particles: leading axis M.
        observed: leading axis M; the log likelihood is NaN where there is nothing yet.
        next: where the next one goes.
    """

    particles: Particle
    observed: Observed
    next: Array


def remember(memory: Memory, particles: Particle, observed: Observed, which: Array) -> Memory:
    """The memory with some of `(n, …)` particles added over the oldest ones."""
    size = len(memory.observed.log_likelihood)
    number = jnp.cumsum(which) - 1
    # Of more than there is room for the last ones stay.
    row = jnp.where(which & (number >= which.sum() - size), (memory.next + number) % size, size)

    def put(old: Array, new: Array) -> Array:
        return old.at[row].set(new.astype(old.dtype), mode="drop")

    everything, seen = jax.tree.map(put, (memory.particles, memory.observed), (particles, observed))
    return Memory(everything, seen, (memory.next + which.sum()) % size)


def first_memory(surrogate: Surrogate, particles: Particle, observed: Observed) -> Memory:
    """A memory that holds these particles only."""
    size = surrogate.memory

    # What is not written yet must be a particle too, for its features are computed.
    def blank(leaf: Array) -> Array:
        return jnp.repeat(leaf[:1], size, axis=0)

    nothing = Observed(jnp.full(size, jnp.nan, observed.log_likelihood.dtype), blank(observed.outputs))
    empty = Memory(jax.tree.map(blank, particles), nothing, jnp.asarray(0, jnp.int32))
    return remember(empty, particles, observed, jnp.ones(len(observed.log_likelihood), bool))


def fit(surrogate: Surrogate, memory: Memory, beta: Array) -> Array:
    """The estimate's weights `(d + 3, m)`: coefficients, intercept, lower and upper bound of each output.

    Particles of high likelihood count more, for the sweeps go there.

    Args:
        surrogate: its settings.
        memory: what it is fitted to.
        beta: the inverse temperature that it is for, above 0.
    """
    value, outputs = memory.observed
    h = chunked(surrogate.features, memory.particles).astype(value.dtype)
    there = ~jnp.isnan(value)
    best = jnp.max(value, where=there & jnp.isfinite(value), initial=-jnp.inf)
    best = jnp.where(jnp.isfinite(best), best, 0.0)
    value = jnp.where(there, jnp.maximum(value, best - MOST_BELOW / beta), 0.0)
    weight = jnp.where(there, jnp.maximum(jnp.exp(0.25 * beta * (value - best)), LEAST_WEIGHT), 0.0)
    if surrogate.outputs:
        known = jnp.isfinite(outputs).all(1)
        weight, wanted = jnp.where(known, weight, 0.0), jnp.where(known[:, None], outputs, 0.0).astype(value.dtype)
        bounds = _reach(wanted, weight > 0)
    else:
        wanted = value[:, None]
        bounds = jnp.stack([jnp.full(1, -jnp.inf, value.dtype), best[None]])  # no promises beyond the best seen
    weight = weight / jnp.maximum(weight.mean(), 1e-30) * there.mean()
    total = jnp.maximum(weight.sum(), 1e-30)
    centre, level = weight @ h / total, weight @ wanted / total
    centred = h - centre
    gram = (centred * weight[:, None]).T @ centred + surrogate.penalty * jnp.eye(h.shape[1], dtype=h.dtype)
    moment = (centred * weight[:, None]).T @ (wanted - level)
    coefficients = jax.scipy.linalg.solve(gram, moment, assume_a="pos")
    # Where rounding spoils the factorisation a constant is a surrogate too.
    coefficients = jnp.where(jnp.isfinite(coefficients).all(), coefficients, 0.0)
    return jnp.concatenate([coefficients, (level - centre @ coefficients)[None], bounds]).astype(value.dtype)


def _reach(outputs: Array, there: Array) -> Array:
    """Bounds `(2, m)` of the estimates: the range of what was seen, once more on both sides, short of another sign."""
    low = outputs.min(0, where=there[:, None], initial=jnp.inf)
    high = outputs.max(0, where=there[:, None], initial=-jnp.inf)
    span = high - low
    lowest = jnp.where(low > 0, jnp.maximum(low - span, 0.25 * low), low - span)
    highest = jnp.where(high < 0, jnp.minimum(high + span, 0.25 * high), high + span)
    return jnp.where(there.any(), jnp.stack([lowest, highest]), 0.0)


class Seen(NamedTuple):
    """Candidates of several moves and what was seen of them, leading axes `(moves, n)`; `which` were evaluated."""

    particles: Particle
    observed: Observed
    which: Array


def surrogate_move(
    key: Array,
    kernel_key: Array,
    population: Population,
    beta: Array,
    tuning: Tuning,
    problem: Problem,
    kernels: dict[str, list[Kernel]],
    surrogate: Surrogate,
    num_moves: int,
    num_kept: int,
) -> tuple[Population, dict[str, Counts], Array, Counts, Seen]:
    """`num_kept` times `num_moves` moves, each with one evaluation of the likelihood; see `_moves.move`.

    Returns:
        The populations after each `num_moves` moves, leading axes `(num_kept, n)`; what the kernels did by the
        estimate; evaluations of the likelihood; what the moves did; what they evaluated.
    """
    estimate = partial(surrogate.log_likelihood, tuning.surrogate, problem)
    cheap = problem._replace(log_likelihood=estimate)
    num = len(population.log_likelihood)

    def move_all(population: Population, inputs: tuple[Array, Array]) -> tuple[Population, Any]:
        key, index = inputs
        key_inner, key_accept = jax.random.split(key)
        old = population.log_likelihood
        before = chunked(estimate, population.particles).astype(old.dtype)
        start = Population(population.particles, before)
        order_key = jax.random.fold_in(kernel_key, index)
        kept, counts, _ = move(key_inner, order_key, start, beta, tuning, cheap, kernels, surrogate.num_moves, 1)
        candidates, after = jax.tree.map(lambda leaf: leaf[0], (kept.particles, kept.log_likelihood))
        differs = differing(candidates, population.particles)
        num_outputs = tuning.surrogate.shape[1] if surrogate.outputs else 0
        blank = Observed(old, jnp.zeros((num, num_outputs), tuning.surrogate.dtype))
        observed, evaluations = evaluate_where(differs, problem.observe, candidates, blank)
        new = observed.log_likelihood
        log_u = jnp.log(jax.random.uniform(key_accept, (num,), old.dtype))
        accepted = log_u < accept_log_prob(beta, old, new, beta * (before - after))
        moved = Population(choose(accepted, candidates, population.particles), jnp.where(accepted, new, old))
        outer = Counts(
            jnp.full((), num, old.dtype), *(c.sum().astype(old.dtype) for c in (differs, accepted & differs))
        )
        return moved, (moved, counts, evaluations, outer, Seen(candidates, observed, differs))

    total = num_moves * num_kept
    _, (all_moved, counts, evaluations, outer, seen) = jax.lax.scan(
        move_all, population, (jax.random.split(key, total), jnp.arange(total))
    )
    kept = jax.tree.map(lambda leaf: leaf[num_moves - 1 :: num_moves], all_moved)
    counts, evaluations, outer = jax.tree.map(lambda leaf: leaf.sum(0), (counts, evaluations, outer))
    return kept, counts, evaluations, outer, seen
