"""The boundary to RDKit: the only module of bayesmat that imports it.

Everything that a computer program outside cares about (names, pictures, canonical strings) passes here;
everything that a sampler cares about stays on the device, in the other modules of `chem`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.Contrib.SA_Score import sascorer

from .._types import BayesmatError, progress

RDLogger.DisableLog("rdApp.*")  # every message of RDKit is turned into a named reason below

MAX_SMILES_CHARACTERS = 2_000
"""Longer strings are refused unread: the parser's time and stack grow with nesting depth."""


class RefusedError(BayesmatError):
    """A structure that cannot be used; `reason` says why in a few words."""

    def __init__(self, smiles: str, reason: str):
        shown = smiles if len(smiles) <= 80 else smiles[:77] + "..."
        super().__init__(f"{shown!r}: {reason}")
        self.smiles = smiles
        self.reason = reason


@dataclass(frozen=True)
class Canonical:
    """What `canonicalize` made of a list of SMILES; the lists are as long as the input.

    Attributes:
        smiles: canonical SMILES without stereo marks and isotopes, or None where a structure was refused.
        reasons: None, or why the structure was refused.
        stripped: how many structures lost a stereo mark or an isotope label.
    """

    smiles: list[str | None]
    reasons: list[str | None]
    stripped: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> Counter[str]:
        """How many structures were refused, by reason."""
        return Counter(reason for reason in self.reasons if reason is not None)


def parse(smiles: str) -> tuple[Chem.Mol, frozenset[str]]:
    """The flat molecule of a SMILES string: one fragment, no radicals, stereo and isotopes removed.

    Returns:
        The molecule, and what had to be stripped from it (a subset of {"stereo", "isotopes"}).

    Raises:
        RefusedError: the string cannot be read, is empty, or is not one closed-shell fragment.
    """
    if not smiles or not smiles.strip():
        raise RefusedError(smiles, "empty string")
    if len(smiles) > MAX_SMILES_CHARACTERS:
        raise RefusedError(smiles, f"longer than {MAX_SMILES_CHARACTERS} characters")
    smiles = smiles.strip()
    if not smiles.isprintable():
        raise RefusedError(smiles, "control character")  # RDKit would read up to a NUL and call it a molecule
    if " " in smiles:
        raise RefusedError(smiles, "blank inside")
    if "." in smiles:
        raise RefusedError(smiles, "several fragments")
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise RefusedError(smiles, "RDKit cannot read it")
    stripped = set()
    for atom in molecule.GetAtoms():
        if atom.GetNumRadicalElectrons():
            raise RefusedError(smiles, "radical")
        if atom.GetIsotope():
            atom.SetIsotope(0)
            stripped.add("isotopes")
        if atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED:
            stripped.add("stereo")
        atom.SetAtomMapNum(0)
    if any(bond.GetStereo() != Chem.BondStereo.STEREONONE for bond in molecule.GetBonds()):
        stripped.add("stereo")
    if stripped:
        Chem.RemoveStereochemistry(molecule)
        molecule = Chem.RemoveHs(molecule)  # an isotope label can have kept a hydrogen explicit
    return molecule, frozenset(stripped)


def canonicalize(smiles: Sequence[str], description: str = "canonical structures") -> Canonical:
    """Canonical flat SMILES of many strings; a bad one is set aside with its reason, never fatal.

    >>> canonicalize(["OCC", "C[C@H](N)C(=O)O", "CC.O", "not a molecule"]).smiles
    ['CCO', 'CC(N)C(=O)O', None, None]
    """
    result = Canonical([], [])
    for text in progress(smiles, description, len(smiles)):
        try:
            molecule, stripped = parse(text)
        except RefusedError as error:
            result.smiles.append(None)
            result.reasons.append(error.reason)
            continue
        result.smiles.append(Chem.MolToSmiles(molecule))
        result.reasons.append(None)
        result.stripped.update(stripped)
    return result


def kekule_smiles(molecule: Chem.Mol, seed: int | None = None) -> str:
    """A Kekulé SMILES of a molecule: the canonical atom order, or a random root and random Kekulé form.

    Args:
        molecule: as `parse` returns it.
        seed: None for the canonical order; a number for a reproducible random string.

    Raises:
        RefusedError: RDKit finds no Kekulé form.
    """
    if seed is not None:
        order = list(range(molecule.GetNumAtoms()))
        random.Random(seed).shuffle(order)
        molecule = Chem.RenumberAtoms(molecule, order)
    molecule = Chem.Mol(molecule)
    try:
        Chem.Kekulize(molecule, clearAromaticFlags=True)
    except Chem.KekulizeException as error:
        raise RefusedError(Chem.MolToSmiles(molecule), "no Kekulé form") from error
    return Chem.MolToSmiles(molecule, canonical=seed is None)


def is_accepted(smiles: str) -> bool:
    """Whether RDKit reads and sanitises the string."""
    return Chem.MolFromSmiles(smiles) is not None


def is_organic(smiles: str) -> bool:
    """Whether a readable molecule has three or more heavy atoms, carbon among them, and hydrogen.

    What a prior fitted to organic structures writes; water, carbon dioxide or chlorine are not.
    """
    molecule = Chem.MolFromSmiles(smiles)
    atoms = list(molecule.GetAtoms())
    return (
        molecule.GetNumHeavyAtoms() >= 3
        and any(atom.GetAtomicNum() == 6 for atom in atoms)
        and any(atom.GetTotalNumHs() for atom in atoms)
    )


def sa_score(smiles: str) -> float:
    """Synthetic accessibility from 1 (easy) to 10 (hard); Ertl and Schuffenhauer 2009, doi 10.1186/1758-2946-1-8."""
    return float(sascorer.calculateScore(parse(smiles)[0]))


class SimilarityIndex:
    """Nearest neighbour of a molecule among known ones: Tanimoto on Morgan fingerprints of radius 2.

    4,096 bits that simulate counts (RDKit's 1, 2, 4 and 8 or more), so that chains of different length differ.

    Args:
        smiles: the known molecules.
        words: their fingerprints as `words` of an earlier index gives them; None to compute them.
        description: what the progress bar says.

    >>> SimilarityIndex(["CCO", "c1ccccc1"]).nearest("CCCO")[0]
    'CCO'
    """

    def __init__(
        self,
        smiles: Sequence[str],
        words: np.ndarray | None = None,
        description: str = "fingerprints of known compounds, once",
    ):
        self._generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=4096, countSimulation=True)
        self.smiles = list(smiles)
        if words is None:
            rows = [self._words(text) for text in progress(self.smiles, description, len(self.smiles))]
            words = np.stack(rows) if rows else np.zeros((0, 64), np.uint64)
        self.words = words
        self._sizes = np.bitwise_count(words).sum(1, dtype=np.int64)

    def _words(self, smiles: str) -> np.ndarray:
        """The fingerprint of one molecule, `(64,)` uint64."""
        bits = self._generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(smiles))
        return np.packbits(bits).view(np.uint64)

    def nearest(self, smiles: str) -> tuple[str, float]:
        """The most similar known molecule and its Tanimoto similarity in [0, 1]; ("", 0) if none is known."""
        if not self.smiles:
            return "", 0.0
        query = self._words(smiles)
        common = np.bitwise_count(self.words & query).sum(1, dtype=np.int64)
        union = self._sizes + int(np.bitwise_count(query).sum()) - common
        similarity = common / np.maximum(union, 1)
        best = int(similarity.argmax())
        return self.smiles[best], float(similarity[best])


def depict(smiles: str, width: int = 240, height: int = 160) -> str:
    """An SVG drawing of a molecule, with a transparent background and no XML header."""
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    drawer.drawOptions().clearBackground = False
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, parse(smiles)[0])
    drawer.FinishDrawing()
    svg = drawer.GetDrawingText()
    return svg[svg.index("<svg") :]
