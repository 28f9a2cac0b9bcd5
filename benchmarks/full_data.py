"""Are forward models as good as the usual ones where data are not scarce?

ESOL, FreeSolv, all organic boiling points, the conductivity of PI1070, and the HOMO-LUMO gaps of some 16,000 molecules
of PubChem; three seeds. A fifth of the molecules is predicted; of the gaps, all but the 10,000 that are trained on.
The peers are those of low_data.py without the fingerprints; the Gaussian process on descriptors gets 2,000 of the
training molecules where there are more. Writes full_data.json beside this file.

The pre-trained extractor never saw a molecule of ESOL, FreeSolv and PI1070. It saw most structures with a boiling
point, though no boiling point, and it was taught these very gaps. That does not reach the models of 1,000 molecules and
more, which are linear on descriptors and fingerprint and leave the extractor out; the script stops should this change.

How our models came to be: the fingerprint among the blocks of the process by leave-one-out errors of the training parts
of ESOL and conductivities (seed 0) and on polymer heat capacities and melting points, among some twenty variants; the
network by validation splits within the training parts of gaps and boiling points (seed 0), among some ten. No test part
was looked at, but that of another seed overlaps with the training part of seed 0.

Needs scikit-learn (package index; for benchmarks alone) and the data sets in the folder BAYESMAT_DATA.

    python benchmarks/full_data.py [--targets ESOL ...] [--seeds 0 1 2]

Targets and seeds that are not run keep the results they have in the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _machine import machine, write
from low_data import OURS, Ours, check_extractor, merged, paired, run, summary
from peers.regression import MEAN, PEER, PEERS, Case, Model, Predict, prepare
from targets import Target, folder, make_target, targets

from bayesmat import data, forward

NAMES = ("ESOL", "FreeSolv", "boiling_point", "PI1070 log10 conductivity", "PubChem gap")
TAUGHT = ("boiling_point", "PubChem gap")
"""Targets whose molecules the extractor was trained on."""
FOREST = "random forest, descriptors"
NUM_GAPS, NUM_GP = 10_000, 2000
OUTPUT = Path(__file__).with_suffix(".json")


def load(name: str) -> Target:
    """A whole target."""
    if name == "boiling_point":
        table = data.load(name).organic()
        return Target(name, table.smiles, table.y, table.unit, False)
    if name == "PubChem gap":
        rows = pd.read_csv(folder() / "iqspr_qm.csv")
        return make_target(name, rows["smiles"], rows["gap_eV"], "eV")
    return targets()[name]


def split(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows."""
    n = len(case.target.y)
    return data.random_split(n, seed, 1 - NUM_GAPS / n if case.target.name == "PubChem gap" else 0.2)


def subset(model: Model) -> Model:
    """A model that is too slow for more than 2,000 molecules; a training set is already in random order."""

    def of_some(case: Case, train: np.ndarray, seed: int) -> Predict:
        return model(case, train[:NUM_GP], seed)

    return of_some


def without_extractor(case: Case, train: np.ndarray, seed: int) -> Predict:
    """Ours, where it may not know what the extractor was taught."""
    ours = Ours()
    predict = ours(case, train, seed)
    if not isinstance(ours.fitted.predictor, forward.LinearPredictor):
        raise SystemExit(f"{case.target.name}: the extractor was trained on test molecules, this is no held-out error")
    return predict


def models(name: str) -> dict[str, Model]:
    """Those that are compared on a target."""
    found = {key: PEERS[key] for key in (MEAN, FOREST)}
    return {**found, PEER: subset(PEERS[PEER]), OURS: without_extractor if name in TAUGHT else Ours()}


def target_part(name: str, seeds: list[int], before: dict[str, Any]) -> dict[str, Any]:
    """All models on all seeds."""
    case, compared = prepare(load(name)), models(name)
    rows: dict[str, list[dict[str, float]]] = {key: [] for key in compared}
    for index, seed in enumerate(seeds):
        train, test = split(case, seed)
        for key, model in compared.items():
            row = run(model, case, train, test, seed).row()
            rows[key].append({"seed": seed, "first": int(index == 0), **row})
            print(f"{name}, {len(train)} training molecules, seed {seed}, {key}: {json.dumps(row)}", flush=True)
    runs = {key: merged(before.get("runs", {}).get(key, {}), rows[key]) for key in compared}
    sizes = {"trained on": len(train), f"trained on, {PEER}": min(len(train), NUM_GP)}
    return {**case.head(), **sizes, "summary": summary(runs), "ratios": ratios(runs), "runs": runs}


def ratios(runs: dict[str, Any]) -> dict[str, Any]:
    """Our RMSE over that of each peer, by seed, with the 95 % t interval of the mean."""
    found = {}
    for peer in (FOREST, PEER):
        by_seed = np.divide(runs[OURS]["rmse"], runs[peer]["rmse"])
        found[peer] = {"by seed": by_seed.round(4).tolist(), **paired(by_seed, np.zeros(len(by_seed)))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    check_extractor()
    report = json.loads(options.out.read_text()) if options.out.is_file() else {}
    report |= {"question": __doc__.splitlines()[0], "machine": machine("scikit-learn")}
    results = report.setdefault("results", {})
    for name in options.targets:
        results[name] = target_part(name, options.seeds, results.get(name, {}))
        write(options.out, report)


if __name__ == "__main__":
    main()
