"""A model made of numbers, libraries, and a screening run as a process of its own: what the tests of screening share.

python screening.py FOLDER LIBRARY [--resume] [--workers N] [--kill-at K] [--max-bytes B]
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import random
import resource
import signal
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bayesmat import design, infer
from bayesmat.chem import Alphabet
from bayesmat.forward import Fitted, Predictive, Predictor
from bayesmat.nn import Features

ALPHABET = Alphabet.organic(60)
TARGETS = {"k": design.Above(0.1)}
SHARD_ROWS = 1024


class Counting(Predictor):
    """Linear in log counts of tokens, which compiles in a tenth of the time of features of molecules."""

    spread: jax.Array
    weights: jax.Array

    @property
    def num_draws(self) -> int:
        return len(self.weights)

    def features(self, x):
        if isinstance(x, Features):
            return x
        counts = jax.nn.one_hot(x, self.alphabet.num_tokens).sum(-2)[..., 1:]  # how much END follows says nothing
        bins = jnp.log1p(counts @ self.spread[1:])
        return Features(*[bins] * len(Features._fields))

    def predictive(self, features, transferred=None):
        loc = (features.descriptors - 2.0) @ self.weights.T
        return Predictive(loc, jnp.full_like(loc, 0.1), self.log)

    def log_variance(self, features, transferred=None):
        return jnp.log(self.predictive(features).loc.var(-1))

    def average(self):
        raise AssertionError("nothing transfers from it")


class Usual(eqx.Module):
    """An applicability."""

    def __call__(self, features, log_variance):
        return jax.nn.sigmoid(log_variance)


def model(name: str = "k", alphabet: Alphabet = ALPHABET, scale: float = 1.0) -> Fitted:
    """Random functions: nothing is fitted, and little is compiled."""
    rng = np.random.default_rng(3)
    spread = np.abs(rng.normal(size=(alphabet.num_tokens, 50)))
    weights = scale * (rng.normal(size=50) * 0.05 + rng.normal(size=(8, 50)) * 0.01)
    arrays = [jnp.asarray(array, jnp.float32) for array in (spread, weights)]
    predictor = Counting(alphabet, False, name, "a made up property", "W/m/K", *arrays)
    y = np.linspace(0.0, 1.0, 8)
    judged = infer.Calibration(predictor.label, predictor.unit, "leave-one-out", y, y, y - 1, y + 1, y, 0.0, 0.1)
    texts = tuple("C" * n for n in range(1, 9))
    told = (name, predictor.label, predictor.unit, predictor, None, judged, Usual(), texts, y, y, (), (), ())
    return Fitted(*told, f"model {name} {scale}")


def molecules(num: int) -> list[str]:
    """Different short molecules, about as fast to read as they can be."""
    ends = ["", "O", "N", "F", "Cl", "=O", "C#N", "S", "Br", "(C)C"]
    middles, lengths = ["", "O", "N", "S"], range(1, 40)
    made = ("C" * i + a + "C" * j + b for j in lengths for i in lengths for a in middles for b in ends)
    return list(itertools.islice(dict.fromkeys(made), num))


def write_library(path: Path, num: int) -> Path:
    """Rows of which one in ten has been there before, written in another way, and one in ten is refused."""
    rng, texts, lines = random.Random(5), molecules(num), []
    for index in range(num):
        text = texts[index]
        if index > 20 and index % 10 == 3:
            text = f"C({texts[rng.randrange(index // 10 * 10 - 10)][1:]})"
        elif index % 10 == 6:
            text = rng.choice(["C1CC", "[Na+].[Cl-]", "C[Hg]C", "", "[CH3]", "C" * 70])
        lines.append(f"{text} row {index + 1}\n")
    data = "".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def table(folder: Path) -> pa.Table:
    """All rows that a folder's manifest lists."""
    names = [shard["name"] for shard in json.loads((folder / "manifest.json").read_text())["shards"]]
    return pa.concat_tables([pq.read_table(folder / name) for name in names])


def same_bits(left: pa.Table, right: pa.Table) -> bool:
    """Whether all values are the same; no number of a result is NaN, which would differ from itself."""
    return left.schema.equals(right.schema, check_metadata=True) and left.equals(right)


def same_but_for_rounding(left: pa.Table, right: pa.Table) -> bool:
    """Whether all is the same, but for the last digits of numbers: rows scored together may share other programs."""
    numbers = [field.name for field in left.schema if field.type == pa.float32()]
    pairs = [[side.column(name).to_numpy(zero_copy_only=False) for side in (left, right)] for name in numbers]
    close = all(np.allclose(*pair, rtol=1e-4, atol=1e-5, equal_nan=True) for pair in pairs)
    return close and same_bits(left.drop_columns(numbers), right.drop_columns(numbers))


def kill_at(count: int) -> None:
    """Kill this process just before a file appears under its name for the `count`-th time."""
    replace, calls = os.replace, []

    def counting(*paths) -> None:
        calls.append(paths)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    os.replace = counting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--max-bytes", type=int, default=0)
    given = parser.parse_args()
    if given.kill_at:
        kill_at(given.kill_at)
    if given.max_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.max_bytes, given.max_bytes))
    design.screen_to(
        *(given.folder, given.library, [model()], TARGETS),
        **{"workers": given.workers, "shard_rows": SHARD_ROWS, "resume": given.resume},
    )


if __name__ == "__main__":
    main()
