"""Reading with all cores: processes of their own that may crash or stall over a row, and only that row is lost."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import pyarrow as pa

from ... import chem
from ..._types import BayesmatError
from ._encode import encode_batch

TIMEOUT, PART_TIMEOUT = 60.0, 6.0
"""Seconds for a batch, which takes half a second, and for a part of one that did not end in time or crashed."""
_MAX_MESSAGE = 1 << 30
"""Bytes; what claims to be longer is no message."""
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
        self._workers: set[_Worker] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._over = False

    def __enter__(self) -> Readers:
        if self._num:
            self._threads = ThreadPoolExecutor(self._num)
            for _ in range(self._num):
                self._free.put(None)  # started when it is needed
        return self

    def __exit__(self, *raised: object) -> None:
        if self._threads is not None:
            self._over = True
            for worker in tuple(self._workers):
                worker.kill()  # what it works on is not wanted any more
            self._threads.shutdown(cancel_futures=True)
            for worker in tuple(self._workers):
                self._stop(worker)

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
            while todo and not self._over:
                part, limit = todo.pop()
                worker = worker or self._start()
                made, why = worker.ask(part, limit)
                if made is not None:
                    parts.append(made)
                    continue
                self._stop(worker)
                worker = None
                if len(part) > 1:
                    half = len(part) // 2
                    todo += [(part.slice(half), PART_TIMEOUT), (part.slice(0, half), PART_TIMEOUT)]
                else:
                    place = part.schema.get_field_index("reason")
                    told = part.set_column(place, part.schema.field("reason"), pa.array([why], pa.string()))
                    parts.append(encode_batch(told, self._alphabet))
            return pa.concat_batches(parts) if parts else batch
        finally:
            self._free.put(worker)

    def _start(self) -> _Worker:
        worker = _Worker(self._command)
        self._workers.add(worker)
        if self._over:
            worker.kill()
        elif worker.call(json.dumps(self._alphabet.to_card()).encode(), 10 * TIMEOUT) != b"ready" and not self._over:
            raise BayesmatError("the processes that read structures do not start; use workers=0")
        return worker

    def _stop(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.close()


class _Worker:
    """One process."""

    def __init__(self, command: list[str]):
        # What a reader computes needs no device, and one of many threads would only be in the way of the others.
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        # In a session of its own Ctrl-C does not reach it, and so is not taken for a crash.
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def ask(self, batch: pa.RecordBatch, limit: float) -> tuple[pa.RecordBatch | None, str]:
        """The encoded batch, or None and what happened."""
        start = time.monotonic()
        answer = self.call(_packed(batch), limit)
        if answer is None:
            return None, STALLED if time.monotonic() - start >= limit else CRASHED
        return _unpacked(answer), ""

    def call(self, message: bytes | memoryview, limit: float) -> bytes | None:
        """What it answers; None if it ends before, which it must after `limit` seconds."""
        watch = threading.Timer(limit, self.kill)
        watch.start()
        try:
            _send(self._in, message)
            return _receive(self._out)
        except OSError:
            return None
        finally:
            watch.cancel()

    def kill(self) -> None:
        """End the process, from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and what belongs to it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):  # of what was not sent
                pipe.close()


def serve() -> None:
    """The body of a reader: batches from standard input, encoded ones to standard output, until the input ends."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    card = _receive(source)
    if card is None:
        return
    alphabet = chem.Alphabet.from_card(json.loads(card))
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        _send(sink, b"ready")
        while (message := _receive(source)) is not None:
            _send(sink, _packed(encode_batch(_unpacked(message), alphabet)))
    os._exit(0)  # without the end of libraries that were only imported


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


def _receive(file: IO[bytes]) -> bytes | None:
    """A message, or None where the other side has gone."""
    header = file.read(8)
    size = int.from_bytes(header, "little")
    if len(header) < 8 or size > _MAX_MESSAGE:
        return None
    message = file.read(size)
    return message if len(message) == size else None
