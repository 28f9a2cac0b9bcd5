"""The only bridge to ArviZ: posteriors go in as arrays and come out as `InferenceData`, in memory or as NetCDF."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._types import BayesmatError

InferenceData = Any
"""An `arviz.InferenceData`; its groups are attributes that type checkers cannot see."""

_SAMPLED = ("posterior", "sample_stats", "log_likelihood", "posterior_predictive", "prior", "prior_predictive")


def _arviz() -> Any:
    """The library, imported at first use (it takes a second) and without its note on version 1."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)
        return importlib.import_module("arviz")


def to_inference_data(
    posterior: Mapping[str, Any],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    **groups: Mapping[str, Any],
) -> InferenceData:
    """Arrays as ArviZ `InferenceData`.

    Args:
        posterior: `(chain, draw, ...)` arrays by name.
        dims: names of the axes of a variable after chain and draw (all axes, in groups without draws).
        coords: labels along named axes.
        attrs: strings and numbers kept with the data.
        groups: further ArviZ groups, such as `sample_stats`, `observed_data` or `constant_data`.

    Raises:
        BayesmatError: a posterior array lacks the axes chain and draw, or two of them disagree about their lengths.
    """
    sampled = {"posterior": posterior} | {name: groups[name] for name in groups if name in _SAMPLED}
    for group, arrays in sampled.items():
        shapes = {name: np.shape(array)[:2] for name, array in arrays.items()}
        if any(len(shape) < 2 for shape in shapes.values()) or len(set(shapes.values())) > 1:
            raise BayesmatError(f"{group} needs arrays (chain, draw, ...) of one length each, got {shapes}")
    every = {"posterior": posterior} | groups
    return _arviz().from_dict(
        **{group: {name: np.asarray(array) for name, array in arrays.items()} for group, arrays in every.items()},
        dims={name: list(axes) for name, axes in (dims or {}).items()},
        coords={name: list(labels) for name, labels in (coords or {}).items()},
        attrs=dict(attrs or {}),
    )


def convergence(idata: InferenceData) -> tuple[dict[str, float], dict[str, float]]:
    """The largest R-hat and the smallest bulk effective sample size over the entries of each variable."""
    az = _arviz()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant entries have no R-hat; they come out as NaN and are passed over
        r_hat, ess = az.rhat(idata.posterior), az.ess(idata.posterior)
    return (
        {str(name): float(np.nanmax(r_hat[name])) for name in r_hat if np.isfinite(r_hat[name]).any()},
        {str(name): float(np.nanmin(ess[name])) for name in ess if np.isfinite(ess[name]).any()},
    )


def save(idata: InferenceData, path: str | Path) -> Path:
    """Write NetCDF; the file appears under its name only once it is complete."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        idata.to_netcdf(str(partial), engine="h5netcdf")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> InferenceData:
    """Read what `save` wrote, into memory.

    Raises:
        BayesmatError: there is no such file, or it is not NetCDF.
    """
    if not Path(path).is_file():
        raise BayesmatError(f"there is no file {path}")
    try:
        idata = _arviz().from_netcdf(str(path), engine="h5netcdf")
        idata.load()
        idata.close()
    except (OSError, ValueError, KeyError) as error:
        raise BayesmatError(f"{path} cannot be read as NetCDF: {error}") from error
    return idata
