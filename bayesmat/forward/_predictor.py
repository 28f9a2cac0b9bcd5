"""x → p(y | x, D): the pytree of posterior draws that design and screening call inside their compiled programs."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, BayesmatError
from ..chem import Alphabet
from ..nn import Features, featurize
from ._basis import PRECISION, Basis
from ._predictive import Predictive

NOVELTY_LIMIT = 2.0
"""Standard deviations of log variance beyond which errors stretch no further. The slope was learned from training
molecules, nearly all of which lie within; many draws of a prior lie beyond (of the organic n-gram two in ten for
melting points, two in three for conductivities), where a line through those points is an extrapolation."""


_featurize = jax.jit(featurize, static_argnames="alphabet")


class Linear(eqx.Module):
    """Linear functions on a basis, with the sources whose predictions are among its columns.

    Attributes:
        basis: columns.
        weights: `(K, D)`, one function for each row, into modelling space.
        sources: one-function models (K = 1) whose values are the transferred columns, in order.
    """

    basis: Basis
    weights: Array
    sources: tuple[Linear, ...] = ()

    def __call__(self, features: Features, transferred: Array | None = None) -> Array:
        """Values `(..., K)`; `transferred` `(..., t)` replaces the sources' own predictions."""
        if transferred is None:
            transferred = self.transferred(features)
        return jnp.einsum("...d,kd->...k", self.basis(features, transferred), self.weights, precision=PRECISION)

    def transferred(self, features: Features) -> Array:
        """What the sources predict, `(..., t)`, in their modelling spaces."""
        batch = features.descriptors.shape[:-1]
        return jnp.concatenate([source(features) for source in self.sources] or [jnp.zeros((*batch, 0))], axis=-1)

    def average(self) -> Linear:
        """The posterior mean as a model with K = 1, which is what other models transfer from."""
        return Linear(self.basis, self.weights.mean(0, keepdims=True), self.sources)


class Predictor(eqx.Module):
    """Thinned posterior of one property: K linear functions, each with a noise scale of its own.

    The predictive is a Student-t process: draw k stretches function and noise by exp(a_k + b_k z(x)) / √λ_k, where λ_k
    are stratified draws of the mixing distribution of Student's t, so the mixture over draws has its tails; z(x) is how
    uncertain the functions are about x, compared to the training molecules. A pytree of float32 arrays: pass it to
    compiled functions as an argument.

    Attributes:
        linear: the K functions.
        noise_scale: `(K,)` standard deviation of the noise before stretching, in modelling space.
        noise_log_stretch: `(K,)` a.
        noise_slope: `(K,)` b.
        noise_mixing: `(K,)` 1/√λ.
        novelty_mean: mean over training molecules of the log leave-one-out variance of the functions.
        novelty_scale: its standard deviation.
        alphabet: of the strings that it reads.
        log: the modelling space is log y.
        name: the property's name.
        label: the property in words.
        unit: of y.
    """

    linear: Linear
    noise_scale: Array
    noise_log_stretch: Array
    noise_slope: Array
    noise_mixing: Array
    novelty_mean: Array
    novelty_scale: Array
    alphabet: Alphabet = eqx.field(static=True)
    log: bool = eqx.field(static=True)
    name: str = eqx.field(static=True)
    label: str = eqx.field(static=True)
    unit: str = eqx.field(static=True)

    @property
    def num_draws(self) -> int:
        """K, the number of posterior draws."""
        return self.linear.weights.shape[0]

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
        return self.at(self.linear(self.features(x), transferred))

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

    def at(self, loc: Array) -> Predictive:
        """The predictive around values `(..., K)` of the functions; its mean is theirs."""
        mean = loc.mean(-1, keepdims=True)
        apart = loc - mean
        log_variance = jnp.log(jnp.maximum((apart**2).mean(-1, keepdims=True), 1e-30))
        z = (log_variance - self.novelty_mean) / self.novelty_scale
        z = jnp.clip(z, -NOVELTY_LIMIT, NOVELTY_LIMIT)
        stretch = jnp.exp(self.noise_log_stretch + self.noise_slope * z) * self.noise_mixing
        apart = apart * stretch
        return Predictive(mean + apart - apart.mean(-1, keepdims=True), self.noise_scale * stretch, self.log)
