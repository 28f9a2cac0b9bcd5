"""Rows of a user's table, one after the other, none of them lost: what cannot be used comes with a reason."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from .._types import BayesmatError

MAX_RECORD_LINES = 1000
"""A quoted field may hold line breaks; a quote that is still open after so many lines is taken for a mistake."""
OPEN = "a quote is opened and never closed"
STRAY = "characters behind a closing quote"  # read as they stand
MAX_LINE = 1 << 20
MAX_RECORD = 1 << 18
"""Characters behind which no further line is joined to a record."""
_ENDS = ("\n", "\r")
LONG = f"a cell of more than {csv.field_size_limit():,} characters"


class Row(NamedTuple):
    """One record.

    Attributes:
        line: number of its last line, from 1 at the header, as an editor shows it.
        cells: as many as the header has.
        text: of the wanted column.
        reason: why the row cannot be used, or "".
    """

    line: int
    cells: list[str]
    text: str
    reason: str


def read_rows(path: str | Path, column: str) -> tuple[list[str], Iterator[Row]]:
    """The header of a table and its rows as they are read, in memory that does not grow with the file.

    Args:
        path: comma separated, or tab separated if it ends in .tsv; UTF-8, possibly with .gz.
        column: header of the wanted column.

    Raises:
        BayesmatError: the file cannot be read or is empty, or the column is missing or there twice; while rows are
            read also that a packed file ends early.
    """
    path = Path(path)
    records = _records(_lines(path), "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ",")
    _, header, problem = next(records, (0, [], ""))
    if not header or problem:
        raise BayesmatError(f"{path}: {problem or 'the file is empty; a header line is needed'}")
    names = [cell.strip() for cell in header]
    if names.count(column) != 1:
        times = "no column" if column not in names else "more than one column"
        raise BayesmatError(f"{path}: {times} {column!r}; its columns are {', '.join(names)}")
    return header, _rows(records, len(header), names.index(column))


def read_smi(path: str | Path) -> Iterator[Row]:
    """The lines of a .smi file as rows of two cells: a structure, and behind the first blank its name.

    Args:
        path: UTF-8, possibly with .gz; "-" for standard input.

    Raises:
        BayesmatError: the file cannot be read.
    """
    for number, line in enumerate(_lines(Path(path)), 1):
        text, _, name = line.strip().replace("\t", " ").partition(" ")
        reason = "" if text else "empty line"
        if text and not text.isascii() and readable(text) != text:
            reason = "not UTF-8 text"
        yield Row(number, [text, name.strip()], text, reason)


def readable(cell: str) -> str:
    r"""A cell with bytes that are not UTF-8 written as \xe9, so that it can be written to a file again."""
    if cell.isascii():
        return cell
    try:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, which no file but a program can give
        return cell.encode("utf-8", "backslashreplace").decode("utf-8")


def _lines(path: Path) -> Iterator[str]:
    """Lines, none longer than MAX_LINE characters: what is beyond is skipped, so that memory has a limit."""
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE):
                if len(line) == MAX_LINE and not line.endswith(_ENDS):
                    while (rest := file.readline(MAX_LINE)) and not rest.endswith(_ENDS):
                        pass
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise BayesmatError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _open(path: Path) -> IO[str]:
    options = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if str(path) == "-":
        return io.TextIOWrapper(sys.stdin.buffer, **options)  # type: ignore[arg-type]
    return gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options)  # type: ignore[call-overload]


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(number of the last line, cells, problem) of each record.

    Lines are joined to one record only where a quoted field spans them and the record then has as many cells as the
    header; otherwise the quote is a mistake, and each of the lines is a record of its own.
    """
    ahead: deque[str] = deque()  # lines that were looked at for the end of a quoted field
    number = width = 0
    while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
        ahead.appendleft(line)
        taken: list[str] = []
        cells, problem = _split(_some(ahead, lines, taken), delimiter)
        if len(taken) > 1 and (problem or (width and len(cells) != width)):
            ahead.extendleft(reversed(taken[1:]))
            taken, problem = taken[:1], OPEN
        if problem:
            cells = _split(iter([taken[0].rstrip("\r\n")]), delimiter, strict=False)[0]
            problem = "" if problem == STRAY else problem
        number += len(taken)
        width = width or len(cells)
        yield number, cells, problem


def _some(ahead: deque[str], lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """The next lines, as far as one record may reach; `taken` gets those that were asked for."""
    size = 0
    while len(taken) < MAX_RECORD_LINES and size < MAX_RECORD:
        line = ahead.popleft() if ahead else next(lines, None)
        if line is None:
            return
        taken.append(line)
        size += len(line)
        yield line


def _split(lines: Iterator[str], delimiter: str, strict: bool = True) -> tuple[list[str], str]:
    """The cells of the record that begins with the next line and "", or none and what is wrong."""
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=strict), []), ""
    except csv.Error as error:
        return [], OPEN if "unexpected end" in str(error) else LONG if "limit" in str(error) else STRAY


def _rows(records: Iterator[tuple[int, list[str], str]], width: int, column: int) -> Iterator[Row]:
    for line, cells, problem in records:
        reason = problem
        if len(cells) != width:
            reason = reason or (f"number of cells is {len(cells)}, the header has {width}" if cells else "empty line")
        cells = (cells + [""] * width)[:width]
        text = cells[column]
        if not reason and not text.isascii() and readable(text) != text:
            reason = "not UTF-8 text"
        yield Row(line, cells, text, reason)
