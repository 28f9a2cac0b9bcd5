"""The extended n-gram prior: a normalised distribution over molecular strings, as a NumPyro distribution.

    p(x) = Π_i w_i(x_i) / Σ_legal w_i,   w_i(t) = p(t | context_i, class_i) r_i(kind of t)

Three things extend the n-gram. After a branch closes, the context is the text before the branch, `(`, its first atom
and `)`, as in Ikebata et al. 2017 (doi 10.1007/s10822-016-0008-z): a long branch does not hide what it hangs on. And
the class of a position is how many bonds back the most recently opened ring lies, so that ring sizes are learnt even
where branches and fused rings push the opening out of the context. In a repeat unit it also says whether the second
attachment point stands already, or strings would go on long after it. And each kind of token (atom, branch, ring, end
…) carries a factor r_i for each position i, fitted so that it is as frequent there as in the corpus: a context does
not know how long a string is already, and would open rings and branches without end.

The mask of `chem.legal` makes every string a molecule; the Kneser-Ney floor gives every legal string a positive
probability.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem
from .._types import Array
from ._base import StringDistribution
from ._kneser_ney import Histories, Tables, fit, kind_factors

RING_CLASSES = 10
"""No open ring, or the distance 0 … 8 and more to the most recently opened one."""


MAX_FACTOR_STRINGS = 10_000
"""Strings that decide how likely each kind of token is at each position."""


def num_classes(alphabet: chem.Alphabet) -> int:
    """Classes of a position: the ring classes with and without an open branch, with and without a second open ring
    and, for repeat units, with and without the second attachment point."""
    return RING_CLASSES * 4 * (2 if alphabet.attachments else 1)


class _Place(NamedTuple):
    """The grammar's state and how deep in the molecule it lies; for one string.

    Attributes:
        grammar: the automaton.
        level: bonds between the first atom and the current one.
        stack_level: `(max_depth,)` the same for the atoms to return to.
        ring_level: `(max_rings,)` the same for the atoms that opened the rings, newest ring first.
    """

    grammar: chem.State
    level: Array
    stack_level: Array
    ring_level: Array


def _first_place(alphabet: chem.Alphabet) -> _Place:
    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    return _Place(chem.start(alphabet), zeros(()), zeros(alphabet.max_depth), zeros(alphabet.max_rings))


def _next_place(place: _Place, token: Array, alphabet: chem.Alphabet) -> _Place:
    before, after = place.grammar, chem.advance(place.grammar, token, alphabet)
    branches = jnp.arange(alphabet.max_depth)
    opens, closes = token == alphabet.open_token, token == alphabet.close_token
    returned = jnp.where(branches == before.depth - 1, place.stack_level, 0).sum(-1, dtype=jnp.int32)
    is_atom = (token > 0) & (token <= len(alphabet.atoms))
    closed = token - alphabet.first_ring_close_token
    return _Place(
        grammar=after,
        level=jnp.where(closes, returned, place.level + is_atom),
        stack_level=jnp.where(opens & (branches == before.depth), place.level, place.stack_level),
        ring_level=chem.update_rings(place.ring_level, closed, token == alphabet.ring_open_token, place.level),
    )


def _label(place: _Place, alphabet: chem.Alphabet) -> Array:
    """The class of the position, int32 in [0, num_classes)."""
    newest = place.ring_level[..., 0]
    grammar = place.grammar
    ring = jnp.where(grammar.rings == 0, 0, 1 + (place.level - newest).clip(0, RING_CLASSES - 2))
    flags = (grammar.depth > 0) + 2 * (grammar.rings > 1)
    if alphabet.attachments:
        flags = flags + 4 * (grammar.attachments == 0)
    return ring + RING_CLASSES * flags


class _Writer(NamedTuple):
    """All that the rest of a string depends on: the place, the n-gram context, and the contexts to return to."""

    place: _Place
    context: Array
    stack_context: Array


class NGram(StringDistribution):
    """A distribution over molecular strings, event shape `(length,)` of int32 tokens.

    Made by `fit_ngram` or `load`. It has the protocol of a string site: `sample`, `log_prob` and
    `regrow(key, x, cut)`, the draw conditional on the first `cut` tokens.

    Args:
        tables: the fitted automaton.
        alphabet: what the tokens mean.

    Attributes:
        set_aside: how many molecules of the corpus the alphabet could not say, by reason.
    """

    pytree_data_fields = ("step", "row", "probability", "start", "factor")

    def __init__(self, tables: Tables, alphabet: chem.Alphabet):
        self.step = jnp.asarray(tables.step)
        self.row = jnp.asarray(tables.row)
        self.probability = jnp.asarray(tables.probability)
        self.start = jnp.asarray(tables.start, jnp.int32)
        self.factor = jnp.asarray(tables.factor)
        self.set_aside: Counter[str] = Counter()
        super().__init__(alphabet)

    def _first(self) -> _Writer:
        stack = jnp.zeros(self.alphabet.max_depth, jnp.int32)
        return _Writer(_first_place(self.alphabet), self.start, stack)

    def _next_probabilities(self, writer: _Writer) -> Array:
        """`(num_tokens,)` probabilities of the next token, zero where it is not legal; not normalised."""
        grammar = writer.place.grammar
        row = self.row[writer.context, _label(writer.place, self.alphabet)]
        weights = self.probability[row] * self._factors(grammar.position)
        return jnp.where(chem.legal(grammar, self.alphabet), weights, 0)

    def _factors(self, position: Array) -> Array:
        """`(num_tokens,)` what each token's probability is multiplied with at a position."""
        positions, kinds = self.factor.shape
        of_token = self.factor[:, np.minimum(self.alphabet.kind, kinds - 1)]
        return of_token[position.clip(0, positions - 1)]

    def _write(self, writer: _Writer, token: Array) -> _Writer:
        alphabet, grammar = self.alphabet, writer.place.grammar
        place = _next_place(writer.place, token, alphabet)
        branches = jnp.arange(alphabet.max_depth)
        closes = token == alphabet.close_token
        resumed = jnp.where(branches == grammar.depth - 1, writer.stack_context, 0).sum(-1, dtype=jnp.int32)
        context = self.step[jnp.where(closes, resumed, writer.context), token]
        # The first atom of a branch settles the context to return to.
        first_atom = chem.starts_branch(grammar) & (token > 0) & (token <= len(alphabet.atoms))
        stack = jnp.where(first_atom & (branches == grammar.depth - 1), context, writer.stack_context)
        return _Writer(place, context, stack)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Strings of shape `sample_shape + (length,)`."""
        if not sample_shape:
            return self.regrow(key, jnp.zeros(self.alphabet.length, jnp.int32), jnp.asarray(0))
        keys = jax.random.split(key, int(np.prod(sample_shape)))
        drawn = jax.vmap(self.sample)(keys)
        return drawn.reshape(*sample_shape, self.alphabet.length)

    def regrow(self, key: Array, x: Array, cut: Array) -> Array:
        """A string drawn from the prior given that its first `cut` tokens are those of `x`.

        Args:
            key: random key.
            x: `(length,)` a legal string.
            cut: how many tokens stay; at the end of the string or beyond, all tokens stay but `END` is drawn anew.
        """
        uniform = jax.random.uniform(key, (self.alphabet.length,))
        kept = jnp.arange(self.alphabet.length) < cut
        triangle = jnp.triu(jnp.ones((self.alphabet.num_tokens, self.alphabet.num_tokens), self.probability.dtype))

        def step(writer: _Writer, inputs: tuple[Array, Array, Array]) -> tuple[_Writer, Array]:
            u, old, keep = inputs
            # A product with a triangle of ones is faster than a scan on every device, and must be exact.
            cumulative = jnp.dot(self._next_probabilities(writer), triangle, precision=jax.lax.Precision.HIGHEST)
            # The first token whose cumulative mass exceeds u of the total; never one of mass zero.
            drawn = (cumulative <= u * cumulative[-1] * (1 - 1e-6)).sum().astype(jnp.int32)
            token = jnp.where(keep, old, drawn)
            return self._write(writer, token), token

        return jax.lax.scan(step, self._first(), (uniform, x.astype(jnp.int32), kept))[1]

    def token_log_probs(self, x: Array) -> Array:
        """`(length,)` log probability of each token of one string given those before it."""

        def step(writer: _Writer, token: Array) -> tuple[_Writer, Array]:
            p = self._next_probabilities(writer)
            # After an illegal token the sum may be zero as well: -inf it is, not NaN.
            share = jnp.where(p[token] > 0, p[token] / jnp.where(p[token] > 0, p.sum(), 1), 0)
            return self._write(writer, token), jnp.log(share)

        writer, log_p = jax.lax.scan(step, self._first(), x)
        # A string that fills the array has no END token inside it, and must be complete all the same.
        complete = chem.legal(writer.place.grammar, self.alphabet)[chem.END]
        return log_p.at[-1].add(jnp.where(complete, 0.0, -jnp.inf))


def tables_from_tokens(tokens: np.ndarray, alphabet: chem.Alphabet, order: int = 8, min_count: int = 2) -> Tables:
    """Fit the n-gram to encoded strings.

    Args:
        tokens: `(n, length)` legal strings.
        alphabet: their alphabet.
        order: tokens that an estimate looks at, the predicted one included.
        min_count: contexts of three and more tokens that were seen less often are left to the shorter ones.
    """
    tokens = np.asarray(tokens, np.int32)
    ends = (tokens == chem.END).cumsum(1)
    used = ends <= 1  # the tokens of each string and its first END
    back = _look_back(tokens, alphabet, order - 1)[used]
    label = np.asarray(_labels(jnp.asarray(tokens), alphabet))[used]
    tables = fit(Histories(tokens[used], back, label), alphabet.num_tokens, num_classes(alphabet), min_count)
    some = tokens[np.random.default_rng(0).permutation(len(tokens))[:MAX_FACTOR_STRINGS]]
    share = _shares_of_kinds(NGram(tables, alphabet), jnp.asarray(some))
    kind = np.where((some == chem.END).cumsum(1) <= 1, alphabet.kind[some], -1)
    return tables._replace(factor=kind_factors(np.asarray(share), kind))


@jax.jit
def _shares_of_kinds(prior: NGram, tokens: Array) -> Array:
    """The probability of each kind of token at every place of `(n, length)` strings, `(n, length, K)`."""
    kinds = jax.nn.one_hot(prior.alphabet.kind, int(prior.alphabet.kind.max()) + 1)

    def one(row: Array) -> Array:
        def step(writer: _Writer, token: Array) -> tuple[_Writer, Array]:
            p = prior._next_probabilities(writer)
            return prior._write(writer, token), jnp.dot(p, kinds, precision=jax.lax.Precision.HIGHEST) / p.sum()

        return jax.lax.scan(step, prior._first(), row)[1]

    return chem.in_chunks(one, tokens)


def _look_back(tokens: np.ndarray, alphabet: chem.Alphabet, depth: int) -> np.ndarray:
    """The `depth` tokens before each place, most recent first, with closed branches contracted."""
    num, length = tokens.shape
    before = np.empty((num, length), np.int64)  # the place that precedes each token in the contracted text
    branch_start = np.zeros((num, alphabet.max_depth + 1), np.int64)  # first atom of each open branch
    fresh = np.zeros(num, bool)  # a branch was opened and its first atom not yet written
    level = np.zeros(num, np.int64)
    lines = np.arange(num)
    for i in range(length):
        token = tokens[:, i]
        opens, closes = token == alphabet.open_token, token == alphabet.close_token
        is_atom = (token > 0) & (token <= len(alphabet.atoms))
        before[:, i] = np.where(closes, branch_start[lines, level], i - 1)
        level += opens.astype(np.int64) - closes
        first = fresh & is_atom
        branch_start[lines[first], level[first]] = i
        fresh = (fresh & ~is_atom) | opens
    back = np.full((num, length, depth), -1, np.int64)
    place = np.broadcast_to(np.arange(length) - 1, (num, length)).copy()
    for m in range(depth):
        inside = place >= 0
        outside = np.where(place == -1, alphabet.num_tokens, -1)
        back[..., m] = np.where(inside, np.take_along_axis(tokens, place.clip(0), 1), outside)
        place = np.where(inside, np.take_along_axis(before, place.clip(0), 1), -2)
    return back


@functools.partial(jax.jit, static_argnames="alphabet")
def _labels(tokens: Array, alphabet: chem.Alphabet) -> Array:
    """The class of every place of `(n, length)` strings."""

    def one(row: Array) -> Array:
        def step(place: _Place, token: Array) -> tuple[_Place, Array]:
            return _next_place(place, token, alphabet), _label(place, alphabet)

        return jax.lax.scan(step, _first_place(alphabet), row)[1]

    return jax.vmap(one)(tokens)
