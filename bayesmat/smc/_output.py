"""What a finished run tells: tables of designs and diagnostics, a summary, warnings with advice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from ._kernels import Kernel
from ._model import Problem
from ._run import Island
from ._tempered import Info, Status

if TYPE_CHECKING:
    from ._smc import SMC

MOST_COLUMNS = 16
"""Elements of an array-valued site that get columns of their own."""


def log_mean_exp(values: np.ndarray) -> float:
    """log of the mean of exp, -inf kept."""
    top = values.max()
    return float(top + np.log(np.exp(values - top).mean())) if np.isfinite(top) else float(top)


def particle_weights(log_evidences: np.ndarray, num_particles: int) -> np.ndarray:
    """`(islands · N,)`, summing to one; equal where no island found any mass."""
    top = log_evidences.max()
    share = np.exp(log_evidences - top) if np.isfinite(top) else np.ones(len(log_evidences))
    return np.repeat(share / share.sum() / num_particles, num_particles)


def equal_weight_rows(weights: np.ndarray) -> np.ndarray:
    """As many rows as there are weights, each chosen in proportion to its weight; systematic, without chance."""
    points = (np.arange(len(weights)) + 0.5) / len(weights)
    return np.searchsorted(np.cumsum(weights), points * weights.sum()).clip(0, len(weights) - 1)


def total_rate(info: Info) -> np.ndarray:
    """Share of proposals that changed a particle, over all blocks and kernels or of a surrogate's moves, `(T,)`."""
    if info.outer is not None:
        return np.asarray(info.outer.changed / info.outer.tried)
    counts = list(info.counts.values())
    tried = sum(np.asarray(c.tried).sum(-1) for c in counts)
    return np.asarray(sum(np.asarray(c.changed).sum(-1) for c in counts) / np.maximum(tried, 1))


def string_priors(problem: Problem, island: Island) -> dict[str, Any]:
    """The distribution of each string site at one particle."""
    particle = jax.tree.map(lambda leaf: leaf[0], island.state.particles)
    return {block.name: block.prior(particle) for block in problem.blocks if block.kind == "string"}


def _texts(prior: Any, strings: np.ndarray) -> list[str]:
    if hasattr(prior, "to_text"):
        return list(prior.to_text(strings))
    return [" ".join(str(token) for token in row[row != 0]) for row in strings]


def _elements(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """A value `(n, ...)` as columns: one for a scalar, one for each element of a small array."""
    flat = value.reshape(len(value), -1)
    if flat.shape[1] == 1 and value.ndim <= 2:
        return {name: flat[:, 0]}
    if flat.shape[1] > MOST_COLUMNS:
        return {}
    places = np.ndindex(*value.shape[1:])
    return {f"{name}[{','.join(map(str, place))}]": flat[:, i] for i, place in enumerate(places)}


def to_table(
    samples: dict[str, Any], priors: dict[str, Any], weights: np.ndarray, log_likelihood: np.ndarray
) -> pd.DataFrame:
    """See `SMC.to_dataframe`."""
    texts: dict[str, list[str]] = {}
    for name, prior in priors.items():
        strings = np.asarray(samples[name])
        rows = strings.reshape(len(strings), -1, strings.shape[-1])
        for i in range(rows.shape[1]):
            texts[name if strings.ndim == 2 else f"{name}[{i}]"] = _texts(prior, rows[:, i])
    keys = list(zip(*texts.values(), strict=True)) if texts else list(range(len(weights)))
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    group = np.array([index[key] for key in keys])
    first = np.unique(group, return_index=True)[1]
    weight = np.bincount(group, weights)
    # A design of an island without evidence has no weight, and a mean all the same.
    share = np.where(weight[group] > 0, weights, 1.0)
    share = share / np.bincount(group, share)[group]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, share * values)

    table: dict[str, Any] = {name: [column[i] for i in first] for name, column in texts.items()}
    table["weight"] = weight
    with np.errstate(invalid="ignore"):
        table["log_likelihood"] = mean(log_likelihood.astype(float))
    for name, value in samples.items():
        if name in priors:
            continue
        if _is_predictive(value):
            table |= {column: moments[first] for column, moments in _moments(name, value).items()}
            continue
        for column, elements in _elements(name, np.asarray(value, float)).items():
            table[column] = mean(elements)
            sd = np.sqrt(np.maximum(mean((elements - table[column][group]) ** 2), 0))
            # Strings of one molecule give one value but for rounding.
            if (sd > 1e-4 * (np.abs(table[column]) + 1e-30)).any():
                table[f"{column}_sd"] = sd
    return pd.DataFrame(table).sort_values(["weight", "log_likelihood"], ascending=False, ignore_index=True)


def as_arrays(samples: dict[str, Any], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Samples with one leading axis as arrays with leading axes `shape`."""
    arrays: dict[str, Any] = {}
    for name, value in samples.items():
        arrays |= _moments(name, value) if _is_predictive(value) else {name: value}
    return {name: np.asarray(array).reshape(*shape, *np.shape(array)[1:]) for name, array in arrays.items()}


def _is_predictive(value: Any) -> bool:
    return hasattr(value, "mean") and hasattr(value, "sd")


def _moments(name: str, value: Any) -> dict[str, np.ndarray]:
    """Mean and standard deviation of predictive distributions."""
    return {f"{name}_{part}": np.asarray(jax.jit(lambda v, p=part: getattr(v, p)())(value)) for part in ("mean", "sd")}


def diagnostics(islands: list[Island], kernels: dict[str, list[Kernel]]) -> pd.DataFrame:
    """See `SMC.diagnostics`."""
    tables = []
    for number, island in enumerate(islands):
        info = island.info
        table: dict[str, Any] = {
            "island": np.full(len(info.beta), number),
            "temperature": np.arange(len(info.beta)) + 1,
        }
        table |= {"beta": info.beta, "ess": info.ess, "ancestors": info.num_ancestors, "evaluations": info.evaluations}
        if info.outer is not None:
            differed = np.where(info.outer.differed > 0, info.outer.differed, np.nan)
            table["surrogate accepted"] = info.outer.changed / differed
            table["surrogate changed"] = info.outer.changed / info.outer.tried
        for block, own in kernels.items():
            counts = info.counts[block]
            all_tried = np.maximum(counts.tried.sum(1), 1)
            for k, kernel in enumerate(own):
                tried, differed = (np.where(c[:, k] > 0, c[:, k], np.nan) for c in (counts.tried, counts.differed))
                label = f"{block}: {kernel.name}"
                table[f"{label} share"] = counts.tried[:, k] / all_tried
                table[f"{label} accepted"] = counts.changed[:, k] / differed
                table[f"{label} changed"] = counts.changed[:, k] / tried
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def summary(smc: SMC) -> str:
    """See `SMC.summary`."""
    n = smc.settings.num_particles * smc.num_islands
    se = "" if math.isnan(smc.log_evidence_se) else f" ± {smc.log_evidence_se:.2g}"
    islands = "" if smc.num_islands == 1 else f", {smc.num_islands} islands"
    lines = [
        f"status          {smc.status.message}",
        f"temperatures    {len(smc.temperatures) - 1}, β reached {smc.temperatures[-1]:.4g}{islands}",
        f"log evidence    {smc.log_evidence:.3f}{se}",
        f"distinct        {len(smc.to_dataframe())} designs in {n} particles",
        f"ancestors       {smc.num_ancestors} of {n}",
        f"evaluations     {smc.num_evaluations:,} of the likelihood",
    ]
    if len(smc.ess):
        lines.append(f"ESS             least {smc.ess.min():.0f} of {smc.settings.num_particles}")
        lines.append(f"changed         {smc.acceptance[0]:.3f} of the moves at first, {smc.acceptance[-1]:.3f} at last")
        lines += [f"  {line}" for line in _kernel_lines(smc.diagnostics())]
    return "\n".join([*lines, *(f"warning         {text}" for text in smc.warnings())])


def _kernel_lines(table: pd.DataFrame) -> list[str]:
    """For each kernel its share of the moves and its acceptance, at first and at last."""
    island = table[table["island"] == 0]
    labels = [column.removesuffix(" share") for column in table.columns if column.endswith(" share")]
    lines = []
    for label in labels:
        accepted = island[f"{label} accepted"].dropna()
        if len(accepted):
            share = island[f"{label} share"].iloc[-1]
            lines.append(
                f"{label:<32} accepted {accepted.iloc[0]:.3f} → {accepted.iloc[-1]:.3f}, {share:.0%} of the moves"
            )
    return lines


def warnings(smc: SMC) -> list[str]:
    """See `SMC.warnings`."""
    num = smc.settings.num_particles
    found = []
    if smc.status != Status.CONVERGED:
        found.append(smc.status.message)
    if len(smc.acceptance) and smc.acceptance[-1] < 0.01:
        found.append(
            f"Only {100 * smc.acceptance[-1]:.2g} % of the last moves changed a particle: raise num_moves, or allow "
            "the target more room."
        )
    if smc.num_ancestors < 0.005 * num * smc.num_islands:
        found.append(
            f"All particles descend from {smc.num_ancestors} of the prior's {num * smc.num_islands}: what they share "
            "may be chance. Raise num_particles or target_ess, and compare islands."
        )
    if len(smc.ess) and smc.ess.min() < 0.1 * num and smc.schedule is not None:
        worst = int(smc.ess.argmin())
        found.append(
            f"The step to β = {smc.temperatures[worst + 1]:.3g} left an effective sample of {smc.ess[worst]:.0f}: add "
            "temperatures before it, or use the adaptive schedule."
        )
    if smc.num_islands > 1 and np.isfinite(smc.log_evidence):
        spread = float(np.std(smc.log_evidences[np.isfinite(smc.log_evidences)]))
        if spread > 1:
            found.append(
                f"The islands' log evidences scatter by {spread:.2g}: they found different parts of the posterior. "
                "Raise num_particles or num_moves."
            )
    return found
