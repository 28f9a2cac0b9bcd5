"""Tempered sequential Monte Carlo: the functional core.

    init(key) → (state, tuning);   step(key, state, tuning, beta) → (state, tuning, info);   until β = 1.

Particles start in the prior (β = 0). Each step finds the next β by the effective sample size or takes a given one,
reweights by L^(β' - β), resamples, and moves every particle by kernels that leave p(x) L(x)^β' invariant (Del Moral,
Doucet and Jasra 2006, doi 10.1111/j.1467-9868.2006.00553.x). The evidence is the product of the mean increments. With
`waste_free` = P only N/P particles are resampled, each starts a chain of P states, and all of them are kept (Dau and
Chopin 2022, doi 10.1111/rssb.12475).
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from .._types import Array
from . import _tuning, _weights
from ._kernels import Kernel
from ._model import CONTINUOUS, Observed, Particle, Problem
from ._moves import Population, chunked, evaluate_where, move
from ._resampling import RESAMPLING
from ._surrogate import Memory, Seen, Surrogate, first_memory, fit, remember, surrogate_move
from ._tuning import Counts, Tuning

AXIS = "particles"
"""The name of the mesh axis over which particles are spread."""


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
        particles: the latent sites, each with leading axis N; continuous ones in unconstrained space.
        log_likelihood: `(N,)`.
        ancestor: `(N,)` which particle of the prior each descends from; of a crossover, the one whose place it takes.
        beta: inverse temperature.
        log_evidence: log of the estimated normalising constant of p(x) L(x)^β.
        memory: what was evaluated lately; None without a surrogate.
    """

    particles: Particle
    log_likelihood: Array
    ancestor: Array
    beta: Array
    log_evidence: Array
    memory: Memory | None


class Info(NamedTuple):
    """Diagnostics of one step.

    Attributes:
        beta: the new inverse temperature.
        ess: effective sample size of its weights.
        num_ancestors: particles of the prior with descendants.
        counts: what each block's kernels did.
        tuning: the tuning they did it with.
        evaluations: of the likelihood of one particle.
        outer: what the moves by the surrogate did, scalars; `counts` are then by the estimate. None without one.
    """

    beta: Array
    ess: Array
    num_ancestors: Array
    counts: dict[str, Counts]
    tuning: Tuning
    evaluations: Array
    outer: Counts | None


class Settings(NamedTuple):
    """Static settings of a step; see `SMC`."""

    num_particles: int
    target_ess: float
    num_moves: int
    resampling: str
    waste_free: int
    surrogate: Surrogate | None = None


def particle_mesh(num_devices: int) -> Mesh:
    """The first `num_devices` local devices, over which particles are spread."""
    return Mesh(jax.local_devices()[:num_devices], (AXIS,))


def init(key: Array, problem: Problem, kernels: dict[str, list[Kernel]], settings: Settings) -> tuple[State, Tuning]:
    """Particles drawn from the prior."""
    num = settings.num_particles
    particles = chunked(problem.draw, jax.random.split(key, num))
    shape, outputs = jax.eval_shape(problem.observe, jax.tree.map(lambda leaf: leaf[0], particles))
    blank = Observed(jnp.full(num, -jnp.inf, shape.dtype), jnp.zeros((num, *outputs.shape), outputs.dtype))
    seen, _ = evaluate_where(jnp.ones(num, bool), problem.observe, particles, blank)
    memory = None if settings.surrogate is None else first_memory(settings.surrogate, particles, seen)
    zero = jnp.zeros((), shape.dtype)
    state = State(particles, seen.log_likelihood, jnp.arange(num), zero, zero, memory)
    return state, _tuned(_tuning.start(kernels, shape.dtype), state, problem, settings)


def step(
    key: Array,
    state: State,
    tuning: Tuning,
    beta: Array,
    problem: Problem,
    kernels: dict[str, list[Kernel]],
    settings: Settings,
    mesh: Mesh | None = None,
) -> tuple[State, Tuning, Info]:
    """One temperature: find β', reweight, resample, move, tune.

    Args:
        key: random key.
        state: N particles.
        tuning: of the kernels at this temperature.
        beta: the next inverse temperature; NaN to find it by the effective sample size.
        problem: the model.
        kernels: by block.
        settings: static.
        mesh: of the devices that the particles are spread over; None for one.

    Returns:
        The state, the tuning for the next temperature, and diagnostics.
    """
    found = _weights.next_beta(state.beta, state.log_likelihood, settings.target_ess)
    beta = jnp.where(jnp.isnan(beta), found, beta).astype(state.beta.dtype)
    log_weights = _weights.scaled(beta - state.beta, state.log_likelihood)
    key_resample, key_move, key_kernels = jax.random.split(key, 3)
    num_chains = settings.num_particles // settings.waste_free
    chosen = RESAMPLING[settings.resampling](key_resample, log_weights, num_chains)
    resampled = jax.tree.map(lambda leaf: leaf[chosen], Population(state.particles, state.log_likelihood))
    keys = (key_move, key_kernels)
    moved = _move(keys, resampled, beta, tuning, problem, kernels, settings, mesh)
    ancestor = jnp.tile(state.ancestor[chosen], settings.waste_free)
    memory = state.memory
    if memory is not None:
        flat = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), moved.seen)
        memory = remember(memory, *flat)
    log_evidence = state.log_evidence + _weights.log_mean_exp(log_weights)
    new = State(moved.kept.particles, moved.kept.log_likelihood, ancestor, beta, log_evidence, memory)
    present = jnp.zeros(settings.num_particles, bool).at[ancestor].set(True)
    ess = _weights.ess(log_weights)
    info = Info(beta, ess, present.sum(), moved.counts, tuning, moved.evaluations, moved.outer)
    return new, _tuned(_tuning.update(tuning, moved.counts, kernels), new, problem, settings), info


class _Moved(NamedTuple):
    """What the moves of one temperature gave; see `Info`."""

    kept: Population
    counts: dict[str, Counts]
    evaluations: Array
    outer: Counts | None
    seen: Seen | None


def _move(
    keys: tuple[Array, Array],
    population: Population,
    beta: Array,
    tuning: Tuning,
    problem: Problem,
    kernels: dict[str, list[Kernel]],
    settings: Settings,
    mesh: Mesh | None,
) -> _Moved:
    """The moves of one temperature, on each device for its own particles; N particles come back."""
    (key, kernel_key), several, surrogate = keys, settings.waste_free > 1, settings.surrogate
    numbers = (settings.num_moves, settings.waste_free - 1 if several else 1)

    def local(key: Array, population: Population) -> _Moved:
        given = (key, kernel_key, population, beta, tuning, problem, kernels)
        if surrogate is None:
            moved = _Moved(*move(*given, *numbers), outer=None, seen=None)
        else:
            moved = _Moved(*surrogate_move(*given, surrogate, *numbers))
        if several:  # a chain's first state is the resampled particle itself
            kept = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), population, moved.kept)
            moved = moved._replace(kept=kept)
        return moved

    if mesh is None:
        moved = local(jax.random.fold_in(key, 0), population)
    else:
        rows, spec, whole = PartitionSpec(AXIS), PartitionSpec(None, AXIS), PartitionSpec()

        def on_device(population: Population) -> tuple[Any, ...]:
            moved = local(jax.random.fold_in(key, jax.lax.axis_index(AXIS)), population)
            counts, evaluations, outer = jax.lax.psum((moved.counts, moved.evaluations, moved.outer), AXIS)
            return moved.kept, counts, evaluations, outer, moved.seen

        spread = jax.shard_map(
            on_device, mesh=mesh, in_specs=rows, out_specs=(spec, whole, whole, whole, spec), check_vma=False
        )
        moved = _Moved(*spread(population))
    return moved._replace(kept=jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), moved.kept))


def _tuned(tuning: Tuning, state: State, problem: Problem, settings: Settings) -> Tuning:
    """The tuning with what the particles themselves teach for the next temperature."""
    tuning = tuning._replace(scale=_scale(state.particles, problem))
    if settings.surrogate is None or state.memory is None:
        return tuning
    following = _weights.next_beta(state.beta, state.log_likelihood, settings.target_ess)
    beta = jnp.where(state.beta < 1, following, 1.0)
    return tuning._replace(surrogate=fit(settings.surrogate, state.memory, beta))


def _scale(particles: Particle, problem: Problem) -> Array:
    """The Cholesky factor of the particles' covariance on the continuous block."""
    sites = next((block.sites for block in problem.blocks if block.name == CONTINUOUS), ())
    if not sites:
        return jnp.zeros((0, 0))
    z = jax.vmap(lambda particle: ravel_pytree({name: particle[name] for name in sites})[0])(particles)
    return _tuning.covariance_factor(z)
