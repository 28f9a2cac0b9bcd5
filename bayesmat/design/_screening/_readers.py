"""Reading with all cores: processes of their own that may crash or stall over a row, and only that row is lost."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import pyarrow as pa

from ... import chem
from ..._types import BayesmatError
from ._encode import encode_batch

TIMEOUT = 60.0
"""Seconds for a batch, which takes half a second; a part of a batch that did not end in time gets a tenth."""
CRASHED = "the reader crashed on it"
STALLED = "took too long to read"


class Readers:
    """Processes that turn batches of raw rows into encoded ones; a context manager.

    They are started as commands and spoken to in Arrow's stream format: nothing is pickled, and a script without a
    `__main__` guard can use them.

    Args:
        alphabet: to write in.
        num: processes; 0 to read in this one, without protection from crashes.
        command: what is run; for tests.
    """

    def __init__(self, alphabet: chem.Alphabet, num: int, command: list[str] | None = None):
        self._alphabet, self._num = alphabet, num
        self._command = command or [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Readers:
        if self._num:
            self._threads = ThreadPoolExecutor(self._num)
            for _ in range(self._num):
                self._free.put(None)  # started when it is needed
        return self

    def __exit__(self, *raised: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            for _ in range(self._num):
                if (worker := self._free.get()) is not None:
                    worker.stop()

    def read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The encoded batches in order; a few are read ahead."""
        if self._threads is None:
            for batch in batches:
                yield encode_batch(batch, self._alphabet)
            return
        ahead: deque[Future] = deque()
        for batch in batches:
            ahead.append(self._threads.submit(self._one, batch))
            if len(ahead) > 4 * self._num:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _one(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        worker = self._free.get()
        try:
            parts = []
            todo = [(batch, TIMEOUT)]
            while todo:
                part, limit = todo.pop()
                worker = worker or _Worker(self._command, self._alphabet)
                made, why = worker.ask(part, limit)
                if made is not None:
                    parts.append(made)
                    continue
                worker.stop()
                worker = None
                if len(part) > 1:
                    half = len(part) // 2
                    todo += [(part.slice(half), TIMEOUT / 10), (part.slice(0, half), TIMEOUT / 10)]
                else:
                    place = part.schema.get_field_index("reason")
                    told = part.set_column(place, part.schema.field("reason"), pa.array([why], pa.string()))
                    parts.append(encode_batch(told, self._alphabet))
            return pa.concat_batches(parts)
        finally:
            self._free.put(worker)


class _Worker:
    """One process."""

    def __init__(self, command: list[str], alphabet: chem.Alphabet):
        # What a reader computes needs no device, and one of many threads would only be in the way of the others.
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._started = False
        _send(self._in, json.dumps(alphabet.to_card()).encode())

    def ask(self, batch: pa.RecordBatch, limit: float) -> tuple[pa.RecordBatch | None, str]:
        """The encoded batch, or None and what happened."""
        try:
            if not self._started:
                if _receive(self._out, time.monotonic() + 10 * TIMEOUT) != b"ready":
                    raise BayesmatError("the processes that read structures do not start; use workers=0")
                self._started = True
            _send(self._in, _packed(batch))
            answer = _receive(self._out, time.monotonic() + limit)
        except TimeoutError:
            return None, STALLED
        except OSError:
            answer = None
        return (None, CRASHED) if answer is None else (_unpacked(answer), "")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()


def serve() -> None:
    """The body of a reader: batches from standard input, encoded ones to standard output, until the input ends."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    card = _receive(source)
    if card is None:
        return
    alphabet = chem.Alphabet.from_card(json.loads(card))
    _send(sink, b"ready")
    while (message := _receive(source)) is not None:
        _send(sink, _packed(encode_batch(_unpacked(message), alphabet)))


def _packed(batch: pa.RecordBatch) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _unpacked(message: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(message) as reader:
        return reader.read_next_batch()


def _send(file: IO[bytes], message: bytes | memoryview) -> None:
    file.write(len(message).to_bytes(8, "little"))
    file.write(message)
    file.flush()


def _receive(file: IO[bytes], deadline: float | None = None) -> bytes | None:
    """A message, or None where the other side has gone.

    Raises:
        TimeoutError: the deadline passed.
    """
    header = _exactly(file, 8, deadline)
    return None if header is None else _exactly(file, int.from_bytes(header, "little"), deadline)


def _exactly(file: IO[bytes], size: int, deadline: float | None) -> bytes | None:
    parts, left = [], size
    while left:
        if deadline is not None and not select.select([file], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise TimeoutError
        part = os.read(file.fileno(), min(left, 1 << 20))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
