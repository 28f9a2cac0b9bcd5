"""A library against a design target: read, drop what is there twice, predict, write; or go on where it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
from tqdm.auto import tqdm

from ... import chem
from ..._types import BayesmatError
from ...forward import Fitted
from .._targets import Interval
from ._encode import encoded_schema, mark_duplicates
from ._readers import Readers
from ._results import result_schema, score_batches
from ._score import Scorer
from ._seen import Seen, hashes
from ._shards import Counts, Shards, card_counts, read_batches, read_manifest
from ._sources import BATCH, Files, Listed, Source

ENGINES = ("process", "ray")
SHARD_ROWS = 65_536
"""Rows of a shard: what a killed run does again."""
FEW = 5_000
"""Rows below which starting other processes takes longer than reading them here."""


class Encoded:
    """A library that `encode_library` made.

    Args:
        folder: where it is.

    Raises:
        BayesmatError: it is none, is not complete, or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        card = read_manifest(self.folder, "encoded")
        if not card["complete"]:
            raise BayesmatError(f"{self.folder} is not complete; go on with `bayesmat encode … --resume`")
        try:
            self.alphabet = chem.Alphabet.from_card(card["plan"]["alphabet"])
        except (KeyError, TypeError, ValueError) as error:
            raise BayesmatError(f"{self.folder}: its manifest is damaged ({error})") from error
        self.paths = [self.folder / shard["name"] for shard in card["shards"]]
        self.rows = [int(shard["rows"]) for shard in card["shards"]]
        self._plan = card["plan"]

    def check(self, alphabet: chem.Alphabet) -> None:
        """Raise an error if the library is of another alphabet."""
        if self.alphabet != alphabet:
            raise BayesmatError(f"{self.folder} was encoded for other models; encode it with --model of this one")

    def identity(self) -> Any:
        """What a resumed run compares, as JSON."""
        return ["encoded", self._plan, sum(self.rows)]

    def estimate(self) -> int:
        """The number of rows."""
        return sum(self.rows)

    def batches(self, skip: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows behind the first `skip`."""
        first = 0
        while first < len(self.paths) and skip >= self.rows[first]:
            skip -= self.rows[first]
            first += 1
        for batch in read_batches(self.paths[first:], size=BATCH):
            if skip < len(batch):
                yield batch.slice(skip)
            skip = max(skip - len(batch), 0)


Library = Source | Encoded | str | Path | Sequence[str]
Batches = Generator[pa.RecordBatch, None, None]


def as_library(library: Library, smiles: str | None = None, name: str | None = None) -> Source | Encoded:
    """What can be screened, from a path, several paths, a list of SMILES, a `Source` or an `Encoded`.

    Raises:
        BayesmatError: a path does not exist, or is no library; see `Files`.
    """
    if isinstance(library, Source | Encoded):
        return library
    if isinstance(library, str | Path):
        if (Path(library) / "manifest.json").is_file():
            return Encoded(library)
        return Files([library], smiles, name)
    items = list(library)
    if items and all(isinstance(item, Path) for item in items):
        return Files(items, smiles, name)
    return Listed(items)


def screen(
    library: Library,
    predictors: Mapping[str, Fitted] | Sequence[Fitted],
    targets: Mapping[str, Interval],
    *,
    smiles: str | None = None,
    name: str | None = None,
    workers: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """What models say of every row of a library, as it is read; memory does not grow with the library.

    Args:
        library: a path (.smi, .csv, .tsv, .parquet, a folder of these, an encoded library), a list of such `Path`s, a
            list of SMILES, or `Drawn` from a prior.
        predictors: fits, by the names that targets use; a list is taken by the fits' own names.
        targets: what is wanted, by name.
        smiles: header of the column of structures, for tables.
        name: header of a column to carry along.
        workers: processes that read; None for as many as there are cores if there are more than 5,000 rows, and none
            below. With 0, a structure that crashes RDKit ends this process.

    Returns:
        Batches with the schema of `result_schema`: each row of the library once, in order, with its predictions, the
        first row of the same molecule, or the reason why it was set aside.

    Raises:
        BayesmatError: the library cannot be read, or models and targets do not fit together.
    """
    source, scorer = _prepared(library, smiles, name, predictors, targets, workers)
    return results(source, scorer, workers=workers)  # not a generator itself, so that errors come at once


def _prepared(
    library: Library,
    smiles: str | None,
    name: str | None,
    predictors: Mapping[str, Fitted] | Sequence[Fitted],
    targets: Mapping[str, Interval],
    workers: int | None,
) -> tuple[Source | Encoded, Scorer]:
    """What is screened and by what, checked before anything is written."""
    num_workers(workers, 0)
    source, scorer = as_library(library, smiles, name), Scorer(by_name(predictors), targets)
    if isinstance(source, Encoded):
        source.check(scorer.alphabet)
    return source, scorer


def results(
    source: Source | Encoded,
    scorer: Scorer,
    skip: int = 0,
    seen: Seen | None = None,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
) -> Batches:
    """The screened rows behind the first `skip`, which are whole shards."""
    with closing(encoded(source, scorer.alphabet, skip, seen, workers)) as batches:
        yield from score_batches(batches, scorer, result_schema(scorer), shard_rows)


def encoded(
    source: Source | Encoded,
    alphabet: chem.Alphabet,
    skip: int = 0,
    seen: Seen | None = None,
    workers: int | None = None,
) -> Batches:
    """The encoded rows behind the first `skip`, duplicates marked."""
    if isinstance(source, Encoded):
        yield from source.batches(skip)
        return
    seen = Seen() if seen is None else seen
    with Readers(alphabet, num_workers(workers, source.estimate())) as readers:
        for batch in readers.read(source.batches(skip)):
            yield mark_duplicates(batch, seen)


def screen_to(
    folder: str | Path,
    library: Library,
    predictors: Mapping[str, Fitted] | Sequence[Fitted],
    targets: Mapping[str, Interval],
    *,
    smiles: str | None = None,
    name: str | None = None,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
    resume: bool = False,
    engine: str = "process",
) -> Counts:
    """`screen` with its rows written to a folder as Parquet shards, which a killed run leaves in order.

    Args:
        folder: for the shards and their manifest.
        library: see `screen`.
        predictors: see `screen`.
        targets: see `screen`.
        smiles: see `screen`.
        name: see `screen`.
        workers: see `screen`; with Ray also how many predict, and None is for one to read on each core and one to
            predict on each GPU, or on each machine where there are none.
        shard_rows: rows of a shard: what a killed run does again.
        resume: go on where a run with the same library, models and targets ended, with either engine.
        engine: "process" for this one, or "ray" for the Ray cluster that was initialised, that `RAY_ADDRESS` names,
            or that is begun here; all its machines must see `folder`, and an encoded library, under the same path.

    Returns:
        What became of the rows.

    Raises:
        BayesmatError: see `screen` and `Shards`; the library has no rows; Ray is not installed, or workers die over
            a shard again and again.
    """
    if engine not in ENGINES:
        raise BayesmatError(f"engine {engine!r}; allowed are {', '.join(ENGINES)}")
    from . import _ray  # it stands above this module

    if engine == "ray":
        _ray.imported()  # before anything is written
    source, scorer = _prepared(library, smiles, name, predictors, targets, workers)
    shard_rows = _whole(shard_rows)
    shards = Shards(folder, "screened", plan(source, scorer, shard_rows), result_schema(scorer), resume)
    if not shards.complete and engine == "ray":
        _ray.screen_with_ray(shards, source, scorer, shard_rows, workers)
    elif not shards.complete:
        done = shards.counts.rows
        seen = restored(shards) if not isinstance(source, Encoded) else None
        rows = results(source, scorer, done, seen, workers, shard_rows)
        write(shards, rows, source.estimate(), shard_rows, "screening")
    shutil.rmtree(shards.folder / _ray.WORK, ignore_errors=True)  # of a run with Ray that another one ended
    return shards.counts


def encode_library(
    folder: str | Path,
    library: Library,
    alphabet: chem.Alphabet,
    *,
    smiles: str | None = None,
    name: str | None = None,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
    resume: bool = False,
) -> Counts:
    """Read a library once: `screen` then takes the folder at the speed of the device.

    Args:
        folder: for the encoded library.
        library: see `screen`.
        alphabet: that of the models.
        smiles: see `screen`.
        name: see `screen`.
        workers: see `screen`.
        shard_rows: see `screen_to`.
        resume: see `screen_to`.

    Returns:
        What became of the rows; those with tokens count as scored.

    Raises:
        BayesmatError: see `screen_to`.
    """
    source = as_library(library, smiles, name)
    num_workers(workers, 0)
    if isinstance(source, Encoded):
        raise BayesmatError(f"{source.folder} is encoded already")
    shard_rows = _whole(shard_rows)
    card = {"alphabet": alphabet.to_card(), "library": source.identity(), "shard_rows": shard_rows}
    shards = Shards(folder, "encoded", card, encoded_schema(alphabet), resume)
    if not shards.complete:
        rows = encoded(source, alphabet, shards.counts.rows, restored(shards), workers)
        write(shards, rows, source.estimate(), shard_rows, "encoding")
    return shards.counts


def plan(source: Source | Encoded, scorer: Scorer, shard_rows: int) -> dict[str, Any]:
    """What the results of a run depend on, as JSON."""
    return {"library": source.identity(), **models_and_targets(scorer), "shard_rows": shard_rows}


def models_and_targets(scorer: Scorer) -> dict[str, Any]:
    """The part of a plan that is not the library."""
    return {
        "models": {name: fit.fingerprint for name, fit in scorer.fits.items()},
        "targets": {name: [repr(target.lower), repr(target.upper)] for name, target in scorer.targets.items()},
    }


def _whole(shard_rows: int) -> int:
    """Rows of a shard made of whole batches: a resumed run then predicts in the same batches, with the same bits."""
    if shard_rows < 1:
        raise BayesmatError(f"shard_rows is {shard_rows}; a shard has one row or more")
    return -(-shard_rows // BATCH) * BATCH


def write(shards: Shards, batches: Batches, estimate: int | None, shard_rows: int, what: str) -> None:
    """Write rows to shards of equal size, with a bar that says how long it will take."""
    pending: list[pa.RecordBatch] = []
    held = 0
    with progress(what, shards.counts.rows, estimate) as bar, closing(batches):
        for batch in batches:
            bar.update(len(batch))
            pending.append(batch)
            held += len(batch)
            while held >= shard_rows:
                pending, rest = _cut(pending, shard_rows)
                shards.add(pending)
                pending, held = rest, held - shard_rows
    if held:
        shards.add(pending)
    if not shards.counts.rows:
        raise BayesmatError("the library has no rows")
    shards.finish()


def progress(what: str, done: int, estimate: int | None) -> tqdm:
    """A bar that counts rows and says how long it will take."""
    total = None if estimate is None else max(estimate, done)
    return tqdm(total=total, initial=done, desc=what, unit="row", unit_scale=True, delay=2, leave=False)


def restored(shards: Shards) -> Seen:
    """The molecules of complete shards."""
    seen = Seen(shards.folder)
    for batch in read_batches(shards.paths(), ["row", "smiles", "duplicate_of"]):
        batch = batch.filter(pa.compute.and_(batch["smiles"].is_valid(), batch["duplicate_of"].is_null()))
        seen.add(hashes(batch.column("smiles").to_pylist()), batch.column("row").to_numpy())
    return seen


def finished(folder: Path, scorer: Scorer) -> tuple[list[Path], Counts]:
    """The shards of a complete screening, and what became of its rows.

    Raises:
        BayesmatError: there is none, it is not complete, or was made with other models or targets.
    """
    card = read_manifest(folder, "screened")
    if not card["complete"]:
        raise BayesmatError(f"{folder} is not complete; go on with --resume")
    if {name: card["plan"].get(name) for name in ("models", "targets")} != models_and_targets(scorer):
        raise BayesmatError(f"{folder} was made with other models or targets")
    counts = card_counts(card)
    counts.check()
    return [folder / shard["name"] for shard in card["shards"]], counts


def by_name(predictors: Mapping[str, Fitted] | Sequence[Fitted]) -> dict[str, Fitted]:
    """Models by the names that targets use.

    Raises:
        BayesmatError: two have one name.
    """
    if isinstance(predictors, Mapping):
        return dict(predictors)
    names = [fit.name for fit in predictors]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BayesmatError(f"two models are of {', '.join(sorted(twice))}; give them names: {{name: model, …}}")
    return dict(zip(names, predictors, strict=True))


def num_workers(workers: int | None, rows: int | None) -> int:
    """Processes for so many rows.

    Raises:
        BayesmatError: the number that is wanted is negative.
    """
    if workers is not None:
        if workers < 0:
            raise BayesmatError(f"workers is {workers}; allowed are 0, to read in this process, and more")
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if rows is None or rows > FEW else 0


def _cut(batches: list[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """The first `rows` rows, and the others."""
    taken: list[pa.RecordBatch] = []
    for index, batch in enumerate(batches):
        if len(batch) >= rows:
            rest = [batch.slice(rows)] if len(batch) > rows else []
            return [*taken, batch.slice(0, rows)], [*rest, *batches[index + 1 :]]
        taken.append(batch)
        rows -= len(batch)
    return taken, []
