"""Ground floor: the names that every layer shares, and nothing that knows chemistry or statistics."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar on standard error once two seconds have passed; quiet below that."""
    return iter(tqdm(items, desc=description, total=total, delay=2.0, leave=False, dynamic_ncols=True))
