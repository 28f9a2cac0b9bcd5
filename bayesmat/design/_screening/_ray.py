"""Screening with the machines of a Ray cluster: shards are the units of work, and Ray Data hands them out.

All that passes between processes are files, each of which appears only when it is complete, so that a shard can be
done again at any time: after a worker died, by two workers at once, or after the driver itself was killed. What a
worker does to a shard is what one process does to it, in the same batches: results have the same bits.
"""

from __future__ import annotations

import abc
import faulthandler
import functools
import importlib
import itertools
import json
import logging
import os
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ... import chem, forward
from ..._types import BayesmatError
from .._targets import Interval
from ._encode import encode_batch, encoded_schema, mark_duplicates
from ._readers import TIMEOUT, Readers
from ._results import result_schema, score_batches
from ._score import Scorer
from ._screen import Encoded, num_workers, progress, restored
from ._seen import Seen, hashes
from ._shards import Counts, Shards, count, part_name, read_batches, store, writing
from ._sources import BATCH, RAW, Source

WORK = "_work"
"""Folder of what a run still needs, inside that of the results; those who read a folder pass over such a name."""
MAX_TRIES = 10
"""Workers that may die over a shard; machines are lost by chance, but hardly so often."""
_STORE = 200 << 20
"""Bytes of the memory that Ray's processes share where none is running; nothing but numbers passes through it."""
_HASH, _AGAIN = pa.field("hash", pa.binary(16)), pa.schema([("row", pa.int64()), ("duplicate_of", pa.int64())])


def imported() -> Any:
    """The module `ray`.

    Raises:
        BayesmatError: it is not installed.
    """
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise BayesmatError(f"engine 'ray' needs Ray ({error}): pip install 'bayesmat[ray]'") from error


def screen_with_ray(
    shards: Shards, source: Source | Encoded, scorer: Scorer, shard_rows: int, workers: int | None
) -> None:
    """Fill a folder of results, which all machines must see under the same path.

    This process numbers the rows, finds those that are there twice and lists finished shards; workers read structures
    and predict. It uses the Ray that the caller initialised, else the cluster that `RAY_ADDRESS` names, else this
    machine.

    Args:
        shards: to fill; what it lists is not done again.
        source: of the rows; an encoded library is of the scorer's alphabet.
        scorer: of the models, which reach the workers as saved fits.
        shard_rows: rows of a shard, a multiple of 1,024.
        workers: processes that read, and then that predict; None for one to read on each core, and one to predict on
            each GPU, or on each machine where there are none.

    Raises:
        BayesmatError: a library, a model or a file cannot be read or written, fewer than one worker is asked for, or
            workers die over a shard again and again.
    """
    if workers is not None and workers < 1:
        raise BayesmatError(f"{workers} workers; engine 'ray' needs one or more")
    work = shards.folder.resolve() / WORK
    with writing(shards.folder):
        work.mkdir(exist_ok=True)
        for left in work.glob("tries-*"):
            left.unlink()  # those of a killed run say nothing about this one
    for index, fit in enumerate(scorer.fits.values()):
        forward.save(fit, work / f"model-{index}")
    done = len(shards.paths())
    if isinstance(source, Encoded):
        todo = range(done, -(-source.estimate() // shard_rows))
    else:
        todo = range(done, _write_raw(source, work, done, shard_rows))
    if todo:
        with _connected(workers) as ray:
            if not isinstance(source, Encoded):
                _read_structures(ray, shards, work, todo, scorer.alphabet, shard_rows, workers)
            _predict(ray, shards, work, todo, source, scorer, shard_rows, workers)
    if not shards.counts.rows:
        raise BayesmatError("the library has no rows")
    shards.finish()


def _write_raw(source: Source, work: Path, done: int, rows: int) -> int:
    """The library as numbered pieces of text; gives how many there are."""
    index = done
    while _piece(work, "raw", index).is_file():
        index += 1  # of a run that was killed
    batches = source.batches(index * rows)
    with progress("reading", index * rows, source.estimate()) as bar:
        while taken := list(itertools.islice(batches, rows // BATCH)):
            store(_piece(work, "raw", index), taken, RAW)
            bar.update(sum(map(len, taken)))
            index += 1
    return index


def _read_structures(
    ray: Any, shards: Shards, work: Path, todo: range, alphabet: chem.Alphabet, rows: int, workers: int | None
) -> None:
    """Raw pieces → encoded ones, and beside each the rows of it that are there twice."""
    held = {path.name for path in work.iterdir()}  # a shared file system remembers for a while what it was asked for
    left = [index for index in todo if _piece(work, "encoded", index).name not in held]
    size = workers or int(ray.cluster_resources().get("CPU", 1))
    made = {"work": str(work), "alphabet": alphabet.to_card()}
    needs = {"num_cpus": 1, "runtime_env": {"env_vars": {"JAX_PLATFORMS": "cpu"}}}
    answers = _answers(ray, left, _Reader, made, size, needs)
    seen, pending = restored(shards), set(left)
    with progress("encoding", todo.start * rows, todo.stop * rows) as bar:
        for index in todo:
            if index in pending:
                next(answers)
            _find_duplicates(work, index, seen)
            bar.update(rows)


def _find_duplicates(work: Path, index: int, seen: Seen) -> None:
    rows, found = [], []
    for batch in read_batches([_piece(work, "encoded", index)], ["row", "hash"]):
        rows.append(batch.column("row").to_numpy())
        found.append(np.frombuffer(b"".join(batch.column("hash").to_pylist()), "<u8").reshape(-1, 2))
    usable = np.concatenate(found).any(axis=1)  # a row without a molecule has no hash
    row = np.concatenate(rows)[usable]
    first = seen.add(np.concatenate(found)[usable], row)
    again = first != row
    batch = pa.record_batch([pa.array(row[again]), pa.array(first[again])], schema=_AGAIN)
    store(_piece(work, "again", index), [batch], _AGAIN)


def _predict(
    ray: Any,
    shards: Shards,
    work: Path,
    todo: range,
    source: Source | Encoded,
    scorer: Scorer,
    rows: int,
    workers: int | None,
) -> None:
    """Encoded pieces, or slices of an encoded library → results, which are listed in order."""
    library = str(source.folder.resolve()) if isinstance(source, Encoded) else None
    targets = {name: [target.lower, target.upper] for name, target in scorer.targets.items()}
    made = {"work": str(work), "names": list(scorer.fits), "targets": targets, "encoded": library, "rows": rows}
    gpus = int(ray.cluster_resources().get("GPU", 0))
    machines = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
    # A process on a GPU must not take nearly all of its memory: this one's models may be there too.
    free = {"env_vars": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}}
    needs = {"num_gpus": 1, "runtime_env": free} if gpus else {"num_cpus": 1}
    answers = _answers(ray, todo, _Predictor, made, workers or gpus or max(machines, 1), needs)
    with progress("screening", shards.counts.rows, source.estimate()) as bar:
        for index, answer in answers:
            counts = Counts(**answer)
            shards.listed(part_name(index), counts)
            bar.update(counts.rows)


def _piece(work: Path, kind: str, index: int) -> Path:
    return work / f"{kind}-{index:06d}.parquet"


@contextmanager
def _connected(workers: int | None) -> Iterator[Any]:
    """Ray, quiet; what was running before keeps running."""
    ray = imported()
    ours = not ray.is_initialized()
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        if ours:
            _begin(ray, workers)
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise BayesmatError(f"Ray gave up ({error}); what is complete is kept: go on with --resume") from error
    finally:
        log.setLevel(level)
        if ours:
            ray.shutdown()


def _begin(ray: Any, workers: int | None) -> None:
    """Join the cluster that the environment names, or begin one of this machine that tells nobody."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"include_dashboard": False, "object_store_memory": _STORE, "num_cpus": num_workers(workers, None)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork", RuntimeWarning)  # JAX's: what Ray forks soon becomes Ray
        ray.init("local", **own, **quiet)


def _answers(
    ray: Any, todo: Sequence[int], kind: type[_Worker], made_with: dict[str, Any], size: int, needs: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What workers say of each shard, in the order of the shards, as early as possible.

    Args:
        ray: the module.
        todo: the shards, ascending.
        kind: of worker.
        made_with: plain arguments to make one.
        size: workers at most.
        needs: what Ray has to find for each.

    Raises:
        BayesmatError: a worker has reported one.
    """
    if not todo:
        return
    pool = ray.data.ActorPoolStrategy(size=min(size, len(todo)), max_tasks_in_flight_per_actor=1)
    items = ray.data.from_items(list(todo), override_num_blocks=len(todo))
    results = items.map(kind, fn_constructor_kwargs=made_with, compute=pool, **needs)
    results.context.enable_progress_bars = False  # of this data set alone
    early: dict[int, dict[str, Any]] = {}
    expected = iter(todo)
    wanted = next(expected)
    for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
        for index, text in zip(batch["item"], batch["answer"], strict=True):
            answer = json.loads(str(text))
            if "error" in answer:
                raise BayesmatError(answer["error"])
            early[int(index)] = answer
        while wanted in early:
            yield wanted, early.pop(wanted)
            wanted = next(expected, -1)


class _Worker(abc.ABC):
    """Does shards, one after the other, in a process that Ray starts again when it dies."""

    def __init__(self, work: str):
        self.work = Path(work)

    @abc.abstractmethod
    def do(self, index: int, tried: int) -> dict[str, Any]:
        """The answer for a shard that this is the `tried`-th worker to do."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The answer to a row of Ray Data; errors travel as text, since Ray would wrap them."""
        index = int(row["item"])
        tries = self.work / f"tries-{index:06d}"
        try:
            if not self.work.is_dir():
                where = f"{self.work.parent} is not there on {platform.node()}"
                raise BayesmatError(f"{where}; all machines of the cluster must see it under this path")
            with writing(self.work.parent), tries.open("a") as file:
                file.write(".")
                tried = file.tell()
            if tried > MAX_TRIES:
                raise BayesmatError(f"shard {index}: {MAX_TRIES} workers died over it; is there too little memory?")
            answer = self.do(index, tried)
        except BayesmatError as error:
            answer = {"error": str(error)}
        tries.unlink(missing_ok=True)
        return {"item": index, "answer": json.dumps(answer)}


class _Reader(_Worker):
    """Reads structures; where that ended the process, then in one of its own, which finds the row."""

    def __init__(self, work: str, alphabet: dict[str, Any]):
        super().__init__(work)
        self._alphabet = chem.Alphabet.from_card(alphabet)

    def do(self, index: int, tried: int) -> dict[str, Any]:
        raw = read_batches([_piece(self.work, "raw", index)], size=BATCH)
        batches = []
        for batch in self._careless(raw) if tried == 1 else self._careful(raw):
            found = hashes(batch.column("smiles").to_pylist()).tobytes()
            column = pa.Array.from_buffers(_HASH.type, len(batch), [None, pa.py_buffer(found)])
            batches.append(batch.append_column(_HASH, column))
        store(_piece(self.work, "encoded", index), batches, encoded_schema(self._alphabet).append(_HASH))
        return {}

    def _careless(self, raw: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in raw:
            faulthandler.dump_traceback_later(TIMEOUT, exit=True)  # RDKit, where it stalls, lets no thread of ours run
            made = encode_batch(batch, self._alphabet)
            faulthandler.cancel_dump_traceback_later()
            yield made

    def _careful(self, raw: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with Readers(self._alphabet, 1) as readers:
            yield from readers.read(raw)


class _Predictor(_Worker):
    """Predicts; it reads the models once, and compiles once."""

    def __init__(self, work: str, names: list[str], targets: dict[str, list[float]], encoded: str | None, rows: int):
        super().__init__(work)
        self._names, self._targets, self._encoded, self._rows = names, targets, encoded, rows

    @functools.cached_property
    def _scorer(self) -> Scorer:
        fits = {name: forward.load(self.work / f"model-{index}") for index, name in enumerate(self._names)}
        return Scorer(fits, {name: Interval(*limits) for name, limits in self._targets.items()})

    @functools.cached_property
    def _library(self) -> Encoded:
        return Encoded(str(self._encoded))

    def do(self, index: int, tried: int) -> dict[str, Any]:
        schema = result_schema(self._scorer)
        batches = list(score_batches(self._batches(index), self._scorer, schema, self._rows))
        store(self.work.parent / part_name(index), batches, schema)
        return vars(count(batches, "p_hit"))

    def _batches(self, index: int) -> Iterator[pa.RecordBatch]:
        if self._encoded is not None:
            yield from itertools.islice(self._library.batches(index * self._rows), self._rows // BATCH)
            return
        marked = _Marked(_piece(self.work, "again", index))
        for batch in read_batches([_piece(self.work, "encoded", index)], size=BATCH):
            yield mark_duplicates(batch, marked)


class _Marked(Seen):
    """What was found by another process, in the place of all molecules met before."""

    def __init__(self, path: Path):
        self._first: dict[int, int] = {}
        for batch in read_batches([path]):
            self._first |= dict(zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def add(self, found: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Seen`."""
        return np.asarray([self._first.get(row, row) for row in rows.tolist()], np.int64)
