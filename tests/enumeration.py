"""Exact oracles on alphabets small enough to write down every string."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesmat import chem, prior

TINY = chem.Alphabet(
    (chem.AtomType("C", 0, 4), chem.AtomType("O", 0, 2), chem.AtomType("F", 0, 1)), length=6, max_depth=1, max_rings=1
)
"""Three atoms, six tokens: chains, one branch, one ring."""

SMALL = chem.Alphabet((chem.AtomType("C", 0, 4), chem.AtomType("O", 0, 2)), length=5, max_depth=1, max_rings=1)
"""Two atoms, five tokens: small enough for every pair of strings."""


@functools.cache
def all_strings(alphabet: chem.Alphabet) -> np.ndarray:
    """Every string of an alphabet, `(S, length)`, by walking the automaton; fails at a dead end."""
    legal = jax.jit(jax.vmap(lambda state: chem.legal(state, alphabet)))
    advance = jax.jit(jax.vmap(lambda state, token: chem.advance(state, token, alphabet)))
    states = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], chem.start(alphabet))
    prefixes, finished = np.zeros((1, alphabet.length), np.int32), []
    for position in range(alphabet.length):
        mask = np.asarray(legal(states))
        assert mask.any(1).all(), "dead end"
        parent, token = np.nonzero(mask)
        ended = token == chem.END
        finished.append(prefixes[parent[ended]])
        parent, token = parent[~ended], token[~ended]
        prefixes = prefixes[parent].copy()
        prefixes[:, position] = token
        states = advance(jax.tree.map(lambda leaf, p=parent: leaf[p], states), jnp.asarray(token, jnp.int32))
        if not len(parent):
            break
    full = np.asarray(legal(states))[:, chem.END] if len(prefixes) else np.zeros(0, bool)
    assert full.all(), "a string that fills the array is not complete"
    return np.concatenate([*finished, prefixes])


@functools.cache
def tiny_prior() -> prior.NGram:
    """An n-gram fitted to a few molecules of the tiny alphabet, far from uniform."""
    corpus = ["CCO", "CC(F)C", "C1CC1", "COC", "C=CC", "CC=O", "CCCC", "C1CO1", "OCO", "CC(C)F", "C#CC", "CCCO"]
    return prior.fit_ngram(corpus, TINY, order=4, min_count=1)


def prefix_mass(strings: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`(S, length + 1)`: the probability that a draw begins with the first c tokens of each string, c = 0 … length."""
    mass = np.empty((len(strings), strings.shape[1] + 1))
    for cut in range(strings.shape[1] + 1):
        _, group = np.unique(strings[:, :cut], axis=0, return_inverse=True)
        mass[:, cut] = np.bincount(group.ravel(), p)[group.ravel()]
    return mass


def regrow_matrices(strings: np.ndarray, p: np.ndarray) -> list[np.ndarray]:
    """For each cut c, the exact law of `regrow(x, c)`: `(S, S)` with rows x, columns x'."""
    mass = prefix_mass(strings, p)
    matrices = []
    for cut in range(strings.shape[1] + 1):
        same = (strings[:, None, :cut] == strings[None, :, :cut]).all(-1)
        matrices.append(np.where(same, p[None, :] / mass[:, cut, None], 0.0))
    return matrices


class TablePrior(dist.Distribution):
    """Any law over an enumerated space of strings, exact in the precision of its table.

    Args:
        mass: `(length + 1, V ** length)` log probability that a draw begins with given tokens, by their number.
        strings: `(S, length)` the space.
        log_p: `(S,)` its law.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)
    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("mass", "strings", "log_p")

    def __init__(self, mass, strings, log_p):
        self.mass, self.strings, self.log_p = mass, strings, log_p
        super().__init__(batch_shape=(), event_shape=(strings.shape[-1],), validate_args=False)

    @property
    def base(self) -> int:
        """V, from the size of the table."""
        return round(self.mass.shape[1] ** (1 / self.strings.shape[-1]))

    def index(self, x):
        """The number of a string among all arrays of tokens."""
        return (x * self.base ** jnp.arange(x.shape[-1])).sum(-1)

    def token_log_probs(self, x):
        """`(length,)` log probability of each token given those before it."""
        length = x.shape[-1]
        kept = jnp.arange(length)[None] < jnp.arange(length + 1)[:, None]
        mass = self.mass[jnp.arange(length + 1), self.index(jnp.where(kept, x, 0))]
        possible = mass[1:] > -jnp.inf
        return jnp.where(possible, mass[1:] - jnp.where(possible, mass[:-1], 0), -jnp.inf)

    def log_prob(self, value, intermediates=None):
        """Of strings `(..., length)`."""
        return self.mass[-1, self.index(value)]

    def sample(self, key, sample_shape=()):
        """Draws."""
        return self.strings[jax.random.categorical(key, self.log_p, shape=sample_shape)]

    def regrow(self, key, x, cut):
        """A draw given its first `cut` tokens."""
        same = ((self.strings == x) | (jnp.arange(x.shape[-1]) >= cut)).all(-1)
        return self.strings[jax.random.categorical(key, jnp.where(same, self.log_p, -jnp.inf))]


def table_prior(strings: np.ndarray, p: np.ndarray) -> TablePrior:
    """The prior with law p over strings, in the precision that JAX has now."""
    length, base = strings.shape[1], int(strings.max()) + 1
    mass = np.zeros((length + 1, base**length))
    weights = base ** np.arange(length)
    for cut in range(length + 1):
        np.add.at(mass[cut], strings[:, :cut] @ weights[:cut], p)
    with np.errstate(divide="ignore"):
        return TablePrior(jnp.asarray(np.log(mass)), jnp.asarray(strings, jnp.int32), jnp.asarray(np.log(p)))


def assert_follows(rows: np.ndarray, law: np.ndarray) -> None:
    """Draws, as rows of an enumerated space, against their law `(S,)`: nothing impossible, and chi-squared."""
    found, expected = np.bincount(rows, minlength=len(law)), len(rows) * law
    assert found[expected == 0].sum() == 0
    keep = expected >= 5
    chi2 = ((found - expected)[keep] ** 2 / expected[keep]).sum()
    assert chi2 < keep.sum() + 4 * np.sqrt(2 * keep.sum())
