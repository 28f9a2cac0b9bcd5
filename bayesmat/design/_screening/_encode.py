"""Rows of text → molecules as tokens, with the reason for each that is none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ... import chem
from ._seen import Seen, hashes

MAX_KEPT_TEXT = 200
"""Characters that are kept of a structure that could not be read."""


def encoded_schema(alphabet: chem.Alphabet) -> pa.Schema:
    """What a library looks like once it was read; `tokens` are null where there is a reason or a first row."""
    return pa.schema(
        [
            ("row", pa.int64()),
            ("file", pa.string()),
            ("line", pa.int64()),
            ("name", pa.string()),
            ("smiles", pa.string()),
            ("tokens", pa.binary(alphabet.length)),
            ("duplicate_of", pa.int64()),
            ("reason", pa.string()),
            ("text", pa.string()),
        ]
    )


def encode_batch(raw: pa.RecordBatch, alphabet: chem.Alphabet) -> pa.RecordBatch:
    """A batch of `RAW` rows read; duplicates are not looked for yet."""
    reasons = raw.column("reason").to_pylist()
    texts = raw.column("text").to_pylist()
    wanted = [index for index, reason in enumerate(reasons) if reason is None]
    found = chem.read([texts[index] or "" for index in wanted], alphabet)
    smiles: list[str | None] = [None] * len(texts)
    tokens: list[bytes | None] = [None] * len(texts)
    for index, canonical, row, reason in zip(wanted, found.smiles, found.tokens, found.reasons, strict=True):
        reasons[index] = reason
        if reason is None:
            smiles[index], tokens[index] = canonical, row.tobytes()
    kept = [None if reason is None else text[:MAX_KEPT_TEXT] for reason, text in zip(reasons, texts, strict=True)]
    empty = [None] * len(texts)
    same = [raw.column(name) for name in ("row", "file", "line", "name")]
    made = [pa.array(column, pa.string()) for column in (smiles, reasons, kept)]
    columns = [*same, made[0], pa.array(tokens, pa.binary(alphabet.length)), pa.array(empty, pa.int64()), *made[1:]]
    return pa.record_batch(columns, schema=encoded_schema(alphabet))


def mark_duplicates(batch: pa.RecordBatch, seen: Seen) -> pa.RecordBatch:
    """The batch with the first row of each molecule that was met before; its tokens are dropped.

    Args:
        batch: encoded, behind all batches before.
        seen: the molecules met so far; those of the batch are added.
    """
    usable = np.flatnonzero(np.asarray(batch.column("reason").is_null()))
    rows = batch.column("row").to_numpy()[usable]
    smiles = batch.column("smiles").take(pa.array(usable)).to_pylist()
    first = seen.add(hashes(smiles), rows)
    again = first != rows
    if not again.any():
        return batch
    duplicate_of = np.zeros(len(batch), np.int64)
    duplicate_of[usable[again]] = first[again]
    repeated = duplicate_of > 0
    tokens = pa.compute.if_else(pa.array(repeated), None, batch.column("tokens"))
    batch = batch.set_column(batch.schema.get_field_index("tokens"), batch.schema.field("tokens"), tokens)
    column = pa.array(duplicate_of, pa.int64(), mask=~repeated)
    return batch.set_column(batch.schema.get_field_index("duplicate_of"), batch.schema.field("duplicate_of"), column)


def tokens_of(batch: pa.RecordBatch, alphabet: chem.Alphabet) -> tuple[np.ndarray, np.ndarray]:
    """Tokens `(m, length)` uint8 of the rows that have any, and the indices `(m,)` of these."""
    column = batch.column("tokens")
    usable = np.flatnonzero(np.asarray(column.is_valid()))
    if not len(usable):
        return np.zeros((0, alphabet.length), np.uint8), usable
    start = column.offset * alphabet.length
    data = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(batch) * alphabet.length]
    return data.reshape(len(batch), alphabet.length)[usable], usable
