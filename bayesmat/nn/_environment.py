"""What the patterns of descriptors ask of an atom: element, charge, aromaticity and counts of neighbours by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from .._types import Array
from ..chem import Alphabet, Graph
from ._aromatic import Aromaticity

_FIELD_BITS = 3
"""No atom has more than seven neighbours: valences are at most seven."""

_FIELDS_PER_WORD = 31 // _FIELD_BITS


class Environment(NamedTuple):
    """One molecule as patterns see it; arrays are `(length,)`, by position of the atom.

    Attributes:
        is_atom: bool.
        number: int32, atomic number; 0 at `*`, -1 where there is no atom.
        charge: int32.
        hydrogens: int32.
        degree: int32, heavy neighbours.
        aromatic: bool.
        bond_single: bool, by token: a single bond that is not aromatic.
        neighbours: int32 arrays, how many by kind. A name is a bond (`-` single, `=` double, `#` triple, `ring`
            aromatic) and an atom: an upper-case element is aliphatic, `A` any aliphatic one, `a` any aromatic one,
            `c` aromatic carbon, `X` one of N O P S F Cl Br I, `#7` any nitrogen.
    """

    is_atom: Array
    number: Array
    charge: Array
    hydrogens: Array
    degree: Array
    aromatic: Array
    bond_single: Array
    neighbours: dict[str, Array]

    def element(self, number: int) -> Array:
        """Which atoms are of an element."""
        return self.number == number


def environment(graph: Graph, found: Aromaticity, alphabet: Alphabet) -> Environment:
    """The neighbours of each atom, counted by kind."""
    is_atom, aromatic = graph.atom > 0, found.atom
    number = jnp.where(is_atom, jnp.asarray(alphabet.atomic_number)[graph.atom], -1)
    charge = jnp.where(is_atom, jnp.asarray(alphabet.charge)[graph.atom], 0)
    aliphatic = is_atom & ~aromatic

    def of(*numbers: int) -> Array:
        return jnp.stack([number == z for z in numbers]).any(0)

    in_ring = graph.bond_in_ring
    single = (graph.bond_order == 1) & ~found.bond
    double = (graph.bond_order == 2) & ~found.bond
    triple, outside = graph.bond_order == 3, double & ~in_ring
    carbon, nitrogen, oxygen, sulfur = (aliphatic & (number == z) for z in (6, 7, 8, 16))
    phosphorus = aliphatic & (number == 15)
    drawing = nitrogen | oxygen | phosphorus | sulfur
    aromatic_carbon, saturated = aromatic & (number == 6), graph.degree + graph.hydrogens == 4
    count = _count_neighbours(
        graph,
        {
            "-A": (single, aliphatic),
            "-C": (single, carbon),
            "-N": (single, nitrogen),
            "-O": (single, oxygen),
            "-S": (single, sulfur),
            "-P": (single, phosphorus),
            "-X": (single, drawing | (aliphatic & of(9, 17, 35, 53))),
            "-B,Si,P": (single, aliphatic & ~of(6, 7, 8, 16, 9, 17, 35, 53)),
            "-a": (single, aromatic),
            "-c": (single, aromatic_carbon),
            "-F": (single, of(9)),
            "-Cl": (single, of(17)),
            "-Br": (single, of(35)),
            "-I": (single, of(53)),
            "-CH3": (single, carbon & (graph.hydrogens == 3)),
            "-#6": (single, of(6)),
            "-#7": (single, of(7)),
            "-#16": (single, of(16)),
            "-not C,N,O,S": (single, is_atom & ~of(6, 7, 8, 16)),
            "-CX4,c": (single, (carbon & saturated) | aromatic_carbon),
            "-!@ amine": (single & ~in_ring, of(7) | oxygen | (sulfur & (graph.degree != 1))),
            "=A": (double, aliphatic),
            "=a": (double, aromatic),
            "=c": (double, aromatic_carbon),
            "=C": (double, carbon),
            "=N": (double, nitrogen),
            "=O": (double, oxygen),
            "=P": (double, phosphorus),
            "=S": (double, sulfur),
            "=#6": (double, of(6)),
            "=#7": (double, of(7)),
            "=#8": (double, of(8)),
            "=S0": (double, of(16) & (charge == 0)),
            "=N-": (double, nitrogen & (charge < 0)),
            "=!@ N,O,P,S": (outside, drawing),
            "#": (triple, is_atom),
            "#A": (triple, aliphatic),
            "ring a": (found.bond, is_atom),
        },
    )
    n = count
    drawn = n["=N"] + n["=O"] + n["=P"] + n["=S"] >= 1
    acyl = carbon & (graph.degree == 3) & (n["=N"] + n["=O"] + n["=S"] >= 1)
    enol = carbon & (n["=#6"] + n["=#7"] + n["=O"] + n["=S"] >= 1)
    kinds = _carbonyl_kinds(graph, carbon, n)
    count |= _count_neighbours(
        graph,
        {
            "-drawn": (single, drawn),
            "-drawn outside rings": (single, n["=!@ N,O,P,S"] >= 1),
            "-!@ acyl": (single & ~in_ring, acyl),
            "-C=C,N,O,S": (single, enol),
            "-carboxyl": (single, carbon & (n["=O"] >= 1)),
            **{f"={kind}": (double, holds) for kind, holds in kinds.items()},
        },
    )
    count["acyl"] = (acyl & (n["-!@ amine"] >= 1)).astype(jnp.int32)
    return Environment(is_atom, number, charge, graph.hydrogens, graph.degree, aromatic, single, count)


def _carbonyl_kinds(graph: Graph, carbon: Array, n: dict[str, Array]) -> dict[str, Array]:
    """The kind of oxygen that each carbon makes of one bound to it twice, in the types of Crippen; first that fits."""
    h, to_a, to_any = graph.hydrogens, n["-c"], n["-A"] + n["-a"]
    first = ((h == 1) & (n["-C"] + n["-N"] + n["-O"] >= 1)) | (h == 2)
    first = first | ((n["-C"] >= 1) & (n["-A"] >= 2)) | ((graph.degree + h == 2) & (n["=O"] >= 2))
    second = ((h == 1) & (to_a >= 1)) | ((to_a >= 1) & (n["-A"] >= 1))
    second = second | ((n["-C"] >= 1) & (n["-a"] >= 1)) | ((to_a >= 1) & (n["-a"] >= 2))
    third = to_any - n["-#6"] >= 2
    return {"O9": carbon & first, "O10": carbon & ~first & second, "O11": carbon & ~first & ~second & third}


def _count_neighbours(graph: Graph, terms: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """How many bonds of a kind lead from each atom to an atom of a kind.

    The counts share integers of a few bits each, so that one scatter serves them all.

    Args:
        graph: one molecule.
        terms: for each name the bonds, `(length,)` bool by token, and the atoms at their other end, `(length,)` bool
            by position.

    Returns:
        `(length,)` int32 for each name, at most seven.
    """
    a, b = graph.bond_from, graph.bond_to
    names = list(terms)
    words = -(-len(names) // _FIELDS_PER_WORD)
    place = {
        name: (index // _FIELDS_PER_WORD, _FIELD_BITS * (index % _FIELDS_PER_WORD)) for index, name in enumerate(names)
    }

    def packed(by_name: Mapping[str, Array]) -> Array:
        total = [jnp.zeros(graph.atom.shape, jnp.int32) for _ in range(words)]
        for name, flags in by_name.items():
            word, shift = place[name]
            total[word] = total[word] + (flags.astype(jnp.int32) << shift)
        return jnp.stack(total, -1)

    bonds = packed({name: bond for name, (bond, _) in terms.items()}) * (2**_FIELD_BITS - 1)
    atoms = packed({name: atom for name, (_, atom) in terms.items()})
    sums = jnp.zeros((*graph.atom.shape, words), jnp.int32)
    sums = sums.at[a].add(bonds & atoms[b]).at[b].add(bonds & atoms[a])
    return {name: (sums[:, word] >> shift) & (2**_FIELD_BITS - 1) for name, (word, shift) in place.items()}
