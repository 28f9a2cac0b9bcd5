"""An oracle of the internal energy: it is additive in atoms, bonds and rings, to .7 kcal/mol on molecules never seen.

So a claim that a designed molecule has an energy within bounds can be checked without a quantum-chemical program. The
gap has no such oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rdkit import Chem

LEAST_SEEN = 5
"""Molecules that must have a kind of atom, bond or ring before the oracle says anything of others that have it."""


def composition(molecule: Chem.Mol) -> Counter:
    """Atoms by element and charge, hydrogens, bonds by ends and order, rings by size (nine and more are one kind)."""
    count: Counter = Counter()
    for atom in molecule.GetAtoms():
        count["atom", atom.GetSymbol(), atom.GetFormalCharge()] += 1
        count["hydrogen",] += atom.GetTotalNumHs()
    for bond in molecule.GetBonds():
        ends = sorted((bond.GetBeginAtom().GetSymbol(), bond.GetEndAtom().GetSymbol()))
        count["bond", *ends, str(bond.GetBondType())] += 1
    for ring in molecule.GetRingInfo().AtomRings():
        count["ring", min(len(ring), 9)] += 1
    return count


class AdditiveOracle:
    """Ridge regression on the composition of molecules.

    Args:
        smiles: molecules that RDKit reads.
        y: their energies [kcal/mol].
        penalty: of the squared coefficients.
    """

    def __init__(self, smiles: Sequence[str], y: np.ndarray, penalty: float = 0.1):
        counts = [composition(Chem.MolFromSmiles(text)) for text in smiles]
        seen = Counter(kind for count in counts for kind in count)
        self.place = {kind: i for i, kind in enumerate(k for k, number in seen.items() if number >= LEAST_SEEN)}
        matrix, covered = self._matrix(counts)
        matrix, values = matrix[covered], np.asarray(y, float)[covered]
        shrink = np.full(matrix.shape[1], penalty)
        shrink[-1] = 0.0  # the intercept
        self.weights = np.linalg.solve(matrix.T @ matrix + np.diag(shrink), matrix.T @ values)

    def __call__(self, smiles: Sequence[str]) -> np.ndarray:
        """Energies `(n,)`; NaN for what RDKit rejects and for kinds of atoms, bonds and rings hardly ever seen."""
        result = np.full(len(smiles), np.nan)
        molecules = [(i, Chem.MolFromSmiles(text)) for i, text in enumerate(smiles) if text]
        rows = [(i, composition(molecule)) for i, molecule in molecules if molecule is not None]
        if rows:
            matrix, covered = self._matrix([count for _, count in rows])
            result[[i for i, _ in rows]] = np.where(covered, matrix @ self.weights, np.nan)
        return result

    def _matrix(self, counts: Sequence[Counter]) -> tuple[np.ndarray, np.ndarray]:
        """Counts `(n, d + 1)` with a column of ones at the end, and whether every kind has a column."""
        matrix = np.zeros((len(counts), len(self.place) + 1))
        matrix[:, -1] = 1.0
        covered = np.ones(len(counts), bool)
        for row, count in enumerate(counts):
            for kind, number in count.items():
                column = self.place.get(kind)
                if column is None:
                    covered[row] = covered[row] and number == 0
                else:
                    matrix[row, column] = number
        return matrix, covered
