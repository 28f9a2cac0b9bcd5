"""The molecules to look at: the most probable hits of a screened library, and a diverse choice among them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ... import chem, data
from ..._types import BayesmatError, replacing
from ...forward import Fitted
from ...infer import Calibration
from .._targets import Interval
from ._merit import Distribution, Outlook, outlook
from ._results import result_schema
from ._score import Scorer
from ._screen import by_name, finished
from ._shards import Counts, read_batches, writing

POOL = 1000
"""Candidates of highest probability among which is chosen."""
MAX_SIMILARITY = 0.6
APPLICABILITY_BINS = 20


@dataclass(frozen=True)
class Property:
    """A property of a screening.

    Attributes:
        name: of the model.
        label: in words.
        unit: of its numbers.
        target: what is wanted, in words; "" where it is only predicted.
        calibration: how well the model predicted what it had not seen.
    """

    name: str
    label: str
    unit: str
    target: str
    calibration: Calibration


@dataclass(frozen=True, eq=False)
class Screened:
    """A finished screening.

    Attributes:
        folder: with the shards.
        counts: what became of the rows.
        properties: in the order of the models.
        distribution: of p_hit over the molecules.
        applicability: `(20,)` molecules by applicability, in equal bins of [0, 1].
        picks: the chosen molecules, best first, with the columns of the shards and `similarity`, the largest to a
            better one.
        max_similarity: that was allowed among them.
        outlook: what the models expect of the picks.
        outlook_best: the same of as many molecules of highest probability, whatever their similarity.
    """

    folder: Path
    counts: Counts
    properties: tuple[Property, ...]
    distribution: Distribution
    applicability: np.ndarray
    picks: pa.Table
    max_similarity: float
    outlook: Outlook
    outlook_best: Outlook

    @property
    def hits(self) -> float:
        """Expected number of hits in the whole library."""
        return float(self.distribution.hits.sum())

    @property
    def enrichment(self) -> float:
        """Mean probability of a hit of the picks over that of the library's molecules."""
        return float(np.mean(self.picks["p_hit"].to_numpy())) / max(self.hits / self.counts.scored, 1e-300)


def rank(
    folder: str | Path,
    predictors: Mapping[str, Fitted] | Sequence[Fitted],
    targets: Mapping[str, Interval],
    *,
    top: int = 100,
    max_similarity: float = MAX_SIMILARITY,
    seed: int = 0,
) -> Screened:
    """Choose molecules of a finished screening and say what is expected of them.

    Greedy by expected hits: the next molecule is the one of highest p_hit that is not too similar to any before. The
    choice is among the 1,000 (or 20 `top`) most probable molecules.

    Args:
        folder: of `screen_to`.
        predictors: with which it was made.
        targets: with which it was made.
        top: molecules to choose; fewer where there are not so many.
        max_similarity: Tanimoto similarity (Morgan counts, radius 2) that two chosen ones may have; 1 for no limit.
        seed: of the draws behind the intervals.

    Raises:
        BayesmatError: the folder is of other models or targets or not complete, no row was scored, or an argument is
            out of range.
    """
    folder, scorer = Path(folder), Scorer(by_name(predictors), targets)
    if top < 1 or not 0 < max_similarity <= 1:
        raise BayesmatError(f"top is {top}, max_similarity {max_similarity}; allowed are 1 or more, and (0, 1]")
    paths, counts = finished(folder, scorer)
    if not counts.scored:
        raise BayesmatError(f"none of {counts.rows:,} rows could be scored: {_reasons(counts)}")
    distribution, applicability, pool = _collect(paths, result_schema(scorer), max(POOL, 20 * top))
    chosen, similarity = _diverse(pool["smiles"].to_pylist(), top, max_similarity)
    picks = pool.take(pa.array(chosen)).append_column("similarity", pa.array(similarity, pa.float32()))
    candidates = np.arange(min(len(pool), POOL))
    tokens = chem.read(pool["smiles"].take(pa.array(candidates)).to_pylist(), scorer.alphabet).tokens
    within = chosen[chosen < len(candidates)]
    made = [outlook(scorer, tokens, among, seed) for among in (within, candidates[: len(chosen)])]
    properties = tuple(
        Property(name, fit.label, fit.unit, scorer.targets[name].text(fit.unit) if name in scorer.targets else "",
                 fit.calibration)
        for name, fit in scorer.fits.items()
    )  # fmt: skip
    return Screened(folder, counts, properties, distribution, applicability, picks, max_similarity, *made)


def _collect(paths: Sequence[Path], schema: pa.Schema, size: int) -> tuple[Distribution, np.ndarray, pa.Table]:
    """Distributions over all scored rows, and the most probable of them; equal ones in the order of the library."""
    distribution, applicability = Distribution.empty(), np.zeros(APPLICABILITY_BINS)
    pool, floor = pa.Table.from_batches([], schema), -1.0
    for batch in read_batches(paths):
        batch = batch.filter(batch["p_hit"].is_valid())
        p = batch["p_hit"].to_numpy()
        distribution = distribution + p
        applicability += np.histogram(batch["applicability"].to_numpy(), APPLICABILITY_BINS, (0.0, 1.0))[0]
        better = batch.filter(pa.array(p > floor))
        if len(better):
            pool = pa.concat_tables([pool, pa.Table.from_batches([better])])
        if len(pool) > 2 * size:
            pool = _best(pool, size)
            floor = float(pool["p_hit"][-1].as_py())
    return distribution, applicability, _best(pool, size)


def _best(pool: pa.Table, size: int) -> pa.Table:
    order = np.lexsort((pool["row"].to_numpy(), -pool["p_hit"].to_numpy().astype(float)))[:size]
    return pool.take(pa.array(order)).combine_chunks()


def _diverse(smiles: Sequence[str], top: int, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the chosen, and the similarity of each to the most similar one before."""
    chosen: list[int] = []
    similarity: list[float] = []
    words = np.zeros((0, 64), np.uint64)
    for start in range(0, len(smiles), 256):
        if len(chosen) == top:
            break
        part = chem.SimilarityIndex(smiles[start : start + 256]).words
        for index, own in enumerate(part, start):
            common = np.bitwise_count(words & own).sum(1, dtype=np.int64)
            union = np.bitwise_count(words | own).sum(1, dtype=np.int64)
            nearest = float((common / np.maximum(union, 1)).max(initial=0.0))
            if nearest <= limit and len(chosen) < top:
                chosen.append(index)
                similarity.append(nearest)
                words = np.concatenate([words, own[None]])
    return np.array(chosen), np.array(similarity)


def write_picks(screened: Screened, path: Path) -> Path:
    """The chosen molecules as a CSV file; a cell that a spreadsheet would run as a formula is quoted."""
    names = ["rank", *(name for name in screened.picks.column_names if name not in ("duplicate_of", "reason", "text"))]
    with writing(screened.folder), replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for number, row in enumerate(screened.picks.to_pylist(), 1):
            writer.writerow([number, *(_cell(row[name]) for name in names[1:])])
    return path


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else data.readable(str(value))
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _reasons(counts: Counts) -> str:
    return "; ".join(f"{number:,} {reason}" for reason, number in sorted(counts.reasons.items(), key=lambda r: -r[1]))
