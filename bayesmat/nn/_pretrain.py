"""From tables of measured properties to a library of pre-trained models."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from .._types import Array, BayesmatError
from ..chem import Alphabet, canonicalize, decode, encode
from ._descriptors import DESCRIPTOR_NAMES, descriptors
from ._ensemble import MIN_ROWS, Member, check_settings, train_ensemble
from ._extractor import GIVEN_NAMES, extractor
from ._features import Features, featurize
from ._library import FeatureSet, Library, entry_of
from ._physicochemical import PHYSICOCHEMICAL_NAMES, physicochemical

_BLOCK = 2048  # molecules in one call of a featurizer


class Measured(Protocol):
    """What is needed of a table; a `data.PropertyTable` has it. Structures that occur twice get their median."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def smiles(self) -> Sequence[str]: ...
    @property
    def y(self) -> np.ndarray: ...
    @property
    def sources(self) -> Sequence[str]: ...


class Featurizer(NamedTuple):
    """How base features are made, under a name and a version that go into the card of a library.

    Attributes:
        feature_set: name, version and the names of the d features.
        compute: `(tokens (length,), alphabet) → (d,)`, traced by JAX.
    """

    feature_set: FeatureSet
    compute: Callable[[Array, Alphabet], Array]

    def __call__(self, tokens: np.ndarray, alphabet: Alphabet) -> np.ndarray:
        """Base features `(n, d)` float32 of `(n, length)` strings, in blocks of two sizes."""
        block = 64 if len(tokens) <= 64 else _BLOCK
        out = np.zeros((len(tokens), len(self.feature_set.features)), np.float32)
        for start in range(0, len(tokens), block):
            rows = tokens[start : start + block]
            padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))
            out[start : start + block] = _compiled(self.compute, alphabet)(padded)[: len(rows)]
        return out


@functools.lru_cache(maxsize=8)
def _compiled(compute: Callable[[Array, Alphabet], Array], alphabet: Alphabet) -> Callable[[np.ndarray], Array]:
    return jax.jit(jax.vmap(lambda tokens: compute(tokens, alphabet)))


def _counted(tokens: Array, alphabet: Alphabet) -> Array:
    """Counts and physico-chemical descriptors, as signed logarithms so that large molecules do not dominate."""
    graph = decode(tokens, alphabet)
    values = jnp.concatenate([descriptors(graph, alphabet), physicochemical(graph, alphabet)])
    return jnp.sign(values) * jnp.log1p(jnp.abs(values))


def base_features(features: Features) -> Array:
    """What the networks of a library of the shipped kind read, `(..., d)`: descriptors, physical ones, φ."""
    return jnp.concatenate([features.descriptors, features.physical, features.learned], -1)


def _learned(tokens: Array, alphabet: Alphabet) -> Array:
    return base_features(featurize(tokens, alphabet))


@functools.cache
def learned() -> Featurizer:
    """Descriptors and φ of the shipped extractor: what a library is trained on unless told otherwise."""
    shipped = extractor()
    names = (*GIVEN_NAMES, *(f"learned_{index}" for index in range(shipped.num_features)))
    return Featurizer(FeatureSet("learned", shipped.digest[:16], names), _learned)


COUNTED = Featurizer(FeatureSet("counted", "1", (*DESCRIPTOR_NAMES, *PHYSICOCHEMICAL_NAMES)), _counted)
"""`descriptors` and `physicochemical`: base features with nothing learned in them."""


class _Structures(NamedTuple):
    smiles: list[str]  # canonical, of the rows of x
    x: np.ndarray  # (n, d)
    heavy_atoms: np.ndarray  # (n,)
    refused: Counter[str]


def train_library(
    tables: Sequence[Measured],
    num_models: int,
    *,
    seed: int = 0,
    featurizer: Featurizer | None = None,
    exclude: Iterable[str] = (),
    per_atom: Iterable[str] = (),
    widths: tuple[int, int] = (16, 256),
    max_rows: int = 3000,
    group_size: int = 32,
    licence: str = "",
    progress: bool = True,
) -> Library:
    """Pre-train networks of random shape, evenly over the properties, and keep all of them.

    Structures become canonical first, so a molecule is excluded however it is written. What cannot be read or said
    by the alphabets is left out and counted in `Library.about`, as are properties with fewer than 50 usable rows. An
    interrupt (Ctrl-C) ends the training early once a group of networks is complete.

    Args:
        tables: measured properties; tables of one name are one property.
        num_models: how many networks.
        seed: the same seed and tables give the same library, up to rounding.
        featurizer: how base features are made; `learned()` if None.
        exclude: SMILES of molecules that no network may see, such as the test set of a later comparison.
        per_atom: names of properties whose value per heavy atom is a property as well.
        widths: of hidden layers, the smallest and the largest that are drawn.
        max_rows: that a network is trained on.
        group_size: networks trained at once.
        licence: of the models, for the card.
        progress: show a bar and the time left.

    Raises:
        BayesmatError: there is no usable property, one name has two units, an excluded SMILES cannot be read, or a
            number is out of range.
    """
    check_settings(num_models, widths, max_rows, group_size)
    featurizer = learned() if featurizer is None else featurizer
    grouped = _by_name(tables)
    per_atom = tuple(per_atom)
    if unknown := sorted(set(per_atom) - set(grouped)):
        raise BayesmatError(f"no property {unknown[0]!r} to divide by atoms; known: {', '.join(grouped)}")
    forbidden = _canonical_set(exclude)
    texts = list(dict.fromkeys(text for table in tables for text in table.smiles))
    read = canonicalize(texts)
    canonical = dict(zip(texts, read.smiles, strict=True))
    distinct = sorted({smiles for smiles in read.smiles if smiles is not None})
    allowed = [smiles for smiles in distinct if smiles not in forbidden]
    found = _structures(allowed, featurizer)
    row = {smiles: index for index, smiles in enumerate(found.smiles)}
    columns = {name: _column(parts, canonical, row) for name, parts in grouped.items()}
    columns |= {f"{name}_per_atom": columns[name] / found.heavy_atoms for name in per_atom}
    rows = {name: int(np.isfinite(column).sum()) for name, column in columns.items()}
    used = [name for name in columns if rows[name] >= MIN_ROWS and np.nanstd(columns[name]) > 0]
    about = {
        "structures": len(found.smiles),
        "excluded": len(distinct) - len(allowed),
        "refused": dict(Counter(reason for reason in read.reasons if reason is not None) + found.refused),
        "properties_left_out": {name: rows[name] for name in columns if name not in used},
        "asked_for": num_models,
    }
    if not used:
        raise BayesmatError(f"no property has {MIN_ROWS} usable rows that differ: {about}")
    y = np.stack([columns[name] for name in used], 1)
    groups = train_ensemble(found.x, y, num_models, seed=seed, widths=widths, max_rows=max_rows, group_size=group_size,
                            progress=progress)  # fmt: skip
    members: list[Member] = []
    try:
        for group in groups:
            members += group
    except KeyboardInterrupt:
        if not members:
            raise
    starred = np.array(["*" in smiles for smiles in found.smiles])
    said = {name: _said(name, grouped, starred[np.isfinite(columns[name])]) for name in used}
    members.sort(key=lambda member: member.seed)
    entries = [
        entry_of(member, used[member.target], **said[used[member.target]], licence=licence) for member in members
    ]
    numbers = {entry.name: member for entry, member in zip(entries, members, strict=True)}
    return Library(featurizer.feature_set, numbers, {entry.name: entry for entry in entries}, about)


def _by_name(tables: Sequence[Measured]) -> dict[str, list[Measured]]:
    grouped: dict[str, list[Measured]] = {}
    for table in tables:
        same = grouped.setdefault(table.name, [])
        if same and same[0].unit != table.unit:
            raise BayesmatError(f"property {table.name!r} is given in {same[0].unit!r} and in {table.unit!r}")
        same.append(table)
    return grouped


def _canonical_set(smiles: Iterable[str]) -> frozenset[str]:
    texts = list(smiles)
    read = canonicalize(texts, "excluded structures")
    for text, found, reason in zip(texts, read.smiles, read.reasons, strict=True):
        if found is None:
            raise BayesmatError(f"{text!r} cannot be excluded, since it cannot be read: {reason}")
    return frozenset(found for found in read.smiles if found is not None)


def _structures(smiles: Sequence[str], featurizer: Featurizer) -> _Structures:
    """Features of what the alphabets can say: repeat units by that of polymers, molecules by the organic one."""
    kept: list[str] = []
    parts, heavy, refused = [], [], Counter[str]()
    for alphabet, is_polymer in ((Alphabet.organic(), False), (Alphabet.polymer(), True)):
        own = [text for text in smiles if ("*" in text) is is_polymer]
        encoded = encode(own, alphabet)
        kept += [own[index] for index in encoded.kept]
        refused += encoded.refused
        parts.append(featurizer(encoded.tokens, alphabet))
        heavy.append((alphabet.atomic_number[encoded.tokens] > 1).sum(-1))
    return _Structures(kept, np.concatenate(parts), np.concatenate(heavy), refused)


def _column(parts: Sequence[Measured], canonical: dict[str, str | None], row: dict[str, int]) -> np.ndarray:
    """`(n,)` the median over the values of one structure; NaN where there is none."""
    out = np.full(len(row), np.nan)
    at = [row.get(canonical[text] or "", -1) for part in parts for text in part.smiles]
    values = np.concatenate([np.asarray(part.y, np.float64) for part in parts])
    if len(at) != len(values):
        raise BayesmatError(f"property {parts[0].name!r} has {len(values)} values for {len(at)} structures")
    usable = (np.asarray(at) >= 0) & np.isfinite(values)
    median = pd.Series(values[usable]).groupby(np.asarray(at)[usable]).median()
    out[median.index.to_numpy(np.int64)] = median.to_numpy()
    return out


def _said(name: str, grouped: dict[str, list[Measured]], starred: np.ndarray) -> dict[str, Any]:
    """Unit, material and source of a property."""
    whole = name if name in grouped else name.removesuffix("_per_atom")
    unit, parts = grouped[whole][0].unit, grouped[whole]
    return {
        "unit": unit if name == whole else f"{'' if unit == '1' else unit}/atom",
        "material": "polymer" if starred.all() else "mixed" if starred.any() else "molecule",
        "source": "; ".join(dict.fromkeys(source for part in parts for source in part.sources)),
    }
