"""Bayesian design of materials from little data: a NumPyro model in, posterior molecules out."""

from . import (
    chem as chem,
    data as data,
    design as design,
    forward as forward,
    infer as infer,
    nn as nn,
    plot as plot,
    prior as prior,
    report as report,
    smc as smc,
)
from ._types import (
    BayesmatError as BayesmatError,
    cache_dir as cache_dir,
)
