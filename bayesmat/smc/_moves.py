"""Moves of a whole population: proposals by the kernels of each block, evaluation where it is needed, acceptance.

All particles make the same kind of move at the same time, so that only one branch of the mixture is run; which kind
is drawn without looking at the particles, so each move leaves the target invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Array
from . import _tuning
from ._kernels import Kernel, accept_log_prob
from ._model import Block, Particle, Problem
from ._tuning import Counts, Tuning
from ._values import Density

MAX_CHUNK = 8192
"""Particles whose likelihood is evaluated at once; bounds the memory."""


class Population(NamedTuple):
    """n particles, leading axis n, and their log likelihoods `(n,)`."""

    particles: Particle
    log_likelihood: Array


class _Proposed(NamedTuple):
    """What a kernel proposes to n particles.

    Attributes:
        candidates: particles.
        log_correction: `(n,)` the ratio but the likelihood's part; the pair's for a particle that has a partner.
        partner: `(n,)` with whom a particle accepts; itself where alone.
    """

    candidates: Particle
    log_correction: Array
    partner: Array


def chunked(function: Callable[..., Any], *arrays: Any) -> Any:
    """`jax.vmap(function)` with bounded memory."""
    num = len(jax.tree.leaves(arrays)[0])
    if num <= MAX_CHUNK:
        return jax.vmap(function)(*arrays)
    return jax.lax.map(lambda row: function(*row), arrays, batch_size=MAX_CHUNK)


def evaluate_where(
    needed: Array, function: Callable[[Particle], Any], candidates: Particle, otherwise: Any
) -> tuple[Any, Array]:
    """What a function gives of the candidates that need it, `otherwise` of the rest, leading axis n; and how many were
    computed.

    The needed ones are gathered into chunks, and only as many chunks are evaluated as hold them: what was refused
    already, or did not change, costs nothing.
    """
    num = len(needed)
    chunk = min(max(-(-num // 8), min(num, 32)), MAX_CHUNK)
    order = jnp.argsort(~needed, stable=True)
    count = needed.sum()
    # What fills up the last chunk is a needed candidate once more: another may be no string at all.
    place = jnp.arange(num + -num % chunk)
    rows_to_read = order[jnp.where(place < count, place, 0).clip(0, num - 1)]
    rows_to_write = jnp.where(place < count, rows_to_read, num)

    def body(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        first, values = carry
        read, write = (jax.lax.dynamic_slice(rows, (first,), (chunk,)) for rows in (rows_to_read, rows_to_write))
        new = jax.vmap(function)(jax.tree.map(lambda leaf: leaf[read], candidates))

        def put(old: Array, leaf: Array) -> Array:
            return old.at[write].set(leaf.astype(old.dtype), mode="drop")

        return first + chunk, jax.tree.map(put, values, new)

    done, values = jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.asarray(0), otherwise))
    return values, done


def _change(block: Block, name: str, particle: Particle, value: Array) -> tuple[Particle, Array]:
    """The particle with another value of a site, and what that does to the priors that depend on it."""
    candidate = {**particle, name: value}
    return candidate, block.log_context(candidate) - block.log_context(particle)


def _propose_string(kernel: Any, block: Block, size: Array, key: Array, particle: Particle) -> tuple[Particle, Array]:
    (name,) = block.sites
    x = particle[name]
    rows = x.reshape(-1, x.shape[-1])
    key_row, key_propose = jax.random.split(key)
    row = jax.random.randint(key_row, (), 0, len(rows))
    proposal = kernel.propose(key_propose, rows[row], block.prior(particle), size)
    candidate, change = _change(block, name, particle, rows.at[row].set(proposal.x).reshape(x.shape))
    return candidate, proposal.log_correction + change


def _propose_discrete(
    kernel: Any, block: Block, problem: Problem, beta: Array, key: Array, particle: Particle
) -> tuple[Particle, Array]:
    (name,) = block.sites
    density = Density(
        lambda value: block.log_prior({**particle, name: value}),
        lambda value: problem.log_likelihood({**particle, name: value}),
        beta,
    )
    support = None if block.support is None else block.support(particle)
    proposal = kernel.propose(key, particle[name], block.prior(particle), support, density)
    return {**particle, name: proposal.x}, proposal.log_correction


def _propose_continuous(
    kernel: Any, block: Block, problem: Problem, beta: Array, tuned: tuple[Array, Array], key: Array, particle: Particle
) -> tuple[Particle, Array]:
    scale, size = tuned
    z, back = ravel_pytree({name: particle[name] for name in block.sites})
    density = Density(
        lambda value: block.log_prior({**particle, **back(value)}),
        lambda value: problem.log_likelihood({**particle, **back(value)}),
        beta,
    )
    proposal = kernel.propose(key, z, density, scale, size)
    return {**particle, **back(proposal.x)}, proposal.log_correction


def _propose_pairs(kernel: Any, block: Block, size: Array, key: Array, population: Population) -> _Proposed:
    """Particles in random pairs; with an odd number one stays out."""
    (name,) = block.sites
    num = len(population.log_likelihood)
    key_pairs, key_propose = jax.random.split(key)
    mixed = jax.random.permutation(key_pairs, num)
    first, second = mixed[: num // 2], mixed[num // 2 : 2 * (num // 2)]
    one, other = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], population.particles) for rows in (first, second))

    def propose(key: Array, one: Particle, other: Particle) -> tuple[Array, Array, Array]:
        shape = one[name].shape
        x, y = one[name].reshape(-1, shape[-1]), other[name].reshape(-1, shape[-1])
        key_row, key = jax.random.split(key)
        row = jax.random.randint(key_row, (), 0, len(x))
        proposal = kernel.propose(key, x[row], y[row], block.prior(one), block.prior(other), size)
        new_x, new_y = (r.at[row].set(new).reshape(shape) for r, new in zip((x, y), proposal.x, strict=True))
        change = _change(block, name, one, new_x)[1] + _change(block, name, other, new_y)[1]
        return new_x, new_y, proposal.log_correction + change

    new_x, new_y, log_correction = chunked(propose, jax.random.split(key_propose, num // 2), one, other)
    values = population.particles[name].at[first].set(new_x).at[second].set(new_y)
    corrections = jnp.full(num, -jnp.inf, log_correction.dtype).at[first].set(log_correction)
    partner = jnp.arange(num).at[first].set(second).at[second].set(first)
    return _Proposed({**population.particles, name: values}, corrections.at[second].set(log_correction), partner)


def _propose(
    kernel: Any, block: Block, problem: Problem, beta: Array, tuned: tuple[Array, Array], key: Array, pop: Population
) -> _Proposed:
    """One kernel's proposals to all particles."""
    if kernel.kind == "pair":
        return _propose_pairs(kernel, block, tuned[1], key, pop)
    if kernel.kind == "string":
        one = partial(_propose_string, kernel, block, tuned[1])
    elif kernel.kind == "discrete":
        one = partial(_propose_discrete, kernel, block, problem, beta)
    else:
        one = partial(_propose_continuous, kernel, block, problem, beta, tuned)
    num = len(pop.log_likelihood)
    candidates, corrections = chunked(one, jax.random.split(key, num), pop.particles)
    return _Proposed(candidates, corrections, jnp.arange(num))


def differing(candidates: Particle, particles: Particle) -> Array:
    """`(n,)` bool: which candidates are not the particle that stands there."""
    both = zip(jax.tree.leaves(candidates), jax.tree.leaves(particles), strict=True)
    parts = [(new != old).reshape(len(new), -1).any(1) for new, old in both]
    return jnp.stack(parts).any(0)


def choose(accepted: Array, candidates: Particle, particles: Particle) -> Particle:
    """Candidates where accepted, particles elsewhere."""

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(accepted.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(pick, candidates, particles)


def _accept(
    key: Array, population: Population, proposed: _Proposed, delayed: Array, beta: Array, problem: Problem
) -> tuple[Population, Array, Array, Array]:
    """The population after acceptance, `(n,)` who could change and who did, and the evaluations it took."""
    old, partner, correction = population.log_likelihood, proposed.partner, proposed.log_correction
    num = len(old)
    one = jnp.minimum(jnp.arange(num), partner)  # both of a pair look at the same random numbers
    log_u = jnp.log(jax.random.uniform(key, (2, num), old.dtype))[:, one]
    log_alpha = jnp.minimum(correction, 0.0)
    # With delayed acceptance the first test is on the correction, and the second on the likelihood alone.
    passed = jnp.where(delayed, log_u[0] < log_alpha, correction > -jnp.inf)
    correction = jnp.where(delayed, jnp.where(passed, 0.0, -jnp.inf), correction)
    differs = differing(proposed.candidates, population.particles)
    new, evaluated = evaluate_where(passed & differs, problem.log_likelihood, proposed.candidates, old)
    alone = partner == jnp.arange(num)
    # A pair is accepted on the sum of both changes; -inf of either is -inf of the sum.
    both_new = jnp.where(alone, new, new + new[partner])
    both_old = jnp.where(alone, old, old + old[partner])
    accepted = log_u[1] < accept_log_prob(beta, both_old, both_new, correction)
    particles = choose(accepted, proposed.candidates, population.particles)
    return Population(particles, jnp.where(accepted, new, old)), differs, accepted & differs, evaluated


def move(
    key: Array,
    kernel_key: Array,
    population: Population,
    beta: Array,
    tuning: Tuning,
    problem: Problem,
    kernels: dict[str, list[Kernel]],
    num_moves: int,
    num_kept: int,
) -> tuple[Population, dict[str, Counts], Array]:
    """`num_kept` times `num_moves` sweeps over the blocks.

    Args:
        key: for the particles.
        kernel_key: for the choice of kernels; the same on all devices.
        population: n particles.
        beta: inverse temperature.
        tuning: of the kernels.
        problem: the model.
        kernels: by block.
        num_moves: sweeps between kept populations.
        num_kept: how many populations are kept.

    Returns:
        The populations after each `num_moves` sweeps, leading axes `(num_kept, n)`; what the kernels did; the number of
        likelihood evaluations.
    """
    flat = [(block, k, kernel) for block in problem.blocks for k, kernel in enumerate(kernels[block.name])]
    order = _order(kernel_key, tuning, kernels, problem, num_moves * num_kept)
    delayed, inside = (jnp.asarray([getattr(kernel, name) for _, _, kernel in flat]) for name in _ASKED)
    dtype = population.log_likelihood.dtype

    def one(state: tuple[Population, Array], inputs: tuple[Array, Array]) -> tuple[Any, Any]:
        (pop, evaluations), (key, which) = state, inputs
        key_propose, key_accept = jax.random.split(key)
        branches = [
            partial(_propose, kernel, block, problem, beta, (tuning.scale, tuning.size[block.name][k]))
            for block, k, kernel in flat
        ]
        proposed = jax.lax.switch(which, branches, key_propose, pop)
        pop, differed, changed, evaluated = _accept(key_accept, pop, proposed, delayed[which], beta, problem)
        at = jax.nn.one_hot(which, len(flat), dtype=dtype)
        counts = Counts(at * len(changed), at * differed.sum(), at * changed.sum())
        return (pop, evaluations + evaluated + inside[which] * len(changed)), counts

    def keep(state: tuple[Population, Array], inputs: Any) -> tuple[Any, Any]:
        state, counts = jax.lax.scan(one, state, inputs)
        return state, (state[0], counts)

    inputs = jax.tree.map(
        lambda leaf: leaf.reshape(num_kept, -1, *leaf.shape[1:]), (jax.random.split(key, len(order)), order)
    )
    (_, evaluations), (kept, counts) = jax.lax.scan(keep, (population, jnp.zeros((), jnp.int32)), inputs)
    counts = jax.tree.map(lambda leaf: leaf.sum((0, 1)), counts)
    return kept, {name: jax.tree.map(lambda leaf, r=rows: leaf[r], counts) for name, rows in _rows(flat)}, evaluations


_ASKED = ("delayed", "num_evaluations")


def _rows(flat: list[tuple[Block, int, Kernel]]) -> list[tuple[str, Array]]:
    """By block, where its kernels stand in a list of all."""
    names = dict.fromkeys(block.name for block, _, _ in flat)
    return [(name, jnp.asarray([i for i, entry in enumerate(flat) if entry[0].name == name])) for name in names]


def _order(key: Array, tuning: Tuning, kernels: dict[str, list[Kernel]], problem: Problem, num: int) -> Array:
    """Which kernels `num` sweeps use, as numbers in the list of all kernels `(num · blocks,)`.

    Each sweep visits the blocks forward or backward by the toss of a coin: then every order is as probable as its
    reverse, so the moves are reversible as a whole.
    """
    columns, offset = [], 0
    for i, block in enumerate(problem.blocks):
        columns.append(offset + _tuning.order(jax.random.fold_in(key, i), tuning.rate[block.name], num))
        offset += len(kernels[block.name])
    order = jnp.stack(columns, 1)
    backward = jax.random.bernoulli(jax.random.fold_in(key, len(columns)), shape=(num, 1))
    return jnp.where(backward, order[:, ::-1], order).ravel()
