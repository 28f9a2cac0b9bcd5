"""Pre-train the extractor that ships with bayesmat: structures to RDKit's 2-D descriptors and measured properties.

Structures of the `chemicals` package, ZINC, QM9, PubChem and polymers; none of the molecules that the low-data
benchmarks are about (targets.py), and of no structure its boiling or melting point or thermal conductivity. Writes
weights and card.

    python benchmarks/pretrain_extractor.py --out bayesmat/nn/weights/graph [--minutes 12]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import chemicals
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rdkit import Chem, RDLogger
from rdkit.Chem import Descriptors
from targets import canonical_unit, folder, held_out, without_held_out

from bayesmat import chem, data, nn
from bayesmat._types import Array, cache_dir, progress, read_arrays
from bayesmat.nn import _message

MOLECULES = chem.Alphabet.organic(length=96)
POLYMERS = chem.Alphabet.polymer()
SLOTS = (16, 32, 64)
"""Places for atoms of the compiled programs; larger molecules are left out."""
BATCH = 256
DESCRIBED = {"chemicals": 24000, "zinc": 10000, "qm9": 5000, "smipoly": 7000, "polymers": 3000, "pubchem": 3000}
"""Structures of each source whose descriptors RDKit works out: 175 of them take it a second."""
MEASURED = (
    "refractive_index", "density", "heat_of_vaporisation", "permittivity", "flash_point", "critical_temperature",
    "viscosity",
)  # fmt: skip
LOGARITHMIC = {
    "heat_of_vaporisation", "permittivity", "viscosity", "qm9_r2", "heat_of_sublimation", "heat_of_fusion",
    "critical_pressure", "critical_volume", "lower_flammability_limit",
}  # fmt: skip
TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "hansen_dispersion": (("Misc/ruben_manuel_hansen_solubility_parameters.tsv", "HANSEN_DELTA_D"),),
    "hansen_polar": (("Misc/ruben_manuel_hansen_solubility_parameters.tsv", "HANSEN_DELTA_P"),),
    "hansen_hydrogen": (("Misc/ruben_manuel_hansen_solubility_parameters.tsv", "HANSEN_DELTA_H"),),
    "log_p": (("Environment/CRC logP table.tsv", "logP"), ("Misc/wikidata_properties.tsv", "logP")),
    "dipole": (
        ("Misc/cccbdb.nist.gov Dipoles.csv", "dipole_moment"), ("Misc/Poling Dipole.csv", "dipole_moment"),
        ("Misc/Muller Supporting Info Dipoles.csv", "dipole_moment"),
    ),
    "heat_of_sublimation": (
        ("Phase Change/Ghazerati Appendix Sublimation Enthalpy.tsv", "Hsub"), ("Misc/webbook_constants.tsv", "Hsub"),
    ),
    "heat_of_fusion": (
        ("Phase Change/CRC Handbook Heat of Fusion.tsv", "Hfus"), ("Misc/webbook_constants.tsv", "Hfus"),
    ),
    "critical_pressure": (("Critical Properties/Yaws Collection.tsv", "Pc"),),
    "critical_volume": (("Critical Properties/Yaws Collection.tsv", "Vc"),),
    "critical_temperature_estimated": (("Critical Properties/Yaws Collection.tsv", "Tc"),),
    "acentric_factor": (("Critical Properties/Yaws Collection.tsv", "omega"),),
    "heat_of_formation": (("Reactions/Yaws Hf S0 (g).tsv", "Hfg"), ("Misc/webbook_constants.tsv", "Hfg")),
    "entropy": (("Reactions/Yaws Hf S0 (g).tsv", "S0g"), ("Misc/webbook_constants.tsv", "S0g")),
    "octane_number": (("Misc/Florian_Liming_RON_experimental.tsv", "RON"),),
    "cetane_number": (("Misc/Travis_Kessler_Combustdb_CETANE.tsv", "CETANE"),),
    "autoignition_temperature": (("Misc/wikidata_properties.tsv", "T_autoignition"),),
    "lower_flammability_limit": (("Misc/wikidata_properties.tsv", "LFL"),),
}  # fmt: skip
"""More properties from the files of `chemicals`, as they stand there; the first file that has a value counts."""
DESCRIPTORS = [name for name, _ in Descriptors.descList]


class Corpus(NamedTuple):
    """Structures and what is known about them."""

    smiles: list[str]
    polymer: np.ndarray
    values: dict[str, dict[str, float]]
    described: list[str]


def gather(rng: np.random.Generator) -> Corpus:
    """All structures that may be trained on, each once, and their values by task."""
    values: dict[str, dict[str, float]] = {}
    sources: dict[str, list[str]] = {"chemicals": list(data.corpus("organic").smiles)}
    for name in MEASURED:
        table = without_held_out(data.load(name).organic())
        sources["chemicals"] += table.smiles
        values[name] = dict(zip(table.smiles, table.y, strict=True))
    for name, files in TABLES.items():
        values[name] = chemicals_table(files, positive=name in LOGARITHMIC)
        sources["chemicals"] += values[name]
    sources["zinc"] = _canonical(pd.read_csv(folder() / "zinc250k.csv.gz")["smiles"].sample(25000, random_state=0))
    sources["qm9"] = _quantum(values)
    sources["pubchem"] = _pubchem(values)
    sources["smipoly"] = _canonical(
        pd.read_csv(folder() / "smipoly_polymers.csv.gz")["smiles"].sample(12000, random_state=0)
    )
    sources["polymers"] = polymer_tables(values)
    smiles: dict[str, None] = {}
    described: list[str] = []
    for name, structures in sources.items():
        unique = [text for text in dict.fromkeys(structures) if text and text not in held_out() and text not in smiles]
        smiles |= dict.fromkeys(unique)
        described += list(rng.permutation(np.array(unique, object))[: DESCRIBED[name]])
    for name in LOGARITHMIC & set(values):
        values[name] = {text: float(np.log(value)) for text, value in values[name].items()}
    values = {name: {s: v for s, v in by.items() if s not in held_out()} for name, by in values.items()}
    return Corpus(list(smiles), np.array(["*" in text for text in smiles]), values, described)


def chemicals_table(files: tuple[tuple[str, str], ...], positive: bool) -> dict[str, float]:
    """One property of the `chemicals` package; values outside the central 99.8 % are left out as misprints."""
    structures, found = data.structures(), {}
    for file, column in files:
        rows = pd.read_csv(Path(chemicals.__file__).parent / file, sep="\t", usecols=["CAS", column]).dropna()
        for cas, value in zip(rows["CAS"].astype(str), rows[column], strict=True):
            entry = structures.get(int(cas.replace("-", "")))
            if entry is not None and (value > 0 or not positive) and chem.is_organic(entry[0]):
                found.setdefault(entry[0], float(value))
    low, high = np.quantile(list(found.values()), [0.001, 0.999])
    return {text: value for text, value in found.items() if low <= value <= high}


def _canonical(smiles: Sequence[str]) -> list[str]:
    """Canonical SMILES, of repeat units whichever bond they were cut at; "" for what cannot be read."""
    return [canonical_unit(text) if text and "*" in text else text or "" for text in chem.canonicalize(smiles).smiles]


def _quantum(values: dict[str, dict[str, float]]) -> list[str]:
    """QM9; energies as what is left of them after a linear fit to composition, capacities also by mass."""
    rows = pd.read_csv(folder() / "qm9_subset.csv.gz")
    rows["canonical"] = _canonical(rows["smiles"])
    rows = rows[rows["canonical"] != ""].drop_duplicates("canonical")
    molecules = [Chem.AddHs(Chem.MolFromSmiles(text)) for text in rows["canonical"]]
    numbers = np.array([[sum(a.GetAtomicNum() == z for a in m.GetAtoms()) for z in (1, 6, 7, 8, 9)] for m in molecules])
    mass, heavy = numbers @ [1.008, 12.011, 14.007, 15.999, 18.998], numbers[:, 1:].sum(1)
    table = {
        f"qm9_{name}": rows[name].to_numpy() for name in ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "cv")
    }
    design = np.column_stack([numbers, np.ones(len(rows))])
    table["qm9_binding"] = rows["u0"] - design @ np.linalg.lstsq(design, rows["u0"], rcond=None)[0]
    table |= {"qm9_cv_by_mass": rows["cv"] / mass, "qm9_alpha_by_atom": rows["alpha"] / heavy}
    for name, column in table.items():
        values[name] = dict(zip(rows["canonical"], np.asarray(column, float), strict=True))
    return list(rows["canonical"])


def _pubchem(values: dict[str, dict[str, float]]) -> list[str]:
    rows = pd.read_csv(folder() / "iqspr_qm.csv")
    rows["canonical"] = _canonical(rows["smiles"])
    for name, column in {"pubchem_thermal_energy": "E_thermal", "pubchem_gap": "gap_eV"}.items():
        values[name] = dict(zip(rows["canonical"], rows[column], strict=True))
    return list(rows["canonical"])


def polymer_tables(values: dict[str, dict[str, float]]) -> list[str]:
    rows = pd.read_csv(folder() / "polymer_properties_long.csv")
    rows["canonical"] = _canonical(rows["smiles"])
    for name, part in rows.groupby("dataset"):
        values[f"polymer_{name}"] = part.groupby("canonical")["value"].median().to_dict()
    glass = pd.read_csv(folder() / "polymer_tg.csv")
    glass["canonical"] = _canonical(glass["smiles"])
    values["polymer_Tg"] = glass.groupby("canonical")["Tg_K"].median().to_dict()
    return [*rows["canonical"], *glass["canonical"]]


def descriptors(smiles: list[str]) -> np.ndarray:
    """RDKit's 2-D descriptors, `(n, 217)`, in two processes; kept on disk by molecule."""
    path = cache_dir() / "benchmarks" / f"rdkit-descriptors-{version('rdkit')}.npz"
    known: dict[str, np.ndarray] = {}
    if path.exists():
        stored = read_arrays(path)
        known = dict(zip(stored["smiles"].tolist(), stored["values"], strict=True))
    missing = [text for text in dict.fromkeys(smiles) if text not in known]
    if missing:
        chunks = [missing[start : start + 200] for start in range(0, len(missing), 200)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            found = np.concatenate(list(progress(pool.map(_describe, chunks), "RDKit's descriptors", len(chunks))))
        known |= dict(zip(missing, found, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, smiles=np.array(list(known)), values=np.array(list(known.values()), np.float32))
    return np.array([known[text] for text in smiles])


def _describe(smiles: list[str]) -> np.ndarray:
    RDLogger.DisableLog("rdApp.*")
    rows = [Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(text), missingVal=np.nan) for text in smiles]
    array = np.array([[row[name] for name in DESCRIPTORS] for row in rows], np.float64)
    return np.where(np.abs(array) < 1e6, array, np.nan).astype(np.float32)


class Rows(NamedTuple):
    """Molecules of one size with their targets; NaN where a value is not known."""

    molecules: _message.Atoms
    given: np.ndarray
    targets: np.ndarray


def rows_by_size(corpus: Corpus, targets: np.ndarray) -> list[tuple[Rows, np.ndarray]]:
    """What the network sees, for each number of slots, with the corpus row of each."""
    parts: dict[int, list[tuple[_message.Atoms, np.ndarray, np.ndarray]]] = {slots: [] for slots in SLOTS}
    for polymer, alphabet in ((False, MOLECULES), (True, POLYMERS)):
        mine = np.flatnonzero(corpus.polymer == polymer)
        encoded = chem.encode([corpus.smiles[row] for row in mine], alphabet)
        print(f"{len(encoded.kept)} of {len(mine)} can be said", dict(encoded.refused.most_common(4)), flush=True)
        of_row = mine[encoded.kept]
        sizes = np.asarray([(t > 0).sum() for t in np.where(encoded.tokens <= len(alphabet.atoms), encoded.tokens, 0)])
        previous = 0
        for slots in SLOTS:
            chosen = np.flatnonzero((sizes > previous) & (sizes <= slots))
            previous = slots
            for start in range(0, len(chosen), 2048):
                part = chosen[start : start + 2048]
                tokens = np.zeros((2048, alphabet.length), np.int32)
                tokens[: len(part)] = encoded.tokens[part]
                molecules, given = _prepare(jnp.asarray(tokens), alphabet, slots)
                number = len(part)
                cut = jax.tree.map(lambda leaf, m=number: np.asarray(leaf)[:m], (molecules, given))
                parts[slots].append((*cut, of_row[part]))
    found = []
    for pieces in parts.values():
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(piece[:2] for piece in pieces))
        row = np.concatenate([piece[2] for piece in pieces])
        found.append((Rows(joined[0], joined[1], targets[row]), row))
    return found


@eqx.filter_jit
def _prepare(tokens: Array, alphabet: chem.Alphabet, slots: int) -> tuple[_message.Atoms, Array]:
    def one(x: Array) -> tuple[_message.Atoms, Array]:
        graph = chem.decode(x, alphabet)
        return nn.atoms(graph, alphabet, slots), nn.given_features(graph, alphabet)

    return jax.vmap(one)(tokens)


class Model(eqx.Module):
    """The network with what its loss needs; only the network learns."""

    network: nn.MessageNetwork
    weight: Array


def loss(model: Model, batch: Rows, key: Array | None) -> tuple[Array, Array]:
    """Sum over molecules of the weighted mean of squared errors, clipped where a descriptor runs away."""
    phi = jax.vmap(model.network)(batch.molecules, batch.given)
    error = model.network.tasks(phi) - jnp.nan_to_num(batch.targets)
    known = jnp.isfinite(batch.targets)
    cost = jnp.where(jnp.abs(error) < 3.0, error**2, 6.0 * jnp.abs(error) - 9.0)
    weight = jax.lax.stop_gradient(model.weight) * known
    return (cost * weight).sum(), jnp.asarray(len(batch.given), jnp.float32)


def batches(parts: list[Rows], seed: int) -> list[Rows]:
    """One pass over the rows in random order; the last short batch of each size waits for the next pass."""
    rng = np.random.default_rng(seed)
    found = []
    for rows in parts:
        order = rng.permutation(len(rows.given))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            pick = np.sort(order[start : start + BATCH])
            found.append(jax.tree.map(lambda leaf, pick=pick: leaf[pick], rows))
    return [found[index] for index in rng.permutation(len(found))]


def _split(parts: list[tuple[Rows, np.ndarray]], held: np.ndarray) -> Iterator[tuple[Rows, Rows]]:
    for rows, row in parts:
        test = held[row]
        yield tuple(jax.tree.map(lambda leaf, keep=keep: leaf[keep], rows) for keep in (~test, test))  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    corpus = gather(rng)
    described = descriptors(corpus.described)
    tasks = [*corpus.values, *(f"rdkit_{name}" for name in DESCRIPTORS)]
    place = {text: row for row, text in enumerate(corpus.smiles)}
    raw = np.full((len(corpus.smiles), len(tasks)), np.nan)
    for column, by_smiles in enumerate(corpus.values.values()):
        for text, value in by_smiles.items():
            if text in place:
                raw[place[text], column] = value
    raw[[place[text] for text in corpus.described], len(corpus.values) :] = described
    center, width = np.nanmean(raw, 0), np.nanstd(raw, 0)
    kept = width > 1e-6 * np.maximum(1.0, np.abs(center))
    tasks = [name for name, keep in zip(tasks, kept, strict=True) if keep]
    center, width = center[kept], width[kept]
    targets = np.clip((raw[:, kept] - center) / width, -8, 8).astype(np.float32)
    number = np.isfinite(targets).sum(0)
    print(f"{len(corpus.smiles)} structures, {len(tasks)} tasks", flush=True)

    parts = rows_by_size(corpus, targets)
    held = rng.random(len(corpus.smiles)) < 0.03
    train_parts, test_parts = zip(*_split(parts, held), strict=True)
    is_property = np.array([not name.startswith("rdkit_") for name in tasks])
    # A property counts as much as thirty descriptors, whatever the number of its values.
    weight = np.where(is_property, 1.0, 1.0 / 30.0) * np.minimum(len(targets) / number, 60.0) ** 0.75
    given = np.concatenate([rows.given for rows in train_parts])
    network = nn.MessageNetwork.init(jax.random.key(options.seed), jnp.asarray(given), len(tasks))
    model = Model(network, jnp.asarray(weight / weight.mean(), jnp.float32))
    test = [part for rows in test_parts for part in batches([rows], 0)]
    begin = time.perf_counter()
    schedule = nn.Schedule(epochs=options.epochs, learning_rate=2e-3, time_limit=60 * options.minutes, patience=100)
    trained = nn.train(model, loss, lambda epoch: batches(list(train_parts), epoch), test, schedule,
                       report=lambda e: print(e, flush=True))  # fmt: skip
    seconds = time.perf_counter() - begin
    r2 = scores(trained.model, test)
    card = {
        "what": "message-passing network pre-trained on RDKit's 2-D descriptors and measured properties",
        "corpus": {"structures": len(corpus.smiles), "left_out": len(held_out()),
                   "left_out_sha256": hashlib.sha256("\n".join(sorted(held_out())).encode()).hexdigest(),
                   "sources": "chemicals (MIT), ZINC250k (MIT), QM9 subset (CC0), PubChem with DFT (iQSPR-X data), "
                              "SMiPoly (BSD-3-Clause), polymer data of TransPolymer (MIT), polymer Tg"},
        "training": {"command": f"python benchmarks/pretrain_extractor.py --minutes {options.minutes}",
                     "seconds": round(seconds), "epochs": trained.best.number, "stop": trained.stop.value,
                     "seed": options.seed, "held_out_share": 0.03},
        "tasks": [{"name": name, "mean": float(m), "sd": float(s), "log": name in LOGARITHMIC, "values": int(n),
                   "r2": None if not np.isfinite(r) else round(float(r), 4)}
                  for name, m, s, n, r in zip(tasks, center, width, number, r2, strict=True)],
        "licence": "Apache-2.0",
    }  # fmt: skip
    nn.save_network(trained.model.network, options.out, card)
    print(json.dumps({task["name"]: task["r2"] for task in card["tasks"] if not task["name"].startswith("rdkit_")}))
    rdkit = [task["r2"] for task in card["tasks"] if task["name"].startswith("rdkit_") and task["r2"] is not None]
    print(f"descriptors: median R² {np.median(rdkit):.3f}, a tenth below {np.quantile(rdkit, 0.1):.3f}")


def scores(model: Model, test: list[Rows]) -> np.ndarray:
    """R² of each task on molecules held out."""
    predict = eqx.filter_jit(
        lambda model, part: model.network.tasks(jax.vmap(model.network)(part.molecules, part.given))
    )
    found = np.concatenate([np.asarray(predict(model, part)) for part in test])
    true = np.concatenate([part.targets for part in test])
    residual, spread = np.nansum((true - found) ** 2, 0), np.nansum((true - np.nanmean(true, 0)) ** 2, 0)
    return np.where(spread > 0, 1 - residual / np.maximum(spread, 1e-9), np.nan)


if __name__ == "__main__":
    main()
