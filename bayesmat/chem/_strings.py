"""Between SMILES for people and tokens for the device; and strings drawn at random from the grammar."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, progress
from . import _grammar, _rdkit
from ._alphabet import DEFAULT_VALENCES, END, KIND_ATOM, KIND_RING_OPEN, Alphabet, AtomType
from ._reading import does_not_fit, number, outline

T = TypeVar("T")

_CHUNK = 4096
"""Strings that a batched call works on at once, so that memory does not grow with their number."""


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
            kekule = _rdkit.kekule_smiles(molecule, None if seed is None else seed + index)
            rows.append(number(outline(kekule), text, alphabet))
            kept.append(index)
        except _rdkit.RefusedError as error:
            refusals.append(Refusal(index, text, error.reason))
    tokens = np.zeros((len(rows), alphabet.length), np.int32)
    for row, values in zip(tokens, rows, strict=True):
        row[: len(values)] = values
    fits = _fit(tokens, alphabet)
    for index, ok in zip(kept, fits, strict=True):
        if not ok:
            refusals.append(Refusal(index, texts[index], does_not_fit(alphabet)))
    return Encoded(tokens[fits], np.asarray(kept, np.int64)[fits], tuple(sorted(refusals)))


@dataclass(frozen=True)
class Read:
    """What `read` made of a list of SMILES; as long as the input.

    Attributes:
        smiles: canonical flat SMILES, None where the structure was refused by RDKit.
        tokens: `(n, length)` uint8; zeros where a structure was refused.
        reasons: None, or why the structure was refused.
    """

    smiles: list[str | None]
    tokens: np.ndarray
    reasons: list[str | None]


def read(smiles: Sequence[str], alphabet: Alphabet) -> Read:
    """Canonical SMILES and tokens of many molecules: what a library is read with, faster than `encode`.

    It does not use the device, so that many processes can read at once. Tokens may be of another Kekulé form than
    `encode` gives, and whether the grammar has room for the string (`is_legal`) is left to the caller.

    >>> found = read(["OCC", "C[Te]C", "C1CC"], Alphabet.organic())
    >>> found.smiles
    ['CCO', 'C[Te]C', None]
    >>> found.reasons
    [None, 'element Te', 'RDKit cannot read it']
    """
    assert alphabet.num_tokens < 256
    found = Read([], np.zeros((len(smiles), alphabet.length), np.uint8), [])
    for row, text in zip(found.tokens, smiles, strict=True):
        canonical = reason = None
        try:
            canonical, kekule = _rdkit.flat_and_kekule(text)
            values = number(outline(kekule), text, alphabet)
            row[: len(values)] = values
        except _rdkit.RefusedError as error:
            reason = error.reason
        found.smiles.append(canonical)
        found.reasons.append(reason)
    return found


def _fit(tokens: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """`is_legal` of any number of strings in blocks of two sizes, so that it is compiled for these only."""
    block = 64 if len(tokens) <= 64 else _CHUNK
    fits = np.zeros(len(tokens), bool)
    for start in range(0, len(tokens), block):
        rows = tokens[start : start + block]
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))
        fits[start : start + block] = np.asarray(is_legal(padded, alphabet))[: len(rows)]
    return fits


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

    return in_chunks(one, jnp.asarray(tokens).astype(jnp.int32))


def in_chunks(function: Callable[..., T], *arrays: Array, size: int = _CHUNK) -> T:
    """`jax.vmap(function)(*arrays)` with bounded memory: `size` entries of the first axis at a time.

    What a chunk computes on its way is freed before the next; only the results are kept.

    >>> tokens = random_strings(jax.random.key(0), 1000, Alphabet.organic())
    >>> int(in_chunks(lambda x: (x > 0).sum(), tokens, size=256).shape[0])
    1000
    """
    return jax.lax.map(lambda row: function(*row), arrays, batch_size=size)


@functools.partial(jax.jit, static_argnames=("num", "alphabet"))
def random_strings(key: Array, num: int, alphabet: Alphabet) -> Array:
    """`(num, length)` strings, each token drawn uniformly from the legal ones; memory is bounded by chunks.

    >>> random_strings(jax.random.key(0), 2, Alphabet.organic()).shape
    (2, 80)
    """
    size = max(1, min(num, _CHUNK))
    upto = jnp.tril(jnp.ones((alphabet.num_tokens, alphabet.num_tokens)))

    def step(state: _grammar.State, u: Array) -> tuple[_grammar.State, Array]:
        mask = _grammar.legal(state, alphabet).astype(upto.dtype)
        count = jnp.dot(upto, mask, precision=jax.lax.Precision.HIGHEST)  # legal tokens up to each one
        token = (count <= u * count[-1] * (1 - 1e-6)).sum(0).astype(jnp.int32)
        return _grammar.advance(state, token, alphabet), token

    def chunk(key: Array) -> Array:
        uniform = jax.random.uniform(key, (alphabet.length, size))
        return jax.lax.scan(step, _grammar.start(alphabet, (size,)), uniform)[1].T

    keys = jax.random.split(key, -(-num // size))
    return jax.lax.map(chunk, keys).reshape(-1, alphabet.length)[:num]
