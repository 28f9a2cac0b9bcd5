"""Transfer from a source as NumPyro models: how far to trust what was learned from another property is a parameter.

- `anchored_model`: weights of any Equinox module, N(θ_source, τ²): τ → 0 is the source, τ → ∞ forgets it;
- `affine_model`: y = g1(f_s) + g2(f_s)·g3(x) with Gaussian processes, for a source that predicts f_s;
- `tau_rho_model` and `TauRho`: a blend of source and regressor, pulled towards the source by a penalty.

As for the heads, data are one `NamedTuple` whose `y` may be None, to draw it. Measurements y and predictions f_s of a
source in the unit of y are standardised; rows x have mean zero and variance one in each column. The Gaussian processes
are meant for tens to hundreds of rows, in float64. `affine_predict` and `tau_rho_predict` take draws of the latent
sites by name, `(m, ...)`, and give the mean and standard deviation of y at new rows for each: a mixture of m normals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.contrib.module import random_eqx_module

from .._types import Array, BayesmatError

Kernel = Callable[[Array, Array, Array], Array]
"""k(a `(n, d)`, b `(m, d)`, length) → `(n, m)`, with unit variance at unit length."""


def rbf(a: Array, b: Array, length: Array) -> Array:
    """exp(−|a − b|² / (2 d length²)), `(n, m)`, of rows with d columns; length 1 is the scale of standardised rows."""
    dot = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * dot
    return jnp.exp(-0.5 * jnp.maximum(square, 0.0) / (a.shape[1] * length**2))


def linear(a: Array, b: Array, length: Array) -> Array:
    """a·b / (d length²), `(n, m)`: a Gaussian process with this kernel is ridge regression."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST) / (a.shape[1] * length**2)


class ModuleRows(NamedTuple):
    """Inputs of a module and what was measured.

    Attributes:
        x: `(n, ...)` inputs, one for each call of the module.
        y: `(n,)`, or None to draw it.
    """

    x: Array
    y: Array | None


def anchored_prior(module: eqx.Module, tau: Array | float) -> dict[str, dist.Distribution]:
    """N(θ_source, τ²) for each floating array of a module, named as `numpyro.contrib.module.random_eqx_module` does.

    Args:
        module: the source, trained.
        tau: standard deviation of the change, in the unit of the weights.
    """
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(module, eqx.is_inexact_array))
    return {jax.tree_util.keystr(path)[1:]: dist.Normal(leaf, tau) for path, leaf in leaves}


def anchored_model(data: ModuleRows, module: eqx.Module, scale: Array | float = 0.3, centred: bool = False) -> None:
    """y ~ N(net(x), σ²), weights of net ~ N(θ_source, τ²), τ ~ HalfCauchy(scale).

    Sites `net/<leaf>` hold the weights if centred, `change/<leaf>` their change in units of τ if not. Both are the same
    model; a sampler prefers the second where data are few, the first where they determine the weights.

    Args:
        data: y in the unit of the source's output.
        module: the source; maps one input to a number, of shape `()` or `(1,)`.
        scale: what τ is expected to be about.
        centred: sample the weights themselves.

    Raises:
        BayesmatError: the module gives more than one number, or has no weights.
    """
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    if not jax.tree.leaves(weights):
        raise BayesmatError(f"{type(module).__name__} has no floating arrays to anchor")
    tau = numpyro.sample("tau", dist.HalfCauchy(scale))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    if centred:
        net = random_eqx_module("net", module, anchored_prior(module, tau))
    else:
        change = eqx.filter(random_eqx_module("change", module, dist.Normal(0.0, 1.0)), eqx.is_inexact_array)
        net = eqx.combine(jax.tree.map(lambda weight, step: weight + tau * step, weights, change), rest)
    mean = jax.vmap(net)(data.x)
    if mean.size != len(data.x):
        raise BayesmatError(f"the module maps an input to shape {mean.shape[1:]}; one number is needed")
    numpyro.sample("y", dist.Normal(mean.reshape(-1), sigma).to_event(1), obs=data.y)


class SourceRows(NamedTuple):
    """What a source says about some rows, and what was measured.

    Attributes:
        source: `(n,)` predictions f_s; `affine_model` also takes s outputs or hidden features, `(n, s)`.
        x: `(n, d)` rows.
        y: `(n,)`, or None to draw it.
    """

    source: Array
    x: Array
    y: Array | None


def affine_model(data: SourceRows) -> None:
    """y ~ N(g1(f_s) + g2(f_s)·g3(x), σ²) with g1, g3 ~ GP(0, ·), g2 ~ GP(1, ·); g1 and g3 integrated out.

    Given g2 = diag(G) all else is Gaussian: y ~ N(0, K1 + G K3 G + σ² I), with K_i = s_i² `rbf` at length ℓ_i. Only
    g2 is sampled, at the training rows and whitened, and the scales: s_i ~ HalfNormal(1), ℓ_i ~ LogNormal(0, ½). The
    three shares are learned, so a source without information is switched off (s_1, s_2 → 0) and y = g3(x) remains.

    Sites: `scale` and `length`, `(3,)` of g1, g2, g3; `white`, `(n,)`; `sigma`; `g2`, `(n,)`, follows from them.

    Source: Minami et al. 2023, doi 10.48550/arXiv.2210.09745, there by regularised least squares.
    """
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    length = numpyro.sample("length", dist.LogNormal(0.0, 0.5).expand([3]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand([len(data.x)]).to_event(1))
    source = data.source.reshape(len(data.x), -1)
    g2 = numpyro.deterministic("g2", 1 + scale[1] * _root(rbf(source, source, length[1])) @ white)
    numpyro.sample("y", _normal(0.0, _affine(scale, length, g2, g2, source, source, data.x, data.x), sigma), obs=data.y)


def _affine(scale: Array, length: Array, g2: Array, h2: Array, s: Array, t: Array, x: Array, z: Array) -> Array:
    """Covariance of g1 + g2·g3 between rows (s, x) where g2 is given and rows (t, z) where it is h2."""
    return scale[0] ** 2 * rbf(s, t, length[0]) + g2[:, None] * scale[2] ** 2 * rbf(x, z, length[2]) * h2


def affine_predict(
    draws: Mapping[str, Array], data: SourceRows, source: Array, x: Array, key: Array
) -> tuple[Array, Array]:
    """Mean and standard deviation of y at new rows for each draw of `affine_model`, `(m, k)` both.

    g2 at each new row is drawn from its conditional; the rest is exact.

    Args:
        draws: `scale`, `length`, `white` and `sigma`, `(m, ...)`.
        data: what the model was given, with y.
        source: `(k,)` or `(k, s)` what the source says about the new rows.
        x: `(k, d)` new rows.
        key: random key.

    Raises:
        BayesmatError: data have no y.
    """
    y, old, new = _measured(data), data.source.reshape(len(data.x), -1), source.reshape(len(x), -1)
    sites = ("scale", "length", "white", "sigma")

    def one(argument: tuple[Array, ...]) -> tuple[Array, Array]:
        scale, length, white, sigma, noise = argument
        root = _root(rbf(old, old, length[1]))
        ties = solve_triangular(root, rbf(old, new, length[1]), lower=True)
        spread = jnp.sqrt(jnp.maximum(1 - (ties**2).sum(0), 0.0))
        g2, h2 = 1 + scale[1] * root @ white, 1 + scale[1] * (white @ ties + spread * noise)
        prior = scale[0] ** 2 + h2**2 * scale[2] ** 2
        cross = _affine(scale, length, g2, h2, old, new, data.x, x)
        mean, variance = _condition(_affine(scale, length, g2, g2, old, old, data.x, data.x), cross, prior, y, sigma)
        return mean, jnp.sqrt(variance + sigma**2)

    noise = jax.random.normal(key, (len(draws["sigma"]), len(x)))
    return jax.lax.map(one, (*(jnp.asarray(draws[name]) for name in sites), noise))


@dataclass(frozen=True)
class TauRho:
    """Transfer by any regressor: fit f to (x, z), z = (y − τ f_s) / (1 − τ), and predict ŷ = (1 − ρ) f + ρ f_s.

    τ = ρ = 0 is the regressor alone, ρ = 1 the source alone, τ = ρ density-ratio transfer, and ρ = 0 with τ < 0
    similarity regularisation. It minimises Σ (y − ρ f_s − (1 − ρ) f)² + λ Σ (f_s − f)² with τ = ρ − λ / (1 − ρ), see
    `penalised`, so that τ ≤ ρ is the region with a meaning.

    Attributes:
        tau: below 1.
        rho: in [0, 1].

    Source: Minami et al. 2021, doi 10.1609/aaai.v35i10.17087.

    >>> blend = TauRho.penalised(rho=0.5, penalty=0.25)
    >>> blend
    TauRho(tau=0.0, rho=0.5)
    >>> def nearest(x, z):
    ...     return lambda new: z[abs(new[:, None] - x).argmin(1)]
    >>> import numpy as np
    >>> predict = blend.fit(nearest, np.array([0.0, 1.0]), np.array([3.0, 5.0]), source=np.array([1.0, 1.0]))
    >>> print(predict(np.array([0.9]), source=np.array([2.0])))
    [3.5]
    """

    tau: float
    rho: float

    def __post_init__(self) -> None:
        if not (self.tau < 1 and 0 <= self.rho <= 1):
            raise BayesmatError(f"tau is below 1 and rho in [0, 1], got tau={self.tau} and rho={self.rho}")

    @classmethod
    def penalised(cls, rho: float, penalty: float) -> TauRho:
        """The member that pulls f towards the source with strength λ = `penalty` >= 0, for rho in [0, 1)."""
        if not (0 <= rho < 1 and penalty >= 0):
            raise BayesmatError(f"rho is in [0, 1) and penalty >= 0, got rho={rho} and penalty={penalty}")
        return cls(rho - penalty / (1 - rho), rho)

    def target(self, y: Any, source: Any) -> Any:
        """z `(n,)`, what the regressor is fitted to."""
        return (y - self.tau * source) / (1 - self.tau)

    def blend(self, f: Any, source: Any) -> Any:
        """ŷ `(n,)` from the regressor's prediction f and the source's."""
        return (1 - self.rho) * f + self.rho * source

    def fit(self, regressor: Callable[[Any, Any], Callable[[Any], Any]], x: Any, y: Any, source: Any) -> Callable:
        """A function (x, source) → ŷ, from a function that takes (x, z) and returns x → f(x)."""
        f = regressor(x, self.target(y, source))
        return lambda x, source: self.blend(f(x), source)


def tau_rho_model(data: SourceRows, kernel: Kernel = rbf) -> None:
    """The blend of `TauRho` with a Gaussian process f, τ ≤ ρ learned: y ~ N(ρ f_s + (1 − ρ) f(x), σ²).

    The penalty λ (f_s − f)² means that the source saw f with noise, f_s ~ N(f, σ²/λ), at the training rows; f with
    prior GP(0, s² k) conditional on that is integrated out. Given the parameters the posterior mean of y is what
    `TauRho(tau, rho)` makes of kernel ridge regression with penalty σ² / ((1 − ρ)(1 − τ)).

    Sites: `rho` ~ Uniform(0, 1), `penalty` λ ~ HalfCauchy(1), `scale` s ~ HalfNormal(1), `length` ~ LogNormal(0, ½),
    `sigma` ~ HalfNormal(1); `tau` follows from them.

    Args:
        data: source `(n,)`, in the unit of y.
        kernel: `rbf`, or `linear` for ridge regression.
    """
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))
    penalty = numpyro.sample("penalty", dist.HalfCauchy(1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    length = numpyro.sample("length", dist.LogNormal(0.0, 0.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.deterministic("tau", rho - penalty / (1 - rho))
    prior = scale**2 * kernel(data.x, data.x, length)
    # Of f given f_s, with noise σ²/λ there; written so that λ = 0 is allowed.
    root = jnp.linalg.cholesky(penalty * prior + sigma**2 * jnp.eye(len(data.x)))
    half = solve_triangular(root, prior, lower=True)
    mean = penalty * half.T @ solve_triangular(root, data.source, lower=True)
    covariance = (1 - rho) ** 2 * (prior - penalty * half.T @ half)
    numpyro.sample("y", _normal(rho * data.source + (1 - rho) * mean, covariance, sigma), obs=data.y)


def tau_rho_predict(
    draws: Mapping[str, Array], data: SourceRows, source: Array, x: Array, kernel: Kernel = rbf
) -> tuple[Array, Array]:
    """Mean and standard deviation of y at new rows for each draw of `tau_rho_model`, `(m, k)` both.

    Args:
        draws: `rho`, `penalty`, `scale`, `length` and `sigma`, `(m,)`.
        data: what the model was given, with y.
        source: `(k,)` what the source says about the new rows.
        x: `(k, d)` new rows.
        kernel: what the model was given.

    Raises:
        BayesmatError: data have no y.
    """

    y = _measured(data)

    def one(argument: tuple[Array, ...]) -> tuple[Array, Array]:
        rho, penalty, scale, length, sigma = argument
        # Measurement and source are two sights of f; together one at z, of this precision.
        precision = ((1 - rho) ** 2 + penalty) / sigma**2
        z = ((1 - rho) * (y - rho * data.source) + penalty * data.source) / (precision * sigma**2)
        old, cross = scale**2 * kernel(data.x, data.x, length), scale**2 * kernel(data.x, x, length)
        prior = scale**2 * jax.vmap(lambda row: kernel(row[None], row[None], length)[0, 0])(x)
        mean, variance = _condition(old, cross, prior, z, precision**-0.5)
        return rho * source + (1 - rho) * mean, jnp.sqrt((1 - rho) ** 2 * variance + sigma**2)

    sites = ("rho", "penalty", "scale", "length", "sigma")
    return jax.lax.map(one, tuple(jnp.asarray(draws[name]) for name in sites))


def _measured(data: SourceRows) -> Array:
    if data.y is None:
        raise BayesmatError("predictions need the rows that the model was given, with their y")
    return data.y


def _root(covariance: Array) -> Array:
    """Lower Cholesky factor after adding to the diagonal what the precision asks for."""
    nugget = 10 * jnp.finfo(covariance.dtype).eps ** 0.5
    return jnp.linalg.cholesky(covariance + nugget * jnp.eye(len(covariance), dtype=covariance.dtype))


def _normal(mean: Array | float, covariance: Array, sigma: Array) -> dist.Distribution:
    noisy = covariance + sigma**2 * jnp.eye(len(covariance), dtype=covariance.dtype)
    return dist.MultivariateNormal(mean, covariance_matrix=noisy)


def _condition(old: Array, cross: Array, prior: Array, y: Array, sigma: Array) -> tuple[Array, Array]:
    """Mean and variance `(k,)` of a zero-mean Gaussian process at new rows, given y at old ones with noise sigma."""
    root = jnp.linalg.cholesky(old + sigma**2 * jnp.eye(len(old), dtype=old.dtype))
    half = solve_triangular(root, cross, lower=True)
    mean = half.T @ solve_triangular(root, y, lower=True)
    return mean, jnp.maximum(prior - (half**2).sum(0), 0.0)
