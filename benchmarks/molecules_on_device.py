"""How fast are molecular strings on the device, and how faithful? RDKit is the peer, in the same run.

Speed is per CPU-second of the whole process, compile time apart. Fidelity: every structure of the corpus that the
alphabet can say goes to tokens and back, and strings drawn uniformly over the legal tokens are read by RDKit.
Writes molecules_on_device.json beside this file.

    python benchmarks/molecules_on_device.py [--strings 200000]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import rdFingerprintGenerator

from bayesmat import chem, data, nn, prior
from bayesmat.prior._ngram import tables_from_tokens

RDLogger.DisableLog("rdApp.*")
OUTPUT = Path(__file__).with_suffix(".json")
BATCH = 4096
ALPHABET = chem.Alphabet.organic()


def rate(work: Callable[[], Any], items: int, repeats: int = 5) -> float:
    """Items per CPU-second: the median over repeats, after one call that compiles and warms up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        rates.append(items / (time.process_time() - start))
    return float(np.median(rates))


def speed(smiles: list[str]) -> dict[str, dict[str, float]]:
    tokens = jnp.asarray(chem.encode(smiles, ALPHABET).tokens)
    texts = [chem.to_smiles(row, ALPHABET) for row in np.asarray(tokens)]
    n = len(texts)
    weights = jax.random.normal(jax.random.key(0), (sum(nn.FINGERPRINT_BINS), 32))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    dense = np.random.default_rng(0).normal(size=(2048, 32)).astype(np.float32)
    decode = jax.jit(jax.vmap(lambda x: chem.decode(x, ALPHABET)))
    linear = jax.jit(
        lambda x: jax.vmap(lambda r: nn.count_fingerprint(chem.decode(r, ALPHABET), ALPHABET, log=True))(x) @ weights
    )

    def morgan() -> None:
        rows = np.stack([generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in texts])
        np.log1p(rows.astype(np.float32)) @ dense

    def ratio(ours: float, peer: float) -> dict[str, float]:
        return {"ours": round(ours), "rdkit": round(peer), "ratio": round(ours / peer, 1)}

    read = rate(lambda: [Chem.MolFromSmiles(text) for text in texts], n)
    organic = prior.load("organic")
    sample = jax.jit(lambda p, key: p.sample(key, (BATCH,)))
    corpus_tokens = np.asarray(tokens)
    return {
        "decode to graph": ratio(rate(lambda: jax.block_until_ready(decode(tokens)), n), read),
        "tokens to fingerprint to 32 linear draws": ratio(
            rate(lambda: jax.block_until_ready(linear(tokens)), n), rate(morgan, n)
        ),
        "n-gram samples, complete strings": {
            "ours": round(rate(lambda: sample(organic, jax.random.key(0)).block_until_ready(), BATCH))
        },
        "n-gram fit, molecules": {"ours": round(rate(lambda: tables_from_tokens(corpus_tokens, ALPHABET), n, 3))},
    }


def fidelity(corpus: tuple[str, ...], num_strings: int) -> dict[str, Any]:
    encoded = chem.encode(corpus, ALPHABET)
    back = chem.canonicalize([chem.to_smiles(row, ALPHABET) for row in encoded.tokens]).smiles
    same = sum(corpus[i] == text for i, text in zip(encoded.kept, back, strict=True))
    rejected, drawn = 0, set()
    for start in range(0, num_strings, 20_000):
        rows = np.asarray(chem.random_strings(jax.random.key(start), 20_000, ALPHABET))
        texts = [chem.to_smiles(row, ALPHABET) for row in rows]
        rejected += sum(not chem.is_accepted(text) for text in texts)
        drawn.update(texts)
    return {
        "structures": len(corpus),
        "in scope": len(encoded.kept),
        "round trip": same,
        "round trip share": round(same / len(encoded.kept), 6),
        "refused": dict(encoded.refused.most_common()),
        "random strings": num_strings,
        "distinct random strings": len(drawn),
        "rejected by RDKit": rejected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strings", type=int, default=200_000)
    options = parser.parse_args()
    corpus = data.corpus("organic").smiles
    sample = [corpus[i] for i in np.random.default_rng(0).permutation(len(corpus))[:BATCH]]
    results = {
        "per CPU-second": speed(sample),
        "fidelity": fidelity(corpus, options.strings),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "rdkit", "chemicals")},
        },
    }
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
