"""A Python function of SMILES as a factor: called on the host while the compiled program waits, once per molecule.

A program asks for the values of a whole batch of strings at once. Each is written as canonical SMILES; what is new
goes to the function in one list, the rest is answered from a cache. Nothing here may call JAX while a program waits:
the program can hold the only thread that would answer.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem
from .._types import Array, BayesmatError, over_batches
from ._conditions import Condition, Molecule

MAX_CACHED = 2**18
"""Molecules that a function on the host remembers, some 60 MB; the one asked for longest ago is forgotten first."""

MAX_WRITTEN = 2**16
"""Strings whose SMILES are remembered for all functions on the host together, some 30 MB."""

MAX_PART_BYTES = 2**16
"""Bytes of one array that a program hands to the host."""

MAX_REASONS = 20
"""Different reasons that are counted; an error whose message names the molecule would make one for each."""

PATIENCE = 64
"""A function that raises for every one of so many molecules, its first, is taken to be broken."""

_numbers = itertools.count(1)
_errors: list[BaseException] = []


@dataclass
class Tally:
    """What a function on the host was asked and what it cost.

    Attributes:
        asked: strings whose value a program asked for.
        scored: molecules that the function was asked about; the other strings were answered from the cache.
        calls: calls of the function.
        set_aside: molecules, or strings that are none, without a value, by reason.
        example: one of them by reason.
        function_seconds: wall time in the function.
        writing_seconds: wall time for writing canonical SMILES and looking them up.
    """

    asked: int = 0
    scored: int = 0
    calls: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    function_seconds: float = 0.0
    writing_seconds: float = 0.0

    @property
    def from_cache(self) -> int:
        """Strings answered from the cache, or with another string of the same molecule in the same batch."""
        return self.asked - self.scored

    @property
    def seconds(self) -> float:
        """All wall time on the host."""
        return self.function_seconds + self.writing_seconds

    def put_aside(self, example: str, reason: str) -> None:
        """Count a molecule that has no value."""
        if reason not in self.set_aside and len(self.set_aside) >= MAX_REASONS:
            reason = "other reasons"
        self.set_aside[reason] += 1
        self.example.setdefault(reason, example)


class HostFunction:
    """A function of canonical SMILES, asked once for each molecule; may be called by several threads.

    Args:
        function: see `Score`.
        name: what it is called in reports.
        vectorized: whether it takes a list.
        max_cached: molecules to remember.

    Attributes:
        tally: counts and times so far.
    """

    def __init__(self, function: Callable[..., Any], name: str, vectorized: bool = True, max_cached: int = MAX_CACHED):
        if not callable(function):
            raise BayesmatError(f"score {name!r}: {function!r} is not a function")
        if max_cached < 1:
            raise BayesmatError(f"score {name!r}: max_cached is {max_cached}; it must be positive")
        self.name, self.tally = name, Tally()
        self._function, self._vectorized, self._max_cached = function, vectorized, max_cached
        self._cache: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._answered = self._raised = 0
        self._number = next(_numbers)

    def __repr__(self) -> str:
        # Stands in the text of a traced program, by which compiled programs are told apart; no address in it, so that
        # it is the same in the next process.
        return f"<function on the host {self._number}: {self.name}>"

    def __call__(self, x: Array, wanted: Array, alphabet: chem.Alphabet) -> Array:
        """The value of a string `(length,)`, a scalar: NaN where it has none, 0 where it is not wanted."""
        if jnp.shape(x) != (alphabet.length,):
            raise BayesmatError(
                f"score {self.name!r} takes one string, of shape ({alphabet.length},), not {jnp.shape(x)}; map over "
                "several with jax.vmap"
            )
        dtype = np.dtype(jnp.result_type(float))
        if not isinstance(x, jax.core.Tracer) and not isinstance(wanted, jax.core.Tracer):
            rows = np.append(np.asarray(x), np.asarray(wanted))[None]
            return jnp.asarray(self._evaluate(alphabet, dtype, rows)[0])  # no program waits: errors arrive as they are
        token = jnp.uint8 if alphabet.num_tokens <= 256 else jnp.uint16
        row = jnp.append(x.astype(token), wanted.astype(token))
        return _called_in_batches(partial(self._answer, alphabet, dtype), dtype)(row)

    def _answer(self, alphabet: chem.Alphabet, dtype: np.dtype, *parts: Any) -> np.ndarray:
        """`_evaluate`, called by a program; what it raises is kept for `plain_errors`."""
        try:
            return self._evaluate(alphabet, dtype, np.concatenate([np.asarray(part) for part in parts]))
        except BaseException as error:
            _errors.append(error)
            raise

    def _evaluate(self, alphabet: chem.Alphabet, dtype: np.dtype, rows: np.ndarray) -> np.ndarray:
        """The values of strings, `(n,)`; `rows` is `(n, length + 1)`, with whether they are wanted at the end."""
        wanted, values = rows[:, -1] > 0, np.zeros(len(rows), dtype)
        with self._lock:  # several devices, or threads, may ask at the same time
            values[wanted] = self._values(rows[wanted, :-1], alphabet)
        return values

    def _values(self, rows: np.ndarray, alphabet: chem.Alphabet) -> list[float]:
        """The values of strings `(n, length)`."""
        start, before = time.perf_counter(), self.tally.function_seconds
        self.tally.asked += len(rows)
        written = [_canonical(row.tobytes(), alphabet) for row in rows.astype(np.int32)]
        known: dict[str | None, float] = {None: np.nan}
        for smiles, reason in written:
            if smiles is None:
                self.tally.put_aside("", reason)
            elif smiles in self._cache:
                self._cache.move_to_end(smiles)
                known[smiles] = self._cache[smiles]
        new = list(dict.fromkeys(smiles for smiles, _ in written if smiles is not None and smiles not in known))
        known.update(zip(new, self._score(new), strict=True))
        for smiles in new:
            self._cache[smiles] = known[smiles]
        while len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)
        self.tally.writing_seconds += time.perf_counter() - start - (self.tally.function_seconds - before)
        return [known[smiles] for smiles, _ in written]

    def _score(self, new: Sequence[str]) -> list[float]:
        """The values of molecules that are not remembered, NaN for those set aside."""
        self.tally.scored += len(new)
        if self._vectorized and new:
            try:
                results = self._called(list(new))
            except _FunctionError:
                pass  # one molecule spoils the list: each by itself
            else:
                return [self._number_of(result, smiles) for smiles, result in zip(new, results, strict=True)]
        return [self._number_of(self._one(smiles), smiles) for smiles in new]

    def _one(self, smiles: str) -> Any:
        """The value of one molecule as the function gives it, or the error that it raised."""
        try:
            return self._called([smiles])[0] if self._vectorized else self._timed(smiles)
        except _FunctionError as error:
            return error

    def _called(self, smiles: list[str]) -> list[Any]:
        results = self._timed(smiles)
        try:
            shape = (len(results),) if isinstance(results, list | tuple) else np.shape(results)
        except ValueError:
            shape = ()
        if shape != (len(smiles),):
            raise BayesmatError(
                f"score {self.name!r} got a list of {len(smiles)} SMILES and returned {type(results).__name__} of "
                f"shape {shape}; it must return {len(smiles)} numbers (or be declared with vectorized=False)"
            )
        return list(results)

    def _timed(self, argument: Any) -> Any:
        start = time.perf_counter()
        self.tally.calls += 1
        try:
            return self._function(argument)
        except Exception as error:  # what a user's function may raise is not ours to know; Ctrl-C passes
            raise _FunctionError(f"{type(error).__name__}: {error}"[:120]) from error
        finally:
            self.tally.function_seconds += time.perf_counter() - start

    def _number_of(self, result: Any, smiles: str) -> float:
        """The value as a number; NaN, counted with its reason, where it is none."""
        self._answered += 1
        if isinstance(result, _FunctionError):
            self._raised += 1
            if self._raised == self._answered == PATIENCE:
                raise BayesmatError(
                    f"score {self.name!r} raised an error for each of its first {self._raised} molecules; of the last, "
                    f"{smiles}: {result}"
                ) from result
            reason = str(result)
        else:
            reason = "returned None"
            if result is not None:
                try:
                    value = float(result)
                except (TypeError, ValueError):
                    reason = f"returned {type(result).__name__}"
                else:
                    if value < np.inf:  # -inf says: impossible
                        return value
                    reason = f"returned {value}"
        self.tally.put_aside(smiles, reason)
        return np.nan

    def share(self, run_seconds: float) -> float:
        """The share of a run's wall time that was spent on the host, in [0, 1] if all of it fell into that run."""
        if not run_seconds > 0:
            raise BayesmatError(f"run_seconds is {run_seconds}; it must be positive")
        return self.tally.seconds / run_seconds

    def report(self, run_seconds: float | None = None) -> str:
        """Counts and times as text; with the wall time of a run [s] also the share of it."""
        t = self.tally
        lines = [
            f"score            {self.name}",
            f"strings asked    {t.asked:,}, {t.from_cache:,} of them answered from the cache",
            f"scored           {t.scored:,} molecules in {t.calls:,} calls",
            f"seconds          {t.function_seconds:.3g} in the function, {t.writing_seconds:.3g} writing SMILES",
        ]
        if run_seconds is not None:
            lines.append(f"share            {self.share(run_seconds):.1%} of the run")
        return "\n".join([*lines, *(f"warning          {text}" for text in self.warnings())])

    def warnings(self) -> list[str]:
        """What was set aside, a sentence; nothing if every molecule had a value."""
        t = self.tally
        if not t.set_aside:
            return []
        reasons = "; ".join(
            f"{count:,} × {reason}" + (f" (such as {t.example[reason]})" if t.example[reason] else "")
            for reason, count in t.set_aside.most_common()
        )
        return [f"{t.set_aside.total():,} molecules have no {self.name!r} and were taken as impossible: {reasons}."]


class _FunctionError(Exception):
    """What a user's function raised, in a line."""


def _called_in_batches(answer: Callable[..., np.ndarray], dtype: np.dtype) -> Callable[[Array], Array]:
    """A function of one row that calls the host; under `jax.vmap`, once for the whole batch.

    The callback of JAX cannot be mapped as it is: it hands over arrays whose copy, above 100 KiB, waits for a thread
    that may be the one that waits for the callback (github.com/jax-ml/jax/issues/24255). So a batch goes over in parts.
    """

    def batch(rows: Array) -> Array:
        size = max(1, MAX_PART_BYTES // (rows.shape[1] * rows.dtype.itemsize))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return jax.pure_callback(answer, jax.ShapeDtypeStruct((len(rows),), dtype), *parts)

    return over_batches(batch)


@lru_cache(maxsize=MAX_WRITTEN)
def _canonical(row: bytes, alphabet: chem.Alphabet) -> tuple[str | None, str]:
    """Canonical SMILES of the int32 tokens in `row`, or None with the reason; once for all functions that ask."""
    try:
        return chem.canonical(chem.to_smiles(np.frombuffer(row, np.int32), alphabet)), ""
    except chem.RefusedError as error:
        return None, f"not a molecule: {error.reason}"
    except (IndexError, StopIteration):
        return None, "not a molecule: the grammar does not allow the string"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Around a run: what a function on the host raises inside a compiled program is raised as it was, not wrapped.

    >>> with plain_errors():
    ...     pass  # sampler.run(key)
    """
    _errors.clear()
    try:
        yield
    except jax.errors.JaxRuntimeError:
        if _errors:
            raise _errors[0] from None
        raise
    finally:
        _errors.clear()


class Score(Condition):
    """Any Python function of SMILES as a factor: RDKit, a service, a simulator.

    Called with the tokens of a molecule inside a NumPyro model it gives a number for `numpyro.factor`, also under
    `jax.jit` and `jax.vmap` and on several devices; among the `conditions` of `Inverse` it is such a factor. The
    function is asked once for each canonical molecule, as long as it is remembered. A molecule for which it raises, or
    gives None, NaN or +inf, is set aside: its score is -inf, and `warnings()` and `report()` say how many and why.
    A score of -inf is one too: impossible.

    A program waits while the function works, and Ctrl-C ends it when the program next returns to Python. The function
    must not call JAX: it would wait for the program that waits for it. It has no gradient.

    Args:
        function: from a list of canonical SMILES (no stereo marks, aromatic atoms in lower case) to as many numbers.
        alphabet: of the strings.
        name: what it is called in reports; None for the function's name.
        vectorized: False for a function of one SMILES that gives one number.
        max_cached: molecules to remember; beyond that, the one asked for longest ago is forgotten.

    Raises:
        BayesmatError: what is given is not a function; in use: the function returns another number of values than
            it was given molecules, or raises for every one of the first 64. Without `plain_errors` JAX wraps it in
            a JaxRuntimeError whose last line is the message.

    >>> import numpyro
    >>> from bayesmat import chem, prior
    >>> p_x = prior.load("organic")
    >>> score = Score(lambda smiles: [text.count("C") for text in smiles], p_x.alphabet, name="carbons")
    >>> def problem():  # for smc.SMC
    ...     x = numpyro.sample("molecule", p_x)
    ...     numpyro.factor("carbons", score(x))
    >>> tokens = chem.encode(["CCO", "OCC", "CCCC"], p_x.alphabet).tokens
    >>> jax.jit(jax.vmap(score))(tokens).tolist()
    [2.0, 2.0, 4.0]
    >>> score.tally.asked, score.tally.scored
    (3, 2)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        alphabet: chem.Alphabet,
        name: str | None = None,
        vectorized: bool = True,
        max_cached: int = MAX_CACHED,
    ):
        self.alphabet = alphabet
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        self.host = HostFunction(function, self.name, vectorized, max_cached)

    def __call__(self, x: Array) -> Array:
        """The score of one string `(length,)`, a scalar; -inf where the molecule was set aside."""
        return self.log_prob(Molecule(x, self.alphabet))

    def log_prob(self, molecule: Molecule) -> Array:
        """The score; 0 where it no longer matters."""
        value = self.host(molecule.tokens, molecule.wanted, molecule.alphabet)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def check(self, alphabet: chem.Alphabet) -> None:
        """Raise a BayesmatError if the alphabet is not the score's."""
        if alphabet != self.alphabet:
            raise BayesmatError(f"score {self.name!r} was made for another alphabet than the prior's")

    def text(self) -> str:
        """The condition in words."""
        return f"weighted by {self.name}"

    @property
    def hard(self) -> bool:
        """It may give any number."""
        return False

    @property
    def tally(self) -> Tally:
        """Counts and times so far."""
        return self.host.tally

    def share(self, run_seconds: float) -> float:
        """The share of a run's wall time [s] that was spent in the function and on the way to it."""
        return self.host.share(run_seconds)

    def report(self, run_seconds: float | None = None) -> str:
        """Counts and times as text; with the wall time of a run [s] also the share of it."""
        return self.host.report(run_seconds)

    def warnings(self) -> list[str]:
        """What was set aside, a sentence; nothing if every molecule had a score."""
        return self.host.warnings()
