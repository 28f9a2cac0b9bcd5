"""How diverse a posterior over molecules is: strings of one molecule added up, scaffolds, similarity, ancestors."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem, nn
from .._types import Array, BayesmatError
from ..smc import SMC

NUM_PAIRS = 5000


@dataclass(frozen=True)
class Diversity:
    """The molecules of a finished run, weighted by the posterior.

    Attributes:
        particles: how many particles there are.
        strings: distinct strings among them.
        molecules: distinct molecules; strings of one molecule are one.
        effective: effective number of molecules, (Σ w)² / Σ w².
        scaffolds: distinct Bemis-Murcko scaffolds (doi 10.1021/jm9602928); chains have the empty one.
        largest_scaffold: the scaffold of the greatest posterior weight.
        largest_share: that weight.
        internal: internal diversity, 1 - mean Tanimoto similarity of count fingerprints (radius 2) of two particles.
        ancestors: draws of the prior that the particles descend from.
    """

    particles: int
    strings: int
    molecules: int
    effective: float
    scaffolds: int
    largest_scaffold: str
    largest_share: float
    internal: float
    ancestors: int

    def text(self) -> str:
        """The report for a person."""
        chains = "chains without a ring" if not self.largest_scaffold else self.largest_scaffold
        return "\n".join(
            (
                f"molecules    {self.molecules} distinct ({self.strings} strings) in {self.particles} particles",
                f"effective    {self.effective:.0f} molecules of equal weight",
                f"scaffolds    {self.scaffolds}; the heaviest, {chains}, has {self.largest_share:.0%} of the posterior",
                f"diversity    {self.internal:.3f} (1 - mean Tanimoto similarity of two particles)",
                f"ancestors    {self.ancestors} of the prior's draws",
            )
        )


def diversity(sampler: SMC, site: str | None = None) -> Diversity:
    """How diverse the posterior of a string site is.

    Args:
        sampler: a finished run.
        site: the string site; needed where there are several.

    Raises:
        BayesmatError: there is no such site, or no choice between several.
    """
    priors = sampler.string_priors()
    if site is None and len(priors) == 1:
        (site,) = priors
    if site is None or site not in priors:
        raise BayesmatError(f"site is {site!r}; the string sites of the model are {sorted(priors)}")
    alphabet = priors[site].alphabet
    tokens = np.asarray(sampler.particles()[site]).reshape(-1, alphabet.length)
    weights = np.repeat(sampler.weights, len(tokens) // len(sampler.weights))
    weights = weights / weights.sum()
    strings, of_string = np.unique(tokens, axis=0, return_inverse=True)
    texts = priors[site].to_text(strings)
    names, of_name = np.unique(texts, return_inverse=True)
    weight = np.bincount(of_name[of_string.ravel()], weights)
    scaffolds, of_scaffold = np.unique([chem.scaffold(str(name)) for name in names], return_inverse=True)
    by_scaffold = np.bincount(of_scaffold, weight)
    return Diversity(
        particles=len(tokens),
        strings=len(strings),
        molecules=len(names),
        effective=float(1 / (weight**2).sum()),
        scaffolds=len(scaffolds),
        largest_scaffold=str(scaffolds[by_scaffold.argmax()]),
        largest_share=float(by_scaffold.max()),
        internal=1 - _mean_similarity(tokens, weights, alphabet),
        ancestors=sampler.num_ancestors,
    )


def _mean_similarity(tokens: np.ndarray, weights: np.ndarray, alphabet: chem.Alphabet) -> float:
    """Mean Tanimoto similarity of two particles, over pairs drawn by weight with a fixed seed."""
    pairs = np.random.default_rng(0).choice(len(tokens), (NUM_PAIRS, 2), p=weights)

    @jax.jit
    def similarity(x: Array, y: Array) -> Array:
        def one(x: Array, y: Array) -> Array:
            a, b = (nn.count_fingerprint(chem.decode(string, alphabet), alphabet) for string in (x, y))
            return jnp.minimum(a, b).sum() / jnp.maximum(a, b).sum()

        return chem.in_chunks(one, x, y)

    return float(similarity(jnp.asarray(tokens[pairs[:, 0]]), jnp.asarray(tokens[pairs[:, 1]])).mean())
