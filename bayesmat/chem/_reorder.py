"""Another string of the same molecule, drawn with a known probability: a Metropolis–Hastings move on the device.

`reorder` walks the molecular graph depth first from a random atom, takes the neighbours in random order, and writes
what it meets by the rules of `encode`. A walk has the probability

    P = w(root) / Σ w(roots) · Π over the steps v → c of w(v → c) / Σ w(v → u), u not visited when c is chosen.

The weights w depend on the molecule only. Each string of a molecule M is written by equally many walks, one for each
automorphism of M, so the probability q(S | M) of a string S is P up to a factor that no ratio of two strings of M
contains. The order of the visits is the order of the atoms in S, so P can be read off S.

What the rules leave open for a given walk, RDKit and `encode` close, and so do we: a branch for every child but
the last; the ring that was opened last is closed first at an atom; of several rings opened at one atom, the
one that closes first is opened first. A string that breaks one of them, or whose rings join two branches (no depth
first walk leaves such a bond behind), is never written: q = 0.

All work is on bonds, each with the times at which its two ends were visited: a walk needs no table of neighbours,
since each bond waits in the stack once, from its first end's visit on. Counts over pairs of bonds are loops that
add one bond at a time to a running array, and, as in decoding, the batch is the last axis of every array.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError, over_batches
from ._alphabet import END, Alphabet
from ._graph import decode
from ._strings import is_legal

_NEVER = -9
"""The time of a visit that does not happen; -1 is the time before the first."""

# Log weights of a step by ring membership of the bond, its order (1 to 3) and the degree of the atom it leads to (1 to
# 4), and of a root by its degree; and what each proton of the atom more adds to them, from carbon to chlorine. Those
# of RDKit's orders, fitted to its strings of 5,700 organic molecules and rounded.
_RANDOM_STEP = np.repeat([[[6.0], [6.0], [6.0]], [[-5.0], [0.0], [0.0]]], 4, 2)
_CANONICAL_STEP = np.array([[(7, 3, 1.5, 1.5), (8, 3, 0.5, 0.5), (8, 3, 0.5, 0.5)],
                            [(0, -4, -7, -9), (0, 0, -1, -1), (0, 0, -1, -1)]])  # fmt: skip
_CANONICAL_ROOT = np.array([6.0, 0.0, 0.0, 0.0])
_CANONICAL_STEP_SLOPE, _CANONICAL_ROOT_SLOPE = -0.3, -0.9


class Reordered(NamedTuple):
    """A proposal.

    Attributes:
        tokens: `(length,)` int32, another string of the same molecule; the given one if no string was written.
        log_ratio: `()`, log q(old | M) - log q(new | M), to be added to log p(new) - log p(old). Minus infinity if
            the move cannot be made: the grammar does not allow the new string in arrays of this length, or no walk
            writes the old one.
    """

    tokens: Array
    log_ratio: Array


def reorder(key: Array, tokens: Array, alphabet: Alphabet, canonical: float = 0.0) -> Reordered:
    """Another string of the same molecule, in the same Kekulé form: a random root, neighbours in random order.

    A repeat unit begins at one of its attachment points.

    Args:
        key: random key.
        tokens: `(length,)` integers, a string that the grammar allows.
        alphabet: the alphabet it was written in; static under `jax.jit`.
        canonical: between 0 and 1, static: what the weights imitate. 0: strings that `encode` draws with a seed, a
            uniform root, chains before rings, double bonds of a ring before single ones. 1: strings that it writes
            without. A prior accepts most where this is as in the strings that it was fitted to.

    Returns:
        The string and the correction of its acceptance ratio; map over a batch with `jax.vmap`, over more than some
        thousands with `in_chunks`, which is faster then.

    Raises:
        BayesmatError: `canonical` is out of range.

    >>> from bayesmat.chem import encode, to_smiles
    >>> alphabet = Alphabet.organic()
    >>> tokens = encode("CC(=O)Oc1ccccc1", alphabet).tokens[0]
    >>> to_smiles(reorder(jax.random.key(2), tokens, alphabet).tokens, alphabet)
    'C1=C(OC(=O)C)C=CC=C1'
    """
    bits = jax.random.bits(key, (2 * alphabet.length,), jnp.uint32)
    return Reordered(*_mapped(_reorder_batch, alphabet, float(canonical))(bits, jnp.asarray(tokens)))


def reorder_log_prob(tokens: Array, alphabet: Alphabet, canonical: float = 0.0) -> Array:
    """log q(S | M) of drawing the string S of the molecule M by `reorder`, up to a number that depends on M only.

    Args:
        tokens: `(length,)` integers, a string that the grammar allows.
        alphabet: the alphabet it was written in; static under `jax.jit`.
        canonical: as in `reorder`.

    Returns:
        `()`, minus infinity for a string that `reorder` never writes; map over a batch with `jax.vmap`.

    Raises:
        BayesmatError: `canonical` is out of range.
    """
    return _mapped(_log_prob_batch, alphabet, float(canonical))(jnp.asarray(tokens))


@functools.lru_cache(maxsize=64)
def _mapped(batch_function: Callable[..., Any], alphabet: Alphabet, canonical: float) -> Callable[..., Any]:
    """A function of `(n, length)` arrays as one of `(length,)` arrays, which `jax.vmap` turns into the former."""
    if not 0 <= canonical <= 1:
        raise BayesmatError(f"canonical is {canonical}; allowed is 0 to 1")

    compiled = jax.jit(functools.partial(batch_function, alphabet=alphabet, canonical=canonical))

    return over_batches(compiled)


class _Bonds(NamedTuple):
    """The bonds of strings, by the token that makes them, and the atoms: `(length, n)`.

    Attributes:
        start: position of the end that is written later in this string, -1 where the token makes no bond.
        stop: position of the other end, -1 where the token makes no bond.
        order: 1 to 3, 0 where the token makes no bond.
        to_start: log weight of a step to that end.
        to_stop: log weight of a step to the other end.
        root: log weight of each atom as a root, by its token; minus infinity for what cannot be one.
    """

    start: Array
    stop: Array
    order: Array
    to_start: Array
    to_stop: Array
    root: Array


class _Walk(NamedTuple):
    """When a walk meets the bonds: `(length, n)`, by the token that makes the bond.

    Attributes:
        first: when its first end is visited; any number that keeps the order; `_NEVER` for no bond.
        second: when its second end is visited; `_NEVER` for no bond.
        tree: bool, the walk goes along it; other bonds close rings.
        score: log weight of the step to the second end.
    """

    first: Array
    second: Array
    tree: Array
    score: Array


class _Counts(NamedTuple):
    """What the place of a bond among the others says, `(length, n)` by the token that makes it.

    Attributes:
        choices: of a bond gone along, the summed weights of the steps that could have been made instead, its own
            included.
        later: of a bond gone along, those gone along from the same atom after it.
        newer: of a ring bond, the rings that are open when it is closed and were opened after it.
        left: of a ring bond, the steps between its ends that leave the branch in which it was opened.
    """

    choices: Array
    later: Array
    newer: Array
    left: Array


def _log_prob_batch(tokens: Array, alphabet: Alphabet, canonical: float) -> Array:
    """`reorder_log_prob` of `(n, length)` strings, `(n,)`."""
    tokens = tokens.astype(jnp.int32)
    return _own_log_prob(tokens.T, _read(tokens, alphabet, canonical), alphabet)


def _reorder_batch(bits: Array, tokens: Array, alphabet: Alphabet, canonical: float) -> tuple[Array, Array]:
    """`reorder` of `(n, length)` strings by `(n, 2 length)` random words."""
    tokens = tokens.astype(jnp.int32)
    columns = tokens.T
    bonds = _read(tokens, alphabet, canonical)
    # Exponential variables divided by weights: the smallest of any set is each one's in proportion to its weight.
    uniform = jnp.minimum(bits.T.astype(jnp.float32) * 2.0**-32, 1 - 2.0**-24)
    of_bond, of_atom = jnp.split(-jnp.log1p(-uniform), 2)
    root = jnp.where(jnp.isfinite(bonds.root), of_atom * jnp.exp(-bonds.root), jnp.inf).argmin(0).astype(jnp.int32)
    walk, atom = _traverse(bonds, _ranks(of_bond, bonds), root)
    counts = _count(walk)
    written, complete = _write(walk, counts, bonds.order, jnp.take_along_axis(columns, atom, 0), alphabet)
    valid = complete & is_legal(written.T, alphabet)
    root_score = jnp.take_along_axis(bonds.root, root[None], 0)[0]
    log_ratio = _own_log_prob(columns, bonds, alphabet) - _log_prob(walk, counts, root_score)
    return jnp.where(valid[:, None], written.T, tokens), jnp.where(valid, log_ratio, -jnp.inf)


def _read(tokens: Array, alphabet: Alphabet, canonical: float) -> _Bonds:
    """The bonds of `(n, length)` strings and the weights of steps along them."""
    graph = jax.vmap(lambda row: decode(row, alphabet))(tokens)
    degree = graph.degree.clip(1, 4) - 1
    protons = jnp.asarray(alphabet.atomic_number.clip(6, 17) - 6)[graph.atom]
    kind = graph.bond_in_ring * 12 + (graph.bond_order - 1).clip(0) * 4
    step = jnp.asarray((1 - canonical) * _RANDOM_STEP.ravel() + canonical * _CANONICAL_STEP.ravel(), float)

    def score(end: Array) -> Array:
        there = jnp.take_along_axis(degree | (protons << 2), end, 1)
        return step[kind + (there & 3)] + canonical * _CANONICAL_STEP_SLOPE * (there >> 2)

    can_begin = graph.atom > 0
    if alphabet.attachments:
        can_begin = jnp.asarray(alphabet.is_attachment)[graph.atom] == 1
    root = canonical * (jnp.asarray(_CANONICAL_ROOT, float)[degree] + _CANONICAL_ROOT_SLOPE * protons)
    root = jnp.where(can_begin, root, -jnp.inf)
    made = graph.bond_order > 0
    start, stop = (jnp.where(made, end, -1) for end in (graph.bond_from, graph.bond_to))
    to_start, to_stop = score(graph.bond_from), score(graph.bond_to)
    return _Bonds(start.T, stop.T, graph.bond_order.T, to_start.T, to_stop.T, root.T)


def _own_log_prob(tokens: Array, bonds: _Bonds, alphabet: Alphabet) -> Array:
    """The log probability of the walk that wrote `(length, n)` strings; minus infinity where there is none."""
    position = jnp.arange(alphabet.length, dtype=jnp.int32)[:, None]
    made = bonds.order > 0
    first, second = jnp.where(made, bonds.stop, _NEVER), jnp.where(made, bonds.start, _NEVER)
    walk = _Walk(first, second, made & (bonds.start == position), bonds.to_start)
    counts = _count(walk)
    # The order of rings at an atom shows in how many newer ones are open at each closing, and only there.
    regular = (tokens - alphabet.first_ring_close_token == counts.newer) & (counts.left == 0)
    written = (regular | walk.tree | ~made).all(0)
    return jnp.where(written, _log_prob(walk, counts, bonds.root[0]), -jnp.inf)


def _log_prob(walk: _Walk, counts: _Counts, root_score: Array) -> Array:
    """The log probability of a walk, `(n,)`, but for the sum over the roots."""
    return root_score + jnp.where(walk.tree, walk.score - jnp.log(counts.choices), 0).sum(0)


def _count(walk: _Walk) -> _Counts:
    """Counts over pairs of bonds. Three in one word: at most 6, 1023 and 1023."""
    first, second, tree, score = walk
    weight = jnp.exp(score)

    def add(total: tuple[Array, Array], bond: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        other_first, other_second, other_tree, other_weight = bond
        choices, packed = total
        same = (other_first == first) & (other_second >= second)
        later = same & other_tree & (other_second > second)
        newer = ~other_tree & (other_first >= first) & (other_first < second) & (other_second > second)
        left = other_tree & (other_first < first) & (other_second > first) & (other_second <= second)
        packed += later + (newer << 8) + (left << 18)
        return (choices + jnp.where(same, other_weight, 0), packed), None

    zeros = (jnp.zeros_like(weight), jnp.zeros_like(first))
    choices, packed = jax.lax.scan(add, zeros, (first, second, tree, weight))[0]
    return _Counts(choices, packed & 255, (packed >> 8) & 1023, packed >> 18)


def _ranks(exponential: Array, bonds: _Bonds) -> tuple[Array, Array]:
    """The ranks of all steps, to the start and to the stop of each bond, `(length, n)` each; the first has the highest.

    Those of bonds are above those of tokens that make none, and so above zero.
    """
    steps = jnp.concatenate([exponential * jnp.exp(-bonds.to_start), exponential * jnp.exp(-bonds.to_stop)])
    steps = jnp.where(jnp.concatenate([bonds.order, bonds.order]) > 0, steps, jnp.inf)
    index = jnp.arange(len(steps), dtype=jnp.int32)

    def add(total: Array, other: tuple[Array, Array]) -> tuple[Array, None]:
        value, place = other
        return total + ((value > steps) | ((value == steps) & (place > index)[:, None])), None

    to_start, to_stop = jnp.split(jax.lax.scan(add, jnp.zeros(steps.shape, jnp.int32), (steps, index))[0], 2)
    return to_start, to_stop


def _traverse(bonds: _Bonds, ranks: tuple[Array, Array], root: Array) -> tuple[_Walk, Array]:
    """A depth first walk; of the steps from an atom, those of higher rank are tried first.

    A bond is one word: 0 until one of its ends is visited; then a number that grows with the time of that visit and
    with the rank of the step to its other end, and ends in that end's position; when that is visited too, a negative
    word that holds both times. The next atom is the end of the greatest word.

    Returns:
        The walk, and by token of a bond the position of its end that is visited second. The walk contains a step to
        the root at time 0, from an atom of time -1, in the place of the first token's bond.
    """
    length = len(bonds.order)
    bits = (length - 1).bit_length()
    mask, since = (1 << bits) - 1, 2 * bits + 1
    to_start, to_stop = ((rank << bits) | end for rank, end in zip(ranks, (bonds.start, bonds.stop), strict=True))

    def step(carry: tuple[Array, Array], time: Array) -> tuple[tuple[Array, Array], None]:
        word, best = carry
        here = jnp.where(best > 0, best & mask, length)
        at_start, at_stop = bonds.start == here, bonds.stop == here
        waits = (time << since) | jnp.where(at_start, to_stop, to_start)
        done = (1 << 2 * bits + 2) | ((word >> since) << bits + 2) | (time << 2) | ((word == best) << 1) | at_start
        word = jnp.where(at_start | at_stop, jnp.where(word == 0, waits, -done), word)
        return (word, word.max(0)), None

    times = jnp.arange(length, dtype=jnp.int32)
    unmet = jnp.zeros_like(bonds.order)
    word = -jax.lax.scan(step, (unmet, root | (1 << bits)), times)[0][0]
    is_root, made, at_start = (times == 0)[:, None], bonds.order > 0, word & 1 > 0
    first = jnp.where(made, (word >> bits + 2) & mask, jnp.where(is_root, -1, _NEVER))
    second = jnp.where(made, (word >> 2) & mask, jnp.where(is_root, 0, _NEVER))
    atom = jnp.where(made, jnp.where(at_start, bonds.start, bonds.stop), jnp.where(is_root, root, 0))
    score = jnp.where(at_start, bonds.to_start, bonds.to_stop)
    return _Walk(first, second, (made & (word & 2 > 0)) | is_root, score), atom


# An item to be written is a word: two flags and an order above 1 for the tokens before it, and its own token.
_RETURNS, _BRANCH, _ORDER, _TOKEN = 0, 1, 2, 4


def _write(walk: _Walk, counts: _Counts, order: Array, token: Array, alphabet: Alphabet) -> tuple[Array, Array]:
    """The string of a walk, one token per step.

    At an atom there may be written, in this order: the ends of rings that close, newest ring first; those of rings
    that open, the first to close first; the next atom with what stands before it. Each is an event: a word that
    begins with its place in this order and ends with the item.

    Args:
        walk: the walk.
        counts: the counts of its bonds.
        order: bond orders, by the token that made the bond.
        token: the atom visited second, by the token that made the bond.
        alphabet: the alphabet to write in.

    Returns:
        The strings, `(length, n)`, and whether all atoms are written, `(n,)`.
    """
    length, num = token.shape
    first, second, tree, _ = walk
    shift = _TOKEN + alphabet.num_tokens.bit_length()
    order = (order - 1).clip(0)
    step_place, none = 2 * length + 1, jnp.iinfo(jnp.int32).max
    prefix = ((first != second - 1) << _RETURNS) | ((counts.later > 0) << _BRANCH) | (order << _ORDER)
    # A ring index that no token says is cut off; the grammar refuses the opening of that ring.
    closing = alphabet.first_ring_close_token + counts.newer.clip(0, alphabet.max_rings - 1)
    opening = (order << _ORDER) | (alphabet.ring_open_token << _TOKEN)
    late_time = jnp.where(tree, second - 1, second)
    late = jnp.where(tree, (step_place << shift) | prefix | (token << _TOKEN),
                     ((length - first) << shift) | (closing << _TOKEN))  # fmt: skip
    early_time = jnp.where(tree, _NEVER - 1, first)
    early = ((length + 1 + second) << shift) | opening

    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        time, last, item = carry
        event = jnp.minimum(
            jnp.where((late_time == time) & (late > last), late, none),
            jnp.where((early_time == time) & (early > last), early, none),
        ).min(0)
        new = (item == 0) & (event < none)
        steps = new & (event >> shift == step_place)
        item = jnp.where(new, event & ((1 << shift) - 1), item)
        time, last = time + steps, jnp.where(steps, -1, jnp.where(new, event, last))

        returns, branch, order = (item >> _RETURNS) & 1, (item >> _BRANCH) & 1, (item >> _ORDER) & 3
        written = jnp.where(order > 0, alphabet.bond_token(2) + order - 1, item >> _TOKEN)
        written = jnp.where(branch > 0, alphabet.open_token, written)
        written = jnp.where(returns > 0, alphabet.close_token, written)
        rest = jnp.where(order > 0, item & ~(3 << _ORDER), END)
        rest = jnp.where(branch > 0, item & ~(1 << _BRANCH), rest)
        rest = jnp.where(returns > 0, item & ~(1 << _RETURNS), rest)
        return (time, last, rest), written

    start = jnp.full(num, -1, jnp.int32)
    (time, _, item), written = jax.lax.scan(step, (start, start, jnp.zeros_like(start)), None, length)
    return written, (time == second.max(0)) & (item == 0)
