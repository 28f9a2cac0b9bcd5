"""Did the sampler work? Numbers to look at, and a warning that says what to do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from .._arviz import InferenceData, convergence

MAX_R_HAT = 1.05
MIN_EFFECTIVE = 50.0


class InferenceWarning(UserWarning):
    """A posterior that should not be used as it is; the message says what to try."""


@dataclass(frozen=True)
class Diagnostics:
    """What tells a good run of a sampler from a bad one.

    Attributes:
        num_divergences: transitions whose energy error was infinite for practical purposes.
        r_hat: largest split R-hat of each variable (Vehtari et al. 2021, doi 10.1214/20-BA1221).
        effective: smallest bulk effective sample size of each variable.
    """

    num_divergences: int
    r_hat: dict[str, float]
    effective: dict[str, float]

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence with advice for each thing that is wrong; empty for a good run."""
        found = []
        if self.num_divergences:
            found.append(
                f"{self.num_divergences} divergent transitions: reparameterise the model (non-centred scales) "
                "or raise target_accept"
            )
        if bad := {name: round(value, 3) for name, value in self.r_hat.items() if value > MAX_R_HAT}:
            found.append(f"chains disagree, R-hat {bad}: raise num_warmup, or look for several modes")
        if few := {name: round(value) for name, value in self.effective.items() if value < MIN_EFFECTIVE}:
            found.append(f"few effective draws {few}: raise num_samples")
        return tuple(found)


def diagnose(idata: InferenceData, warn: bool = True) -> Diagnostics:
    """Divergences, R-hat and effective sample sizes of a posterior.

    Args:
        idata: what `nuts` returned.
        warn: issue an `InferenceWarning` when there are problems.
    """
    diverging = idata.sample_stats["diverging"] if "sample_stats" in idata.groups() else None
    r_hat, effective = convergence(idata)
    result = Diagnostics(0 if diverging is None else int(diverging.sum()), r_hat, effective)
    if warn and result.problems:
        warnings.warn("; ".join(result.problems), InferenceWarning, stacklevel=3)
    return result
