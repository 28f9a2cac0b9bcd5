"""What a set of predictions turned out to be worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._types import BayesmatError
from ._scores import LEVELS

KINDS = ("leave-one-out", "cross-validation", "held-out")
_LEVEL_RANGE = (1e-4, 1 - 1e-5)
"""Of what a predictive is asked for: beyond are the infinite ends of its tails."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions beside observations that they had not seen, and their scores.

    Attributes:
        label: the property in words.
        unit: of `observed`, `mean`, limits, `rmse` and `mae`.
        kind: "leave-one-out", "cross-validation" or "held-out".
        observed: `(n,)`.
        mean: `(n,)` point predictions.
        lower90: `(n,)` 5 % quantile of each predictive.
        upper90: `(n,)` 95 % quantile.
        pit: `(n,)` value of the predictive distribution function at the observation; uniform when calibrated.
        nll: mean negative log predictive density [nats].
        crps: mean continuous ranked probability score [crps_unit].
        crps_unit: "" where it is `unit`.
    """

    label: str
    unit: str
    kind: str
    observed: np.ndarray
    mean: np.ndarray
    lower90: np.ndarray
    upper90: np.ndarray
    pit: np.ndarray
    nll: float
    crps: float
    crps_unit: str = ""
    rmse: float = field(init=False)
    mae: float = field(init=False)
    coverage: dict[float, float] = field(init=False)

    def __post_init__(self) -> None:
        arrays = (self.observed, self.mean, self.lower90, self.upper90, self.pit)
        if self.kind not in KINDS:
            raise BayesmatError(f"kind is {self.kind!r}; allowed are {', '.join(KINDS)}")
        if self.observed.size == 0 or any(array.shape != self.observed.shape for array in arrays):
            raise BayesmatError(f"arrays of one length above zero are needed, got {[a.shape for a in arrays]}")
        error = self.mean - self.observed
        object.__setattr__(self, "rmse", float(np.sqrt(np.mean(error**2))))
        object.__setattr__(self, "mae", float(np.mean(np.abs(error))))
        inside = {level: float(np.mean(np.abs(self.pit - 0.5) <= level / 2)) for level in LEVELS}
        object.__setattr__(self, "coverage", inside)

    @property
    def num_points(self) -> int:
        """How many predictions were judged."""
        return len(self.observed)

    def coverage_error(self, level: float = 0.9) -> float:
        """The binomial standard error of the coverage at a level, were the predictions calibrated."""
        return float(np.sqrt(level * (1.0 - level) / self.num_points))

    def conformal_level(self, level: float = 0.9) -> float:
        """The probability to ask of a predictive, so that its central interval holds a share `level` of new molecules.

        Where the model promises too much it is more than `level`, where it promises too little less: as far from its
        median as ⌈(n + 1) level⌉ of the n observations were from theirs. If a new molecule is exchangeable with those
        and was predicted as they were, the interval holds it with a probability of `level` to level + 1/(n + 1),
        whatever the model is. Leave-one-out predictions come from n − 1 rows, those of new molecules from n, so that
        it is then nearly so. On average over molecules: nothing is said of a single one, or of those unlike these. The
        answer is at most 0.99999: a model that is so sure of itself that errors lie beyond cannot be mended by it.

        Raises:
            BayesmatError: the level is not in (0, 1), or there are too few points for it.

        Source: Chernozhukov et al. 2021, doi 10.1073/pnas.2107794118; leave-one-out: Barber et al. 2021,
        doi 10.1214/20-AOS1965.
        """
        _check_level(level)
        rank = int(np.ceil((self.num_points + 1) * level - 1e-9))
        if rank > self.num_points:
            least = int(np.ceil(level / (1 - level) - 1e-9))
            raise BayesmatError(f"{self.num_points} points; a conformal interval of {level:.6g} needs {least}")
        return float(np.clip(self._far[rank - 1], *_LEVEL_RANGE))

    def recalibrated_level(self, level: float = 0.9, belief: float = 30.0) -> float:
        """Between what the model promises and `conformal_level`: a Dirichlet process prior around the model.

        The n observations and `belief` more, which lie as the model says, are the distribution of how far from its
        median a predictive's observation lies; the answer is its quantile at `level`.

        Args:
            level: in (0, 1).
            belief: observations that the model's promise counts for; 0 for the n alone.

        Raises:
            BayesmatError: the level is not in (0, 1), or the belief is negative.

        Source: Ferguson 1973, doi 10.1214/aos/1176342360.
        """
        _check_level(level)
        if not 0 <= belief < np.inf:
            raise BayesmatError(f"belief is {belief}; allowed is a number from 0 on")
        # Of the distribution function (belief s + #{far ≤ s}) / (belief + n), which jumps at each observation.
        far, n = self._far, self.num_points
        wanted = level * (belief + n)
        before = belief * far + np.arange(n)  # just below each jump
        index = int(np.searchsorted(before + 1.0, wanted))
        if index == n or wanted < before[index]:
            return float(np.clip((wanted - index) / belief, *_LEVEL_RANGE))
        return float(np.clip(far[index], *_LEVEL_RANGE))

    @property
    def _far(self) -> np.ndarray:
        """How central an interval must be to hold each observation, in order."""
        return np.sort(2.0 * np.abs(self.pit - 0.5))

    def summary(self) -> str:
        """A few lines of text: errors, scores, and how often intervals held what they promised."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        crps_unit = f" {self.crps_unit}" if self.crps_unit else unit
        held = ", ".join(f"{100 * level:.0f} % → {100 * share:.1f} %" for level, share in self.coverage.items())
        return "\n".join(
            [
                f"{self.label}, {self.kind}, {self.num_points} points",
                f"  RMSE {self.rmse:.4g}{unit}, MAE {self.mae:.4g}{unit}, CRPS {self.crps:.4g}{crps_unit}, "
                f"NLL {self.nll:.3f}",
                f"  intervals promise → hold: {held} (± {100 * self.coverage_error():.1f} at 90 %)",
            ]
        )


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise BayesmatError(f"level is {level}; allowed is a number between 0 and 1")
