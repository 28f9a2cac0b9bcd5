"""Do the priors write molecules like those they have seen? Trained on 200,000 of ZINC 250k, judged on the rest.

30,000 samples of each prior against the training set and the 49,455 held-out molecules. Measures as MOSES (Polykovskiy
et al. 2020, doi 10.3389/fphar.2020.565644) and GuacaMol (Brown et al. 2019, doi 10.1021/acs.jcim.8b00839) define them:
validity, uniqueness of the first 10,000, novelty, internal diversity, similarity to the nearest held-out molecule
(SNN), cosine similarity of BRICS fragments and Murcko scaffolds, KL divergence of nine descriptors and of the nearest
neighbour inside the sample, as a mean of exp(-KL). The same measures of 30,000 training molecules show what a perfect
model would reach. MOSES' own table is of another selection from ZINC, so its figures are for orientation.

Held-out bits are of the canonical string for the n-gram (it learns these), of one random string for the neural prior
(it learns those), and for both an upper bound of the bits of the molecule: -log2 of the summed probability of the
distinct strings among 100 random ones.

Needs BAYESMAT_DATA with zinc250k.csv.gz. The neural prior is read from --neural, a folder made by

    bayesmat prior train zinc_train.smi --out FOLDER --alphabet druglike --hidden 256 --forms 2 ...

where zinc_train.smi is written by --split FILE. Writes distribution_learning.json beside this file.

    python benchmarks/distribution_learning.py --neural FOLDER
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import Crippen, Descriptors, GraphDescriptors, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold
from scipy.stats import entropy, gaussian_kde
from tqdm import tqdm

from bayesmat import chem, prior

RDLogger.DisableLog("rdApp.*")
OUTPUT = Path(__file__).with_suffix(".json")
NUM_TRAIN = 200_000
FINGERPRINT = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
CONTINUOUS: dict[str, Callable[[Chem.Mol], float]] = {
    "BertzCT": GraphDescriptors.BertzCT,
    "MolLogP": Crippen.MolLogP,
    "MolWt": Descriptors.MolWt,
    "TPSA": rdMolDescriptors.CalcTPSA,
}
COUNTS: dict[str, Callable[[Chem.Mol], int]] = {
    "NumHAcceptors": rdMolDescriptors.CalcNumHBA,
    "NumHDonors": rdMolDescriptors.CalcNumHBD,
    "NumRotatableBonds": rdMolDescriptors.CalcNumRotatableBonds,
    "NumAliphaticRings": rdMolDescriptors.CalcNumAliphaticRings,
    "NumAromaticRings": rdMolDescriptors.CalcNumAromaticRings,
}


def split() -> tuple[list[str], list[str]]:
    """Canonical flat structures for training and for judging, none in both."""
    path = Path(os.environ["BAYESMAT_DATA"]) / "zinc250k.csv.gz"
    with gzip.open(path, "rt") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)]
    order = np.random.default_rng(0).permutation(len(smiles))
    flat = chem.canonicalize([smiles[i] for i in order], "canonical structures").smiles
    train = list(dict.fromkeys(text for text in flat[:NUM_TRAIN] if text))
    known = set(train)
    return train, list(dict.fromkeys(text for text in flat[NUM_TRAIN:] if text and text not in known))


def fingerprints(molecules: Sequence[Chem.Mol]) -> np.ndarray:
    """`(n, 1024)` float32 of zeros and ones."""
    return np.stack([FINGERPRINT.GetFingerprintAsNumPy(m) for m in tqdm(molecules, "fingerprints")]).astype(np.float32)


def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tanimoto similarity of every row of `a` with every row of `b`."""
    common = a @ b.T
    return common / (a.sum(1)[:, None] + b.sum(1)[None] - common)


def nearest(a: np.ndarray, b: np.ndarray, skip_self: bool = False) -> np.ndarray:
    """The largest similarity of each row of `a` to a row of `b`."""
    best = []
    for start in range(0, len(a), 500):
        rows = similarities(a[start : start + 500], b)
        if skip_self:
            rows[np.arange(len(rows)), start + np.arange(len(rows))] = 0
        best.append(rows.max(1))
    return np.concatenate(best)


def internal_diversity(prints: np.ndarray) -> float:
    """One less the mean similarity of all pairs."""
    total = sum(similarities(prints[start : start + 500], prints).sum() for start in range(0, len(prints), 500))
    return float(1 - total / len(prints) ** 2)


def fragments(molecules: Sequence[Chem.Mol]) -> Counter[str]:
    found: Counter[str] = Counter()
    for molecule in tqdm(molecules, "fragments"):
        pieces = Chem.FragmentOnBRICSBonds(molecule)
        found.update(Chem.MolToSmiles(piece) for piece in Chem.GetMolFrags(pieces, asMols=True))
    return found


def scaffolds(molecules: Sequence[Chem.Mol]) -> Counter[str]:
    texts = (Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(m)) for m in tqdm(molecules, "scaffolds"))
    return Counter(text for text in texts if text)


def cosine(a: Counter[str], b: Counter[str]) -> float:
    dot = sum(count * b[key] for key, count in a.items())
    return dot / (sum(v * v for v in a.values()) * sum(v * v for v in b.values())) ** 0.5


def descriptors(molecules: Sequence[Chem.Mol]) -> dict[str, np.ndarray]:
    rows = [
        [function(m) for function in (*CONTINUOUS.values(), *COUNTS.values())] for m in tqdm(molecules, "descriptors")
    ]
    return dict(zip((*CONTINUOUS, *COUNTS), np.asarray(rows, float).T, strict=True))


def kl_continuous(reference: np.ndarray, sample: np.ndarray) -> float:
    """KL divergence of two kernel densities on a common grid."""
    low, high = min(reference.min(), sample.min()), max(reference.max(), sample.max())
    grid = np.linspace(low, high, 1000)
    p, q = (gaussian_kde(values)(grid) + 1e-10 for values in (reference, sample))
    return float(entropy(p, q))


def kl_counts(reference: np.ndarray, sample: np.ndarray) -> float:
    edges = np.histogram_bin_edges(np.concatenate([reference, sample]), bins=10)
    p, q = (np.histogram(values, edges, density=True)[0] + 1e-10 for values in (reference, sample))
    return float(entropy(p, q))


class Judge:
    """What the samples are compared with: a part of the training set, and held-out molecules."""

    def __init__(self, train: list[str], test: list[str]):
        self.known = set(train)
        self.test = [Chem.MolFromSmiles(text) for text in test]
        self.prints = fingerprints(self.test)
        self.fragments, self.scaffolds = fragments(self.test), scaffolds(self.test)
        chosen = [Chem.MolFromSmiles(text) for text in train[:10_000]]
        self.descriptors = descriptors(chosen)
        prints = fingerprints(chosen)
        self.inner = nearest(prints, prints, skip_self=True)

    def measure(self, texts: list[str]) -> dict[str, Any]:
        """Everything about the SMILES of a sample."""
        canonical = chem.canonicalize(texts, "canonical samples").smiles
        valid = [text for text in canonical if text is not None]
        distinct = list(dict.fromkeys(valid))
        molecules = [Chem.MolFromSmiles(text) for text in distinct]
        prints = fingerprints(molecules)
        own = descriptors(molecules[:10_000])
        kl = {name: kl_continuous(self.descriptors[name], own[name]) for name in CONTINUOUS}
        kl |= {name: kl_counts(self.descriptors[name], own[name]) for name in COUNTS}
        kl["nearest in the sample"] = kl_continuous(self.inner, nearest(prints[:10_000], prints[:10_000], True))
        scores = {name: float(np.exp(-value)) for name, value in kl.items()}
        return {
            "samples": len(texts),
            "validity": len(valid) / len(texts),
            "uniqueness@10k": len(set(valid[:10_000])) / len(valid[:10_000]),
            "uniqueness": len(distinct) / len(valid),
            "novelty": sum(text not in self.known for text in distinct) / len(distinct),
            "internal diversity": round(internal_diversity(prints[:10_000]), 4),
            "SNN to held-out": round(float(nearest(prints, self.prints).mean()), 4),
            "fragment similarity": round(cosine(fragments(molecules), self.fragments), 4),
            "scaffold similarity": round(cosine(scaffolds(molecules), self.scaffolds), 4),
            "KL score": round(float(np.mean(list(scores.values()))), 4),
            "KL scores": {name: round(value, 3) for name, value in scores.items()},
        }


def draw(fitted: Any, num: int) -> tuple[list[str], dict[str, float]]:
    """SMILES of `num` samples, and complete strings per CPU-second."""
    sample = jax.jit(lambda p, key: p.sample(key, (6000,)))
    sample(fitted, jax.random.key(99)).block_until_ready()
    start, strings = time.process_time(), []
    for block in range(-(-num // 6000)):
        strings.append(np.asarray(sample(fitted, jax.random.key(block))))
    seconds = time.process_time() - start
    rows = np.concatenate(strings)[:num]
    speed = {"strings per CPU-second": round(len(rows) / seconds), "mean tokens": float((rows > 0).sum(1).mean())}
    return [chem.to_smiles(row, fitted.alphabet) for row in rows], speed


def bits(fitted: Any, test: list[str], canonical: bool, num_molecules: int = 500, forms: int = 100) -> dict[str, Any]:
    """Bits of held-out strings, and an upper bound of the bits of their molecules."""
    log_prob = jax.jit(lambda p, x: chem.in_chunks(p.log_prob, x))
    encoded = chem.encode(test[:10_000], fitted.alphabet, seed=None if canonical else 0)
    log_p = np.asarray(log_prob(fitted, jnp.asarray(encoded.tokens)))
    few = test[:num_molecules]
    total = [set() for _ in few]
    for form in range(forms):
        again = chem.encode(few, fitted.alphabet, seed=1 + form * len(few))
        for index, row in zip(again.kept, again.tokens, strict=True):
            total[index].add(row.tobytes())
    strings = [[np.frombuffer(text, np.int32) for text in found] for found in total]
    flat = np.asarray(log_prob(fitted, jnp.asarray(np.concatenate([np.stack(rows) for rows in strings if rows]))))
    sums, start = [], 0
    for rows in strings:
        if rows:
            sums.append(np.logaddexp.reduce(flat[start : start + len(rows)].astype(np.float64)))
            start += len(rows)
    return {
        "in scope": len(encoded.kept),
        "finite": int(np.isfinite(log_p).sum()),
        "bits of a string": round(float(-log_p.mean() / np.log(2)), 2),
        "string": "canonical" if canonical else "random",
        "bits of the molecule, at most": round(float(-np.mean(sums) / np.log(2)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neural", type=Path, help="folder of a trained neural prior")
    parser.add_argument("--split", type=Path, help="only write the training molecules to this file")
    parser.add_argument("--samples", type=int, default=30_000)
    options = parser.parse_args()
    train, test = split()
    if options.split:
        options.split.write_text("\n".join(train) + "\n", encoding="utf-8")
        return
    judge = Judge(train, test)
    alphabet = chem.Alphabet.druglike()
    start = time.process_time()
    ngram = prior.fit_ngram(train, alphabet, cache=True)
    fit_seconds = time.process_time() - start
    results: dict[str, Any] = {
        "training molecules": len(train),
        "held-out molecules": len(test),
        "training set": judge.measure(train[-options.samples :]),
        "held-out set": judge.measure(test[: options.samples]),
    }
    for name, fitted in (("n-gram", ngram), ("neural", prior.load(options.neural) if options.neural else None)):
        if fitted is None:
            continue
        texts, speed = draw(fitted, options.samples)
        results[name] = {**judge.measure(texts), **speed, "held-out": bits(fitted, test, name == "n-gram")}
        print(json.dumps({name: results[name]}, indent=1), flush=True)
    results["n-gram"]["fit, CPU-seconds with encoding (near 0 when cached)"] = round(fit_seconds)
    if options.neural:
        card = json.loads((options.neural / "card.json").read_text(encoding="utf-8"))
        results["neural"]["training"] = card.get("training")
    results["published, on MOSES' selection of ZINC"] = {
        "CharRNN": {"validity": 0.975, "uniqueness@10k": 0.9994, "SNN": 0.602, "internal diversity": 0.856}
    }
    results["machine"] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "rdkit")},
    }
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
