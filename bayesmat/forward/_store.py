"""Fits on disk: a JSON card, plain arrays and a NetCDF posterior; nothing that could run code when it is read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import infer
from .._types import Array, BayesmatError, cache_dir, read_arrays, replacing_folder
from ..chem import Alphabet, AtomType, Refusal
from ..data import PropertyTable
from ..nn import DESCRIPTOR_NAMES, FINGERPRINT_BINS
from ._basis import Basis
from ._fitted import Fitted
from ._predictor import Linear, Predictor

FORMAT = 4
"""Raise it whenever features, models or files change their meaning: older fits are then made anew."""

_BASIS_ARRAYS = tuple(f.name for f in fields(Basis) if f.name != "gamma")
_PREDICTOR_ARRAYS = ("noise_scale", "noise_log_stretch", "noise_slope", "noise_mixing", "novelty_mean", "novelty_scale")
_CALIBRATION_ARRAYS = ("observed", "mean", "lower90", "upper90", "pit")
_FILES = ("arrays.npz", "posterior.nc")


def fingerprint(
    table: PropertyTable, alphabet: Alphabet, sources: tuple[Fitted, ...], num_draws: int, log: bool, key: Array
) -> str:
    """sha256 of everything that a fit depends on."""
    try:
        version = importlib.metadata.version("bayesmat")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    key_data = np.asarray(jax.random.key_data(key)) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    header = {
        "format": [FORMAT, version, DESCRIPTOR_NAMES, FINGERPRINT_BINS],
        "table": [table.name, table.label, table.unit, table.smiles],
        "alphabet": asdict(alphabet),
        "sources": [source.fingerprint for source in sources],
        "options": [num_draws, log, np.asarray(key_data).ravel().tolist()],
    }
    digest = hashlib.sha256(json.dumps(header).encode())
    digest.update(np.ascontiguousarray(table.y, np.float64).tobytes())
    return digest.hexdigest()


def _cache_folder(name: str, fingerprint: str) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]
    return cache_dir() / "forward" / f"{safe}-{fingerprint[:20]}"


def from_cache(name: str, fingerprint: str) -> Fitted | None:
    """The cached fit, or None where there is none or it is damaged."""
    try:
        fitted = load(_cache_folder(name, fingerprint))
    except BayesmatError:
        return None
    return fitted if fitted.fingerprint == fingerprint else None


def to_cache(fitted: Fitted) -> Path:
    """Save under the name that `from_cache` looks for."""
    return save(fitted, _cache_folder(fitted.name, fitted.fingerprint))


def save(fitted: Fitted, folder: str | Path) -> Path:
    """Write a fit and its sources into a folder, which appears only once it is complete.

    Raises:
        BayesmatError: the folder exists and holds something else than a fit.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "card.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise BayesmatError(f"{folder} exists and is not a saved fit")
    with replacing_folder(folder) as partial:
        _write(fitted, partial)
    return folder


def load(folder: str | Path) -> Fitted:
    """Read what `save` wrote; the predictor has the same bits.

    Raises:
        BayesmatError: the folder is no saved fit, is damaged, or was written by another version.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise BayesmatError(f"{folder} has format {card['format']}, this version reads {FORMAT}")
        for name in _FILES:
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != card["sha256"][name]:
                raise BayesmatError(f"{folder / name} is damaged")
        arrays = read_arrays(folder / "arrays.npz")
        sources = tuple(load(folder / f"source-{index}") for index in range(card["num_sources"]))
        return _assemble(card, arrays, sources, infer.load(folder / "posterior.nc"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BayesmatError):
            raise
        raise BayesmatError(f"{folder} is not a saved fit, or is damaged: {error}") from error


def _write(fitted: Fitted, folder: Path) -> None:
    predictor, calibration = fitted.predictor, fitted.calibration
    arrays: dict[str, Any] = {f"predictor/{name}": getattr(predictor, name) for name in _PREDICTOR_ARRAYS}
    gammas: dict[str, float] = {}
    _flatten(predictor.linear, "linear", arrays, gammas)
    arrays |= {f"calibration/{name}": getattr(calibration, name) for name in _CALIBRATION_ARRAYS}
    arrays |= {"y": fitted.y, "loo_mean": fitted.loo_mean}
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(folder / "arrays.npz", **plain)
    infer.save(fitted.idata, folder / "posterior.nc")
    card = {
        "format": FORMAT,
        "name": fitted.name,
        "label": fitted.label,
        "unit": fitted.unit,
        "log": predictor.log,
        "alphabet": asdict(predictor.alphabet) | {"atoms": [list(atom) for atom in predictor.alphabet.atoms]},
        "gammas": gammas,
        "calibration": {
            "kind": calibration.kind,
            "nll": calibration.nll,
            "crps": calibration.crps,
            "crps_unit": calibration.crps_unit,
        },
        "fingerprint": fitted.fingerprint,
        "num_sources": len(fitted.sources),
        "sha256": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _FILES},
        "set_aside": [[refusal.index, refusal.smiles, refusal.reason] for refusal in fitted.set_aside],
        "smiles": fitted.smiles,
    }
    for index, source in enumerate(fitted.sources):
        (folder / f"source-{index}").mkdir()
        _write(source, folder / f"source-{index}")
    (folder / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")


def _assemble(card: dict, arrays: dict[str, np.ndarray], sources: tuple[Fitted, ...], idata: Any) -> Fitted:
    atoms = tuple(AtomType(*atom) for atom in card["alphabet"]["atoms"])
    named: dict[str, Any] = {name: card[name] for name in ("log", "name", "label", "unit")}
    named |= {name: jnp.asarray(arrays[f"predictor/{name}"]) for name in _PREDICTOR_ARRAYS}
    alphabet = Alphabet(**(card["alphabet"] | {"atoms": atoms}))
    predictor = Predictor(_restore("linear", arrays, card["gammas"]), alphabet=alphabet, **named)
    judged: dict[str, Any] = card["calibration"] | {n: arrays[f"calibration/{n}"] for n in _CALIBRATION_ARRAYS}
    calibration = infer.Calibration(label=card["label"], unit=card["unit"], **judged)
    set_aside = tuple(Refusal(*refusal) for refusal in card["set_aside"])
    return Fitted(card["name"], card["label"], card["unit"], predictor, idata, calibration, tuple(card["smiles"]),
                  arrays["y"], arrays["loo_mean"], set_aside, sources, card["fingerprint"])  # fmt: skip


def _flatten(linear: Linear, prefix: str, arrays: dict[str, Any], gammas: dict[str, float]) -> None:
    arrays[f"{prefix}/weights"] = linear.weights
    arrays |= {f"{prefix}/{name}": getattr(linear.basis, name) for name in _BASIS_ARRAYS}
    gammas[prefix] = linear.basis.gamma
    for index, source in enumerate(linear.sources):
        _flatten(source, f"{prefix}/source-{index}", arrays, gammas)


def _restore(prefix: str, arrays: dict[str, np.ndarray], gammas: dict[str, float]) -> Linear:
    parts: dict[str, Any] = {name: jnp.asarray(arrays[f"{prefix}/{name}"]) for name in _BASIS_ARRAYS}
    basis = Basis(**parts, gamma=gammas[prefix])
    count = sum(f"{prefix}/source-{index}" in gammas for index in range(len(gammas)))
    sources = tuple(_restore(f"{prefix}/source-{index}", arrays, gammas) for index in range(count))
    return Linear(basis, jnp.asarray(arrays[f"{prefix}/weights"]), sources)
