"""What a ranking is worth: hits to expect, enrichment over chance, whether the best molecule is among the chosen."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import ArrayLike

from ..._types import BayesmatError
from ...forward import joint_draws
from ._score import Scorer

HISTOGRAM_EDGES = np.unique(np.concatenate([[0.0], np.logspace(-8, -2, 121), np.linspace(0.01, 1.0, 397)]))
"""Of the histogram of p_hit over a library."""


def enrichment_factor(score: ArrayLike, hit: ArrayLike, fraction: float = 0.01) -> float:
    """Hits among the molecules of highest score, over what as many at random would hold.

    Args:
        score: `(n,)`; ties are broken by order.
        hit: `(n,)` whether each is a hit, or the probability of it.
        fraction: of the molecules that are taken, in (0, 1]; one molecule at least.

    Raises:
        BayesmatError: lengths differ, nothing is a hit, or the fraction is none.

    >>> enrichment_factor([0.9, 0.8, 0.1, 0.2], [1, 0, 0, 0], 0.5)
    2.0
    """
    order, hits = np.argsort(-np.asarray(score, float), kind="stable"), np.asarray(hit, float)
    if len(order) != len(hits) or not hits.sum() > 0:
        raise BayesmatError(f"{len(order)} scores and {len(hits)} molecules with {hits.sum():g} hits: no enrichment")
    if not 0 < fraction <= 1:
        raise BayesmatError(f"a fraction of {fraction} of the molecules; it must lie in (0, 1]")
    top = max(round(fraction * len(order)), 1)
    return float(hits[order[:top]].mean() / hits.mean())


def expected_hits(p_hit: ArrayLike, k: int) -> float:
    """How many hits the k molecules of highest probability hold, on average.

    >>> expected_hits([0.5, 0.9, 0.1], 2)
    1.4
    """
    return float(np.sort(np.asarray(p_hit, float))[::-1][:k].sum())


@dataclass(frozen=True)
class Outlook:
    """What the models expect of some chosen molecules.

    Attributes:
        hits: mean number of hits among them.
        lower: 5 % quantile of it; errors that the molecules share are in it.
        upper: 95 % quantile.
        any: probability of one hit or more.
        best: probability that the best of all candidates is among them; None without candidates.
    """

    hits: float
    lower: float
    upper: float
    any: float
    best: float | None


def outlook(scorer: Scorer, tokens: np.ndarray, chosen: np.ndarray, seed: int = 0, num: int = 512) -> Outlook:
    """How many hits there will be among chosen candidates, from joint draws of what would be measured.

    The best candidate is the one furthest inside the targets, in standard deviations of the models' measurements; of
    several targets the least counts.

    Args:
        scorer: models and targets.
        tokens: `(n, length)` of the candidates, the chosen ones among them.
        chosen: `(k,)` their indices.
        seed: of the draws.
        num: draws; the interval's ends are as exact as quantiles of so many.
    """
    margin = np.full((num, len(tokens)), np.inf)
    for index, (name, target) in enumerate(scorer.targets.items()):
        fit = scorer.fits[name]
        key = jax.random.fold_in(jax.random.key(seed), index)
        y = joint_draws(fit.predictor, tokens, key, num).astype(float)
        limits = np.array([target.lower, target.upper])
        spread = np.std(np.log(fit.y)) if fit.predictor.log else np.std(fit.y)
        if fit.predictor.log:
            with np.errstate(divide="ignore"):
                y, limits = np.log(y), np.log(np.maximum(limits, 0.0))
        inside = np.minimum(y - limits[0], limits[1] - y) / spread
        margin = np.minimum(margin, inside)
    hits = (margin[:, chosen] > 0).sum(1)
    best = float(np.isin(margin.argmax(1), chosen).mean())
    low, high = np.quantile(hits, [0.05, 0.95])
    return Outlook(float(hits.mean()), float(low), float(high), float((hits > 0).mean()), best)


@dataclass(frozen=True, eq=False)
class Distribution:
    """How p_hit is distributed over a library, in bins.

    Attributes:
        count: `(len(HISTOGRAM_EDGES) - 1,)` molecules.
        hits: `(len(HISTOGRAM_EDGES) - 1,)` sum of their p_hit.
    """

    count: np.ndarray
    hits: np.ndarray

    @classmethod
    def empty(cls) -> Distribution:
        """Of no molecules."""
        return cls(np.zeros(len(HISTOGRAM_EDGES) - 1), np.zeros(len(HISTOGRAM_EDGES) - 1))

    def __add__(self, p_hit: np.ndarray) -> Distribution:
        place = np.clip(np.searchsorted(HISTOGRAM_EDGES, p_hit, "right") - 1, 0, len(self.count) - 1)
        more = np.bincount(place, minlength=len(self.count))
        return Distribution(self.count + more, self.hits + np.bincount(place, p_hit, minlength=len(self.count)))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Molecules tested, best first, and the hits expected among them: `(m,)` each, from the first bin with any."""
        tested, found = self.count[::-1].cumsum(), self.hits[::-1].cumsum()
        keep = np.flatnonzero(self.count[::-1])
        return np.concatenate([[0.0], tested[keep]]), np.concatenate([[0.0], found[keep]])
