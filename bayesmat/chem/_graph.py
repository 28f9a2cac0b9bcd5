"""From tokens to a molecular graph of fixed size, on the device.

Each token makes at most one bond, so bonds are listed by token; an atom is named by its token's position. The
derived labels (π flag, ring membership, bond class) do not depend on which Kekulé string was decoded.

Two passes over the tokens do all the work, forward for who is bonded to whom, backward for what each atom's bonds
add up to. They run over a whole batch at once with the batch as the last axis, so that every step is a handful of
vector instructions; `decode` is still written for one string, and `jax.vmap` finds the batched form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, over_batches
from ._alphabet import Alphabet

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
        bond_from: `(length,)` int32, position of one end of the token's bond, its own where it makes none.
        bond_to: `(length,)` int32, position of the other end, 0 where the token makes no bond.
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


def decode(tokens: Array, alphabet: Alphabet) -> Graph:
    """The graph of one legal string.

    Args:
        tokens: `(length,)` integers, a string that the grammar allows, padded with `END`.
        alphabet: the alphabet it was written in; static under `jax.jit`.

    Returns:
        The molecule; map over a batch with `jax.vmap`. A graph takes 31 bytes a token, 248 MB for 100,000 strings
        of 80 tokens, where a program keeps all of it; `in_chunks` bounds that.
    """
    return _decoder(alphabet)(tokens)


@functools.lru_cache(maxsize=64)
def _decoder(alphabet: Alphabet) -> Callable[[Array], Graph]:
    """`decode` for one alphabet, with the rule by which `jax.vmap` batches it."""

    return over_batches(functools.partial(_decode_batch, alphabet=alphabet))


# What the two passes write for a token, packed into one word, so that one array is transposed.
_TO, _ORDER, _BACK, _SUM, _DEGREE, _PI, _IN_RING, _RING_BOND = 0, 10, 12, 16, 20, 24, 25, 26
# A token's place, for the second pass: the number of its ring, its branch depth, what it is.
_DEPTH, _KIND = 10, 20
_OTHER, _ATOM, _OPEN, _RING_END = range(4)


def _decode_batch(tokens: Array, alphabet: Alphabet) -> Graph:
    """`decode` of `(n, length)` strings."""
    tokens = tokens.astype(jnp.int32)
    num = tokens.shape[0]
    # Columns of a row-major array whose row length is a power of two share their cache lines' places, and reading
    # them is several times slower.
    padding = 16 if num % 128 == 0 else 0
    columns = jnp.pad(tokens, ((0, padding), (0, 0))).T
    packed = _sum_bonds(*_make_bonds(columns, alphabet), alphabet).T[:num]

    def field(shift: int, mask: int) -> Array:
        return (packed >> shift) & mask

    position = jnp.arange(alphabet.length, dtype=jnp.int32)
    is_atom = (tokens > 0) & (tokens <= len(alphabet.atoms))
    atom = jnp.where(is_atom, tokens, 0)
    order = field(_ORDER, 3)
    bond_from, bond_to = position - field(_BACK, 15), field(_TO, 1023)
    pi, bond_in_ring = field(_PI, 1) > 0, field(_RING_BOND, 1) > 0
    ends = jax.vmap(lambda row, index: row.at[index].get(mode="promise_in_bounds"))
    conjugated = bond_in_ring & ends(pi, bond_from) & ends(pi, bond_to)
    return Graph(
        atom=atom,
        hydrogens=jnp.where(is_atom, jnp.asarray(alphabet.valence)[atom] - field(_SUM, 15), 0),
        pi=pi,
        in_ring=field(_IN_RING, 1) > 0,
        degree=field(_DEGREE, 15),
        bond_from=bond_from,
        bond_to=bond_to,
        bond_order=order,
        bond_in_ring=bond_in_ring,
        bond_class=jnp.where(conjugated, CONJUGATED, order),
    )


def _make_bonds(tokens: Array, alphabet: Alphabet) -> tuple[Array, Array]:
    """The bond and the place of every token of `(length, n)` strings, as packed words `(length, n)` int32.

    A lighter automaton than the grammar's: strings are legal here, so no valence has to be followed.
    """
    length, num = tokens.shape
    branches = jnp.arange(alphabet.max_depth, dtype=jnp.int32)[:, None]
    rings = jnp.arange(alphabet.max_rings, dtype=jnp.int32)[:, None]

    def step(carry: tuple[Array, ...], inputs: tuple[Array, Array]) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        atom, order, depth, stack, open_rings, num_opened = carry
        token, position = inputs
        is_atom = (token > 0) & (token <= len(alphabet.atoms))
        opens, closes = token == alphabet.open_token, token == alphabet.close_token
        ring_opens, closed = token == alphabet.ring_open_token, token - alphabet.first_ring_close_token
        ring_closes = closed >= 0
        bond = (token == alphabet.bond_token(2)) | (token == alphabet.bond_token(3))

        # An open ring is one word: the position of its atom, its bond's order, its number.
        found = jnp.where(rings == closed, open_rings, 0).sum(0, dtype=jnp.int32)
        entry = atom.clip(0) | (order << 10) | (num_opened << 12)
        pushed = jnp.concatenate([entry[None], open_rings[:-1]])
        removed = jnp.where(ring_closes & (rings >= closed), jnp.roll(open_rings, -1, 0), open_rings)

        tree_order = jnp.where((is_atom & (atom >= 0)) | ring_opens, order, 0)
        bond_order = jnp.where(ring_closes, (found >> 10) & 3, tree_order)
        bond_to = jnp.where(ring_closes, found & 1023, jnp.where(is_atom, atom.clip(0), 0))
        back = jnp.where(ring_closes, position - atom, 0)
        ring = jnp.where(ring_closes, found >> 12, num_opened)
        kind = _ATOM * is_atom + _OPEN * opens + _RING_END * (ring_opens | ring_closes)
        written = (
            ((bond_to << _TO) | (bond_order << _ORDER) | (back << _BACK)),
            (ring | (depth << _DEPTH) | (kind << _KIND)),
        )
        parent = jnp.where(branches == depth - 1, stack, 0).sum(0, dtype=jnp.int32)
        after = (
            jnp.where(is_atom, position, jnp.where(closes, parent, atom)),
            jnp.where(bond, token - alphabet.bond_token(2) + 2, 1),
            depth + opens - closes,
            jnp.where(opens & (branches == depth), atom, stack),
            jnp.where(ring_opens, pushed, removed),
            num_opened + ring_opens,
        )
        return after, written

    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    first: tuple[Array, ...] = (zeros(num) - 1, zeros(num) + 1, zeros(num), zeros((alphabet.max_depth, num)),
             zeros((alphabet.max_rings, num)), zeros(num))  # fmt: skip
    return jax.lax.scan(step, first, (tokens, jnp.arange(length, dtype=jnp.int32)))[1]


def _sum_bonds(bond: Array, place: Array, alphabet: Alphabet) -> Array:
    """What the bonds of each atom add up to, and which bonds are in rings, added to the words of the bonds.

    Read from the end, whatever hangs on an atom stands before it: `sums[d]` holds the bonds of the atom to come at
    branch depth d. In the same way `below[d]` is the exclusive or of the ring ends seen so far on that chain, a bit
    for each ring: at an atom it holds the rings with one end in its subtree. The bond to the atom before it lies in
    a ring unless that is empty. Exact, no hashing.
    """
    depths = jnp.arange(alphabet.max_depth + 1, dtype=jnp.int32)[:, None]
    words = _ring_words(alphabet)

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        below, sums = carry
        bond, place = inputs
        ring, depth, kind = place & 1023, (place >> _DEPTH) & 1023, place >> _KIND
        is_atom, opens, ring_end = kind == _ATOM, kind == _OPEN, kind == _RING_END
        here, inner = depths == depth, opens & (depths == depth + 1)

        bit = jnp.uint32(1) << (ring & 31).astype(jnp.uint32)
        crossed = jnp.zeros(bond.shape, bool)
        after = []
        for word in range(words):
            rows = below[word]
            crossed = crossed | (jnp.where(here, rows, 0) != 0).any(0)
            end = jnp.where(ring_end & (ring >> 5 == word), bit, 0)
            branch = jnp.where(inner, rows, 0).sum(0, dtype=jnp.uint32)
            after.append(jnp.where(inner, 0, jnp.where(here, rows ^ end ^ branch, rows)).astype(jnp.uint32))

        order = (bond >> _ORDER) & 3
        made = order > 0
        in_ring = made & (ring_end | (is_atom & crossed))
        # Four sums in one word: orders, bonds, multiple bonds, ring bonds; none exceeds the largest valence.
        own = order + (made << 8) + ((order > 1) << 16) + (in_ring << 24)
        mine = jnp.where(here, sums, 0).sum(0, dtype=jnp.int32)
        branch_sum = jnp.where(inner, sums, 0).sum(0, dtype=jnp.int32)
        hanging = jnp.where(is_atom, own, mine + jnp.where(ring_end, own, 0) + branch_sum)
        total = jnp.where(is_atom, mine + own, 0)
        is_bond = is_atom | (bond >> _BACK > 0)  # the opening end of a ring only counts for its atom
        written = (
            jnp.where(is_bond, bond, 0)
            | ((total & 15) << _SUM)
            | (((total >> 8) & 15) << _DEGREE)
            | ((total & 0xFF0000 != 0) << _PI)
            | ((total >> 24 != 0) << _IN_RING)
            | ((in_ring & is_bond) << _RING_BOND)
        )
        return (jnp.stack(after), jnp.where(inner, 0, jnp.where(here, hanging, sums))), written

    num = bond.shape[1]
    first = (jnp.zeros((words, len(depths), num), jnp.uint32), jnp.zeros((len(depths), num), jnp.int32))
    return jax.lax.scan(step, first, (bond, place), reverse=True)[1]


def _ring_words(alphabet: Alphabet) -> int:
    """Words of 32 bits that hold a bit for every ring bond a string can have.

    n atoms of valence at most v have at most v n / 2 bonds, so r ≤ (v/2 - 1) n + 1 rings, and n + 2 r tokens.
    """
    spare = float(alphabet.valence.max()) / 2 - 1
    return -(-int((spare * alphabet.length + 1) / (1 + 2 * spare)) // 32)
