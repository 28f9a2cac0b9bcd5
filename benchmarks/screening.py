"""How fast is a library screened, can its probabilities be believed, and does it find hits?

Written to screening.json beside this file; parts that are not run keep their results.

- throughput: `bayesmat screen` on a file of a million SMILES (ZINC 250k, and draws of the organic prior), with a model
  of boiling points on fingerprints: CPU-seconds of the command and its readers, and the most memory they held together.
  What does not grow with the library (imports, programs read from disk) is measured with a short one and taken off.
  Then the library encoded, screened with that model and with one of sixty measurements on the network's features, by
  one thread: two take half as much CPU time again and a fifth less time. In the same
  run, RDKit's parse and rewrite alone, and as peers a random forest with tree variance on Morgan fingerprints from
  SMILES, and chemprop's network (a python with it is given by --chemprop; untrained: what it costs is the question).
- calibration: models trained on four fifths of a table say p(hit) of the last fifth, for three targets; by tenths of
  p(hit), the share of measured hits and its 95 % binomial interval.
- retrieval: sixty boiling points of the 2,000 that nothing pre-trained has seen; of the others, the hundred most
  probable to lie between the 60th and the 70th percentile; hits among them, ten seeds, paired with the peers'.

Needs scikit-learn (package index; for benchmarks alone) and the data sets in the folder BAYESMAT_DATA.

    python benchmarks/screening.py [--parts throughput ...] [--rows 1000000] [--chemprop PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import scipy.stats
from _machine import machine, write
from peers.regression import PEER, PEERS, Case, prepare
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from sklearn.ensemble import RandomForestRegressor
from targets import folder, targets

import bayesmat as bm

OUTPUT = Path(__file__).with_suffix(".json")
BAND = ("boiling_point", "400<boiling_point<480 K")
CLI = "from bayesmat.cli import main; raise SystemExit(main())"
FEW = 8192
"""Rows of the short library: enough for both programs, that for short strings and that for long ones."""
TOP, TRAIN, SEEDS = 100, 60, 10
RANDOM_FOREST = "random forest, descriptors"


def library(path: Path, rows: int) -> None:
    """ZINC 250k, then draws of the organic prior."""
    smiles = list(pd.read_csv(folder() / "zinc250k.csv.gz")["smiles"].str.strip())[:rows]
    source = bm.design.Drawn(bm.prior.load("organic"), max(rows - len(smiles), 1), seed=1)
    drawn = (row[3] for row in source.rows())
    smiles += [text for text, _ in zip(drawn, range(rows - len(smiles)), strict=False)]
    path.write_text("\n".join(smiles) + "\n", encoding="utf-8")


def command(*arguments: str | Path, one_thread: bool = False) -> dict[str, float]:
    """CPU-seconds of `bayesmat` and all its processes, seconds, and the most GiB they held together."""
    environment = os.environ | ({"NPROC": "1"} if one_thread else {})  # what XLA takes its number of threads from
    process = subprocess.Popen([sys.executable, "-c", CLI, *map(str, arguments)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
    held, begin = [0], time.perf_counter()
    watcher = threading.Thread(target=_watch, args=(process, held))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    if process.returncode:
        raise SystemExit(f"bayesmat {' '.join(map(str, arguments))} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"cpu_s": round(cpu, 1), "wall_s": round(time.perf_counter() - begin, 1), "GiB": round(held[0] / 2**30, 2)}


def _watch(process: subprocess.Popen, held: list[int]) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while process.returncode is None:
        total, wanted = 0, {process.pid}
        for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                if entry in wanted or parent in wanted:
                    wanted.add(entry)
                    total += page * int(Path(f"/proc/{entry}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
        held[0] = max(held[0], total)
        time.sleep(0.5)


def throughput(rows: int, chemprop: str | None) -> dict[str, Any]:
    """Rows in a CPU-second, by way of screening."""
    found: dict[str, Any] = {"rows": rows}
    table = bm.data.load(BAND[0]).organic()
    sixty = table.subset(np.random.default_rng(0).permutation(len(table))[:60])
    with tempfile.TemporaryDirectory() as place:
        at = Path(place)
        bm.forward.save(bm.forward.fit(table, key=jax.random.key(0), progress=False), at / "abundant")
        bm.forward.save(bm.forward.fit(sixty, key=jax.random.key(0), progress=False), at / "sixty")
        library(at / "large.smi", rows)
        texts = (at / "large.smi").read_text(encoding="utf-8").splitlines()
        sizes = {"short": texts[:FEW], "tenth": texts[::10]}
        for name, part in sizes.items():
            (at / f"{name}.smi").write_text("\n".join(part) + "\n", encoding="utf-8")
        options = ["--target", BAND[1], "--workers", "2"]

        def rate(name: str, short: Path, long: Path, num: int, model: str, one_thread: bool) -> None:
            runs = {}
            for size, path in (("warm-up", short), ("fixed", short), ("all", long)):  # programs come from disk in both
                out = at / f"{name}-{size}".replace(" ", "-")
                arguments = ("screen", path, "--model", at / model, *options, "--out", out)
                runs[size] = command(*arguments, one_thread=one_thread)
            spent = runs["all"]["cpu_s"] - runs["fixed"]["cpu_s"]
            found[name] = {**runs["all"], "fixed_cpu_s": runs["fixed"]["cpu_s"],
                           "rows per CPU-second": round((num - FEW) / spent)}  # fmt: skip
            print(name, found[name], flush=True)

        rate("SMILES, fingerprint model", at / "short.smi", at / "large.smi", rows, "abundant", False)
        for size in ("short", "large"):
            command("encode", at / f"{size}.smi", "--out", at / f"{size}-tokens", "--workers", "2")
        rate("tokens, fingerprint model", at / "short-tokens", at / "large-tokens", rows, "abundant", True)
        command("encode", at / "tenth.smi", "--out", at / "tenth-tokens", "--workers", "2")
        rate("tokens, network model", at / "short-tokens", at / "tenth-tokens", len(sizes["tenth"]), "sixty", True)
    sample = texts[:: max(rows // 20_000, 1)]
    begin = time.process_time()
    for text in sample:
        Chem.MolToSmiles(Chem.MolFromSmiles(text))
    found["RDKit's parse and rewrite"] = {"rows per CPU-second": round(len(sample) / (time.process_time() - begin))}
    found["peer: random forest"] = {"rows per CPU-second": _forest_rate(table, sample[:5000])}
    if chemprop:
        found["peer: chemprop"] = _chemprop_rate(chemprop, sample[:5000])
    print(found, flush=True)
    return found


def _forest_rate(table: bm.data.PropertyTable, smiles: list[str]) -> int:
    """SMILES to the mean and the variance over 100 trees."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)

    def bits(texts: list[str]) -> np.ndarray:
        return np.stack([generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in texts])

    model = RandomForestRegressor(100, n_jobs=1, max_features=1 / 3, random_state=0)
    model.fit(bits(list(table.smiles[:2000])), table.y[:2000])
    begin = time.process_time()
    x = bits(smiles)
    np.stack([tree.predict(x) for tree in model.estimators_]).var(0)
    return round(len(smiles) / (time.process_time() - begin))


def _chemprop_rate(python: str, smiles: list[str]) -> dict[str, Any]:
    """SMILES to predictions of chemprop's default network; the time of a short file is taken off."""
    code = (
        "import sys, time, torch, chemprop; from chemprop import data, models, nn\n"
        "from lightning import pytorch as pl\n"
        "torch.set_num_threads(1)\n"
        "m = models.MPNN(nn.BondMessagePassing(), nn.MeanAggregation(), nn.MveFFN())\n"
        "t = pl.Trainer(logger=False, enable_progress_bar=False, accelerator='cpu', enable_model_summary=False)\n"
        "texts = open(sys.argv[1]).read().split()\n"
        "def run(texts):\n"
        "    points = [data.MoleculeDatapoint.from_smi(x) for x in texts]\n"
        "    t.predict(m, data.build_dataloader(data.MoleculeDataset(points), shuffle=False, batch_size=256))\n"
        "run(texts[:64]); begin = time.process_time(); run(texts)\n"
        "print(chemprop.__version__, len(texts) / (time.process_time() - begin))\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".smi") as file:
        file.write("\n".join(smiles))
        file.flush()
        done = subprocess.run([python, "-c", code, file.name], check=True, capture_output=True, text=True)
    version, rate = done.stdout.split()[-2:]
    return {"version": version, "rows per CPU-second": round(float(rate))}


def calibration() -> dict[str, Any]:
    """Shares of hits by tenths of p(hit)."""
    found = {}
    for name in ("boiling_point", "ESOL", "PI1070 log10 conductivity"):
        target = targets()[name]
        order = np.random.default_rng(0).permutation(len(target.y))
        test, train = order[: len(order) // 5], order[len(order) // 5 :]
        alphabet = bm.chem.Alphabet.polymer() if target.polymer else bm.chem.Alphabet.organic()
        fit = bm.forward.fit(target.table().subset(train), key=jax.random.key(0), alphabet=alphabet, progress=False)
        cut = np.percentile(target.y[train], [25, 50, 75])
        wanted = {"above the 75th percentile": bm.design.Above(cut[2]), "below the median": bm.design.Below(cut[1]),
                  "middle half": bm.design.Interval(cut[0], cut[2])}  # fmt: skip
        found[name] = {"training": len(train), "test": len(test)}
        for words, interval in wanted.items():
            batches = bm.design.screen([target.smiles[row] for row in test], {"y": fit}, {"y": interval}, workers=0)
            p = np.concatenate([batch["p_hit"].to_numpy(zero_copy_only=False) for batch in batches]).astype(float)
            y = target.y[test][np.isfinite(p)]
            found[name][words] = _tenths(p[np.isfinite(p)], (y > interval.lower) & (y < interval.upper))
        print(name, found[name], flush=True)
    return found


def _tenths(p: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
    """Of the molecules in each tenth of p: how many, their mean p, the share of hits, inside its interval or not."""
    rows = {}
    tenth = np.minimum((10 * p).astype(int), 9)
    bands = {f"{k / 10:.1f} to {(k + 1) / 10:.1f}": tenth == k for k in range(10)}
    for name, chosen in (bands | {"0.4 to 0.6": (p >= 0.4) & (p <= 0.6)}).items():
        if chosen.any():
            # The number of hits is a sum of Bernoulli variables of these p; a binomial of their mean is no narrower.
            low, high = scipy.stats.binom.interval(0.95, chosen.sum(), p[chosen].mean())
            inside = bool(low <= hit[chosen].sum() <= high)
            rows[name] = {"molecules": int(chosen.sum()), "mean p": round(float(p[chosen].mean()), 3),
                          "share of hits": round(float(hit[chosen].mean()), 3), "inside": inside}  # fmt: skip
    return rows


def retrieval() -> dict[str, Any]:
    """Hits among the hundred most probable, ours and the peers'."""
    case = prepare(targets()["boiling_point"])
    low, high = np.percentile(case.target.y, [60, 70])
    hit = (case.target.y > low) & (case.target.y < high)
    hits: dict[str, list[int]] = {name: [] for name in ("ours", PEER, RANDOM_FOREST)}
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(hit))
        train, rest = order[:TRAIN], order[TRAIN:]
        fit = bm.forward.fit(case.target.table().subset(train), key=jax.random.key(seed), cache=False, progress=False)
        texts = [case.target.smiles[row] for row in rest]
        batches = bm.design.screen(texts, {"Tb": fit}, {"Tb": bm.design.Interval(low, high)}, workers=0)
        probability = {"ours": np.concatenate([batch["p_hit"].to_numpy(zero_copy_only=False) for batch in batches])}
        probability |= {name: _of_peer(name, case, train, rest, seed, low, high) for name in (PEER, RANDOM_FOREST)}
        for name, p in probability.items():
            hits[name].append(int(hit[rest][np.argsort(-np.nan_to_num(p), kind="stable")[:TOP]].sum()))
        print(seed, {name: counts[-1] for name, counts in hits.items()}, flush=True)
    found: dict[str, Any] = {"band [K]": [low, high], "library": len(hit) - TRAIN, "hits in it": int(hit.sum())}
    for name, counts in hits.items():
        gain = np.subtract(hits["ours"], counts)
        found[name] = {"hits by seed": counts, "mean": float(np.mean(counts))}
        if name != "ours":
            half = scipy.stats.t.ppf(0.975, SEEDS - 1) * gain.std(ddof=1) / np.sqrt(SEEDS)
            found[name]["ours more by"] = [
                round(gain.mean() - half, 1),
                round(gain.mean(), 1),
                round(gain.mean() + half, 1),
            ]
    print(found, flush=True)
    return found


def _of_peer(name: str, case: Case, train: np.ndarray, rest: np.ndarray, seed: int, low: float, high: float):
    """p(low < y < high) of a peer, from its distribution function at measurements that we put there."""
    y = case.target.y.copy()
    predict = PEERS[name](case._replace(target=case.target._replace(y=y)), train, seed)
    below = []
    for limit in (low, high):
        y[rest] = limit
        below.append(predict(rest).pit)
    return below[1] - below[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["throughput", "calibration", "retrieval"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--chemprop", metavar="PYTHON", help="an interpreter with chemprop 2 installed")
    options = parser.parse_args()
    report = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    report["question"] = __doc__.splitlines()[0]
    calls = {"throughput": lambda: throughput(options.rows, options.chemprop), "calibration": calibration,
             "retrieval": retrieval}  # fmt: skip
    for part in options.parts:
        report[part] = calls[part]() | {"machine": machine("scikit-learn", "pyarrow")}
        write(OUTPUT, report)


if __name__ == "__main__":
    main()
