"""A Gaussian process on several blocks of features, with its hyperparameters integrated out: for scarce properties.

y = c + Σ_b [linear function + smooth function of block b] + ε on standardised y. Blocks are what is known of a
molecule: counts of its groups, physico-chemical descriptors, φ of the extractor and what it says of other properties,
what other fits predict. A block that does not help has a small amplitude. So transfer is additive, y = g1(f_s) +
g3(x), which is affine transfer with g2 = 1 (Minami et al. 2023); all functions and the intercept are integrated out in
closed form.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from numpyro import handlers

from .._types import Array
from ..nn import Features, Stack, base_features
from ._basis import PRECISION

Numbers: TypeAlias = Array | np.ndarray
CLIP = 6.0
"""Standard deviations beyond which a feature is not told apart: a molecule further away is a new one in any case."""
JITTER = 1e-6


class Pairs(NamedTuple):
    """All that the process needs of n molecules and m others.

    Attributes:
        gram: `(B, n, m)` products of rows, of each block; a row has mean squared norm one.
        squared: `(B, n, m)` squared distances.
    """

    gram: Array
    squared: Array


class ProcessData(NamedTuple):
    """What `process_model` is given; float64.

    Attributes:
        pairs: between the training molecules.
        y: `(n,)` standardised.
        used: `(B,)` 1 for a block that the model has, 0 for one that it has not.
        apart: `(n,)` variance of noise that a measurement has besides; a row is left out by enough of it.
    """

    pairs: Pairs
    y: Array
    used: Array
    apart: Array


class Hyper(NamedTuple):
    """Hyperparameters; `(..., B)` but for `sigma`, `(...)`.

    Attributes:
        linear: standard deviations of the linear functions, in standard deviations of y.
        smooth: of the smooth ones.
        length: lengths of the smooth ones; a pair of typical molecules is 1.4 apart.
        sigma: noise.
    """

    linear: Array
    smooth: Array
    length: Array
    sigma: Array


def process_model(data: ProcessData) -> None:
    """Amplitudes and lengths of the blocks and the noise, with all functions integrated out."""
    blocks = len(data.used)
    linear = numpyro.sample("linear", dist.HalfNormal(1.0).expand([blocks]).to_event(1))
    smooth = numpyro.sample("smooth", dist.HalfNormal(1.0).expand([blocks]).to_event(1))
    length = numpyro.sample("length", dist.LogNormal(0.0, 0.7).expand([blocks]).to_event(1))
    sigma = numpyro.sample("sigma", dist.Gamma(3.0, 6.0))
    hyper = Hyper(linear * data.used, smooth * data.used, length, sigma)
    numpyro.factor("marginal", log_evidence(hyper, data))


def error_model(standardised: Array, apart: Array, share: Array, kept: Array) -> None:
    """Leave-one-out errors over the standard deviations that the process gives them: Student, of a scale to be learnt.

    Amplitude and noise are learnt from the same few points as the function, so they are off by a factor; and errors of
    models have heavier tails than those of instruments. Some molecules are exceptions, see `exception`.

    Args:
        standardised: `(n,)` errors.
        apart: `(n,)` standard deviation that an error has where its molecule is an exception.
        share: of the exceptions, see `_process_fit.exceptions`.
        kept: `(n,)` bool, those that count.
    """
    log_stretch = numpyro.sample("noise_log_stretch", dist.Normal(0.0, 0.4))
    excess = numpyro.sample("noise_excess", dist.LogNormal(1.5, 1.0))
    dof = numpyro.deterministic("noise_dof", 1.0 + excess)
    usual = dist.StudentT(dof, 0.0, jnp.exp(log_stretch)).expand(standardised.shape)
    which = dist.Categorical(jnp.broadcast_to(jnp.stack([1.0 - share, share]), (*standardised.shape, 2)))
    with handlers.mask(mask=kept):
        numpyro.sample("error", dist.MixtureGeneral(which, [usual, dist.Normal(0.0, apart)]), obs=standardised)


def exception(mean: Numbers, center: Numbers, spread: Numbers) -> tuple[Array, Array]:
    """Mean and standard deviation `(...)` of y where the process does not know how far off it is.

    Then y is as far from what is predicted as any measurement is, in root mean square. So the prediction stays, and no
    y costs much more than it would cost the one who predicts N(center, spread²): with d = |mean − center| / spread, by
    Cauchy and Schwarz, at most ½ + ½ log(1 + d²) nats.

    Args:
        mean: `(..., K)` of y under each draw.
        center: mean of the measurements, `(...)` or a scalar.
        spread: their standard deviation, likewise.
    """
    middle = jnp.mean(mean, axis=-1)
    return middle, jnp.sqrt(spread**2 + (middle - center) ** 2)


def components(
    mean: Numbers, variance: Numbers, stretch: Numbers, center: Numbers, spread: Numbers, num: int
) -> tuple[Array, Array]:
    """Means and standard deviations `(..., K R + num)` of the components of predictives.

    Args:
        mean: `(..., K)` of y under each draw.
        variance: `(..., K)` of it, noise included.
        stretch: `(K, R)` factors of the standard deviation.
        center: see `exception`.
        spread: likewise.
        num: components for exceptions.
    """
    usual = jnp.sqrt(variance)[..., None] * stretch
    batch = mean.shape[:-1]
    rare = [jnp.broadcast_to(part[..., None], (*batch, num)) for part in exception(mean, center, spread)]
    loc = jnp.broadcast_to(mean[..., None], usual.shape)
    return (
        jnp.concatenate([loc.reshape(*batch, -1), rare[0]], axis=-1),
        jnp.concatenate([usual.reshape(*batch, -1), rare[1]], axis=-1),
    )


def covariance(hyper: Hyper, pairs: Pairs) -> Array:
    """Prior covariance of the function, intercept included, `(n, m)`."""
    smooth = jnp.exp(-0.5 * pairs.squared / hyper.length[:, None, None] ** 2)
    return 1.0 + jnp.einsum("b,bnm->nm", hyper.linear**2, pairs.gram) + jnp.einsum("b,bnm->nm", hyper.smooth**2, smooth)


def _noisy_root(hyper: Hyper, data: ProcessData) -> Array:
    """Cholesky factor of the covariance of y."""
    return jnp.linalg.cholesky(covariance(hyper, data.pairs) + jnp.diag(hyper.sigma**2 + JITTER + data.apart))


@jax.custom_vjp
def log_evidence(hyper: Hyper, data: ProcessData) -> Array:
    """log N(y; 0, K + σ²), differentiated by `hyper` alone.

    Its gradient by the covariance C is ½ (C⁻¹y yᵀC⁻¹ − C⁻¹), a third of what differentiating the Cholesky factor
    would cost (Rasmussen and Williams 2006, equation 5.9).
    """
    root = _noisy_root(hyper, data)
    half = solve_triangular(root, data.y, lower=True)
    return -0.5 * half @ half - jnp.log(jnp.diagonal(root)).sum() - 0.5 * len(data.y) * jnp.log(2 * jnp.pi)


@jax.jit  # NumPyro also runs models outside compiled programs, to look at their sites
def _with_gradient(hyper: Hyper, data: ProcessData) -> tuple[Array, Hyper]:
    gram, squared = data.pairs
    n, blocks = len(data.y), len(gram)
    decay = jnp.exp(-0.5 * squared / hyper.length[:, None, None] ** 2)
    total = 1.0 + jnp.einsum("b,bnm->nm", hyper.linear**2, gram) + jnp.einsum("b,bnm->nm", hyper.smooth**2, decay)
    root = jnp.linalg.cholesky(total + jnp.diag(hyper.sigma**2 + JITTER + data.apart))
    inverse = cho_solve((root, True), jnp.eye(n))
    weights = inverse @ data.y
    log_det = 2 * jnp.log(jnp.diagonal(root)).sum()
    by_total = 0.5 * (jnp.outer(weights, weights) - inverse)
    # Products with flat matrices, as the reverse mode would go over them several times.
    gradient = Hyper(
        linear=2 * hyper.linear * (gram.reshape(blocks, -1) @ by_total.ravel()),
        smooth=2 * hyper.smooth * (decay.reshape(blocks, -1) @ by_total.ravel()),
        length=hyper.smooth**2 / hyper.length**3 * (decay * by_total * squared).sum((1, 2)),
        sigma=2 * hyper.sigma * jnp.trace(by_total),
    )
    return -0.5 * (data.y @ weights + log_det + n * jnp.log(2 * jnp.pi)), gradient


def _backward(gradient: Hyper, cotangent: Array) -> tuple[Hyper, None]:
    return jax.tree.map(lambda part: cotangent * part, gradient), None


log_evidence.defvjp(_with_gradient, _backward)


class Posterior(NamedTuple):
    """The process given its hyperparameters and the data.

    Attributes:
        weights: `(n,)` the mean at x is k(x)·weights.
        root: `(n, n)` the variance at x is k(x, x) − |root k(x)|².
        loo_mean: `(n,)` of each y without it.
        loo_variance: `(n,)` of it, noise included.
    """

    weights: Array
    root: Array
    loo_mean: Array
    loo_variance: Array


def posterior(hyper: Hyper, data: ProcessData) -> Posterior:
    """Exact, with leave-one-out moments (Rasmussen and Williams 2006, equation 5.12)."""
    cholesky = _noisy_root(hyper, data)
    identity = jnp.eye(len(data.y))
    root = solve_triangular(cholesky, identity, lower=True)
    weights = cho_solve((cholesky, True), data.y)
    variance = 1.0 / (root**2).sum(0)
    return Posterior(weights, root, data.y - weights * variance, variance)


class Block(eqx.Module):
    """One group of features, standardised on the training molecules.

    Attributes:
        center: `(d,)`.
        scale: `(d,)` standard deviations times a factor, so that training rows have a mean squared norm of one.
        limit: largest absolute value of an entry.
        rows: `(n, d)` of the training molecules.
        name: of a field of `nn.Features`, "sources" or "library".
    """

    center: Array
    scale: Array
    limit: Array
    rows: Array
    name: str = eqx.field(static=True)

    def __call__(self, raw: Array) -> Array:
        """Rows `(..., d)` of raw features `(..., d)`."""
        return jnp.clip((raw - self.center) / self.scale, -self.limit, self.limit)


class Process(eqx.Module):
    """K posteriors of the process, one for each draw of its hyperparameters, in modelling space.

    Attributes:
        blocks: with the training molecules.
        linear: `(K, B)`.
        smooth: `(K, B)`.
        length: `(K, B)`.
        weights: `(K, n)`.
        root: `(K, n, n)`.
        center: added to the mean.
        width: the mean and the standard deviation are multiplied by it.
        sources: functions of the features whose values are the raw columns of the block "sources".
        library: models of a library whose predictions are the raw columns of the block "library".
    """

    blocks: tuple[Block, ...]
    linear: Array
    smooth: Array
    length: Array
    weights: Array
    root: Array
    center: Array
    width: Array
    sources: tuple[eqx.Module, ...] = ()
    library: Stack | None = None

    def transferred(self, features: Features) -> Array:
        """What the sources predict, `(..., t)`, in their modelling spaces."""
        parts = [source(features) for source in self.sources]  # type: ignore[operator]
        return jnp.concatenate([*parts, jnp.zeros((*features.descriptors.shape[:-1], 0))], axis=-1)

    def covariances(self, features: Features, transferred: Array | None) -> tuple[Array, Array]:
        """With each training molecule, `(..., K, n)`, and the prior variance, `(..., K)`."""
        total, own = jnp.asarray(1.0), jnp.asarray(1.0)
        for index, block in enumerate(self.blocks):
            row = block(self._raw(block.name, features, transferred))
            gram = jnp.einsum("...d,nd->...n", row, block.rows, precision=PRECISION)
            norm = (row**2).sum(-1, keepdims=True)
            squared = jnp.maximum(norm + (block.rows**2).sum(-1) - 2 * gram, 0.0)
            linear, smooth = self.linear[:, index] ** 2, self.smooth[:, index] ** 2
            decay = -0.5 / self.length[:, index, None] ** 2
            total = total + linear[:, None] * gram[..., None, :]
            total = total + smooth[:, None] * jnp.exp(decay * squared[..., None, :])
            own = own + linear * norm + smooth
        return total, own

    def _raw(self, name: str, features: Features, transferred: Array | None) -> Array:
        if name == "sources":
            return self.transferred(features) if transferred is None else transferred
        if name == "library" and self.library is not None:
            return self.library.predict(base_features(features))
        return jnp.asarray(getattr(features, name))

    def __call__(self, features: Features, transferred: Array | None = None) -> tuple[Array, Array]:
        """Mean and variance of the function, `(..., K)` each."""
        k, own = self.covariances(features, transferred)
        mean = jnp.einsum("...kn,kn->...k", k, self.weights, precision=PRECISION)
        half = jnp.einsum("kmn,...kn->...km", self.root, k, precision=PRECISION)
        variance = jnp.maximum(own - (half**2).sum(-1), 1e-8)
        return self.center + self.width * mean, self.width**2 * variance

    def average(self) -> Average:
        """The posterior mean alone, which is what other models transfer from."""
        return Average(eqx.tree_at(lambda p: p.root, self, jnp.zeros((0, 0, 0))))


class Average(eqx.Module):
    """The mean of a process as a function of features, `(..., 1)`."""

    process: Process

    def __call__(self, features: Features, transferred: Array | None = None) -> Array:
        """Values `(..., 1)` in modelling space."""
        p = self.process
        k, _ = p.covariances(features, transferred)
        mean = jnp.einsum("...kn,kn->...k", k, p.weights, precision=PRECISION)
        return p.center + p.width * mean.mean(-1, keepdims=True)


@jax.jit
def pairs(rows: list[Array]) -> Pairs:
    """Between all rows `(n, d)` of each block."""
    gram = jnp.stack([row @ row.T for row in rows])
    norm = jnp.stack([(row**2).sum(1) for row in rows])
    return Pairs(gram, jnp.maximum(norm[:, :, None] + norm[:, None, :] - 2 * gram, 0.0))


many_posteriors = jax.jit(jax.vmap(posterior, (0, None)))
