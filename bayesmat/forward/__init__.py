"""p(y | x, θ): properties of molecules, learned from measurements by transfer, as posterior predictives."""

from ._basis import Basis as Basis
from ._fit import fit as fit
from ._fitted import (
    Fitted as Fitted,
    Predictions as Predictions,
    calibrate as calibrate,
)
from ._models import (
    NoiseData as NoiseData,
    Sufficient as Sufficient,
    linear_model as linear_model,
    log_marginal as log_marginal,
    noise_model as noise_model,
)
from ._predictive import Predictive as Predictive
from ._predictor import (
    Linear as Linear,
    Predictor as Predictor,
)
from ._store import (
    load as load,
    save as save,
)
