"""Are the physico-chemical descriptors of the device those of RDKit, and how fast? RDKit is the peer, same run.

Agreement: the share of molecules on which a descriptor is equal (counts exactly; molecular weight, surface area, logP
and molar refractivity within 0.01), on ZINC 250k, the organic corpus, repeat units with `*` and strings drawn
uniformly over the legal tokens. Speed: molecules per CPU-second of the whole process, from tokens or from SMILES to
all descriptors, compile time apart. ZINC and the repeat units are read from the folder named by BAYESMAT_DATA and
left out without it. Writes physicochemical.json beside this file.

    python benchmarks/physicochemical.py [--zinc 20000] [--strings 20000]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import Descriptors, rdMolDescriptors

from bayesmat import chem, data, nn

RDLogger.DisableLog("rdApp.*")
OUTPUT = Path(__file__).with_suffix(".json")
BATCH = 1024
SPEED_SAMPLE = 8192
WITHIN = dict.fromkeys(("molecular_weight", "polar_surface_area", "log_p", "molar_refractivity"), 0.01)
TOLERANCE = np.array([({"fraction_sp3": 1e-5} | WITHIN).get(name, 0.0) for name in nn.PHYSICOCHEMICAL_NAMES])
SHOWN = 10


def peer(smiles: str) -> list[float]:
    """RDKit's values, in the order of `PHYSICOCHEMICAL_NAMES`."""
    molecule = Chem.MolFromSmiles(smiles)
    log_p, refractivity = rdMolDescriptors.CalcCrippenDescriptors(molecule)
    return [
        Descriptors.MolWt(molecule),
        molecule.GetNumHeavyAtoms(),
        rdMolDescriptors.CalcNumHBD(molecule),
        rdMolDescriptors.CalcNumHBA(molecule),
        rdMolDescriptors.CalcNumRotatableBonds(molecule),
        rdMolDescriptors.CalcNumRings(molecule),
        rdMolDescriptors.CalcNumAromaticRings(molecule),
        sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()),
        rdMolDescriptors.CalcFractionCSP3(molecule),
        rdMolDescriptors.CalcTPSA(molecule),
        log_p,
        refractivity,
        rdMolDescriptors.CalcNumLipinskiHBD(molecule),
        rdMolDescriptors.CalcNumLipinskiHBA(molecule),
    ]


def compiled(alphabet: chem.Alphabet) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Descriptors and completeness of many strings, in batches of one shape."""

    @jax.jit
    def batch(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        graphs = jax.vmap(lambda row: chem.decode(row, alphabet))(tokens)
        complete = jax.vmap(lambda graph: nn.aromaticity(graph, alphabet).complete)(graphs)
        return jax.vmap(lambda graph: nn.physicochemical(graph, alphabet))(graphs), complete

    def all_of(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.concatenate([tokens, np.zeros((-len(tokens) % BATCH, alphabet.length), np.int32)])
        parts = [jax.device_get(batch(padded[i : i + BATCH])) for i in range(0, len(padded), BATCH)]
        values, complete = (np.concatenate(part)[: len(tokens)] for part in zip(*parts, strict=True))
        return values, complete

    return all_of


def agreement(tokens: np.ndarray, smiles: Sequence[str], alphabet: chem.Alphabet) -> dict[str, Any]:
    values, complete = compiled(alphabet)(tokens)
    theirs = np.array([peer(text) for text in smiles])
    equal = np.abs(values - theirs) <= TOLERANCE
    wrong = np.flatnonzero(~equal.all(1))
    return {
        "molecules": len(tokens),
        "all equal": round(float(equal.all(1).mean()), 6),
        "equal": {name: round(float(x), 6) for name, x in zip(nn.PHYSICOCHEMICAL_NAMES, equal.mean(0), strict=True)},
        "not finite": int((~np.isfinite(values)).sum()),
        "within the static sizes": round(float(complete.mean()), 6),
        "unequal within the static sizes": int((~equal.all(1) & complete).sum()),
        "first unequal": [smiles[i] for i in wrong[:SHOWN]],
    }


def of_smiles(smiles: Sequence[str], alphabet: chem.Alphabet) -> dict[str, Any]:
    encoded = chem.encode(smiles, alphabet)
    return {"refused": len(encoded.refusals)} | agreement(encoded.tokens, [smiles[i] for i in encoded.kept], alphabet)


def cpu_rate(work: Callable[[], Any], items: int, repeats: int = 5) -> float:
    """Items per CPU-second: the median over repeats, after one call that compiles and warms up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        rates.append(items / (time.process_time() - start))
    return float(np.median(rates))


def speed(smiles: Sequence[str], alphabet: chem.Alphabet) -> dict[str, float]:
    encoded = chem.encode(smiles, alphabet)
    n = len(encoded.kept) // BATCH * BATCH
    tokens = jnp.asarray(encoded.tokens[:n]).reshape(-1, BATCH, alphabet.length)
    texts = [smiles[i] for i in encoded.kept[:n]]
    graph = jax.jit(jax.vmap(lambda x: chem.decode(x, alphabet)))
    aromatic = jax.jit(jax.vmap(lambda x: nn.aromatic_atoms(chem.decode(x, alphabet), alphabet)))
    everything = jax.jit(jax.vmap(lambda x: nn.physicochemical(chem.decode(x, alphabet), alphabet)))
    rates = {
        f"ours, {name}": round(cpu_rate(lambda f=f: jax.block_until_ready([f(x) for x in tokens]), n))
        for name, f in (("decode", graph), ("aromatic atoms", aromatic), ("all descriptors", everything))
    }
    rates["rdkit, read"] = round(cpu_rate(lambda: [Chem.MolFromSmiles(text) for text in texts], n, 1))
    rates["rdkit, all descriptors"] = round(cpu_rate(lambda: [peer(text) for text in texts], n, 1))
    rates["ratio"] = round(rates["ours, all descriptors"] / rates["rdkit, all descriptors"], 1)
    return {"molecules": n, "batch": BATCH, **rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zinc", type=int, default=20_000, help="molecules of ZINC, drawn at random; 0 for all")
    parser.add_argument("--strings", type=int, default=20_000, help="uniformly random strings")
    options = parser.parse_args()
    organic, polymer = chem.Alphabet.organic(), chem.Alphabet.polymer()
    corpus = data.corpus("organic").smiles
    random = np.asarray(chem.random_strings(jax.random.key(0), options.strings, organic))
    results: dict[str, Any] = {
        "agreement": {
            "organic corpus": of_smiles(corpus, organic),
            "uniformly random strings": agreement(random, [chem.to_smiles(row, organic) for row in random], organic),
        }
    }
    shuffled = np.random.default_rng(0).permutation(len(corpus))[:SPEED_SAMPLE]
    results["per CPU-second"] = {"organic corpus": speed([corpus[i] for i in shuffled], organic)}
    if folder := os.environ.get("BAYESMAT_DATA"):
        with gzip.open(Path(folder) / "zinc250k.csv.gz", "rt", encoding="utf-8") as lines:
            zinc = [row["smiles"].strip() for row in csv.DictReader(lines)]
        with open(Path(folder) / "radonpy_pi1070.csv", encoding="utf-8") as lines:
            # Isotopes are stripped on the way to tokens, so RDKit is given the flat structure too.
            units = [text for row in csv.DictReader(lines) if (text := chem.canonicalize([row["smiles"]]).smiles[0])]
        chosen = np.random.default_rng(1).permutation(len(zinc))[: options.zinc or len(zinc)]
        results["agreement"]["ZINC 250k"] = of_smiles([zinc[i] for i in chosen], organic)
        results["agreement"]["repeat units (PI1070)"] = of_smiles(units, polymer)
        results["per CPU-second"]["ZINC 250k"] = speed([zinc[i] for i in chosen[:SPEED_SAMPLE]], organic)
    results["machine"] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "rdkit", "chemicals")},
    }
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
