"""The report: what it says, that hostile text stays text, and that a browser shows it at a desk and on a phone."""

from __future__ import annotations

import math

import numpy as np

from bayesmat.design import Candidates, DesignRun, SamplerSummary, TargetSummary
from bayesmat.infer import Calibration

KNOWN = {
    "OCCO": "ethylene glycol", "OCCCO": "1,3-propanediol", "OCC(O)CO": "glycerol", "OCCOCCO": "diethylene glycol",
    "OCCOCCOCCO": "triethylene glycol", "CC(O)CO": "propylene glycol", "OCCCCO": "1,4-butanediol",
    "NCCO": "ethanolamine", "OCCNCCO": "diethanolamine", "OCCc1ccccc1": "2-phenylethanol",
    "O=C1OCCO1": "ethylene carbonate", "O=C1OCC(CO)O1": "glycerol carbonate", "CS(=O)C": "dimethyl sulfoxide",
    "O=C1CCCO1": "gamma-butyrolactone", "OCC(F)(F)F": "2,2,2-trifluoroethanol",
}  # fmt: skip
PARTS = ("OCCO{}", "OCC(O)C{}", "NCC(O)C{}", "O=C1OCC({})O1", "OCCOc1ccc({})cc1", "N#CCCOC{}", "CS(=O)(=O)CC{}")
TAILS = ("CO", "CCO", "CC(=O)N", "CCOC", "c2ccc(O)cc2", "C(F)F", "CC#N", "CCS", "CN3CCOCC3", "C(=O)OCCO")


def make_calibration(size: int = 360, label: str = "thermal conductivity", unit: str = "W/m/K") -> Calibration:
    rng = np.random.default_rng(size)
    truth = 0.15 + 0.04 * rng.gamma(2.0, 0.6, size)
    sd = 0.008 + 0.01 * rng.random(size)
    observed = truth + 1.1 * sd * rng.standard_normal(size)
    levels = np.array([math.erf(z / math.sqrt(2)) for z in (observed - truth) / sd])
    return Calibration(
        label=label, unit=unit, kind="leave-one-out" if size < 1000 else "held-out", observed=observed, mean=truth,
        lower90=truth - 1.645 * sd, upper90=truth + 1.645 * sd, pit=(1 + levels) / 2, nll=-2.61, crps=0.0071,
    )  # fmt: skip


def make_run(num_candidates: int = 24, num_properties: int = 3, **changes: object) -> DesignRun:
    """A run with the numbers a real one has; `changes` replace fields."""
    rng = np.random.default_rng(5)
    targets = (
        TargetSummary("thermal_conductivity", "thermal conductivity", "W/m/K", "at least 0.19 W/m/K", 0.19,
                      math.inf),
        TargetSummary("boiling_point", "boiling point", "K", "between 450 and 520 K", 450.0, 520.0),
        TargetSummary("viscosity", "viscosity", "Pa s", "at most 0.02 Pa s", -math.inf, 0.02),
    )[:num_properties]  # fmt: skip
    prior = {
        "thermal_conductivity": 0.145 + 0.02 * rng.standard_normal(4000),
        "boiling_point": 460 + 80 * rng.standard_normal(4000),
        "viscosity": np.exp(-6.0 + 1.6 * rng.standard_normal(4000)),
    }
    posterior = {
        "thermal_conductivity": 0.196 + 0.009 * rng.standard_normal(4000),
        "boiling_point": 484 + 17 * rng.standard_normal(4000),
        "viscosity": np.exp(-4.7 + 0.5 * rng.standard_normal(4000)),
    }
    names = [target.property for target in targets]
    temperatures = np.array([0, 0.012, 0.031, 0.07, 0.13, 0.22, 0.36, 0.58, 0.86, 1.0])
    fields = {
        "title": "Coolants for immersion-cooled servers",
        "description": "Liquids that carry heat well, stay liquid where servers run, and can be pumped.",
        "targets": targets,
        "candidates": _candidates(num_candidates, names, posterior, rng),
        "prior_mean": {name: prior[name] for name in names},
        "posterior_mean": {name: posterior[name] for name in names},
        "prior_p_hit": 0.00208,
        "posterior_p_hit": 0.6349,
        "sampler": SamplerSummary(
            num_particles=4096, num_distinct=1873, num_ancestors=214, status="The posterior was reached.", converged=True,
            log_evidence=-6.175, temperatures=temperatures, ess=np.full(9, 2048.0) + 60 * rng.standard_normal(9),
            acceptance=np.linspace(0.42, 0.11, 9),
        ),
        "calibrations": (make_calibration(), make_calibration(21600, "boiling point", "K")),
        "posterior": {"log_p_hit": np.log(np.full(4096, 0.63))},
        "settings": {"num_particles": 4096, "seed": 0, "targets": [target.text for target in targets]},
        "versions": {"bayesmat": "0.1.0", "jax": "0.8.1", "rdkit": "2025.09.1"},
        "timings": {"fit": 41.2, "sample": 187.0, "report": 0.9},
        "warnings": (),
    }  # fmt: skip
    return DesignRun(**(fields | changes))


def _candidates(count: int, names: list[str], posterior: dict[str, np.ndarray], rng: np.random.Generator) -> Candidates:
    new = [part.format(tail) for tail in TAILS for part in PARTS]
    pool = [smiles for pair in zip(KNOWN, new, strict=False) for smiles in pair] + new[len(KNOWN) :]
    smiles = tuple(pool[:count])
    known = tuple(text in KNOWN for text in smiles)
    sd = {"thermal_conductivity": 0.0113, "boiling_point": 14.2, "viscosity": 0.0031}
    p_hit = np.sort(0.25 + 0.73 * rng.random(len(smiles)))[::-1]
    return Candidates(
        smiles=smiles,
        weight=0.041 * np.exp(-0.12 * np.arange(len(smiles))),
        p_hit=p_hit,
        log_p_hit=np.log(p_hit),
        mean={name: posterior[name][: len(smiles)] for name in names},
        sd={name: sd[name] * (0.7 + rng.random(len(smiles))) for name in names},
        p_hit_each={name: 0.5 + 0.5 * rng.random(len(smiles)) for name in names},
        known=known,
        name=tuple(KNOWN.get(text, "") for text in smiles),
        nearest_known=tuple(text if flag else "OCCOCCO" for text, flag in zip(smiles, known, strict=True)),
        nearest_name=tuple(KNOWN.get(text, "diethylene glycol") for text in smiles),
        similarity=np.where(known, 1.0, 0.3 + 0.4 * rng.random(len(smiles))),
        sa_score=1.4 + 2.5 * rng.random(len(smiles)),
    )
