"""The files of a finished design, but for the report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from .._types import replacing
from ..infer import save, to_inference_data
from ._run import DesignRun


def write(run: DesignRun, folder: str | Path) -> list[Path]:
    """Write `candidates.csv`, `posterior.nc` and `run.json` into a folder, which is made when missing.

    Each file is written beside its place and then moved there, so a crash leaves no half file.

    Returns:
        The paths written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("candidates.csv", "posterior.nc", "run.json")]
    for path, writer in zip(paths, (_write_candidates, _write_posterior, _write_json), strict=True):
        with replacing(path) as temporary:
            writer(run, temporary)
    return paths


def _write_candidates(run: DesignRun, path: Path) -> None:
    c = run.candidates
    columns: dict[str, Any] = {"smiles": c.smiles, "weight": c.weight, "p_hit": c.p_hit}
    for name in c.mean:
        columns[f"{name}_mean"], columns[f"{name}_sd"] = c.mean[name], c.sd[name]
        if name in c.p_hit_each:
            columns[f"{name}_p_hit"] = c.p_hit_each[name]
    columns |= {"known": c.known, "name": c.name, "nearest_known": c.nearest_known, "nearest_name": c.nearest_name}
    columns |= {"similarity": c.similarity, "sa_score": c.sa_score}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    """A CSV cell; a text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def _write_posterior(run: DesignRun, path: Path) -> None:
    posterior = {name: values[None] for name, values in run.posterior.items()}
    prior = {f"{name}_mean": values[None] for name, values in run.prior_mean.items()}
    attributes = {"title": run.title, "log_evidence": run.sampler.log_evidence, "status": run.sampler.status}
    save(to_inference_data(posterior, prior=prior, attrs=attributes), path)


def _write_json(run: DesignRun, path: Path) -> None:
    s = run.sampler
    content = {
        "title": run.title,
        "targets": [vars(target) for target in run.targets],
        "settings": run.settings,
        "seed": run.settings["seed"],
        "versions": run.versions,
        "status": s.status,
        "converged": s.converged,
        "log_evidence": s.log_evidence,
        "prior_p_hit": run.prior_p_hit,
        "posterior_p_hit": run.posterior_p_hit,
        "num_particles": s.num_particles,
        "num_distinct": s.num_distinct,
        "num_ancestors": s.num_ancestors,
        "best_log_p_hit": float(run.candidates.log_p_hit.max()) if len(run.candidates.smiles) else None,
        "temperatures": s.temperatures.tolist(),
        "ess": s.ess.tolist(),
        "acceptance": s.acceptance.tolist(),
        "calibration": [
            {"label": c.label, "kind": c.kind, "num_points": c.num_points, "rmse": c.rmse, "unit": c.unit,
             "coverage": {f"{level:g}": share for level, share in c.coverage.items()}} for c in run.calibrations
        ],
        "timings": run.timings,
        "warnings": run.warnings,
    }  # fmt: skip
    path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no infinities: they become texts."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    return value
