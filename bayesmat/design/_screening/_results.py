"""Encoded rows → rows with predictions, in Arrow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ... import chem
from ._encode import tokens_of
from ._score import FIELDS, Scorer
from ._sources import BATCH

GROUP = 64
"""Batches that are scored together."""

NOT_A_NUMBER = "the prediction is not a number"


def result_schema(scorer: Scorer) -> pa.Schema:
    """What a screened row looks like.

    `row` (from 1), `file`, `line` and `name` say which it is, `smiles` is canonical; `p_hit` and all numbers are null
    unless the row was scored; `duplicate_of` is the first row of the same molecule; `reason` says why a row was set
    aside, and `text` is then the beginning of what stood there. Units of a property are in its columns' metadata.
    """
    columns = [pa.field(name, pa.string()) for name in ("file", "name", "smiles")]
    columns = [pa.field("row", pa.int64()), columns[0], pa.field("line", pa.int64()), *columns[1:]]
    columns += [pa.field("p_hit", pa.float32()), pa.field("applicability", pa.float32())]
    for name, fit in scorer.fits.items():
        for field in FIELDS:
            if field != "p_target" or name in scorer.targets:
                unit = "1" if field in ("p_target", "applicability") else fit.unit
                columns.append(pa.field(f"{name}_{field}", pa.float32(), metadata={"unit": unit}))
    columns += [pa.field("duplicate_of", pa.int64()), pa.field("reason", pa.string()), pa.field("text", pa.string())]
    return pa.schema(columns)


def score_batches(
    batches: Iterable[pa.RecordBatch], scorer: Scorer, schema: pa.Schema, shard_rows: int
) -> Iterator[pa.RecordBatch]:
    """Encoded batches with what the models say; a row that they cannot judge gets a reason.

    Several batches are scored together, so that strings of one width fill whole blocks. No such group goes over the end
    of a shard: a resumed run and another engine have the same groups, and so the same bits.

    Args:
        batches: encoded, of 1,024 rows but for the last, from the beginning of a shard on.
        scorer: of the models.
        schema: of the results.
        shard_rows: rows of a shard, a multiple of 1,024.
    """
    together = max(size for size in range(1, GROUP + 1) if (shard_rows // BATCH) % size == 0)
    rest = iter(batches)
    while group := list(itertools.islice(rest, together)):
        tokens, usable = zip(*(tokens_of(batch, scorer.alphabet) for batch in group), strict=True)
        found = scorer(np.concatenate(tokens))
        start = 0
        for batch, rows in zip(group, usable, strict=True):
            part = {name: column[start : start + len(rows)] for name, column in found.items()}
            start += len(rows)
            yield _with_scores(batch, rows, part, scorer, schema)


def _with_scores(
    batch: pa.RecordBatch, usable: np.ndarray, found: dict[str, np.ndarray], scorer: Scorer, schema: pa.Schema
) -> pa.RecordBatch:
    """A batch with the columns `found` of its rows `usable`."""
    scored = np.zeros(len(batch), bool)
    reasons = batch.column("reason")
    if len(usable):
        sound = np.logical_and.reduce([np.isfinite(found[name]) for name in found if name in schema.names])
        scored[usable] = sound & found["fits"]
        if not scored[usable].all():
            why = reasons.to_pylist()
            for index, fits, fine in zip(usable, found["fits"], sound, strict=True):
                if not (fits and fine):
                    why[index] = NOT_A_NUMBER if fits else chem.does_not_fit(scorer.alphabet)
            reasons = pa.array(why, pa.string())
    columns = {"reason": reasons}
    empty = pa.nulls(len(batch), pa.float32())
    for field in schema:
        if field.name in found:
            whole = np.zeros(len(batch), np.float32)
            whole[usable] = found[field.name]
            columns[field.name] = pa.array(whole, mask=~scored)
        elif field.name not in columns:
            columns[field.name] = batch.column(field.name) if field.name in batch.schema.names else empty
    return pa.record_batch([columns[field.name] for field in schema], schema=schema)
