"""From a NumPyro model to its latent sites and its likelihood, by effect handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro import handlers

from .._types import Array, BayesmatError
from ._kernels import StringPrior
from ._tempered import Particle

Model = Callable[..., Any]


class Split(NamedTuple):
    """A model taken apart.

    Attributes:
        priors: the distribution of each latent site.
        log_likelihood: `(constants, particle) → ()`, the sum of the observed sites and factors.
        constants: arrays that the model closes over, kept out of the compiled program.
        text: the likelihood as a program; equal texts of equal shapes compile to the same.
    """

    priors: dict[str, StringPrior]
    log_likelihood: Callable[[list[Array], Particle], Array]
    constants: list[Array]
    text: str


def split(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
    """Split a model into prior and likelihood.

    Raises:
        BayesmatError: the model has no latent site, or one that is not a string.
    """
    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    latent = {name: site for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
    if not latent:
        raise BayesmatError("the model has no latent site: nothing to sample")
    others = sorted(name for name, site in latent.items() if not hasattr(site["fn"], "regrow"))
    if others:
        raise BayesmatError(
            f"latent sites {others} are not molecular strings; allowed are sites whose distribution has `regrow`, "
            f"such as bayesmat.prior.NGram"
        )
    if not any(site["type"] == "sample" and site["is_observed"] for site in trace.values()):
        raise BayesmatError("the model has no observed site and no numpyro.factor: its posterior is its prior")

    def log_likelihood(particle: Particle) -> Array:
        return observed_log_density(trace_at(model, particle, args, kwargs))

    example = {name: site["value"] for name, site in latent.items()}
    closed = jax.make_jaxpr(log_likelihood)(example)

    def evaluate(constants: list[Array], particle: Particle) -> Array:
        return jax.core.eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(particle))[0]

    priors = {name: site["fn"] for name, site in latent.items()}
    return Split(priors, evaluate, list(closed.consts), str(closed.jaxpr))


def trace_at(model: Model, particle: Particle, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The trace of the model at given latent values."""
    fixed = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=particle)
    return handlers.trace(fixed).get_trace(*args, **kwargs)


def observed_log_density(trace: dict[str, Any]) -> Array:
    """The log density of the observed sites and factors of a trace."""
    total = jnp.zeros(())
    for site in trace.values():
        if site["type"] == "sample" and site["is_observed"]:
            value = site["fn"].log_prob(site["value"])
            total = total + jnp.sum(value if site["scale"] is None else site["scale"] * value)
    return total


def deterministics(trace: dict[str, Any]) -> dict[str, Any]:
    """The values that the model names with `numpyro.deterministic`."""
    return {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}
