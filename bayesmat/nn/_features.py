"""The features of a molecule that forward models share: fingerprint, descriptors, and what was learned elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .._types import Array
from ..chem import Alphabet, decode
from ._descriptors import DESCRIPTOR_NAMES
from ._extractor import extractor, given_features
from ._fingerprint import count_fingerprint

FINGERPRINT_BINS = (128, 512, 1024)
"""Places of the count fingerprint for radius 0, 1 and 2."""


class Features(NamedTuple):
    """What forward models see of a molecule; counts are log(1 + count), so that large molecules do not dominate.

    A compiled program works out only those that its models use.

    Attributes:
        fingerprint: `(..., sum(FINGERPRINT_BINS))` float32.
        descriptors: `(..., len(DESCRIPTOR_NAMES))` float32.
        physical: `(..., len(PHYSICOCHEMICAL_NAMES))` float32; log P and the fraction of sp3 carbons as they are.
        learned: `(..., f)` float32, φ of the extractor.
        properties: `(..., p)` float32, what the extractor says of properties that it was trained on, see
            `property_names`.
    """

    fingerprint: Array
    descriptors: Array
    physical: Array
    learned: Array
    properties: Array

    @property
    def vector(self) -> Array:
        """Fingerprint and descriptors in one `(..., d)`."""
        return jnp.concatenate([self.fingerprint, self.descriptors], -1)


def property_names(alphabet: Alphabet) -> tuple[str, ...]:
    """The entries of `Features.properties`: of molecules only those that are not about polymers."""
    names = extractor().property_names
    return names if alphabet.attachments else tuple(name for name in names if not name.startswith("polymer_"))


def featurize(tokens: Array, alphabet: Alphabet) -> Features:
    """Features of one molecular string `(length,)`; map over a batch with `jax.vmap`.

    What the extractor says about properties of molecules is asked, for a repeat unit, of the molecule that it becomes
    with methyl groups in its places of attachment.

    >>> import jax
    >>> from bayesmat.chem import encode
    >>> alphabet = Alphabet.organic()
    >>> tokens = encode(["CCO", "OCC"], alphabet).tokens
    >>> features = jax.jit(jax.vmap(lambda x: featurize(x, alphabet)))(tokens)
    >>> bool((features.fingerprint[0] == features.fingerprint[1]).all())
    True
    """
    graph = decode(tokens, alphabet)
    given = given_features(graph, alphabet)
    shipped = extractor()
    learned = shipped(graph, given, alphabet)
    names = shipped.property_names
    if alphabet.attachments:
        of_polymer = np.array([name.startswith("polymer_") for name in names])
        of_molecule = shipped.properties(shipped(graph, given, alphabet, cap=True))
        properties = jnp.where(of_polymer, shipped.properties(learned), of_molecule)
    else:
        wanted = np.array([names.index(name) for name in property_names(alphabet)])
        properties = shipped.properties(learned)[wanted]
    return Features(
        fingerprint=count_fingerprint(graph, alphabet, FINGERPRINT_BINS, log=True),
        descriptors=given[: len(DESCRIPTOR_NAMES)],
        physical=given[len(DESCRIPTOR_NAMES) :],
        learned=learned,
        properties=properties,
    )
