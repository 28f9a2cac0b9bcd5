"""Distinct molecules with p_hit > 1/2 at equal numbers of evaluations of one forward model, for all methods."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats
from tqdm import tqdm

from .genetic import GeneticAlgorithm
from .iqsprx import IMPOSSIBLE, IQSPRX, SCHEDULE, Bounds, Scores
from .judging import HIT, rounded, summary
from .sampler import Ours, Record
from .setting import Setting, SharedScore

POWER = 4.0
"""Ours is also run on prior × p_hit^4, which asks more than a posterior does for what is counted: probable hits."""


def sample_efficiency(
    setting: Setting, boxes: Mapping[str, Bounds], seeds: Sequence[int], budgets: Sequence[int], pool: int
) -> dict[str, Any]:
    """By box: how rare hits are in the prior, and what each method found by number of evaluations.

    Args:
        setting: priors and forward models.
        boxes: bounds by name.
        seeds: one run each.
        budgets: numbers of evaluations.
        pool: draws of the prior for its rate of hits.
    """
    tokens: dict[str, np.ndarray | None] = {}  # encoded once for all methods
    # Some eighty evaluations for each particle; what is left over goes to another run.
    samplers = {budget: _sampler(setting, budget) for budget in budgets}
    result: dict[str, Any] = {}
    for box, bounds in boxes.items():
        entry: dict[str, Any] = {"prior": _prior_rate(setting, bounds, pool)}
        for budget in budgets:
            counts = {}
            for name, method in _methods(setting, bounds, budget, samplers[budget], tokens).items():
                bar = tqdm(seeds, desc=f"{name}; {box}; {budget}")
                finds = [method(seed) for seed in bar]
                true = [setting.true_hits(sorted(found), bounds) for found in finds]
                counts[name] = {
                    "distinct with p_hit > 0.5": summary([len(found) for found in finds]),
                    "of them true in E": summary([float(np.nansum(part)) for part in true]),
                    "of them made of familiar environments": summary([setting.num_familiar(found) for found in finds]),
                    "oracle silent": summary([int(np.isnan(part).sum()) for part in true]),
                }
            order = sorted(counts, key=lambda name: -counts[name]["distinct with p_hit > 0.5"]["mean"])
            entry[f"{budget} evaluations"] = {**counts, "order": order}
        result[box] = entry
        print(json.dumps({box: entry}, indent=1), flush=True)
    return result


def _methods(
    setting: Setting, bounds: Bounds, budget: int, sampler: Ours, tokens: dict[str, np.ndarray | None]
) -> dict[str, Callable[[int], set[str]]]:
    """From a seed to the molecules found, by method."""

    def score() -> SharedScore:
        return SharedScore(setting, bounds, tokens)

    return {
        "ours": lambda seed: _ours_hits(setting, bounds, sampler, seed, budget, 1.0),
        f"ours, sharpened to p_hit^{POWER:g}": lambda seed: _ours_hits(setting, bounds, sampler, seed, budget, POWER),
        "prior with a filter": lambda seed: _prior_hits(setting, bounds, seed, budget),
        "iQSPR-X, 25 particles, again and again": lambda seed: _iqsprx_hits(score(), seed, budget, 25),
        "iQSPR-X, one population": lambda seed: _iqsprx_hits(score(), seed, budget, budget // len(SCHEDULE)),
        "genetic algorithm": lambda seed: _genetic_hits(score(), seed, budget),
    }


def _sampler(setting: Setting, budget: int) -> Ours:
    return Ours(setting, max(64, 2 ** round(np.log2(budget / 80))), Record(), num_moves=16)


def _ours_hits(setting: Setting, bounds: Bounds, sampler: Ours, seed: int, budget: int, power: float) -> set[str]:
    """Runs, one after the other until the evaluations are spent."""
    record, found, spent = sampler.record, set[str](), 0
    sampler.power = power
    assert record is not None
    for again in itertools.count():
        sampler.run(bounds, 1000 * again + seed)
        found.update(setting.prior.to_text(record.hits(setting.prior.alphabet, budget - spent)))
        spent += record.evaluations
        if spent >= budget:
            return found
    raise AssertionError


def _prior_strings(setting: Setting, seed: int, num: int) -> Iterator[np.ndarray]:
    size = 4096
    for begin in range(0, num, size):
        key = jax.random.fold_in(jax.random.key(seed), begin)
        yield np.asarray(_draw(setting.prior, key, size))[: num - begin]


_draw = jax.jit(lambda prior, key, size: prior.sample(key, (size,)), static_argnums=2)


def _prior_hits(setting: Setting, bounds: Bounds, seed: int, budget: int) -> set[str]:
    found: set[str] = set()
    for strings in _prior_strings(setting, seed, budget):
        log_p, _ = setting.describe(strings, bounds)
        found.update(setting.prior.to_text(strings[sum(log_p.values()) > np.log(HIT)]))
    return found


def _prior_rate(setting: Setting, bounds: Bounds, num: int) -> dict[str, Any]:
    """How rare hits are among draws of the prior."""
    parts = [
        sum(setting.describe(strings, bounds)[0].values())
        for strings in tqdm(_prior_strings(setting, 12345, num), desc="prior", total=-(-num // 4096))
    ]
    p = np.exp(np.concatenate(parts))
    interval = scipy.stats.binomtest(int((p > HIT).sum()), len(p)).proportion_ci(method="wilson")
    return {
        "draws": len(p),
        "mean p_hit": rounded(p.mean()),
        "share with p_hit > 0.5": rounded((p > HIT).mean()),
        "interval95": [rounded(interval.low), rounded(interval.high)],
    }


class _Spent(Exception):
    """The evaluations are used up."""


def _iqsprx_hits(score: SharedScore, seed: int, budget: int, population: int) -> set[str]:
    def likelihood(smiles: Sequence[str]) -> Scores:
        if score.evaluations >= budget:
            raise _Spent
        return Scores(np.maximum(score(smiles[: budget - score.evaluations]), IMPOSSIBLE), {}, {})

    def padded(smiles: Sequence[str]) -> Scores:
        found = likelihood(smiles).log_likelihood
        return Scores(np.pad(found, (0, len(smiles) - len(found)), constant_values=IMPOSSIBLE), {}, {})

    peer = IQSPRX(score.setting.ngram, padded)
    for again in itertools.count():
        try:
            peer.run(1000 * again + seed, score.setting.start(1000 * again + seed, population))
        except _Spent:
            return score.hits()
    raise AssertionError


def _genetic_hits(score: SharedScore, seed: int, budget: int) -> set[str]:
    search = GeneticAlgorithm(lambda smiles: np.exp(score(smiles).astype(float)))
    search.run(seed, score.setting.start(seed, 2 * search.population), budget)
    return score.hits()
