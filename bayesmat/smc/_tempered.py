"""Tempered sequential Monte Carlo over any pytree of strings: the functional core.

    init(key) → state;   step(key, state) → (state, info);   run: step until β = 1, as one compiled loop.

Particles start in the prior (β = 0). Each step finds the next β by the effective sample size, reweights by
L^(β' - β), resamples, and moves every particle by kernels that leave p(x) L(x)^β' invariant (Del Moral, Doucet and
Jasra 2006, doi 10.1111/j.1467-9868.2006.00553.x). The evidence is the product of the mean increments.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array
from . import _weights
from ._kernels import StringPrior, accept_log_prob, regrow_suffix

Particle = dict[str, Array]
LogLikelihood = Callable[[Particle], Array]


class Status(enum.IntEnum):
    """How a run ended; `message` says it in words."""

    CONVERGED = 0
    TOO_MANY_TEMPERATURES = 1
    NO_MASS = 2

    @property
    def message(self) -> str:
        """A sentence for a person."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "The posterior was reached.",
    Status.TOO_MANY_TEMPERATURES: (
        "The target was not reached within the allowed number of temperatures: what is shown is the posterior of a "
        "weaker target. Ask for less, or allow more temperatures or particles."
    ),
    Status.NO_MASS: "No particle of the prior is compatible with the target: its likelihood is zero everywhere.",
}


class State(NamedTuple):
    """N particles at one temperature, equally weighted.

    Attributes:
        particles: the latent sites, each with leading axis N.
        log_likelihood: `(N,)`.
        ancestor: `(N,)` which particle of the prior each descends from.
        beta: inverse temperature.
        log_evidence: log of the estimated normalising constant of p(x) L(x)^β.
    """

    particles: Particle
    log_likelihood: Array
    ancestor: Array
    beta: Array
    log_evidence: Array


class Info(NamedTuple):
    """Diagnostics of one step: the new β, the ESS of its weights, the share of accepted moves by site."""

    beta: Array
    ess: Array
    acceptance: Array


class Settings(NamedTuple):
    """Static settings of a run."""

    num_particles: int
    target_ess: float
    num_moves: int
    max_temperatures: int


class Run(NamedTuple):
    """A finished run: T = `max_temperatures` rows of diagnostics, of which `num_steps` were made.

    Attributes:
        state: at the end.
        prior: the particles and their log likelihood before the first step.
        info: stacked diagnostics, `(T, ...)`.
        num_steps: temperatures visited after β = 0.
        status: a `Status`.
    """

    state: State
    prior: tuple[Particle, Array]
    info: Info
    num_steps: Array
    status: Array


def init(key: Array, priors: dict[str, StringPrior], log_likelihood: LogLikelihood, num_particles: int) -> State:
    """Particles drawn from the prior."""
    keys = jax.random.split(key, len(priors))
    particles = {
        name: prior.sample(site_key, (num_particles,))
        for site_key, (name, prior) in zip(keys, sorted(priors.items()), strict=True)
    }
    values = jax.vmap(log_likelihood)(particles)
    beta = jnp.zeros((), values.dtype)
    return State(particles, _no_nan(values), jnp.arange(num_particles), beta, jnp.zeros((), values.dtype))


def step(
    key: Array, state: State, priors: dict[str, StringPrior], log_likelihood: LogLikelihood, settings: Settings
) -> tuple[State, Info]:
    """One temperature: find β', reweight, resample, move."""
    beta = _weights.next_beta(state.beta, state.log_likelihood, settings.target_ess)
    log_weights = _weights.scaled(beta - state.beta, state.log_likelihood)
    key_resample, key_move = jax.random.split(key)
    chosen = _weights.systematic(key_resample, log_weights)
    kept = State(
        particles=jax.tree.map(lambda leaf: leaf[chosen], state.particles),
        log_likelihood=state.log_likelihood[chosen],
        ancestor=state.ancestor[chosen],
        beta=beta,
        log_evidence=state.log_evidence + _weights.log_mean_exp(log_weights),
    )
    moved, acceptance = move(key_move, kept, priors, log_likelihood, settings.num_moves)
    return moved, Info(beta, _weights.ess(log_weights), acceptance)


def move(
    key: Array, state: State, priors: dict[str, StringPrior], log_likelihood: LogLikelihood, num_moves: int
) -> tuple[State, Array]:
    """`num_moves` sweeps over the sites; returns the share of accepted proposals, `(num_sites,)`."""
    names = sorted(priors)
    num = state.log_likelihood.shape[0]

    def one(key: Array, particle: Particle, value: Array, name: str) -> tuple[Particle, Array, Array]:
        key_propose, key_accept = jax.random.split(key)
        proposal = regrow_suffix(key_propose, particle[name], priors[name])
        candidate = {**particle, name: proposal.x}
        new_value = _no_nan(log_likelihood(candidate))
        log_alpha = accept_log_prob(state.beta, value, new_value, proposal.log_correction)
        accepted = jnp.log(jax.random.uniform(key_accept, dtype=value.dtype)) < log_alpha
        particle = {**particle, name: jnp.where(accepted, proposal.x, particle[name])}
        return particle, jnp.where(accepted, new_value, value), accepted

    def sweep(carry: tuple[Particle, Array], key: Array) -> tuple[tuple[Particle, Array], Array]:
        particles, values = carry
        shares = []
        for site_key, name in zip(jax.random.split(key, len(names)), names, strict=True):
            keys = jax.random.split(site_key, num)
            particles, values, accepted = jax.vmap(lambda k, x, v, name=name: one(k, x, v, name))(
                keys, particles, values
            )
            shares.append(accepted.mean())
        return (particles, values), jnp.stack(shares)

    carry = (state.particles, state.log_likelihood)
    (particles, values), shares = jax.lax.scan(sweep, carry, jax.random.split(key, num_moves))
    return state._replace(particles=particles, log_likelihood=values), shares.mean(0)


def run(
    key: Array,
    priors: dict[str, StringPrior],
    log_likelihood: LogLikelihood,
    settings: Settings,
    report: Callable[[Any, Any], None] | None = None,
) -> Run:
    """All temperatures, as one `lax.while_loop`.

    Args:
        key: random key.
        priors: the distribution of each latent site.
        log_likelihood: of one particle.
        settings: static.
        report: called on the host after every temperature with the number of steps made and β.
    """
    key_init, key_steps = jax.random.split(key)
    first = init(key_init, priors, log_likelihood, settings.num_particles)
    most, dtype = settings.max_temperatures, first.log_likelihood.dtype
    empty = Info(jnp.zeros(most, dtype), jnp.zeros(most, dtype), jnp.zeros((most, len(priors)), dtype))
    feasible = jnp.isfinite(first.log_likelihood).any()

    def going_on(carry: tuple[State, Info, Array]) -> Array:
        state, _, count = carry
        return (state.beta < 1.0) & (count < most) & feasible

    def body(carry: tuple[State, Info, Array]) -> tuple[State, Info, Array]:
        state, table, count = carry
        state, info = step(jax.random.fold_in(key_steps, count), state, priors, log_likelihood, settings)
        if report is not None:
            jax.debug.callback(report, count + 1, state.beta)
        return state, jax.tree.map(lambda rows, row: rows.at[count].set(row), table, info), count + 1

    last, table, count = jax.lax.while_loop(going_on, body, (first, empty, jnp.asarray(0)))
    unfinished = jnp.where(feasible, Status.TOO_MANY_TEMPERATURES, Status.NO_MASS)
    status = jnp.where(last.beta >= 1.0, Status.CONVERGED, unfinished)
    last = last._replace(log_evidence=jnp.where(feasible, last.log_evidence, -jnp.inf))
    return Run(last, (first.particles, first.log_likelihood), table, count, status)


def _no_nan(values: Array) -> Array:
    """A likelihood that is not a number counts as zero; +inf would stop every particle, so it is capped."""
    return jnp.minimum(jnp.where(jnp.isnan(values), -jnp.inf, values), jnp.finfo(values.dtype).max / 1e8)
