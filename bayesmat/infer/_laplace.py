"""The posterior of a NumPyro model as a Gaussian around its mode, for models whose density is dear to evaluate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_median
from numpyro.infer.util import initialize_model

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
) -> InferenceData:
    """Draws of the Laplace approximation: mode by L-BFGS, covariance from the Hessian, both in unconstrained space.

    log p(z) ≈ log p(ẑ) − ½ (z − ẑ)ᵀ H (z − ẑ), drawn and mapped back to the support of each site. Runs in float64
    whatever JAX is set to. The Hessian is made of central differences of the gradient, so a model whose density has
    a hand-written gradient needs no second one.

    Args:
        model: a NumPyro model without discrete latent sites.
        data: its keyword arguments; arrays enter the compiled program as arguments, not as constants.
        key: random key.
        num_draws: draws.
        max_iterations: of L-BFGS.

    Returns:
        ArviZ data; the group `posterior` has one chain, its attribute `log_evidence` is Laplace's approximation of
        the log marginal likelihood.

    Raises:
        BayesmatError: the model has no latent site or too many, or its density is not finite at the start.
    """
    if num_draws < 1:
        raise BayesmatError(f"need num_draws >= 1, got {num_draws}")
    with jax.enable_x64(True):
        return _laplace(model, data, key, num_draws, max_iterations)


def _laplace(
    model: Callable[..., Any], data: Mapping[str, Any], key: Array, num_draws: int, max_iterations: int
) -> InferenceData:
    key_start, key_draw = jax.random.split(key)
    data = jax.tree.map(_double, dict(data))
    info = initialize_model(key_start, model, init_strategy=init_to_median(num_samples=15), dynamic_args=True,
                            model_kwargs=data, validate_grad=False)  # fmt: skip
    start, unravel = ravel_pytree(info.param_info.z)
    if not 0 < start.size <= MAX_PARAMETERS:
        raise BayesmatError(f"laplace takes 1 to {MAX_PARAMETERS} latent parameters, the model has {start.size}")

    @jax.jit
    def potential(z: Array, data: dict) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda z: info.potential_fn(**data)(unravel(z)))(z)

    def value_and_grad(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = potential(jnp.asarray(z), data)
        return float(value), np.asarray(gradient)

    if not np.isfinite(value_and_grad(np.asarray(start))[0]):
        raise BayesmatError("the density of the model is not finite at its prior medians; check data and priors")
    found = scipy.optimize.minimize(value_and_grad, np.asarray(start), jac=True, method="L-BFGS-B",
                                    options={"maxiter": max_iterations})  # fmt: skip
    if found.status == 1:
        message = f"laplace: no mode after {max_iterations} iterations; raise max_iterations or use nuts"
        warnings.warn(message, InferenceWarning, stacklevel=4)
    widths = np.sqrt(np.diag(found.hess_inv.todense()))
    hessian = _hessian(lambda z: value_and_grad(z)[1], found.x, np.clip(0.05 * widths, 1e-6, 1e-2))
    root, log_det = _inverse_root(hessian)
    noise = jax.random.normal(key_draw, (num_draws, start.size))

    @jax.jit
    def constrain(z: Array, data: dict) -> dict:
        return jax.lax.map(lambda row: info.postprocess_fn(**data)(unravel(row)), z)

    posterior = constrain(found.x + noise @ root.T, data)
    log_evidence = -found.fun + 0.5 * start.size * np.log(2 * np.pi) - 0.5 * log_det
    attrs = {"inference": "laplace", "log_evidence": log_evidence, "num_gradients": int(found.nfev)}
    return to_inference_data({name: np.asarray(value)[None] for name, value in posterior.items()}, attrs=attrs)


def _double(leaf: Any) -> Any:
    """Floating arrays as float64, so that data made in float32 do not pull the model down."""
    if isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(np.asarray(leaf), jnp.float64)
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def _hessian(gradient: Callable[[np.ndarray], np.ndarray], z: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Central differences of the gradient, symmetrised, `(d, d)`."""
    rows = [(gradient(z + step) - gradient(z - step)) / (2 * step.sum()) for step in np.diag(steps)]
    return 0.5 * (np.array(rows) + np.array(rows).T)


def _inverse_root(hessian: np.ndarray) -> tuple[np.ndarray, float]:
    """R with R Rᵀ = H⁻¹, and log |H|; directions that are not downhill are given the widest width of the others."""
    values, vectors = np.linalg.eigh(hessian)
    positive = values > 1e-8 * max(float(np.abs(values).max()), 1e-300)
    if not positive.all():
        warnings.warn(
            f"laplace: the density is flat or rises in {int((~positive).sum())} of {len(values)} directions at the "
            "point found, so their width is a guess; give those parameters a prior or use nuts",
            InferenceWarning,
            stacklevel=5,
        )
        values = np.where(positive, values, values[positive].min() if positive.any() else 1.0)
    return vectors / np.sqrt(values), float(np.log(values).sum())
