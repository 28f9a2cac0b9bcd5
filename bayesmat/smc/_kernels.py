"""Markov kernels on strings, each with its acceptance ratio, for a target proportional to p(x) L(x)^β.

A kernel proposes and says the logarithm of its correction: everything in the Metropolis-Hastings ratio but the
likelihood, with the string's own prior in it,

    log p(x') q(x' → x) / (p(x) q(x → x')).

Drawing and applying are apart: `draw` makes the random choices, `apply` is a function of them, so that tests can
enumerate the choices and write down the exact transition matrix. A string is an integer array padded with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .._types import Array, BayesmatError


class StringPrior(Protocol):
    """What a distribution must offer for its site to be moved as a string.

    Two more methods open more kernels: `token_log_probs(x)`, `(length,)` the log probability of each token given
    those before it, for `Infill`; and `rewrite(key, x) → (x', log q(x' → x) / q(x → x'))`, another string of the same
    thing, for `Reorder`.
    """

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + (length,)`."""

    def log_prob(self, value: Array) -> Array:
        """The log probability of strings `(..., length)`."""

    def regrow(self, key: Array, x: Array, cut: Array) -> Array:
        """A draw given that the first `cut` tokens are those of `x`."""


class Proposal(NamedTuple):
    """What a kernel proposes: the new value and the log of the correction."""

    x: Any
    log_correction: Array


@dataclass(frozen=True)
class Kernel:
    """What all kernels have in common.

    Attributes:
        kind: of the blocks it moves: "string", "pair" (two particles' strings), "discrete" or "continuous".
        name: what the diagnostics call it.
        rate: where tuning starts: a guess of how many proposals change the particle, next to other kernels.
        needs: a method of a string's distribution that it calls beside those of `StringPrior`; "" for none.
        site: the one site it is for; None for all that it can move.
        delayed: whether the likelihood is evaluated only after acceptance on the correction alone (Christen and Fox
            2005, doi 10.1198/106186005X76983): fewer evaluations, and fewer acceptances.
        size: where tuning starts; the logarithm of a mean number of tokens or of a step.
        bounds: of `size`; equal bounds mean that there is nothing to tune.
        target: the acceptance that tuning of `size` aims at.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    rate: ClassVar[float]
    needs: ClassVar[str] = ""
    site: str | None = None
    delayed: bool = False
    size: float = 0.0
    bounds: tuple[float, float] = (0.0, 0.0)
    target: float = 0.3

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the likelihood that one proposal takes beside that of what it proposes."""
        return 0


def num_tokens(x: Array) -> Array:
    """Tokens of a string, the zeros after it not counted."""
    return (x != 0).sum(-1)


def splice(x: Array, start: Array, removed: Array, y: Array, start_y: Array, inserted: Array) -> tuple[Array, Array]:
    """x with `removed` tokens from `start` on replaced by `inserted` tokens of y from `start_y` on.

    Returns:
        The new string and whether it fits; what does not fit is cut off.
    """
    place = jnp.arange(len(x))
    old = place - inserted + removed
    last = len(x) - 1
    middle = y[(start_y + place - start).clip(0, last)]
    suffix = jnp.where(old <= last, x[old.clip(0, last)], 0)
    new = jnp.where(place < start, x, jnp.where(place < start + inserted, middle, suffix))
    return new, num_tokens(x) - removed + inserted <= len(x)


def geometric(key: Array, mean: Array) -> Array:
    """A draw from 0, 1, 2, … with probability (1 - r) r^k, r = mean / (1 + mean); int32."""
    u = jax.random.uniform(key, minval=jnp.finfo(jnp.float32).tiny)
    return jnp.minimum(jnp.floor(jnp.log(u) / jnp.log(mean / (1 + mean))), 10_000).astype(jnp.int32)


def two_lengths(key: Array, mean: Array) -> tuple[Array, Array]:
    """Two independent draws from `geometric`, given that they are not both zero."""
    key_first, key_zero, key_second = jax.random.split(key, 3)
    # P(first = 0 | not both) = r0 (1 - r0) / (1 - r0²), r0 = 1 / (1 + mean).
    first_is_zero = jax.random.uniform(key_zero) < 1 / (2 + mean)
    first = jnp.where(first_is_zero, 0, 1 + geometric(key_first, mean))
    return first, geometric(key_second, mean) + first_is_zero


def _where(key: Array, x: Array, span: Array) -> Array:
    """A place where a span of so many tokens can lie, uniformly; 0 where none can."""
    return jax.random.randint(key, (), 0, jnp.maximum(num_tokens(x) - span, 0) + 1)


@dataclass(frozen=True)
class Regrow(Kernel):
    """Cut the string at a place drawn uniformly from {0, …, n} and draw the rest from the prior.

    The prior's ratio cancels against the proposal's, save for the number of places to cut:

        α = min{1, (L'/L)^β (n + 1) / (n' + 1)}

    for both directions need the same cut, drawn with probability 1/(n + 1) one way and 1/(n' + 1) back.
    """

    kind: ClassVar[str] = "string"
    name: ClassVar[str] = "regrow"
    rate: ClassVar[float] = 0.2

    def draw(self, key: Array, x: Array, prior: StringPrior, size: Array) -> Array:
        """Where to cut."""
        return jax.random.randint(key, (), 0, num_tokens(x) + 1)

    def log_correction(self, x: Array, new: Array, size: Array) -> Array:
        """log (n + 1) / (n' + 1)."""
        return jnp.log((num_tokens(x) + 1.0) / (num_tokens(new) + 1.0))

    def propose(self, key: Array, x: Array, prior: StringPrior, size: Array) -> Proposal:
        """A new string."""
        key_cut, key_grow = jax.random.split(key)
        new = prior.regrow(key_grow, x, self.draw(key_cut, x, prior, size))
        return Proposal(new, self.log_correction(x, new, size))


@dataclass(frozen=True)
class RegrowTail(Regrow):
    """As `Regrow`, but short tails are drawn anew more often: d = n - c tokens with probability ∝ r^d.

        α = min{1, (L'/L)^β q(c | n') / q(c | n)},   q(c | n) = r^(n-c) (1 - r) / (1 - r^(n+1))

    Args:
        size: log of the mean tail, m = r / (1 - r); tuned by acceptance.
    """

    name: ClassVar[str] = "regrow tail"
    size: float = 1.5
    bounds: tuple[float, float] = (0.0, 4.0)

    @staticmethod
    def _log_ratio(size: Array) -> Array:
        return size - jnp.logaddexp(size, 0.0)

    def draw(self, key: Array, x: Array, prior: StringPrior, size: Array) -> Array:
        """Where to cut."""
        n, log_r = num_tokens(x), self._log_ratio(size)
        u = jax.random.uniform(key, dtype=log_r.dtype)
        tail = jnp.floor(jnp.log1p(u * jnp.expm1((n + 1) * log_r)) / log_r).astype(jnp.int32)
        return n - tail.clip(0, n)

    def log_correction(self, x: Array, new: Array, size: Array) -> Array:
        """log q(c | n') / q(c | n), which does not depend on c."""
        n, n_new, log_r = num_tokens(x), num_tokens(new), self._log_ratio(size)
        whole, whole_new = jnp.log(-jnp.expm1((n + 1) * log_r)), jnp.log(-jnp.expm1((n_new + 1) * log_r))
        return (n_new - n) * log_r + whole - whole_new


@dataclass(frozen=True)
class Independence(Regrow):
    """A new string from the prior: α = min{1, (L'/L)^β}."""

    name: ClassVar[str] = "independence"
    rate: ClassVar[float] = 0.05

    def draw(self, key: Array, x: Array, prior: StringPrior, size: Array) -> Array:
        """Cut at the start."""
        return jnp.zeros((), jnp.int32)

    def log_correction(self, x: Array, new: Array, size: Array) -> Array:
        """Nothing."""
        return jnp.zeros_like(size)


class Span(NamedTuple):
    """What `Infill` draws: where, how many tokens go and how many come, and a string whose tokens come."""

    start: Array
    removed: Array
    inserted: Array
    grown: Array


@dataclass(frozen=True)
class Infill(Kernel):
    """Replace a span: ℓ tokens from place a on go, ℓ' tokens drawn left to right from the prior come, the rest stays.

        α = min{1, (L'/L)^β p(s, END | pre, m') / p(s, END | pre, m)}

    with s the tokens after the span. ℓ and ℓ' come from one geometric law, not both zero, and a uniformly from the
    n - ℓ + 1 places where a span of ℓ can lie; n' - ℓ' = n - ℓ, so all of that cancels. A draw of ℓ > n, of an END
    within the new span, or of a string that does not fit the array, proposes nothing. The suffix's probability is
    computed anew, for the grammar's state and the context have changed.

    Args:
        size: log of the mean of ℓ and ℓ'; tuned by acceptance.
    """

    kind: ClassVar[str] = "string"
    name: ClassVar[str] = "infill"
    rate: ClassVar[float] = 0.05
    needs: ClassVar[str] = "token_log_probs"
    delayed: bool = True
    size: float = 0.7
    bounds: tuple[float, float] = (-0.5, 2.5)

    def draw(self, key: Array, x: Array, prior: StringPrior, size: Array) -> Span:
        """The choices."""
        key_lengths, key_start, key_grow = jax.random.split(key, 3)
        removed, inserted = two_lengths(key_lengths, jnp.exp(size))
        start = _where(key_start, x, removed)
        return Span(start, removed, inserted, prior.regrow(key_grow, x, start))

    def apply(self, x: Array, span: Span, prior: Any) -> Proposal:
        """The string that the choices lead to."""
        new, fits = splice(x, span.start, span.removed, span.grown, span.start, span.inserted)
        place = jnp.arange(len(x))
        within = (place >= span.start) & (place < span.start + span.inserted)
        complete = (jnp.where(within, span.grown, 1) != 0).all() & (span.start + span.inserted <= len(x))
        possible = fits & complete & (span.removed <= num_tokens(x))

        def suffix(string: Array, first: Array) -> Array:
            # Selected, not multiplied with zero: before the suffix there may be -inf.
            return jnp.where(place >= first, prior.token_log_probs(string), 0.0).sum()

        after = suffix(new, span.start + span.inserted) - suffix(x, span.start + span.removed)
        return Proposal(jnp.where(possible, new, x), jnp.where(possible, after, -jnp.inf))

    def propose(self, key: Array, x: Array, prior: Any, size: Array) -> Proposal:
        """A new string."""
        return self.apply(x, self.draw(key, x, prior, size), prior)


@dataclass(frozen=True)
class Reorder(Kernel):
    """Another string of the same thing, by the prior's `rewrite`: α = min{1, p(x') q(x' → x) / (p(x) q(x → x'))}.

    The likelihood does not change unless the model looks at the string itself; it is evaluated all the same.
    """

    kind: ClassVar[str] = "string"
    name: ClassVar[str] = "reorder"
    rate: ClassVar[float] = 0.05
    needs: ClassVar[str] = "rewrite"

    def propose(self, key: Array, x: Array, prior: Any, size: Array) -> Proposal:
        """A new string."""
        new, log_ratio = prior.rewrite(key, x)
        possible = jnp.isfinite(log_ratio)
        new = jnp.where(possible, new, x)
        change = prior.log_prob(new) - prior.log_prob(x) + jnp.where(possible, log_ratio, 0.0)
        return Proposal(new, jnp.where(possible, change, -jnp.inf))


class Swap(NamedTuple):
    """What `Crossover` draws: where a segment of each string begins and how long it is."""

    start: Array
    removed: Array
    start_other: Array
    removed_other: Array


@dataclass(frozen=True)
class Crossover(Kernel):
    """Two particles swap a segment, accepted on the product of their targets.

        α = min{1, (L_x' L_y' / L_x L_y)^β p(x') p(y') / (p(x) p(y))}

    ℓ tokens of x from place a on change places with ℓ' tokens of y from b on; ℓ and ℓ' come from one geometric law, not
    both zero, a and b uniformly from where such segments can lie, and as with `Infill` all of that cancels.

    Args:
        size: log of the mean segment; tuned by acceptance.
    """

    kind: ClassVar[str] = "pair"
    name: ClassVar[str] = "crossover"
    rate: ClassVar[float] = 0.02
    delayed: bool = True
    size: float = 1.5
    bounds: tuple[float, float] = (-0.5, 3.0)

    def draw(self, key: Array, x: Array, y: Array, size: Array) -> Swap:
        """The choices."""
        key_lengths, key_a, key_b = jax.random.split(key, 3)
        removed, removed_other = two_lengths(key_lengths, jnp.exp(size))
        return Swap(_where(key_a, x, removed), removed, _where(key_b, y, removed_other), removed_other)

    def apply(self, x: Array, y: Array, swap: Swap, prior_x: Any, prior_y: Any) -> Proposal:
        """The two strings that the choices lead to."""
        new_x, fits_x = splice(x, swap.start, swap.removed, y, swap.start_other, swap.removed_other)
        new_y, fits_y = splice(y, swap.start_other, swap.removed_other, x, swap.start, swap.removed)
        possible = fits_x & fits_y & (swap.removed <= num_tokens(x)) & (swap.removed_other <= num_tokens(y))
        new_x, new_y = jnp.where(possible, new_x, x), jnp.where(possible, new_y, y)
        change = prior_x.log_prob(new_x) - prior_x.log_prob(x) + prior_y.log_prob(new_y) - prior_y.log_prob(y)
        return Proposal((new_x, new_y), jnp.where(possible, change, -jnp.inf))

    def propose(self, key: Array, x: Array, y: Array, prior_x: Any, prior_y: Any, size: Array) -> Proposal:
        """Two new strings."""
        return self.apply(x, y, self.draw(key, x, y, size), prior_x, prior_y)


def default_string_kernels(prior: Any) -> list[Kernel]:
    """The kernels that a string site gets: those that its prior can serve."""
    kernels = (Regrow(), RegrowTail(), Crossover(), Infill(), Reorder())
    return [kernel for kernel in kernels if not kernel.needs or hasattr(prior, kernel.needs)]


def check_string_kernel(kernel: Kernel, name: str, prior: Any) -> None:
    """Whether a prior can serve a kernel.

    Raises:
        BayesmatError: it lacks a method.
    """
    if kernel.needs and not hasattr(prior, kernel.needs):
        message = f"kernel {kernel.name!r} needs a prior with `{kernel.needs}`; that of site {name!r} has none"
        raise BayesmatError(message)


def accept_log_prob(beta: Array, log_likelihood: Array, new_log_likelihood: Array, log_correction: Array) -> Array:
    """log α of a Metropolis-Hastings step at inverse temperature β; -inf towards impossible states."""
    possible = jnp.isfinite(new_log_likelihood) & (log_correction > -jnp.inf)
    safe_new = jnp.where(possible, new_log_likelihood, 0.0)
    change = beta * (safe_new - jnp.where(jnp.isfinite(log_likelihood), log_likelihood, 0.0))
    # A chain can only stand on an impossible state before its first reweighting; it leaves at any chance.
    change = jnp.where(jnp.isfinite(log_likelihood), change, jnp.inf)
    return jnp.where(possible, jnp.minimum(0.0, change + jnp.where(possible, log_correction, 0.0)), -jnp.inf)
