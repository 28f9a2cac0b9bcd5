"""From a table of measurements to a fitted property."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from .. import infer
from .._types import Array, BayesmatError, progress as progress_bar
from ..chem import Alphabet, encode
from ..data import PropertyTable
from ..infer import InferenceData
from . import _design, _posterior, _store
from ._fitted import Fitted, calibrate, compute_features
from ._models import NoiseData, linear_model, noise_model
from ._predictive import Predictive
from ._predictor import NOVELTY_LIMIT, Linear, Predictor

MIN_ROWS = 10
NUTS_ROWS = 150
"""Up to this many rows the hyperparameters are sampled; above, their posterior is narrow and Laplace's agrees."""
NUM_SCALE_SETS = 4
"""Sets of scales that the weights of an abundant model are drawn from; each costs a Cholesky factor and more."""


def fit(
    table: PropertyTable,
    *,
    key: Array,
    alphabet: Alphabet | None = None,
    sources: Sequence[Fitted] = (),
    num_draws: int = 128,
    log: bool | None = None,
    cache: bool = True,
    progress: bool = True,
) -> Fitted:
    """Learn a property from measurements: a hierarchical linear model with its weights integrated out exactly.

    With 1,000 rows and more the columns are descriptors, fingerprint and a kernel at 512 landmarks; with fewer they
    are descriptors and what each source predicts. The scale of every group of columns is learned. The noise is
    Student, learned from leave-one-out residuals. Ten thousand rows take some ten seconds on two cores.

    Args:
        table: measurements; molecules that the alphabet cannot say are set aside and counted.
        key: random key; the same key gives the same fit.
        alphabet: of the strings that the predictor will read; `Alphabet.organic()` if None.
        sources: fits to transfer from; not used with 1,000 rows and more.
        num_draws: posterior draws K that the predictor keeps.
        log: model log y. None decides: all y positive, their skewness above 1, and log y less skewed than y.
        cache: keep the fit on disk and read it when nothing that went in has changed.
        progress: show a progress bar when it takes more than two seconds.

    Raises:
        BayesmatError: fewer than 10 usable rows, values that are not finite, all equal or not positive under a log,
            or too few draws.
    """
    alphabet = Alphabet.organic() if alphabet is None else alphabet
    y_all = np.asarray(table.y, np.float64)
    if not np.isfinite(y_all).all():
        raise BayesmatError(f"{table.name}: {int((~np.isfinite(y_all)).sum())} values are not finite")
    if num_draws < 8:
        raise BayesmatError(f"num_draws is {num_draws}; a predictive needs at least 8")
    if log and (y_all <= 0).any():
        raise BayesmatError(f"{table.name}: log=True, but {int((y_all <= 0).sum())} values are not positive")
    log = is_logarithmic(y_all) if log is None else bool(log)
    fingerprint = _store.fingerprint(table, alphabet, tuple(sources), num_draws, log, key)
    if cache and (found := _store.from_cache(table.name, fingerprint)) is not None:
        return found
    fitted = _fit(table, alphabet, tuple(sources), num_draws, log, key, fingerprint, progress)
    if cache:
        _store.to_cache(fitted)
    return fitted


def is_logarithmic(y: np.ndarray) -> bool:
    """Whether y is modelled by its logarithm: positive, of skewness above 1, and less skewed as a logarithm."""
    if (y <= 0).any() or np.ptp(y) == 0 or not scipy.stats.skew(y) > 1:
        return False
    return bool(abs(scipy.stats.skew(np.log(y))) < scipy.stats.skew(y))


def _fit(
    table: PropertyTable,
    alphabet: Alphabet,
    sources: tuple[Fitted, ...],
    num_draws: int,
    log: bool,
    key: Array,
    fingerprint: str,
    progress: bool,
) -> Fitted:
    keys = jax.random.split(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[2])).ravel())
    names = ("structures", "features", "scales", "weights", "noise", "calibration")
    stages = iter(progress_bar(names, f"fitting {table.label}") if progress else names)

    next(stages)
    encoded = encode(table.smiles, alphabet, description=f"structures of {table.label}")
    smiles = tuple(table.smiles[row] for row in encoded.kept)
    observed = np.asarray(table.y, np.float64)[encoded.kept]
    n = len(smiles)
    if n < MIN_ROWS:
        aside = f"; {len(encoded.refusals)} were set aside: {dict(encoded.refused)}" if encoded.refusals else ""
        raise BayesmatError(f"{table.name}: {n} usable rows, at least {MIN_ROWS} are needed{aside}")
    value = np.log(observed) if log else observed
    center, width = float(value.mean()), float(value.std())
    if not width > 1e-9 * max(abs(center), 1e-300):
        raise BayesmatError(f"{table.name}: all {n} values are equal, there is nothing to learn")
    y = (value - center) / width

    next(stages)
    features = compute_features(encoded.tokens, alphabet)
    abundant = n >= _design.ABUNDANT
    used = () if abundant else sources
    columns = [source.transferable(smiles, features) for source in used]
    design = _design.build(features, _design.transferred_or_empty(columns, n), rng, abundant)

    next(stages)
    stats = _posterior.sufficient(design.matrix, y, design.groups)
    scales = _infer(linear_model, {"stats": stats}, keys[0], num_draws, n <= NUTS_ROWS)
    nodes = _thinned(scales, NUM_SCALE_SETS if abundant else num_draws)

    next(stages)
    weights = _posterior.draw(design.matrix, y, stats, nodes["scale"], nodes["sigma"], num_draws, rng)
    on_basis = design.to_basis(weights.draws, weights.scale, rng)
    exact = design.to_basis(weights.draws.mean(0, keepdims=True), weights.scale[:1], None)
    on_basis += exact - on_basis.mean(0)  # bins never seen have a mean of zero too
    on_basis *= width
    on_basis[:, 0] += center

    next(stages)
    log_variance = np.log(weights.loo_variance)
    novelty_mean, novelty_scale = float(log_variance.mean()), max(float(log_variance.std()), 1e-3)
    novelty = np.clip((log_variance - novelty_mean) / novelty_scale, -NOVELTY_LIMIT, NOVELTY_LIMIT)
    variance = weights.loo_variance + np.mean(nodes["sigma"] ** 2)
    errors = NoiseData(y - weights.loo_mean, variance, novelty)
    noise = _thinned(_infer(noise_model, {"data": errors}, keys[1], num_draws, n <= NUTS_ROWS), num_draws)
    level = (rng.permutation(num_draws) + 0.5) / num_draws
    mixing = scipy.stats.gamma.ppf(level, noise["noise_dof"] / 2, scale=2 / noise["noise_dof"])
    arrays = {
        "noise_scale": width * weights.sigma,
        "noise_log_stretch": noise["noise_log_stretch"],
        "noise_slope": noise["noise_slope"],
        "noise_mixing": mixing**-0.5,
        "novelty_mean": novelty_mean + 2 * np.log(width),
        "novelty_scale": novelty_scale,
    }
    named: dict[str, Any] = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    named |= {"name": table.name, "label": table.label, "unit": table.unit}
    linear = Linear(design.basis, jnp.asarray(on_basis, jnp.float32), tuple(s.predictor.linear.average() for s in used))
    predictor = Predictor(linear, alphabet=alphabet, log=log, **named)

    next(stages)
    loo_mean = center + width * weights.loo_mean
    loo = leave_one_out_predictive(predictor, loo_mean, width**2 * weights.loo_variance)
    calibration = calibrate(loo, observed, table.label, table.unit, "leave-one-out")
    idata = _inference_data(scales, noise, weights, on_basis, design, used, calibration, loo_mean, width, smiles)
    next(stages, None)
    return Fitted(table.name, table.label, table.unit, predictor, idata, calibration, smiles, observed, loo_mean,
                  encoded.refusals, used, fingerprint)  # fmt: skip


def _infer(model: Any, data: dict, key: Array, num_draws: int, sample: bool) -> InferenceData:
    """NUTS where it is cheap, else Laplace; float64."""
    if not sample:
        return infer.laplace(model, data, key, num_draws=num_draws)
    with jax.enable_x64(True):
        data = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), data)
        return infer.nuts(model, data, key, num_samples=max(300, num_draws // 2), progress_bar=False)


def _thinned(idata: InferenceData, num: int) -> dict[str, np.ndarray]:
    """`num` draws, evenly spaced over the chains, as `(num, ...)` arrays by name."""
    flat = {str(name): idata.posterior[name].values for name in idata.posterior.data_vars}
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in flat.items()}
    total = len(next(iter(flat.values())))
    chosen = (np.arange(num) + 0.5) * total / num
    return {name: array[chosen.astype(int)] for name, array in flat.items()}


def leave_one_out_predictive(predictor: Predictor, mean: np.ndarray, variance: np.ndarray) -> Predictive:
    """Predictives `(n, K)` from exact moments of the function in place of the predictor's draws.

    The K values of the function are normal quantiles, paired with the noise by a rank-one lattice.
    """
    k = predictor.num_draws
    quantile = scipy.special.ndtri((np.arange(k) + 0.5) / k)
    quantile *= 1.0 / quantile.std()
    by_noise = np.argsort(np.argsort(np.asarray(predictor.noise_mixing)))
    lattice = np.argsort(np.argsort((np.arange(k) * 0.6180339887) % 1.0))
    standard = quantile[lattice[by_noise]]
    loc = jnp.asarray(mean[:, None] + np.sqrt(variance)[:, None] * standard, jnp.float32)
    return predictor.at(loc)


def _inference_data(
    scales: InferenceData,
    noise: dict[str, np.ndarray],
    weights: _posterior.Weights,
    on_basis: np.ndarray,
    design: _design.Design,
    sources: tuple[Fitted, ...],
    calibration: infer.Calibration,
    loo_mean: np.ndarray,
    width: float,
    smiles: tuple[str, ...],
) -> InferenceData:
    """One ArviZ object: hyperparameters, noise and weights, thinned to the predictor's draws."""
    thinned = _thinned(scales, len(on_basis))
    posterior = {**thinned, **noise, "weights": np.asarray(on_basis, np.float32)}
    return infer.to_inference_data(
        {name: array[None] for name, array in posterior.items()},
        dims={"scale": ["group"], "weights": ["column"], "y": ["molecule"], "loo_mean": ["molecule"],
              "loo_sd": ["molecule"], "loo_pit": ["molecule"]},
        coords={"group": design.group_names, "column": design.column_names(tuple(s.name for s in sources)),
                "molecule": list(smiles)},
        attrs={"inference": scales.attrs["inference"], "label": calibration.label,
               "unit": calibration.unit},
        observed_data={"y": calibration.observed},
        constant_data={"loo_mean": loo_mean, "loo_sd": width * np.sqrt(weights.loo_variance),
                       "loo_pit": calibration.pit},
    )  # fmt: skip
