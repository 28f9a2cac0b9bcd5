"""A user's own measurements from a CSV file."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from .._types import BayesmatError
from ..chem import canonicalize
from ._table import PropertyTable


def from_csv(
    path: str | Path, smiles_column: str, target_column: str, unit: str, name: str | None = None
) -> PropertyTable:
    """A table from a CSV file with a header line; rows that cannot be used are set aside, counted and listed.

    Several rows of one canonical structure become their median. Line numbers in `bad_rows` count from 1 at the header,
    as an editor shows them (a record that spans lines is named by its last).

    Args:
        path: the file, UTF-8, comma separated.
        smiles_column: header of the structures.
        target_column: header of the measured values.
        unit: unit of the values, "1" for pure numbers.
        name: of the property; the header of the values when not given.

    Raises:
        BayesmatError: the file cannot be read, a column is missing, or no row is usable.
    """
    rows = _read(Path(path), smiles_column, target_column)
    canonical = canonicalize([smiles for _, smiles, _ in rows])
    bad: list[tuple[int, str]] = []
    good: list[tuple[str, float]] = []
    for (line, _, text), smiles, reason in zip(rows, canonical.smiles, canonical.reasons, strict=True):
        value = _number(text)
        if smiles is None:
            bad.append((line, str(reason)))
        elif not math.isfinite(value):
            bad.append((line, "no value" if not text.strip() else "value is not a finite number"))
        else:
            good.append((smiles, value))
    dropped = dict(Counter(reason for _, reason in bad).most_common())
    if not good:
        raise BayesmatError(f"{path}: none of {len(rows)} rows is usable: {dropped or 'the file has only a header'}")
    groups = pd.DataFrame(good, columns=["smiles", "value"]).groupby("smiles", sort=True)["value"]
    y = groups.median()
    return PropertyTable(
        name=name or target_column,
        label=(name or target_column).replace("_", " "),
        unit=unit,
        smiles=tuple(y.index),
        y=y.to_numpy(np.float64, copy=True),
        num_sources=np.ones(len(y), dtype=np.int64),
        num_values=groups.size().to_numpy(np.int64, copy=True),
        names=("",) * len(y),
        sources=(str(path),),
        rule="median over the rows of one canonical structure",
        num_read=len(rows),
        dropped=dropped,
        bad_rows=tuple(bad),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read(path: Path, smiles_column: str, target_column: str) -> list[tuple[int, str, str]]:
    """(line number, SMILES, value as text) of each row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_records(csv.reader(file), path, smiles_column, target_column))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BayesmatError(f"cannot read {path}: {error}") from error


def _records(reader: Iterator[list[str]], path: Path, *columns: str) -> Iterator[tuple[int, str, str]]:
    header = [cell.strip() for cell in next(reader, [])]
    for column in columns:
        if column not in header:
            raise BayesmatError(f"{path} has no column {column!r}; its columns are {header}")
    first, second = (header.index(column) for column in columns)
    for row in reader:
        if row:
            row = row + [""] * (len(header) - len(row))  # a short row lacks its last cells, which is a named reason
            yield reader.line_num, row[first], row[second]  # type: ignore[attr-defined]
