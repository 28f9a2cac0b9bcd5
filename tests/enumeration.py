"""Exact oracles on alphabets small enough to write down every string."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bayesmat import chem, prior

TINY = chem.Alphabet(
    (chem.AtomType("C", 0, 4), chem.AtomType("O", 0, 2), chem.AtomType("F", 0, 1)), length=6, max_depth=1, max_rings=1
)
"""Three atoms, six tokens: chains, one branch, one ring."""


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
