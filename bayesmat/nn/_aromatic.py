"""Aromaticity on the device, by the rules of RDKit's default model.

Every atom of a ring gives 0, 1 or 2 electrons or forbids the ring. A ring is aromatic when they add up to 4n + 2;
then sets of up to six rings, each sharing one bond with another of the set, are tried in the order of their number:
the atoms in one or two of them are counted, the bonds in one of them become aromatic (azulene: the outer ten). A
fused system is left alone once all its bonds are aromatic. Source: the RDKit book, section on aromaticity, and
the code of RDKit (`Aromaticity.cpp`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array
from ..chem import Alphabet, Graph
from ._rings import Rings, pack, pick, popcount, rings, select, union, unpack

MAX_UNDECIDED = 8
"""Rings whose sets are all tried, of the fused systems that single rings leave undecided; 2^8 sets."""

MAX_SET = 6
"""Rings in a set."""

MAX_RING_IN_SET = 24
"""Larger rings are in no set."""

MIN_MACROCYCLE = 9
"""The oxygen and the sulfur of ethers that are in no smaller ring give no electrons, so they forbid theirs."""

# Default valences and outer electrons, as RDKit has them.
_VALENCE = {5: 3, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 3, 16: 2, 17: 1, 32: 4, 33: 3, 34: 2, 35: 1, 52: 2, 53: 1}
_OUTER = {5: 3, 6: 4, 7: 5, 8: 6, 9: 7, 14: 4, 15: 5, 16: 6, 17: 7, 32: 4, 33: 5, 34: 6, 35: 7, 52: 6, 53: 7}


class Aromaticity(NamedTuple):
    """What is aromatic in one molecule.

    Attributes:
        atom: `(length,)` bool, by position.
        bond: `(length,)` bool, by the token that makes the bond.
        num_aromatic: int32, rings all of whose bonds are aromatic.
        complete: bool, all rings and all sets of rings that had to be were tried.
        rings: the rings it was decided on.
    """

    atom: Array
    bond: Array
    num_aromatic: Array
    complete: Array
    rings: Rings


class _Donors(NamedTuple):
    """Which atoms can be aromatic, which of those give one or two electrons, which are ethers; `(length,)` bool."""

    candidate: Array
    one: Array
    two: Array
    ether: Array


def aromatic_atoms(graph: Graph, alphabet: Alphabet) -> Array:
    """Which atoms are aromatic, `(length,)` bool by position; RDKit's default model, see `aromaticity`."""
    return aromaticity(graph, alphabet).atom


def aromaticity(graph: Graph, alphabet: Alphabet) -> Aromaticity:
    """Aromatic atoms, bonds and rings of one molecule, as RDKit's default model has them.

    Args:
        graph: one molecule.
        alphabet: its alphabet; static under `jax.jit`.

    Returns:
        What is aromatic. Where the rings are not complete (see `Rings`), or more than `MAX_UNDECIDED` rings stand
        in fused systems that single rings leave undecided, some fused rings are not tried and count as not aromatic.
    """
    found = rings(graph, alphabet)
    donors = _donors(graph, alphabet)
    in_small = union(found.atoms, found.size < MIN_MACROCYCLE)
    forbidden = pack(~donors.candidate) | (pack(donors.ether) & ~in_small)
    candidate = (found.size > 0) & ((found.atoms & forbidden) == 0).all(-1)
    one, two = pack(donors.one), pack(donors.two)
    bonds = jnp.where(candidate[:, None], found.bonds, 0)
    single = candidate & _huckel(found.atoms, one, two)
    done = union(bonds, single)
    in_sets, all_tried = _fused(bonds, jnp.where(candidate[:, None], found.atoms, 0), done, one, two)
    done = done | in_sets
    flat = pack(graph.bond_order < 3)  # a triple bond in an aromatic ring stays one, and leaves its ends as they are
    atom = ((found.bonds_of & done & flat) != 0).any(-1)
    num_aromatic = ((found.size > 0) & ((found.bonds & ~done) == 0).all(-1)).sum(dtype=jnp.int32)
    return Aromaticity(atom, unpack(done, alphabet.length), num_aromatic, found.complete & all_tried, found)


def _by_element(alphabet: Alphabet, values: dict[int, int]) -> np.ndarray:
    return np.array([values.get(int(z), 0) for z in alphabet.atomic_number], np.int32)


def _donors(graph: Graph, alphabet: Alphabet) -> _Donors:
    """Electrons that each atom gives to a ring."""
    number, charge = alphabet.atomic_number, alphabet.charge
    valence, outer = _by_element(alphabet, _VALENCE), _by_element(alphabet, _OUTER)
    # An element draws the electrons of a double bond outside rings if it has more outer electrons, or as many and
    # is lighter.
    draws = jnp.asarray(outer * 64 + 63 - number)[graph.atom]
    multiple = graph.bond_order > 1
    outside, inside = multiple & ~graph.bond_in_ring, multiple & graph.bond_in_ring
    a, b = graph.bond_from, graph.bond_to

    def packed(drawn: Array) -> Array:
        """Bits 0-3: bonds outside, 4-7 inside, 8-11 outside and drawn by the other end, 12-: orders less one."""
        total = outside + (inside << 4) + ((outside & drawn) << 8) + ((graph.bond_order - 1).clip(0) << 12)
        return total.astype(jnp.int32)

    sums = jnp.zeros(alphabet.length, jnp.int32)
    sums = sums.at[a].add(packed(draws[b] > draws[a])).at[b].add(packed(draws[a] > draws[b]))
    num_outside, num_inside, num_drawn, excess = sums & 15, (sums >> 4) & 15, (sums >> 8) & 15, sums >> 12
    degree = graph.degree + graph.hydrogens
    pairs = np.maximum(outer - valence - charge, 0)
    electrons = jnp.asarray(valence + pairs)[graph.atom] - degree
    # Hydrogens of charged atoms are written out, and RDKit counts them as unsaturation here.
    unsaturated = excess + jnp.where(jnp.asarray(charge)[graph.atom] != 0, graph.hydrogens, 0)
    electrons = jnp.where((electrons > 1) & (unsaturated > 1), 1, electrons)
    many = electrons - (num_drawn > 0)
    is_one = jnp.where(
        electrons == 0,
        (num_outside == 0) & (num_inside > 0),
        jnp.where(electrons == 1, (num_drawn == 0) & (num_outside + num_inside > 0), many % 2 == 1),
    )
    is_two = (electrons > 1) & (many % 2 == 0)
    cation = jnp.asarray(charge)[graph.atom] == 1
    is_empty = jnp.where(
        electrons == 0, num_outside > 0, (electrons == 1) & ((num_drawn > 0) | (cation & (excess == 0)))
    )
    allowed = (valence > 1) & ((number <= 18) | (number == 34) | (number == 52)) & _in_normal_valence(alphabet)
    candidate = jnp.asarray(allowed)[graph.atom] & (degree <= 3) & (electrons >= 0) & (num_outside + num_inside <= 1)
    candidate = candidate & (is_one | is_two | is_empty)
    bridge = jnp.asarray(((number == 8) | (number == 16)) & (charge == 0))[graph.atom]
    ether = is_two & bridge & (graph.degree == 2) & (num_outside + num_inside == 0)
    return _Donors(candidate, candidate & is_one, candidate & is_two, ether)


def _in_normal_valence(alphabet: Alphabet) -> np.ndarray:
    """Atom tokens whose valence is at most that of the neutral element with as many electrons."""
    normal = {z: v for z, v in _VALENCE.items()} | {10: 0, 18: 0, 13: 3, 31: 3, 36: 0, 51: 3, 54: 0, 4: 2}
    of_shell = np.array(
        [normal.get(int(z - q), 0) for z, q in zip(alphabet.atomic_number, alphabet.charge, strict=True)], np.int32
    )
    return alphabet.valence <= of_shell


def _huckel(atoms: Array, one: Array, two: Array) -> Array:
    """Whether the electrons of sets of atoms, `(n, words)`, are 2, 6, 10, …"""
    electrons = popcount(atoms & one) + 2 * popcount(atoms & two)
    return electrons % 4 == 2


def _linked(neighbours: Array) -> Array:
    """For each ring a word of the rings that hang together with it, itself included, `(n,)` uint32.

    Paths double with every step.
    """
    num = len(neighbours)
    place = jnp.arange(num, dtype=jnp.uint32)
    linked = neighbours | (jnp.uint32(1) << place)
    for _ in range((num - 1).bit_length()):
        reached = ((linked[:, None] >> place) & 1) > 0
        linked = jax.lax.reduce(jnp.where(reached, linked, 0), jnp.uint32(0), jax.lax.bitwise_or, (1,))
    return linked


def _system(start: Array, linked: Array) -> Array:
    """Rings (bits of a word) that hang together with those of `start`; see `_linked`."""
    place = jnp.arange(len(linked), dtype=jnp.uint32)
    return union(linked[:, None], ((start >> place) & 1) > 0)[0]


def _neighbours(bonds: Array) -> Array:
    """For each ring a word of the rings that share exactly one bond with it, `(n,)` uint32."""
    size = popcount(bonds)
    small = (size > 0) & (size <= MAX_RING_IN_SET)
    linked = (popcount(bonds[:, None] & bonds) == 1) & small & small[:, None]
    return pack(linked)[:, 0]


def _subsets_linked(neighbours: Array) -> Array:
    """Which sets of up to `MAX_SET` rings hang together, `(2^n,)` bool; set k has ring j where bit j of k is 1."""
    num = len(neighbours)
    chosen, label = select(num, num), jnp.arange(2**num, dtype=jnp.uint32)
    near = jnp.zeros(2**num, jnp.uint32)
    for j in range(num):
        near = near | jnp.where(chosen[:, j], neighbours[j], 0)
    reached = label & (~label + 1)  # the first ring of each set
    for _ in range(MAX_SET - 1):
        reached = (reached | near[reached.astype(jnp.int32)]) & label
    return reached == label


def _in_subsets(rows: Array) -> tuple[Array, Array, Array]:
    """What is in at least one, two and three rings of each set, `(2^n, words)` each; rows are the rings' atoms."""
    num = len(rows)
    chosen = select(num, num)
    one = two = three = jnp.zeros((2**num, rows.shape[1]), jnp.uint32)
    for j in range(num):
        more = jnp.where(chosen[:, j, None], rows[j], 0)
        three, two, one = three | (two & more), two | (one & more), one | more
    return one, two, three


def _fused(bonds: Array, atoms: Array, done: Array, one: Array, two: Array) -> tuple[Array, Array]:
    """Bonds that become aromatic in sets of two to six candidate rings, `(words,)` uint32; and whether all were tried.

    Args:
        bonds, atoms: `(rings, words)` uint32, the candidate rings; zeros elsewhere.
        done: `(words,)` uint32, bonds that are aromatic already.
        one, two: `(words,)` uint32, atoms that give one electron and two.
    """
    neighbours, words = _neighbours(bonds), bonds.shape[1]
    undecided = _system(_open(bonds, done), _linked(neighbours))
    tried = ((undecided >> jnp.arange(len(bonds), dtype=jnp.uint32)) & 1 > 0) & (neighbours > 0)
    picked = pick(tried, jnp.concatenate([bonds, atoms], -1), MAX_UNDECIDED)
    bonds, atoms = picked[:, :words], picked[:, words:]
    neighbours = _neighbours(bonds)
    linked = _linked(neighbours)
    in_one, _, in_three = _in_subsets(atoms)
    bond_one, bond_two, _ = _in_subsets(bonds)
    once = bond_one & ~bond_two
    aromatic = _subsets_linked(neighbours) & _huckel(in_one & ~in_three, one, two)
    label = jnp.arange(len(once), dtype=jnp.uint32)
    number = jax.lax.population_count(label)
    found = jnp.zeros(words, jnp.uint32)
    for size in range(2, MAX_SET + 1):
        active = _system(_open(bonds, done | found), linked)
        found = found | union(once, aromatic & (number == size) & ((label & ~active) == 0))
    return found, tried.sum() <= MAX_UNDECIDED


def _open(bonds: Array, done: Array) -> Array:
    """A word of the rings that have a bond which is not aromatic yet."""
    return pack(((bonds & ~done) != 0).any(-1))[0]
