"""Groups that do not survive in a bottle, found on the device.

A prior of valid molecules writes hydroperoxides and geminal diols as readily as esters, and models trained on what was
measured know nothing against them. `UNSTABLE` is a short list of such groups: those that explode (contiguous oxygen
or nitrogen, nitrogen or oxygen with halogen, nitrate and nitroso groups: United Nations, Manual of Tests and Criteria,
Appendix 6, screening procedures) and those that fall apart, rearrange or react with moisture (after the lists of
Walters and Murcko 2002, doi 10.1016/S0169-409X(02)00003-0, and Brenk et al. 2008, doi 10.1002/cmdc.200700139). It says
nothing of toxicity, and stable exceptions to every line can be found.

The patterns avoid aromatic bonds, so that they can be decided on any Kekulé form: `NoUnstableGroups` counts
neighbours by kind and is tested to be equal to RDKit's search for the SMARTS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp

from .._types import Array, BayesmatError
from ..chem import Alphabet, Graph
from ._conditions import Condition, Molecule

_HETERO = "[#7,#8,F,Cl,Br,I]"

UNSTABLE: dict[str, str] = {
    "peroxide": "[#8]~[#8]",
    "nitrogen or oxygen with halogen": "[#7,#8]~[F,Cl,Br,I]",
    "chain of three nitrogens": "[$([#7](~[#7])!@[#7]),$([#7X3](~[#7X3])~[#7X3])]",
    "diazo, diazonium or azide": "[#7+]~[#7D1H0]",
    "nitroso": "[#7X2]=[#8X1]",
    "nitrate or nitramine": "[#7+](=[#8])([#8-])~[#7,#8]",
    "geminal alcohol": f"[#6X4]([#8H1D1])!@{_HETERO}",
    "geminal amine": f"[#6X4]([#7H2D1])!@{_HETERO}",
    "alpha-halo ether or amine": "[#6X4]([Cl,Br,I])~[#7,#8]",
    "acyl or sulfonyl halide": "[$([#6X3]=[#8X1]),$([#16](=[#8X1])=[#8X1])]-[F,Cl,Br,I]",
    "carbonic or carbamic acid": "[#8H1D1]-[#6X3](=[#8X1])~[#7,#8]",
    "enol": "[#8H1D1]-[#6X3]=!@[#6X3]",
    "cumulene or isocyanate": "[#6X2](=*)=*",
    "alkyne in a ring": "*#@*",
}
"""SMARTS by name."""


@dataclass(frozen=True)
class NoUnstableGroups(Condition):
    """None of the groups of `UNSTABLE` may occur; computed on the device.

    Args:
        names: which of them; all when not given.

    Raises:
        BayesmatError: a name is not in `UNSTABLE`.

    >>> NoUnstableGroups(["peroxide", "enol"]).text()
    'no unstable groups (peroxide, enol)'
    """

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str] = tuple(UNSTABLE)):
        names = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
        if unknown := [name for name in names if name not in UNSTABLE]:
            raise BayesmatError(f"unstable groups {unknown} are not known; known are {', '.join(UNSTABLE)}")
        if not names:
            raise BayesmatError(f"name at least one unstable group; known are {', '.join(UNSTABLE)}")
        object.__setattr__(self, "names", names)

    def log_prob(self, molecule: Molecule) -> Array:
        """0 if no atom is the centre of an unstable group, else -inf."""
        found = unstable_groups(molecule.graph, molecule.alphabet)
        return jnp.where(jnp.stack([found[name] for name in self.names]).any(), -jnp.inf, 0.0)

    def text(self) -> str:
        """The condition in words."""
        named = "" if set(self.names) == set(UNSTABLE) else f" ({', '.join(self.names)})"
        return f"no unstable groups{named}"


def unstable_groups(graph: Graph, alphabet: Alphabet) -> dict[str, Array]:
    """Which of the groups of `UNSTABLE` one molecule has, bool by name."""
    atom, h = graph.atom, graph.hydrogens
    z, charge = jnp.asarray(alphabet.atomic_number)[atom], jnp.asarray(alphabet.charge)[atom]
    connections, halogen = graph.degree + h, (z == 9) | (z == 17) | (z == 35) | (z == 53)
    carbon, nitrogen, oxygen, sulfur = (z == number for number in (6, 7, 8, 16))
    saturated, trigonal = carbon & (connections == 4), carbon & (connections == 3)
    order, outside = graph.bond_order, ~graph.bond_in_ring
    made, double, terminal = order > 0, order == 2, graph.degree == 1
    hetero = nitrogen | oxygen | halogen
    n = count_neighbours(
        graph,
        {
            "O": (made, oxygen),
            "N": (made, nitrogen),
            "N, not in a ring": (made & outside, nitrogen),
            "NX3": (made, nitrogen & (connections == 3)),
            "ND1H0": (made, nitrogen & (h == 0) & terminal),
            "halogen": (made, halogen),
            "Cl, Br, I": (made, halogen & (z != 9)),
            "=O": (double, oxygen),
            "=OX1": (double, oxygen & (connections == 1)),
            "O-": (made, oxygen & (charge == -1)),
            "OH": (made, oxygen & (h == 1) & terminal),
            "NH2": (made, nitrogen & (h == 2) & terminal),
            "hetero, not in a ring": (made & outside, hetero),
            "=": (double, atom > 0),
            "=C, not in a ring": (double & outside, trigonal),
        },
    )
    of_atoms = {
        "peroxide": oxygen & (n["O"] > 0),
        "nitrogen or oxygen with halogen": (nitrogen | oxygen) & (n["halogen"] > 0),
        "chain of three nitrogens": nitrogen
        & (((n["N"] > 1) & (n["N, not in a ring"] > 0)) | ((connections == 3) & (n["NX3"] > 1))),
        "diazo, diazonium or azide": nitrogen & (charge == 1) & (n["ND1H0"] > 0),
        "nitroso": nitrogen & (connections == 2) & (n["=OX1"] > 0),
        "nitrate or nitramine": nitrogen & ((charge == 1) & (n["=O"] > 0) & (n["O-"] > 0) & (n["O"] + n["N"] > 2)),
        "geminal alcohol": saturated & (n["OH"] > 0) & (n["hetero, not in a ring"] > 1),
        "geminal amine": saturated & (n["NH2"] > 0) & (n["hetero, not in a ring"] > 1),
        "alpha-halo ether or amine": saturated & (n["Cl, Br, I"] > 0) & (n["N"] + n["O"] > 0),
        "acyl or sulfonyl halide": (n["halogen"] > 0) & ((trigonal & (n["=OX1"] > 0)) | (sulfur & (n["=OX1"] > 1))),
        "carbonic or carbamic acid": trigonal & (n["OH"] > 0) & (n["=OX1"] > 0) & (n["N"] + n["O"] > 2),
        "enol": trigonal & (n["OH"] > 0) & (n["=C, not in a ring"] > 0),
        "cumulene or isocyanate": carbon & (connections == 2) & (n["="] > 1),
    }
    found = {name: flags.any() for name, flags in of_atoms.items()}
    return found | {"alkyne in a ring": ((order == 3) & ~outside).any()}


def count_neighbours(graph: Graph, kinds: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """How many bonds of a kind lead from each atom to an atom of a kind, `(length,)` int32 by name.

    Counts are at most seven, as valences are: ten of them share a word, so that few numbers are scattered.

    Args:
        graph: one molecule.
        kinds: for each name the bonds, `(length,)` bool by token, and the atoms at their other end, `(length,)` bool.
    """
    a, b = graph.bond_from, graph.bond_to
    names, none = list(kinds), jnp.zeros(graph.atom.shape, jnp.int32)
    found: dict[str, Array] = {}
    for some in (names[start : start + 10] for start in range(0, len(names), 10)):
        bonds = sum((jnp.where(kinds[name][0], 7 << 3 * place, 0) for place, name in enumerate(some)), none)
        atoms = sum((jnp.where(kinds[name][1], 1 << 3 * place, 0) for place, name in enumerate(some)), none)
        counts = none.at[a].add(bonds & atoms[b]).at[b].add(bonds & atoms[a])
        found |= {name: (counts >> 3 * place) & 7 for place, name in enumerate(some)}
    return found
