"""The alphabet that fits a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .._types import BayesmatError, progress
from . import _rdkit
from ._alphabet import Alphabet, AtomType
from ._reading import Outline, is_sayable, outline


def fitting_alphabet(
    smiles: Sequence[str], coverage: float, length: int | None, max_depth: int | None, max_rings: int | None
) -> Alphabet:
    """See `Alphabet.from_corpus`."""
    if not 0 < coverage <= 1:
        raise BayesmatError(f"coverage is {coverage}; allowed are shares above 0, up to 1")
    outlines, reasons = [], Counter[str]()
    for text in progress(smiles, "alphabet of the corpus", len(smiles)):
        try:
            read = outline(_rdkit.kekule_smiles(_rdkit.parse(text)[0]))
        except _rdkit.RefusedError as error:
            reasons[error.reason] += 1
            continue
        if all(is_sayable(atom) for atom in read.atoms) and read.attachments in (0, 2):
            outlines.append(read)
        else:
            reasons["an atom type or a number of attachment points that no alphabet has"] += 1
    attachments = 2 if sum(read.attachments > 0 for read in outlines) > len(outlines) / 2 else 0
    outlines = [read for read in outlines if read.attachments == attachments]
    if not outlines:
        raise BayesmatError(f"none of the {len(smiles)} molecules can be said: {dict(reasons)}")
    atoms = _common_atoms(outlines, coverage)
    said = [read for read in outlines if read.atoms <= set(atoms)]
    return Alphabet(
        atoms,
        length or max(4, _enough([len(read.symbols) for read in said], coverage)),
        max_depth or max(1, _enough([read.depth for read in said], coverage)),
        max_rings or max(1, _enough([read.rings for read in said], coverage)),
        attachments,
    )


def _common_atoms(outlines: Sequence[Outline], coverage: float) -> tuple[AtomType, ...]:
    """Atom types in falling frequency, as few as cover the share of molecules."""
    count = Counter(atom for read in outlines for atom in read.atoms)
    order = {atom: place for place, (atom, _) in enumerate(sorted(count.items(), key=lambda pair: (-pair[1], pair[0])))}
    needed = _enough([max(order[atom] for atom in read.atoms) for read in outlines], coverage)
    return tuple(atom for atom, place in order.items() if place <= needed)


def _enough(sizes: Sequence[int], coverage: float) -> int:
    """The smallest size that the share of molecules does not exceed."""
    return int(np.quantile(np.asarray(sizes), coverage, method="inverted_cdf"))
