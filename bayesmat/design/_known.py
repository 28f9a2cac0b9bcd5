"""Is a molecule known, and what known compound is most like it?"""

from __future__ import annotations

import hashlib
from importlib import metadata

import numpy as np

from .. import chem, data
from .._types import BayesmatError, cache_dir, read_arrays, replacing

_FORMAT = 2
"""Raised whenever the fingerprints of the same molecules would come out differently."""


class KnownCompounds:
    """The structures of a corpus with their names, and an index by similarity; fingerprints are cached.

    Args:
        corpus: from `data.corpus`.
    """

    def __init__(self, corpus: data.Corpus):
        self._names = dict(zip(corpus.smiles, corpus.names, strict=True))
        text = "\n".join([str(_FORMAT), metadata.version("rdkit"), *corpus.smiles])
        path = cache_dir() / f"known-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"
        words = None
        try:
            words = read_arrays(path)["words"]
        except (BayesmatError, KeyError):
            pass  # not there yet, or damaged: computed anew
        self._index = chem.SimilarityIndex(corpus.smiles, words)
        if words is None:
            with replacing(path) as temporary:
                np.savez(temporary, words=self._index.words)

    def __contains__(self, smiles: object) -> bool:
        return smiles in self._names

    def name(self, smiles: str) -> str:
        """The name of a known compound, or ""."""
        return self._names.get(smiles, "")

    def nearest(self, smiles: str) -> tuple[str, float]:
        """SMILES of the most similar known compound and the Tanimoto similarity; a known one is its own."""
        return (smiles, 1.0) if smiles in self._names else self._index.nearest(smiles)
