"""What all methods share: the molecules, the split, the boxes, the forward models and how a find is judged."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

import bayesmat as bm

from .iqsprx import Bounds, Ridge
from .oracle import AdditiveOracle
from .strings import NGram

NUM_TRAIN = 10_000
BATCH = 1024
UNITS = {"E": "kcal/mol", "gap": "eV"}
BOXES: dict[str, Bounds] = {
    "E 0-200, gap 0-3": {"E": (0, 200), "gap": (0, 3)},
    "E 50-250, gap 2-4": {"E": (50, 250), "gap": (2, 4)},
    "E 200-350, gap 1.5-2.5": {"E": (200, 350), "gap": (1.5, 2.5)},
    "E 50-200, gap 9-11": {"E": (50, 200), "gap": (9, 11)},
}
"""Boxes of public tutorials; the first is also the gate's."""
RARE: dict[str, Bounds] = {
    "E 0-100, gap 0-2.5": {"E": (0, 100), "gap": (0, 2.5)},
    "E 20-80, gap 1-3": {"E": (20, 80), "gap": (1, 3)},
    "E 400-600, gap 9-13": {"E": (400, 600), "gap": (9, 13)},
}
"""Boxes made for this benchmark, rarer under the prior than one in a thousand."""


class Setting:
    """The molecules of iqspr_qm.csv, 10,000 of them for training, and everything that is fitted to those.

    Attributes:
        smiles: canonical SMILES of all rows that RDKit reads, without stereo.
        values: energy [kcal/mol] and gap [eV] by name, in the same order.
        train: rows for training.
        test: the other rows, those of training molecules left out.
        num_heldout: the other rows, all of them.
    """

    def __init__(self, seed: int = 0):
        path = Path(os.environ["BAYESMAT_DATA"]) / "iqspr_qm.csv"
        with path.open(encoding="utf-8") as file:
            rows = [(Chem.MolFromSmiles(row["smiles"]), row) for row in csv.DictReader(file)]
        rows = [(molecule, row) for molecule, row in rows if molecule is not None]
        self.smiles = [Chem.MolToSmiles(molecule, isomericSmiles=False) for molecule, _ in rows]
        columns = {"E": "E_thermal", "gap": "gap_eV"}
        self.values = {name: np.array([float(row[key]) for _, row in rows]) for name, key in columns.items()}
        order = np.random.default_rng(seed).permutation(len(rows))
        self.train = np.sort(order[:NUM_TRAIN])
        self.num_heldout = len(rows) - NUM_TRAIN
        known = set(self.train_smiles)
        self.test = np.array([row for row in np.sort(order[NUM_TRAIN:]) if self.smiles[row] not in known])

    def of(self, rows: np.ndarray) -> list[str]:
        """SMILES of rows."""
        return [self.smiles[row] for row in rows]

    @cached_property
    def train_smiles(self) -> list[str]:
        """SMILES of the training rows."""
        return self.of(self.train)

    def start(self, seed: int, num: int) -> list[str]:
        """Random training molecules, for methods that begin with some."""
        return self.of(np.random.default_rng(seed).choice(self.train, num))

    @cached_property
    def oracle(self) -> AdditiveOracle:
        """Energies that are true for all purposes here; fitted to all rows."""
        return AdditiveOracle(self.smiles, self.values["E"])

    @cached_property
    def ngram(self) -> NGram:
        """The n-gram of the iQSPR-X algorithm."""
        return NGram(self.train_smiles)

    @cached_property
    def ridge(self) -> Ridge:
        """The forward models of the iQSPR-X algorithm."""
        return Ridge(self.train_smiles, {name: y[self.train] for name, y in self.values.items()})

    @cached_property
    def prior(self) -> bm.prior.NGram:
        """Our n-gram, of the alphabet that fits the training molecules."""
        alphabet = bm.chem.Alphabet.from_corpus(self.train_smiles)
        return bm.prior.fit_ngram(self.train_smiles, alphabet, cache=True)

    @cached_property
    def fitted(self) -> dict[str, bm.forward.Fitted]:
        """Our forward models, by property."""
        return {
            name: bm.forward.fit(self.table(name, self.train), key=jax.random.key(0), alphabet=self.prior.alphabet)
            for name in self.values
        }

    def table(self, name: str, rows: np.ndarray) -> bm.data.PropertyTable:
        """Rows as a table of measurements."""
        n, ones = len(rows), np.ones(len(rows), int)
        label = {"E": "internal energy", "gap": "HOMO-LUMO gap"}[name]
        return bm.data.PropertyTable(
            *(name, label, UNITS[name], tuple(self.of(rows)), self.values[name][rows], ones, ones, ("",) * n),
            *(("iqspr_qm.csv",), "as given", n),
        )

    def true_hits(self, smiles: Sequence[str], bounds: Bounds) -> np.ndarray:
        """1 where the oracle's energy is within bounds, 0 where it is not, NaN where it says nothing; `(n,)`."""
        energy = self.oracle(list(smiles))
        low, high = bounds["E"]
        return np.where(np.isnan(energy), np.nan, (energy > low) & (energy < high))

    @cached_property
    def _environments(self) -> set[int]:
        return set().union(*(_environments(text) for text in self.train_smiles))

    def num_familiar(self, smiles: Iterable[str]) -> int:
        """How many have no atom whose neighbourhood of one bond is in no training molecule."""
        return sum(_environments(text) <= self._environments for text in smiles)

    @cached_property
    def _predict(self) -> Callable[[jax.Array], dict[str, bm.forward.Predictive]]:
        predictors = {name: fitted.predictor for name, fitted in self.fitted.items()}
        alphabet = self.prior.alphabet

        def one(x: jax.Array, predictors: Any) -> Any:
            phi = bm.nn.featurize(x, alphabet)
            return {name: predictor(phi) for name, predictor in predictors.items()}

        program = jax.jit(jax.vmap(one, (0, None)))
        return lambda x: program(x, predictors)

    def describe(self, tokens: np.ndarray, bounds: Bounds) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Of strings `(n, length)`: log probability of the bounds, and the mean, by property, `(n,)` each."""
        n = len(tokens)
        log_p: dict[str, list[np.ndarray]] = {name: [] for name in bounds}
        mean: dict[str, list[np.ndarray]] = {name: [] for name in bounds}
        for begin in range(0, n, BATCH):
            part = np.zeros((BATCH, tokens.shape[1]), np.int32)
            rows = tokens[begin : begin + BATCH]
            part[: len(rows)] = rows
            for name, y in self._predict(jnp.asarray(part)).items():
                log_p[name].append(np.asarray(_within(y, *bounds[name]))[: len(rows)])
                mean[name].append(np.asarray(y.mean())[: len(rows)])
        return ({k: np.concatenate(v) for k, v in log_p.items()}, {k: np.concatenate(v) for k, v in mean.items()})


_NEAREST = rdFingerprintGenerator.GetMorganGenerator(radius=1, includeRedundantEnvironments=True)


def _environments(smiles: str) -> set[int]:
    return set(_NEAREST.GetSparseCountFingerprint(Chem.MolFromSmiles(smiles)).GetNonzeroElements())


_within = jax.jit(lambda y, low, high: y.log_prob_interval(low, high))


class SharedScore:
    """Our predictor as the objective of every method: from SMILES to log p_hit, each molecule once.

    Attributes:
        found: log p_hit of every molecule that was evaluated, by canonical SMILES, in order.
    """

    def __init__(self, setting: Setting, bounds: Bounds, tokens: dict[str, np.ndarray | None]):
        self.setting, self.bounds, self.tokens = setting, bounds, tokens
        self.found: dict[str, float] = {}

    def __call__(self, smiles: Sequence[str]) -> np.ndarray:
        """log p_hit `(n,)`; -inf for what is no molecule of the alphabet, which costs no evaluation."""
        names = [_canonical(text) for text in smiles]
        distinct = [name for name in dict.fromkeys(names) if name is not None]
        new = [name for name in distinct if name not in self.tokens]
        if new:
            encoded = bm.chem.encode(new, self.setting.prior.alphabet)
            self.tokens.update(dict.fromkeys(new))
            self.tokens.update(zip((new[row] for row in encoded.kept), encoded.tokens.astype(np.int16), strict=True))
        asked = {name: row for name in distinct if name not in self.found and (row := self.tokens[name]) is not None}
        if asked:
            log_p, _ = self.setting.describe(np.stack(list(asked.values())), self.bounds)
            self.found.update(zip(asked, sum(log_p.values()).tolist(), strict=True))
        return np.array([-np.inf if name is None else self.found.get(name, -np.inf) for name in names])


def _canonical(text: str) -> str | None:
    molecule = Chem.MolFromSmiles(text) if text else None
    return None if molecule is None else Chem.MolToSmiles(molecule, isomericSmiles=False)
