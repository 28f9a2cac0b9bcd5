"""Kekulé SMILES as a sequence that any alphabet can number: atom types, bonds, branches and ring ends."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from . import _rdkit
from ._alphabet import ATOMIC_NUMBER, ATTACHMENT, DEFAULT_VALENCES, Alphabet, AtomType

_SYMBOL = re.compile(
    r"\[(?P<element>[A-Z][a-z]?|\*)(?P<h>H\d*)?(?P<charge>[+-]+\d*)?\]|Cl|Br|[BCNOPSFI*]|%\d\d|[\d()=#-]"
)

_SPLIT = re.compile(_SYMBOL.pattern.replace("?P<element>", "?:").replace("?P<h>", "?:").replace("?P<charge>", "?:"))
_DIGIT = re.compile(r"\d")


class Outline(NamedTuple):
    """A molecular string before any alphabet.

    Attributes:
        symbols: an `AtomType`, one of `= # ( ) ~` (`~` opens a ring), or the number k of rings opened since the
            ring that closes here.
        depth: nested branches.
        rings: rings open at the same time.
    """

    symbols: list[AtomType | str | int]
    depth: int
    rings: int

    @property
    def atoms(self) -> set[AtomType]:
        """The atom types that occur."""
        return {symbol for symbol in self.symbols if isinstance(symbol, AtomType)}

    @property
    def attachments(self) -> int:
        """The number of attachment points."""
        return self.symbols.count(ATTACHMENT)


def outline(text: str) -> Outline:
    """The outline of a Kekulé SMILES as `_rdkit.kekule_smiles` writes it.

    Raises:
        RefusedError: an atom or a ring bond cannot be said by any alphabet.
    """
    symbols = _split(text)
    partner, ring_order = _ring_ends(symbols, text) if _DIGIT.search(text) else ({}, {})
    out: list[AtomType | str | int] = []
    atoms: list[tuple[int, str]] = []  # place in `out` and symbol
    bonds: list[int] = []  # order sums, by atom
    stack: list[int] = []
    open_rings: list[int] = []
    closings: list[int] = []
    openings: list[int] = []
    order, here, depth, rings = 1, -1, 0, 0

    def flush() -> None:
        """Write the ring ends of the current atom: closings before openings, most recent ring first."""
        nonlocal rings
        for end in sorted(closings, key=open_rings.index, reverse=True):
            back = len(open_rings) - 1 - open_rings.index(end)
            open_rings.remove(end)
            out.append(back)
        for end in openings:
            if ring_order[end] == 3:
                raise _rdkit.RefusedError(text, "triple bond as a ring closure")
            if ring_order[end] == 2:
                out.append("=")
            out.append("~")
            open_rings.append(end)
        rings = max(rings, len(open_rings))
        closings.clear()
        openings.clear()

    for index, symbol in enumerate(symbols):
        if index in partner:
            start = min(index, partner[index])
            (openings if start == index else closings).append(start)
            bonds[here] += ring_order[start]
            order = 1
            continue
        if symbol == "-":
            continue
        if symbol in "=#" and index + 1 in partner:  # a ring bond's order is written at its opening, by `flush`
            order = 2 if symbol == "=" else 3
            continue
        if closings or openings:
            flush()
        if symbol in "=#":
            order = 2 if symbol == "=" else 3
            out.append(symbol)
        elif symbol == "(":
            stack.append(here)
            depth = max(depth, len(stack))
            out.append("(")
        elif symbol == ")":
            here = stack.pop()
            out.append(")")
        else:
            if here >= 0:
                bonds[here] += order
            bonds.append(order if here >= 0 else 0)
            here = len(atoms)
            atoms.append((len(out), symbol))
            out.append("")  # its valence is known when all its bonds are
            order = 1
    flush()
    for (place, symbol), used in zip(atoms, bonds, strict=True):
        out[place] = _atom_type(symbol, used)
    return Outline(out, depth, rings)


def number(read: Outline, text: str, alphabet: Alphabet) -> list[int]:
    """The tokens of an outline.

    Raises:
        RefusedError: an atom or a size is outside the alphabet.
    """
    token_of = alphabet.symbol_token
    try:
        tokens = [token_of[symbol] for symbol in read.symbols]
        points = tokens.count(token_of[ATTACHMENT]) if alphabet.attachments else 0
    except KeyError:
        tokens, points = [], 0
    sizes_fit = read.depth <= alphabet.max_depth and read.rings <= alphabet.max_rings
    if not tokens or not sizes_fit or len(tokens) > alphabet.length or points != alphabet.attachments:
        raise _rdkit.RefusedError(text, _why_not(read, alphabet))
    return tokens


def does_not_fit(alphabet: Alphabet) -> str:
    """The reason for refusing a string that the array cannot hold."""
    return f"does not fit {alphabet.length} tokens"


def _why_not(read: Outline, alphabet: Alphabet) -> str:
    """The reason for refusing an outline that the alphabet cannot say."""
    if read.attachments != alphabet.attachments:
        return f"{read.attachments} attachment points" if alphabet.attachments else "attachment point"
    for atom in read.atoms:
        if atom not in alphabet.symbol_token:
            return _why_not_atom(atom, alphabet)
    if read.depth > alphabet.max_depth:
        return f"more than {alphabet.max_depth} nested branches"
    if read.rings > alphabet.max_rings:
        return f"more than {alphabet.max_rings} open rings"
    return does_not_fit(alphabet)


def _why_not_atom(atom: AtomType, alphabet: Alphabet) -> str:
    same = [other for other in alphabet.atoms if other.element == atom.element]
    if not same:
        return f"element {atom.element}"
    if atom.charge not in {other.charge for other in same}:
        return f"charge {atom.charge:+d} on {atom.element}"
    return f"valence {atom.valence} of {atom.element}" + (f"{atom.charge:+d}" if atom.charge else "")


def _split(text: str) -> list[str]:
    """The symbols of a SMILES string."""
    symbols = _SPLIT.findall(text)
    if "".join(symbols) != text:
        end = 0
        while match := _SYMBOL.match(text, end):
            end = match.end()
        wrong = text[end : text.find("]", end) + 1] if text[end] == "[" else text[end]
        raise _rdkit.RefusedError(text, f"symbol {wrong!r}")
    return symbols


def _ring_ends(symbols: list[str], text: str) -> tuple[dict[int, int], dict[int, int]]:
    """Which symbols are the two ends of a ring bond, and the bond's order by the index of its first end."""
    open_digits: dict[str, int] = {}
    partner: dict[int, int] = {}
    order: dict[int, int] = {}
    for index, symbol in enumerate(symbols):
        if not (symbol[0].isdigit() or symbol[0] == "%"):
            continue
        written = {"=": 2, "#": 3}.get(symbols[index - 1], 1)
        digit = symbol.lstrip("%")
        if digit in open_digits:
            first = open_digits.pop(digit)
            partner[first], partner[index] = index, first
            order[first] = max(order[first], written)
        else:
            open_digits[digit] = index
            order[index] = written
    if open_digits:
        raise _rdkit.RefusedError(text, "unclosed ring")
    return partner, order


@functools.lru_cache(maxsize=4096)
def _atom_type(symbol: str, used: int) -> AtomType:
    """What an atom symbol means whose bonds have a given sum of orders."""
    match = _SYMBOL.fullmatch(symbol)
    assert match is not None
    if match["element"] is None:
        valence = next((v for v in DEFAULT_VALENCES[symbol] if v >= used), used)
        return AtomType(symbol, 0, valence)
    hydrogens, sign = match["h"], match["charge"] or ""
    size = int(sign.lstrip("+-") or 1) if len(sign) < 2 or sign[1:].isdigit() else len(sign)
    charge = (size if sign.startswith("+") else -size) if sign else 0
    return AtomType(match["element"], charge, used + (int(hydrogens[1:] or 1) if hydrogens else 0))


@functools.cache
def is_sayable(atom: AtomType) -> bool:
    """Whether some alphabet can hold the atom type: its strings must be molecules without radicals."""
    known = atom.element in ATOMIC_NUMBER and 1 <= atom.valence <= 7 and -4 <= atom.charge <= 3
    return known and _rdkit.is_closed_shell(*atom)
