"""Interpolated modified Kneser-Ney estimates for every context of a corpus, laid out for one gather per token.

Chen and Goodman 1999, doi 10.1006/csla.1999.0128. With adjusted counts c (raw counts for the longest contexts and
for those at the start of a string, numbers of distinct left neighbours below),

    p(x | h) = max(c(hx) - D(c(hx)), 0) / c(h) + γ(h) p(x | h⁻),   γ(h) = (D1 N1 + D2 N2 + D3 N3+) / c(h),
    D1 = 1 - 2 Y n2/n1,  D2 = 2 - 3 Y n3/n2,  D3+ = 3 - 4 Y n4/n3,  Y = n1 / (n1 + 2 n2),

down to the uniform distribution, so every token has a positive probability in every context. On top stands one more
level of the same kind, in which the context is joined by a class of the position (see `_ngram`).

Contexts are the states of a finite automaton: `step[s, x]` is the longest known context after writing x in s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Histories(NamedTuple):
    """Every token of a corpus with what precedes it.

    Attributes:
        token: `(n,)` the token at each place, `END` included.
        back: `(n, K)` the tokens before it, most recent first; `start` where the string begins, -1 beyond.
        label: `(n,)` the class of the position.
    """

    token: np.ndarray
    back: np.ndarray
    label: np.ndarray


class Tables(NamedTuple):
    """The fitted automaton; S contexts, G classes, R rows, V tokens.

    Attributes:
        step: `(S, V)` int32, the context after a token.
        row: `(S, G)` int32, which row of `probability` holds in a context and class.
        probability: `(R, V)` float32, positive rows that sum to one.
        start: the context at the start of a string.
        factor: `(C + B, K)` float32, what the probabilities of each kind of token are multiplied with (see `_factors`):
            by cell first, then, in the column of the kind that ends a string only, by information.
    """

    step: np.ndarray
    row: np.ndarray
    probability: np.ndarray
    start: int
    factor: np.ndarray


class _Level(NamedTuple):
    """The contexts of one length, sorted by key."""

    key: np.ndarray
    shorter: np.ndarray  # state of the context without its oldest token
    before: np.ndarray  # state of the context without its newest token
    newest: np.ndarray  # its newest token
    first_state: int


def fit(histories: Histories, num_tokens: int, num_classes: int, min_count: int, factor: np.ndarray) -> Tables:
    """Estimate the tables.

    Args:
        histories: the corpus; K columns of `back` give the longest context.
        num_tokens: V, the size of the vocabulary.
        num_classes: G.
        min_count: contexts of three and more tokens that were seen less often are left to the shorter ones.
        factor: what the tables get as `factor`.
    """
    longest = histories.back.shape[1]
    base = num_tokens + 1  # the last symbol is the start mark
    rows = np.full((1, num_tokens), 1.0 / num_tokens)  # the uniform base
    state = np.zeros(len(histories.token), np.int64)  # the longest kept context of each place so far
    levels: list[_Level] = []
    all_rows: list[np.ndarray] = []
    num_states = 0
    for size in range(longest + 1):
        level, state, counts = _level(histories, levels, state, size, base, longest, min_count, num_states)
        below = rows if size == 0 else np.concatenate(all_rows)
        all_rows.append(_interpolate(counts, below[level.shorter], num_tokens))
        levels.append(level)
        num_states += len(level.key)
    probability = np.concatenate(all_rows)
    step = _transitions(levels, num_states, num_tokens)
    row, probability = _with_classes(histories, state, probability, num_classes, min_count)
    return Tables(step, row, probability.astype(np.float32), _start_state(levels, num_tokens), factor)


def _keys(back: np.ndarray, size: int, base: int) -> np.ndarray:
    """Contexts of `size` tokens as numbers, oldest token most significant."""
    key = np.zeros(len(back), np.int64)
    for column in range(size - 1, -1, -1):
        key = key * base + back[:, column]
    return key


def _level(
    histories: Histories,
    levels: list[_Level],
    state: np.ndarray,
    size: int,
    base: int,
    longest: int,
    min_count: int,
    first_state: int,
) -> tuple[_Level, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The contexts of one length, the state of each place, and adjusted counts as (context, token, count)."""
    reaches = np.ones(len(state), bool) if size == 0 else histories.back[:, size - 1] >= 0
    places = np.flatnonzero(reaches)
    keys = _keys(histories.back[places], size, base)
    unique, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    kept = count >= (min_count if size > 2 else 1)
    if size > 1:  # a context is reachable only if it is so without its newest token
        before_keys = unique // base
        found = np.searchsorted(levels[-1].key, before_keys).clip(0, len(levels[-1].key) - 1)
        kept &= levels[-1].key[found] == before_keys
    new_index = np.cumsum(kept) - 1
    alive = kept[inverse]
    places, context = places[alive], new_index[inverse[alive]]
    unique = unique[kept]
    newest = unique % base if size else np.zeros(1, np.int64)
    shorter = np.zeros(len(unique), np.int64)
    before = np.zeros(len(unique), np.int64)
    if size > 0:
        shorter = _find(levels[-1], unique % base ** (size - 1))
        before = _find(levels[-1], unique // base)
    level = _Level(unique, shorter, before, newest, first_state)
    counts = _adjusted_counts(histories, places, context, size, longest, base)
    state = state.copy()
    state[places] = first_state + context
    return level, state, counts


def _find(level: _Level, keys: np.ndarray) -> np.ndarray:
    """States of contexts of a level, which must be there."""
    index = np.searchsorted(level.key, keys).clip(0, len(level.key) - 1)
    assert (level.key[index] == keys).all()
    return level.first_state + index


def _adjusted_counts(
    histories: Histories, places: np.ndarray, context: np.ndarray, size: int, longest: int, base: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(context, token, count): raw counts where no longer context exists, else distinct left neighbours."""
    pair = context * base + histories.token[places]
    if size < longest:
        left = histories.back[places, size]
        inner = left >= 0  # at the start of a string nothing stands to the left, and raw counts are used
        distinct = np.unique(pair[inner] * base + left[inner]) // base
        pair = np.concatenate([pair[~inner], distinct])
    unique, count = np.unique(pair, return_counts=True)
    return unique // base, unique % base, count


def _discounts(count: np.ndarray) -> np.ndarray:
    """D for counts 0, 1, 2 and 3+; safe on small corpora, where some counts of counts are zero."""
    n1, n2, n3, n4 = (max(float((count == k).sum()), 0.5) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    d = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.clip(d, [0.0, 0.1, 0.1, 0.1], [0.0, 0.95, 1.9, 2.85])


def _interpolate(counts: tuple[np.ndarray, np.ndarray, np.ndarray], below: np.ndarray, num_tokens: int) -> np.ndarray:
    """Rows of one level from its adjusted counts and the rows of the next shorter contexts, `(contexts, V)`."""
    context, token, count = counts
    num = len(below)
    discount = _discounts(count)[np.minimum(count, 3)]
    total = np.bincount(context, count, num)
    removed = np.bincount(context, discount, num)
    rows = (removed / total)[:, None] * below
    rows[context, token] += (count - discount) / total[context]
    return rows


def _transitions(levels: list[_Level], num_states: int, num_tokens: int) -> np.ndarray:
    """`(S, V)`: the context made longer by the token where that is known, else what its shorter context does."""
    step = np.zeros((num_states, num_tokens), np.int32)
    for level, longer in _pairs(levels):
        span = slice(level.first_state, level.first_state + len(level.key))
        if level.first_state > 0:
            step[span] = step[level.shorter]
        if longer is not None:
            written = longer.newest < num_tokens  # the start mark is never written
            step[longer.before[written], longer.newest[written]] = longer.first_state + np.flatnonzero(written)
    return step


def _pairs(levels: list[_Level]) -> Iterator[tuple[_Level, _Level | None]]:
    return zip(levels, [*levels[1:], None], strict=True)


def _start_state(levels: list[_Level], start_mark: int) -> int:
    """The context that holds the start mark only."""
    return int(_find(levels[1], np.array([start_mark]))[0])


def _with_classes(
    histories: Histories, state: np.ndarray, rows: np.ndarray, num_classes: int, min_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """One more level: contexts joined by the class of the position."""
    num_states, num_tokens = rows.shape
    joint = state * num_classes + histories.label
    unique, inverse, count = np.unique(joint, return_inverse=True, return_counts=True)
    kept = count >= min_count
    index = np.cumsum(kept) - 1
    alive = kept[inverse]
    pair = index[inverse[alive]] * num_tokens + histories.token[alive]
    pairs, pair_count = np.unique(pair, return_counts=True)
    counts = (pairs // num_tokens, pairs % num_tokens, pair_count)
    added = _interpolate(counts, rows[unique[kept] // num_classes], num_tokens)
    row = np.repeat(np.arange(num_states, dtype=np.int32)[:, None], num_classes, 1)
    row.ravel()[unique[kept]] = num_states + np.arange(kept.sum())
    return row, np.concatenate([rows, added])
