"""Bayesian design of materials from little data: a NumPyro model in, posterior molecules out."""

from ._types import BayesmatError as BayesmatError
from . import chem as chem, data as data, nn as nn, prior as prior, smc as smc
