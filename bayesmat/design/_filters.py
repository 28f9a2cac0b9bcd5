"""Conditions that are ready to use.

Those on elements, descriptors, rings and chains are computed on the device, with RDKit's definitions; those that need
a search for SMARTS or the SA score are functions on the host and cost a thousand times more a molecule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from .. import chem, nn
from .._types import Array, BayesmatError
from ._conditions import Condition, Molecule, penalty
from ._scoring import HostFunction

_UNITS = {"molecular_weight": " g/mol", "polar_surface_area": " Å²", "molar_refractivity": " cm³/mol"}


@dataclass(frozen=True)
class Elements(Condition):
    """Only these elements may occur, besides hydrogen.

    Args:
        allowed: element symbols.

    Raises:
        BayesmatError: no element is given; in use: one is not in the alphabet.

    >>> Elements(["C", "O"]).text()
    'made of C, O and H'
    """

    allowed: tuple[str, ...]

    def __init__(self, allowed: Iterable[str]):
        symbols = tuple(dict.fromkeys(symbol for symbol in allowed if symbol != "H"))
        if not symbols:
            raise BayesmatError("at least one element besides hydrogen must be allowed")
        object.__setattr__(self, "allowed", symbols)

    def check(self, alphabet: chem.Alphabet) -> None:
        """Raise a BayesmatError if the alphabet has no atom of one of the elements."""
        _check_elements(self.allowed, alphabet)

    def log_prob(self, molecule: Molecule) -> Array:
        """0 if the molecule is made of these elements, else -inf."""
        other = _of_elements(self.allowed, molecule.alphabet, False)
        return jnp.where(jnp.asarray(other)[molecule.tokens].any(-1), -jnp.inf, 0.0)

    def text(self) -> str:
        """The condition in words."""
        return f"made of {', '.join(self.allowed)} and H"


def _check_elements(symbols: Iterable[str], alphabet: chem.Alphabet) -> None:
    known = sorted({atom.element for atom in alphabet.atoms})
    if unknown := sorted(set(symbols) - set(known)):
        raise BayesmatError(f"elements {unknown} are not in the alphabet; allowed are {', '.join(known)}")


def _of_elements(symbols: Iterable[str], alphabet: chem.Alphabet, among: bool) -> np.ndarray:
    """The atom tokens of these elements, or of all others, `(num_tokens,)` bool."""
    flags = np.zeros(alphabet.num_tokens, bool)
    flags[1 : len(alphabet.atoms) + 1] = [(atom.element in set(symbols)) == among for atom in alphabet.atoms]
    return flags


@dataclass(frozen=True)
class Descriptor(Condition):
    """lower ≤ a descriptor ≤ upper; with a slope, what lies outside is only made less probable.

    Args:
        name: one of `nn.PHYSICOCHEMICAL_NAMES`.
        lower: the least value allowed.
        upper: the largest value allowed.
        slope: what a unit outside costs of the log probability; infinite for a hard limit.

    Raises:
        BayesmatError: the name is unknown, there is no bound, no value can lie between them, or the slope is not
            positive.

    >>> Descriptor("rings", upper=3).text(), LogP(-1, 3, slope=2).text()
    ('rings at most 3', 'log p between -1 and 3 (2 of log probability per unit outside)')
    """

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    slope: float = math.inf

    def __post_init__(self) -> None:
        if self.name not in nn.PHYSICOCHEMICAL_NAMES:
            raise BayesmatError(
                f"descriptor {self.name!r} is not known; known are {', '.join(nn.PHYSICOCHEMICAL_NAMES)}"
            )
        _check_bounds(self.name, self.lower, self.upper, self.slope)

    @property
    def hard(self) -> bool:
        """Whether the limits are sharp."""
        return math.isinf(self.slope)

    def log_prob(self, molecule: Molecule) -> Array:
        """0 within the bounds, -inf or a penalty outside."""
        value = molecule.descriptors[nn.PHYSICOCHEMICAL_NAMES.index(self.name)]
        return penalty(value, self.lower, self.upper, self.slope)

    def text(self) -> str:
        """The condition in words."""
        unit = _UNITS.get(self.name, "")
        return f"{self.name.replace('_', ' ')} {_range_text(self.lower, self.upper, unit)}{_slope_text(self.slope)}"


def _check_bounds(name: str, lower: float, upper: float, slope: float) -> None:
    if not lower <= upper:
        raise BayesmatError(f"{name}: no value is at least {lower} and at most {upper}")
    if lower == -math.inf and upper == math.inf:
        raise BayesmatError(f"{name}: give a lower or an upper bound")
    if not slope > 0:
        raise BayesmatError(f"{name}: the slope is {slope}; it must be positive")


def _range_text(lower: float, upper: float, unit: str = "") -> str:
    if math.isinf(upper):
        return f"at least {lower:g}{unit}"
    return f"at most {upper:g}{unit}" if math.isinf(lower) else f"between {lower:g} and {upper:g}{unit}"


def _slope_text(slope: float) -> str:
    return "" if math.isinf(slope) else f" ({slope:g} of log probability per unit outside)"


def MolecularWeight(lower: float = -math.inf, upper: float = math.inf, slope: float = math.inf) -> Descriptor:
    """Molecular weight [g/mol] within bounds, see `Descriptor`."""
    return Descriptor("molecular_weight", lower, upper, slope)


def HeavyAtoms(lower: float = -math.inf, upper: float = math.inf, slope: float = math.inf) -> Descriptor:
    """Number of heavy atoms within bounds, see `Descriptor`."""
    return Descriptor("heavy_atoms", lower, upper, slope)


def LogP(lower: float = -math.inf, upper: float = math.inf, slope: float = math.inf) -> Descriptor:
    """Octanol-water partition coefficient of Wildman and Crippen within bounds, see `Descriptor`."""
    return Descriptor("log_p", lower, upper, slope)


def PolarSurfaceArea(lower: float = -math.inf, upper: float = math.inf, slope: float = math.inf) -> Descriptor:
    """Topological polar surface area [Å²] of nitrogen and oxygen within bounds, see `Descriptor`."""
    return Descriptor("polar_surface_area", lower, upper, slope)


def RotatableBonds(upper: float, slope: float = math.inf) -> Descriptor:
    """At most so many rotatable bonds, see `Descriptor`."""
    return Descriptor("rotatable_bonds", upper=upper, slope=slope)


@dataclass(frozen=True)
class RingSizes(Condition):
    """Every ring has one of these sizes. Rings are the relevant cycles, as RDKit lists them.

    A molecule with more rings than `nn.rings` can list (`Rings.complete`) does not pass.

    Args:
        allowed: numbers of atoms; none for molecules without rings.

    Raises:
        BayesmatError: something is not a number of at least three.

    >>> RingSizes({6, 5}).text(), RingSizes([]).text()
    ('rings of 5 or 6 atoms only', 'no rings')
    """

    allowed: tuple[int, ...]

    def __init__(self, allowed: Iterable[int]):
        sizes = list(allowed)
        if not all(isinstance(size, int | np.integer) and size >= 3 for size in sizes):
            raise BayesmatError(f"ring sizes {sizes}: allowed are whole numbers from 3 on")
        object.__setattr__(self, "allowed", tuple(sorted({int(size) for size in sizes})))

    def log_prob(self, molecule: Molecule) -> Array:
        """0 if all rings are of these sizes, else -inf."""
        rings = molecule.rings
        fits = jnp.isin(rings.size, jnp.asarray((0, *self.allowed), rings.size.dtype))
        return jnp.where(fits.all() & rings.complete, 0.0, -jnp.inf)

    def text(self) -> str:
        """The condition in words."""
        return f"rings of {' or '.join(map(str, self.allowed))} atoms only" if self.allowed else "no rings"


@dataclass(frozen=True)
class HeteroatomChains(Condition):
    """At most so many heteroatoms bonded to one another: no O-O, N-O, N-N, S-N, N-Cl, … for a length of one.

    Counted are neutral atoms of the lowest valence (so no sulfone, no nitro group) and the bonds between them, but for
    bonds of a ring at an atom with a double bond (so not those of pyrazole, isoxazole or pyridazine).

    Args:
        max_length: atoms that may hang together.
        elements: which heteroatoms count.

    Raises:
        BayesmatError: the length is not a whole number from 1 to 8, or carbon is among the elements; in use: an
            element is not in the alphabet.

    >>> HeteroatomChains().text()
    'at most 1 of N, O, S, F, Cl, Br, I in a chain'
    """

    max_length: int = 1
    elements: tuple[str, ...] = ("N", "O", "S", "F", "Cl", "Br", "I")

    def __post_init__(self) -> None:
        if not (isinstance(self.max_length, int) and 1 <= self.max_length <= 8):
            raise BayesmatError(f"heteroatom chains: max_length is {self.max_length}; allowed are 1 to 8")
        object.__setattr__(self, "elements", tuple(self.elements))
        if not self.elements or set(self.elements) & {"C", "H", "*"}:
            raise BayesmatError(f"heteroatom chains: {list(self.elements)} are not heteroatoms")

    def log_prob(self, molecule: Molecule) -> Array:
        """0 if no set of bonded heteroatoms is larger, else -inf."""
        alphabet, graph = molecule.alphabet, molecule.graph
        lowest = [
            atom.charge == 0 and atom.valence == min(chem.DEFAULT_VALENCES.get(atom.element, (atom.valence,)))
            for atom in alphabet.atoms
        ]
        counted = _of_elements(self.elements, alphabet, True)
        counted[1 : len(lowest) + 1] &= lowest
        is_counted = jnp.asarray(counted)[graph.atom]
        a, b = graph.bond_from, graph.bond_to
        stable = graph.bond_in_ring & (graph.pi[a] | graph.pi[b])
        linked = (graph.bond_order > 0) & is_counted[a] & is_counted[b] & ~stable
        if self.max_length == 1:
            return jnp.where(linked.any(), -jnp.inf, 0.0)
        # Each atom takes the smallest label around it. After k rounds the smallest of a set of more than k atoms has
        # reached more than k of them, and none outside the set.
        label = jnp.arange(alphabet.length, dtype=jnp.int32)
        for _ in range(self.max_length):
            from_b, from_a = jnp.where(linked, label[b], alphabet.length), jnp.where(linked, label[a], alphabet.length)
            label = label.at[a].min(from_b).at[b].min(from_a)
        sizes = jnp.zeros(alphabet.length, jnp.int32).at[label].add(1)
        return jnp.where((sizes > self.max_length).any(), -jnp.inf, 0.0)

    def text(self) -> str:
        """The condition in words."""
        return f"at most {self.max_length} of {', '.join(self.elements)} in a chain"


class Smarts(Condition):
    """No forbidden pattern and all required ones, by RDKit on the host.

    Args:
        forbidden: SMARTS, or SMARTS by name (such as `UNSTABLE`); none of them may occur.
        required: the same; each must occur.

    Raises:
        BayesmatError: there is no pattern, or one cannot be read.

    >>> Smarts(forbidden={"peroxide": "[#8][#8]"}, required=["c1ccccc1"]).text()
    'without peroxide; with c1ccccc1'
    """

    def __init__(
        self, forbidden: Iterable[str] | Mapping[str, str] = (), required: Iterable[str] | Mapping[str, str] = ()
    ):
        self.forbidden, self.required = _patterns(forbidden), _patterns(required)
        if not self.forbidden and not self.required:
            raise BayesmatError("give at least one SMARTS pattern, forbidden or required")
        absent, present = chem.Groups(self.forbidden), chem.Groups(self.required)
        wanted = frozenset(self.required)

        def passes(smiles: str) -> float:
            return 0.0 if not absent.present(smiles) and present.present(smiles) == wanted else -math.inf

        self.host = HostFunction(passes, "SMARTS", vectorized=False)

    def log_prob(self, molecule: Molecule) -> Array:
        """0 if the molecule has what it shall have, else -inf."""
        value = self.host(molecule.tokens, molecule.wanted, molecule.alphabet)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def text(self) -> str:
        """The condition in words."""
        parts = (("without", " or ", self.forbidden), ("with", " and ", self.required))
        return "; ".join(f"{word} {joint.join(names)}" for word, joint, names in parts if names)


def _patterns(patterns: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(patterns, Mapping):
        return dict(patterns)
    return {pattern: pattern for pattern in ([patterns] if isinstance(patterns, str) else patterns)}


class SyntheticAccessibility(Condition):
    """SA score ≤ upper, by RDKit on the host; Ertl and Schuffenhauer 2009, doi 10.1186/1758-2946-1-8.

    Args:
        upper: the largest score allowed, from 1 (easy) to 10 (hard); what is on the market is mostly below 5.
        slope: what a unit above costs of the log probability; infinite for a hard limit.

    Raises:
        BayesmatError: the bound is outside 1 to 10, or the slope is not positive.

    >>> SyntheticAccessibility(4).text()
    'SA score at most 4'
    """

    def __init__(self, upper: float, slope: float = math.inf):
        if not 1 <= upper <= 10:
            raise BayesmatError(f"SA score: upper is {upper}; allowed are 1 to 10")
        _check_bounds("SA score", -math.inf, upper, slope)
        self.upper, self.slope = upper, slope
        self.host = HostFunction(chem.sa_score, "SA score", vectorized=False)

    @property
    def hard(self) -> bool:
        """Whether the limit is sharp."""
        return math.isinf(self.slope)

    def log_prob(self, molecule: Molecule) -> Array:
        """0 up to the bound, -inf or a penalty above."""
        value = self.host(molecule.tokens, molecule.wanted, molecule.alphabet)
        return jnp.where(jnp.isnan(value), -jnp.inf, penalty(value, -math.inf, self.upper, self.slope))

    def text(self) -> str:
        """The condition in words."""
        return f"SA score {_range_text(-math.inf, self.upper)}{_slope_text(self.slope)}"
