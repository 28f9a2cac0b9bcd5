"""Ground floor: the names that every layer shares, and nothing that knows chemistry or statistics."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import jax
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


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar on standard error once two seconds have passed; quiet below that."""
    return iter(tqdm(items, desc=description, total=total, delay=2.0, leave=False, dynamic_ncols=True))
