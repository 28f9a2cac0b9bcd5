"""Descriptors that are sums over the molecular graph, computed on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array
from ..chem import ATOMIC_MASS, CONJUGATED, DOUBLE, TRIPLE, Alphabet, Graph

_COUNTED = (5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53)
"""Atomic numbers that have a count of their own: B C N O F Si P S Cl Se Br I."""

_MASS = dict(enumerate(ATOMIC_MASS))
"""Standard atomic masses [g/mol] by atomic number, as RDKit uses them; 0 for an attachment point."""

DESCRIPTOR_NAMES = (
    *(f"atoms_{number}" for number in _COUNTED),
    *("hydrogens", "heavy_atoms", "mass", "cations", "anions", "rings", "ring_atoms", "pi_atoms"),
    *("double_bonds", "triple_bonds", "conjugated_ring_bonds", "rotatable_bonds", "terminal_atoms"),
    *("branch_atoms", "quaternary_atoms", "hydroxyls", "amine_hydrogens", "acceptors", "ethers", "carbonyls"),
    *("methyls", "chain_methylenes", "ring_methylenes", "aromatic_branches", "walks_2", "walks_3", "walks_4"),
    *("polar_neighbours", "halogen_carbons"),
)
"""The names of the entries of `descriptors`, in order."""


def _per_token(alphabet: Alphabet) -> np.ndarray:
    """`(num_tokens, ·)` float32: which counted element a token is, cation, anion, and its mass [g/mol]."""
    number, charge = alphabet.atomic_number, alphabet.charge
    columns = [number == z for z in _COUNTED] + [charge > 0, charge < 0, [_MASS.get(int(z), 0.0) for z in number]]
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def descriptors(graph: Graph, alphabet: Alphabet) -> Array:
    """Counts of atoms, bonds, groups and walks of one molecule, `(len(DESCRIPTOR_NAMES),)` float32.

    Definitions are over the graph, not over SMARTS: `rotatable_bonds` are single bonds outside rings between atoms
    that both have another heavy neighbour (RDKit leaves out amides and hindered bonds besides); `acceptors` are all
    N, O and S atoms without positive charge; `rings` is bonds - atoms + 1, where RDKit's symmetrised count is higher
    for cages; `walks_k` counts walks of k bonds between heavy atoms.
    """
    present = graph.atom > 0
    number = jnp.asarray(alphabet.atomic_number)[graph.atom] * present
    charge = jnp.asarray(alphabet.charge)[graph.atom] * present
    made = graph.bond_order > 0
    a, b = graph.bond_from, graph.bond_to

    def neighbours(values: Array) -> Array:
        """The sum of integer `values` over the neighbours of each atom."""
        sums = jnp.zeros(alphabet.length, jnp.int32)
        return sums.at[a].add(jnp.where(made, values[b], 0)).at[b].add(jnp.where(made, values[a], 0))

    carbon, oxygen, nitrogen = number == 6, number == 8, number == 7
    polar = oxygen | nitrogen | (number == 16)
    halogen = (number == 9) | (number == 17) | (number == 35) | (number == 53)
    single = (graph.bond_order == 1) & ~graph.bond_in_ring
    # Three sums of at most 6, 6 and 36 share one word and one scatter.
    packed = neighbours(polar + (halogen << 8) + (graph.degree << 16))
    to_polar, to_halogen, walk_2 = packed & 255, (packed >> 8) & 255, packed >> 16
    walk_3 = neighbours(walk_2)
    num_atoms, num_bonds = present.sum(), made.sum()
    # What an atom token decides alone is read off a histogram of the tokens.
    of_token = _per_token(alphabet)
    histogram = jnp.zeros(alphabet.num_tokens, jnp.float32).at[graph.atom].add(present.astype(jnp.float32))
    by_element = jnp.dot(histogram, of_token[:, :-1], precision=jax.lax.Precision.HIGHEST)
    num_hydrogens = graph.hydrogens.sum().astype(jnp.float32)
    heavy_mass = jnp.dot(histogram, of_token[:, -1], precision=jax.lax.Precision.HIGHEST)
    atom_sums = jnp.concatenate([
        by_element[: len(_COUNTED)],
        jnp.stack([num_hydrogens, num_atoms.astype(jnp.float32), heavy_mass + _MASS[1] * num_hydrogens]),
        by_element[len(_COUNTED) :],
    ])  # fmt: skip
    rows = [
        graph.in_ring,
        graph.pi & present,
        made & (graph.bond_order == 2) & (graph.bond_class == DOUBLE),
        made & (graph.bond_class == TRIPLE),
        made & (graph.bond_class == CONJUGATED),
        made & single & (graph.degree[a] > 1) & (graph.degree[b] > 1),
        graph.degree == 1,
        graph.degree == 3,
        graph.degree == 4,
        oxygen & (graph.hydrogens > 0),
        nitrogen * graph.hydrogens,
        polar & (charge <= 0),
        oxygen & (graph.degree == 2),
        oxygen & graph.pi,
        carbon & (graph.hydrogens == 3),
        carbon & (graph.hydrogens == 2) & ~graph.in_ring,
        carbon & (graph.hydrogens == 2) & graph.in_ring,
        graph.in_ring & graph.pi & (graph.degree == 3),
        graph.degree**2,
        walk_2 * graph.degree,
        walk_3 * graph.degree,
        carbon * to_polar**2,
        carbon * to_halogen**2,
    ]
    more = jnp.stack([row.sum(dtype=jnp.float32) for row in rows])
    rings = jnp.where(num_atoms > 0, num_bonds - num_atoms + 1, 0).astype(jnp.float32)
    return jnp.concatenate([atom_sums, rings[None], more])
