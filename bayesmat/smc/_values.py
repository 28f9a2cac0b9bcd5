"""Kernels on numbers: random walk and Hamiltonian moves of continuous sites, Gibbs and prior draws of discrete ones.

The continuous sites move together, as one vector z in unconstrained space, in coordinates in which the particles have
unit covariance: z = z0 + C w, C the Cholesky factor that the sampler estimates between temperatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array
from ._kernels import Kernel, Proposal


class Density(NamedTuple):
    """The target of a block as a function of its value: p(v) L(v)^β, the rest of the particle given.

    Attributes:
        log_prior: log density of the block and of the sites that depend on it.
        log_likelihood: log L.
        beta: inverse temperature.
    """

    log_prior: Callable[[Any], Array]
    log_likelihood: Callable[[Any], Array]
    beta: Array

    def tempered(self, value: Any) -> Array:
        """log p(v) + β log L(v); impossible states stay so at β = 0."""
        log_likelihood = self.log_likelihood(value)
        possible = jnp.isfinite(log_likelihood)
        return self.log_prior(value) + jnp.where(
            possible, self.beta * jnp.where(possible, log_likelihood, 0.0), -jnp.inf
        )


@dataclass(frozen=True)
class RandomWalk(Kernel):
    """z' = z + ε C w, w standard normal: α = min{1, p(z') L(z')^β / (p(z) L(z)^β)}.

    Args:
        size: log ε √d; it starts at the optimum for a normal target, 2.38.
    """

    kind: ClassVar[str] = "continuous"
    name: ClassVar[str] = "random walk"
    rate: ClassVar[float] = 0.3
    size: float = math.log(2.38)
    bounds: tuple[float, float] = (-6.0, 2.5)

    def propose(self, key: Array, z: Array, density: Density, scale: Array, size: Array) -> Proposal:
        """A new vector `(d,)`."""
        step = jnp.exp(size) / jnp.sqrt(len(z)) * jax.random.normal(key, z.shape, z.dtype)
        new = z + scale @ step
        return Proposal(new, density.log_prior(new) - density.log_prior(z))


@dataclass(frozen=True)
class HMC(Kernel):
    """Hamiltonian Monte Carlo: leapfrog steps of length ε in the whitened coordinates, accepted on the energy.

    Neal 2011, "MCMC using Hamiltonian dynamics". The model must be differentiable in its continuous sites.

    Args:
        num_steps: leapfrog steps.
        size: log ε.
    """

    kind: ClassVar[str] = "continuous"
    name: ClassVar[str] = "HMC"
    rate: ClassVar[float] = 0.8
    size: float = math.log(0.3)
    bounds: tuple[float, float] = (-8.0, 1.0)
    target: float = 0.8
    num_steps: int = 8

    @property
    def num_evaluations(self) -> int:
        """Gradients of the likelihood for one proposal."""
        return self.num_steps + 1

    def propose(self, key: Array, z: Array, density: Density, scale: Array, size: Array) -> Proposal:
        """A new vector `(d,)`."""
        key_jitter, key_momentum = jax.random.split(key)
        # A random length keeps trajectories from closing on themselves.
        step = jnp.exp(size) * jax.random.uniform(key_jitter, dtype=z.dtype, minval=0.8, maxval=1.2)
        momentum = jax.random.normal(key_momentum, z.shape, z.dtype)
        force = jax.grad(lambda w: density.tempered(z + scale @ w))

        def leap(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
            w, p, f = state
            p = p + 0.5 * step * f
            w = w + step * p
            f = force(w)
            return (w, p + 0.5 * step * f, f), None

        origin = jnp.zeros_like(z)
        (w, p, _), _ = jax.lax.scan(leap, (origin, momentum, force(origin)), None, self.num_steps)
        new = z + scale @ w
        change = density.log_prior(new) - density.log_prior(z) + 0.5 * (momentum @ momentum - p @ p)
        sound = jnp.isfinite(new).all() & jnp.isfinite(change)
        return Proposal(jnp.where(sound, new, z), jnp.where(sound, change, -jnp.inf))


@dataclass(frozen=True)
class Gibbs(Kernel):
    """Each element of a discrete site in turn drawn from its conditional; always accepted.

    From the first to the last or backward, by the toss of a coin: one order alone would not be reversible, which the
    sweeps of a `Surrogate` must be. The likelihood is evaluated once for every value of every element, so this is for
    few values.
    """

    kind: ClassVar[str] = "discrete"
    name: ClassVar[str] = "Gibbs"
    rate: ClassVar[float] = 0.5

    def propose(self, key: Array, x: Array, prior: Any, support: Array, density: Density) -> Proposal:
        """A new value; the correction undoes the likelihood's part of the ratio, for the draw has it already."""

        def turn(values: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
            key, element = inputs
            options = jax.vmap(lambda value: values.at[element].set(value))(support.astype(x.dtype))
            logits = jax.vmap(lambda option: density.tempered(option.reshape(x.shape)))(options)
            # A chain on an impossible state sees none but -inf perhaps: it stays.
            some = jnp.isfinite(logits).any()
            drawn = options[jax.random.categorical(key, jnp.where(some, logits, 0.0))]
            return jnp.where(some, drawn, values), None

        flat = x.reshape(-1)
        key_order, key = jax.random.split(key)
        forward = jnp.arange(len(flat))
        elements = jnp.where(jax.random.bernoulli(key_order), forward, forward[::-1])
        new = jax.lax.scan(turn, flat, (jax.random.split(key, len(flat)), elements))[0].reshape(x.shape)
        before, after = density.log_likelihood(x), density.log_likelihood(new)
        undone = jnp.where(jnp.isfinite(before) & jnp.isfinite(after), density.beta * (before - after), 0.0)
        return Proposal(new, undone)


@dataclass(frozen=True)
class PriorDraw(Kernel):
    """A discrete site drawn anew from its prior: α = min{1, (L'/L)^β c'/c}, c the priors that depend on it."""

    kind: ClassVar[str] = "discrete"
    name: ClassVar[str] = "prior draw"
    rate: ClassVar[float] = 0.3

    def propose(self, key: Array, x: Array, prior: Any, support: Array, density: Density) -> Proposal:
        """A new value."""
        new = prior.sample(key).astype(x.dtype)
        own = jnp.sum(prior.log_prob(new)) - jnp.sum(prior.log_prob(x))
        return Proposal(new, density.log_prior(new) - density.log_prior(x) - own)
