"""Fits on disk: a JSON card, plain arrays and a NetCDF posterior; nothing that could run code when it is read."""

from __future__ import annotations

import functools
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
from ..nn import Entry, Network, Stack, Weights, extractor
from ._applicability import Applicability
from ._basis import Basis
from ._fitted import Fitted
from ._predictor import Linear, LinearPredictor, Predictor, ProcessPredictor
from ._process import Average, Block, Process

FORMAT = 11
"""Raise it whenever features, models or files change their meaning: older fits are then made anew."""

_CALIBRATION_ARRAYS = ("observed", "mean", "lower90", "upper90", "pit")
_CARD = "card.json"
_FILES = ("arrays.npz", "posterior.nc")


def fingerprint(
    table: PropertyTable,
    alphabet: Alphabet,
    sources: tuple[Fitted, ...],
    library: Stack | None,
    options: list[Any],
    key: Array,
) -> str:
    """sha256 of everything that a fit depends on."""
    try:
        version = importlib.metadata.version("bayesmat")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    key_data = np.asarray(jax.random.key_data(key)) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    header = {
        "format": [FORMAT, version, _code_digest(), extractor().digest],
        "table": [table.name, table.label, table.unit, table.smiles],
        "alphabet": asdict(alphabet),
        "sources": [source.fingerprint for source in sources],
        "library": [entry.sha256 for entry in library.entries] if library else [],
        "options": [*options, np.asarray(key_data).ravel().tolist()],
    }
    digest = hashlib.sha256(json.dumps(header).encode())
    digest.update(np.ascontiguousarray(table.y, np.float64).tobytes())
    return digest.hexdigest()


@functools.cache
def _code_digest() -> str:
    """sha256 of the code that fits: between two versions in development a cached fit would be another's."""
    package = Path(__file__).parent.parent
    sources = [path for layer in ("chem", "nn", "infer", "forward") for path in sorted((package / layer).glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


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
    folder = check_target(folder)
    with replacing_folder(folder) as partial:
        _write(fitted, partial)
    return folder


def check_target(folder: str | Path) -> Path:
    """The folder, if `save` may write there: it is new, empty, or holds a fit.

    Raises:
        BayesmatError: it is a file, or holds something else.
    """
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    try:
        kind = json.loads((folder / _CARD).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = ""
    if kind != "forward model":
        raise BayesmatError(f"{folder} exists and is not a saved fit; name a new or an empty folder")
    return folder


def load(folder: str | Path) -> Fitted:
    """Read what `save` wrote; the predictor has the same bits.

    Raises:
        BayesmatError: the folder is no saved fit, is damaged, or was written by another version.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise BayesmatError(f"{folder} has format {card['format']}, this version reads {FORMAT}")
        if card["extractor"] != extractor().digest:
            raise BayesmatError(f"{folder} was fitted with another extractor than this version ships; fit it again")
        for name in _FILES:
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != card["sha256"][name]:
                raise BayesmatError(f"{folder / name} is damaged")
        arrays = read_arrays(folder / "arrays.npz")
        sources = tuple(load(folder / f"source-{index}") for index in range(card["num_sources"]))
        return _assemble(card, arrays, sources, infer.load(folder / "posterior.nc"))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BayesmatError):
            raise
        raise BayesmatError(f"{folder} is not a saved fit, or is damaged: {error}") from error


def _write(fitted: Fitted, folder: Path) -> None:
    calibration = fitted.calibration
    arrays: dict[str, np.ndarray] = {}
    structure = {"predictor": _pack(fitted.predictor, "predictor", arrays)}
    arrays |= {f"applicability/{name}": array for name, array in fitted.applicability.arrays().items()}
    arrays |= {f"calibration/{name}": getattr(calibration, name) for name in _CALIBRATION_ARRAYS}
    arrays |= {"y": fitted.y, "loo_mean": fitted.loo_mean}
    plain: dict[str, Any] = arrays
    np.savez(folder / "arrays.npz", **plain)
    infer.save(fitted.idata, folder / "posterior.nc")
    card = {
        "format": FORMAT,
        "kind": "forward model",
        "name": fitted.name,
        "label": fitted.label,
        "unit": fitted.unit,
        "extractor": extractor().digest,
        **structure,
        "calibration": {
            "kind": calibration.kind,
            "nll": calibration.nll,
            "crps": calibration.crps,
            "crps_unit": calibration.crps_unit,
        },
        "fingerprint": fitted.fingerprint,
        "num_sources": len(fitted.sources),
        "unrelated": fitted.unrelated,
        "sha256": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _FILES},
        "set_aside": [[refusal.index, refusal.smiles, refusal.reason] for refusal in fitted.set_aside],
        "smiles": fitted.smiles,
    }
    for index, source in enumerate(fitted.sources):
        (folder / f"source-{index}").mkdir()
        _write(source, folder / f"source-{index}")
    (folder / _CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")


def _assemble(card: dict, arrays: dict[str, np.ndarray], sources: tuple[Fitted, ...], idata: Any) -> Fitted:
    predictor = _unpack(card["predictor"], arrays)
    if not isinstance(predictor, Predictor):
        raise BayesmatError("a saved fit holds no predictor")
    judged: dict[str, Any] = card["calibration"] | {n: arrays[f"calibration/{n}"] for n in _CALIBRATION_ARRAYS}
    calibration = infer.Calibration(label=card["label"], unit=card["unit"], **judged)
    begin = "applicability/"
    familiar = Applicability.from_arrays({n[len(begin) :]: a for n, a in arrays.items() if n.startswith(begin)})
    set_aside = tuple(Refusal(*refusal) for refusal in card["set_aside"])
    return Fitted(card["name"], card["label"], card["unit"], predictor, idata, calibration, familiar,
                  tuple(card["smiles"]), arrays["y"], arrays["loo_mean"], set_aside, sources,
                  tuple((str(label), float(p)) for label, p in card["unrelated"]), card["fingerprint"])  # fmt: skip


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (LinearPredictor, ProcessPredictor, Linear, Basis, Process, Block, Average, Stack, Network, Weights)
}
"""The modules that a file may ask for; nothing else is made from one."""


def _pack(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """A module as JSON; its arrays go into `arrays` by path."""
    if isinstance(value, jax.Array | np.ndarray):
        arrays[path] = np.asarray(value)
        return {"array": path}
    if isinstance(value, Alphabet):
        return {"alphabet": asdict(value) | {"atoms": [list(atom) for atom in value.atoms]}}
    if isinstance(value, Entry):
        return {"entry": asdict(value)}
    if type(value) in _KINDS.values():
        parts = {name: _pack(getattr(value, name), f"{path}/{name}", arrays) for name in _names(type(value))}
        return {"module": type(value).__name__, "parts": parts}
    if isinstance(value, tuple):
        return [_pack(item, f"{path}/{index}", arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BayesmatError(f"a fit holds {type(value).__name__}, which cannot be stored")


def _names(kind: type) -> tuple[str, ...]:
    """The parts of a module or a named tuple."""
    return tuple(getattr(kind, "_fields", ())) or tuple(field.name for field in fields(kind))


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return tuple(_unpack(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return jnp.asarray(arrays[value["array"]])
    if "alphabet" in value:
        return Alphabet(**(value["alphabet"] | {"atoms": tuple(AtomType(*a) for a in value["alphabet"]["atoms"])}))
    if "entry" in value:
        told: dict[str, Any] = {n: tuple(p) if isinstance(p, list) else p for n, p in value["entry"].items()}
        return Entry(**told)
    kind = _KINDS[value["module"]]
    if set(value["parts"]) != set(_names(kind)):
        raise BayesmatError(f"a saved {value['module']} has parts {sorted(value['parts'])}")
    return kind(**{name: _unpack(part, arrays) for name, part in value["parts"].items()})
