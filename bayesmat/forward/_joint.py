"""Draws of a property at several molecules together: what is not known of the function is shared between them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from .._types import Array, BayesmatError
from ._predictor import LinearPredictor, Predictor, ProcessPredictor
from ._process import JITTER, Process

MAX_MOLECULES = 4096


def joint_draws(predictor: Predictor, tokens: np.ndarray | Array, key: Array, num: int = 256) -> np.ndarray:
    """Draws of what would be measured at n molecules, `(num, n)` in the unit of y.

    Each column has the distribution that the predictor gives for its molecule alone. Within a draw the function is one:
    where it lies too high for a molecule it does so for its relatives. Errors of measurement, and the stretch of
    Student's t, are independent.

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
    tokens = jnp.asarray(tokens, jnp.int32)
    if isinstance(predictor, ProcessPredictor):
        value = _process_draws(predictor, tokens, key, num)
    elif isinstance(predictor, LinearPredictor):
        value = np.asarray(_linear_draws(predictor, tokens, key, num))
    else:
        raise BayesmatError(f"a {type(predictor).__name__} has no joint draws; allowed are the predictors of `fit`")
    return np.exp(value) if predictor.log else value


@eqx.filter_jit
def _linear_draws(predictor: LinearPredictor, tokens: Array, key: Array, num: int) -> Array:
    p = predictor(tokens)
    which, other, noise = jax.random.split(key, 3)
    k = jnp.arange(num) % p.loc.shape[-1]
    k = jax.random.permutation(which, k)
    own = jax.random.randint(other, (num, len(tokens)), 0, p.loc.shape[-1])
    scale = jnp.take_along_axis(p.scale, own.T, axis=1).T
    return p.loc.T[k] + scale * jax.random.normal(noise, scale.shape)


def _process_draws(predictor: ProcessPredictor, tokens: Array, key: Array, num: int) -> np.ndarray:
    process, features = predictor.process, _features(predictor, tokens)
    mean, variance = (np.asarray(array, float) for array in _moments(process, features))
    rows = [np.asarray(_row(process, index, features), float) for index in range(len(process.blocks))]
    noise, stretch = np.asarray(predictor.noise_scale, float), np.asarray(predictor.stretch, float)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    components = len(noise)
    used = rng.permutation(components)[: min(components, max(num // 16, 1))]
    drawn = []
    for place, k in enumerate(used):
        each = len(range(place, num, len(used)))
        root = _root(_correlation(process, rows, k, (noise[k] / float(process.width)) ** 2))
        function = np.sqrt(variance[:, k]) * (rng.standard_normal((each, len(mean))) @ root.T)
        error = noise[k] * rng.standard_normal(function.shape)
        drawn.append(mean[:, k] + rng.choice(stretch[k], function.shape) * (function + error))
    return np.concatenate(drawn)


_features = eqx.filter_jit(lambda predictor, tokens: predictor.features(tokens))
_moments = eqx.filter_jit(lambda process, features: process(features))
_row = eqx.filter_jit(
    lambda process, index, features: process.blocks[index](process._raw(process.blocks[index].name, features, None))
)


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
