"""The oracle of decoded graphs: RDKit's reading of the same string."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from bayesmat import chem


def mismatch(smiles: str, graph: chem.Graph, row: int, alphabet: chem.Alphabet) -> str | None:
    """What differs between a decoded graph (NumPy arrays, many rows) and RDKit's reading of its SMILES, or None."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return "rejected by RDKit"
    # The same string without perception keeps the Kekulé form that was written; indices are the same.
    written = Chem.MolFromSmiles(smiles, sanitize=False)
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondTypeAsDouble())) for b in written.GetBonds()]
    rings = [b.IsInRing() for b in molecule.GetBonds()]
    pi = {atom for begin, end, order in bonds if order > 1 for atom in (begin, end)}

    positions = np.flatnonzero(graph.atom[row])
    token = graph.atom[row, positions]
    ours = np.stack([
        alphabet.atomic_number[token], alphabet.charge[token], graph.hydrogens[row, positions],
        np.zeros(len(positions)), graph.in_ring[row, positions], graph.degree[row, positions],
        graph.pi[row, positions],
    ], 1).astype(int).tolist()  # fmt: skip
    theirs = [
        [a.GetAtomicNum(), a.GetFormalCharge(), a.GetTotalNumHs(), a.GetNumRadicalElectrons(), int(a.IsInRing()),
         a.GetDegree(), int(a.GetIdx() in pi)]
        for a in molecule.GetAtoms()
    ]  # fmt: skip
    if ours != theirs:
        return f"atoms {ours} are {theirs}"

    index = {int(position): i for i, position in enumerate(positions)}
    made = np.flatnonzero(graph.bond_order[row])
    found = sorted(
        (*sorted((index[int(graph.bond_from[row, k])], index[int(graph.bond_to[row, k])])),
         int(graph.bond_order[row, k]), bool(graph.bond_in_ring[row, k]), int(graph.bond_class[row, k]))
        for k in made
    )  # fmt: skip
    expected = sorted(
        (*sorted((begin, end)), order, ring,
         chem.CONJUGATED if ring and begin in pi and end in pi else order)
        for (begin, end, order), ring in zip(bonds, rings, strict=True)
    )  # fmt: skip
    return None if found == expected else f"bonds {found} are {expected}"
