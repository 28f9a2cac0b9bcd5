"""Polymers made by rule: repeat units with exactly two `*`, each with the monomers it is made from.

`polymerise` sorts monomers into the classes of the rules, opens each into a residue once, and joins residues.
Polymers that are the same chain, cut at another bond or read backwards, are one polymer here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from math import log
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np

from .._types import BayesmatError, cache_dir, progress, replacing
from ..chem import Groups, Opening, RefusedError, canonicalize, join_residues, repeat_unit
from ._polymer_rules import GROUPS, RULES, MonomerClass, PolymerRule
from ._structures import Corpus, organic, registry

FORMAT = 3
"""Raise it whenever the rules or the layout of the cached file change."""

MAX_MONOMERS = 2_000
"""Monomers of one class that enter pairs: the table of pairs stays small."""

HEAVY_ATOM = "[!#0;!#1]"
OTHER_ELEMENT = "[!#0;!#1;!#5;!#6;!#7;!#8;!#9;!#14;!#15;!#16;!#17;!#34;!#35;!#53]"


@dataclass(frozen=True)
class PolymerCorpus(Corpus):
    """Polymers made by rule, as canonical repeat units with two `*`.

    Attributes:
        smiles: n canonical repeat units, each chain once.
        names: n names, "poly(" + names of the monomers + ")", or "" where a monomer has no name.
        num_read: combinations of a rule and its monomers; equal to `len(corpus)` plus the sum of `dropped`.
        dropped: how many combinations gave no new polymer, by reason.
        monomers: n tuples of one or two canonical SMILES; of polymers that can be made in several ways, the first.
        polymer_class: n names such as "polyester".
        num_monomers: monomers read; equal to the number of those used plus the sum of `unused`.
        unused: how many monomers no rule could take, by reason.
    """

    monomers: tuple[tuple[str, ...], ...] = ()
    polymer_class: tuple[str, ...] = ()
    num_monomers: int = 0
    unused: dict[str, int] = field(default_factory=dict)


class _Monomer(NamedTuple):
    """A monomer in one of its classes: its place in the input, log weight in a sample, and residues."""

    place: int
    log_weight: float
    residues: tuple[str, ...]


def polymerise(
    monomers: Sequence[str],
    rules: Sequence[PolymerRule] | None = None,
    max_per_rule: int = 10_000,
    max_heavy_atoms: int = 32,
    seed: int = 0,
    names: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    orientations: Literal["first", "all"] = "first",
) -> PolymerCorpus:
    """Polymers that monomers can be made into by rules of polymerisation.

    A monomer takes part in a rule when it has exactly the reactive groups of its class and none that would react
    as well; others are left out and counted. Where a rule has more than `max_per_rule` combinations of monomers, a
    seeded sample without replacement is taken, in which a combination is drawn in proportion to the product of
    weight / (heavy atoms)² over its monomers, since small monomers are the common ones.

    Args:
        monomers: SMILES of single molecules; bad ones are counted by reason in `unused`, never fatal.
        rules: None for all of `polymer_rules()`.
        max_per_rule: the most combinations of monomers that are tried for one rule, times the `share` of the rule.
        max_heavy_atoms: larger monomers are left out.
        seed: of the samples.
        names: of the monomers, to name polymers with; None for no names.
        weights: how common the monomers are, positive numbers of any scale; None for all alike.
        orientations: "all" to make each chain that differs in how unsymmetric monomers are turned, or the first.

    Raises:
        BayesmatError: `monomers` is one string, a size or a weight is not positive, `names` or `weights` have
            another length than `monomers`, or a rule is not readable.

    >>> made = polymerise(["C=Cc1ccccc1", "OCCO", "O=C(O)CCCCC(=O)O"])
    >>> for polymer in zip(made.smiles, made.polymer_class):
    ...     print(*polymer)
    *CC(*)c1ccccc1 polyolefin
    *OCCOC(=O)CCCCC(*)=O polyester
    *OC(=O)CCCCC(*)=O polyanhydride
    """
    rules = RULES if rules is None else tuple(rules)
    if isinstance(monomers, str):
        raise BayesmatError("monomers is one string; allowed is a list of SMILES strings")
    if max_per_rule < 1 or max_heavy_atoms < 1:
        raise BayesmatError("allowed sizes: max_per_rule and max_heavy_atoms at least 1")
    for what, values in (("names", names), ("weights", weights)):
        if values is not None and len(values) != len(monomers):
            raise BayesmatError(f"{len(values)} {what} for {len(monomers)} monomers")
    if weights is not None and not all(0 < weight < np.inf for weight in weights):
        raise BayesmatError("allowed weights are positive and finite numbers")
    if orientations not in ("first", "all"):
        raise BayesmatError(f"orientations is {orientations!r}; allowed are 'first' and 'all'")
    smiles, members, unused = _sort(monomers, rules, max_heavy_atoms, weights)
    made: dict[str, tuple[str, tuple[int, ...], str]] = {}
    dropped: Counter[str] = Counter()
    num_read = 0
    for rule in progress(rules, "polymers by rule", len(rules)):
        pairs, num_possible = _combinations(rule, members, max(1, round(rule.share * max_per_rule)), seed)
        num_read += num_possible
        dropped["beyond the sample of its rule"] += num_possible - len(pairs)
        for pair in pairs:
            indices = tuple(monomer.place for monomer in pair)
            for number, text in enumerate(_chains(pair, orientations)):
                num_read += number > 0
                try:
                    unit = repeat_unit(text)
                except RefusedError as error:
                    dropped[error.reason] += 1
                    continue
                if unit in made:
                    dropped["same chain as another"] += 1
                else:
                    made[unit] = text, indices, rule.polymer_class
    canonical = canonicalize([text for text, _, _ in made.values()], "canonical repeat units")
    kept = [(text, entry) for text, entry in zip(canonical.smiles, made.values(), strict=True) if text is not None]
    dropped.update(canonical.refused)
    titles = None if names is None else list(names)
    return PolymerCorpus(
        smiles=tuple(text for text, _ in kept),
        names=tuple(_name(entry[1], titles) for _, entry in kept),
        num_read=num_read,
        dropped={reason: count for reason, count in dropped.most_common() if count},
        monomers=tuple(tuple(smiles[index] for index in entry[1]) for _, entry in kept),
        polymer_class=tuple(entry[2] for _, entry in kept),
        num_monomers=len(monomers),
        unused=dict(unused.most_common()),
    )


def polymer_rules() -> tuple[PolymerRule, ...]:
    """The rules that `polymerise` applies by default; add your own to this tuple."""
    return RULES


def _name(indices: tuple[int, ...], names: list[str] | None) -> str:
    parts = [names[index] for index in indices] if names else []
    return f"poly({' + '.join(parts)})" if parts and all(parts) else ""


def _sort(
    monomers: Sequence[str],
    rules: Sequence[PolymerRule],
    max_heavy_atoms: int,
    weights: Sequence[float] | None = None,
) -> tuple[list[str], dict[MonomerClass, list[_Monomer]], Counter[str]]:
    """Canonical SMILES of the monomers, the members of each class, and why the others are in none."""
    classes = list(dict.fromkeys(kind for rule in rules for kind in rule.monomers))
    names = dict.fromkeys(name for kind in classes for name in (*kind.groups, *kind.forbidden))
    groups = Groups({name: GROUPS.get(name, name) for name in (*names, HEAVY_ATOM, OTHER_ELEMENT)})
    openings = {kind: Opening(kind.opens) for kind in classes}
    canonical = canonicalize(monomers, "canonical monomers")
    members: dict[MonomerClass, list[_Monomer]] = {kind: [] for kind in classes}
    unused: Counter[str] = canonical.refused
    seen: set[str] = set()
    smiles = [text or "" for text in canonical.smiles]
    for index, text in enumerate(progress(smiles, "monomers by class", len(smiles))):
        if not text:
            continue
        if text in seen:
            unused["same structure as another"] += 1
            continue
        seen.add(text)
        counts = groups.count(text)
        size = counts[HEAVY_ATOM]
        if "*" in text:
            unused["has an attachment point already"] += 1
            continue
        if size > max_heavy_atoms:
            unused[f"more than {max_heavy_atoms} heavy atoms"] += 1
            continue
        if counts[OTHER_ELEMENT]:
            unused["an element other than H, B, C, N, O, F, Si, P, S, Cl, Se, Br, I"] += 1
            continue
        log_weight = log(weights[index] if weights else 1.0) - 2.0 * log(max(size, 1))
        reasons, found = set(), False
        for kind in classes:
            reason = _misfit(kind, counts)
            if not reason:
                residues = openings[kind](text)
                if residues:
                    members[kind].append(_Monomer(index, log_weight, residues))
                    found = True
                    continue
                reason = "its groups do not open to a chain"
            reasons.add(reason)
        if not found:
            unused[next(reason for reason in MISFITS if reason in reasons)] += 1
    return smiles, members, unused


MISFITS = (
    "a group that would react as well",
    "too many groups of one kind",
    "its groups do not open to a chain",
    "no group that polymerises",
)
"""Why a monomer is in no class; the first that any class gave is the one that is counted."""


def _misfit(kind: MonomerClass, counts: dict[str, int]) -> str:
    """Why a monomer with these counts of groups is not of a class; "" when it is."""
    if any(counts[name] < kind.groups.count(name) for name in kind.groups):
        return MISFITS[3]
    if any(counts[name] > kind.groups.count(name) for name in kind.groups):
        return MISFITS[1]
    return MISFITS[0] if any(counts[name] for name in kind.forbidden) else ""


def _combinations(
    rule: PolymerRule, members: dict[MonomerClass, list[_Monomer]], limit: int, seed: int
) -> tuple[list[tuple[_Monomer, ...]], int]:
    """The monomers, or pairs of them, that a rule is tried on, in the order of the input, and how many there are.

    A sample without replacement is the `limit` largest of log(weight) + Gumbel noise.
    """
    parts = [members[kind] for kind in rule.monomers]
    rng = np.random.default_rng([seed, zlib.crc32(rule.name.encode())])
    same = len(parts) == 2 and rule.monomers[0] == rule.monomers[1]
    num_possible = len(parts[0]) * (len(parts[0]) - 1) // 2 if same else int(np.prod([len(part) for part in parts]))
    if len(parts) == 2:
        parts = [_sample(parts[0], MAX_MONOMERS, rng), _sample(parts[1], MAX_MONOMERS, rng)]
        parts[1] = parts[0] if same else parts[1]
    scores = [_log_weights(part) for part in parts]
    table = scores[0] if len(parts) == 1 else scores[0][:, None] + scores[1][None, :]
    table = table + rng.gumbel(size=table.shape)
    if same:
        table[np.tril_indices(len(parts[0]))] = -np.inf
    num_left = int(np.isfinite(table).sum())
    flat = table.ravel()
    best = np.sort(np.argpartition(-flat, limit)[:limit]) if limit < num_left else np.flatnonzero(np.isfinite(flat))
    chosen = [
        tuple(part[place] for part, place in zip(parts, places, strict=True))
        for places in zip(*np.unravel_index(best, table.shape), strict=True)
    ]
    return chosen, num_possible


def _log_weights(part: list[_Monomer]) -> np.ndarray:
    return np.array([monomer.log_weight for monomer in part])


def _sample(part: list[_Monomer], limit: int, rng: np.random.Generator) -> list[_Monomer]:
    """At most `limit` monomers of a class, small ones first and foremost, in the order of the input."""
    if len(part) <= limit:
        return part
    scores = _log_weights(part) + rng.gumbel(size=len(part))
    return [part[place] for place in np.sort(np.argpartition(-scores, limit)[:limit])]


def _chains(pair: tuple[_Monomer, ...], orientations: str) -> Iterator[str]:
    """The repeat units of one or two monomers, with unsymmetric ones turned in every way or in the first."""
    for residues in product(*(monomer.residues for monomer in pair)):
        yield residues[0] if len(residues) == 1 else join_residues(*residues)
        if orientations == "first":
            return


@lru_cache(maxsize=1)
def polymer_corpus() -> PolymerCorpus:
    """The polymers of `corpus("polymer")`, from the cache or computed."""
    path = _cache_path()
    cached = _read_cache(path)
    if cached is None:
        source = organic()
        first: dict[str, int] = {}
        for cas, entry in registry().items():
            first[entry.smiles] = min(cas, first.get(entry.smiles, cas))
        # Registry numbers were given in the order in which compounds came up, so low ones are the common compounds:
        # those of the large-scale monomers are below 1 000 000, new ones are a thousand times as high.
        weights = [1e6 / (1e5 + first[smiles]) for smiles in source.smiles]
        cached = polymerise(source.smiles, names=source.names, weights=weights)
        _write_cache(path, cached)
    return cached


def _cache_path() -> Path:
    # A new release of either package can change a structure or its canonical form, so both are part of the name.
    return cache_dir() / f"polymers-v{FORMAT}-chemicals{version('chemicals')}-rdkit{version('rdkit')}.tsv.gz"


def _write_cache(path: Path, corpus: PolymerCorpus) -> None:
    """Write all or nothing: a reader in another process must never see half a file."""
    head = {
        "count": len(corpus),
        "num_read": corpus.num_read,
        "dropped": corpus.dropped,
        "num_monomers": corpus.num_monomers,
        "unused": corpus.unused,
    }
    columns = zip(corpus.smiles, corpus.polymer_class, corpus.monomers, corpus.names, strict=True)
    rows = ["\t".join((smiles, kind, ".".join(monomers), name)) for smiles, kind, monomers, name in columns]
    with replacing(path) as temporary:
        text = "\n".join([json.dumps(head), *rows])
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=6, mtime=0))


def _read_cache(path: Path) -> PolymerCorpus | None:
    """The cached corpus, or None when there is none or the file is damaged (gzip carries a checksum)."""
    try:
        first, *rows = gzip.decompress(path.read_bytes()).decode().split("\n")
        head = json.loads(first)
        columns = [row.split("\t") for row in rows]
        if len(columns) != head.pop("count") or any(len(column) != 4 for column in columns):
            return None
        return PolymerCorpus(
            smiles=tuple(column[0] for column in columns),
            names=tuple(column[3] for column in columns),
            monomers=tuple(tuple(column[2].split(".")) for column in columns),
            polymer_class=tuple(column[1] for column in columns),
            **head,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None


@overload
def corpus(name: Literal["polymer"]) -> PolymerCorpus:
    """Polymers made by rule, with their monomers."""


@overload
def corpus(name: str = "organic") -> Corpus:
    """Any named collection."""


def corpus(name: str = "organic") -> Corpus:
    """A named collection of structures: "organic" or "polymer".

    "organic" is every accepted structure of the `chemicals` package. Compounds that differ only in stereochemistry
    are one structure here; the name of the first is kept. Isotope-labelled ones are left out.

    "polymer" is a `PolymerCorpus`: what `polymerise` makes of the organic structures with its default settings,
    weighted by how low their registry numbers are (old numbers belong to common compounds). The first call takes
    two to three minutes on one core; later ones read the cached result.

    Raises:
        BayesmatError: there is no collection of that name.
    """
    if name == "organic":
        return organic()
    if name == "polymer":
        return polymer_corpus()
    raise BayesmatError(f"no corpus {name!r}; known: 'organic', 'polymer'")
