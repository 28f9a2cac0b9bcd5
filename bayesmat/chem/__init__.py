"""x: molecules as programs on the device, and the boundary to RDKit."""

from ._alphabet import (
    DEFAULT_VALENCES as DEFAULT_VALENCES,
    END as END,
    Alphabet as Alphabet,
    AtomType as AtomType,
)
from ._grammar import (
    State as State,
    advance as advance,
    legal as legal,
    start as start,
    starts_branch as starts_branch,
    update_rings as update_rings,
)
from ._graph import (
    CONJUGATED as CONJUGATED,
    DOUBLE as DOUBLE,
    SINGLE as SINGLE,
    TRIPLE as TRIPLE,
    Graph as Graph,
    decode as decode,
)
from ._rdkit import (
    ATOMIC_MASS as ATOMIC_MASS,
    Canonical as Canonical,
    Groups as Groups,
    Opening as Opening,
    RefusedError as RefusedError,
    SimilarityIndex as SimilarityIndex,
    canonical as canonical,
    canonicalize as canonicalize,
    depict as depict,
    is_accepted as is_accepted,
    is_organic as is_organic,
    join_residues as join_residues,
    repeat_unit as repeat_unit,
    sa_score as sa_score,
    scaffold as scaffold,
)
from ._reading import does_not_fit as does_not_fit
from ._reorder import (
    Reordered as Reordered,
    reorder as reorder,
    reorder_log_prob as reorder_log_prob,
)
from ._strings import (
    Encoded as Encoded,
    Read as Read,
    Refusal as Refusal,
    encode as encode,
    in_chunks as in_chunks,
    is_legal as is_legal,
    random_strings as random_strings,
    read as read,
    to_smiles as to_smiles,
)
