"""What a design run found, as plain arrays: the one thing that outputs and reports are written from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..infer import Calibration


@dataclass(frozen=True)
class TargetSummary:
    """A target in words and numbers; bounds are ±inf where open, in `unit`."""

    property: str
    label: str
    unit: str
    text: str
    lower: float
    upper: float


@dataclass(frozen=True)
class Candidates:
    """Distinct molecules of the posterior, best first; every field has n entries.

    Attributes:
        smiles: canonical SMILES.
        weight: posterior weight, summing to one: the share of particles that are this molecule.
        p_hit: probability that all targets are met.
        log_p_hit: its logarithm, which does not underflow.
        mean: predicted mean by property, in its unit.
        sd: predicted standard deviation by property.
        p_hit_each: probability of meeting each target.
        known: whether the molecule is among the known compounds.
        name: the known compound's name, or "".
        nearest_known: SMILES of the most similar known compound.
        nearest_name: its name.
        similarity: Tanimoto similarity to it, in [0, 1].
        sa_score: synthetic accessibility, 1 (easy) to 10 (hard).
    """

    smiles: tuple[str, ...]
    weight: np.ndarray
    p_hit: np.ndarray
    log_p_hit: np.ndarray
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    p_hit_each: dict[str, np.ndarray]
    known: tuple[bool, ...]
    name: tuple[str, ...]
    nearest_known: tuple[str, ...]
    nearest_name: tuple[str, ...]
    similarity: np.ndarray
    sa_score: np.ndarray


@dataclass(frozen=True)
class SamplerSummary:
    """How the sampler fared; T temperatures after β = 0.

    Attributes:
        num_particles: N.
        num_distinct: distinct molecules among them.
        num_ancestors: particles of the prior that have descendants.
        status: a sentence.
        converged: whether β = 1 was reached.
        log_evidence: log of the prior probability of the targets.
        temperatures: `(T + 1,)` inverse temperatures from 0 on.
        ess: `(T,)` effective sample size of each step's weights.
        acceptance: `(T,)` share of accepted moves.
    """

    num_particles: int
    num_distinct: int
    num_ancestors: int
    status: str
    converged: bool
    log_evidence: float
    temperatures: np.ndarray
    ess: np.ndarray
    acceptance: np.ndarray


@dataclass(frozen=True)
class DesignRun:
    """A finished design.

    Attributes:
        title: from the problem.
        description: from the problem.
        targets: what was asked.
        candidates: what was found.
        prior_mean: predicted mean of the prior's samples, by property, `(N,)`.
        posterior_mean: the same for the posterior's.
        prior_p_hit: mean probability of meeting all targets over the prior, the evidence.
        posterior_p_hit: the same over the posterior.
        sampler: how the sampler fared.
        calibrations: of each forward model.
        posterior: arrays for ArviZ, leading axis N.
        settings: everything that was set.
        versions: of the packages that matter.
        timings: seconds, by part.
        warnings: what a user must know before believing the result.
        conditions: what else was asked of a molecule, in words.
    """

    title: str
    description: str
    targets: tuple[TargetSummary, ...]
    candidates: Candidates
    prior_mean: dict[str, np.ndarray]
    posterior_mean: dict[str, np.ndarray]
    prior_p_hit: float
    posterior_p_hit: float
    sampler: SamplerSummary
    calibrations: tuple[Calibration, ...]
    posterior: dict[str, np.ndarray]
    settings: dict[str, Any]
    versions: dict[str, str]
    timings: dict[str, float]
    warnings: tuple[str, ...]
    conditions: tuple[str, ...] = ()
