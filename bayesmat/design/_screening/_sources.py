"""What a library is: files of structures, a list of them, or draws of a prior; read as batches of numbered rows."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
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

    Raises:
        BayesmatError: there are more or fewer names than structures.
    """

    def __init__(self, smiles: Sequence[str], names: Sequence[str] | None = None):
        self.smiles = [str(text) for text in smiles]
        self.names = None if names is None else [str(name) for name in names]
        if self.names is not None and len(self.names) != len(self.smiles):
            raise BayesmatError(f"{len(self.names):,} names of {len(self.smiles):,} structures")

    def identity(self) -> Any:
        """See `Source`."""
        parts = ["\n".join(texts).encode("utf-8", "surrogatepass") for texts in (self.smiles, self.names or [])]
        return ["list", len(self.smiles), *map(zlib.crc32, parts)]

    def estimate(self) -> int:
        """See `Source`."""
        return len(self.smiles)

    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """See `Source`."""
        for index, text in enumerate(self.smiles):
            yield None, index + 1, None if self.names is None else self.names[index], text, ""


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
        digest = zlib.crc32(json.dumps(self.prior.alphabet.to_card()).encode())
        for leaf in jax.tree.leaves(self.prior):
            digest = zlib.crc32(np.asarray(leaf).tobytes(), digest)
        return ["prior", type(self.prior).__name__, digest, self.num, self.seed]

    def estimate(self) -> int:
        """See `Source`."""
        return self.num

    def rows(self) -> Iterator[tuple[str | None, int, str | None, str, str]]:
        """See `Source`."""
        for start in range(0, self.num, _DRAWS):
            tokens = np.asarray(_draw(self.prior, jax.random.fold_in(jax.random.key(self.seed), start // _DRAWS)))
            for index, text in enumerate(self.prior.to_text(tokens)[: self.num - start], start + 1):
                yield None, index, None, text, ""


_DRAWS = 4096
_draw = eqx.filter_jit(lambda prior, key: prior.sample(key, (_DRAWS,)))


class Files(Source):
    """Files of structures.

    Args:
        paths: .smi (a structure, a blank, its name), .csv or .tsv with a header, .parquet; the text ones possibly with
            .gz; a folder stands for all such files in it, in the order of their names; "-" is standard input.
        smiles: header of the column of structures; a .smi file has none. Standard input is a table where it is given.
        name: header of a column that is carried along as the rows' names.

    Raises:
        BayesmatError: a path does not exist or has another ending, a folder has no such file, or a table cannot be
            read or lacks a column.
    """

    def __init__(self, paths: Sequence[str | Path], smiles: str | None = None, name: str | None = None):
        self.paths = [path for given in paths for path in _expanded(Path(given))]
        self.smiles, self.name = smiles, name
        for path in self.paths:  # better now than behind a million rows
            kind = _kind(path, smiles)
            if str(path) == "-" or kind == "smi":
                continue
            if smiles is None:
                raise BayesmatError(f"{path}: say which column has the structures; its columns are {_columns(path)}")
            if kind == "parquet":
                _parquet_with(path, smiles, name)
            else:
                _table(path, smiles, name)

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
            place, rows = _table(path, str(self.smiles), self.name)
            for row in rows:
                yield path.name, row.line, None if place is None else row.cells[place], row.text, row.reason


def _expanded(path: Path) -> list[Path]:
    if str(path) == "-":
        return [path]
    try:
        if path.is_dir():
            names = [file for file in path.iterdir() if not file.name.startswith(".") and file.is_file()]
            if found := sorted(file for file in names if _ending(file) in _ENDINGS):
                return found
            raise BayesmatError(f"{path}: no library in this folder; allowed are files in {', '.join(_ENDINGS)} (.gz)")
        if not path.exists():
            raise BayesmatError(f"{path}: there is no such file or folder")
    except OSError as error:
        raise BayesmatError(f"{path}: cannot be read ({error.strerror})") from error
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


def _table(path: Path, smiles: str, name: str | None) -> tuple[int | None, Iterator[data.Row]]:
    """Where the names are, and the rows."""
    header, rows = data.read_rows(path, smiles)
    return None if name is None else _place(path, [cell.strip() for cell in header], name), rows


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


def _parquet_with(path: Path, smiles: str, name: str | None) -> tuple[pq.ParquetFile, list[str]]:
    """The file, and the columns that are read of it."""
    file = _parquet(path)
    schema = file.schema_arrow
    wanted = [smiles] if name is None else [smiles, name]
    for column in wanted:
        _place(path, schema.names, column)
    kind = schema.field(smiles).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BayesmatError(f"{path}: column {smiles!r} has the type {kind}; structures are text")
    return file, wanted


def _parquet_rows(path: Path, smiles: str, name: str | None) -> Iterator[tuple[str | None, int, str | None, str, str]]:
    file, wanted = _parquet_with(path, smiles, name)
    line = 0
    try:
        for batch in file.iter_batches(batch_size=4 * BATCH, columns=wanted):
            texts = _values(batch.column(smiles))
            names = [None] * len(texts) if name is None else _values(batch.column(name))
            for text, label in zip(texts, names, strict=True):
                line += 1
                reason = "not UTF-8 text" if text and data.readable(text) != text else ""
                yield path.name, line, None if label is None else str(label), text or "", reason
    except (OSError, pa.ArrowException) as error:
        raise BayesmatError(f"{path}: cannot be read as Parquet behind row {line:,} ({error})") from error


def _values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # a Parquet file does not prove that its text is UTF-8
        texts = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        found = [text.as_buffer() for text in texts]
        return [None if text is None else text.to_pybytes().decode("utf-8", "surrogateescape") for text in found]


def _estimate(path: Path) -> int:
    """Rows of a file: those of a Parquet file, else by the length of the first lines."""
    if _ending(path) == ".parquet":
        return _parquet(path).metadata.num_rows
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
    except OSError as error:
        raise BayesmatError(f"{path}: cannot be read ({error.strerror})") from error
    text, used = head, len(head)
    if path.suffix.lower() == ".gz":
        packed = zlib.decompressobj(wbits=31)
        try:
            text = packed.decompress(head, 16 * _SAMPLE)
        except zlib.error as error:
            raise BayesmatError(f"{path}: cannot be read ({error})") from error
        used -= len(packed.unused_data) + len(packed.unconsumed_tail)
    return round(max(text.count(b"\n"), 1) * path.stat().st_size / max(used, 1))
