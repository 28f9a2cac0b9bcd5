"""Counting finds: what methods claim, what the oracle says of it, and numbers over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from rdkit import Chem

from .iqsprx import IMPOSSIBLE, Bounds, Step
from .setting import Setting

HIT = 0.5
"""A claimed hit has a probability above this."""
BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)

Claims = dict[str, tuple[float, float, bool]]
"""By canonical SMILES: p_hit, p_hit of E alone, whether the predicted means lie in the box."""


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with its 95 % interval by Student's t; a share of nothing (NaN) is left out."""
    array = np.asarray(values, float)
    result: dict[str, Any] = {"mean": None, "seeds": [None if np.isnan(v) else rounded(v) for v in array]}
    array = array[~np.isnan(array)]
    if len(array):
        result["mean"] = rounded(array.mean())
    if len(array) > 1:
        half = scipy.stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
        result["interval95"] = [rounded(array.mean() - half), rounded(array.mean() + half)]
    return result


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def over_seeds(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The summary of every number."""
    return {name: summary([row[name] for row in rows]) for name in rows[0]}


def judged(setting: Setting, bounds: Bounds, claims: Claims) -> dict[str, float]:
    """Counts of distinct molecules.

    Args:
        setting: has the oracle.
        bounds: of the box.
        claims: by canonical SMILES, p_hit, p_hit of E alone, and whether the predicted means lie in the box.
    """
    names = list(claims)
    true = setting.true_hits(names, bounds)
    p = np.array([claims[name][0] for name in names])
    inside = np.array([claims[name][2] for name in names], bool)
    result: dict[str, float] = {"distinct": len(names)}
    for kind, chosen in (("claimed", p > HIT), ("means in box", inside)):
        judgement = true[chosen]
        known = int((~np.isnan(judgement)).sum())
        result[kind] = int(chosen.sum())
        result[f"{kind}, true"] = int(np.nansum(judgement))
        result[f"{kind}, oracle silent"] = int(chosen.sum()) - known
        result[f"{kind}, share true"] = float(np.nansum(judgement) / known) if known else float("nan")
    return result


def claims_of_steps(steps: Sequence[Step], bounds: Bounds) -> Claims:
    """Claims of the iQSPR-X algorithm."""
    claims = {}
    for step in steps:
        for row, text in enumerate(step.smiles):
            if step.scores.log_likelihood[row] > IMPOSSIBLE:
                inside = all(low < step.scores.mean[k][row] < high for k, (low, high) in bounds.items())
                log_p = step.scores.log_likelihood[row], step.scores.each["E"][row]
                claims[Chem.CanonSmiles(text, useChiral=0)] = (*np.exp(log_p).tolist(), inside)
    return claims


def claims_of_tokens(setting: Setting, tokens: np.ndarray, bounds: Bounds) -> Claims:
    """Claims of ours."""
    names, rows = np.unique(setting.prior.to_text(tokens), return_index=True)
    log_p, mean = setting.describe(tokens[rows], bounds)
    p, p_energy = np.exp(sum(log_p.values())), np.exp(log_p["E"])
    inside = np.all([(mean[k] > low) & (mean[k] < high) for k, (low, high) in bounds.items()], axis=0)
    return {str(name): (float(p[i]), float(p_energy[i]), bool(inside[i])) for i, name in enumerate(names)}


class Pools:
    """All claims of E by method, for calibration."""

    def __init__(self) -> None:
        self.pairs: dict[str, list[tuple[float, float]]] = {}

    def add(self, method: str, setting: Setting, bounds: Bounds, claims: Claims) -> None:
        true = setting.true_hits(list(claims), bounds)
        entries = zip((claim[1] for claim in claims.values()), true.tolist(), strict=True)
        self.pairs.setdefault(method, []).extend((p, t) for p, t in entries if not np.isnan(t))

    def tables(self) -> dict[str, Any]:
        """By method and bin of claimed probability: mean claim, true frequency with its 95 % (Wilson) interval."""
        return {method: _calibration(np.array(pairs)) for method, pairs in self.pairs.items() if pairs}


def _calibration(pairs: np.ndarray) -> dict[str, Any]:
    place = np.clip(np.searchsorted(BINS, pairs[:, 0], side="right") - 1, 0, len(BINS) - 2)
    rows = []
    for index, (low, high) in enumerate(itertools.pairwise(BINS)):
        part = pairs[place == index]
        if len(part):
            test = scipy.stats.binomtest(int(part[:, 1].sum()), len(part))
            interval = test.proportion_ci(method="wilson")
            rows.append(
                {
                    "claimed": f"{low:g} to {high:g}",
                    **{"n": len(part), "mean claim": rounded(part[:, 0].mean()), "true": rounded(part[:, 1].mean())},
                    "interval95": [rounded(interval.low), rounded(interval.high)],
                }
            )
    means = {"mean claim": rounded(pairs[:, 0].mean()), "true": rounded(pairs[:, 1].mean()), "n": len(pairs)}
    return {"all": means, "bins": rows}
