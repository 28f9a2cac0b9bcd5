"""Islands on several hosts: who runs which, and how all get the results."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .._types import BayesmatError
from ._run import Island
from ._tempered import Status


def checked_islands(islands: int) -> int:
    """The number of islands.

    Raises:
        BayesmatError: the hosts cannot share them evenly.
    """
    if islands % jax.process_count():
        raise BayesmatError(f"{islands} islands cannot be shared evenly by {jax.process_count()} processes")
    return islands


def my_islands(islands: int) -> list[int]:
    """The islands that this process runs."""
    return list(range(jax.process_index(), islands, jax.process_count()))


def gathered(found: list[Island], most: int) -> list[Island]:
    """The islands of all processes, in order, on every process.

    Args:
        found: those of this process.
        most: rows of diagnostics that an island may have; shapes must agree on the way.
    """
    num = jax.process_count()
    if num == 1:
        return found
    from jax.experimental import multihost_utils

    everyone = [multihost_utils.process_allgather(_packed(island, most)) for island in found]
    return [_unpacked(jax.tree.map(lambda leaf, p=p: leaf[p], turn)) for turn in everyone for p in range(num)]


def _packed(island: Island, most: int) -> dict[str, Any]:
    count = len(island.info.beta)
    info = jax.tree.map(
        lambda leaf: np.concatenate([leaf, np.zeros((most - count, *leaf.shape[1:]), leaf.dtype)]), island.info
    )
    whole = jax.tree.map(np.asarray, (island.state, island.prior, info, island.tuning))
    return {"island": whole, "count": np.int32(count), "status": np.int32(island.status)}


def _unpacked(packed: dict[str, Any]) -> Island:
    (state, prior, info, tuning), count = packed["island"], int(packed["count"])
    return Island(state, prior, jax.tree.map(lambda leaf: leaf[:count], info), Status(int(packed["status"])), tuning)
