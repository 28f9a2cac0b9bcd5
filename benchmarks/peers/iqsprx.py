"""The iQSPR-X algorithm (Wu et al. 2020, doi 10.1002/minf.201900107), coded from its description.

Theirs: Bayesian ridge regression on fingerprints; the product over properties of differences of the normal
distribution function; log L = -1000 where there is no molecule; 25 particles; the temperatures of their tutorial;
weights L^β, not incremental; resampling at every step; a particle is rewritten from a random root with probability
one half, loses d ~ U{1..10} tokens at its end and is grown again by the n-gram.

Where the description leaves a choice, the one that favours the algorithm was taken: particles begin as random
training molecules rather than copies of one, nothing goes through data frames, a population is featurized and
predicted at once, and every molecule that was ever evaluated counts as found, not only those of the last step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem import MACCSkeys, rdFingerprintGenerator
from scipy.stats import norm

from .strings import NGram, Unspeakable, tokenize

BITS = 2048
IMPOSSIBLE = -1000.0
_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=BITS)
SCHEDULE = np.concatenate(
    [np.linspace(0.01, 0.2, 20), np.linspace(0.21, 0.4, 10), np.linspace(0.4, 1, 10), np.ones(10)]
)
"""The inverse temperatures of the tutorial."""

Bounds = Mapping[str, tuple[float, float]]


def fingerprints(molecules: Sequence[Chem.Mol]) -> np.ndarray:
    """log(1 + count) of ECFP6 in 2,048 bins, and the MACCS keys, `(n, 2215)`."""
    found = np.zeros((len(molecules), BITS + 167))
    for row, molecule in enumerate(molecules):
        found[row, :BITS] = _MORGAN.GetCountFingerprintAsNumPy(molecule)
        found[row, BITS + np.array(MACCSkeys.GenMACCSKeys(molecule).GetOnBits(), int)] = 1.0
    np.log1p(found[:, :BITS], out=found[:, :BITS])
    return found


class Ridge:
    """Their forward model: one Bayesian ridge regression for each property.

    Args:
        smiles: training molecules.
        values: by property, in the same order.
    """

    def __init__(self, smiles: Sequence[str], values: Mapping[str, np.ndarray]):
        from sklearn.linear_model import BayesianRidge  # a peer's need, not the package's

        matrix = fingerprints([Chem.MolFromSmiles(text) for text in smiles])
        self.models = {name: BayesianRidge().fit(matrix, y) for name, y in values.items()}

    def predict(self, molecules: Sequence[Chem.Mol]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation of each property, `(n,)` each."""
        matrix = fingerprints(molecules)
        return {name: model.predict(matrix, return_std=True) for name, model in self.models.items()}


class Scores(NamedTuple):
    """What a likelihood says of n strings; NaN where there is no molecule.

    Attributes:
        log_likelihood: `(n,)` of all bounds together.
        each: by property, log of the probability of its bounds, `(n,)`.
        mean: by property, `(n,)`.
    """

    log_likelihood: np.ndarray
    each: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]


class BoxLikelihood:
    """log p(all properties within their bounds | molecule) of strings, by a forward model."""

    def __init__(self, forward: Ridge, bounds: Bounds):
        self.forward, self.bounds = forward, bounds

    def __call__(self, smiles: Sequence[str]) -> Scores:
        n = len(smiles)
        molecules = [Chem.MolFromSmiles(text) if text else None for text in smiles]
        kept = [i for i, molecule in enumerate(molecules) if molecule is not None]
        total = np.full(n, IMPOSSIBLE)
        each, mean = ({name: np.full(n, np.nan) for name in self.bounds} for _ in range(2))
        if kept:
            predicted = self.forward.predict([molecules[i] for i in kept])
            total[kept] = 0.0
            for name, (low, high) in self.bounds.items():
                middle, sd = predicted[name]
                with np.errstate(divide="ignore"):
                    value = np.log(norm.cdf(high, middle, sd) - norm.cdf(low, middle, sd))
                each[name][kept], mean[name][kept] = value, middle
                total[kept] += np.maximum(value, IMPOSSIBLE)
        return Scores(np.maximum(total, IMPOSSIBLE), each, mean)


class Step(NamedTuple):
    """One temperature: the distinct strings that were evaluated, how many particles hold each, and their scores."""

    beta: float
    smiles: list[str]
    numbers: np.ndarray
    scores: Scores


class IQSPRX:
    """The loop.

    Args:
        ngram: proposes the ends of strings.
        likelihood: from strings to scores; called once for each temperature.
        reorder: probability that a particle is written from another root before it is cut.
        most_deleted: of tokens.
    """

    def __init__(
        self,
        ngram: NGram,
        likelihood: Callable[[Sequence[str]], Scores],
        reorder: float = 0.5,
        most_deleted: int = 10,
    ):
        self.ngram, self.likelihood, self.reorder, self.most_deleted = ngram, likelihood, reorder, most_deleted

    def run(self, seed: int, start: Sequence[str], schedule: np.ndarray = SCHEDULE) -> list[Step]:
        """All temperatures, from the given particles.

        Returns:
            Every step; particle-iterations are `len(start) * len(schedule)`.
        """
        rng, draw = random.Random(seed), np.random.default_rng(seed)
        particles, steps = list(start), []
        for beta in schedule:
            particles = [self.propose(text, rng) for text in particles]
            distinct, count = np.unique(particles, return_counts=True)
            steps.append(Step(float(beta), distinct.tolist(), count, self.likelihood(distinct.tolist())))
            log_weight = beta * steps[-1].scores.log_likelihood + np.log(count)
            weight = np.exp(log_weight - log_weight.max())
            particles = draw.choice(distinct, len(particles), p=weight / weight.sum()).tolist()
        return steps

    def propose(self, smiles: str, rng: random.Random) -> str:
        """A new string; the old one where the n-gram finds no way on."""
        if rng.random() < self.reorder and (molecule := Chem.MolFromSmiles(smiles)) is not None:
            atoms = molecule.GetNumAtoms()
            if atoms:
                root = rng.randrange(atoms)
                smiles = Chem.MolToSmiles(molecule, rootedAtAtom=root, canonical=False)
        try:
            tokens = tokenize(smiles)[:-1]
            return self.ngram.grow(tokens[: max(0, len(tokens) - rng.randint(1, self.most_deleted))], rng)
        except (Unspeakable, IndexError):
            return smiles
