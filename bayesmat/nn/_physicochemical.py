"""The descriptors that chemists quote, computed on the device with the definitions of RDKit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array
from ..chem import Alphabet, Graph
from ._aromatic import aromaticity
from ._crippen import crippen
from ._descriptors import _MASS
from ._environment import Environment, environment
from ._rings import union, unpack

PHYSICOCHEMICAL_NAMES = (
    *("molecular_weight", "heavy_atoms", "hydrogen_bond_donors", "hydrogen_bond_acceptors", "rotatable_bonds"),
    *("rings", "aromatic_rings", "aromatic_atoms", "fraction_sp3", "polar_surface_area", "log_p"),
    *("molar_refractivity", "lipinski_donors", "lipinski_acceptors"),
)
"""The names of the entries of `physicochemical`, in order."""


def physicochemical(graph: Graph, alphabet: Alphabet) -> Array:
    """Physico-chemical descriptors of one molecule, `(len(PHYSICOCHEMICAL_NAMES),)` float32.

    Definitions are those of RDKit 2026.9; names of its functions in brackets.

    - `molecular_weight` [g/mol] (`MolWt`), `*` weighing nothing; `heavy_atoms` without `*`;
    - `hydrogen_bond_donors`, `hydrogen_bond_acceptors` (`CalcNumHBD`, `CalcNumHBA`), `lipinski_donors`,
      `lipinski_acceptors` (`CalcNumLipinskiHBD`, `CalcNumLipinskiHBA`);
    - `rotatable_bonds` (`CalcNumRotatableBonds`, the strict default: no amides, CF3, tert-butyl or methyl);
    - `rings`, `aromatic_rings`, `aromatic_atoms` (`CalcNumRings`, `CalcNumAromaticRings`): the relevant cycles, so
      bicyclo[2.2.2]octane has three; aromatic by RDKit's default model;
    - `fraction_sp3` (`CalcFractionCSP3`): carbons with four neighbours;
    - `polar_surface_area` [A2] (`CalcTPSA`): of nitrogen and oxygen only;
    - `log_p`, `molar_refractivity` [cm3/mol] (`CalcCrippenDescriptors`).

    All are equal to RDKit's (counts exactly, the others within 0.01) on ZINC and the organic corpus but for molecules
    with more rings than the static sizes hold (see `Aromaticity.complete`; dodecahedrane lacks one ring here). RDKit
    rewrites C=P=O as [C]=[P+][O-] when it reads it; here the molecule is described as written. Nothing is ever NaN;
    a molecule without atoms has zeros.

    Args:
        graph: one molecule; map over a batch with `jax.vmap`.
        alphabet: its alphabet; static under `jax.jit`.

    Raises:
        BayesmatError: the graph is not one molecule of that alphabet.
    """
    # Without the barrier the compiler works the rings out again for each of their uses.
    found = jax.lax.optimization_barrier(aromaticity(graph, alphabet))
    env = environment(graph, found, alphabet)
    carbons = env.element(6)
    saturated = carbons & (env.degree + env.hydrogens == 4)
    polar = env.element(7) | env.element(8)
    three = found.rings.size == 3
    in_three = unpack(union(found.rings.atoms, three), alphabet.length)
    mass = np.array([_MASS.get(int(z), 0.0) for z in alphabet.atomic_number], np.float32)
    weight = jnp.where(env.is_atom, jnp.asarray(mass)[graph.atom] + _MASS[1] * env.hydrogens, 0)
    num_carbons = carbons.sum(dtype=jnp.float32)
    values = [
        weight.sum(dtype=jnp.float32),
        (env.number > 0).sum(dtype=jnp.float32),
        _hydrogen_bond_donors(graph, env, alphabet).sum(dtype=jnp.float32),
        _hydrogen_bond_acceptors(graph, env, alphabet).sum(dtype=jnp.float32),
        _rotatable(graph, env).sum(dtype=jnp.float32),
        found.rings.num_rings.astype(jnp.float32),
        found.num_aromatic.astype(jnp.float32),
        env.aromatic.sum(dtype=jnp.float32),
        saturated.sum(dtype=jnp.float32) / jnp.maximum(num_carbons, 1),
        _polar_surface(env, in_three).sum(dtype=jnp.float32),
        *crippen(env),
        jnp.where(polar, env.hydrogens, 0).sum(dtype=jnp.float32),
        polar.sum(dtype=jnp.float32),
    ]
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])


def _hydrogen_bond_donors(graph: Graph, env: Environment, alphabet: Alphabet) -> Array:
    """[N&!H0&v3, N&!H0&+1&v4, O&H1&+0, S&H1&+0, n&H1&+0], `(length,)` bool."""
    valence, has = jnp.asarray(alphabet.valence)[graph.atom], env.hydrogens > 0
    nitrogen, one = env.element(7), (env.hydrogens == 1) & (env.charge == 0)
    amine = nitrogen & ~env.aromatic & has & ((valence == 3) | ((valence == 4) & (env.charge == 1)))
    hydroxyl = (env.element(8) | env.element(16)) & ~env.aromatic & one
    return amine | hydroxyl | (nitrogen & env.aromatic & one)


def _hydrogen_bond_acceptors(graph: Graph, env: Environment, alphabet: Alphabet) -> Array:
    """Atoms of the acceptor pattern of Gobbi and Poppinger, `(length,)` bool."""
    valence, n = jnp.asarray(alphabet.valence)[graph.atom], env.neighbours
    single = n["-A"] + n["-a"]
    chalcogen, nitrogen = env.element(8) | env.element(16), env.element(7)
    aliphatic = (chalcogen & ~env.aromatic) & (
        ((env.hydrogens == 1) & (valence == 2) & (single > n["-drawn"]))
        | ((env.hydrogens == 0) & (valence == 2))
        | (env.charge == -1)
    )
    amine = nitrogen & ~env.aromatic & (valence == 3) & (n["-drawn outside rings"] == 0)
    pyridine = nitrogen & env.aromatic & (env.hydrogens == 0) & (env.degree == 2)
    return aliphatic | amine | ((pyridine | (chalcogen & env.aromatic)) & (env.charge == 0))


def _rotatable(graph: Graph, env: Environment) -> Array:
    """Bonds of RDKit's strict pattern, `(length,)` bool by token."""
    n = env.neighbours
    carbon = env.element(6) & ~env.aromatic
    hindered = carbon & ((n["-F"] >= 3) | (n["-Cl"] >= 3) | (n["-Br"] >= 3) | (n["-CH3"] >= 3) | (env.hydrogens == 3))
    end = (n["#"] == 0) & (env.degree != 1) & ~hindered
    amine = env.element(7) | (~env.aromatic & (env.element(8) | (env.element(16) & (env.degree != 1))))
    amide = (n["acyl"] > 0) | (amine & (n["-!@ acyl"] >= 1))
    start = end & ~amide
    a, b = graph.bond_from, graph.bond_to
    return env.bond_single & ~graph.bond_in_ring & ((start[a] & end[b]) | (start[b] & end[a]))


_POLAR = np.array([
    # element, charge, hydrogens, bonds (single, double, triple, aromatic), in a ring of three (-1: any), area [A2]
    (7, 0, 0, 0, 0, 1, 0, -1, 23.79),
    (7, 0, 1, 0, 1, 0, 0, -1, 23.85),
    (7, 0, 2, 1, 0, 0, 0, -1, 26.02),
    (7, 1, 2, 0, 1, 0, 0, -1, 25.59),
    (7, 1, 3, 1, 0, 0, 0, -1, 27.64),
    (7, 0, 0, 1, 1, 0, 0, -1, 12.36),
    (7, 0, 0, 0, 1, 1, 0, -1, 13.60),
    (7, 0, 1, 2, 0, 0, 0, 1, 21.94),
    (7, 0, 1, 2, 0, 0, 0, 0, 12.03),
    (7, 1, 0, 1, 0, 1, 0, -1, 4.36),
    (7, 1, 1, 1, 1, 0, 0, -1, 13.97),
    (7, 1, 2, 2, 0, 0, 0, -1, 16.61),
    (7, 0, 0, 0, 0, 0, 2, -1, 12.89),
    (7, 0, 1, 0, 0, 0, 2, -1, 15.79),
    (7, 1, 1, 0, 0, 0, 2, -1, 14.14),
    (7, 0, 0, 3, 0, 0, 0, 1, 3.01),
    (7, 0, 0, 3, 0, 0, 0, 0, 3.24),
    (7, 0, 0, 1, 2, 0, 0, -1, 11.68),
    (7, 1, 0, 2, 1, 0, 0, -1, 3.01),
    (7, 1, 1, 3, 0, 0, 0, -1, 4.44),
    (7, 0, 0, 0, 0, 0, 3, -1, 4.41),
    (7, 0, 0, 1, 0, 0, 2, -1, 4.93),
    (7, 0, 0, 0, 1, 0, 2, -1, 8.39),
    (7, 1, 0, 0, 0, 0, 3, -1, 4.10),
    (7, 1, 0, 1, 0, 0, 2, -1, 3.88),
    (7, 1, 0, 4, 0, 0, 0, -1, 0.0),
    (8, 0, 0, 0, 1, 0, 0, -1, 17.07),
    (8, 0, 1, 1, 0, 0, 0, -1, 20.23),
    (8, -1, 0, 1, 0, 0, 0, -1, 23.06),
    (8, 0, 0, 2, 0, 0, 0, 1, 12.53),
    (8, 0, 0, 2, 0, 0, 0, 0, 9.23),
    (8, 0, 0, 0, 0, 0, 2, -1, 13.14),
])  # fmt: skip
"""Polar surface areas of nitrogen and oxygen, Ertl, Rohde and Selzer 2000 (doi 10.1021/jm000942e), as in RDKit."""


def _polar_surface(env: Environment, in_three: Array) -> Array:
    """The polar surface area of each atom [A2], `(length,)` float32."""
    known = jnp.asarray(_code(*_POLAR.T[:7].astype(np.int32)))[:, None]
    ring = jnp.asarray(_POLAR[:, 7].astype(np.int32))[:, None]
    area = jnp.asarray(_POLAR[:, 8].astype(np.float32))[:, None]
    n = env.neighbours
    bonds = (n["-A"] + n["-a"], n["=A"] + n["=a"], n["#"], n["ring a"])
    here = _code(env.number, env.charge, env.hydrogens, *bonds)
    fits = (here == known) & ((ring < 0) | (ring == in_three.astype(jnp.int32)))
    nitrogen, oxygen = env.element(7), env.element(8)
    estimate = jnp.where(nitrogen, 30.5 - 8.2 * env.degree, 28.5 - 8.6 * env.degree) + 1.5 * env.hydrogens
    value = jnp.where(fits.any(0), jnp.where(fits, area, 0).sum(0), estimate.clip(0))
    return jnp.where(nitrogen | oxygen, value, 0).astype(jnp.float32)


def _code(element: Any, charge: Any, hydrogens: Any, single: Any, double: Any, triple: Any, aromatic: Any) -> Any:
    """One integer for what decides the polar surface area of an atom; of NumPy or JAX arrays."""
    bonds = single + 8 * double + 64 * triple + 512 * aromatic
    return bonds + 4096 * hydrogens + 32768 * (charge + 8) + 524288 * (element == 8)
