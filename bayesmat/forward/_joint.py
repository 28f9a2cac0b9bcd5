"""Draws of a property at several molecules together: what is not known of the function is shared between them."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
import scipy.linalg

from .._types import Array, BayesmatError
from ..nn import Features
from ._fitted import BATCH, batch, compute_features
from ._predictor import LinearPredictor, Predictor, ProcessPredictor
from ._process import JITTER, Process, exception

MAX_MOLECULES = 4096


def joint_draws(predictor: Predictor, tokens: np.ndarray | Array, key: Array, num: int = 256) -> np.ndarray:
    """Draws of what would be measured at n molecules, `(num, n)` in the unit of y.

    Each column has the distribution that the predictor gives for its molecule alone. Within a draw the function is one:
    where it lies too high for a molecule it does so for its relatives. Errors of measurement, the stretch of Student's
    t, and which molecules are exceptions, are independent.

    Args:
        predictor: the model.
        tokens: `(n, length)` of its alphabet.
        key: random key.
        num: draws, in groups that share hyperparameters.

    Raises:
        BayesmatError: more than 4,096 molecules, or a kind of predictor that has no joint distribution.
    """
    if len(tokens) > MAX_MOLECULES:
        raise BayesmatError(f"{len(tokens):,} molecules; joint draws are made of {MAX_MOLECULES:,} or fewer")
    features = compute_features(np.asarray(tokens), predictor.alphabet)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    if isinstance(predictor, ProcessPredictor):
        value = _process_draws(predictor, features, rng, num)
    elif isinstance(predictor, LinearPredictor):
        value = _linear_draws(predictor, features, rng, num)
    else:
        raise BayesmatError(f"a {type(predictor).__name__} has no joint draws; allowed are the predictors of `fit`")
    return np.exp(value) if predictor.log else value


def _linear_draws(predictor: LinearPredictor, features: Features, rng: np.random.Generator, num: int) -> np.ndarray:
    loc, scale = _in_batches(_law, predictor, features)
    components = loc.shape[1]
    function = rng.permutation(np.arange(num) % components)
    own = rng.integers(0, components, (num, len(loc)))
    return loc.T[function] + np.take_along_axis(scale.T, own, axis=0) * rng.standard_normal(own.shape)


def _process_draws(predictor: ProcessPredictor, features: Features, rng: np.random.Generator, num: int) -> np.ndarray:
    process = predictor.process
    mean, variance, *rows = _in_batches(_moments_and_rows, process, features)
    noise, stretch = np.asarray(predictor.noise_scale, float), np.asarray(predictor.stretch, float)
    components = len(noise)
    used = rng.permutation(components)[: min(components, max(num // 16, 1))]
    drawn = []
    for place, k in enumerate(used):
        each = len(range(place, num, len(used)))
        root = _root(_correlation(process, rows, k, (noise[k] / float(process.width)) ** 2))
        function = np.sqrt(variance[:, k]) * (rng.standard_normal((each, len(mean))) @ root.T)
        error = noise[k] * rng.standard_normal(function.shape)
        drawn.append(mean[:, k] + rng.choice(stretch[k], function.shape) * (function + error))
    value = np.concatenate(drawn)
    exceptional = rng.random(value.shape) < predictor.exceptions / predictor.num_draws
    middle, apart = (np.asarray(part) for part in exception(mean, process.center, predictor.spread))
    return np.where(exceptional, middle + apart * rng.standard_normal(value.shape), value)


def _in_batches(function: Callable, model: eqx.Module, features: Features) -> list[np.ndarray]:
    """Its arrays for n molecules, in float64; compiled once for every n."""
    n = len(features.descriptors)
    parts = [function(model, batch(features, slice(start, start + BATCH))) for start in range(0, max(n, 1), BATCH)]
    return [np.concatenate([np.asarray(array, float) for array in arrays])[:n] for arrays in zip(*parts, strict=True)]


@eqx.filter_jit
def _law(predictor: LinearPredictor, features: Features) -> tuple[Array, Array]:
    p = predictor.predictive(features)
    return p.loc, p.scale


@eqx.filter_jit
def _moments_and_rows(process: Process, features: Features) -> tuple[Array, ...]:
    return *process(features), *(block(process._raw(block.name, features, None)) for block in process.blocks)


def _correlation(process: Process, rows: list[np.ndarray], k: int, noise: float) -> np.ndarray:
    """Posterior correlations of the function between n molecules, `(n, n)`, under draw k of the hyperparameters.

    In float64: what the data leave of the prior's covariance can be a small difference of large numbers.

    Args:
        process: the model.
        rows: each block's rows of the molecules.
        k: which draw.
        noise: variance of the measurements, on the process's own scale.
    """
    train = [np.asarray(block.rows, float) for block in process.blocks]
    linear, smooth, length = (np.asarray(array[k], float) for array in (process.linear, process.smooth, process.length))

    def prior(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
        total = np.ones((len(left[0]), len(right[0])))
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            gram = a @ b.T
            squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * gram, 0.0)
            total += linear[index] ** 2 * gram + smooth[index] ** 2 * np.exp(-0.5 * squared / length[index] ** 2)
        return total

    root = np.linalg.cholesky(prior(train, train) + (noise + JITTER) * np.eye(len(train[0])))
    half = scipy.linalg.solve_triangular(root, prior(train, rows), lower=True)
    covariance = prior(rows, rows) - half.T @ half
    scale = 1 / np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    return covariance * scale[:, None] * scale


def _root(correlation: np.ndarray) -> np.ndarray:
    """A Cholesky factor of correlations, which molecules that look alike leave barely definite."""
    identity = np.eye(len(correlation))
    for floor in (1e-9, 1e-6, 1e-3):
        try:
            return np.linalg.cholesky((correlation + floor * identity) / (1 + floor))
        except np.linalg.LinAlgError:
            continue
    raise BayesmatError("the correlations between the molecules are not positive: the model is damaged")
