"""Does the first design job find what was asked for? The coolant of examples/coolant.toml, several seeds.

Reports the mean probability of a hit over the prior and over the posterior, distinct molecules, whether RDKit accepts
them, and the times of a run whose models are cached. Writes coolant.json beside this file.

    python benchmarks/coolant.py [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import bayesmat as bm

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path(__file__).with_suffix(".json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    problem = bm.design.read_problem(ROOT / "examples" / "coolant.toml")
    runs = []
    for seed in options.seeds:
        start = time.perf_counter()
        run = bm.design.solve(problem.with_sampler(seed=seed), progress_bar=False)
        found = run.candidates
        runs.append({
            "seed": seed,
            "prior_p_hit": run.prior_p_hit,
            "posterior_p_hit": run.posterior_p_hit,
            "gain": round(run.posterior_p_hit / run.prior_p_hit, 1),
            "log_evidence": round(run.sampler.log_evidence, 3),
            "distinct_molecules": run.sampler.num_distinct,
            "rejected_by_rdkit": sum(not bm.chem.is_accepted(smiles) for smiles in found.smiles),
            "known_share": round(sum(found.known) / len(found.known), 3),
            "temperatures": len(run.sampler.ess),
            "best": list(found.smiles[:10]),
            "wall_s": round(time.perf_counter() - start, 1),
            "timings_s": run.timings,
        })  # fmt: skip
        print(json.dumps(runs[-1], indent=1), flush=True)
    content = {"runs": runs, "versions": bm.design.versions(), "cores": os.cpu_count(), "cpu": platform.machine()}
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
