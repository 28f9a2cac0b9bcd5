"""Sequential Monte Carlo for NumPyro models with discrete structures; knows no chemistry."""

from ._kernels import (
    Crossover as Crossover,
    Independence as Independence,
    Infill as Infill,
    Kernel as Kernel,
    Proposal as Proposal,
    Regrow as Regrow,
    RegrowTail as RegrowTail,
    Reorder as Reorder,
    Span as Span,
    StringPrior as StringPrior,
    Swap as Swap,
    accept_log_prob as accept_log_prob,
    num_tokens as num_tokens,
    splice as splice,
)
from ._resampling import (
    multinomial as multinomial,
    residual as residual,
    stratified as stratified,
    systematic as systematic,
)
from ._run import (
    Island as Island,
    Plan as Plan,
)
from ._smc import SMC as SMC
from ._surrogate import Surrogate as Surrogate
from ._tempered import (
    Info as Info,
    Settings as Settings,
    State as State,
    Status as Status,
    init as init,
    step as step,
)
from ._values import (
    HMC as HMC,
    Density as Density,
    Gibbs as Gibbs,
    PriorDraw as PriorDraw,
    RandomWalk as RandomWalk,
)
from ._weights import (
    ess as ess,
    log_mean_exp as log_mean_exp,
    next_beta as next_beta,
)
