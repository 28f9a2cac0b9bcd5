"""Sequential Monte Carlo for NumPyro models with discrete structures; knows no chemistry."""

from ._kernels import (
    Proposal as Proposal,
    StringPrior as StringPrior,
    accept_log_prob as accept_log_prob,
    cut_correction as cut_correction,
    num_tokens as num_tokens,
    regrow_suffix as regrow_suffix,
)
from ._smc import SMC as SMC
from ._tempered import (
    Info as Info,
    Run as Run,
    Settings as Settings,
    State as State,
    Status as Status,
    init as init,
    move as move,
    run as run,
    step as step,
)
from ._weights import (
    ess as ess,
    log_mean_exp as log_mean_exp,
    next_beta as next_beta,
    systematic as systematic,
)
