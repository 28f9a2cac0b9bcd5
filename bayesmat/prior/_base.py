"""What every prior over molecular strings has in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from .. import chem
from .._types import Array


class StringDistribution(dist.Distribution):
    """A distribution over molecular strings, event shape `(length,)` of int32 tokens, given by `token_log_probs`.

    Args:
        alphabet: what the tokens mean.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)
    arg_constraints: dict[str, Any] = {}
    canonical_order: float = 0.0
    """How much `rewrite` prefers canonical strings, in [0, 1]; what the prior was fitted to."""

    pytree_aux_fields = ("alphabet",)

    def __init__(self, alphabet: chem.Alphabet):
        self.alphabet = alphabet
        super().__init__(batch_shape=(), event_shape=(alphabet.length,), validate_args=False)

    @abstractmethod
    def token_log_probs(self, x: Array) -> Array:
        """`(length,)` log probability of each token of one string given those before it."""

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Log probability of strings `(..., length)`; -inf for what the grammar does not allow."""
        value = jnp.asarray(value).astype(jnp.int32)
        if value.ndim > 1:
            flat = value.reshape(-1, self.alphabet.length)
            return jax.vmap(self.log_prob)(flat).reshape(value.shape[:-1])
        return self.token_log_probs(value).sum()

    def rewrite(self, key: Array, x: Array) -> tuple[Array, Array]:
        """Another string of the same molecule, for Metropolis-Hastings moves.

        Args:
            key: random key.
            x: `(length,)` a legal string.

        Returns:
            The string x' and log q(x' → x) / q(x → x'); -inf where there is no way back, or x' does not fit.
        """
        made = chem.reorder(key, x, self.alphabet, self.canonical_order)
        return made.tokens, made.log_ratio

    def to_text(self, x: np.ndarray) -> list[str]:
        """Canonical SMILES of strings `(n, length)`; strings of one molecule give the same text."""
        texts = [chem.to_smiles(row, self.alphabet) for row in np.asarray(x)]
        canonical = chem.canonicalize(texts, "names of molecules").smiles
        return [name or text for name, text in zip(canonical, texts, strict=True)]
