"""What a set of predictions turned out to be worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._types import BayesmatError
from ._scores import LEVELS

KINDS = ("leave-one-out", "held-out")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions beside observations that they had not seen, and their scores.

    Attributes:
        label: the property in words.
        unit: of `observed`, `mean`, limits, `rmse` and `mae`.
        kind: "leave-one-out" or "held-out".
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
