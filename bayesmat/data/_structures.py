"""Registry number → structure, from the identifier files of the `chemicals` package; computed once, then cached.

Everything else in `data` looks structures up here. Registry numbers (CAS) are whole numbers without hyphens, as in
the larger files of `chemicals`; `cas_number` converts the written form.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from chemicals import identifiers

from .._types import cache_dir, replacing
from ..chem import canonicalize

FILES = (
    identifiers.PUBCHEM_IONORGANIC_DB_NAME,  # the only one with water, ammonia and carbon dioxide
    identifiers.PUBCHEM_LARGE_DB_NAME,
    identifiers.PUBCHEM_EXAMPLE_DB_NAME,
    identifiers.PUBCHEM_SMALL_DB_NAME,
)
"""In rising order of trust: a later file wins, as in `chemicals` itself. The last one is curated by hand."""

FORMAT = 2
"""Raise it whenever the meaning or the layout of the cached file changes."""

ISOTOPE = re.compile(r"\[\d")
"""An atom of a SMILES string with a mass number, such as [2H]."""


class Structure(NamedTuple):
    """One registered compound.

    Attributes:
        smiles: canonical SMILES without stereo marks and isotopes, or "" where the structure was refused.
        name: common name, possibly "".
        reason: "" or why the structure was refused.
        molar_mass: of the registered compound [g/mol].
    """

    smiles: str
    name: str
    reason: str
    molar_mass: float


@dataclass(frozen=True)
class Corpus:
    """Canonical flat structures of real compounds; what a prior over molecules is trained on.

    Attributes:
        smiles: n canonical SMILES, each once, in the order of the source files.
        names: n common names, possibly "".
        num_read: structures read; equal to `len(corpus)` plus the sum of `dropped`.
        dropped: how many structures were left out, by reason.
    """

    smiles: tuple[str, ...]
    names: tuple[str, ...]
    num_read: int
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.smiles)


def cas_number(text: str) -> int:
    """The registry number as a whole number: "64-17-5" → 64175."""
    return int(text.replace("-", ""))


def structures() -> dict[int, tuple[str, str]]:
    """CAS number (an int, see `cas_number`) → (canonical SMILES, common name), accepted structures only.

    The first call canonicalises some 76,000 structures (about 20 s); later ones read the cached result.
    """
    return {cas: (entry.smiles, entry.name) for cas, entry in registry().items() if entry.smiles}


def organic() -> Corpus:
    """Every accepted structure of the `chemicals` package, each once: `corpus("organic")`."""
    entries = registry().values()
    names: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for entry in entries:
        if entry.reason:
            dropped[entry.reason] += 1
        elif entry.smiles in names:
            dropped["same flat structure as another"] += 1
        else:
            names[entry.smiles] = entry.name
    return Corpus(tuple(names), tuple(names.values()), len(entries), dict(dropped.most_common()))


@lru_cache(maxsize=1)
def registry() -> dict[int, Structure]:
    """Every registered compound, refused ones included, by CAS number; do not modify."""
    path = _cache_path()
    cached = _read_cache(path)
    if cached is None:
        cached = _compute()
        _write_cache(path, cached)
    return cached


def _cache_path() -> Path:
    # A new release of either package can change a structure or its canonical form, so both are part of the name.
    return cache_dir() / f"structures-v{FORMAT}-chemicals{version('chemicals')}-rdkit{version('rdkit')}.tsv.gz"


def _read_identifiers() -> Iterator[tuple[int, str, str, str, float]]:
    """(CAS number, PubChem number, SMILES, common name, molar mass) of each line of the identifier files."""
    for file in FILES:
        with open(os.path.join(identifiers.folder, file), encoding="utf-8") as lines:
            for line in lines:
                columns = line.rstrip("\n").split("\t", 9)  # what follows are synonyms without end
                if len(columns) >= 9:
                    yield cas_number(columns[1]), columns[0], columns[4], columns[8], float(columns[3])


def _compute() -> dict[int, Structure]:
    lines = {cas: (smiles, name, mass) for cas, _, smiles, name, mass in _read_identifiers()}
    canonical = canonicalize([smiles for smiles, _, _ in lines.values()], "canonical structures, once")
    entries = {}
    for (cas, (text, name, mass)), smiles, reason in zip(
        lines.items(), canonical.smiles, canonical.reasons, strict=True
    ):
        if smiles is not None and ISOTOPE.search(text):
            # Without its label heavy water would be water, and its density a measurement of water's.
            smiles, reason = None, "isotope label"
        entries[cas] = Structure(smiles or "", " ".join(name.split()), reason or "", mass)
    return entries


def _write_cache(path: Path, entries: dict[int, Structure]) -> None:
    """Write all or nothing: a reader in another process must never see half a file."""
    rows = [f"{cas}\t{e.smiles}\t{e.name}\t{e.reason}\t{e.molar_mass!r}" for cas, e in entries.items()]
    text = "\n".join([str(len(rows)), *rows])
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=6, mtime=0))


def _read_cache(path: Path) -> dict[int, Structure] | None:
    """The cached entries, or None when there are none or the file is damaged (gzip carries a checksum)."""
    try:
        count, *rows = gzip.decompress(path.read_bytes()).decode().split("\n")
        entries = {}
        for row in rows:
            cas, smiles, name, reason, mass = row.split("\t")
            entries[int(cas)] = Structure(smiles, name, reason, float(mass))
        return entries if len(entries) == int(count) else None
    except (OSError, EOFError, ValueError, zlib.error):
        return None
