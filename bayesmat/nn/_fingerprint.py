"""Count fingerprints on the device: which atom neighbourhoods a molecule has, and how often.

Weisfeiler-Lehman hashing over labels that do not depend on the Kekulé string: an atom is (element, charge,
degree, hydrogens, π, ring), a bond is its class (see `chem.Graph`). This is the idea of ECFP (Rogers and Hahn
2010, doi 10.1021/ci100050t) with sums of hashes in place of sorted lists, so one pass serves a radius.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .._types import Array
from ..chem import Alphabet, Graph


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words in which every input bit moves every output bit (the MurmurHash3 finaliser)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x85EBCA6B)
    x = x ^ (x >> 13)
    x = x * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def environments(graph: Graph, alphabet: Alphabet, radius: int) -> Array:
    """Hash of each atom's neighbourhood of radius 0 … `radius`, `(radius + 1, length)` uint32; 0 at no atom."""
    number = jnp.asarray(alphabet.atomic_number)[graph.atom]
    charge = jnp.asarray(alphabet.charge)[graph.atom]
    label = number + (charge + 4) * 128 + graph.degree * 1024 + graph.hydrogens * 8192
    label = label + graph.pi * 65536 + graph.in_ring * 131072
    present = graph.atom > 0
    hashes = [jnp.where(present, _mix(label.astype(jnp.uint32)), 0)]
    made = graph.bond_order > 0
    bond = _mix(graph.bond_class.astype(jnp.uint32) + jnp.uint32(77))
    for _ in range(radius):
        here = hashes[-1]
        message_from = jnp.where(made, _mix(here[graph.bond_from] ^ bond), 0)
        message_to = jnp.where(made, _mix(here[graph.bond_to] ^ bond), 0)
        received = jnp.zeros_like(here).at[graph.bond_to].add(message_from).at[graph.bond_from].add(message_to)
        hashes.append(jnp.where(present, _mix(here * jnp.uint32(0x9E3779B1) + received), 0))
    return jnp.stack(hashes)


def count_fingerprint(
    graph: Graph, alphabet: Alphabet, bins: tuple[int, ...] = (128, 512, 1024), log: bool = False
) -> Array:
    """Counts of atom neighbourhoods, folded into `bins[r]` places for radius r.

    Args:
        graph: one molecule.
        alphabet: its alphabet.
        bins: places for each radius from 0 on.
        log: give log(1 + count) instead.

    Returns:
        `(sum(bins),)` float32.
    """
    hashes = environments(graph, alphabet, len(bins) - 1)
    sizes = jnp.asarray(bins, jnp.uint32)[:, None]
    starts = jnp.asarray(np.cumsum((0, *bins[:-1])), jnp.int32)[:, None]
    place = ((hashes % sizes).astype(jnp.int32) + starts).ravel()
    present = jnp.broadcast_to(graph.atom > 0, hashes.shape).ravel()
    # Small integers are added faster; they are exact, and so is 1 + count, which log1p would take twice as long for.
    counts = jnp.zeros(sum(bins), jnp.int16).at[place].add(present.astype(jnp.int16)).astype(jnp.float32)
    return jnp.log(1.0 + counts) if log else counts
