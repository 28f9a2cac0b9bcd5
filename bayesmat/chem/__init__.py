"""x: molecules as programs on the device, and the boundary to RDKit."""

from ._rdkit import (
    Canonical as Canonical,
    RefusedError as RefusedError,
    SimilarityIndex as SimilarityIndex,
    canonicalize as canonicalize,
    depict as depict,
    is_accepted as is_accepted,
    sa_score as sa_score,
)
