"""Distinct molecules with p_hit > 1/2 at equal numbers of evaluations of one forward model, for all methods."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats
from tqdm import tqdm

import bayesmat as bm

from .genetic import GeneticAlgorithm
from .iqsprx import IMPOSSIBLE, IQSPRX, SCHEDULE, Bounds, Scores
from .judging import HIT, rounded, summary
from .sampler import Ours, Record
from .setting import Setting, SharedScore

POWER = 8.0
"""Ours is also run on prior × p_hit^8. Most of a posterior lies where hits are barely probable, as there are so many
more such molecules; what is counted here is molecules that are probably hits."""

PARTICLES, SWEEPS, MEMORY, STEPS = 128, 64, 2048, 8
"""Of ours, with the sampler's own target_ess of one half, which was compared with others on two more boxes, E 420 to
560 with gaps of 8.5 to 11 and E 0 to 60 with gaps of 1.5 to 3.5: sweeps by the surrogate between two evaluations,
how many evaluations it is fitted to, and after how many steps at β = 1 it is asked whether there was anything new. The
surrogate estimates the predictives of both properties, which each evaluation gives."""


def sample_efficiency(
    setting: Setting, boxes: Mapping[str, Bounds], seeds: Sequence[int], budgets: Sequence[int], pool: int
) -> dict[str, Any]:
    """By box: how rare hits are in the prior, and what each method found by number of evaluations.

    Args:
        setting: priors and forward models.
        boxes: bounds by name.
        seeds: one run each.
        budgets: numbers of evaluations; each has its own runs.
        pool: draws of the prior for its rate of hits.
    """
    tokens: dict[str, np.ndarray | None] = {}  # encoded once for all methods
    sampler = _sampler(setting)
    result: dict[str, Any] = {}
    for box, bounds in boxes.items():
        entry: dict[str, Any] = {"prior": _prior_rate(setting, bounds, pool)}
        for budget in budgets:
            counts = {}
            for name, method in _methods(setting, bounds, budget, sampler, tokens).items():
                runs = [_timed(method, seed) for seed in tqdm(seeds, desc=f"{name}; {box}; {budget}")]
                counts[name] = _counts(setting, bounds, runs, budget)
            order = sorted(counts, key=lambda name: -counts[name]["distinct with p_hit > 0.5"]["mean"])
            entry[f"{budget} evaluations"] = {**counts, "order": order}
        result[box] = entry
        print(json.dumps({box: entry}, indent=1), flush=True)
    return result


def _timed(method: Callable[[int], dict[str, float]], seed: int) -> tuple[dict[str, float], float]:
    start = time.perf_counter()
    return method(seed), time.perf_counter() - start


def _counts(
    setting: Setting, bounds: Bounds, runs: Sequence[tuple[dict[str, float], float]], budget: int
) -> dict[str, Any]:
    """What runs had found after so many evaluations."""
    finds = [
        {name for name, log_p in itertools.islice(found.items(), budget) if log_p > np.log(HIT)} for found, _ in runs
    ]
    true = [setting.true_hits(sorted(found), bounds) for found in finds]
    return {
        "distinct with p_hit > 0.5": summary([len(found) for found in finds]),
        "of them true in E": summary([float(np.nansum(part)) for part in true]),
        "of them made of familiar environments": summary([setting.num_familiar(found) for found in finds]),
        "oracle silent": summary([int(np.isnan(part).sum()) for part in true]),
        "wall s": rounded(np.mean([seconds for _, seconds in runs])),
    }


def _sampler(setting: Setting) -> Ours:
    alphabet = setting.prior.alphabet
    surrogate = bm.smc.Surrogate(
        lambda sites: bm.nn.featurize(sites["molecule"], alphabet).vector,
        SWEEPS,
        MEMORY,
        outputs=sorted(setting.fitted),
    )
    settings = {"num_moves": 1, "target_ess": 0.5, "max_temperatures": 200}
    return Ours(setting, PARTICLES, Record(), surrogate=surrogate, **settings)


def _methods(
    setting: Setting, bounds: Bounds, budget: int, sampler: Ours, tokens: dict[str, np.ndarray | None]
) -> dict[str, Callable[[int], dict[str, float]]]:
    """From a seed to what was evaluated, in order, by method."""

    def score() -> SharedScore:
        return SharedScore(setting, bounds, tokens)

    return {
        "ours": lambda seed: _ours(setting, bounds, sampler, seed, budget, 1.0),
        f"ours, sharpened to p_hit^{POWER:g}": lambda seed: _ours(setting, bounds, sampler, seed, budget, POWER),
        "prior with a filter": lambda seed: _from_prior(setting, bounds, seed, budget),
        "iQSPR-X, 25 particles, again and again": lambda seed: _iqsprx(score(), seed, budget, 25),
        "iQSPR-X, one population": lambda seed: _iqsprx(score(), seed, budget, budget // len(SCHEDULE)),
        "genetic algorithm": lambda seed: _genetic(score(), seed, budget),
    }


def _ours(setting: Setting, bounds: Bounds, sampler: Ours, seed: int, budget: int, power: float) -> dict[str, float]:
    """Runs to the posterior and more steps there, until the evaluations are spent or nothing new comes: then again."""
    assert sampler.record is not None
    sampler.power = power
    found: dict[str, float] = {}
    for again in itertools.count():
        sampler.run(bounds, 1000 * again + seed)
        before = -STEPS
        while len(found) < budget and len(found) - before >= STEPS:
            before = len(found)
            if sampler.smc.status == bm.smc.Status.CONVERGED:
                sampler.smc.extend(STEPS)
            for name, value in sampler.record.molecules(setting.prior).items():
                found.setdefault(name, value)
        if len(found) >= budget:
            return found
    raise AssertionError


def _prior_strings(setting: Setting, seed: int, num: int) -> Iterator[np.ndarray]:
    size = 4096
    for begin in range(0, num, size):
        key = jax.random.fold_in(jax.random.key(seed), begin)
        yield np.asarray(_draw(setting.prior, key, size))[: num - begin]


_draw = jax.jit(lambda prior, key, size: prior.sample(key, (size,)), static_argnums=2)


def _from_prior(setting: Setting, bounds: Bounds, seed: int, budget: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for strings in _prior_strings(setting, seed, 2 * budget):  # some come twice
        log_p, _ = setting.describe(strings, bounds)
        for name, value in zip(setting.prior.to_text(strings), sum(log_p.values()).tolist(), strict=True):
            found.setdefault(name, value)
        if len(found) >= budget:
            break
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


def _iqsprx(score: SharedScore, seed: int, budget: int, population: int) -> dict[str, float]:
    def likelihood(smiles: Sequence[str]) -> Scores:
        if len(score.found) >= budget:
            raise _Spent
        return Scores(np.maximum(score(smiles), IMPOSSIBLE), {}, {})

    peer = IQSPRX(score.setting.ngram, likelihood)
    for again in itertools.count():
        try:
            peer.run(1000 * again + seed, score.setting.start(1000 * again + seed, population))
        except _Spent:
            return score.found
    raise AssertionError


def _genetic(score: SharedScore, seed: int, budget: int) -> dict[str, float]:
    search = GeneticAlgorithm(lambda smiles: np.exp(score(smiles).astype(float)))
    search.run(seed, score.setting.start(seed, 2 * search.population), budget)
    return score.found
