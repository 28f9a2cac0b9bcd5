"""What a library is: files of structures, a list of them, or draws of a prior; read as batches of numbered rows."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ... import data
from ..._types import BayesmatError
from ...prior import Neural, NGram

BATCH = 1024
"""Rows that are read, sent to a reader and set aside together."""
RAW = pa.schema(
    [
        ("row", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("name", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
    ]
)
"""A row of a library before it is read: its number from 1, where it stands, its structure as text, or why not."""
MAX_NAME, MAX_TEXT = 200, 2001
"""Characters of a name that are kept; of a structure, where one more than a reader takes tells it that it is long."""
_ENDINGS = (".smi", ".smiles", ".txt", ".csv", ".tsv", ".parquet")
_SAMPLE = 1 << 20


class Source(ABC):
    """A library that can be read once more from the beginning, with the same rows in the same order."""

    @abstractmethod
    def identity(self) -> Any:
        """What a resumed run compares, as JSON."""

    @abstractmethod
    def estimate(self) -> int | None:
        """About how many rows there are; None where nobody knows."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """(file, line, name, text, reason) of each row."""

    def batches(self, skip: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows behind the first `skip`, in batches of the schema `RAW`; at most 1,024 rows each."""
        rows = self.rows()
        for _, _ in zip(range(skip), rows, strict=False):
            pass
        taken: list[tuple] = []
        first = skip + 1
        for row in rows:
            taken.append(row)
            if len(taken) == BATCH:
                yield _raw(first, taken)
                first, taken = first + BATCH, []
        if taken:
            yield _raw(first, taken)


def _raw(first: int, rows: Sequence[tuple]) -> pa.RecordBatch:
    file, line, name, text, reason = zip(*rows, strict=True)
    columns = (
        np.arange(first, first + len(rows)),
        file,
        line,
        [_text(item, MAX_NAME) for item in name],
        [_text(item, MAX_TEXT) for item in text],
        [item or None for item in reason],
    )
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, RAW, strict=True)], schema=RAW)


def _text(value: str | None, limit: int) -> str | None:
    """A text that Arrow can hold."""
    return None if value is None else data.readable(value[:limit])


class Listed(Source):
    """Structures in memory.

    Args:
        smiles: the structures.
        names: of each, or None.
    """

    def __init__(self, smiles: Sequence[str], names: Sequence[str] | None = None):
        self.smiles = [str(text) for text in smiles]
        self.names = names

    def identity(self) -> Any:
        """See `Source`."""
        return ["list", len(self.smiles), zlib.crc32("\n".join(self.smiles).encode("utf-8", "surrogatepass"))]

    def estimate(self) -> int:
        """See `Source`."""
        return len(self.smiles)

    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """See `Source`."""
        for index, text in enumerate(self.smiles):
            yield None, index + 1, str(self.names[index]) if self.names else None, text, ""


class Drawn(Source):
    """Draws of a prior over molecular strings.

    Args:
        prior: from `prior.load`.
        num: how many.
        seed: the same gives the same molecules.
    """

    def __init__(self, prior: NGram | Neural, num: int, seed: int = 0):
        if num < 1:
            raise BayesmatError(f"{num} draws of the prior; 1 or more are needed")
        self.prior, self.num, self.seed = prior, num, seed

    def identity(self) -> Any:
        """See `Source`."""
        return ["prior", type(self.prior).__name__, self.num, self.seed]

    def estimate(self) -> int:
        """See `Source`."""
        return self.num

    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """See `Source`."""
        size = 4096
        draw = jax.jit(lambda key: self.prior.sample(key, (size,)))
        for start in range(0, self.num, size):
            tokens = np.asarray(draw(jax.random.fold_in(jax.random.key(self.seed), start // size)))
            for index, text in enumerate(self.prior.to_text(tokens)[: self.num - start], start + 1):
                yield None, index, None, text, ""


class Files(Source):
    """Files of structures.

    Args:
        paths: .smi (a structure, a blank, its name), .csv or .tsv with a header, .parquet; the text ones possibly with
            .gz; a folder stands for all such files in it, in the order of their names; "-" is standard input.
        smiles: header of the column of structures; a .smi file has none. Standard input is a table where it is given.
        name: header of a column that is carried along as the rows' names.

    Raises:
        BayesmatError: a path does not exist or has another ending, or a folder has no such file.
    """

    def __init__(self, paths: Sequence[str | Path], smiles: str | None = None, name: str | None = None):
        self.paths = [path for given in paths for path in _expanded(Path(given))]
        self.smiles, self.name = smiles, name
        for path in self.paths:
            if smiles is None and _kind(path, smiles) != "smi":
                raise BayesmatError(f"{path}: say which column has the structures; its columns are {_columns(path)}")

    def identity(self) -> Any:
        """See `Source`."""
        stats = [(path, path.stat()) for path in self.paths if str(path) != "-"]
        return ["files", self.smiles, self.name, [[path.name, s.st_size, s.st_mtime_ns] for path, s in stats]]

    def estimate(self) -> int | None:
        """See `Source`."""
        if any(str(path) == "-" for path in self.paths):
            return None
        return sum(_estimate(path) for path in self.paths)

    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """See `Source`."""
        for path in self.paths:
            kind = _kind(path, self.smiles)
            if kind == "parquet":
                yield from _parquet_rows(path, str(self.smiles), self.name)
                continue
            if kind == "smi":
                for row in data.read_smi(path):
                    yield path.name, row.line, row.cells[1], row.text, row.reason
                continue
            header, rows = data.read_rows(path, str(self.smiles))
            place = None if self.name is None else _place(path, [cell.strip() for cell in header], self.name)
            for row in rows:
                yield path.name, row.line, None if place is None else row.cells[place], row.text, row.reason


def _expanded(path: Path) -> list[Path]:
    if str(path) == "-":
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _ending(file) in _ENDINGS and not file.name.startswith("."))
        if not found:
            raise BayesmatError(f"{path}: no library in this folder; allowed are files in {', '.join(_ENDINGS)} (.gz)")
        return found
    if not path.exists():
        raise BayesmatError(f"{path}: there is no such file or folder")
    if _ending(path) not in _ENDINGS:
        raise BayesmatError(f"{path}: not a library; allowed are files in {', '.join(_ENDINGS)} (.gz) and folders")
    return [path]


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _kind(path: Path, smiles: str | None) -> str:
    if str(path) == "-":
        return "csv" if smiles else "smi"
    ending = _ending(path)
    return "smi" if ending in (".smi", ".smiles", ".txt") else "parquet" if ending == ".parquet" else "csv"


def _columns(path: Path) -> str:
    if _kind(path, "") == "parquet":
        return ", ".join(_parquet(path).schema_arrow.names)
    try:
        data.read_rows(path, "\0")  # no column is named so: the error lists them
    except BayesmatError as error:
        return str(error).rpartition("its columns are ")[2]
    return ""


def _place(path: Path, names: Sequence[str], column: str) -> int:
    if names.count(column) != 1:
        times = "no column" if column not in names else "more than one column"
        raise BayesmatError(f"{path}: {times} {column!r}; its columns are {', '.join(names)}")
    return names.index(column)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise BayesmatError(f"{path}: cannot be read as Parquet ({error})") from error


def _parquet_rows(path: Path, smiles: str, name: str | None) -> Iterator[tuple[str | None, int, str | None, str, str]]:
    file = _parquet(path)
    schema = file.schema_arrow
    wanted = [smiles] if name is None else [smiles, name]
    for column in wanted:
        _place(path, schema.names, column)
    kind = schema.field(smiles).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BayesmatError(f"{path}: column {smiles!r} has the type {kind}; structures are text")
    line = 0
    try:
        for batch in file.iter_batches(batch_size=4 * BATCH, columns=wanted):
            texts = batch.column(smiles).to_pylist()
            names = batch.column(name).to_pylist() if name is not None else [None] * len(texts)
            for text, label in zip(texts, names, strict=True):
                line += 1
                yield path.name, line, None if label is None else str(label), text or "", ""
    except (OSError, pa.ArrowException) as error:
        raise BayesmatError(f"{path}: cannot be read as Parquet behind row {line:,} ({error})") from error


def _estimate(path: Path) -> int:
    """Rows of a file: those of a Parquet file, else by the length of the first lines."""
    if _ending(path) == ".parquet":
        return _parquet(path).metadata.num_rows
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
    except OSError as error:
        raise BayesmatError(f"{path}: cannot be read ({error.strerror})") from error
    text = head
    if path.suffix.lower() == ".gz":
        try:
            text = zlib.decompressobj(wbits=31).decompress(head)
        except zlib.error as error:
            raise BayesmatError(f"{path}: cannot be read ({error})") from error
    return round(max(text.count(b"\n"), 1) * path.stat().st_size / max(len(head), 1))
