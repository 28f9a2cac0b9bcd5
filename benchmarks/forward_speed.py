"""How long does a fit of sixty measurements take, and how many molecules are predicted in a CPU-second?

The fit runs in a process of its own without compiled programs from disk: imports, features, compilation and all. Then
predictions from token arrays by one thread, in batches of 2,048, after compilation: mean and standard deviation; and
everything, that is also three quantiles, the log-probability of an interval and the applicability; with a fit of sixty
measurements on the features of the pre-trained network, and one of thousands on fingerprints. `--library N` also times
the training of a library. Writes forward_speed.json beside this file; parts that are not run keep their results.

    python benchmarks/forward_speed.py [--library 1000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _machine import machine, write
from targets import folder, held_out

from bayesmat import chem, data, forward, nn

OUTPUT = Path(__file__).with_suffix(".json")
BATCH, BATCHES = 2048, 4


@eqx.filter_jit
def mean_and_sd(
    predictor: forward.Predictor, familiar: forward.Applicability, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`familiar` is not asked."""
    told = predictor(tokens).summary(())
    return told.mean, told.sd


@eqx.filter_jit
def everything(
    predictor: forward.Predictor, familiar: forward.Applicability, tokens: jax.Array
) -> tuple[forward.Summary, jax.Array, jax.Array]:
    """Mean, standard deviation, quantiles; log-probability of an interval; applicability."""
    features = predictor.features(tokens)
    p = predictor(features)
    return p.summary(), p.log_prob_interval(400.0, 450.0), familiar(features, predictor.log_variance(features))


def sixty() -> data.PropertyTable:
    """Sixty boiling points."""
    table = data.load("boiling_point").organic()
    return table.subset(np.random.default_rng(0).permutation(len(table))[:60])


def cold_fit() -> dict:
    """A fit in a fresh process with nothing compiled."""
    code = (
        "import jax, forward_speed as f\n"
        "from bayesmat import forward\n"
        "forward.fit(f.sixty(), key=jax.random.key(0), cache=False, progress=False)\n"
    )
    data.load("boiling_point")  # the structures are read once per installation, not per fit
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_") and k != "NPROC"}
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parent)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": round(time.perf_counter() - begin, 1), "cpu_s": round(cpu, 1)}


ASKED = {"mean and sd": mean_and_sd, "everything": everything}


def rates(fitted: forward.Fitted, smiles: list[str]) -> dict[str, int]:
    """Molecules in a CPU-second, from tokens to what is asked."""
    return {name: rate(fitted, smiles, asked) for name, asked in ASKED.items()}


def rate(fitted: forward.Fitted, smiles: list[str], asked: Callable[..., Any]) -> int:
    """Molecules in a CPU-second."""
    tokens = chem.encode(smiles, fitted.alphabet).tokens
    batches = [jnp.asarray(np.resize(tokens[index * BATCH :], (BATCH, tokens.shape[1]))) for index in range(BATCHES)]
    jax.block_until_ready(asked(fitted.predictor, fitted.applicability, batches[0]))
    begin = time.process_time()
    for batch in batches:
        jax.block_until_ready(asked(fitted.predictor, fitted.applicability, batch))
    return int(BATCH * BATCHES / (time.process_time() - begin))


def library(num: int) -> dict:
    """Training `num` networks of random shape over the measured tables of the package."""
    tables = [data.load(name).organic() for name in data.names()]
    begin, cpu = time.perf_counter(), time.process_time()
    made = nn.train_library(tables, num, exclude=held_out(), widths=(16, 64), licence="Apache-2.0")
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as place:
        made.save(Path(place) / "library")
    return {"models": len(made), "properties": len(tables), "wall_min": round(seconds / 60, 1),
            "cpu_min": round(cpu / 60, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=int, metavar="N")
    options = parser.parse_args()
    os.environ["NPROC"] = "1"  # XLA's threads: several predict little faster, and take half as much CPU time again
    report = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    report["question"] = __doc__.splitlines()[0]
    report["fit of 60, nothing compiled"] = cold_fit()
    print(report["fit of 60, nothing compiled"], flush=True)
    scarce = forward.fit(sixty(), key=jax.random.key(0), cache=False, progress=False)
    abundant = forward.fit(data.load("boiling_point"), key=jax.random.key(0))
    sets = {
        "ZINC": list(pd.read_csv(folder() / "zinc250k.csv.gz")["smiles"].sample(9000, random_state=0)),
        "chemicals": list(data.corpus("organic").smiles)[::6][:9000],
    }
    report["molecules per CPU-second"] = {
        name: {"network, 60 measurements": rates(scarce, smiles), "fingerprints": rates(abundant, smiles)}
        for name, smiles in sets.items()
    }
    print(report["molecules per CPU-second"], flush=True)
    if options.library:
        report["library"] = library(options.library)
        print(report["library"], flush=True)
    report["machine"] = machine()
    write(OUTPUT, report)


if __name__ == "__main__":
    main()
