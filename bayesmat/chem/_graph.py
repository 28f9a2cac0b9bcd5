"""From tokens to a molecular graph of fixed size, on the device.

Each token makes at most one bond, so bonds are listed by token; an atom is named by its token's position. The
derived labels (π flag, ring membership, bond class) do not depend on which Kekulé string was decoded.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array
from . import _grammar
from ._alphabet import KIND_ATOM, KIND_OPEN, KIND_RING_CLOSE, KIND_RING_OPEN, Alphabet

NO_BOND, SINGLE, DOUBLE, TRIPLE, CONJUGATED = range(5)
"""Bond classes; a ring bond between two π atoms is CONJUGATED whatever its order in this Kekulé form."""


class Graph(NamedTuple):
    """A molecule. Entries are indexed by token position; `length` is the alphabet's.

    Attributes:
        atom: `(length,)` int32, the atom token, 0 where the token is no atom.
        hydrogens: `(length,)` int32, hydrogens on the atom.
        pi: `(length,)` bool, the atom has a double or triple bond.
        in_ring: `(length,)` bool, the atom has a ring bond.
        degree: `(length,)` int32, heavy neighbours.
        bond_from: `(length,)` int32, position of one end of the token's bond.
        bond_to: `(length,)` int32, position of the other end.
        bond_order: `(length,)` int32, 0 where the token makes no bond.
        bond_in_ring: `(length,)` bool.
        bond_class: `(length,)` int32, see the constants of this module.
    """

    atom: Array
    hydrogens: Array
    pi: Array
    in_ring: Array
    degree: Array
    bond_from: Array
    bond_to: Array
    bond_order: Array
    bond_in_ring: Array
    bond_class: Array


class _Written(NamedTuple):
    """What one token adds: a bond (order 0: none), and the ring whose end it is (-1: none)."""

    kind: Array
    depth: Array
    bond_from: Array
    bond_to: Array
    bond_order: Array
    ring: Array


def decode(tokens: Array, alphabet: Alphabet) -> Graph:
    """The graph of one legal string.

    Args:
        tokens: `(length,)` integers, a string that the grammar allows, padded with `END`.
        alphabet: the alphabet it was written in; static under `jax.jit`.

    Returns:
        The molecule; map over a batch with `jax.vmap`.
    """
    tokens = tokens.astype(jnp.int32)
    written = _read(tokens, alphabet)
    bond_in_ring = (written.bond_order > 0) & ((written.kind == KIND_RING_CLOSE) | _in_ring(written, alphabet))
    atom = jnp.where(written.kind == KIND_ATOM, tokens, 0)
    made = written.bond_order > 0

    def at_ends(values: Array) -> Array:
        total = jnp.zeros(alphabet.length, jnp.int32)
        return total.at[written.bond_from].add(values).at[written.bond_to].add(values)

    # One scatter carries four sums: order (< 2^8), degree, multiple bonds and ring bonds of each atom.
    packed = written.bond_order + (made << 8) + ((written.bond_order > 1) << 16) + (bond_in_ring << 24)
    sums = at_ends(packed.astype(jnp.int32))
    order, degree = sums & 255, (sums >> 8) & 255
    pi, in_ring = ((sums >> 16) & 255) > 0, ((sums >> 24) & 255) > 0
    conjugated = bond_in_ring & pi[written.bond_from] & pi[written.bond_to]
    return Graph(
        atom=atom,
        hydrogens=jnp.where(atom > 0, jnp.asarray(alphabet.valence)[atom] - order, 0),
        pi=pi,
        in_ring=in_ring,
        degree=degree,
        bond_from=written.bond_from,
        bond_to=written.bond_to,
        bond_order=written.bond_order,
        bond_in_ring=bond_in_ring,
        bond_class=jnp.where(conjugated, CONJUGATED, written.bond_order),
    )


def _read(tokens: Array, alphabet: Alphabet) -> _Written:
    """One pass over the tokens with the automaton; every field has shape `(length,)`."""
    kinds = jnp.asarray(alphabet.kind)

    def step(carry: tuple, token: Array) -> tuple[tuple, _Written]:
        state, ring_names, num_opened = carry
        kind = kinds[token]
        closed = _grammar.closed_ring(token, alphabet)
        is_closed = jnp.arange(alphabet.max_rings) == closed

        def of_closed(table: Array) -> Array:
            return jnp.where(is_closed, table, 0).sum(-1, dtype=jnp.int32)

        closes, opens, atom = kind == KIND_RING_CLOSE, kind == KIND_RING_OPEN, kind == KIND_ATOM
        tree_order = jnp.where(atom & (state.phase != _grammar.START), state.order, 0)
        after = _grammar.advance(state, token, alphabet)
        written = _Written(
            kind=kind,
            depth=state.depth,
            bond_from=after.atom.clip(0),
            bond_to=jnp.where(closes, of_closed(state.ring_atom), state.atom).clip(0),
            bond_order=jnp.where(closes, of_closed(state.ring_order), tree_order),
            ring=jnp.where(closes, of_closed(ring_names), jnp.where(opens, num_opened, _grammar.NONE)),
        )
        return (after, _grammar.update_rings(ring_names, closed, opens, num_opened), num_opened + opens), written

    carry = (_grammar.start(alphabet), jnp.zeros(alphabet.max_rings, jnp.int32), jnp.asarray(0, jnp.int32))
    return jax.lax.scan(step, carry, tokens)[1]


def _in_ring(written: _Written, alphabet: Alphabet) -> Array:
    """For each atom token, whether the bond to the atom before it lies in a ring.

    A bond of the tree is in a ring unless it is a bridge: unless every ring bond that has one end below it has
    both. Ring bonds are bits; reading from the end, `below[d]` is the exclusive or of the ends seen so far on the
    chain of branch depth d, so at an atom it holds the rings with one end in its subtree. Exact, no hashing.
    """
    words = -(-alphabet.length // 64)  # a ring takes two tokens, a word holds 32 rings
    depths = jnp.arange(alphabet.max_depth + 1)[:, None]

    def step(below: Array, written: _Written) -> tuple[Array, Array]:
        ring = jnp.arange(words)[None] == written.ring // 32
        bit = jnp.where((written.ring >= 0) & ring, jnp.uint32(1) << (written.ring % 32).astype(jnp.uint32), 0)
        here = depths == written.depth
        crossed = jnp.where(here, below, 0).any()
        deeper = jnp.where(depths == written.depth + 1, below, 0).sum(0, dtype=jnp.uint32)
        leaves = written.kind == KIND_OPEN
        below = below ^ jnp.where(here, bit ^ jnp.where(leaves, deeper, 0), 0).astype(jnp.uint32)
        below = jnp.where(leaves & (depths == written.depth + 1), 0, below)
        return below, crossed

    below = jnp.zeros((alphabet.max_depth + 1, words), jnp.uint32)
    return jax.lax.scan(step, below, written, reverse=True)[1]
