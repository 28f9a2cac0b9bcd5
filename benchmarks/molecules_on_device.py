"""How fast are molecular strings on the device, and how faithful? RDKit is the peer, in the same run.

Speed is per CPU-second of the whole process, compile time apart. Fidelity: strings drawn uniformly over the legal
tokens are read by RDKit; every molecule of five corpora that an alphabet can say goes to tokens and back, and what
it cannot say is counted by reason; decoded graphs are compared with RDKit's, atom by atom and bond by bond, and
across random strings of the same molecule; fingerprints rank pairs of molecules as RDKit's Morgan counts do.
Writes molecules_on_device.json beside this file. The open corpora are looked for in BAYESMAT_DATA; without it, only
the structures of `chemicals` are used. Takes some 25 minutes on one core.

    python benchmarks/molecules_on_device.py [--strings 1000000] [--graphs 100000]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rdkit import Chem, DataStructs, RDLogger
from rdkit.Chem import rdFingerprintGenerator
from scipy.stats import spearmanr
from tqdm import tqdm

from bayesmat import chem, data, nn, prior
from bayesmat.prior._ngram import tables_from_tokens

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from graphs import mismatch

RDLogger.DisableLog("rdApp.*")
OUTPUT = Path(__file__).with_suffix(".json")
BATCH = 4096
ORGANIC = chem.Alphabet.organic()
OPEN_DATA = {
    "ZINC 250k": ("zinc250k.csv.gz", chem.Alphabet.organic()),
    "PI1070": ("radonpy_pi1070.csv", chem.Alphabet.polymer()),
    "polymer_properties_long": ("polymer_properties_long.csv", chem.Alphabet.polymer()),
    "smipoly": ("smipoly_polymers.csv.gz", chem.Alphabet.polymer()),
}


def read_column(path: Path) -> list[str]:
    """The distinct SMILES of a table; for polymers, of the rows that are repeat units."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(dict.fromkeys(row["smiles"] for row in csv.DictReader(file)))


def corpora() -> dict[str, tuple[list[str], chem.Alphabet]]:
    found = {"chemicals": (list(data.corpus("organic").smiles), ORGANIC)}
    folder = os.environ.get("BAYESMAT_DATA")
    for name, (file, alphabet) in OPEN_DATA.items():
        if folder and (Path(folder) / file).is_file():
            found[name] = (read_column(Path(folder) / file), alphabet)
    return found


def rate(work: Callable[[], Any], items: int, repeats: int = 7) -> float:
    """Items per CPU-second: the median over repeats, after one call that compiles and warms up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        rates.append(items / (time.process_time() - start))
    return float(np.median(rates))


def ratio(ours: float, peer: float) -> dict[str, float]:
    return {"ours": round(ours), "rdkit": round(peer), "ratio": round(ours / peer, 1)}


def speed(smiles: list[str]) -> dict[str, Any]:
    """Strings per CPU-second; the peer reads the same Kekulé strings."""
    tokens = jnp.asarray(chem.encode(smiles, ORGANIC).tokens)
    texts = [chem.to_smiles(row, ORGANIC) for row in np.asarray(tokens)]
    n = len(texts)
    weights = jax.random.normal(jax.random.key(0), (sum(nn.FINGERPRINT_BINS), 32))
    dense = np.random.default_rng(0).normal(size=(2048, 32)).astype(np.float32)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)

    def counts(x: jax.Array) -> jax.Array:
        return nn.count_fingerprint(chem.decode(x, ORGANIC), ORGANIC)

    decode = jax.jit(jax.vmap(lambda x: chem.decode(x, ORGANIC)))
    fingerprint = jax.jit(jax.vmap(counts))
    linear = jax.jit(lambda x: jax.vmap(lambda row: jnp.log1p(counts(row)))(x) @ weights)

    def morgan() -> np.ndarray:
        return np.stack([generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in texts])

    def ours(program: Callable[[jax.Array], Any]) -> float:
        return rate(lambda: jax.block_until_ready(program(tokens)), n)

    result = {
        "decode to graph": ratio(ours(decode), rate(lambda: [Chem.MolFromSmiles(text) for text in texts], n, 3)),
        "tokens to count fingerprint": ratio(ours(fingerprint), rate(morgan, n, 3)),
        "tokens to fingerprint to 32 linear draws": ratio(
            ours(linear), rate(lambda: np.log1p(morgan().astype(np.float32)) @ dense, n, 3)
        ),
    }
    start = time.perf_counter()
    jax.block_until_ready(decode(tokens))
    return {**result, "graphs decoded per second, wall": round(n / (time.perf_counter() - start))}


def prior_speed() -> dict[str, Any]:
    corpus = data.corpus("organic").smiles
    tokens = chem.encode([corpus[i] for i in np.random.default_rng(0).permutation(len(corpus))[:BATCH]], ORGANIC).tokens
    result: dict[str, Any] = {
        "n-gram fit, molecules": round(rate(lambda: tables_from_tokens(tokens, ORGANIC), BATCH, 3))
    }
    sample = jax.jit(lambda p, key: p.sample(key, (BATCH,)))
    for kind in ("ngram", "neural"):
        for name in ("organic", "polymer"):
            fitted = prior.load(name, kind=kind)
            strings = np.asarray(sample(fitted, jax.random.key(0)))
            result[f"{kind} {name}, complete strings"] = {
                "ours": round(rate(lambda p=fitted: sample(p, jax.random.key(0)).block_until_ready(), BATCH)),
                "mean tokens": round(float((strings > 0).sum(1).mean()), 1),
            }
    uniform = rate(lambda: chem.random_strings(jax.random.key(0), BATCH, ORGANIC).block_until_ready(), BATCH)
    return {**result, "uniform strings": round(uniform)}


def random_strings(num: int, alphabet: chem.Alphabet) -> dict[str, int]:
    """Strings drawn uniformly over the legal tokens, and how many RDKit does not read or finds radicals in."""
    rejected, radicals, drawn = 0, 0, set()
    for start in tqdm(range(0, num, 20_000), desc="random strings"):
        key = jax.random.fold_in(jax.random.key(1), start)
        for row in np.asarray(chem.random_strings(key, 20_000, alphabet)):
            text = chem.to_smiles(row, alphabet)
            molecule = Chem.MolFromSmiles(text)
            rejected += molecule is None
            radicals += molecule is not None and any(a.GetNumRadicalElectrons() for a in molecule.GetAtoms())
            drawn.add(text)
    return {"drawn": num, "distinct": len(drawn), "rejected by RDKit": rejected, "with radicals": radicals}


def round_trip(smiles: list[str], alphabet: chem.Alphabet) -> dict[str, Any]:
    """Coverage by length, refusals by reason, and whether the canonical structure comes back."""
    readable = chem.canonicalize(smiles, "canonical structures")
    pairs = {text: None for text in readable.smiles if text is not None}
    wide = chem.encode(list(pairs), alphabet.with_length(160), description="tokens")
    texts = [chem.to_smiles(row, alphabet) for row in wide.tokens]
    back = chem.canonicalize(texts, "and back").smiles
    canonical = list(pairs)
    same = sum(canonical[i] == text for i, text in zip(wide.kept, back, strict=True))
    short = chem.is_legal(wide.tokens[:, :96], alphabet.with_length(96)) & (wide.tokens[:, 96:] == 0).all(1)
    refused = Counter(readable.refused) + Counter(wide.refused)
    common = dict(refused.most_common(12))
    others = sum(refused.values()) - sum(common.values())
    return {
        "structures": len(smiles),
        "distinct after stripping": len(pairs),
        "in scope at length 96": int(np.asarray(short).sum()),
        "in scope at length 160": len(wide.kept),
        "came back the same": same,
        "share": round(same / len(wide.kept), 6),
        "refused at length 160": {**common, **({"other reasons": others} if others else {})},
    }


def graphs(found: dict[str, tuple[list[str], chem.Alphabet]], num: int) -> dict[str, Any]:
    """Graphs equal to RDKit's; neighbourhood hashes of radius 3 equal for two random strings of a molecule."""
    checked, wrong, changed, differing = 0, [], [], 0
    for name, (smiles, alphabet) in found.items():
        share = min(len(smiles), -(-num // len(found)) if name != "ZINC 250k" else num)
        chosen = [smiles[i] for i in np.random.default_rng(3).permutation(len(smiles))[: min(share, num - checked)]]
        first = chem.encode(chosen, alphabet, description=f"{name}, canonical")
        kept = [chosen[i] for i in first.kept]
        decode = jax.jit(jax.vmap(lambda x, a=alphabet: chem.decode(x, a)))
        hashes = jax.jit(jax.vmap(lambda x, a=alphabet: _invariants(x, a)))
        for begin in tqdm(range(0, len(kept), BATCH), desc=f"graphs of {name}"):
            rows = first.tokens[begin : begin + BATCH]
            padded = np.pad(rows, ((0, BATCH - len(rows)), (0, 0)))
            graph = jax.tree.map(np.asarray, decode(jnp.asarray(padded)))
            for row, string in enumerate(rows):
                text = chem.to_smiles(string, alphabet)
                if (problem := mismatch(text, graph, row, alphabet)) is not None:
                    wrong.append(f"{text}: {problem}"[:300])
            other = chem.encode(kept[begin : begin + BATCH], alphabet, seed=begin + 7)
            again = np.pad(other.tokens, ((0, BATCH - len(other.tokens)), (0, 0)))
            a, b = np.asarray(hashes(padded))[other.kept], np.asarray(hashes(again))[: len(other.kept)]
            differing += int((rows[other.kept] != other.tokens).any(1).sum())
            changed += [kept[begin + other.kept[i]] for i in np.flatnonzero((a != b).any(1))]
            checked += len(rows)
        if checked >= num:
            break
    return {
        "graphs compared with RDKit": checked,
        "mismatches": len(wrong),
        "examples": wrong[:5],
        "second strings that differ from the first": differing,
        "molecules whose features changed": len(changed),
        "examples of these": changed[:5],
    }


def _invariants(tokens: jax.Array, alphabet: chem.Alphabet) -> jax.Array:
    """The sorted neighbourhood hashes of radius 0 to 3 and the counts of bond classes."""
    graph = chem.decode(tokens, alphabet)
    environments = jnp.sort(nn.environments(graph, alphabet, 3), axis=1).ravel()
    classes = jnp.stack([(graph.bond_class == k).sum() for k in range(1, 5)])
    return jnp.concatenate([environments, classes.astype(jnp.uint32)])


def similarity(smiles: list[str], num_pairs: int = 10_000) -> dict[str, Any]:
    """Spearman correlation of Tanimoto similarities of counts with RDKit's Morgan counts, both unfolded.

    RDKit leaves out an environment that covers the same bonds as another; `redundant` has it keep them, as we do.
    """
    encoded = chem.encode(smiles, ORGANIC)
    molecules = [Chem.MolFromSmiles(smiles[i]) for i in encoded.kept]
    pairs = np.random.default_rng(5).integers(0, len(molecules), (num_pairs, 2))
    program = jax.jit(jax.vmap(lambda x: nn.environments(chem.decode(x, ORGANIC), ORGANIC, 3)))
    hashes = np.asarray(program(jnp.asarray(encoded.tokens)))
    result: dict[str, Any] = {}
    for radius in range(4):
        counts = [Counter((r, h) for r in range(radius + 1) for h in row[r].tolist() if h) for row in hashes]
        ours = [_tanimoto(counts[i], counts[j]) for i, j in pairs]
        for redundant in (False, True):
            generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, includeRedundantEnvironments=redundant)
            prints = [generator.GetSparseCountFingerprint(molecule) for molecule in molecules]
            theirs = [DataStructs.TanimotoSimilarity(prints[i], prints[j]) for i, j in pairs]
            name = f"radius {radius}" + (", redundant" if redundant else "")
            result[name] = round(float(spearmanr(ours, theirs).statistic), 4)
    return result


def _tanimoto(a: Counter, b: Counter) -> float:
    common = sum((a & b).values())
    return common / (sum(a.values()) + sum(b.values()) - common)


def memory(num: int = 100_000) -> dict[str, int]:
    """Bytes that a program needs besides its arguments and results: decode and one number per string."""

    def total(x: jax.Array) -> jax.Array:
        graph = chem.decode(x, ORGANIC)
        return (graph.hydrogens * graph.degree + graph.bond_class).sum()

    def needed(program: Callable[[jax.Array], jax.Array]) -> int:
        strings = jax.ShapeDtypeStruct((num, ORGANIC.length), jnp.int32)
        return jax.jit(program).lower(strings).compile().memory_analysis().temp_size_in_bytes

    return {
        "strings": num,
        "bytes of the tokens": num * ORGANIC.length * 4,
        "bytes of the graphs": num * ORGANIC.length * 31,
        "working bytes, all at once": needed(jax.vmap(total)),
        "working bytes, in chunks of 4,096": needed(lambda x: chem.in_chunks(total, x)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--graphs", type=int, default=100_000)
    parser.add_argument("--parts", nargs="*", help="run these only and keep the others' results; default: all")
    options = parser.parse_args()
    found = corpora()
    samples = {
        name: [smiles[i] for i in np.random.default_rng(0).permutation(len(smiles))[:BATCH]]
        for name, (smiles, alphabet) in found.items()
        if not alphabet.attachments
    }
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "rdkit", "chemicals")},
        },
        "molecules per CPU-second": lambda: {name: speed(smiles) for name, smiles in samples.items()},
        "priors per CPU-second": prior_speed,
        "memory": memory,
        "similarity": lambda: {name: similarity(smiles) for name, smiles in samples.items()},
        "graphs": lambda: graphs(found, options.graphs),
        "round trip": lambda: {name: round_trip(*entry) for name, entry in found.items()},
        "random strings": lambda: {
            "organic": random_strings(options.strings, ORGANIC),
            "polymer": random_strings(options.strings // 10, chem.Alphabet.polymer()),
        },
    }
    if unknown := set(options.parts or ()) - set(parts):
        parser.error(f"no parts {sorted(unknown)}; known: {', '.join(parts)}")
    results: dict[str, Any] = {}
    if options.parts and OUTPUT.is_file():
        results = {name: value for name, value in json.loads(OUTPUT.read_text()).items() if name in parts}
    for name, part in parts.items():
        if not options.parts or name in options.parts:
            results[name] = part()
            print(json.dumps({name: results[name]}, indent=1), flush=True)
            ordered = {key: results[key] for key in parts if key in results}  # a long run keeps what it has
            OUTPUT.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
