"""Linear heads on frozen features as NumPyro models: real, noisy, several properties at once, and classes.

The features φ(x) come from an extractor that is not trained any more; what is learned is the head. Pick a model by what
was measured and, where the model takes one, a prior of the weights: `ridge_weights` when every feature may matter a
little, `horseshoe_weights` when few matter much. All models take their data as one `NamedTuple` and draw `y` where that
is None, so the same function makes the posterior (`bayesmat.infer`) and predicts (`numpyro.infer.Predictive`).

    idata = infer.nuts(frozen_model, {"data": Rows(phi, y)}, key)

Bind what is not data with `functools.partial`. Columns of φ have mean zero and variance one, or a mean squared row
norm of one; real y are standardised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .._types import Array, BayesmatError

Weights = Callable[[Array, Array], Array]
"""Samples the weights of a head, `(d,)`, given features `(n, d)` and the standard deviation of the noise."""


class Rows(NamedTuple):
    """Features and what was measured.

    Attributes:
        phi: `(n, d)` features.
        y: `(n,)` real; 0 or 1 for `binary_model`; class numbers for `class_model`; `(n, t)` for `multitask_model`,
            NaN where a property was not measured. None to draw it.
    """

    phi: Array
    y: Array | None


class NoisyRows(NamedTuple):
    """Features and measurements of known uncertainty.

    Attributes:
        phi: `(n, d)` features.
        noise: `(n,)` standard deviation of each measurement, in the unit of y.
        y: `(n,)`, or None to draw it.
    """

    phi: Array
    noise: Array
    y: Array | None


def ridge_weights(phi: Array, sigma: Array) -> Array:
    """w_j ~ N(0, s²), s ~ HalfNormal(1), `(d,)`: ridge regression with its strength learned.

    Args:
        phi: `(n, d)` features; only their number counts.
        sigma: not used, taken by every prior of weights.
    """
    del sigma
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand([phi.shape[1]]).to_event(1))
    return numpyro.deterministic("weights", scale * white)


def horseshoe_weights(phi: Array, sigma: Array, *, share: float = 0.1, slab: float = 2.0) -> Array:
    """The regularised horseshoe, `(d,)`: most weights at nothing, the others free up to a slab.

    w_j ~ N(0, τ² λ̃_j²), λ̃_j² = c² λ_j² / (c² + τ² λ_j²), λ_j ~ C⁺(0, 1), τ ~ C⁺(0, τ₀), c² ~ InvGamma(2, 2 slab²),
    with τ₀ = share / (1 − share) · σ / √n.

    Args:
        phi: `(n, d)` features, of unit variance.
        sigma: standard deviation of the noise (2 for logits).
        share: expected share of the features that matter, in (0, 1).
        slab: scale of the weights that matter.

    Source: Piironen and Vehtari 2017, doi 10.1214/17-EJS1337SI.
    """
    if not (0 < share < 1 and slab > 0):
        raise BayesmatError(f"share lies in (0, 1) and slab is positive, got {share} and {slab}")
    n, d = phi.shape
    local = numpyro.sample("local", dist.HalfCauchy(1.0).expand([d]).to_event(1))
    overall = numpyro.sample("global", dist.HalfCauchy(share / (1 - share) * sigma / n**0.5))
    limit = slab**2 * numpyro.sample("slab", dist.InverseGamma(2.0, 2.0))
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand([d]).to_event(1))
    # τλ̃ = c / √(1 + c² / (τλ)²), which does not overflow where a Cauchy draw is huge.
    return numpyro.deterministic("weights", white * jnp.sqrt(limit / (1 + limit / (overall * local) ** 2)))


def frozen_model(data: Rows, weights: Weights = ridge_weights) -> None:
    """y ~ N(a + φ w, σ²): a linear head on a frozen extractor.

    Args:
        data: standardised y.
        weights: prior of w, such as `ridge_weights` or `horseshoe_weights`.
    """
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    mean = _intercept() + data.phi @ weights(data.phi, sigma)
    numpyro.sample("y", dist.Normal(mean, sigma).to_event(1), obs=data.y)


def noisy_model(data: NoisyRows, weights: Weights = ridge_weights) -> None:
    """y_i ~ N(a + φ_i w, s_i² + σ²): each measurement with its own known error s_i, and σ for what φ cannot say.

    Args:
        data: standardised y, with `noise` in the same unit.
        weights: prior of w.
    """
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    mean = _intercept() + data.phi @ weights(data.phi, sigma)
    numpyro.sample("y", dist.Normal(mean, jnp.sqrt(data.noise**2 + sigma**2)).to_event(1), obs=data.y)


def multitask_model(data: Rows, num_tasks: int) -> None:
    """y_it ~ N(a_t + φ_i w_t, σ_t²) with weights correlated between t properties, w ~ MN(0, I_d, S R S).

    S = diag(s_t), s_t ~ HalfNormal(1), R ~ LKJ(2). A property with few measurements borrows from those that R ties it
    to: the linear model of coregionalisation (Alvarez et al. 2012, doi 10.1561/2200000036).

    Args:
        data: y `(n, t)`, each column standardised over what was measured.
        num_tasks: t, two at least.
    """
    if num_tasks < 2:
        raise BayesmatError(f"num_tasks is 2 or more, got {num_tasks}; frozen_model takes one property")
    shape = [data.phi.shape[1], num_tasks]
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([num_tasks]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0).expand([num_tasks]).to_event(1))
    correlation = numpyro.sample("correlation", dist.LKJCholesky(num_tasks, concentration=2.0))
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
    weights = numpyro.deterministic("weights", white @ (scale[:, None] * correlation).T)
    likelihood = dist.Normal(_intercept(num_tasks) + data.phi @ weights, sigma)
    if data.y is None:
        numpyro.sample("y", likelihood.to_event(2))
    else:
        measured = jnp.isfinite(data.y)
        numpyro.sample("y", likelihood.mask(measured).to_event(2), obs=jnp.where(measured, data.y, 0.0))


def binary_model(data: Rows, weights: Weights = ridge_weights) -> None:
    """y ~ Bernoulli(logit⁻¹(a + φ w)).

    Args:
        data: y in {0, 1}.
        weights: prior of w; it is told a noise of 2, the pseudo-deviation of a logit near one half.
    """
    logits = _intercept() + data.phi @ weights(data.phi, jnp.asarray(2.0))
    numpyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=data.y)


def class_model(data: Rows, num_classes: int) -> None:
    """y ~ Categorical(softmax(a + φ W)), w_jk ~ N(0, s²), s ~ HalfNormal(1).

    Args:
        data: y in {0, …, num_classes − 1}.
        num_classes: two at least.
    """
    if num_classes < 2:
        raise BayesmatError(f"num_classes is 2 or more, got {num_classes}")
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand([data.phi.shape[1], num_classes]).to_event(2))
    weights = numpyro.deterministic("weights", scale * white)
    numpyro.sample("y", dist.Categorical(logits=_intercept(num_classes) + data.phi @ weights).to_event(1), obs=data.y)


def _intercept(*shape: int) -> Array:
    return numpyro.sample("intercept", dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
