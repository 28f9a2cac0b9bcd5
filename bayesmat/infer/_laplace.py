"""The posterior of a NumPyro model as a Gaussian around its mode, for models whose density is dear to evaluate."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer import init_to_median
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from scipy.special import gammaln, logsumexp

from .._arviz import InferenceData, to_inference_data
from .._types import Array, BayesmatError
from ._diagnose import InferenceWarning

MAX_PARAMETERS = 2000
"""The Hessian takes two gradients for each unconstrained parameter."""


def laplace(
    model: Callable[..., Any],
    data: Mapping[str, Any],
    key: Array,
    *,
    num_draws: int = 300,
    max_iterations: int = 200,
    num_proposals: int = 0,
) -> InferenceData:
    """Draws of the Laplace approximation: mode by L-BFGS, covariance from the Hessian, both in unconstrained space.

    log p(z) ≈ log p(ẑ) − ½ (z − ẑ)ᵀ H (z − ẑ), drawn and mapped back to the support of each site. Runs in float64
    whatever JAX is set to. The Hessian is made of central differences of the gradient, so a model whose density has
    a hand-written gradient needs no second one.

    With `num_proposals` the approximation only proposes: that many draws of a Student t with 5 degrees of freedom
    and the same mode and Hessian are weighted by the density of the model, the weights are truncated (Ionides 2008),
    and the draws are taken from them. Posteriors that are skewed or have heavy tails come out right so long as they
    have one mode; `effective_draws` among the attributes says how well the proposals fit.

    Args:
        model: a NumPyro model without discrete latent sites.
        data: its keyword arguments; arrays enter the compiled program as arguments, not as constants.
        key: random key.
        num_draws: draws.
        max_iterations: of L-BFGS.
        num_proposals: 0 for the approximation itself.

    Returns:
        ArviZ data; the group `posterior` has one chain, its attribute `log_evidence` is the log marginal likelihood
        by Laplace's approximation, or by importance sampling.

    Raises:
        BayesmatError: the model has no latent site or too many, or its density is not finite at the start.
    """
    if num_draws < 1 or num_proposals < 0:
        raise BayesmatError(f"need num_draws >= 1 and num_proposals >= 0, got {num_draws} and {num_proposals}")
    with jax.enable_x64(True):
        double: dict[str, Any] = jax.tree.map(_double, dict(data))
        return _laplace(_program(model, double), double, key, num_draws, max_iterations, num_proposals)


class _Program(NamedTuple):
    """A model compiled for data of one shape, in unconstrained space."""

    start: np.ndarray
    value_and_grad: Callable[..., Any]
    values: Callable[..., Any]
    constrain: Callable[..., Any]


_PROGRAMS: OrderedDict[Any, _Program] = OrderedDict()
_MOST_PROGRAMS = 32


def _program(model: Callable[..., Any], data: dict) -> _Program:
    """Fits of one model to data of one shape share what is compiled."""
    leaves, structure = jax.tree.flatten(data)
    signature = (model, structure, tuple((np.shape(leaf), str(jnp.asarray(leaf).dtype)) for leaf in leaves))
    if signature not in _PROGRAMS:
        _PROGRAMS[signature] = _compile(model, data)
        while len(_PROGRAMS) > _MOST_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    return _PROGRAMS[signature]


def _compile(model: Callable[..., Any], data: dict) -> _Program:
    def at_medians(data: dict) -> dict[str, Array]:
        # One key for all, or a fit would depend on which one came first.
        seeded = handlers.seed(model, jax.random.key(0))
        sites = handlers.trace(handlers.substitute(seeded, substitute_fn=init_to_median(num_samples=15)))
        found = sites.get_trace(**data)
        latent = {n: s["value"] for n, s in found.items() if s["type"] == "sample" and not s["is_observed"]}
        return unconstrain_fn(model, (), data, latent)

    # The model only ever runs inside compiled programs: outside, each of its operations would be compiled by itself.
    shapes = jax.eval_shape(at_medians, data)
    zeros, unravel = ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    if not 0 < zeros.size <= MAX_PARAMETERS:
        raise BayesmatError(f"laplace takes 1 to {MAX_PARAMETERS} latent parameters, the model has {zeros.size}")

    def potential(z: Array, data: dict) -> Array:
        return potential_energy(model, (), data, unravel(z))

    def constrain(z: Array, data: dict) -> dict[str, Array]:
        return constrain_fn(model, (), data, unravel(z), return_deterministic=True)

    def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(lambda rows, data: jax.lax.map(lambda row: function(row, data), rows))

    start = jax.jit(lambda data: ravel_pytree(at_medians(data))[0])(data)
    return _Program(np.asarray(start), jax.jit(jax.value_and_grad(potential)), mapped(potential), mapped(constrain))


def _laplace(
    program: _Program, data: dict, key: Array, num_draws: int, max_iterations: int, num_proposals: int
) -> InferenceData:
    start = program.start

    def value_and_grad(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = program.value_and_grad(jnp.asarray(z), data)
        return float(value), np.asarray(gradient)

    if not np.isfinite(value_and_grad(start)[0]):
        raise BayesmatError("the density of the model is not finite at its prior medians; check data and priors")
    found = scipy.optimize.minimize(value_and_grad, start, jac=True, method="L-BFGS-B",
                                    options={"maxiter": max_iterations})  # fmt: skip
    if found.status == 1:
        message = f"laplace: no mode after {max_iterations} iterations; raise max_iterations or use nuts"
        warnings.warn(message, InferenceWarning, stacklevel=4)
    widths = np.sqrt(np.diag(found.hess_inv.todense()))
    hessian = _hessian(lambda z: value_and_grad(z)[1], found.x, np.clip(0.05 * widths, 1e-6, 1e-2))
    root, log_det = _inverse_root(hessian, LEAST_CURVATURE if num_proposals else 0.0)
    attrs: dict[str, Any] = {"inference": "laplace", "num_gradients": int(found.nfev)}
    if num_proposals:
        rows, weights, log_evidence = _weighted(program, data, found.x, root, log_det, key, num_proposals)
        position = (np.arange(num_draws) + float(jax.random.uniform(key))) / num_draws
        drawn = rows[np.minimum(np.searchsorted(np.cumsum(weights), position), num_proposals - 1)]
        attrs |= {"num_proposals": num_proposals, "effective_draws": float(1.0 / (weights**2).sum())}
    else:
        drawn = found.x + np.asarray(jax.random.normal(jax.random.split(key)[1], (num_draws, start.size))) @ root.T
        log_evidence = -found.fun + 0.5 * start.size * np.log(2 * np.pi) - 0.5 * log_det
    posterior = program.constrain(jnp.asarray(drawn), data)
    attrs["log_evidence"] = float(log_evidence)
    return to_inference_data({name: np.asarray(value)[None] for name, value in posterior.items()}, attrs=attrs)


_TAIL = 5.0
LEAST_CURVATURE = 0.3
"""Of a proposal: where the data say nothing, a prior of unit width in unconstrained space does."""


def _weighted(
    program: _Program, data: dict, mode: np.ndarray, root: np.ndarray, log_det: float, key: Array, num: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Proposals of a Student t around the mode, their normalised weights, and the log evidence."""
    size = len(mode)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    spread = np.sqrt(_TAIL / rng.chisquare(_TAIL, (num, 1)))
    standard = rng.standard_normal((num, size)) * spread
    rows = mode + standard @ root.T
    log_norm = gammaln((_TAIL + size) / 2) - gammaln(_TAIL / 2) - 0.5 * size * np.log(_TAIL * np.pi) + 0.5 * log_det
    log_q = log_norm - 0.5 * (_TAIL + size) * np.log1p((standard**2).sum(1) / _TAIL)
    log_weight = -np.asarray(program.values(jnp.asarray(rows), data)) - log_q
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    log_evidence = logsumexp(log_weight) - np.log(num)
    weight = np.exp(np.minimum(log_weight - log_evidence, 0.5 * np.log(num)))
    return rows, weight / weight.sum(), float(log_evidence)


def _double(leaf: Any) -> Any:
    """Floating arrays as float64, so that data made in float32 do not pull the model down."""
    if isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(np.asarray(leaf), jnp.float64)
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def _hessian(gradient: Callable[[np.ndarray], np.ndarray], z: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Central differences of the gradient, symmetrised, `(d, d)`."""
    rows = [(gradient(z + step) - gradient(z - step)) / (2 * step.sum()) for step in np.diag(steps)]
    return 0.5 * (np.array(rows) + np.array(rows).T)


def _inverse_root(hessian: np.ndarray, floor: float) -> tuple[np.ndarray, float]:
    """R with R Rᵀ = H⁻¹, and log |H|, eigenvalues no lower than `floor`.

    Without a floor, directions that are not downhill are given the widest width of the others.
    """
    values, vectors = np.linalg.eigh(hessian)
    positive = values > 1e-8 * max(float(np.abs(values).max()), 1e-300)
    if floor:
        values = np.maximum(values, floor)
    elif not positive.all():
        warnings.warn(
            f"laplace: the density is flat or rises in {int((~positive).sum())} of {len(values)} directions at the "
            "point found, so their width is a guess; give those parameters a prior or use nuts",
            InferenceWarning,
            stacklevel=5,
        )
        values = np.where(positive, values, values[positive].min() if positive.any() else 1.0)
    return vectors / np.sqrt(values), float(np.log(values).sum())
