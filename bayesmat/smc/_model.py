"""From a NumPyro model to blocks of latent sites, their priors and the likelihood, by effect handlers.

Continuous sites live in unconstrained space, as in `numpyro.infer`: z with value T(z), T the bijection to the support
of the site's distribution, and log |det T'| is part of the prior.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.interpreters import partial_eval
from numpyro import handlers

from .._types import Array, BayesmatError

Model = Callable[..., Any]
Particle = dict[str, Array]
CONTINUOUS = "continuous"
"""The name of the block that holds all continuous sites."""


class Block(NamedTuple):
    """Latent sites that are moved together; the functions take one particle.

    Attributes:
        name: of the site; `CONTINUOUS` for the block of all continuous sites.
        kind: "string", "discrete" or "continuous".
        sites: names of the sites, sorted.
        prior: the distribution of a string or discrete site given the other sites.
        log_prior: log density of the block's own sites and of those whose distribution depends on them.
        log_context: the same without the block's own sites.
        support: values of a discrete site that can be enumerated, else None.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    prior: Callable[[Particle], Any]
    log_prior: Callable[[Particle], Array]
    log_context: Callable[[Particle], Array]
    support: Array | None


class Problem(NamedTuple):
    """A model taken apart; the functions take one particle.

    Attributes:
        blocks: in the order in which a sweep visits them.
        log_likelihood: the sum of the observed sites and factors; never NaN, never +inf.
        draw: from a random key, a particle from the prior.
        values: the latent sites in their own space, and what the model names by `numpyro.deterministic`.
    """

    blocks: tuple[Block, ...]
    log_likelihood: Callable[[Particle], Array]
    draw: Callable[[Array], Particle]
    values: Callable[[Particle], dict[str, Any]]


class Program(NamedTuple):
    """A problem without its data, so that it can be compiled once.

    Attributes:
        bind: from the arrays, the problem.
        constants: the arrays that the model closes over.
        text: what the problem computes; equal texts of equal shapes compile to the same.
        example: a particle.
    """

    bind: Callable[[list[list[Array]]], Problem]
    constants: list[list[Array]]
    text: str
    example: Particle


def split(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """Split a model into its prior and its likelihood.

    Raises:
        BayesmatError: the model has no latent site or no likelihood, or a latent site that cannot be sampled.
    """
    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    sites = _latent_sites(trace)
    at = partial(_trace_at, model, args, kwargs, {name: site["fn"].is_discrete for name, site in sites.items()})
    functions: dict[str, Callable[..., Any]] = {
        "draw": lambda key: _draw(model, args, kwargs, key),
        "log_likelihood": lambda particle: _log_likelihood(at(particle)[0]),
        "values": lambda particle: _values(at(particle)[0]),
    }
    example = jax.eval_shape(functions["draw"], jax.random.key(0))
    dependents = {name: _dependents(name, at, example) for name in sites}
    plans = _plan_blocks(sites)
    for name, (kind, own) in plans.items():
        others = sorted({other for site in own for other in dependents[site]} - set(own))
        functions[f"{name} prior"] = partial(_distribution, at, own[0]) if kind != "continuous" else lambda particle: ()
        functions[f"{name} log_prior"] = partial(_log_prior, at, (*own, *others))
        functions[f"{name} log_context"] = partial(_log_prior, at, tuple(others))
    compiled = {
        name: _hoisted(function, jax.random.key(0) if name == "draw" else example)
        for name, function in functions.items()
    }
    supports = {name: _support(sites[own[0]]["fn"]) for name, (kind, own) in plans.items() if kind == "discrete"}

    def bind(constants: list[list[Array]]) -> Problem:
        bound = {
            name: partial(evaluate, given)
            for (name, (evaluate, _, _)), given in zip(compiled.items(), constants, strict=True)
        }
        blocks = tuple(
            Block(
                name,
                kind,
                own,
                prior=bound[f"{name} prior"],
                log_prior=bound[f"{name} log_prior"],
                log_context=bound[f"{name} log_context"],
                support=supports.get(name),
            )
            for name, (kind, own) in plans.items()
        )
        return Problem(blocks, bound["log_likelihood"], bound["draw"], bound["values"])

    text = "\n".join(f"{name}: {text}" for name, (_, _, text) in compiled.items())
    # Addresses of host callbacks differ from process to process.
    return Program(bind, [given for _, given, _ in compiled.values()], re.sub(r"0x[0-9a-f]+", "", text), example)


def unwrapped(fn: Any) -> Any:
    """A distribution without what plates and `to_event` put around it."""
    while isinstance(fn, dist.ExpandedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def is_string(fn: Any) -> bool:
    """Whether a distribution is one over strings, which has `regrow`."""
    return hasattr(unwrapped(fn), "regrow")


def _latent_sites(trace: dict[str, Any]) -> dict[str, Any]:
    sampled = {name: site for name, site in trace.items() if site["type"] == "sample"}
    latent = {name: site for name, site in sorted(sampled.items()) if not site["is_observed"]}
    if not latent:
        raise BayesmatError("the model has no latent site: nothing to sample")
    if len(latent) == len(sampled):
        raise BayesmatError("the model has no observed site and no numpyro.factor: its posterior is its prior")
    if parameters := sorted(name for name, site in trace.items() if site["type"] == "param"):
        raise BayesmatError(f"numpyro.param sites {parameters} have no prior; make them numpyro.sample sites")
    if CONTINUOUS in latent:
        raise BayesmatError(f"a latent site may not be called {CONTINUOUS!r}")
    for name, site in latent.items():
        if site["scale"] is not None:
            raise BayesmatError(f"latent site {name!r} stands in a subsampled plate or under handlers.scale")
        if isinstance(unwrapped(site["fn"]), dist.MaskedDistribution):
            raise BayesmatError(f"latent site {name!r} stands under handlers.mask; only observed sites may")
    return latent


def _plan_blocks(sites: dict[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """(kind, sites) of each block by name: strings first, then discrete sites, then all continuous ones together."""
    strings = {name: ("string", (name,)) for name, site in sites.items() if is_string(site["fn"])}
    discrete = {
        name: ("discrete", (name,)) for name, site in sites.items() if site["fn"].is_discrete and name not in strings
    }
    continuous = tuple(name for name, site in sites.items() if not site["fn"].is_discrete)
    return {**strings, **discrete, **({CONTINUOUS: ("continuous", continuous)} if continuous else {})}


def _support(fn: Any) -> Array | None:
    """`(K,)` values of every element of a discrete site, None where they cannot be listed."""
    base = unwrapped(fn)
    if not base.has_enumerate_support or base.event_dim:
        return None
    try:
        return jnp.ravel(base.enumerate_support(expand=False))
    except NotImplementedError:
        return None


def _trace_at(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], discrete: dict[str, bool], particle: Particle
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The trace of the model at a particle, and log |det T'| of each continuous site."""
    log_dets: dict[str, Array] = {}

    def value(site: dict[str, Any]) -> Array | None:
        name = site["name"]
        if site["type"] != "sample" or name not in particle:
            return None
        if discrete[name]:
            return particle[name]
        bijection = dist.biject_to(site["fn"].support)
        x = bijection(particle[name])
        log_dets[name] = jnp.sum(bijection.log_abs_det_jacobian(particle[name], x))
        return x

    fixed = handlers.substitute(handlers.seed(model, jax.random.key(0)), substitute_fn=value)
    return handlers.trace(fixed).get_trace(*args, **kwargs), log_dets


def _draw(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], key: Array) -> Particle:
    """A particle from the prior."""
    trace = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)
    particle = {}
    for name, site in trace.items():
        if site["type"] == "sample" and not site["is_observed"]:
            if site["fn"].is_discrete:
                particle[name] = site["value"]
            else:
                z = dist.biject_to(site["fn"].support).inv(site["value"])
                # A draw on the edge of its support, which rounding allows, has no finite z.
                most = -jnp.log(jnp.finfo(z.dtype).tiny) / 2
                particle[name] = jnp.clip(z, -most, most) if _is_bounded(site["fn"]) else z
    return dict(sorted(particle.items()))


def _is_bounded(fn: Any) -> bool:
    return not isinstance(dist.biject_to(fn.support), dist.transforms.IdentityTransform)


def _distribution(at: Callable[..., Any], name: str, particle: Particle) -> Any:
    fn = at(particle)[0][name]["fn"]
    return unwrapped(fn) if is_string(fn) else fn


def _log_prior(at: Callable[..., Any], names: tuple[str, ...], particle: Particle) -> Array:
    total = jnp.zeros(())
    if not names:
        return total
    trace, log_dets = at(particle)
    for name in names:
        total = total + jnp.sum(trace[name]["fn"].log_prob(trace[name]["value"])) + log_dets.get(name, 0.0)
    return total


def _log_likelihood(trace: dict[str, Any]) -> Array:
    total = jnp.zeros(())
    for site in trace.values():
        if site["type"] == "sample" and site["is_observed"]:
            value = site["fn"].log_prob(site["value"])
            total = total + jnp.sum(value if site["scale"] is None else site["scale"] * value)
    # What is not a number counts as impossible; +inf would stop every particle, so it is capped.
    return jnp.minimum(jnp.where(jnp.isnan(total), -jnp.inf, total), jnp.finfo(total.dtype).max / 1e8)


def _values(trace: dict[str, Any]) -> dict[str, Any]:
    named = ("sample", "deterministic")
    return {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] in named and not site.get("is_observed", False)
    }


def _dependents(name: str, at: Callable[..., Any], example: Particle) -> list[str]:
    """The other sites whose distribution depends on the value of a site: what of the program survives says so."""
    found = []
    for other in example:
        if other == name:
            continue
        closed = jax.make_jaxpr(partial(_log_prior, at, (other,)))(example)
        used = partial_eval.dce_jaxpr(closed.jaxpr, [True])[1]
        if dict(zip(sorted(example), used, strict=True))[name]:
            found.append(other)
    return found


def _hoisted(function: Callable[..., Any], example: Any) -> tuple[Callable[..., Any], list[Array], str]:
    """A function of (constants, argument) with the arrays it closes over, and its text."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(example)
    structure = jax.tree.structure(shape)

    def evaluate(constants: list[Array], argument: Any) -> Any:
        leaves = jax.core.eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(argument))
        return jax.tree.unflatten(structure, leaves)

    return evaluate, list(closed.consts), str(closed.jaxpr)
