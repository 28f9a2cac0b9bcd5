"""What is in the polymer corpus, which alphabet does it need, and does our chemistry agree with others'?

Parts, each written into polymer_corpus.json beside this file as soon as it is done:

    corpus    polymers by class, what was left out and why, seconds of a fresh computation (two minutes and more)
    alphabet  coverage of `Alphabet.polymer()` by reason; tokens, nested branches and open rings that it needs
    known     how many polymers of open collections are in the corpus, and how many of SMiPoly's monomers it uses
    smipoly   SMiPoly's monomers under our rules: the share of SMiPoly's polymers that come out again, by class
    olefin    the same for its olefins, where alternating copolymers come head to tail and head to head

Chains are compared by `chem.repeat_unit`, so it does not matter at which bond a unit was cut. Counter-ions and
water of SMiPoly's monomers are taken off first; its radicals are refused. The open collections are looked for in
BAYESMAT_DATA. `corpus fresh` computes the corpus anew. Each part takes some five minutes on one core, `olefin` ten.

    python benchmarks/polymer_corpus.py [corpus [fresh]] [alphabet] [known] [smipoly] [olefin]
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bayesmat import chem, data
from bayesmat.data import _polymers

OUTPUT = Path(__file__).with_suffix(".json")
EITHER_WAY = data.MonomerClass("vinyl, either way round", ("olefin", "vinyl"), ("[CX3:1]=[CX3:2]>>[1*][C:1][C:2][2*]",))
PERCENTILES = (50, 90, 95, 99, 99.9, 100)


def rows(name: str) -> list[dict[str, str]]:
    path = Path(os.environ["BAYESMAT_DATA"]) / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(csv.DictReader(file))


def desalted(smiles: str) -> str:
    """The largest fragment by length of text: what is left are counter-ions and water of crystallisation."""
    return max(smiles.split("."), key=len)


def units(smiles: list[str]) -> tuple[dict[str, str], Counter[str]]:
    """Repeat unit of each string that is one, and why the others are not."""
    found, refused = {}, Counter()
    for text in smiles:
        try:
            found[text] = chem.repeat_unit(text)
        except chem.RefusedError as error:
            refused[error.reason] += 1
    return found, refused


def corpus() -> dict[str, Any]:
    path = _polymers._cache_path()
    seconds = None
    if "fresh" in sys.argv:
        path.unlink(missing_ok=True)
        start = time.process_time()
        data.corpus("polymer")
        seconds = round(time.process_time() - start, 1)
    start = time.perf_counter()
    _polymers.polymer_corpus.cache_clear()
    made = data.corpus("polymer")
    return {
        "polymers": len(made),
        "by class": dict(Counter(made.polymer_class).most_common()),
        "combinations": made.num_read,
        "dropped": made.dropped,
        "monomers read": made.num_monomers,
        "monomers used": len({text for group in made.monomers for text in group}),
        "monomers unused": made.unused,
        "characters, percentiles": percentiles([len(text) for text in made.smiles]),
        "seconds of CPU, fresh": seconds,
        "seconds to read the cache": round(time.perf_counter() - start, 2),
    }


def percentiles(values: Any) -> dict[str, int]:
    return {str(p): int(np.percentile(values, p, method="higher")) for p in PERCENTILES}


def sizes(tokens: np.ndarray, alphabet: chem.Alphabet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length, deepest branch and most rings open at once of each string."""
    branch = (tokens == alphabet.open_token).astype(int) - (tokens == alphabet.close_token)
    ring = (tokens == alphabet.ring_open_token).astype(int) - (tokens >= alphabet.first_ring_close_token)
    return (tokens > 0).sum(1), branch.cumsum(1).max(1), ring.cumsum(1).max(1)


def alphabet() -> dict[str, Any]:
    smiles = data.corpus("polymer").smiles
    large = chem.Alphabet.polymer(length=400, max_depth=30, max_rings=30)
    encoded = chem.encode(smiles, large)
    length, depth, rings = sizes(encoded.tokens, large)
    preset = chem.Alphabet.polymer()
    said = (length <= preset.length) & (depth <= preset.max_depth) & (rings <= preset.max_rings)
    random = chem.encode(smiles[::10], large, seed=1)
    shapes = {"canonical": (length, depth, rings), "random root and Kekulé form": sizes(random.tokens, large)}
    return {
        "refused by any size": dict(encoded.refused.most_common()),
        "preset": {"length": preset.length, "depth": preset.max_depth, "rings": preset.max_rings},
        "preset covers": round(float(said.sum()) / len(smiles), 5),
        "too long": int((length > preset.length).sum()),
        "too deep": int((depth > preset.max_depth).sum()),
        "too many rings": int((rings > preset.max_rings).sum()),
        "share within tokens": {
            str(n): round(float((length <= n).mean()), 4) for n in (64, 80, 96, 112, 128, 160, 200)
        },
        "percentiles": {
            name: {"tokens": percentiles(a), "nested branches": percentiles(b), "open rings": percentiles(c)}
            for name, (a, b, c) in shapes.items()
        },
    }


def known() -> dict[str, Any]:
    made = data.corpus("polymer")
    ours = set(units(list(made.smiles))[0].values())
    result: dict[str, Any] = {}
    for name in ("radonpy_pi1070.csv", "polymer_properties_long.csv", "polymer_cp_exp.csv", "polymer_tg.csv"):
        texts = list(dict.fromkeys(row["smiles"] for row in rows(name) if row["smiles"].count("*") == 2))
        theirs = set(units(texts)[0].values())
        result[name] = {"chains": len(theirs), "in the corpus": len(theirs & ours)}
    used = {text for group in made.monomers for text in group}
    canonical = chem.canonicalize([desalted(row["smiles"]) for row in rows("smipoly_monomers.csv")]).smiles
    monomers = {text for text in canonical if text}
    organic = set(data.corpus("organic").smiles)
    result["SMiPoly's monomers"] = {
        "distinct": len(monomers),
        "among the organic structures": len(monomers & organic),
        "used in the corpus": len(monomers & used),
    }
    return result


def regenerated(classes: set[str], rules: list[data.PolymerRule]) -> dict[str, Any]:
    """The share of SMiPoly's polymers of some classes that our rules make of SMiPoly's monomers."""
    monomers = list(dict.fromkeys(desalted(row["smiles"]) for row in rows("smipoly_monomers.csv")))
    made = data.polymerise(monomers, rules, max_per_rule=10**8, max_heavy_atoms=500, orientations="all")
    ours = set(units(list(made.smiles))[0].values())
    theirs = defaultdict(list)
    for row in rows("smipoly_polymers.csv.gz"):
        theirs[row["polymer_class"]].append(row)
    table: dict[str, Any] = {"polymers made": len(made), "monomers unused": made.unused}
    for kind in sorted(classes):
        found, refused = units([row["smiles"] for row in theirs[kind]])
        missed = [row for row in theirs[kind] if row["smiles"] in found and found[row["smiles"]] not in ours]
        blame = Counter(text for row in missed for text in (row["mon1"], row["mon2"]) if text)
        table[kind] = {
            "polymers": len(theirs[kind]),
            "regenerated": round(1 - (len(missed) + sum(refused.values())) / len(theirs[kind]), 4),
            "refused": dict(refused),
            "monomers most often in what is missed": dict(blame.most_common(5)),
        }
        print(kind, table[kind])
    return table


def smipoly() -> dict[str, Any]:
    rules = [rule for rule in data.polymer_rules() if rule.polymer_class != "polyolefin"]
    return regenerated({"polyester", "polyamide", "polyimide", "polyurethane", "polyether", "polyoxazolidone"}, rules)


def olefin() -> dict[str, Any]:
    rules = [rule for rule in data.polymer_rules() if rule.polymer_class == "polyolefin"]
    head_to_tail = regenerated({"polyolefin"}, rules)
    turned = [
        data.PolymerRule(rule.name, rule.polymer_class, tuple(swap(kind) for kind in rule.monomers)) for rule in rules
    ]
    return {
        "vinyl units head to tail": head_to_tail,
        "vinyl units either way round": regenerated({"polyolefin"}, turned),
    }


def swap(kind: data.MonomerClass) -> data.MonomerClass:
    return EITHER_WAY if kind.name == "vinyl or vinylidene" else kind


def main() -> None:
    parts = {"corpus": corpus, "alphabet": alphabet, "known": known, "smipoly": smipoly, "olefin": olefin}
    for name in [name for name in sys.argv[1:] if name in parts] or list(parts):
        start = time.process_time()
        result = parts[name]()
        tables = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
        tables[name] = {**result, "seconds of CPU": round(time.process_time() - start)}
        OUTPUT.write_text(json.dumps({key: tables[key] for key in parts if key in tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
