"""Priors on disk: a JSON card and plain arrays; nothing that could run code when it is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem
from .._types import BayesmatError, read_arrays, replacing_folder
from ._kneser_ney import Tables
from ._neural import Neural
from ._ngram import NGram
from ._recurrent import NUM_FEATURES, Network

FORMAT = 1
"""Raise it whenever arrays or features change their meaning."""

_CARD, _ARRAYS = "card.json", "arrays.npz"
_FLOATS = {"token", "place", "recurrent", "candidate", "keep", "output", "output_bias", "probability", "factor"}


def save(prior: Neural | NGram, folder: str | Path, licence: str = "") -> Path:
    """Write a prior into a folder: `card.json` says what it is, `arrays.npz` holds its numbers.

    Args:
        prior: a neural or an n-gram prior.
        folder: it appears once it is complete; a prior that was saved there before is replaced.
        licence: under which the arrays may be used, for the card.

    Raises:
        BayesmatError: the folder holds something else, or cannot be written.
    """
    folder = check_target(folder)
    with replacing_folder(folder) as partial:
        _write(prior, partial, licence)
    return folder


def check_target(folder: str | Path) -> Path:
    """The folder, if `save` may write there; worth asking before a long training.

    Raises:
        BayesmatError: it is a file, or holds something else than a saved prior.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _CARD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise BayesmatError(f"{folder} exists and is not a saved prior; name a new or an empty folder")
    return folder


def _write(prior: Neural | NGram, folder: Path, licence: str) -> None:
    arrays = {name: np.asarray(array) for name, array in _arrays_of(prior).items()}
    named: dict[str, Any] = arrays
    np.savez_compressed(folder / _ARRAYS, **named)
    about: dict[str, Any] = {"corpus": {"set_aside": dict(getattr(prior, "set_aside", {}))}}
    if isinstance(prior, Neural):
        about |= prior.card
    card: dict[str, Any] = {
        "format": FORMAT,
        "kind": "neural" if isinstance(prior, Neural) else "ngram",
        "alphabet": prior.alphabet.to_card(),
        "sizes": {name: list(array.shape) for name, array in arrays.items()},
        **{name: about[name] for name in ("corpus", "training", "held_out") if name in about},
        "licence": licence or about.get("licence", ""),
        "sha256": hashlib.sha256((folder / _ARRAYS).read_bytes()).hexdigest(),
    }
    (folder / _CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _arrays_of(prior: Neural | NGram) -> Mapping[str, jax.Array]:
    source = prior.network if isinstance(prior, Neural) else prior
    names = Network.__dataclass_fields__ if isinstance(prior, Neural) else Tables._fields
    return {name: getattr(source, name) for name in names}


def read(folder: str | Path, alphabet: chem.Alphabet | None = None) -> Neural | NGram:
    """Read what `save` wrote; the prior has the same bits.

    Args:
        folder: the folder.
        alphabet: None for the one it was trained with; another one may differ from it in `length` and `max_depth`.

    Raises:
        BayesmatError: the folder is no saved prior, is damaged or of another format, or the alphabet does not fit.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise BayesmatError(f"{folder} has format {card['format']}, this version reads {FORMAT}")
        if hashlib.sha256((folder / _ARRAYS).read_bytes()).hexdigest() != card["sha256"]:
            raise BayesmatError(f"{folder / _ARRAYS} is damaged: its sha256 is not the card's")
        arrays = read_arrays(folder / _ARRAYS)
        own = chem.Alphabet.from_card(card["alphabet"])
        prior = _assemble(card["kind"], arrays, own)
        prior.set_aside = Counter(card["corpus"]["set_aside"])
    except BayesmatError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BayesmatError(f"{folder} is not a saved prior, or is damaged: {error!r}") from error
    if alphabet is not None:
        _check_fits(alphabet, own, folder)
        prior = _assemble(card["kind"], arrays, alphabet)
        prior.set_aside = Counter(card["corpus"]["set_aside"])
    if isinstance(prior, Neural):
        prior.card = card
    return prior


def _check_fits(alphabet: chem.Alphabet, own: chem.Alphabet, folder: Path) -> None:
    for name in ("atoms", "max_rings", "attachments"):
        asked, stored = getattr(alphabet, name), getattr(own, name)
        if asked != stored:
            raise BayesmatError(
                f"the prior in {folder} was trained with another alphabet: {name} is {stored} there and {asked} in "
                f"what was asked for; allowed to differ are length and max_depth"
            )


def _assemble(kind: str, arrays: dict[str, np.ndarray], alphabet: chem.Alphabet) -> Neural | NGram:
    if kind not in ("neural", "ngram"):
        raise BayesmatError(f"a prior of kind {kind!r}; known: neural, ngram")
    for name, array in arrays.items():
        if array.dtype.kind != ("f" if name in _FLOATS else "i") or not np.isfinite(array).all():
            raise BayesmatError(f"array {name!r} of a saved prior holds {array.dtype} or is not finite")
    if kind == "ngram":
        _check_shapes(arrays, _table_shapes(arrays, alphabet))
        start = int(arrays["start"])
        return NGram(Tables(arrays["step"], arrays["row"], arrays["probability"], start, arrays["factor"]), alphabet)
    _check_shapes(arrays, _network_shapes(arrays, alphabet))
    return Neural(Network(**{name: jnp.asarray(array) for name, array in arrays.items()}), alphabet)


def _network_shapes(arrays: dict[str, np.ndarray], alphabet: chem.Alphabet) -> dict[str, tuple[int, ...]]:
    tokens, hidden, remembered = alphabet.num_tokens, len(arrays["recurrent"]), len(arrays["keep"])
    if remembered > hidden:
        raise BayesmatError(f"a saved network remembers {remembered} of {hidden} channels")
    return {
        "token": (tokens, 3 * hidden),
        "place": (NUM_FEATURES, 3 * hidden),
        "recurrent": (hidden, 3 * hidden),
        "candidate": (hidden,),
        "keep": (remembered,),
        "output": (hidden, tokens),
        "output_bias": (tokens,),
    }


def _table_shapes(arrays: dict[str, np.ndarray], alphabet: chem.Alphabet) -> dict[str, tuple[int, ...]]:
    states, rows = len(arrays["step"]), len(arrays["probability"])
    if not 0 <= arrays["row"].min() <= arrays["row"].max() < rows or not 0 <= arrays["start"] < states:
        raise BayesmatError("a saved n-gram points outside its tables")
    if not 0 <= arrays["step"].min() <= arrays["step"].max() < states:
        raise BayesmatError("a saved n-gram points outside its contexts")
    return {
        "step": (states, alphabet.num_tokens),
        "row": (states, *arrays["row"].shape[1:]),
        "probability": (rows, alphabet.num_tokens),
        "start": (),
        "factor": (max(1, len(arrays["factor"])), int(alphabet.kind.max()) + 1),
    }


def _check_shapes(arrays: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected:
        raise BayesmatError(f"the arrays of a saved prior have shapes {shapes}; expected are {expected}")
