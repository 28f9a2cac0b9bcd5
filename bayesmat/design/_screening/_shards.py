"""Results on disk: numbered Parquet files of whole rows, and a manifest that says which are complete."""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..._types import BayesmatError, replacing

FORMAT = 1
MANIFEST = "manifest.json"
_HALF = re.compile(r"\.[a-z0-9_]{8}\.(parquet|json)")
"""What `replacing` leaves behind when it is killed."""


@dataclass(frozen=True)
class Counts:
    """What became of rows; every row is one of the three.

    Attributes:
        rows: of the library.
        scored: those with predictions.
        duplicates: molecules that an earlier row has.
        reasons: how many were set aside, by reason.
    """

    rows: int = 0
    scored: int = 0
    duplicates: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def set_aside(self) -> int:
        """Rows without predictions that are no duplicates."""
        return sum(self.reasons.values())

    def __add__(self, other: Counts) -> Counts:
        reasons = dict(Counter(self.reasons) + Counter(other.reasons))
        return Counts(self.rows + other.rows, self.scored + other.scored, self.duplicates + other.duplicates, reasons)

    def check(self) -> None:
        """Raise an error unless each row is accounted for once."""
        if self.rows != self.scored + self.duplicates + self.set_aside:
            raise BayesmatError(
                f"{self.rows:,} rows, but {self.scored:,} scored, {self.duplicates:,} duplicates and "
                f"{self.set_aside:,} set aside: the results are damaged; screen again into another folder"
            )


def count(tables: Sequence[pa.RecordBatch | pa.Table], scored: str) -> Counts:
    """Counts of finished rows; `scored` names the column that only scored rows have."""
    total = Counts()
    for table in tables:
        reasons: Counter[str] = Counter(text for text in table.column("reason").to_pylist() if text is not None)
        repeated = len(table) - table.column("duplicate_of").null_count
        total += Counts(len(table), len(table) - table.column(scored).null_count, repeated, dict(reasons))
    return total


class Shards:
    """A folder of results that a killed run leaves in order.

    A shard appears under its name only when it is complete, and counts only once the manifest lists it.

    Args:
        folder: made where it is missing.
        kind: "screened" or "encoded".
        plan: what the results depend on, as JSON; a run is resumed only with the same.
        schema: of the shards.
        resume: go on where there is a manifest; otherwise the folder must be empty.

    Raises:
        BayesmatError: the folder holds something else, results that were not to be resumed or of another plan, or
            nothing can be written there.
    """

    def __init__(self, folder: str | Path, kind: str, plan: Any, schema: pa.Schema, resume: bool):
        self.folder, self.schema = Path(folder), schema
        self.scored = "p_hit" if kind == "screened" else "tokens"
        plan = json.loads(json.dumps(plan))
        manifest = self.folder / MANIFEST
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = list(self.folder.iterdir())
        except OSError as error:
            raise BayesmatError(f"{self.folder}: nothing can be written there ({error.strerror})") from error
        halves = [path for path in held if _HALF.fullmatch(path.name)]
        others = set(held) - {*halves, manifest}
        if manifest in held and (others or resume):
            self._card = read_manifest(self.folder, kind)
            if not resume:
                raise BayesmatError(f"{self.folder} holds results; go on with --resume, or name another folder")
            if self._card["plan"] != plan:
                different = _different(self._card["plan"], plan)
                raise BayesmatError(f"{self.folder} holds results of another run: {different}; name another folder")
        elif others:
            raise BayesmatError(f"{self.folder} is not empty and holds no results; name another folder")
        else:
            self._card = {"format": FORMAT, "kind": kind, "complete": False, "plan": plan, "shards": []}
            self._write_manifest()
        for path in halves:
            path.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether all rows of the library are there."""
        return bool(self._card["complete"])

    @property
    def counts(self) -> Counts:
        """Of all shards."""
        return card_counts(self._card)

    def paths(self) -> list[Path]:
        """The complete shards in order."""
        return [self.folder / shard["name"] for shard in self._card["shards"]]

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write the next shard.

        Raises:
            BayesmatError: it cannot be written, such as on a full disk; the run can be resumed.
        """
        name = part_name(len(self._card["shards"]))
        store(self.folder / name, batches, self.schema)
        with writing(self.folder):
            self.listed(name, count(batches, self.scored))

    def listed(self, name: str, counts: Counts) -> None:
        """Enter a complete file into the manifest."""
        size = (self.folder / name).stat().st_size
        entry = {"name": name, "bytes": size, "rows": counts.rows, "scored": counts.scored}
        entry |= {"duplicates": counts.duplicates, "reasons": dict(counts.reasons)}
        self._card["shards"].append(entry)
        self._write_manifest()

    def finish(self) -> None:
        """Say that these are all rows, after a check."""
        self.counts.check()
        self._card["complete"] = True
        self._write_manifest()

    def _write_manifest(self) -> None:
        with writing(self.folder), replacing(self.folder / MANIFEST) as partial:
            partial.write_text(json.dumps(self._card, indent=1), encoding="utf-8")


def part_name(index: int) -> str:
    """What the shard of a number, from 0, is called."""
    return f"part-{index:06d}.parquet"


def store(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Rows as a Parquet file, which appears once it is complete.

    Raises:
        BayesmatError: it cannot be written, such as on a full disk.
    """
    with writing(path.parent), replacing(path) as partial:
        pq.write_table(pa.Table.from_batches(batches, schema), partial, compression="zstd")


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of results.

    Raises:
        BayesmatError: there is none, it is damaged, of another kind or version, or a file that it lists is missing or
            was cut short.
    """
    try:
        card = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = [card["kind"], card["format"]]
        shards = {str(shard["name"]): int(shard["bytes"]) for shard in card["shards"]}
        sound = card_counts(card).rows >= 0 and isinstance(card["complete"], bool) and isinstance(card["plan"], dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BayesmatError(f"{folder} holds no {kind} library, or its manifest is damaged ({error})") from error
    if not sound or found != [kind, FORMAT]:
        raise BayesmatError(f"{folder}: its manifest is of another kind or version than '{kind}', {FORMAT}")
    for name, size in shards.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise BayesmatError(f"{folder}: {name} is missing; screen again into another folder")
        if path.stat().st_size != size:
            raise BayesmatError(f"{path}: damaged, it has not the {size:,} bytes of the manifest; screen again "
                                "into another folder")  # fmt: skip
    return card


def read_batches(
    paths: Sequence[Path], columns: Sequence[str] | None = None, size: int = 8192
) -> Iterator[pa.RecordBatch]:
    """The rows of shards, in batches.

    Raises:
        BayesmatError: a shard is damaged.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=size, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise BayesmatError(f"{path}: damaged ({error}); screen again into another folder") from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns errors of the file system into a clear end."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
        raise BayesmatError(f"{folder}: {what}; what is complete is kept: go on with --resume") from error


def card_counts(card: dict[str, Any]) -> Counts:
    """Of all shards of a manifest."""
    return sum((_counts(shard) for shard in card["shards"]), Counts())


def _counts(shard: dict[str, Any]) -> Counts:
    return Counts(int(shard["rows"]), int(shard["scored"]), int(shard["duplicates"]), dict(shard["reasons"]))


def _different(old: Any, new: Any) -> str:
    """Which entries of two plans differ, in words."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"other {name.replace('_', ' ')}" for name in names)
