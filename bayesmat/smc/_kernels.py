"""Markov kernels on one string, for a target proportional to p(x) L(x)^β.

A kernel proposes and says the logarithm of its correction: everything in the Metropolis-Hastings ratio but the
likelihood, with the prior in it. A string is an integer array padded with zeros; its prior has `regrow`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .._types import Array


class StringPrior(Protocol):
    """What a distribution must offer for its site to be moved as a string."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + (length,)`."""

    def log_prob(self, value: Array) -> Array:
        """The log probability of strings `(..., length)`."""

    def regrow(self, key: Array, x: Array, cut: Array) -> Array:
        """A draw given that the first `cut` tokens are those of `x`."""


class Proposal(NamedTuple):
    """What a kernel proposes: the new string and the log of the correction."""

    x: Array
    log_correction: Array


def num_tokens(x: Array) -> Array:
    """Tokens of a string, the zeros after it not counted."""
    return (x != 0).sum(-1)


def regrow_suffix(key: Array, x: Array, prior: StringPrior) -> Proposal:
    """Cut the string at a place drawn uniformly from {0, …, n} and draw the rest from the prior.

    The prior's ratio cancels against the proposal's, save for the number of places to cut:

        α = min{1, (L'/L)^β (n + 1) / (n' + 1)}

    for both directions need the same cut, drawn with probability 1/(n + 1) one way and 1/(n' + 1) back.
    """
    key_cut, key_grow = jax.random.split(key)
    n = num_tokens(x)
    cut = jax.random.randint(key_cut, (), 0, n + 1)
    new = prior.regrow(key_grow, x, cut)
    return Proposal(new, cut_correction(n, num_tokens(new)))


def cut_correction(n: Array, n_new: Array) -> Array:
    """log (n + 1) / (n' + 1), the correction of `regrow_suffix`."""
    return jnp.log((n + 1.0) / (n_new + 1.0))


def accept_log_prob(beta: Array, log_likelihood: Array, new_log_likelihood: Array, log_correction: Array) -> Array:
    """log α of a Metropolis-Hastings step at inverse temperature β; -inf towards impossible states."""
    possible = jnp.isfinite(new_log_likelihood)
    change = beta * (jnp.where(possible, new_log_likelihood, 0.0) - log_likelihood)
    # A chain can only stand on an impossible state before its first reweighting; it leaves at any chance.
    change = jnp.where(jnp.isfinite(log_likelihood), change, jnp.inf)
    return jnp.where(possible, jnp.minimum(0.0, change + log_correction), -jnp.inf)
