"""x → p(y | x, D): the pytree of posterior draws that design and screening call inside their compiled programs."""

from __future__ import annotations

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError
from ..chem import Alphabet
from ..nn import Features, featurize
from . import _network
from ._basis import PRECISION, Basis
from ._predictive import Predictive
from ._process import Average, Process, components

NOVELTY_LIMIT = 2.0
"""Standard deviations of log variance beyond which errors stretch no further. The slope was learned from training
molecules, nearly all of which lie within; many draws of a prior lie beyond (of the organic n-gram two in ten for
melting points, two in three for conductivities), where a line through those points is an extrapolation."""


_featurize = jax.jit(featurize, static_argnames="alphabet")


class Linear(eqx.Module):
    """Linear functions on a basis.

    Attributes:
        basis: columns.
        weights: `(K, D)`, one function for each row, into modelling space.
    """

    basis: Basis
    weights: Array

    def __call__(self, features: Features) -> Array:
        """Values `(..., K)`: what `basis` times `weights` is, without writing the columns side by side."""
        basis, product = self.basis, functools.partial(jnp.einsum, "...d,kd->...k", precision=PRECISION)
        ends = np.cumsum([*basis.sizes.values()])[:-1].tolist()
        intercept, of_descriptors, of_bins, of_landmarks, of_network = jnp.split(self.weights, ends, axis=1)
        z = (features.descriptors - basis.descriptor_mean) / basis.descriptor_scale
        value = intercept[:, 0] + product(z, of_descriptors)
        if basis.fingerprint_mean.size:
            value += product(features.fingerprint, of_bins) - product(basis.fingerprint_mean, of_bins)
        if basis.landmark_mean.size:
            value += product(basis.kernel(z) - basis.landmark_mean, of_landmarks)
        if basis.network is not None:
            value += _network.says(basis.network, features.fingerprint, z)[..., None] * of_network[:, 0]
        return value

    def average(self) -> Linear:
        """The posterior mean as a model with K = 1, which is what other models transfer from."""
        return Linear(self.basis, self.weights.mean(0, keepdims=True))


class Predictor(eqx.Module):
    """x → p(y | x, D) of one property; what compiled programs call. A pytree of float32 arrays: pass it as an argument.

    Attributes:
        alphabet: of the strings that it reads.
        log: the modelling space is log y.
        name: the property's name.
        label: the property in words.
        unit: of y.
    """

    alphabet: Alphabet = eqx.field(static=True)
    log: bool = eqx.field(static=True)
    name: str = eqx.field(static=True)
    label: str = eqx.field(static=True)
    unit: str = eqx.field(static=True)

    @property
    @abc.abstractmethod
    def num_draws(self) -> int:
        """Components of each predictive."""

    @abc.abstractmethod
    def predictive(self, features: Features, transferred: Array | None = None) -> Predictive:
        """The posterior predictive given features `(...)`; see `__call__`."""

    @abc.abstractmethod
    def log_variance(self, features: Features, transferred: Array | None = None) -> Array:
        """Log variance of the function, `(...)`, without noise, in modelling space: how much is not known of it."""

    @abc.abstractmethod
    def average(self) -> eqx.Module:
        """The posterior mean of the function, features → `(..., 1)` in modelling space: what other fits learn from."""

    def __call__(self, x: Array | Features, transferred: Array | None = None) -> Predictive:
        """The posterior predictive of one molecule or a batch.

        Args:
            x: tokens `(..., length)` of the predictor's alphabet, or features already computed from them; several
                predictors on one molecule share the work when they are given `nn.Features`.
            transferred: `(..., t)` in place of the sources' predictions, for molecules whose sources hold
                measurements of them (see `Fitted.transferred`).

        Raises:
            BayesmatError: the tokens are not of the alphabet's length.
        """
        return self.predictive(self.features(x), transferred)

    def features(self, x: Array | Features) -> Features:
        """Features of tokens `(..., length)`; features pass through."""
        if isinstance(x, Features):
            return x
        tokens = jnp.asarray(x)
        if tokens.ndim < 1 or tokens.shape[-1] != self.alphabet.length:
            raise BayesmatError(
                f"tokens of shape {tokens.shape} do not end in this predictor's length {self.alphabet.length}; "
                "encode with predictor.alphabet"
            )
        one = functools.partial(_featurize, alphabet=self.alphabet)
        for _ in range(tokens.ndim - 1):
            one = jax.vmap(one)
        return one(tokens)


class LinearPredictor(Predictor):
    """Thinned posterior of K linear functions, each with a noise scale of its own.

    The predictive is a Student-t process: draw k stretches function and noise by exp(a_k + b_k z(x)) / √λ_k, where λ_k
    are stratified draws of the mixing distribution of Student's t, so the mixture over draws has its tails; z(x) is how
    uncertain the functions are about x, compared to the training molecules.

    Attributes:
        linear: the K functions.
        noise_scale: `(K,)` standard deviation of the noise before stretching, in modelling space.
        noise_log_stretch: `(K,)` a.
        noise_slope: `(K,)` b.
        noise_mixing: `(K,)` 1/√λ.
        novelty_mean: mean over training molecules of the log leave-one-out variance of the functions.
        novelty_scale: its standard deviation.
    """

    linear: Linear
    noise_scale: Array
    noise_log_stretch: Array
    noise_slope: Array
    noise_mixing: Array
    novelty_mean: Array
    novelty_scale: Array

    @property
    def num_draws(self) -> int:
        """K, the number of posterior draws."""
        return self.linear.weights.shape[0]

    def predictive(self, features: Features, transferred: Array | None = None) -> Predictive:
        """See `Predictor`."""
        return self.at(self.linear(features))

    def log_variance(self, features: Features, transferred: Array | None = None) -> Array:
        """See `Predictor`."""
        return _apart(self.linear(features))[2][..., 0]

    def average(self) -> Linear:
        """See `Predictor`."""
        return self.linear.average()

    def at(self, loc: Array) -> Predictive:
        """The predictive around values `(..., K)` of the functions; its mean is theirs."""
        mean, apart, log_variance = _apart(loc)
        z = (log_variance - self.novelty_mean) / self.novelty_scale
        z = jnp.clip(z, -NOVELTY_LIMIT, NOVELTY_LIMIT)
        stretch = jnp.exp(self.noise_log_stretch + self.noise_slope * z) * self.noise_mixing
        apart = apart * stretch
        return Predictive(mean + apart - apart.mean(-1, keepdims=True), self.noise_scale * stretch, self.log)


def _apart(loc: Array) -> tuple[Array, Array, Array]:
    """The mean of values `(..., K)`, `(..., 1)`, their distances from it, and their log variance, `(..., 1)`."""
    mean = loc.mean(-1, keepdims=True)
    apart = loc - mean
    return mean, apart, jnp.log(jnp.maximum((apart**2).mean(-1, keepdims=True), 1e-30))


class ProcessPredictor(Predictor):
    """A Gaussian process with Student errors, averaged over its hyperparameters.

    Each of the K draws of hyperparameters gives R components, which differ in stretch and in the mixing variable of
    Student's t. After fewer than some 250 measurements there are E more, for molecules of which the process does not
    know how far off it is (see `_process_fit.exceptions` and `_process.exception`).

    Attributes:
        process: K posteriors.
        noise_scale: `(K,)` standard deviation of the noise, in modelling space.
        stretch: `(K, R)` factors of the standard deviation, function and noise alike.
        spread: standard deviation of the measurements, in modelling space.
        exceptions: E.
    """

    process: Process
    noise_scale: Array
    stretch: Array
    spread: Array
    exceptions: int = eqx.field(static=True)

    @property
    def num_draws(self) -> int:
        """K R + E."""
        return self.stretch.size + self.exceptions

    def predictive(self, features: Features, transferred: Array | None = None) -> Predictive:
        """See `Predictor`."""
        mean, variance = self.process(features, transferred)
        return self.at(mean, variance + self.noise_scale**2)

    def log_variance(self, features: Features, transferred: Array | None = None) -> Array:
        """See `Predictor`."""
        mean, variance = self.process(features, transferred)
        return jnp.log(variance.mean(-1) + mean.var(-1))

    def average(self) -> Average:
        """See `Predictor`."""
        return self.process.average()

    def at(self, mean: Array, variance: Array) -> Predictive:
        """The predictive around K normals `(..., K)` of y, whose variance includes the noise."""
        loc, scale = components(mean, variance, self.stretch, self.process.center, self.spread, self.exceptions)
        return Predictive(loc, scale, self.log)
