"""Bayesian design of materials from little data: a NumPyro model in, posterior molecules out."""

from . import chem as chem, data as data, nn as nn, prior as prior
