"""The extended n-gram of iQSPR over SMILES tokens, from its description (Ikebata et al. 2017, doi
10.1007/s10822-016-0008-z; iQSPR-X, Wu et al. 2020, doi 10.1002/minf.201900107). No code of theirs is in it.

Theirs: one table for each order and grammar state (a branch is open or not, times how many rings are open); back-off
to the longest context that was seen; after a branch closes, the context is what stood before it, then "(" with the
branch's first atom and the terminator; ring bonds close by how recently they were opened; a bond belongs to the token
after it. Generation uses plain dictionaries, which is faster than the data frames of the published package.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate

START, END = "^", "!"
OPEN, CLOSE = "(", ")"
ORDER = 10
MOST_TOKENS = 150
_PIECE = re.compile(r"([-=#:/\\]?)(\[[^\]]+\]|Br|Cl|%\d\d|\d|[A-Za-z*]|\(|\))|(\.)")
_WHERE = tuple[bool, int]


class Unspeakable(ValueError):
    """A string that the tokens cannot say, or a grammar state that no training string reached."""


def tokenize(smiles: str) -> list[str]:
    """Tokens of a SMILES string: "=&" opens a ring (its digit left out), "&2" closes the second most recent one.

    >>> tokenize("CC(=O)C1CC1")
    ['C', 'C', '(', '=O', ')', 'C', '&', 'C', 'C', '&1', '!']
    """
    tokens: list[str] = []
    rings: list[str] = []
    bond_before = ""
    for match in _PIECE.finditer(smiles):
        bond, symbol, dot = match.groups()
        if dot:
            raise Unspeakable("several molecules in a string")
        bond = bond_before + bond
        bond_before = bond if symbol == OPEN else ""
        if symbol[0].isdigit() or symbol[0] == "%":
            if symbol in rings:
                tokens.append(f"{bond}&{len(rings) - rings.index(symbol)}")
                rings.remove(symbol)
            else:
                tokens.append(f"{bond}&")
                rings.append(symbol)
        elif symbol in (OPEN, CLOSE):
            tokens.append(symbol)
        else:
            tokens.append(bond + symbol)
    return [*tokens, END]


def write(tokens: Iterable[str]) -> str:
    """SMILES of tokens.

    >>> write(tokenize("CC(=O)C1CC1"))
    'CC(=O)C1CC1'
    """
    text: list[str] = []
    rings: list[int] = []
    for token in tokens:
        bond, mark, which = token.partition("&")
        if token == END:
            break
        if not mark:
            text.append(token)
            continue
        if which:
            number = rings.pop(-int(which))
        else:
            number = next(i for i in range(1, 100) if i not in rings)
            rings.append(number)
        text.append(f"{bond}{number}" if number < 10 else f"{bond}%{number}")
    return "".join(text)


class Reader:
    """A string as it is written: its tokens, the contracted context and the grammar state."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.context: list[str] = [START]
        self.starts: list[int] = []
        self.rings = 0

    @property
    def where(self) -> _WHERE:
        """The grammar state."""
        return bool(self.starts), self.rings

    def push(self, token: str) -> None:
        """Write one more token."""
        self.tokens.append(token)
        if token == CLOSE:
            start = self.starts.pop()
            self.context = [*self.context[: start + 2], CLOSE]
            return
        if token == OPEN:
            self.starts.append(len(self.context))
        elif "&" in token:
            self.rings += -1 if token[-1].isdigit() else 1
        self.context.append(token)


class NGram:
    """Tables of counts: order → grammar state → context → what followed it.

    Args:
        smiles: the corpus; what the tokens cannot say is left out.
        order: tokens of the longest table, the predicted one included.
    """

    def __init__(self, smiles: Iterable[str], order: int = ORDER):
        counts: dict[tuple[_WHERE, tuple[str, ...]], Counter[str]] = defaultdict(Counter)
        for text in smiles:
            try:
                tokens = tokenize(text)
            except Unspeakable:
                continue
            reader = Reader()
            for token in tokens:
                for used in range(min(order - 1, len(reader.context)) + 1):
                    context = tuple(reader.context[len(reader.context) - used :])
                    counts[reader.where, context][token] += 1
                reader.push(token)
        self.order = order
        self.tables = {
            key: (list(found), list(accumulate(found.values()))) for key, found in counts.items()
        }  # the number of tokens in a context says the order of its table

    def following(self, reader: Reader, rng: random.Random) -> str:
        """A draw of the next token, from the longest context that was seen."""
        where, context = reader.where, reader.context
        for used in range(min(self.order - 1, len(context)), -1, -1):
            table = self.tables.get((where, tuple(context[len(context) - used :])))
            if table is not None:
                tokens, totals = table
                return tokens[bisect(totals, rng.random() * totals[-1])]
        raise Unspeakable("no training string was ever in this grammar state")

    def grow(self, start: Iterable[str], rng: random.Random) -> str:
        """SMILES that begins with the given tokens and ends where the n-gram ends it."""
        reader = Reader()
        for token in start:
            reader.push(token)
        while len(reader.tokens) < MOST_TOKENS:
            token = self.following(reader, rng)
            if token == END:
                return write(reader.tokens)
            reader.push(token)
        raise Unspeakable("the string does not end")
