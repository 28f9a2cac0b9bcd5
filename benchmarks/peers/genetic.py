"""A genetic algorithm on molecular graphs, as Jensen 2019 describes it (doi 10.1039/C8SC05372C); no code of his.

His: two parents are cut at a single bond outside rings, or at two bonds of a ring, and a piece of each is joined; the
child is mutated by one of seven operations (append, insert or delete an atom, change an atom, change a bond's order,
close a ring, open a ring); parents are drawn with probability in proportion to their score; the best of parents and
children survive. As in the implementations in use, a child that was seen before is not evaluated again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from rdkit import Chem

SINGLE, DOUBLE, TRIPLE = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE
_ELEMENTS = ("C", "N", "O", "F", "S", "Cl", "Br")
_CUT = Chem.MolFromSmarts("[*]-;!@[*]")
_RING_CUTS = (Chem.MolFromSmarts("[R]@[R]@[R]@[R]"), Chem.MolFromSmarts("[R]@[R;!D2]@[R]"))
_TRIES = 20
_LARGEST_RING = 6


class GeneticAlgorithm:
    """The loop.

    Args:
        score: from SMILES to values ≥ 0, the more the better.
        population: survivors of a generation.
        offspring: children of a generation.
        mutation_rate: probability that a child is mutated.
        most_atoms: heavy atoms of a child.
    """

    def __init__(
        self,
        score: Callable[[Sequence[str]], np.ndarray],
        population: int = 100,
        offspring: int = 200,
        mutation_rate: float = 0.5,
        most_atoms: int = 50,
    ):
        self.score, self.population, self.offspring = score, population, offspring
        self.mutation_rate, self.most_atoms = mutation_rate, most_atoms

    def run(self, seed: int, start: Sequence[str], evaluations: int) -> dict[str, float]:
        """Evolve the molecules `start` until so many distinct molecules were evaluated.

        Returns:
            Score of every molecule that was evaluated, by canonical SMILES, in order.
        """
        rng = random.Random(seed)
        first = list(dict.fromkeys(start))[: min(evaluations, self.population)]
        seen = dict(zip(first, self.score(first).tolist(), strict=True))
        alive = list(seen)
        while len(seen) < evaluations:
            alive = sorted(alive, key=lambda text: -seen[text])[: self.population]
            parents = [Chem.MolFromSmiles(text) for text in alive]
            # Where every score is zero to float precision, all parents are equal.
            weights = [seen[text] + 1e-300 for text in alive]
            children: dict[str, None] = {}
            for _ in range(50 * self.offspring):
                mother, father = rng.choices(parents, weights, k=2)
                child = self.child(mother, father, rng)
                if child is not None and child not in seen:
                    children[child] = None
                if len(children) == min(self.offspring, evaluations - len(seen)):
                    break
            if not children:
                break  # nothing new within reach of the population
            new = list(children)
            seen.update(zip(new, self.score(new).tolist(), strict=True))
            alive += new
        return seen

    def child(self, mother: Chem.Mol, father: Chem.Mol, rng: random.Random) -> str | None:
        """Canonical SMILES of a child, or None."""
        child = crossover(mother, father, rng)
        if child is not None and rng.random() < self.mutation_rate:
            child = mutate(child, rng)
        if child is None or child.GetNumAtoms() > self.most_atoms:
            return None
        return Chem.MolToSmiles(child, isomericSmiles=False)


def crossover(mother: Chem.Mol, father: Chem.Mol, rng: random.Random) -> Chem.Mol | None:
    """A piece of each parent, joined; None after twenty failures."""
    for _ in range(_TRIES):
        cut = _cut_chain if rng.random() < 0.5 else _cut_ring
        pieces = cut(mother, rng), cut(father, rng)
        if pieces[0] and pieces[1]:
            found = _join(rng.choice(pieces[0]), rng.choice(pieces[1]), rng)
            if found is not None:
                return found
    return None


def _cut_chain(molecule: Chem.Mol, rng: random.Random) -> list[Chem.Mol]:
    """Both sides of a single bond outside rings; dummy atoms mark where the cut was."""
    matches = molecule.GetSubstructMatches(_CUT)
    if not matches:
        return []
    bond = molecule.GetBondBetweenAtoms(*rng.choice(matches)).GetIdx()
    return _fragments(molecule, [bond])


def _cut_ring(molecule: Chem.Mol, rng: random.Random) -> list[Chem.Mol]:
    """Both sides of two bonds of a ring, next to each other or with one between them."""
    matches = molecule.GetSubstructMatches(rng.choice(_RING_CUTS))
    if not matches:
        return []
    match = rng.choice(matches)
    first = molecule.GetBondBetweenAtoms(match[0], match[1])
    second = molecule.GetBondBetweenAtoms(match[-2], match[-1])
    if first.GetBondType() != SINGLE or second.GetBondType() != SINGLE:
        kekule = Chem.Mol(molecule)
        Chem.Kekulize(kekule, clearAromaticFlags=True)
        molecule = kekule
        first, second = (molecule.GetBondWithIdx(bond.GetIdx()) for bond in (first, second))
    return _fragments(molecule, [first.GetIdx(), second.GetIdx()])


def _fragments(molecule: Chem.Mol, bonds: list[int]) -> list[Chem.Mol]:
    """Two pieces with as many marks each as bonds were cut, or nothing."""
    broken = Chem.FragmentOnBonds(molecule, bonds, addDummies=True, dummyLabels=[(0, 0)] * len(bonds))
    pieces = list(Chem.GetMolFrags(broken, asMols=True, sanitizeFrags=False))
    marks = [sum(atom.GetAtomicNum() == 0 for atom in piece.GetAtoms()) for piece in pieces]
    return pieces if marks == [len(bonds)] * 2 else []


def _join(one: Chem.Mol, other: Chem.Mol, rng: random.Random) -> Chem.Mol | None:
    """Two pieces joined where their marks are; None if that is no molecule."""
    joined = Chem.RWMol(Chem.CombineMols(one, other))
    marks = [[], []]  # type: list[list[int]]
    for atom in joined.GetAtoms():
        if atom.GetAtomicNum() == 0:
            marks[atom.GetIdx() >= one.GetNumAtoms()].append(atom.GetIdx())
    if len(marks[0]) != len(marks[1]):
        return None
    rng.shuffle(marks[1])
    for a, b in zip(*marks, strict=True):
        (left,), (right,) = joined.GetAtomWithIdx(a).GetBonds(), joined.GetAtomWithIdx(b).GetBonds()
        ends = left.GetOtherAtomIdx(a), right.GetOtherAtomIdx(b)
        if ends[0] == ends[1] or joined.GetBondBetweenAtoms(*ends) is not None:
            return None
        joined.AddBond(*ends, left.GetBondType() if left.GetBondType() == right.GetBondType() else SINGLE)
    for mark in sorted(marks[0] + marks[1], reverse=True):
        joined.RemoveAtom(mark)
    return _checked(joined)


def mutate(molecule: Chem.Mol, rng: random.Random) -> Chem.Mol | None:
    """One of seven changes, drawn anew until a molecule comes out; None after twenty failures."""
    for _ in range(_TRIES):
        changed = Chem.RWMol(molecule)
        Chem.Kekulize(changed, clearAromaticFlags=True)
        if rng.choice(_MUTATIONS)(changed, rng) and (found := _checked(changed)) is not None:
            return found
    return None


def _append(molecule: Chem.RWMol, rng: random.Random) -> bool:
    end = rng.randrange(molecule.GetNumAtoms())
    new = molecule.AddAtom(Chem.Atom(rng.choice(_ELEMENTS)))
    return bool(molecule.AddBond(end, new, rng.choice((SINGLE, SINGLE, DOUBLE, TRIPLE))))


def _insert(molecule: Chem.RWMol, rng: random.Random) -> bool:
    if not molecule.GetNumBonds():
        return False
    bond = molecule.GetBondWithIdx(rng.randrange(molecule.GetNumBonds()))
    a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    new = molecule.AddAtom(Chem.Atom(rng.choice(("C", "N", "O", "S"))))
    molecule.RemoveBond(a, b)
    molecule.AddBond(a, new, SINGLE)
    return bool(molecule.AddBond(new, b, SINGLE))


def _delete(molecule: Chem.RWMol, rng: random.Random) -> bool:
    """Remove an atom; two neighbours left apart are joined."""
    atom = molecule.GetAtomWithIdx(rng.randrange(molecule.GetNumAtoms()))
    neighbours = [other.GetIdx() for other in atom.GetNeighbors()]
    if molecule.GetNumAtoms() < 2 or len(neighbours) > 2:
        return False
    if len(neighbours) == 2 and molecule.GetBondBetweenAtoms(*neighbours) is None:
        molecule.AddBond(*neighbours, SINGLE)
    molecule.RemoveAtom(atom.GetIdx())
    return True


def _change_atom(molecule: Chem.RWMol, rng: random.Random) -> bool:
    atom = molecule.GetAtomWithIdx(rng.randrange(molecule.GetNumAtoms()))
    new = rng.choice([element for element in _ELEMENTS if element != atom.GetSymbol()])
    molecule.ReplaceAtom(atom.GetIdx(), Chem.Atom(new))
    return True


def _change_order(molecule: Chem.RWMol, rng: random.Random) -> bool:
    if not molecule.GetNumBonds():
        return False
    bond = molecule.GetBondWithIdx(rng.randrange(molecule.GetNumBonds()))
    bond.SetBondType(rng.choice([order for order in (SINGLE, DOUBLE, TRIPLE) if order != bond.GetBondType()]))
    return True


def _close_ring(molecule: Chem.RWMol, rng: random.Random) -> bool:
    """A bond between two atoms that a ring of three to six can hold."""
    start = rng.randrange(molecule.GetNumAtoms())
    distance = Chem.GetDistanceMatrix(molecule)[start]
    ends = [i for i, steps in enumerate(distance) if 2 <= steps < _LARGEST_RING]
    return bool(ends) and bool(molecule.AddBond(start, rng.choice(ends), SINGLE))


def _open_ring(molecule: Chem.RWMol, rng: random.Random) -> bool:
    Chem.FastFindRings(molecule)
    bonds = [bond for bond in molecule.GetBonds() if bond.IsInRing()]
    if not bonds:
        return False
    bond = rng.choice(bonds)
    molecule.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    return True


_MUTATIONS = (_append, _insert, _delete, _change_atom, _change_order, _close_ring, _open_ring)


def _checked(molecule: Chem.RWMol) -> Chem.Mol | None:
    """A sane molecule in one piece without radicals, as read from its own SMILES; or None."""
    try:
        Chem.SanitizeMol(molecule)
    except (ValueError, RuntimeError):
        return None
    text = Chem.MolToSmiles(molecule)
    found = Chem.MolFromSmiles(text) if text and "." not in text else None
    if found is None or any(atom.GetNumRadicalElectrons() for atom in found.GetAtoms()):
        return None
    return found
