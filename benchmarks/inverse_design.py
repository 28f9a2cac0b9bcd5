"""Does the sampler find more, faster and more truthfully than the iQSPR-X algorithm and a genetic algorithm?

One corpus (10,000 molecules with energies and gaps), one machine. Every method gets boxes (E, gap) of public
tutorials. A molecule is a claimed hit where a method's own model gives its box a probability above one half, and a
true one where an additive oracle (`peers/oracle.py`) finds its energy within the bounds; the gap has no oracle.

- forward models: errors and coverage on held-out molecules;
- speed and hits: each method with its own prior and forward model, per CPU-second, compilation apart. Found are the
  last population, and, as `anywhere`, everything that was ever evaluated; the latter also of ours sharpened, as one
  would search for probable hits;
- calibration: claimed probabilities of E against how often the oracle agrees;
- sample efficiency: distinct molecules with p_hit > 1/2 at equal numbers of forward-model evaluations, all methods
  under our forward model; a molecule is evaluated once, and costs nothing when it comes again.

Needs scikit-learn for the peer's forward model and iqspr_qm.csv in the folder BAYESMAT_DATA.

    python benchmarks/inverse_design.py [--seeds 0 1 2 3 4] [--boxes ...] [--parts ...] [--quick] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from rdkit import Chem, RDLogger
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _machine import machine
from peers.efficiency import POWER, sample_efficiency
from peers.iqsprx import IQSPRX, Bounds, BoxLikelihood
from peers.judging import Pools, claims_of_steps, claims_of_tokens, judged, over_seeds, rounded, summary
from peers.sampler import Ours, Record
from peers.setting import BOXES, RARE, Setting

RDLogger.DisableLog("rdApp.*")
OUTPUT = Path(__file__).with_suffix(".json")
SHARPENED = f"sharpened to p_hit^{POWER:g}, anywhere"
PUBLISHED_RATE = 80
"""Particle-iterations per CPU-second of the published package, measured once on the machine of methods.md."""


def forward_models(setting: Setting) -> dict[str, Any]:
    """Errors and coverage of both forward models on the molecules that were held out."""
    result: dict[str, Any] = {
        "training rows": len(setting.train),
        "held-out rows": setting.num_heldout,
        "of them not among the training molecules": len(setting.test),
    }
    molecules = [Chem.MolFromSmiles(text) for text in setting.of(setting.test)]
    theirs = setting.ridge.predict(molecules)
    for name, y in setting.values.items():
        ours = setting.fitted[name].evaluate(setting.table(name, setting.test))
        mean, sd = theirs[name]
        z = (y[setting.test] - mean) / sd
        result[name] = {
            "ours": {
                **{"molecules": ours.num_points, "mae": rounded(ours.mae), "rmse": rounded(ours.rmse)},
                "coverage": {f"{level:g}": rounded(share) for level, share in ours.coverage.items()},
            },
            "iQSPR-X": {
                **{
                    "molecules": len(z),
                    "mae": rounded(abs(z * sd).mean()),
                    "rmse": rounded(((z * sd) ** 2).mean() ** 0.5),
                },
                "coverage": {
                    f"{level:g}": rounded((abs(z) < scipy.stats.norm.ppf(0.5 + level / 2)).mean())
                    for level in ours.coverage
                },
            },
        }
    order = np.random.default_rng(1).permutation(len(setting.smiles))
    trial = type(setting.oracle)(setting.of(order[:10_000]), setting.values["E"][order[:10_000]])
    error = trial(setting.of(order[10_000:])) - setting.values["E"][order[10_000:]]
    result["oracle of E, held-out"] = {
        "rmse": rounded(float(np.sqrt(np.nanmean(error**2)))),
        "r2": round(1 - float(np.nanvar(error) / setting.values["E"].var()), 6),
        "silent": int(np.isnan(error).sum()),
    }
    return result


def speed_and_hits(setting: Setting, boxes: dict[str, Bounds], options: argparse.Namespace) -> dict[str, Any]:
    """Both methods with their own priors and forward models."""
    pools: dict[str, Pools] = {}
    record = Record()
    samplers = {
        "last population": Ours(setting, options.particles),
        "anywhere": Ours(setting, options.particles, record),
        SHARPENED: Ours(setting, options.particles, Record(), POWER, options.steps),
    }
    result: dict[str, Any] = {}
    for box, bounds in boxes.items():
        pools[box] = Pools()
        ours, evidence = _ours_on(setting, bounds, samplers, options.seeds, pools[box])
        entry: dict[str, Any] = {"prior probability of a hit": summary(np.exp(evidence).tolist()), "ours": ours}
        for population in options.populations:
            theirs = _iqsprx_on(setting, bounds, population, options.seeds, pools[box])
            entry[f"iQSPR-X, {population} particles"] = theirs
            entry[f"ours / iQSPR-X, {population} particles"] = _ratios(ours, theirs)
        entry["calibration of E"] = pools[box].tables()
        result[box] = entry
        print(json.dumps({box: entry}, indent=1), flush=True)
    everything = Pools()
    for pool in pools.values():
        for method, pairs in pool.pairs.items():
            everything.pairs.setdefault(method, []).extend(pairs)
    return {"boxes": result, "calibration of E, all boxes": everything.tables()}


def _ours_on(
    setting: Setting, bounds: Bounds, samplers: dict[str, Ours], seeds: Sequence[int], pools: Pools
) -> tuple[dict[str, Any], list[float]]:
    result, evidence = {}, []
    for kind, sampler in samplers.items():
        rows = []
        for seed in tqdm(seeds, desc=f"ours, {kind}"):
            found = sampler.run(bounds, seed)
            tokens = found.tokens if sampler.record is None else sampler.record.hits()
            claims = claims_of_tokens(setting, tokens, bounds) if len(tokens) else {}
            row = {**judged(setting, bounds, claims), "cpu s": found.cpu_s, "temperatures": found.temperatures}
            row["converged"] = float(found.converged)
            row["particle-iterations per CPU-s"] = sampler.particle_iterations(found) / found.cpu_s
            if sampler.record is None:
                evidence.append(found.log_evidence)
                pools.add("ours", setting, bounds, claims)
            else:
                row["evaluations"] = sampler.record.evaluations
                row["evaluations per CPU-s"] = row["evaluations"] / found.cpu_s
            rows.append({**row, **_per_second(row)})
        result[kind] = over_seeds(rows)
    return result, evidence


def _iqsprx_on(setting: Setting, bounds: Bounds, population: int, seeds: Sequence[int], pools: Pools) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {"last population": [], "anywhere": []}
    for seed in tqdm(seeds, desc=f"iQSPR-X, {population} particles"):
        peer = IQSPRX(setting.ngram, BoxLikelihood(setting.ridge, bounds))
        start = time.process_time()
        steps = peer.run(seed, setting.start(seed, population))
        cpu_s = time.process_time() - start
        for kind, part in (("last population", steps[-1:]), ("anywhere", steps)):
            claims = claims_of_steps(part, bounds)
            row = {**judged(setting, bounds, claims), "cpu s": cpu_s}
            row["particle-iterations per CPU-s"] = population * len(steps) / cpu_s
            rows[kind].append({**row, **_per_second(row)})
            pools.add(f"iQSPR-X, {population} particles, {kind}", setting, bounds, claims)
    return {kind: over_seeds(entries) for kind, entries in rows.items()}


def _per_second(row: dict[str, float]) -> dict[str, float]:
    return {"true hits per CPU-s": row["claimed, true"] / row["cpu s"]}


def _ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The gate's numbers, of means over seeds."""

    def mean(side: dict[str, Any], kind: str, name: str) -> float:
        return side[kind][name]["mean"]

    def ratio(a: float, b: float) -> float | None:
        return rounded(a / b) if b > 0 else None

    speed, hits = "particle-iterations per CPU-s", "true hits per CPU-s"
    kinds = ("last population", "anywhere")
    return {
        speed: ratio(mean(ours, kinds[0], speed), mean(theirs, kinds[0], speed)),
        f"{speed}, to the published package": rounded(mean(ours, kinds[0], speed) / PUBLISHED_RATE),
        **{f"{hits}, {kind} of both": ratio(mean(ours, kind, hits), mean(theirs, kind, hits)) for kind in kinds},
        f"{hits}, ours {SHARPENED}": ratio(mean(ours, SHARPENED, hits), mean(theirs, kinds[1], hits)),
        "claimed, share true": {
            kind: [mean(side, kind, "claimed, share true") for side in (ours, theirs)] for kind in kinds
        },
    }


def main() -> None:
    known = {**BOXES, **RARE}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--boxes", nargs="+", choices=known, help="default: all")
    parser.add_argument("--particles", type=int, default=4096, help="of ours, in speed and hits")
    parser.add_argument("--steps", type=int, default=16, help="of ours at β = 1, where sharpened, in speed and hits")
    parser.add_argument("--populations", type=int, nargs="+", default=[25, 250], help="of the iQSPR-X algorithm there")
    parser.add_argument("--budgets", type=int, nargs="+", default=[2000], help="evaluations")
    parser.add_argument("--pool", type=int, default=200_000, help="draws of the prior for its rate of hits")
    parser.add_argument("--parts", nargs="+", help="run these only and keep the others' results; default: all")
    parser.add_argument("--quick", action="store_true", help="one seed and small sizes, to see that it runs")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.particles, options.budgets, options.pool = options.seeds[:1], 512, [500], 20_000
    boxes = {name: known[name] for name in options.boxes or known}
    tutorial = {name: bounds for name, bounds in boxes.items() if name in BOXES}
    setting = Setting()
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine("scikit-learn"),
        "forward models": lambda: forward_models(setting),
        "speed and hits": lambda: speed_and_hits(setting, tutorial, options),
        "sample efficiency": lambda: sample_efficiency(setting, boxes, options.seeds, options.budgets, options.pool),
    }
    if unknown := set(options.parts or ()) - set(parts):
        parser.error(f"no parts {sorted(unknown)}; known: {', '.join(parts)}")
    results: dict[str, Any] = {}
    if options.parts and options.out.is_file():
        results = {name: value for name, value in json.loads(options.out.read_text()).items() if name in parts}
    for name, part in parts.items():
        if not options.parts or name in options.parts:
            found = part()
            if name == "sample efficiency":  # other boxes and budgets are kept
                before = results.get(name, {})
                found = {**before, **{box: {**before.get(box, {}), **entry} for box, entry in found.items()}}
            results[name] = found
            print(json.dumps({name: results[name]}, indent=1), flush=True)
            ordered = {key: results[key] for key in parts if key in results}  # a long run keeps what it has
            options.out.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
