"""What every layer uses: the one reader of stored arrays, and functions of batches under `jax.vmap`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmat._types import BayesmatError, over_batches, over_batches_sharing, read_arrays


class Command:
    """What a hostile file holds: unpickled, it runs a command that leaves a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def object_npz(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, good=np.arange(3), bad=np.array([Command(mark)], dtype=object))


def object_npy(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Command(mark)], dtype=object), allow_pickle=True)


def raw_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Command(mark)))


@pytest.mark.parametrize("write", [object_npz, object_npy, raw_pickle])
def test_nothing_in_a_file_of_arrays_is_executed(tmp_path, write):
    path, mark = tmp_path / "arrays.npz", tmp_path / "mark"
    write(path, mark)
    with pytest.raises(BayesmatError, match="cannot be read as plain arrays"):
        read_arrays(path)
    assert not mark.exists()
    with path.open("rb") as file:  # the file would have done it
        try:
            stored = np.load(file, allow_pickle=True)
            list(dict(stored).values())
        except (TypeError, ValueError, pickle.UnpicklingError):
            pass
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04", None])
def test_a_broken_file_of_arrays_is_named(tmp_path, content):
    path = tmp_path / "arrays.npz"
    np.savez(path, values=np.arange(1000))
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(BayesmatError, match="arrays.npz"):
        read_arrays(path)


def test_arrays_are_read_as_written(tmp_path):
    path = tmp_path / "arrays.npz"
    written = {"numbers": np.arange(6.0).reshape(2, 3), "text": np.array(["a", "bc"]), "none": np.zeros((0, 4), bool)}
    np.savez(path, **written)
    found = read_arrays(path)
    assert found.keys() == written.keys()
    for name, values in written.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with pytest.raises(BayesmatError, match="missing.npz"):
        read_arrays(tmp_path / "missing.npz")


def test_over_batches_sees_whole_batches():
    sizes = []

    def shifted(x, y):
        sizes.append(x.shape)
        return {"sum": x.sum(-1) + y, "x": x}

    one = over_batches(shifted)
    x, y = jnp.arange(24.0).reshape(2, 3, 4), jnp.array([10.0, 20.0, 30.0])
    expected = np.asarray(x).sum(-1) + np.asarray(y)
    single = one(x[0, 0], y[0])
    np.testing.assert_array_equal(single["sum"], expected[0, 0])
    assert single["x"].shape == (4,)
    np.testing.assert_array_equal(jax.vmap(one)(x[1], y)["sum"], expected[1])
    np.testing.assert_array_equal(jax.vmap(one, (0, None))(x[1], y[0])["sum"], np.asarray(x)[1].sum(-1) + 10.0)
    twice = jax.jit(jax.vmap(jax.vmap(one), (0, None)))(x, y)
    np.testing.assert_array_equal(twice["sum"], expected)
    np.testing.assert_array_equal(twice["x"], x)
    assert sizes[-1] == (6, 4)  # both axes in one batch


def test_over_batches_shares_its_first_argument():
    """Weights are handed over as they are, however many axes are mapped."""
    seen = []

    def product(weights, x, y):
        seen.append((weights["w"].shape, x.shape, y.shape))
        return x @ weights["w"] + y

    one = over_batches_sharing(product)
    weights, x, y = {"w": jnp.arange(4.0)}, jnp.arange(24.0).reshape(2, 3, 4), jnp.array([10.0, 20.0, 30.0])
    expected = np.asarray(x) @ np.arange(4.0) + np.asarray(y)
    np.testing.assert_array_equal(one(weights, x[0, 1], y[1]), expected[0, 1])
    twice = jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0)), (None, 0, None)))
    np.testing.assert_array_equal(twice(weights, x, y), expected)
    assert seen[-1] == ((4,), (6, 4), (6,))
    with pytest.raises(BayesmatError, match="cannot be mapped over"):
        jax.vmap(one)({"w": jnp.ones((3, 4))}, x[0], y)
