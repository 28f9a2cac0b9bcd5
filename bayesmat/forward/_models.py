"""The two NumPyro models behind every fit, with the weights of the first integrated out exactly.

y = Φ w + ε on standardised y, with weights w_j ~ N(0, s_g²) in feature group g and ε ~ N(0, σ²). Given (s, σ) all is
Gaussian: the log marginal likelihood is a function of ΦᵀΦ, Φᵀy and yᵀy alone, so its cost does not depend on the
number of measurements. The second model learns what the noise really looks like from leave-one-out residuals.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular

from .._types import Array


class Sufficient(NamedTuple):
    """All that the linear model needs of n rows with D columns in G groups; float64.

    Attributes:
        gram: `(D, D)` ΦᵀΦ.
        moment: `(D,)` Φᵀy.
        square: yᵀy.
        num_rows: n.
        groups: `(G, D)` 1 where a column belongs to a group; a column in no group has the prior N(0, 1).
    """

    gram: Array
    moment: Array
    square: Array
    num_rows: Array
    groups: Array


def linear_model(stats: Sufficient) -> None:
    """Scales of the feature groups and of the noise, weights integrated out.

    Columns of a group are normalised to a mean squared row norm of one, so a scale is the prior standard deviation of
    the group's contribution, in standard deviations of y. It may exceed one: correlated columns cancel.
    """
    num_groups = stats.groups.shape[0]
    scale = numpyro.sample("scale", dist.HalfNormal(2.0).expand([num_groups]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.factor("marginal", log_marginal(scale, sigma, stats))


def prior_precision(scale: Array, groups: Array) -> Array:
    """1/s² of each column's group, and one for columns in no group, `(D,)`."""
    return scale**-2.0 @ groups + (1.0 - groups.sum(0))


@jax.custom_vjp
def log_marginal(scale: Array, sigma: Array, stats: Sufficient) -> Array:
    """log N(y; 0, Φ S Φᵀ + σ² I) in closed form, with its gradient in closed form.

    With Λ = S⁻¹, A = Λ + ΦᵀΦ/σ² and w = A⁻¹Φᵀy/σ²: −½ [n log 2πσ² + log|A| − log|Λ| + (yᵀy − wᵀΦᵀy)/σ²]. The
    gradient needs only w and the diagonal of A⁻¹, a third of what differentiating the Cholesky factor would cost.

    Args:
        scale: `(G,)` prior standard deviation of the weights in each group.
        sigma: standard deviation of the noise.
        stats: sufficient statistics; not differentiated.

    Source: MacKay 1992, doi 10.1162/neco.1992.4.3.415.
    """
    return _value_and_gradient(scale, sigma, stats)[0]


@jax.jit  # NumPyro also runs models outside compiled programs, to look at their sites
def _value_and_gradient(scale: Array, sigma: Array, stats: Sufficient) -> tuple[Array, tuple[Array, Array]]:
    precision, variance = prior_precision(scale, stats.groups), sigma**2
    factor = jnp.linalg.cholesky(stats.gram / variance + jnp.diag(precision))
    weights = cho_solve((factor, True), stats.moment / variance)
    log_det = 2 * jnp.log(jnp.diagonal(factor)).sum() - jnp.log(precision).sum()
    fit = stats.square - stats.moment @ weights
    value = -0.5 * (stats.num_rows * jnp.log(2 * jnp.pi * variance) + log_det + fit / variance)
    inverse_factor = solve_triangular(factor, jnp.eye(factor.shape[0], dtype=factor.dtype), lower=True)
    diagonal = (inverse_factor**2).sum(0)  # of A⁻¹
    by_group = stats.groups @ (weights**2 + diagonal)
    d_scale = by_group / scale**3 - stats.groups.sum(1) / scale
    residual = stats.square - 2 * stats.moment @ weights + weights @ (stats.gram @ weights)
    determined = factor.shape[0] - (diagonal * precision).sum()  # effective number of parameters
    d_sigma = (residual / variance + determined - stats.num_rows) / sigma
    return value, (d_scale, d_sigma)


def _backward(gradient: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    return cotangent * gradient[0], cotangent * gradient[1], None


log_marginal.defvjp(_value_and_gradient, _backward)


class NoiseData(NamedTuple):
    """Leave-one-out errors of the linear model, in standard deviations of y.

    Attributes:
        residual: `(n,)` observation minus its prediction without it.
        variance: `(n,)` what the linear model expects of its square: variance of the function, plus σ².
        novelty: `(n,)` log variance of the function alone, standardised.
    """

    residual: Array
    variance: Array
    novelty: Array


def noise_model(data: NoiseData) -> None:
    """What the errors really look like: Student, stretched by a factor that may depend on novelty.

    r ~ t_ν(0, exp(a + b z) √variance). One mixing variable stretches function and noise together, as in a Student-t
    process (Shah et al. 2014, https://proceedings.mlr.press/v33/shah14.html): a linear model is wrong about molecules
    as often as measurements are.
    """
    log_stretch = numpyro.sample("noise_log_stretch", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("noise_slope", dist.Normal(0.0, 0.5))
    excess = numpyro.sample("noise_excess", dist.LogNormal(1.0, 1.0))
    dof = numpyro.deterministic("noise_dof", 1.0 + excess)
    scale = jnp.exp(log_stretch + slope * data.novelty) * jnp.sqrt(data.variance)
    numpyro.sample("residual", dist.StudentT(dof, 0.0, scale), obs=data.residual)
