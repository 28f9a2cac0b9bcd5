"""Between SMILES for people and tokens for the device; and strings drawn at random from the grammar."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, progress
from . import _grammar, _rdkit
from ._alphabet import DEFAULT_VALENCES, END, KIND_ATOM, KIND_RING_OPEN, Alphabet, AtomType

_SYMBOL = re.compile(
    r"\[(?P<element>[A-Z][a-z]?|\*)(?P<h>H\d*)?(?P<charge>[+-]+\d*)?\]|Cl|Br|[BCNOPSFI*]|%\d\d|[\d()=#-]"
)


@dataclass(frozen=True, order=True)
class Refusal:
    """A structure that an alphabet cannot say: its index in the input, its SMILES and the reason."""

    index: int
    smiles: str
    reason: str


@dataclass(frozen=True)
class Encoded:
    """What `encode` made of a list of SMILES.

    Attributes:
        tokens: `(num_kept, length)` int32.
        kept: `(num_kept,)` indices into the input.
        refusals: the others, with their reasons.
    """

    tokens: np.ndarray
    kept: np.ndarray
    refusals: tuple[Refusal, ...]

    @property
    def refused(self) -> Counter[str]:
        """How many structures were refused, by reason."""
        return Counter(refusal.reason for refusal in self.refusals)


def encode(
    smiles: str | Sequence[str], alphabet: Alphabet, seed: int | None = None, description: str = "molecular strings"
) -> Encoded:
    """Tokens of molecules; a structure that the alphabet cannot say is set aside with its reason.

    Args:
        smiles: one SMILES string or many.
        alphabet: the alphabet to write in.
        seed: None for the string in RDKit's canonical order; a number for a random root and Kekulé form.
        description: what the progress bar says.

    >>> alphabet = Alphabet.organic()
    >>> encoded = encode(["CCO", "[Na+].[Cl-]", "C[Mg]C"], alphabet)
    >>> encoded.tokens.shape, [refusal.reason for refusal in encoded.refusals]
    ((1, 80), ['several fragments', 'element Mg'])
    """
    texts = [smiles] if isinstance(smiles, str) else list(smiles)
    rows, kept, refusals = [], [], []
    for index, text in enumerate(progress(texts, description, len(texts))):
        try:
            molecule, _ = _rdkit.parse(text)
            rows.append(_tokenise(_rdkit.kekule_smiles(molecule, None if seed is None else seed + index), alphabet))
            kept.append(index)
        except _rdkit.RefusedError as error:
            refusals.append(Refusal(index, text, error.reason))
    tokens = np.zeros((len(rows), alphabet.length), np.int32)
    for row, values in zip(tokens, rows, strict=True):
        row[: len(values)] = values
    fits = np.asarray(is_legal(tokens, alphabet), bool) if rows else np.zeros(0, bool)
    for index, ok in zip(kept, fits, strict=True):
        if not ok:
            refusals.append(Refusal(index, texts[index], _too_long(alphabet)))
    return Encoded(tokens[fits], np.asarray(kept, np.int64)[fits], tuple(sorted(refusals)))


def _too_long(alphabet: Alphabet) -> str:
    return f"does not fit {alphabet.length} tokens"


def _tokenise(text: str, alphabet: Alphabet) -> list[int]:
    """Tokens of a Kekulé SMILES, ring digits replaced by relative references.

    Raises:
        RefusedError: an atom, a ring bond or a size is outside the alphabet.
    """
    symbols = _symbols(text)
    partner, ring_order = _ring_ends(symbols, text)
    tokens: list[int] = []
    atoms: list[tuple[int, str]] = []  # position and symbol
    bonds: list[int] = []  # order sums, by atom
    stack: list[int] = []
    open_rings: list[int] = []
    closings: list[int] = []
    openings: list[int] = []
    order, here = 1, -1

    def flush() -> None:
        """Write the ring ends of the current atom: closings before openings, most recent ring first."""
        for end in sorted(closings, key=open_rings.index, reverse=True):
            back = len(open_rings) - 1 - open_rings.index(end)
            open_rings.remove(end)
            tokens.append(alphabet.first_ring_close_token + back)
        for end in openings:
            if ring_order[end] == 3:
                raise _rdkit.RefusedError(text, "triple bond as a ring closure")
            if ring_order[end] == 2:
                tokens.append(alphabet.bond_token(2))
            tokens.append(alphabet.ring_open_token)
            open_rings.append(end)
        if len(open_rings) > alphabet.max_rings:
            raise _rdkit.RefusedError(text, f"more than {alphabet.max_rings} open rings")
        closings.clear()
        openings.clear()

    for index, symbol in enumerate(symbols):
        if index in partner:
            start = min(index, partner[index])
            (openings if start == index else closings).append(start)
            bonds[here] += ring_order[start]
            order = 1
            if index > start and tokens and tokens[-1] in (alphabet.bond_token(2), alphabet.bond_token(3)):
                tokens.pop()  # the order stands at the opening
            continue
        if symbol in "=#":
            order = 2 if symbol == "=" else 3
            if index + 1 not in partner:
                flush()
                tokens.append(alphabet.bond_token(order))
            continue
        if symbol == "-":
            continue
        flush()
        if symbol == "(":
            if len(stack) == alphabet.max_depth:
                raise _rdkit.RefusedError(text, f"more than {alphabet.max_depth} nested branches")
            stack.append(here)
            tokens.append(alphabet.open_token)
        elif symbol == ")":
            here = stack.pop()
            tokens.append(alphabet.close_token)
        else:
            if atoms:
                bonds[here] += order
            here, before = len(atoms), here
            atoms.append((len(tokens), symbol))
            bonds.append(order if before >= 0 else 0)
            tokens.append(END)
            order = 1
    flush()
    for (position, symbol), used in zip(atoms, bonds, strict=True):
        tokens[position] = _atom_token(symbol, used, text, alphabet)
    if len(tokens) > alphabet.length:
        raise _rdkit.RefusedError(text, _too_long(alphabet))
    return tokens


def _symbols(text: str) -> list[str]:
    """The symbols of a SMILES string."""
    symbols, end = [], 0
    for match in _SYMBOL.finditer(text):
        if match.start() != end:
            break
        symbols.append(match.group())
        end = match.end()
    if end != len(text):
        raise _rdkit.RefusedError(text, f"symbol {text[end : end + 8]!r}")
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


def _atom_token(symbol: str, used: int, text: str, alphabet: Alphabet) -> int:
    """The token of an atom symbol whose bonds have a given sum of orders."""
    match = _SYMBOL.fullmatch(symbol)
    assert match is not None
    if match["element"] is None:
        element, charge = symbol, 0
        valence = next((v for v in DEFAULT_VALENCES[element] if v >= used), used)
    else:
        element, hydrogens, sign = match["element"], match["h"], match["charge"] or ""
        size = int(sign.lstrip("+-") or 1) if len(sign) < 2 or sign[1:].isdigit() else len(sign)
        charge = (size if sign.startswith("+") else -size) if sign else 0
        valence = used + (int(hydrogens[1:] or 1) if hydrogens else 0)
    token = alphabet.atom_token.get(AtomType(element, charge, valence))
    if token is not None:
        return token
    same = [atom for atom in alphabet.atoms if atom.element == element]
    if not same:
        raise _rdkit.RefusedError(text, f"element {element}" if element != "*" else "attachment point")
    if charge not in {atom.charge for atom in same}:
        raise _rdkit.RefusedError(text, f"charge {charge:+d} on {element}")
    raise _rdkit.RefusedError(text, f"valence {valence} of {element}" + (f"{charge:+d}" if charge else ""))


def to_smiles(tokens: np.ndarray | Array, alphabet: Alphabet) -> str:
    """The Kekulé SMILES of one string of tokens, as any program reads it.

    >>> alphabet = Alphabet.organic()
    >>> to_smiles(encode("c1ccccc1[N+](=O)[O-]", alphabet).tokens[0], alphabet)
    'O=[N+]([O-])C1=CC=CC=C1'
    """
    values = [int(token) for token in np.asarray(tokens)]
    values = values[: values.index(END)] if END in values else values
    used = _bond_order_sums(values, alphabet)
    parts: list[str] = []
    digits: list[int] = []  # digits of the open rings, oldest first
    here = -1
    for token in values:
        kind = alphabet.kind[token]
        if kind == KIND_ATOM:
            here += 1
            parts.append(_atom_text(alphabet.atoms[token - 1], used[here]))
        elif kind == KIND_RING_OPEN:
            digit = next(d for d in range(1, 100) if d not in digits)
            digits.append(digit)
            parts.append(str(digit) if digit < 10 else f"%{digit}")
        elif token >= alphabet.first_ring_close_token:
            digit = digits.pop(len(digits) - 1 - (token - alphabet.first_ring_close_token))
            parts.append(str(digit) if digit < 10 else f"%{digit}")
        else:
            parts.append(alphabet.names[token])
    return "".join(parts)


def _bond_order_sums(values: list[int], alphabet: Alphabet) -> list[int]:
    """The sum of bond orders of each atom, in the order in which the atoms are written."""
    used: list[int] = []
    stack: list[int] = []
    rings: list[tuple[int, int]] = []
    order, here = 1, -1
    for token in values:
        kind = alphabet.kind[token]
        if kind == KIND_ATOM:
            used.append(order if here >= 0 else 0)
            if here >= 0:
                used[here] += order
            here, order = len(used) - 1, 1
        elif token == alphabet.open_token:
            stack.append(here)
        elif token == alphabet.close_token:
            here = stack.pop()
        elif kind == KIND_RING_OPEN:
            rings.append((here, order))
            used[here], order = used[here] + order, 1
        elif token >= alphabet.first_ring_close_token:
            _, ring_order = rings.pop(len(rings) - 1 - (token - alphabet.first_ring_close_token))
            used[here] += ring_order
        else:
            order = int(alphabet.bond_order[token])
    return used


def _atom_text(atom: AtomType, used: int) -> str:
    """An atom in SMILES: bare where its hydrogens would be inferred rightly, in brackets elsewhere."""
    inferred = next((v for v in DEFAULT_VALENCES.get(atom.element, ()) if v >= used), None)
    if atom.charge == 0 and inferred == atom.valence:
        return atom.element
    hydrogens = atom.valence - used
    h = "" if hydrogens == 0 else "H" if hydrogens == 1 else f"H{hydrogens}"
    charge = "" if atom.charge == 0 else ("+" if atom.charge > 0 else "-") + str(abs(atom.charge)).lstrip("1")
    return f"[{atom.element}{h}{charge}]"


@functools.partial(jax.jit, static_argnames="alphabet")
def is_legal(tokens: Array, alphabet: Alphabet) -> Array:
    """Whether the grammar allows each of `(n, length)` strings, `(n,)` bool."""

    def one(row: Array) -> Array:
        def step(carry: tuple, token: Array) -> tuple[tuple, None]:
            state, ok = carry
            ok = ok & _grammar.legal(state, alphabet)[token]
            return (_grammar.advance(state, token, alphabet), ok), None

        (state, ok), _ = jax.lax.scan(step, (_grammar.start(alphabet), jnp.asarray(True)), row)
        return ok & _grammar.legal(state, alphabet)[END]  # a string that fills the array has no END inside it

    return jax.vmap(one)(jnp.asarray(tokens).astype(jnp.int32))


@functools.partial(jax.jit, static_argnames=("num", "alphabet"))
def random_strings(key: Array, num: int, alphabet: Alphabet) -> Array:
    """`(num, length)` strings, each token drawn uniformly from the legal ones.

    >>> random_strings(jax.random.key(0), 2, Alphabet.organic()).shape
    (2, 80)
    """

    def one(key: Array) -> Array:
        def step(state: _grammar.State, key: Array) -> tuple[_grammar.State, Array]:
            mask = _grammar.legal(state, alphabet)
            token = jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf)).astype(jnp.int32)
            return _grammar.advance(state, token, alphabet), token

        return jax.lax.scan(step, _grammar.start(alphabet), jax.random.split(key, alphabet.length))[1]

    return jax.vmap(one)(jax.random.split(key, num))
