"""Do forward models predict molecules that they have not seen, and do their intervals hold what they promise?

80/20 random splits, three seeds. Boiling and melting points stand alone; thermal conductivity (some 290 training
points) transfers from fits on all boiling and melting points, where each molecule's own measured value is left out in
closed form (`Fitted.evaluate`). Writes forward_heldout.json beside this file; a property that is not run keeps its
results.

    python benchmarks/forward_heldout.py [--seeds 0 1 2] [--properties boiling_point ...]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from _machine import machine

from bayesmat import data, forward, infer

PROPERTIES = ("boiling_point", "melting_point", "thermal_conductivity")
SOURCES = {"thermal_conductivity": ("boiling_point", "melting_point")}
OUTPUT = Path(__file__).with_suffix(".json")


def run(name: str, seed: int, sources: list[forward.Fitted]) -> tuple[dict, infer.Calibration]:
    """One split: the fit on 80 %, its predictions of the rest, and what both took."""
    table = data.load(name)
    train, test = data.random_split(len(table), seed)
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = forward.fit(table.subset(train), key=jax.random.key(seed), sources=sources, cache=False, progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = fitted.evaluate(table.subset(test))
    posterior = fitted.idata.posterior
    result = {
        "seed": seed,
        "num_train": len(fitted.smiles),
        **scores(found),
        "leave_one_out_on_training": scores(fitted.calibration),
        "fit_wall_s": round(wall, 1),
        "fit_cpu_s": round(cpu, 1),
        "posterior_mean": {
            **{f"scale_{g}": float(posterior["scale"].sel(group=g).mean()) for g in posterior["group"].values},
            **{v: float(posterior[v].mean()) for v in ("sigma", "noise_log_stretch", "noise_dof")},
        },
    }
    return result, found


def scores(found: infer.Calibration) -> dict:
    """The numbers of a calibration."""
    return {
        "num_points": found.num_points,
        "unit": found.unit,
        **{name: float(f"{getattr(found, name):.5g}") for name in ("rmse", "mae", "crps", "nll")},
        "coverage": {f"{level:g}": round(share, 4) for level, share in found.coverage.items()},
    }


def pooled(parts: list[infer.Calibration]) -> dict:
    """All splits as one set of predictions; test sets of different seeds overlap, so the error is a little more."""
    arrays = (np.concatenate([getattr(p, n) for p in parts]) for n in ("observed", "mean", "lower90", "upper90", "pit"))
    weights = np.array([p.num_points for p in parts]) / sum(p.num_points for p in parts)
    nll, crps = (float(weights @ [getattr(p, n) for p in parts]) for n in ("nll", "crps"))
    both = infer.Calibration(parts[0].label, parts[0].unit, "held-out", *arrays, nll, crps, parts[0].crps_unit)
    print(both.summary(), flush=True)
    return scores(both) | {"binomial_error_90": round(both.coverage_error(), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--properties", nargs="+", default=list(PROPERTIES), choices=PROPERTIES)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    results = json.loads(options.output.read_text(encoding="utf-8"))["results"] if options.output.exists() else {}
    for name in options.properties:
        sources = [forward.fit(data.load(s), key=jax.random.key(0), progress=False) for s in SOURCES.get(name, ())]
        runs, parts = [], []
        for seed in options.seeds:
            result, found = run(name, seed, sources)
            print(name, json.dumps(result), flush=True)
            runs.append(result)
            parts.append(found)
        results[name] = {"pooled": pooled(parts), "seeds": runs}
    report = {
        "question": __doc__.splitlines()[0],
        "results": results,
        "machine": machine("chemicals"),
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
