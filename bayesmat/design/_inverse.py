"""The inverse problem p(x | y in U) ∝ p(y in U | x) p(x) as a NumPyro model, for the common case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpyro

from .._types import Array, BayesmatError
from ..nn import featurize
from ._conditions import Condition, Filters
from ._scoring import Score
from ._targets import Interval


class Inverse:
    """A NumPyro model: a molecule from the prior, its properties from forward models, and targets for them.

    Properties are independent given the molecule, so the probability of meeting all targets is the product of the
    marginal ones. The features are computed once for all forward models.

    Args:
        prior: a distribution over molecular strings, as `bayesmat.prior.load` gives.
        predictors: by property name, a `forward.Fitted` or `forward.Predictor`.
        targets: by property name; every one needs a predictor. A predictor without a target is only recorded.
        conditions: what else is asked of a molecule, see `Filters`: filters such as `Elements`, and any `Score`. The
            values of scores are recorded by name.

    Raises:
        BayesmatError: there is no target, or one without a predictor, alphabets differ, or a condition does not fit
            the alphabet.
    """

    def __init__(
        self,
        prior: Any,
        predictors: Mapping[str, Any],
        targets: Mapping[str, Interval],
        conditions: Iterable[Condition] = (),
    ):
        if not targets:
            raise BayesmatError("an inverse problem needs at least one target")
        if missing := sorted(set(targets) - set(predictors)):
            raise BayesmatError(f"no forward model for {missing}; there are models for {sorted(predictors)}")
        self.prior = prior
        self.predictors = {name: getattr(value, "predictor", value) for name, value in predictors.items()}
        self.targets = dict(targets)
        if any(predictor.alphabet != prior.alphabet for predictor in self.predictors.values()):
            raise BayesmatError("the prior and the forward models must share one alphabet")
        self.filters = Filters(conditions, prior.alphabet)
        names = [*self.predictors, *(c.name for c in self.filters.conditions if isinstance(c, Score))]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BayesmatError(f"several scores or properties are called {twice}")

    def __call__(self) -> None:
        """The model."""
        x = numpyro.sample("molecule", self.prior)
        if self.filters.conditions:
            factors = self.filters.each(x)
            numpyro.factor("conditions", sum(factors))
            for condition, value in zip(self.filters.conditions, factors, strict=True):
                if isinstance(condition, Score):
                    numpyro.deterministic(condition.name, value)
        for name, y in self.predict(x).items():
            numpyro.deterministic(name, y)
            if name in self.targets:
                numpyro.factor(f"target_{name}", self.targets[name].log_prob(y))

    def predict(self, x: Array) -> dict[str, Any]:
        """The predictive distributions of one molecule `(length,)`, by property."""
        phi = featurize(x, self.prior.alphabet)
        return {name: predictor(phi) for name, predictor in self.predictors.items()}
