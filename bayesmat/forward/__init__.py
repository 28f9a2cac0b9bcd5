"""p(y | x, θ): properties of molecules, learned from measurements by transfer, as posterior predictives."""

from ._applicability import Applicability as Applicability
from ._basis import Basis as Basis
from ._fit import fit as fit
from ._fitted import (
    INTERVALS as INTERVALS,
    Fitted as Fitted,
    Predictions as Predictions,
    calibrate as calibrate,
)
from ._heads import (
    NoisyRows as NoisyRows,
    Rows as Rows,
    binary_model as binary_model,
    class_model as class_model,
    frozen_model as frozen_model,
    horseshoe_weights as horseshoe_weights,
    multitask_model as multitask_model,
    noisy_model as noisy_model,
    ridge_weights as ridge_weights,
)
from ._joint import joint_draws as joint_draws
from ._models import (
    NoiseData as NoiseData,
    Sufficient as Sufficient,
    linear_model as linear_model,
    log_marginal as log_marginal,
    noise_model as noise_model,
)
from ._predictive import (
    Predictive as Predictive,
    Summary as Summary,
)
from ._predictor import (
    Linear as Linear,
    LinearPredictor as LinearPredictor,
    Predictor as Predictor,
    ProcessPredictor as ProcessPredictor,
)
from ._process import (
    Process as Process,
    ProcessData as ProcessData,
    error_model as error_model,
    process_model as process_model,
)
from ._store import (
    check_target as check_target,
    load as load,
    save as save,
)
from ._transfer import (
    ModuleRows as ModuleRows,
    SourceRows as SourceRows,
    TauRho as TauRho,
    affine_model as affine_model,
    affine_predict as affine_predict,
    anchored_model as anchored_model,
    anchored_prior as anchored_prior,
    linear as linear,
    rbf as rbf,
    tau_rho_model as tau_rho_model,
    tau_rho_predict as tau_rho_predict,
)
