"""The first features of a molecule: fingerprint and descriptors from one decode."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from .._types import Array
from ..chem import Alphabet, decode
from ._descriptors import descriptors
from ._fingerprint import count_fingerprint

FINGERPRINT_BINS = (128, 512, 1024)
"""Places of the count fingerprint for radius 0, 1 and 2."""


class Features(NamedTuple):
    """What forward models see of a molecule; every entry is a log(1 + count), so that large molecules do not dominate.

    Attributes:
        fingerprint: `(..., sum(FINGERPRINT_BINS))` float32.
        descriptors: `(..., len(DESCRIPTOR_NAMES))` float32.
    """

    fingerprint: Array
    descriptors: Array

    @property
    def vector(self) -> Array:
        """All of it in one `(..., d)`."""
        return jnp.concatenate([self.fingerprint, self.descriptors], -1)


def featurize(tokens: Array, alphabet: Alphabet) -> Features:
    """Features of one molecular string `(length,)`; map over a batch with `jax.vmap`.

    >>> import jax
    >>> from bayesmat.chem import encode
    >>> alphabet = Alphabet.organic()
    >>> tokens = encode(["CCO", "OCC"], alphabet).tokens
    >>> features = jax.vmap(lambda x: featurize(x, alphabet))(tokens)
    >>> bool((features.fingerprint[0] == features.fingerprint[1]).all())
    True
    """
    graph = decode(tokens, alphabet)
    return Features(
        fingerprint=count_fingerprint(graph, alphabet, FINGERPRINT_BINS, log=True),
        descriptors=jnp.log1p(descriptors(graph, alphabet)),
    )
