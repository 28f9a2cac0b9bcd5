"""The boundary to RDKit: the only module of bayesmat that imports it.

Everything that a computer program outside cares about (names, pictures, canonical strings) passes here;
everything that a sampler cares about stays on the device, in the other modules of `chem`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import rdChemReactions, rdFingerprintGenerator, rdqueries
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.Contrib.SA_Score import sascorer

from .._types import BayesmatError, progress

RDLogger.DisableLog("rdApp.*")  # every message of RDKit is turned into a named reason below

MAX_SMILES_CHARACTERS = 2_000
"""Longer strings are refused unread: the parser's time and stack grow with nesting depth."""

_CHIRAL = re.compile(r"(\[[A-Za-z][a-z]?)@@?(?=[]H+-])")
_DIRECTION = re.compile(r"(?<=[\w\])(*])[/\\](?=[BCNOPSFIbcnops[*])|(?<=[A-Za-z\])(*])[/\\](?=[\d%])")
_MISPLACED = re.compile(r"\[[^]]*[/\\]")
_UNUSUAL = re.compile(r"\[\d|\[H|:\d+\]|[@/\\>~$]")
"""Isotopes, hydrogens as atoms, atom maps, rare bonds, and what the two before leave of stereo marks."""
_RADICAL = rdqueries.NumRadicalElectronsGreaterQueryAtom(0)
_PYRROLIC = Chem.MolFromSmarts("[a;!#6;!H0]").GetAtomWithIdx(0)
_FLAGS = Chem.SanitizeFlags
_KEKULE = (
    _FLAGS.SANITIZE_ALL
    ^ _FLAGS.SANITIZE_SETAROMATICITY
    ^ _FLAGS.SANITIZE_ADJUSTHS
    ^ _FLAGS.SANITIZE_SETCONJUGATION
    ^ _FLAGS.SANITIZE_SETHYBRIDIZATION
    ^ _FLAGS.SANITIZE_CLEANUPCHIRALITY
)

ATOMIC_MASS = (0.0, *(Chem.GetPeriodicTable().GetAtomicWeight(number) for number in range(1, 84)))
"""Standard atomic masses [g/mol] by atomic number; 0 for an attachment point."""


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
    smiles = _plain(smiles)
    try:
        molecule = Chem.MolFromSmiles(smiles)
    except RuntimeError:  # a broken invariant of RDKit, such as of dative bonds in odd places
        molecule = None
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise RefusedError(smiles, "RDKit cannot read it")
    stripped = set()
    for atom in molecule.GetAtoms() if "[" in smiles else ():  # what is looked for here is written in brackets
        if atom.GetNumRadicalElectrons():
            raise RefusedError(smiles, "radical")
        if atom.GetIsotope():
            atom.SetIsotope(0)
            stripped.add("isotopes")
        if atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED:
            stripped.add("stereo")
        atom.SetAtomMapNum(0)
    directions = "/" in smiles or "\\" in smiles
    if directions and any(bond.GetStereo() != Chem.BondStereo.STEREONONE for bond in molecule.GetBonds()):
        stripped.add("stereo")
    if stripped or directions:
        Chem.RemoveStereochemistry(molecule)
    if "isotopes" in stripped or "[H]" in smiles:
        molecule = Chem.RemoveHs(molecule)  # a label or a direction can have kept a hydrogen explicit
    return molecule, frozenset(stripped)


def _plain(smiles: str) -> str:
    """The string without blanks around it.

    Raises:
        RefusedError: it can be refused unread.
    """
    if not smiles or not smiles.strip():
        raise RefusedError(smiles, "empty string")
    if len(smiles) > MAX_SMILES_CHARACTERS:
        raise RefusedError(smiles, f"longer than {MAX_SMILES_CHARACTERS} characters")
    smiles = smiles.strip()
    if not smiles.isprintable():
        raise RefusedError(smiles, "control character")  # RDKit would read up to a NUL and call it a molecule
    if not smiles.isascii():
        raise RefusedError(smiles, "character outside ASCII")  # it would drop one at an end
    if " " in smiles:
        raise RefusedError(smiles, "blank inside")
    if "." in smiles:
        raise RefusedError(smiles, "several fragments")
    return smiles


def flat_and_kekule(smiles: str) -> tuple[str, str]:
    """The canonical flat SMILES of a molecule and a Kekulé SMILES of it, from reading it once.

    Two thirds of the time of `parse`, `canonical` and `kekule_smiles`: stereo marks are cut out of the string before
    RDKit perceives what they mean, and the Kekulé form is written before aromaticity is perceived.

    Raises:
        RefusedError: the structure cannot be used.

    >>> flat_and_kekule("C[C@H](O)c1ccccc1")
    ('CC(O)c1ccccc1', 'CC(O)C1=CC=CC=C1')
    """
    found = _flat_and_kekule(_plain(smiles))
    if found is None:
        molecule, _ = parse(smiles)
        found = Chem.MolToSmiles(molecule), kekule_smiles(molecule)
    return found


def _flat_and_kekule(text: str) -> tuple[str, str] | None:
    """The fast way, or None for what `parse` has to judge."""
    text = _CHIRAL.sub(r"\1", text) if "@" in text else text
    if ("/" in text or "\\" in text) and not _MISPLACED.search(text):
        text = _DIRECTION.sub("", text)
    if _UNUSUAL.search(text) or (molecule := Chem.MolFromSmiles(text, sanitize=False)) is None:
        return None
    try:
        Chem.SanitizeMol(molecule, _KEKULE)
    except (ValueError, RuntimeError):
        return None
    if molecule.GetNumAtoms() == 0 or ("[" in text and len(molecule.GetAtomsMatchingQuery(_RADICAL))):
        return None
    kekule = Chem.MolToSmiles(molecule)
    Chem.SetAromaticity(molecule)
    for atom in molecule.GetAtomsMatchingQuery(_PYRROLIC):  # an aromatic nitrogen's hydrogen has to be written
        atom.SetNumExplicitHs(atom.GetTotalNumHs())
        atom.SetNoImplicit(True)
    return Chem.MolToSmiles(molecule), kekule


def canonical(smiles: str) -> str:
    """The canonical flat SMILES of one molecule.

    Raises:
        RefusedError: the structure cannot be used.

    >>> canonical("OC1=CC=CC=C1")
    'Oc1ccccc1'
    """
    return str(Chem.MolToSmiles(parse(smiles)[0]))


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
        points = [index for index in order if molecule.GetAtomWithIdx(index).GetAtomicNum() == 0]
        order = points[:1] + [index for index in order if index not in points[:1]]  # a repeat unit begins at `*`
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


def is_closed_shell(element: str, charge: int, valence: int) -> bool:
    """Whether RDKit accepts the hydride of an atom type and finds no radical in it.

    Of a main group element it then finds none with any other neighbours: what counts is the sum of its bonds.
    """
    hydrogens = f"H{valence}" if element != "*" else ""
    molecule = Chem.MolFromSmiles(f"[{element}{hydrogens}{charge:+d}]")
    return molecule is not None and molecule.GetAtomWithIdx(0).GetNumRadicalElectrons() == 0


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


def scaffold(smiles: str) -> str:
    """The Bemis-Murcko scaffold of a molecule, rings and what links them; "" for a chain. doi 10.1021/jm9602928.

    >>> scaffold("CCc1ccc(C)cc1")
    'c1ccccc1'
    """
    return Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(smiles)))


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


class Groups:
    """Counts of functional groups.

    Args:
        patterns: SMARTS by name.

    Raises:
        BayesmatError: a pattern cannot be read.

    >>> Groups({"hydroxyl": "[OX2H1]", "ring": "[r6]"}).count("OCc1ccccc1O")
    {'hydroxyl': 2, 'ring': 6}
    """

    def __init__(self, patterns: Mapping[str, str]):
        self._queries = {}
        for name, pattern in patterns.items():
            self._queries[name] = Chem.MolFromSmarts(pattern)
            if self._queries[name] is None:
                raise BayesmatError(f"pattern {name!r}: {pattern!r} is not SMARTS")

    def count(self, smiles: str) -> dict[str, int]:
        """How often each pattern occurs in a molecule, on different sets of atoms; 0 included."""
        molecule = parse(smiles)[0]
        return {name: len(molecule.GetSubstructMatches(query)) for name, query in self._queries.items()}

    def present(self, smiles: str) -> frozenset[str]:
        """Which patterns occur in a molecule."""
        molecule = parse(smiles)[0]
        return frozenset(name for name, query in self._queries.items() if molecule.HasSubstructMatch(query))


class Opening:
    """What a monomer becomes in a chain: its reactive groups give way to two free ends, `[1*]` and `[2*]`.

    Args:
        reactions: reaction SMARTS, one reactant and one product: a single one that writes `[1*]` and `[2*]`, or
            two that write one `*` each, run one after the other.

    Raises:
        BayesmatError: a reaction cannot be read or does not write the ends.

    >>> Opening(["[OX2H1:1]>>*[O:1]", "[CX3:1](=[O:2])[OX2H1]>>[C:1](=[O:2])*"])("OCC(=O)O")
    ('[1*]OCC([2*])=O',)
    """

    def __init__(self, reactions: Sequence[str]):
        self._reactions = [_reaction(text) for text in reactions]
        dummies = [
            sorted(atom.GetIsotope() for atom in template.GetAtoms() if _is_dummy(atom))
            for reaction in self._reactions
            for template in reaction.GetProducts()
        ]
        if dummies not in ([[1, 2]], [[0], [0]]):
            raise BayesmatError(f"{list(reactions)}: allowed are one reaction that writes [1*] and [2*], or two with *")

    def __call__(self, smiles: str) -> tuple[str, ...]:
        """The residues of a monomer, sorted; more than one where the groups can be taken in different ways."""
        start = parse(smiles)[0]
        Chem.Kekulize(start, clearAromaticFlags=False)  # an atom may leave an aromatic ring when its group reacts
        opened = [start]
        for end, reaction in enumerate(self._reactions, 1):
            opened = [product for molecule in opened for product in _products(reaction, molecule, end)]
        unique = set()
        for molecule in opened:
            for item in (*molecule.GetAtoms(), *molecule.GetBonds()):
                item.SetIsAromatic(False)
            try:
                Chem.SanitizeMol(molecule)
            except (Chem.MolSanitizeException, ValueError):
                continue
            unique.add(Chem.MolToSmiles(molecule))
        return tuple(sorted(text for text in unique if _is_residue(text)))


def _is_dummy(atom: Chem.Atom) -> bool:
    """Whether an atom of a molecule or a template is a free end and not the image of an atom."""
    return atom.GetAtomicNum() == 0 and not atom.GetAtomMapNum()


def _is_residue(smiles: str) -> bool:
    """Whether a structure is in one piece with the two ends of a residue."""
    return smiles.count("[1*]") == 1 and smiles.count("[2*]") == 1 and "." not in smiles


def _reaction(text: str) -> rdChemReactions.ChemicalReaction:
    try:
        reaction = rdChemReactions.ReactionFromSmarts(text)
    except ValueError as error:
        raise BayesmatError(f"{text!r} is not a reaction") from error
    if reaction.GetNumReactantTemplates() != 1 or reaction.GetNumProductTemplates() != 1:
        raise BayesmatError(f"{text!r}: a reaction has one reactant and one product here")
    reaction.Initialize()
    return reaction


def _products(reaction: rdChemReactions.ChemicalReaction, molecule: Chem.Mol, end: int) -> list[Chem.Mol]:
    """Every product of a reaction, as Kekulé forms with aromatic flags; a new free end gets the number `end`."""
    molecules = []
    for (product,) in reaction.RunReactants((molecule,)):
        for atom in product.GetAtoms():
            if _is_dummy(atom) and not atom.GetIsotope():
                atom.SetIsotope(end)
        product.UpdatePropertyCache(strict=False)
        Chem.GetSymmSSSR(product)
        molecules.append(product)
    return molecules


@lru_cache(maxsize=20_000)
def _residue(smiles: str) -> tuple[Chem.Mol, dict[int, tuple[int, int]]]:
    """A residue, and for each of its two ends the indices of the free end and of the atom that bears it."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not _is_residue(smiles):
        raise RefusedError(smiles, "not a residue with the ends [1*] and [2*]")
    ends = {
        atom.GetIsotope(): (atom.GetIdx(), atom.GetNeighbors()[0].GetIdx())
        for atom in molecule.GetAtoms()
        if _is_dummy(atom)
    }
    return molecule, ends


def join_residues(first: str, second: str) -> str:
    """The repeat unit of two residues in turn: end 2 of the first is bonded to end 1 of the second.

    Raises:
        RefusedError: one of them is not a residue as `Opening` makes it.

    >>> join_residues("[1*]OCCO[2*]", "[1*]C(=O)c1ccc(C([2*])=O)cc1")
    '*OCCOC(=O)c1ccc(C(*)=O)cc1'
    """
    (left, left_ends), (right, right_ends) = _residue(first), _residue(second)
    shift = left.GetNumAtoms()
    molecule = Chem.RWMol(Chem.CombineMols(left, right))
    molecule.AddBond(left_ends[2][1], right_ends[1][1] + shift, Chem.BondType.SINGLE)
    molecule.GetAtomWithIdx(left_ends[1][0]).SetIsotope(0)
    molecule.GetAtomWithIdx(right_ends[2][0] + shift).SetIsotope(0)
    molecule.RemoveAtom(right_ends[1][0] + shift)
    molecule.RemoveAtom(left_ends[2][0])
    Chem.SanitizeMol(molecule)
    return Chem.MolToSmiles(molecule)


def repeat_unit(smiles: str) -> str:
    """The canonical repeat unit of a polymer, whichever bond of the chain the given one was cut at.

    `*A-B*`, `*B-A*` and their reverses are the same chain. Every acyclic single bond between the attachment points
    and the bond between two units are marked in the ring that the unit closes to; canonical ranks of that ring
    choose the mark to cut at. Stereo marks and isotopes are removed. A unit that repeats a shorter one is kept.

    Raises:
        RefusedError: there are not exactly two `*`, each with one single bond.

    >>> repeat_unit("*CCO*"), repeat_unit("*COC*"), repeat_unit("*OCC*")
    ('*COC*', '*COC*', '*COC*')
    """
    molecule = parse(smiles)[0]
    stars = [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]
    bonds = [bond for atom in stars for bond in atom.GetBonds()]
    if len(stars) != 2 or len(bonds) != 2 or any(bond.GetBondType() != Chem.BondType.SINGLE for bond in bonds):
        raise RefusedError(smiles, "not a repeat unit with two attachment points")
    path = Chem.GetShortestPath(molecule, stars[0].GetIdx(), stars[1].GetIdx())
    if len(path) < 3:
        raise RefusedError(smiles, "not a repeat unit with two attachment points")
    if len(path) == 3:
        return Chem.MolToSmiles(molecule)  # one atom in the chain: one way to cut it
    ring = Chem.RWMol(molecule)
    marks = [path[0]]
    for left, right in zip(path[1:-2], path[2:-1], strict=True):
        bond = molecule.GetBondBetweenAtoms(left, right)
        if not bond.IsInRing() and bond.GetBondType() == Chem.BondType.SINGLE:
            marks.append(_insert_mark(ring, left, right))
    ring.AddBond(path[0], path[-2], Chem.BondType.SINGLE)
    ring.RemoveBond(path[-1], path[-2])
    ring.GetAtomWithIdx(path[-1]).SetIsotope(1)  # set aside, a fragment of its own until the cut is chosen
    ring.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(ring)
    ranks = list(Chem.CanonicalRankAtoms(ring, breakTies=True))
    chosen = min(marks, key=lambda mark: ranks[mark])
    for mark in marks:
        left, right = (atom.GetIdx() for atom in ring.GetAtomWithIdx(mark).GetNeighbors())
        ring.RemoveBond(mark, right)
        if mark == chosen:
            ring.AddBond(path[-1], right, Chem.BondType.SINGLE)
        else:
            ring.RemoveBond(mark, left)
            ring.AddBond(left, right, Chem.BondType.SINGLE)
    ring.GetAtomWithIdx(path[-1]).SetIsotope(0)
    for mark in sorted(set(marks) - {chosen}, reverse=True):
        ring.RemoveAtom(mark)
    Chem.SanitizeMol(ring)
    return Chem.MolToSmiles(ring)


def _insert_mark(molecule: Chem.RWMol, left: int, right: int) -> int:
    """Put a dummy atom between two bonded atoms; returns its index."""
    mark = molecule.AddAtom(Chem.Atom(0))
    molecule.RemoveBond(left, right)
    molecule.AddBond(left, mark, Chem.BondType.SINGLE)
    molecule.AddBond(mark, right, Chem.BondType.SINGLE)
    return int(mark)
