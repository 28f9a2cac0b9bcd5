"""The rings of a molecule on the device: its relevant cycles, as sets of bonds and atoms held in bits.

A relevant cycle is one that is not a sum of shorter ones (Vismara 1997, doi 10.37236/1294): the union of all minimum
cycle bases, what RDKit lists as rings. It does not depend on how the molecule is written.

The string gives a basis of the cycle space: each ring token closes one cycle with the tree of the other bonds. Rings
that share no bond with another are read off it; sums of the others are all formed and the relevant ones kept, by
elimination in the order of their size. A set of bonds is a row of 32-bit words, so a sum is an exclusive or.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, BayesmatError
from ..chem import Alphabet, Graph

MAX_FUSED = 8
"""Independent cycles that share bonds with others whose sums are all formed; 2^8 sums."""


class Rings(NamedTuple):
    """The rings of one molecule; `words` is `length / 32` rounded up, bit t % 32 of word t // 32 stands for token t.

    Attributes:
        bonds: `(max_rings, words)` uint32, the bonds of each ring, by the token that makes them; 0 in unused places.
        atoms: `(max_rings, words)` uint32, the atoms of each ring, by position.
        size: `(max_rings,)` int32, atoms in each ring, 0 in unused places.
        num_rings: int32, rings of the molecule, those without a place included.
        complete: bool, every ring is listed and relevant. False for molecules beyond the static sizes: more than
            `length / 6` ring bonds, at most 32 (those in excess are not seen as rings, `num_rings` includes one for
            each), more than `MAX_FUSED` independent cycles in fused systems (those in excess are listed as cycles of
            a short basis, without the alternatives of the same size) or more relevant cycles than places.
        bonds_of: `(length, words)` uint32, the bonds of each atom.
    """

    bonds: Array
    atoms: Array
    size: Array
    num_rings: Array
    complete: Array
    bonds_of: Array


def max_rings(alphabet: Alphabet) -> int:
    """Places for rings: 16 for 80 tokens, 20 for 160, never more than 32, so that a word holds a set of rings."""
    return min(32, 12 + alphabet.length // 20)


def popcount(words: Array) -> Array:
    """How many bits are set in each row of words, `(..., words)` → `(...)` int32."""
    return jax.lax.population_count(words).astype(jnp.int32).sum(-1, dtype=jnp.int32)


def pack(flags: Array) -> Array:
    """Flags as bits, `(..., length)` bool → `(..., words)` uint32."""
    pad = -flags.shape[-1] % 32
    flags = jnp.concatenate([flags, jnp.zeros((*flags.shape[:-1], pad), bool)], -1) if pad else flags
    bits = flags.reshape(*flags.shape[:-1], -1, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)
    return bits.sum(-1, dtype=jnp.uint32)


def unpack(words: Array, length: int) -> Array:
    """The reverse of `pack`, `(..., words)` uint32 → `(..., length)` bool."""
    bits = (words[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(*words.shape[:-1], -1)[..., :length] > 0


def pick(flags: Array, rows: Array, places: int) -> Array:
    """The first `places` flagged rows, `(n,)` and `(n, words)` → `(places, words)`; zeros where there are fewer."""
    rank = jnp.cumsum(flags, dtype=jnp.int32)
    wanted = jnp.arange(1, places + 1, dtype=jnp.int32)
    index = (rank < wanted[:, None]).sum(-1, dtype=jnp.int32)
    return jnp.where((wanted <= rank[-1])[:, None], rows[index.clip(0, len(rows) - 1)], 0)


def select(bits: int, places: int) -> Array:
    """Bit j of each number below 2^bits, `(2^bits, places)` bool: the subsets of `places` things."""
    return ((jnp.arange(2**bits, dtype=jnp.uint32)[:, None] >> jnp.arange(places, dtype=jnp.uint32)) & 1) > 0


def union(rows: Array, flags: Array) -> Array:
    """The exact union of the flagged rows, `(n, words)` and `(n,)` → `(words,)`."""
    return jax.lax.reduce(jnp.where(flags[:, None], rows, 0), jnp.uint32(0), jax.lax.bitwise_or, (0,))


def _fundamental(graph: Graph, alphabet: Alphabet) -> tuple[Array, Array]:
    """The cycle that each ring bond closes with the tree, `(cycles, length)` bool, and how many ring bonds there are.

    The string is a preorder of the tree: the atoms below an atom are those written after it, up to the first atom
    whose parent stands before it. A bond of the tree is in a cycle when one end of the ring bond is below it.
    """
    position = jnp.arange(alphabet.length, dtype=jnp.int16)
    made = graph.bond_order > 0
    tree, closure = made & (graph.atom > 0), made & (graph.atom == 0)
    parent = jnp.where(tree, (graph.bond_from + graph.bond_to).astype(jnp.int16) - position, alphabet.length)
    outside = (position[:, None] > position) & (parent[:, None] < position)
    end = jnp.where(outside, position[:, None], alphabet.length).min(0)
    num_cycles = min(32, max(2, alphabet.length // 6))
    number = jnp.where(closure, jnp.cumsum(closure, dtype=jnp.int32) - 1, -1)
    closes = number == jnp.arange(num_cycles, dtype=jnp.int32)[:, None]
    first = jnp.where(closes, graph.bond_from, 0).sum(-1, keepdims=True, dtype=jnp.int32)
    second = jnp.where(closes, graph.bond_to, 0).sum(-1, keepdims=True, dtype=jnp.int32)
    crossed = ((first >= position) & (first < end)) ^ ((second >= position) & (second < end))
    return (tree & crossed) | closes, closure.sum(dtype=jnp.int32)


def _shortened(cycles: Array) -> Array:
    """The basis after two passes in which each cycle shortens the others, `(cycles, words)`; usually a shortest one.

    Needed only beyond `MAX_FUSED`, where a cycle is listed as it stands here.
    """
    others = jnp.arange(len(cycles), dtype=jnp.int32)

    def shorten(i: Array, cycles: Array) -> Array:
        sums = cycles ^ cycles[i % len(others)]
        shorter = (popcount(sums) < popcount(cycles)) & (others != i % len(others))
        return jnp.where(shorter[:, None], sums, cycles)

    return jax.lax.fori_loop(0, 2 * len(cycles), shorten, cycles)


def _relevant(basis: Array) -> tuple[Array, Array]:
    """All sums of a cycle basis, and which of them are relevant.

    Args:
        basis: `(MAX_FUSED, words)` uint32; rows of zeros stand last.

    Returns:
        `(2^MAX_FUSED, words)` uint32 and `(2^MAX_FUSED,)` bool.
    """
    num = len(basis)
    chosen = select(num, num)
    sums = jnp.zeros((2**num, basis.shape[1]), jnp.uint32)
    for j in range(num):
        sums = sums ^ jnp.where(chosen[:, j, None], basis[j], 0)
    size = popcount(sums)
    label = jnp.arange(2**num, dtype=jnp.int32)
    # What is left of each sum after elimination by the cycles picked so far; 0 once it is a sum of them.
    left = jnp.where(label < (1 << (basis != 0).any(-1).sum(dtype=jnp.int32)), label, 0)
    relevant, level = jnp.zeros(2**num, bool), jnp.int32(0)
    for _ in range(num):
        best = jnp.where(left > 0, (size << num) + label, jnp.int32(2**30)).min()
        shortest = best >> num
        # All of a size are judged before the first of that size is picked: by shorter ones only.
        relevant = relevant | ((shortest > level) & (left > 0) & (size == shortest))
        level = jnp.maximum(level, shortest)
        picked = jnp.where(label == (best & (2**num - 1)), left, 0).sum(dtype=jnp.int32)
        left = left ^ jnp.where(left & picked & -picked, picked, 0)
    return sums, relevant


def rings(graph: Graph, alphabet: Alphabet) -> Rings:
    """The relevant cycles of one molecule; map over a batch with `jax.vmap`.

    Args:
        graph: one molecule.
        alphabet: its alphabet; static under `jax.jit`.

    Returns:
        The rings; see `Rings` for what is given where a molecule exceeds the static sizes.

    Raises:
        BayesmatError: the graph is not one molecule of that alphabet.
    """
    if graph.atom.shape != (alphabet.length,):
        raise BayesmatError(
            f"a graph of shape {graph.atom.shape} where one molecule of shape ({alphabet.length},) is allowed; "
            "map over a batch with jax.vmap"
        )
    cycles, num_closures = _fundamental(graph, alphabet)
    cycles = _shortened(pack(cycles))
    once = shared = jnp.zeros(cycles.shape[1], jnp.uint32)
    for cycle in cycles:
        shared, once = shared | (once & cycle), once | cycle
    fused = ((cycles & shared) != 0).any(-1)
    pooled = fused & (jnp.cumsum(fused, dtype=jnp.int32) <= MAX_FUSED)
    sums, relevant = _relevant(pick(pooled, cycles, MAX_FUSED))
    flags = jnp.concatenate([(cycles != 0).any(-1) & ~pooled, relevant])
    bonds = pick(flags, jnp.concatenate([cycles, sums]), max_rings(alphabet))
    size = popcount(bonds)
    bonds_of = _bonds_of(graph, alphabet)
    atoms = pack(((bonds_of & bonds[:, None]) != 0).any(-1))
    listed = flags.sum(dtype=jnp.int32)
    unseen = (num_closures - len(cycles)).clip(0)
    complete = (unseen == 0) & (listed <= len(bonds)) & (fused.sum(dtype=jnp.int32) <= MAX_FUSED)
    return Rings(bonds, atoms, size, listed + unseen, complete, bonds_of)


def _bonds_of(graph: Graph, alphabet: Alphabet) -> Array:
    """The bonds of each atom, `(length, words)` uint32."""
    words = -(-alphabet.length // 32)
    token = jnp.arange(alphabet.length, dtype=jnp.int32)
    bit = jnp.where(graph.bond_order > 0, jnp.uint32(1) << (token % 32).astype(jnp.uint32), 0)
    empty = jnp.zeros(alphabet.length * words, jnp.uint32)
    filled = empty.at[graph.bond_from * words + token // 32].add(bit).at[graph.bond_to * words + token // 32].add(bit)
    return filled.reshape(alphabet.length, words)
