"""The extended n-gram prior: a normalised distribution over molecular strings, as a NumPyro distribution.

    p(x) = Π_i w_i(x_i) / Σ_legal w_i,   w_i(t) = p(t | context_i, class_i) r(kind of t, cell_i) e(information_i)

Four things extend the n-gram. After a branch closes, the context is the text before the branch, `(`, its first atom
and `)`, as in Ikebata et al. 2017 (doi 10.1007/s10822-016-0008-z): a long branch does not hide what it hangs on. And
the class of a position is how many bonds back the most recently opened ring lies, so that ring sizes are learnt even
where branches and fused rings push the opening out of the context. In a repeat unit it also says whether the second
attachment point stands already, or strings would go on long after it. And each kind of token (atom, branch, ring, end
…) carries a factor r for each cell, which is the position with the numbers of open rings and branches: a context does
not know how long a string is already, and would open rings and branches without end. And a token that ends the string
carries a factor e for the information -log2 p of what stands already: a corpus holds no molecule twice, so it holds
few that take little information, and the n-gram alone would end there and repeat itself. A token ends the string if
it is `END`, or if no valence is left after it to go on from.

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
from .._types import Array, BayesmatError
from ._base import StringDistribution
from ._factors import ENDS, Places, end_factors, kind_factors
from ._kneser_ney import Histories, Tables, fit

RING_CLASSES = 10
"""No open ring, or the distance 0 … 8 and more to the most recently opened one."""

SITUATIONS = 9
"""No, one or more open rings, by no, one or more open branches."""

BUCKETS, BUCKET_BITS = 64, 2.0
"""Steps of information in which ending is corrected."""

MAX_FACTOR_STRINGS, MIN_OWN_STRINGS = 20_000, 1_250
"""Strings of the corpus that the factors are fitted to, and strings that are drawn for them at least."""


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
    """All that the rest of a string depends on: the place, the n-gram context, the contexts to return to, and the
    information -log2 p of what is written [bit]."""

    place: _Place
    context: Array
    stack_context: Array
    information: Array


def _ends(grammar: chem.State, alphabet: chem.Alphabet) -> Array:
    """`(num_tokens,)` bool: `END`, and the tokens after which only `END` is legal, for no valence is left."""
    here = (grammar.depth == 0) & (grammar.position > 0)
    atom = (alphabet.valence == grammar.order) & (grammar.rings == 0) & (grammar.attachments == alphabet.is_attachment)
    closes = (grammar.rings == 1) & (grammar.attachments == 0) & (grammar.free == grammar.ring_order[0])
    token = np.arange(alphabet.num_tokens)
    return (token == chem.END) | (here & (atom | (closes & (token == alphabet.first_ring_close_token))))


def _situation(grammar: chem.State) -> Array:
    """int32 in [0, SITUATIONS)."""
    return 3 * grammar.rings.clip(0, 2) + grammar.depth.clip(0, 2)


def _bucket(writer: _Writer) -> Array:
    """int32 in [0, BUCKETS). The steps begin off the whole bits of equal choices, where rounding would decide."""
    return (writer.information / BUCKET_BITS + 0.15).clip(0, BUCKETS - 1).astype(jnp.int32)


class NGram(StringDistribution):
    """A distribution over molecular strings, event shape `(length,)` of int32 tokens.

    Made by `fit_ngram` or `load`. It has the protocol of a string site: `sample`, `log_prob` and
    `regrow(key, x, cut)`, the draw conditional on the first `cut` tokens.

    Args:
        tables: the fitted automaton.
        alphabet: what the tokens mean.

    Attributes:
        set_aside: how many molecules of the corpus the alphabet could not say, by reason.

    Raises:
        BayesmatError: the factors of the tables were made by another version.
    """

    pytree_data_fields = ("step", "row", "probability", "start", "factor")
    canonical_order = 1.0  # `fit_ngram` writes the corpus so

    def __init__(self, tables: Tables, alphabet: chem.Alphabet):
        self.step = jnp.asarray(tables.step)
        self.row = jnp.asarray(tables.row)
        self.probability = jnp.asarray(tables.probability)
        self.start = jnp.asarray(tables.start, jnp.int32)
        self.factor = jnp.asarray(tables.factor)
        rows = len(tables.factor) - BUCKETS
        if rows < SITUATIONS or rows % SITUATIONS:
            raise BayesmatError(f"the factors of an n-gram have {rows + BUCKETS} rows, so another version made them; "
                                f"allowed are {BUCKETS} and a multiple of {SITUATIONS}: fit it anew")  # fmt: skip
        self.set_aside: Counter[str] = Counter()
        super().__init__(alphabet)

    def _first(self) -> _Writer:
        stack = jnp.zeros(self.alphabet.max_depth, jnp.int32)
        return _Writer(_first_place(self.alphabet), self.start, stack, jnp.zeros((), self.probability.dtype))

    def _weights(self, writer: _Writer) -> Array:
        """`(num_tokens,)` the n-gram's probabilities of the next token, zero where it is not legal."""
        row = self.row[writer.context, _label(writer.place, self.alphabet)]
        return jnp.where(chem.legal(writer.place.grammar, self.alphabet), self.probability[row], 0)

    def _next_probabilities(self, writer: _Writer) -> Array:
        """`(num_tokens,)` probabilities of the next token; all zero after a token that was not legal."""
        weights = self._weights(writer) * self._factors(writer)
        return weights / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)

    @property
    def _num_positions(self) -> int:
        return (len(self.factor) - BUCKETS) // SITUATIONS

    def _cell(self, grammar: chem.State) -> Array:
        """The row of `factor` for the position and situation."""
        return grammar.position.clip(0, self._num_positions - 1) * SITUATIONS + _situation(grammar)

    def _factors(self, writer: _Writer) -> Array:
        """`(num_tokens,)` what each token's probability is multiplied with."""
        grammar = writer.place.grammar
        cell = self._cell(grammar)
        by_information = self.factor[SITUATIONS * self._num_positions + _bucket(writer), ENDS]
        end = self.factor[cell, ENDS] * by_information
        return jnp.where(_ends(grammar, self.alphabet), end, self.factor[:, self.alphabet.kind][cell])

    def _write(self, writer: _Writer, token: Array, p: Array) -> _Writer:
        """The writer after a token that had the probability `p`."""
        alphabet, grammar = self.alphabet, writer.place.grammar
        place = _next_place(writer.place, token, alphabet)
        branches = jnp.arange(alphabet.max_depth)
        closes = token == alphabet.close_token
        resumed = jnp.where(branches == grammar.depth - 1, writer.stack_context, 0).sum(-1, dtype=jnp.int32)
        context = self.step[jnp.where(closes, resumed, writer.context), token]
        # The first atom of a branch settles the context to return to.
        first_atom = chem.starts_branch(grammar) & (token > 0) & (token <= len(alphabet.atoms))
        stack = jnp.where(first_atom & (branches == grammar.depth - 1), context, writer.stack_context)
        return _Writer(place, context, stack, writer.information - jnp.log2(jnp.where(p > 0, p, 1)))

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
        return self._read(key, x, cut)[-1]

    def _read(self, key: Array, x: Array, cut: Array) -> tuple[Array, ...]:
        """What `Places` needs of one string, and its tokens: `regrow` uses the latter only."""
        uniform = jax.random.uniform(key, (self.alphabet.length,))
        kept = jnp.arange(self.alphabet.length) < cut
        triangle = jnp.triu(jnp.ones((self.alphabet.num_tokens, self.alphabet.num_tokens), self.probability.dtype))
        kinds = jnp.arange(self.factor.shape[1])

        def step(writer: _Writer, inputs: tuple[Array, Array, Array]) -> tuple[_Writer, tuple[Array, ...]]:
            u, old, keep = inputs
            p = self._next_probabilities(writer)
            # A product with a triangle of ones is faster than a scan on every device, and must be exact.
            cumulative = jnp.dot(p, triangle, precision=jax.lax.Precision.HIGHEST)
            # The first token whose cumulative mass exceeds u of the total; never one of mass zero.
            drawn = (cumulative <= u * cumulative[-1] * (1 - 1e-6)).sum().astype(jnp.int32)
            token = jnp.where(keep, old, drawn)
            grammar = writer.place.grammar
            kind = jnp.where(_ends(grammar, self.alphabet), ENDS, self.alphabet.kind)
            weights = self._weights(writer)
            share = jnp.where(kind[:, None] == kinds, weights[:, None], 0).sum(0) / weights.sum()
            seen = (share, self._cell(grammar), _bucket(writer), kind[token], token)
            return self._write(writer, token, p[token]), seen

        return jax.lax.scan(step, self._first(), (uniform, x.astype(jnp.int32), kept))[1]

    def token_log_probs(self, x: Array) -> Array:
        """`(length,)` log probability of each token of one string given those before it."""

        def step(writer: _Writer, token: Array) -> tuple[_Writer, Array]:
            p = self._next_probabilities(writer)[token]
            return self._write(writer, token, p), jnp.log(p)

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
    histories, factor = Histories(tokens[used], back, label), flat_factors(alphabet)
    tables = fit(histories, alphabet.num_tokens, num_classes(alphabet), min_count, factor)
    return tables._replace(factor=_fit_factors(tables, tokens, alphabet))


def flat_factors(alphabet: chem.Alphabet) -> np.ndarray:
    """`Tables.factor` that changes nothing."""
    return np.ones((SITUATIONS + BUCKETS, int(alphabet.kind.max()) + 1), np.float32)


def _fit_factors(tables: Tables, tokens: np.ndarray, alphabet: chem.Alphabet, rounds: int = 3) -> np.ndarray:
    """`Tables.factor`. Each round draws strings with the factors so far and fits them again."""
    # A quarter of a small corpus says enough, and more would take longer than the fit itself.
    quarter = len(tokens) // 4 // MIN_OWN_STRINGS * MIN_OWN_STRINGS
    num = min(MAX_FACTOR_STRINGS, max(MIN_OWN_STRINGS, quarter))
    some = tokens[np.random.default_rng(0).permutation(len(tokens))[:num]]
    nothing = np.zeros((max(len(some), MIN_OWN_STRINGS), alphabet.length), np.int32)
    by_cell = np.ones((alphabet.length * SITUATIONS, tables.factor.shape[1]))
    by_bucket = np.ones((BUCKETS, tables.factor.shape[1]))
    for index in range(rounds):
        factor = np.concatenate([by_cell, by_bucket]).astype(np.float32)
        prior = NGram(tables._replace(factor=factor), alphabet)
        corpus = _places(prior, jax.random.key(index), some, alphabet.length)
        own = _places(prior, jax.random.key(index), nothing, 0)
        by_cell = kind_factors(corpus, own, by_cell, by_bucket[:, ENDS])
        by_bucket[:, ENDS] = end_factors(corpus, own, by_cell)
    return np.concatenate([by_cell, by_bucket]).astype(np.float32)


@jax.jit
def _read_block(prior: NGram, keys: Array, tokens: Array, cut: Array) -> tuple[Array, ...]:
    return jax.vmap(prior._read, (0, 0, None))(keys, tokens, cut)


def _places(prior: NGram, key: Array, tokens: np.ndarray, cut: int) -> Places:
    """The places of strings of which the first `cut` tokens are given and the others drawn; see `Places`."""
    keys, size, blocks = jax.random.split(key, len(tokens)), MIN_OWN_STRINGS, []
    for start in range(0, len(tokens), size):
        rows = np.arange(start, start + size) % len(tokens)  # the last block is filled up, so that one program does
        block = _read_block(prior, keys[rows], jnp.asarray(tokens[rows]), jnp.asarray(cut))
        blocks.append([np.asarray(values)[: len(tokens) - start] for values in block])
    share, cell, bucket, kind, written = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    inside = (written == chem.END).cumsum(1) <= 1
    farthest = np.where(inside, bucket, 0).max(1)
    reached = (farthest[:, None] >= np.arange(BUCKETS)).mean(0)
    free = inside & (share.max(-1) < 1 - 1e-6)
    share = np.ascontiguousarray(share[free].T, float)
    return Places(share, cell[free], bucket[free], kind[free], reached, len(tokens))


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
