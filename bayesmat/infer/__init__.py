"""p(θ|D): posteriors of NumPyro models, and whether their predictions can be believed. Knows no chemistry."""

from .._arviz import (
    InferenceData as InferenceData,
    load as load,
    save as save,
    to_inference_data as to_inference_data,
)
from ._calibration import Calibration as Calibration
from ._diagnose import (
    Diagnostics as Diagnostics,
    InferenceWarning as InferenceWarning,
    diagnose as diagnose,
)
from ._laplace import laplace as laplace
from ._nuts import nuts as nuts
from ._scores import (
    coverage as coverage,
    crps as crps,
    crps_normal_mixture as crps_normal_mixture,
    nll as nll,
    pit as pit,
)
from ._svi import svi as svi
