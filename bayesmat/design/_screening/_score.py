"""Molecules as tokens → what the models say of them: one compiled program for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ... import chem
from ..._types import Array, BayesmatError
from ...forward import Applicability, Fitted, Predictor
from .._targets import Interval

BATCH = 1024
FIELDS = ("mean", "sd", "q05", "q50", "q95", "p_target", "applicability")
"""Of each property: `Predictive.mean` and `sd`, quantiles [unit], p(y in U), and how usual the molecule is."""


class Model(NamedTuple):
    """What the compiled program is given of one property."""

    predictor: Predictor
    applicability: Applicability


class Scorer:
    """Fitted properties and what is wanted of them.

    Args:
        fits: by name; all of one alphabet.
        targets: for one or more of them, by name.

    Raises:
        BayesmatError: there is no fit or no target, a target is of no fit, or the fits' alphabets differ.
    """

    def __init__(self, fits: Mapping[str, Fitted], targets: Mapping[str, Interval]):
        if not fits:
            raise BayesmatError("screening needs one model or more")
        if not targets or (set(targets) - set(fits)):
            unknown = ", ".join(sorted(set(targets) - set(fits))) or "none"
            raise BayesmatError(f"targets are of {unknown}; needed is one or more of the models' {', '.join(fits)}")
        alphabets = {fit.alphabet for fit in fits.values()}
        if len(alphabets) > 1:
            raise BayesmatError(f"the models {', '.join(fits)} do not read the same molecules (polymers, or others)")
        self.fits, self.targets = dict(fits), dict(targets)
        self.alphabet = alphabets.pop()
        self._models = tuple(Model(fit.predictor, fit.applicability) for fit in fits.values())
        self._limits = tuple(
            jnp.asarray([targets[name].lower, targets[name].upper]) if name in targets else None for name in fits
        )

    def __call__(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """What the models say of molecules `(m, length)`, as float32 columns `(m,)`.

        Names are those of `FIELDS` behind the property's and an underscore; `p_hit` is the probability that all
        targets are met, with errors of different models taken for independent; `applicability` the least of all;
        `fits` is False where the grammar has no room for the string and the other numbers mean nothing.
        """
        if not len(tokens):
            return {}
        said = []
        for width, rows in self._by_width(tokens):
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                padded = np.zeros((BATCH, width), np.uint8)
                padded[: len(part)] = tokens[part, :width]
                outcome = _score(self._models, self._limits, jnp.asarray(padded), self.alphabet)
                said.append((part, outcome))  # not waited for
        order = np.argsort(np.concatenate([part for part, _ in said]))
        each_part = [jax.tree.map(lambda leaf: np.asarray(leaf)[: len(part)], outcome) for part, outcome in said]  # noqa: B023
        found = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *each_part)
        legal, each, p_hit = found
        columns = {"fits": legal, "p_hit": p_hit}
        for name, values in zip(self.fits, each, strict=True):
            columns |= {f"{name}_{field}": value for field, value in zip(FIELDS, values, strict=True)}
        columns["applicability"] = np.minimum.reduce([columns[f"{name}_applicability"] for name in self.fits])
        return columns

    def _by_width(self, tokens: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Widths of arrays, and the rows that go into each: short strings cost half in one of half the width.

        A program is compiled for each width, so a few rows are left together.
        """
        half = self.alphabet.length // 2
        short = ~tokens[:, half:].any(axis=1)
        if short.sum() < BATCH:
            return [(self.alphabet.length, np.arange(len(tokens)))]
        return [(half, np.flatnonzero(short)), (self.alphabet.length, np.flatnonzero(~short))]


@eqx.filter_jit
def _score(models: tuple[Model, ...], limits: tuple[Array | None, ...], tokens: Array, alphabet: chem.Alphabet):
    """What the models say of tokens `(n, width)`; the alphabet's tokens after the width are all END."""
    tokens = tokens.astype(jnp.int32)
    narrow = replace(models[0].predictor, alphabet=alphabet.with_length(tokens.shape[1]))
    features = narrow.features(tokens)
    each, log_hit = [], jnp.zeros(len(tokens))  # probabilities are sums of rounded numbers, at times a little over 1
    for (predictor, familiar), limit in zip(models, limits, strict=True):
        predictive = predictor(features)
        found = predictive.summary((0.05, 0.5, 0.95))
        log_p = jnp.full(len(tokens), jnp.nan)
        if limit is not None:
            log_p = predictive.log_prob_interval(limit[0], limit[1])
            log_hit = log_hit + log_p
        usual = familiar(features, predictor.log_variance(features))
        quantiles = [found.quantiles[:, index] for index in range(3)]
        each.append((found.mean, found.sd, *quantiles, jnp.minimum(jnp.exp(log_p), 1), usual))
    return chem.is_legal(tokens, alphabet), each, jnp.minimum(jnp.exp(log_hit), 1)
