"""Fitting priors to a corpus, once: the result is kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import chem, data
from .._types import BayesmatError, cache_dir, read_arrays, replacing
from . import _files
from ._kneser_ney import Tables
from ._neural import Neural
from ._ngram import NGram, tables_from_tokens

_FORMAT = 6
"""Raised whenever the tables of the same corpus would come out differently."""

_PRESETS = {"organic": chem.Alphabet.organic, "polymer": chem.Alphabet.polymer}
"""The alphabet of each corpus of `data` that priors are fitted to."""

_KINDS = ("ngram", "neural")


def names(kind: str = "ngram") -> tuple[str, ...]:
    """The priors of a kind that `load` knows: n-grams by corpus, neural ones by the weights that are shipped.

    Raises:
        BayesmatError: there is no such kind.
    """
    if kind not in _KINDS:
        raise BayesmatError(f"no priors of kind {kind!r}; known: {', '.join(_KINDS)}")
    if kind == "ngram":
        return tuple(_PRESETS)
    return tuple(sorted(path.parent.name for path in _weights_folder().glob("*/card.json")))


def _weights_folder() -> Path:
    return Path(__file__).parent / "weights"


def load(name: str | Path = "organic", alphabet: chem.Alphabet | None = None, kind: str = "ngram") -> NGram | Neural:
    """A prior by name, or from a folder that `save` wrote.

    An n-gram is fitted to the structures of `data.corpus` on first use (about half a minute), then cached. The
    weights of a neural prior come with the package.

    Args:
        name: one of `names(kind)`, or a folder; a folder's card says its kind.
        alphabet: None for the preset of that name. For a neural prior and for a folder it may differ from the
            prior's own in `length` and `max_depth`.
        kind: "ngram" or "neural".

    Raises:
        BayesmatError: there is no prior of that name, or the folder holds none.
    """
    known = names(kind)
    if isinstance(name, str) and name in known:
        if kind == "neural":
            return _files.read(_weights_folder() / name, alphabet)
        return fit_ngram(data.corpus(name).smiles, alphabet or _PRESETS[name](), cache=True)
    if isinstance(name, Path) or Path(name).is_dir():
        return _files.read(name, alphabet)
    raise BayesmatError(f"no prior {name!r}; known: {', '.join(known) or 'none of this kind'}; or name a folder")


def fit_ngram(
    smiles: Sequence[str],
    alphabet: chem.Alphabet | None = None,
    order: int = 10,
    min_count: int = 3,
    cache: bool = False,
) -> NGram:
    """An n-gram prior fitted to molecules of your own.

    Args:
        smiles: the corpus; what the alphabet cannot say is left out, `NGram.set_aside` counts it by reason.
        alphabet: None for `Alphabet.organic()`.
        order: tokens that an estimate looks at, the predicted one included.
        min_count: contexts of three and more tokens that were seen less often are left to the shorter ones.
        cache: whether to keep the result in the cache folder and to look there first.

    Raises:
        BayesmatError: `order` is out of range, or the alphabet can say none of the molecules.

    >>> prior = fit_ngram(["CCO", "CCN", "CC(C)O", "c1ccccc1"], order=4)
    >>> bool(prior.log_prob(chem.encode("CCCO", prior.alphabet).tokens[0]) < 0)
    True
    """
    if not 2 <= order <= 11:
        raise BayesmatError(f"order is {order}; allowed are 2 to 11")
    alphabet = alphabet or chem.Alphabet.organic()
    path = cache_dir() / "prior" / f"ngram-{_fingerprint(smiles, alphabet, order, min_count)}.npz"
    if cache and (found := _read(path)) is not None:
        return _with_count(NGram(found[0], alphabet), found[1])
    encoded = chem.encode(smiles, alphabet, description="corpus of the prior, once")
    if not len(encoded.tokens):
        raise BayesmatError(f"the alphabet can say none of the {len(smiles)} molecules: {dict(encoded.refused)}")
    tables = tables_from_tokens(encoded.tokens, alphabet, order, min_count)
    if cache:
        _write(path, tables, encoded.refused)
    return _with_count(NGram(tables, alphabet), encoded.refused)


def _with_count(prior: NGram, refused: Counter[str]) -> NGram:
    prior.set_aside = refused
    return prior


def _fingerprint(smiles: Sequence[str], alphabet: chem.Alphabet, order: int, min_count: int) -> str:
    digest = hashlib.sha256()
    settings = [_FORMAT, metadata.version("rdkit"), repr(alphabet), order, min_count]
    digest.update(json.dumps(settings).encode())
    for text in smiles:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()[:24]


def _read(path: Path) -> tuple[Tables, Counter[str]] | None:
    """The cached tables; None when there are none or the file is damaged."""
    try:
        file = read_arrays(path)
        tables = Tables(file["step"], file["row"], file["probability"], int(file["start"]), file["factor"])
        return tables, Counter(json.loads(str(file["refused"])))
    except (ValueError, KeyError):
        return None


def _write(path: Path, tables: Tables, refused: Counter[str]) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, **tables._asdict(), refused=np.array(json.dumps(dict(refused))))
