"""Checkpoints: the state of a run after each temperature, as arrays and a card, in one file that is never half written.

Only arrays and JSON are stored; nothing in the file is executed when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._types import BayesmatError, read_arrays, replacing


def fingerprint(text: str, arrays: Iterable[Any], settings: Any) -> str:
    """A hash of everything that decides a run: the program, its data, its settings."""
    values = [np.ascontiguousarray(array) for array in arrays]
    data = sorted(hashlib.sha256(f"{v.dtype}{v.shape}".encode() + v.tobytes()).hexdigest() for v in values)
    return hashlib.sha256(f"{text}\n{data}\n{settings}".encode()).hexdigest()


def save(path: Path, tree: Any, card: dict[str, Any]) -> None:
    """Write the leaves of a tree, and a card of plain values."""
    leaves: dict[str, Any] = {f"leaf{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    with replacing(path) as partial:
        np.savez(partial, card=np.array(json.dumps(card)), **leaves)


def load(path: Path, like: Any, expected: str) -> tuple[Any, dict[str, Any]]:
    """Read what `save` wrote.

    Args:
        path: the file.
        like: a tree of the same structure.
        expected: the fingerprint of the run that wants to go on.

    Raises:
        BayesmatError: the file cannot be read, or belongs to another run.
    """
    try:
        found = read_arrays(path)
        card = json.loads(str(found.pop("card")))
        leaves = [found[name] for name in sorted(found)]
    except (ValueError, KeyError) as error:
        raise BayesmatError(
            f"{path} is no checkpoint of a sampler ({error}); delete it or run without resume"
        ) from error
    if card.get("fingerprint") != expected or len(leaves) != len(jax.tree.leaves(like)):
        raise BayesmatError(
            f"{path} belongs to another run: its model, data, key or settings differ; choose another folder, or run "
            "without resume to overwrite it"
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves), card
