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
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
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
        support: values of a discrete site that can be listed, else None.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    prior: Callable[[Particle], Any]
    log_prior: Callable[[Particle], Array]
    log_context: Callable[[Particle], Array]
    support: Callable[[Particle], Array] | None


class Observed(NamedTuple):
    """What a look at the likelihood gives.

    Attributes:
        log_likelihood: `(...)`.
        outputs: `(..., m)` the values of the named outputs, one after the other.
    """

    log_likelihood: Array
    outputs: Array


class Problem(NamedTuple):
    """A model taken apart; the functions take one particle.

    Attributes:
        blocks: in the order in which a sweep visits them.
        log_likelihood: the sum of the observed sites and factors; never NaN, never +inf.
        observe: the same with the named outputs, `Observed`.
        given: from a particle and `(m,)` values of the outputs, the log likelihood if they were these; None without.
        draw: from a random key, a particle from the prior.
        values: the latent sites in their own space, and what the model names by `numpyro.deterministic`.
    """

    blocks: tuple[Block, ...]
    log_likelihood: Callable[[Particle], Array]
    observe: Callable[[Particle], Observed]
    given: Callable[[tuple[Particle, Array]], Array] | None
    draw: Callable[[Array], Particle]
    values: Callable[[Particle], dict[str, Any]]


class Program(NamedTuple):
    """A problem without its data, so that it can be compiled once.

    Attributes:
        bind: from the arrays, the problem.
        closed: the arrays that the model closes over; the arrays of the problem are these and the arguments' leaves.
        text: what the problem computes; equal texts of equal shapes compile to the same.
        identity: the same for checkpoints, which other processes read.
        example: a particle.
    """

    bind: Callable[[list[Array]], Problem]
    closed: list[Array]
    text: str
    identity: str
    example: Particle


def split(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], as_data: bool = False, outputs: tuple[str, ...] = ()
) -> tuple[Program, Any]:
    """Split a model into its prior and its likelihood.

    The model is traced once, as a function of a particle; each part is what of that program its outputs need.

    Args:
        model: a NumPyro model function.
        args: its arguments.
        kwargs: its keyword arguments.
        as_data: whether the arguments are inputs of the program, not part of it.
        outputs: names of deterministic sites, see `Problem.given`.

    Returns:
        The program, and the leaves of the arguments that are its inputs.

    Raises:
        BayesmatError: the model has no latent site or no likelihood, or a latent site that cannot be sampled, or an
            output is no deterministic site of numbers.
    """
    leaves, structure = jax.tree.flatten((args, kwargs) if as_data else ())
    sites: dict[str, Any] = {}

    def arguments(leaves: list[Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return jax.tree.unflatten(structure, leaves) if as_data else (args, kwargs)

    def draw(leaves: list[Array], key: Array) -> Particle:
        given, named = arguments(leaves)
        trace = handlers.trace(handlers.seed(model, key)).get_trace(*given, **named)
        sites.update(_latent_sites(trace))
        return _particle(sites)

    try:
        drawing = jax.make_jaxpr(draw, return_shape=True)(leaves, jax.random.key(0))
    except jax.errors.JAXTypeError as error:
        error.add_note("The model is compiled: load data and priors outside it, and branch with jnp.where.")
        raise
    example = drawing[1]
    discrete = {name: site["fn"].is_discrete for name, site in sites.items()}
    plans = _plan_blocks(sites)
    listed = [
        name for name, (kind, _) in plans.items() if kind == "discrete" and _support(sites[name]["fn"]) is not None
    ]

    def everything(leaves: list[Array], particle: Particle) -> dict[str, Any]:
        trace, log_dets = _trace_at(model, *arguments(leaves), discrete, particle)
        return {
            "log_likelihood": _log_likelihood(trace),
            "observed": Observed(_log_likelihood(trace), ravel_pytree(_outputs(trace, outputs))[0]),
            "values": _values(trace),
            "log_prior": {name: _log_prior(trace[name], log_dets.get(name, 0.0)) for name in sites},
            "prior": {own[0]: _distribution(trace[own[0]]) for kind, own in plans.values() if kind != "continuous"},
            "support": {name: _support(trace[name]["fn"]) for name in listed},
        }

    def likelihood_given(leaves: list[Array], argument: tuple[Particle, Array]) -> Array:
        particle, values = argument
        _, back = ravel_pytree(_outputs(_trace_at(model, *arguments(leaves), discrete, particle)[0], outputs))
        fixed = handlers.substitute(model, data=back(values))
        return _log_likelihood(_trace_at(fixed, *arguments(leaves), discrete, particle)[0])

    traced = jax.make_jaxpr(everything, return_shape=True)(leaves, example)
    programs = {"draw": drawing, "everything": traced}
    if outputs:
        at = (example, traced[1]["observed"].outputs)
        programs["given"] = jax.make_jaxpr(likelihood_given, return_shape=True)(leaves, at)
    closed = [array for jaxpr, _ in programs.values() for array in jaxpr.consts]
    firsts = np.cumsum([0, *(len(jaxpr.consts) for jaxpr, _ in programs.values())])
    wholes = {
        name: _Whole(*found, int(first), len(closed), len(leaves))
        for (name, found), first in zip(programs.items(), firsts, strict=False)
    }
    whole = wholes["everything"]
    parts = {name: wholes[name].part(()) for name in programs if name != "everything"}
    parts |= {name: whole.part((name,)) for name in ("log_likelihood", "observed", "values")}
    own_log_prior = {name: whole.part(("log_prior", name)) for name in sites}
    for name, (_, own) in plans.items():
        others = [t for t in sites if t not in own and any(own_log_prior[t].uses(s, example) for s in own)]
        parts[f"{name} prior"] = whole.part(("prior", name))
        parts[f"{name} support"] = whole.part(("support", name))
        parts[f"{name} log_prior"] = whole.part(*(("log_prior", site) for site in (*own, *others)))
        parts[f"{name} log_context"] = whole.part(*(("log_prior", site) for site in others))

    def bind(arrays: list[Array]) -> Problem:
        bound = {name: partial(part.evaluate, arrays) for name, part in parts.items()}
        blocks = tuple(
            Block(
                name,
                kind,
                own,
                prior=bound[f"{name} prior"],
                log_prior=partial(_total, bound[f"{name} log_prior"]),
                log_context=partial(_total, bound[f"{name} log_context"]),
                support=bound[f"{name} support"] if name in listed else None,
            )
            for name, (kind, own) in plans.items()
        )
        of_draw = (bound["draw"], bound["values"])
        return Problem(blocks, bound["log_likelihood"], bound["observed"], bound.get("given"), *of_draw)

    text = {name: f"{part.given}: {part.jaxpr}" for name, part in parts.items()}
    return Program(bind, closed, str(text), _identity(parts), example), leaves


def _identity(parts: dict[str, _Part]) -> str:
    """What a model computes, in words that do not differ between processes."""
    # The leaves of a distribution have no order of their own, and its log density says the same.
    texts = [str(part.jaxpr) for name, part in parts.items() if not name.endswith(" prior")]
    return without_addresses("\n".join(texts))


def without_addresses(text: str) -> str:
    """A program's text without the addresses of its host callbacks."""
    return re.sub(r"0x[0-9a-f]+", "", text)


class _Part(NamedTuple):
    """Some outputs of a traced program, and what of it they need.

    Attributes:
        jaxpr: the program, of some arrays and some leaves of the argument.
        structure: of its outputs.
        given: which of the problem's arrays it takes.
        used: which leaves of the argument it takes.
    """

    jaxpr: Any
    structure: Any
    given: list[int]
    used: list[bool]

    def evaluate(self, arrays: list[Array], argument: Any) -> Any:
        """The outputs."""
        leaves = [leaf for leaf, used in zip(jax.tree.leaves(argument), self.used, strict=True) if used]
        outputs = jax.core.eval_jaxpr(self.jaxpr, (), *(arrays[i] for i in self.given), *leaves)
        return jax.tree.unflatten(self.structure, outputs)

    def uses(self, name: str, example: Particle) -> bool:
        """Whether a site of the particle matters."""
        return dict(zip(sorted(example), self.used, strict=True))[name]


class _Whole:
    """A traced program, from which parts are taken.

    Args:
        closed: its jaxpr, of the leaves of the model's arguments and of an argument of its own.
        shape: of its outputs.
        first: the number of its first constant among the problem's arrays.
        first_leaf: the same of the leaves.
        num_leaves: how many there are.
    """

    def __init__(self, closed: Any, shape: Any, first: int, first_leaf: int, num_leaves: int):
        self.numbers = [*range(first, first + len(closed.consts)), *range(first_leaf, first_leaf + num_leaves)]
        inside = closed.jaxpr
        self.jaxpr = inside.replace(
            constvars=[],
            invars=[*inside.constvars, *inside.invars],
            debug_info=inside.debug_info.with_unknown_names(),
        )
        self.shape = shape

    def part(self, *paths: tuple[str, ...]) -> _Part:
        """The program of what stands at paths of the output, without what they do not need.

        One path gives what stands there, or an empty tuple if nothing does; several, or none, give a list.
        """
        count = len(jax.tree.leaves(self.shape))
        found = [_at_path(jax.tree.unflatten(jax.tree.structure(self.shape), range(count)), path) for path in paths]
        chosen = found[0] if len(paths) == 1 else found
        wanted = jax.tree.leaves(chosen)
        mask = [i in set(wanted) for i in range(count)]
        jaxpr, used = partial_eval.dce_jaxpr(self.jaxpr, mask)
        given = [number for number, needed in zip(self.numbers, used, strict=False) if needed]
        # The pruned program keeps the order of the outputs; the selection may have another.
        order = {number: place for place, number in enumerate(sorted(wanted))}
        outputs = [jaxpr.outvars[order[number]] for number in wanted]
        return _Part(jaxpr.replace(outvars=outputs), jax.tree.structure(chosen), given, used[len(self.numbers) :])


def _at_path(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, ())
    return tree


def _total(terms: Callable[[Particle], Any], particle: Particle) -> Array:
    return sum(jax.tree.leaves(terms(particle)), jnp.zeros(()))


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


def _particle(sites: dict[str, Any]) -> Particle:
    """The values of latent sites, continuous ones in unconstrained space."""
    particle = {}
    for name, site in sites.items():
        particle[name] = site["value"]
        if not site["fn"].is_discrete:
            z = dist.biject_to(site["fn"].support).inv(site["value"])
            # A draw on the edge of its support, which rounding allows, has no finite z.
            most = -jnp.log(jnp.finfo(z.dtype).tiny) / 2
            particle[name] = jnp.clip(z, -most, most) if _is_bounded(site["fn"]) else z
    return particle


def _is_bounded(fn: Any) -> bool:
    return not isinstance(dist.biject_to(fn.support), dist.transforms.IdentityTransform)


def _distribution(site: dict[str, Any]) -> Any:
    return unwrapped(site["fn"]) if is_string(site["fn"]) else site["fn"]


def _log_prior(site: dict[str, Any], log_det: Array | float) -> Array:
    return jnp.sum(site["fn"].log_prob(site["value"])) + log_det


def _log_likelihood(trace: dict[str, Any]) -> Array:
    total = jnp.zeros(())
    for site in trace.values():
        if site["type"] == "sample" and site["is_observed"]:
            value = site["fn"].log_prob(site["value"])
            total = total + jnp.sum(value if site["scale"] is None else site["scale"] * value)
    # What is not a number counts as impossible; +inf would stop every particle, so it is capped.
    return jnp.minimum(jnp.where(jnp.isnan(total), -jnp.inf, total), jnp.finfo(total.dtype).max / 1e8)


def _outputs(trace: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The values of deterministic sites."""
    there = {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}
    if unknown := sorted(set(names) - set(there)):
        raise BayesmatError(f"output {unknown[0]!r} is no numpyro.deterministic site; the model has {sorted(there)}")
    found = {name: there[name] for name in names}
    for name, value in found.items():
        if not all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(value)):
            raise BayesmatError(f"output {name!r} has values that are no floating-point numbers")
    return found


def _values(trace: dict[str, Any]) -> dict[str, Any]:
    named = ("sample", "deterministic")
    return {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] in named and not site.get("is_observed", False)
    }
