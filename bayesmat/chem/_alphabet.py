"""The alphabet of Kekulé molecular strings.

A token is an atom, a bond, a branch bracket or one end of a ring bond. Three choices make every rule of
validity checkable on a prefix, so that a mask over the next token is enough to write only molecules:

* Kekulé form: bond orders are written, never perceived.
* An atom token fixes element, charge and valence; the hydrogens are what the bonds leave over.
* A ring bond opens with one token (its order written before it, as in SMILES) and closes with "the k-th most
  recently opened ring", the relative reference of Ikebata et al. 2017 (doi 10.1007/s10822-016-0008-z).

SMILES for people and programs outside is written by `to_smiles`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._types import BayesmatError


class AtomType(NamedTuple):
    """An atom token: element symbol, formal charge [e], valence (bond orders plus hydrogens)."""

    element: str
    charge: int
    valence: int


_ELEMENTS = (
    "* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi"
)
ATOMIC_NUMBER = {element: number for number, element in enumerate(_ELEMENTS.split())}
"""Of every element up to bismuth, and of the attachment point `*`."""

DEFAULT_VALENCES = {
    **{"B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "P": (3, 5), "S": (2, 4, 6)},
    **{"Cl": (1,), "Br": (1,), "I": (1,), "*": (1,)},
}
"""Valences that SMILES infers for atoms written without brackets; the smallest that fits is meant."""

NEUTRAL = tuple(
    AtomType(element, 0, valence)
    for element, valence in (
        *(("C", 4), ("N", 3), ("O", 2), ("S", 2), ("F", 1), ("Cl", 1), ("Br", 1), ("I", 1)),
        *(("P", 3), ("B", 3), ("Si", 4), ("Se", 2), ("S", 4), ("S", 6), ("P", 5)),
    )
)
CHARGED = tuple(
    AtomType(element, charge, valence)
    for element, charge, valence in (
        *(("N", 1, 4), ("O", -1, 1), ("N", -1, 2), ("S", -1, 1), ("C", -1, 3), ("S", 1, 3)),
        *(("P", 1, 4), ("O", 1, 3), ("B", -1, 4)),
    )
)
ATTACHMENT = AtomType("*", 0, 1)

END = 0
"""The token that ends a string, and the padding after it."""

# Kinds of token, in the order in which an alphabet numbers them.
KIND_END, KIND_ATOM, KIND_BOND, KIND_OPEN, KIND_CLOSE, KIND_RING_OPEN, KIND_RING_CLOSE = range(7)


@dataclass(frozen=True)
class Alphabet:
    """Tokens and the static sizes of every array made from them; hashable, so it can be a static argument.

    Attributes:
        atoms: the atom tokens; one of them must have a valence of four or more.
        length: tokens in an array, `END` padding included.
        max_depth: nested branches.
        max_rings: ring bonds open at the same time.
        attachments: 0, or 2 for a polymer's repeat unit; the string then begins with `*` and holds another.

    Raises:
        BayesmatError: a size is not positive, an element is unknown, or no string could be written.
    """

    atoms: tuple[AtomType, ...]
    length: int = 80
    max_depth: int = 6
    max_rings: int = 7
    attachments: int = 0

    def __post_init__(self) -> None:
        if self.attachments not in (0, 2):
            raise BayesmatError(f"attachments is {self.attachments}; allowed are 0 and 2")
        if self.length < 4 or self.length > 1024 or self.max_depth < 1 or self.max_rings < 1:
            raise BayesmatError("allowed sizes: length 4 to 1024, max_depth and max_rings at least 1")
        if unknown := {atom.element for atom in self.atoms} - set(ATOMIC_NUMBER):
            raise BayesmatError(f"unknown elements {sorted(unknown)}; known are {' '.join(ATOMIC_NUMBER)}")
        if len(set(self.atoms)) < len(self.atoms):
            raise BayesmatError("an atom type is listed twice")
        if not all(1 <= atom.valence <= 7 and -4 <= atom.charge <= 3 for atom in self.atoms):
            raise BayesmatError("an atom type has a valence of 1 to 7 and a charge of -4 to +3")
        if not any(atom.valence >= 4 for atom in self.atoms):
            raise BayesmatError("an alphabet needs an atom of valence four or more, or rings could not close")
        if (ATTACHMENT in self.atoms) != (self.attachments > 0):
            raise BayesmatError("an alphabet holds the atom '*' exactly when it has attachments")

    @classmethod
    def organic(cls, length: int = 80, max_depth: int = 6, max_rings: int = 7) -> Alphabet:
        """Neutral and charged organic molecules of up to some forty heavy atoms."""
        return cls(NEUTRAL + CHARGED, length, max_depth, max_rings)

    @classmethod
    def druglike(cls, length: int = 80, max_depth: int = 6, max_rings: int = 7) -> Alphabet:
        """The elements of medicinal chemistry: no boron, silicon or selenium, fewer tokens to choose from."""
        left_out = {"B", "Si", "Se"}
        atoms = tuple(atom for atom in NEUTRAL + CHARGED if atom.element not in left_out)
        return cls(atoms, length, max_depth, max_rings)

    @classmethod
    def polymer(cls, length: int = 160, max_depth: int = 11, max_rings: int = 12) -> Alphabet:
        """Repeat units with exactly two attachment points `*`, the first of which begins the string."""
        return cls((*NEUTRAL, *CHARGED, ATTACHMENT), length, max_depth, max_rings, attachments=2)

    @classmethod
    def from_corpus(
        cls,
        smiles: Sequence[str],
        coverage: float = 0.999,
        length: int | None = None,
        max_depth: int | None = None,
        max_rings: int | None = None,
    ) -> Alphabet:
        """The smallest alphabet that says what a corpus contains.

        Args:
            smiles: the corpus; repeat units, if more than half of its molecules have attachment points.
            coverage: the share of molecules whose atom types the alphabet shall hold, in (0, 1]; of these, the
                share for which each of the sizes shall be enough, unless it is given. `encode` reports the others.
            length: tokens; None to choose.
            max_depth: nested branches; None to choose.
            max_rings: rings open at the same time; None to choose.

        Raises:
            BayesmatError: the coverage is out of range, or no molecule of the corpus can be said.

        >>> alphabet = Alphabet.from_corpus(["CCO", "C1CC1Br", "CC(C)(C)N"])
        >>> alphabet.names[:5], alphabet.length, alphabet.max_depth
        (('end', 'C', 'Br', 'N', 'O'), 9, 1)
        """
        from ._corpus import fitting_alphabet  # it needs RDKit's reading, which stands on this module

        return fitting_alphabet(smiles, coverage, length, max_depth, max_rings)

    def to_card(self) -> dict[str, Any]:
        """The alphabet as JSON can hold it."""
        return asdict(self) | {"atoms": [list(atom) for atom in self.atoms]}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Alphabet:
        """What `to_card` gave.

        >>> Alphabet.from_card(Alphabet.organic().to_card()) == Alphabet.organic()
        True
        """
        return cls(**(card | {"atoms": tuple(AtomType(*atom) for atom in card["atoms"])}))

    def with_length(self, length: int) -> Alphabet:
        """The same tokens in arrays of another length."""
        return replace(self, length=length)

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary, `END` included."""
        return len(self.atoms) + 6 + self.max_rings

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A readable name of each token; `~` opens a ring, `~0` closes the most recently opened one."""
        atoms = [a.element if a.charge == 0 else f"[{a.element}{a.charge:+d}]" for a in self.atoms]
        # The valence is written where it is not the usual one, or where another token would have the same name.
        usual = [a.charge != 0 or a.valence == DEFAULT_VALENCES.get(a.element, (a.valence,))[0] for a in self.atoms]
        plain = Counter(name for name, is_usual in zip(atoms, usual, strict=True) if is_usual)
        atoms = [name if is_usual and plain[name] == 1 else f"{name}{a.valence}"
                 for name, is_usual, a in zip(atoms, usual, self.atoms, strict=True)]  # fmt: skip
        return ("end", *atoms, "=", "#", "(", ")", "~", *(f"~{k}" for k in range(self.max_rings)))

    @cached_property
    def kind(self) -> np.ndarray:
        """The kind of each token, `(num_tokens,)` int32."""
        parts = [KIND_END] + [KIND_ATOM] * len(self.atoms) + [KIND_BOND] * 2 + [KIND_OPEN, KIND_CLOSE]
        return np.array(parts + [KIND_RING_OPEN] + [KIND_RING_CLOSE] * self.max_rings, np.int32)

    @cached_property
    def valence(self) -> np.ndarray:
        """The valence of each atom token and zero elsewhere, `(num_tokens,)` int32."""
        return self._per_atom([atom.valence for atom in self.atoms])

    @cached_property
    def charge(self) -> np.ndarray:
        """The formal charge [e] of each atom token and zero elsewhere, `(num_tokens,)` int32."""
        return self._per_atom([atom.charge for atom in self.atoms])

    @cached_property
    def atomic_number(self) -> np.ndarray:
        """The atomic number of each atom token and zero elsewhere, `(num_tokens,)` int32."""
        return self._per_atom([ATOMIC_NUMBER[atom.element] for atom in self.atoms])

    @cached_property
    def is_attachment(self) -> np.ndarray:
        """1 for the token `*`, `(num_tokens,)` int32."""
        return self._per_atom([int(atom == ATTACHMENT) for atom in self.atoms])

    @cached_property
    def bond_order(self) -> np.ndarray:
        """The order that a bond token writes, 1 elsewhere, `(num_tokens,)` int32."""
        order = np.ones(self.num_tokens, np.int32)
        order[self.bond_token(2)], order[self.bond_token(3)] = 2, 3
        return order

    @cached_property
    def atom_token(self) -> dict[AtomType, int]:
        """The token of each atom type."""
        return {atom: index + 1 for index, atom in enumerate(self.atoms)}

    @cached_property
    def symbol_token(self) -> dict[AtomType | str | int, int]:
        """The token of each atom type, of `= # ( ) ~`, and of closing the k-th most recently opened ring."""
        symbols: list[AtomType | str | int] = [*self.atoms, *"=#()~", *range(self.max_rings)]
        return {symbol: place + 1 for place, symbol in enumerate(symbols)}

    def bond_token(self, order: int) -> int:
        """The token of a double (2) or triple (3) bond."""
        return len(self.atoms) + order - 1

    @property
    def open_token(self) -> int:
        """The token that opens a branch."""
        return len(self.atoms) + 3

    @property
    def close_token(self) -> int:
        """The token that closes a branch."""
        return len(self.atoms) + 4

    @property
    def ring_open_token(self) -> int:
        """The token that opens a ring bond."""
        return len(self.atoms) + 5

    @property
    def first_ring_close_token(self) -> int:
        """The token that closes the most recently opened ring; the next ones close earlier rings."""
        return len(self.atoms) + 6

    def _per_atom(self, values: list[int]) -> np.ndarray:
        table = np.zeros(self.num_tokens, np.int32)
        table[1 : len(values) + 1] = values
        return table
