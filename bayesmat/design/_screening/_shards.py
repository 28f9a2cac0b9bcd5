"""Results on disk: numbered Parquet files of whole rows, and a manifest that says which are complete."""

from __future__ import annotations

import errno
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..._types import BayesmatError, replacing

FORMAT = 1
MANIFEST = "manifest.json"


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
            for left in self.folder.glob(".*"):
                left.unlink()  # halves of files of a run that was killed
        except OSError as error:
            raise BayesmatError(f"{self.folder}: nothing can be written there ({error.strerror})") from error
        if manifest.exists():
            self._card = read_manifest(self.folder, kind)
            if not resume:
                raise BayesmatError(f"{self.folder} holds results; go on with --resume, or name another folder")
            if self._card["plan"] != plan:
                different = _different(self._card["plan"], plan)
                raise BayesmatError(f"{self.folder} holds results of another run: {different}; name another folder")
        elif any(self.folder.iterdir()):
            raise BayesmatError(f"{self.folder} is not empty and holds no results; name another folder")
        else:
            self._card = {"format": FORMAT, "kind": kind, "complete": False, "plan": plan, "shards": []}
            self._write_manifest()

    @property
    def complete(self) -> bool:
        """Whether all rows of the library are there."""
        return bool(self._card["complete"])

    @property
    def counts(self) -> Counts:
        """Of all shards."""
        return sum((_counts(shard) for shard in self._card["shards"]), Counts())

    def paths(self) -> list[Path]:
        """The complete shards in order."""
        return [self.folder / shard["name"] for shard in self._card["shards"]]

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write the next shard.

        Raises:
            BayesmatError: it cannot be written, such as on a full disk; the run can be resumed.
        """
        name = f"part-{len(self._card['shards']):06d}.parquet"
        with writing(self.folder):
            with replacing(self.folder / name) as partial:
                pq.write_table(pa.Table.from_batches(batches, self.schema), partial, compression="zstd")
            self.listed(name, count(batches, self.scored))

    def listed(self, name: str, counts: Counts) -> None:
        """Enter a complete file into the manifest."""
        entry = {"name": name, "rows": counts.rows, "scored": counts.scored, "duplicates": counts.duplicates}
        self._card["shards"].append(entry | {"reasons": dict(counts.reasons)})
        self._write_manifest()

    def finish(self) -> None:
        """Say that these are all rows, after a check."""
        self.counts.check()
        self._card["complete"] = True
        with writing(self.folder):
            self._write_manifest()

    def _write_manifest(self) -> None:
        with writing(self.folder), replacing(self.folder / MANIFEST) as partial:
            partial.write_text(json.dumps(self._card, indent=1), encoding="utf-8")


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of results.

    Raises:
        BayesmatError: there is none, it is damaged, of another kind or version, or a file that it lists is missing.
    """
    try:
        card = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sound = card["format"] == FORMAT and card["kind"] == kind and "plan" in card and "complete" in card
        sound = sound and all(_counts(shard) is not None for shard in card["shards"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BayesmatError(f"{folder} holds no {kind} library, or a damaged one ({error})") from error
    if not sound:
        raise BayesmatError(f"{folder}: its manifest is of another kind or version than '{kind}', {FORMAT}")
    for shard in card["shards"]:
        if Path(shard["name"]).name != shard["name"] or not (folder / shard["name"]).is_file():
            raise BayesmatError(f"{folder}: {shard['name']} is missing; screen again into another folder")
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


def _counts(shard: dict[str, Any]) -> Counts:
    return Counts(int(shard["rows"]), int(shard["scored"]), int(shard["duplicates"]), dict(shard["reasons"]))


def _different(old: Any, new: Any) -> str:
    """Which entries of two plans differ, in words."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"other {name.replace('_', ' ')}" for name in names)


def finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
