"""Ground floor: the names that every layer shares, and nothing that knows chemistry or statistics."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from tqdm.auto import tqdm

Array = jax.Array
T = TypeVar("T")


class BayesmatError(ValueError):
    """Input that bayesmat cannot work with; the message names what was wrong and what is allowed."""


def cache_dir() -> Path:
    """The folder of everything that is computed once: `BAYESMAT_CACHE`, else the user's cache folder.

    It is created when missing. Deleting it is always safe: what was in it is computed again.
    """
    root = os.environ.get("BAYESMAT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(root) if root else base / "bayesmat"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well: no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well.

    Raises:
        BayesmatError: nothing can be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BayesmatError(f"{folder} cannot be written ({error.strerror})") from error
    try:
        yield partial
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def over_batches(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays `(n, ...)` as one of single entries, which `jax.vmap` turns into the former.

    For what works on a batch as a whole. A second `jax.vmap` joins both axes; arrays that are not mapped over are
    repeated.
    """
    return functools.partial(over_batches_sharing(lambda _, *arrays: function(*arrays)), None)


def over_batches_sharing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`over_batches` of a function whose first argument is a pytree that all entries share, such as weights.

    Raises:
        BayesmatError: when called, if that argument is mapped over.
    """

    def spread(size: int, in_batched: Sequence[bool], arrays: tuple[Array, ...]) -> list[Array]:
        pairs = zip(arrays, in_batched, strict=True)
        return [array if batched else jnp.broadcast_to(array, (size, *array.shape)) for array, batched in pairs]

    def mapped(out: Any) -> tuple[Any, Any]:
        return out, jax.tree.map(lambda _: True, out)

    def check(shared: Any) -> None:
        if any(jax.tree.leaves(shared)):
            raise BayesmatError("what all entries of a batch share cannot be mapped over")

    @custom_vmap
    def one(shared: Any, *arrays: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], batch(shared, *(array[None] for array in arrays)))

    @custom_vmap
    def batch(shared: Any, *arrays: Array) -> Any:
        return function(shared, *arrays)

    @one.def_vmap
    def many(axis_size: int, in_batched: list[Any], shared: Any, *arrays: Array) -> tuple[Any, Any]:
        check(in_batched[0])
        return mapped(batch(shared, *spread(axis_size, in_batched[1:], arrays)))

    @batch.def_vmap
    def batches(axis_size: int, in_batched: list[Any], shared: Any, *arrays: Array) -> tuple[Any, Any]:
        check(in_batched[0])
        rows = spread(axis_size, in_batched[1:], arrays)
        flat = batch(shared, *(array.reshape(-1, *array.shape[2:]) for array in rows))
        return mapped(jax.tree.map(lambda leaf: leaf.reshape(*rows[0].shape[:2], *leaf.shape[1:]), flat))

    return one


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name.

    The one place where stored arrays are read. Numbers and text only: an array of Python objects, which is what could
    execute something, is refused unread.

    Raises:
        BayesmatError: there is no such file, or it is not one of plain arrays.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BayesmatError(f"{path} cannot be read as plain arrays ({error})") from error


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar on standard error once two seconds have passed; quiet below that."""
    return iter(tqdm(items, desc=description, total=total, delay=2.0, leave=False, dynamic_ncols=True))
