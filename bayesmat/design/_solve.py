"""From a problem to a finished design: fit the forward models, sample the posterior, describe what was found."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem, data, forward, prior
from .._types import Array, progress
from ..smc import SMC, Status
from ._inverse import Inverse
from ._known import KnownCompounds
from ._problem import Problem
from ._run import Candidates, DesignRun, SamplerSummary, TargetSummary
from ._scoring import plain_errors

_PACKAGES = ("bayesmat", "jax", "numpyro", "numpy", "rdkit", "arviz", "chemicals", "equinox")


def fit_forward(problem: Problem, alphabet: chem.Alphabet, progress_bar: bool = True) -> dict[str, forward.Fitted]:
    """The forward model of every property, those that others transfer from first.

    The key of each fit follows from the property's name, not from the design's seed: a model of the same
    measurements is the same model, and is found in the cache. Scarce properties are learned from descriptors and
    sources alone: the sampler's programs then compile in a fraction of the time, and run several times as fast.
    """
    models: dict[str, forward.Fitted] = {}
    for name, sought in sorted(problem.sought.items(), key=lambda item: len(item[1].transfer)):
        sources = [models[source] for source in sought.transfer]
        models[name] = forward.fit(sought.table, alphabet=alphabet, sources=sources, own=("descriptors",),
                                   transfer=("sources",), key=jax.random.key(0), progress=progress_bar)  # fmt: skip
    return models


def solve(
    problem: Problem, progress_bar: bool = True, checkpoint: str | Path | None = None, resume: bool = False
) -> DesignRun:
    """Run a design problem.

    Args:
        problem: from `read_problem`.
        progress_bar: whether to show progress on standard error.
        checkpoint: folder where the sampler's state is kept after every temperature.
        resume: whether to go on from what is there; the design is that of an uninterrupted run.

    Returns:
        The design; the same problem and seed give the same candidates.
    """
    timings: dict[str, float] = {}
    with _timed(timings, "prior"):
        p_x = prior.load(problem.prior)
    with _timed(timings, "forward models"):
        models = fit_forward(problem, p_x.alphabet, progress_bar)
    targets = {name: sought.target for name, sought in problem.sought.items()}
    inverse = Inverse(p_x, models, targets, problem.conditions)
    before = {host: host.tally.seconds for host in inverse.filters.hosts}
    settings = problem.sampler
    sampler = SMC(
        inverse,
        settings.particles,
        target_ess=settings.target_ess,
        num_moves=settings.moves,
        max_temperatures=settings.max_temperatures,
        checkpoint=checkpoint,
        resume=resume,
        progress_bar=progress_bar,
    )
    with _timed(timings, "sampling"), plain_errors():
        sampler.run(jax.random.key(settings.seed))
    with _timed(timings, "description"), plain_errors():
        described = _describe(problem, sampler, inverse, models)
    for host, seconds in before.items():
        name = f"of which {host.name}"
        timings[name] = round(timings.get(name, 0.0) + host.tally.seconds - seconds, 2)
    return DesignRun(**described, versions=versions(), timings=timings)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result, and the device."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found, "device": jax.devices()[0].device_kind}


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 2)


def _describe(problem: Problem, sampler: SMC, inverse: Inverse, models: dict[str, forward.Fitted]) -> dict[str, Any]:
    after = _Evaluated(inverse, sampler.get_samples()["molecule"])
    before = _Evaluated(inverse, sampler.get_prior_samples()["molecule"])
    candidates = _candidates(inverse, after)
    warnings = [*sampler.warnings(), *(text for host in inverse.filters.hosts for text in host.warnings())]
    for name, sought in problem.sought.items():
        if not _within(sought.target.lower, sought.target.upper, sought.table.y):
            warnings.append(f"No measured {sought.table.label} lies in the target: the {name} model extrapolates.")
    targets = tuple(
        TargetSummary(name, s.table.label, s.table.unit, s.target.text(s.table.unit), s.target.lower, s.target.upper)
        for name, s in problem.sought.items()
    )
    summary = SamplerSummary(
        num_particles=sampler.settings.num_particles,
        num_distinct=len(candidates.smiles),
        num_ancestors=sampler.num_ancestors,
        status=sampler.status.message,
        converged=sampler.status == Status.CONVERGED,
        log_evidence=sampler.log_evidence,
        temperatures=sampler.temperatures,
        ess=sampler.ess,
        acceptance=sampler.acceptance,
    )
    # At β = 1 the evidence is the prior mean of p_hit, with a smaller error than the mean over the prior's samples;
    # unless a condition weighs molecules without forbidding them.
    is_evidence = summary.converged and inverse.filters.hard
    prior_p_hit = np.exp(sampler.log_evidence) if is_evidence else np.exp(before.log_p_hit).mean()
    return {
        "title": problem.title,
        "description": problem.description,
        "targets": targets,
        "candidates": candidates,
        "prior_mean": before.mean,
        "posterior_mean": after.mean,
        "prior_p_hit": float(prior_p_hit),
        "posterior_p_hit": float(np.exp(after.log_p_hit).mean()),
        "sampler": summary,
        "calibrations": tuple(model.calibration for model in models.values()),
        "posterior": {
            "smiles": np.array(after.smiles),
            "log_p_hit": after.log_p_hit,
            **{f"{name}_mean": after.mean[name] for name in after.mean},
            **{f"{name}_sd": after.sd[name] for name in after.sd},
        },
        "settings": _settings(problem, inverse, models),
        "warnings": tuple(warnings),
        "conditions": tuple(condition.text() for condition in problem.conditions),
    }


def _within(lower: float, upper: float, values: np.ndarray) -> bool:
    return bool(((values > lower) & (values < upper)).any())


class _Evaluated:
    """Strings with their molecules and predictions; arrays have one entry per string."""

    def __init__(self, inverse: Inverse, strings: Array):
        @jax.jit
        def evaluate(x: Array) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array], Array]:
            y = jax.vmap(inverse.predict)(x)
            mean = {name: value.mean() for name, value in y.items()}
            sd = {name: value.sd() for name, value in y.items()}
            log_p = {name: target.log_prob(y[name]) for name, target in inverse.targets.items()}
            return mean, sd, log_p, jax.vmap(inverse.filters)(x)

        self.smiles = inverse.prior.to_text(np.asarray(strings))
        mean, sd, log_p, condition = evaluate(jnp.asarray(strings))
        self.mean, self.sd, self.log_p_hit_each = (
            {name: np.asarray(values, np.float64) for name, values in part.items()} for part in (mean, sd, log_p)
        )
        # A run that found no feasible particle ends in the prior: what breaks a condition is no hit there either.
        log_p_hit = np.sum(list(self.log_p_hit_each.values()), axis=0)
        self.log_p_hit = np.where(np.asarray(condition) > -np.inf, log_p_hit, -np.inf)


def _candidates(inverse: Inverse, found: _Evaluated) -> Candidates:
    """Distinct molecules, highest probability of meeting all targets first; ties by weight, then by name."""
    smiles, first, counts = np.unique(np.array(found.smiles), return_index=True, return_counts=True)
    order = np.lexsort((smiles, -counts, -found.log_p_hit[first]))
    smiles, rows, counts = smiles[order], first[order], counts[order]
    known = KnownCompounds(data.corpus("organic"))
    nearest = [known.nearest(text) for text in progress(smiles, "nearest known compounds", len(smiles))]
    return Candidates(
        smiles=tuple(str(text) for text in smiles),
        weight=counts / counts.sum(),
        p_hit=np.exp(found.log_p_hit[rows]),
        log_p_hit=found.log_p_hit[rows],
        mean={name: values[rows] for name, values in found.mean.items()},
        sd={name: values[rows] for name, values in found.sd.items()},
        p_hit_each={name: np.exp(values[rows]) for name, values in found.log_p_hit_each.items()},
        known=tuple(text in known for text in smiles),
        name=tuple(known.name(text) for text in smiles),
        nearest_known=tuple(text for text, _ in nearest),
        nearest_name=tuple(known.name(text) for text, _ in nearest),
        similarity=np.array([value for _, value in nearest]),
        sa_score=np.array([chem.sa_score(str(text)) for text in smiles]),
    )


def _settings(problem: Problem, inverse: Inverse, models: dict[str, forward.Fitted]) -> dict[str, Any]:
    s = problem.sampler
    transfers = {name: ", ".join(sought.transfer) for name, sought in problem.sought.items() if sought.transfer}
    return {
        "particles": s.particles,
        "seed": s.seed,
        "moves per temperature": s.moves,
        "target ESS": s.target_ess,
        "most temperatures": s.max_temperatures,
        "prior": problem.prior,
        "filters": inverse.filters.text() or "none",
        "tokens in a string": inverse.prior.alphabet.length,
        **{f"{name}: measurements": len(sought.table) for name, sought in problem.sought.items()},
        **{f"{name}: transfer from": names for name, names in transfers.items()},
        **{f"{name}: set aside": len(model.set_aside) for name, model in models.items()},
    }
