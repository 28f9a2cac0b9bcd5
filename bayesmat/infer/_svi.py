"""The posterior of a NumPyro model by optimisation: for models with too many parameters or too many rows for NUTS."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro.infer import SVI, Predictive, Trace_ELBO, init_to_median
from numpyro.infer.autoguide import AutoDiagonalNormal, AutoGuide, AutoMultivariateNormal

from .._arviz import InferenceData, to_inference_data
from .._types import Array, BayesmatError, progress
from ._diagnose import InferenceWarning
from ._laplace import MAX_PARAMETERS, _double

GUIDES = {"multivariate": AutoMultivariateNormal, "normal": AutoDiagonalNormal}
"""Gaussians in unconstrained space, with and without correlations."""

NUM_PARTICLES = 8
"""Draws of the guide that each gradient of the ELBO averages."""

MIN_STEPS = 100
NEGLIGIBLE = 0.1
"""Fall of the loss over an eighth of the run that is put down to nothing [nats]."""


def svi(
    model: Callable[..., Any],
    data: Mapping[str, Any],
    key: Array,
    *,
    num_steps: int = 4000,
    guide: str | Callable[..., Any] = "multivariate",
    learning_rate: float = 0.02,
    num_draws: int = 300,
    progress_bar: bool = True,
) -> InferenceData:
    """Draws of the guide q that stochastic variational inference fits: E_q[log p(θ, y) − log q(θ)] → max.

    Adam, at a constant rate for half of the steps, then at one that decays to zero, so that the noise of the gradients
    averages out. Runs in float64 whatever JAX is set to. A Gaussian guide understates the width of what is not
    Gaussian, and a diagonal one that of everything correlated: where it can be afforded, `nuts` is the judge.

    Args:
        model: a NumPyro model without discrete latent sites.
        data: its keyword arguments; arrays enter the compiled program as arguments, not as constants.
        key: random key.
        num_steps: steps of the optimiser, 100 at least.
        guide: "multivariate" (a Gaussian with all correlations, up to 2,000 parameters), "normal" (without), a class
            of `numpyro.infer.autoguide`, or a guide of your own, called with the arguments of the model.
        learning_rate: of Adam, in unconstrained space.
        num_draws: draws of the posterior, and of the final estimate of the ELBO.
        progress_bar: show how far it is once two seconds have passed.

    Returns:
        ArviZ data: the group `posterior` has one chain, `constant_data` the trace of the `loss`; attributes are `elbo`
        and its Monte Carlo error `elbo_error`, a lower bound of the log marginal likelihood [nats].

    Warns:
        InferenceWarning: the loss was still falling.

    Raises:
        BayesmatError: an argument is out of range, the model has no latent site or a discrete one, or too many for
            the guide, or the optimiser left the support.

    Source: Kucukelbir et al. 2017, https://jmlr.org/papers/v18/16-107.html.
    """
    if num_steps < MIN_STEPS or num_draws < 2 or not learning_rate > 0:
        raise BayesmatError(
            f"need num_steps >= {MIN_STEPS}, num_draws >= 2 and learning_rate > 0, "
            f"got {num_steps}, {num_draws} and {learning_rate}"
        )
    if isinstance(guide, str) and guide not in GUIDES:
        raise BayesmatError(f"guide is {guide!r}; allowed are {', '.join(map(repr, GUIDES))} or a callable")
    with jax.enable_x64(True):
        return _svi(model, jax.tree.map(_double, dict(data)), key, num_steps, guide, learning_rate, num_draws,
                    progress_bar)  # fmt: skip


def _svi(
    model: Callable[..., Any], data: dict, key: Array, num_steps: int, guide: str | Callable[..., Any],
    learning_rate: float, num_draws: int, progress_bar: bool,
) -> InferenceData:  # fmt: skip
    key_start, key_elbo, key_draw = jax.random.split(key, 3)
    _check_sites(model, data, key_start, guide)
    guide = _guide(model, guide)
    engine = SVI(model, guide, optax.adam(_rate(learning_rate, num_steps)), Trace_ELBO(NUM_PARTICLES))
    if isinstance(guide, AutoGuide):
        with numpyro.handlers.seed(rng_seed=key_start):
            guide._setup_prototype(**data)  # it keeps arrays, so it stays outside of the compiled `init`
    state, losses = jax.jit(lambda data: engine.init(key_start, **data))(data), jnp.zeros(num_steps)

    @jax.jit
    def advance(state: Any, losses: Array, start: int, stop: int, data: dict) -> tuple[Any, Array]:
        def step(index: int, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, loss = engine.update(carry[0], **data)
            return state, carry[1].at[index].set(loss)

        return jax.lax.fori_loop(start, stop, step, (state, losses))

    stops = np.linspace(0, num_steps, 21).astype(int)
    pieces = list(zip(stops[:-1], stops[1:], strict=True))
    for start, stop in progress(pieces, "variational inference") if progress_bar else pieces:
        state, losses = advance(state, losses, start, stop, data)
        if not np.isfinite(losses[stop - 1]):
            raise BayesmatError(
                f"svi: the ELBO is not finite after {stop} steps; lower learning_rate, or check data and priors"
            )
    _warn_if_falling(np.asarray(losses))
    params = jax.jit(engine.get_params)(state)
    elbo = _elbo(model, guide, params, data, jax.random.split(key_elbo, num_draws))
    posterior = _draws(model, guide, params, data, key_draw, num_draws)
    return to_inference_data(
        {name: np.asarray(value)[None] for name, value in posterior.items()},
        attrs={"inference": "svi", "elbo": float(elbo.mean()), "num_steps": num_steps,
               "elbo_error": float(elbo.std(ddof=1) / np.sqrt(num_draws))},
        constant_data={"loss": np.asarray(losses)},
    )  # fmt: skip


def _check_sites(model: Callable[..., Any], data: dict, key: Array, guide: str | Callable[..., Any]) -> None:
    latent: list[tuple[str, bool, int]] = []

    def look(data: dict) -> None:
        trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace(**data)
        sites = [site for site in trace.values() if site["type"] == "sample" and not site["is_observed"]]
        latent.extend((site["name"], site["fn"].support.is_discrete, np.size(site["value"])) for site in sites)

    jax.eval_shape(look, data)  # computes nothing
    if discrete := [name for name, is_discrete, _ in latent if is_discrete]:
        raise BayesmatError(f"svi takes continuous latent sites; discrete are {', '.join(discrete)}")
    size = sum(size for *_, size in latent)
    if not size:
        raise BayesmatError("svi takes a model with latent parameters, this one has 0")
    if guide == "multivariate" and size > MAX_PARAMETERS:
        raise BayesmatError(
            f'guide="multivariate" takes up to {MAX_PARAMETERS} latent parameters, the model has {size}; '
            'use guide="normal"'
        )


def _guide(model: Callable[..., Any], guide: str | Callable[..., Any]) -> Callable[..., Any]:
    kind = GUIDES[guide] if isinstance(guide, str) else guide
    if isinstance(kind, type) and issubclass(kind, AutoGuide):
        return kind(model, init_loc_fn=init_to_median(num_samples=15))
    return kind


def _rate(learning_rate: float, num_steps: int) -> Callable[[Any], Any]:
    half = num_steps // 2
    decay = optax.cosine_decay_schedule(learning_rate, num_steps - half)
    return optax.join_schedules([optax.constant_schedule(learning_rate), decay], [half])


def _warn_if_falling(losses: np.ndarray) -> None:
    """Compares the last two eighths at the full rate: afterwards the decay would hide that there is a way to go."""
    early, late = np.array_split(losses[len(losses) // 4 : len(losses) // 2], 2)
    fall = early.mean() - late.mean()
    error = np.hypot(early.std() / np.sqrt(len(early)), late.std() / np.sqrt(len(late)))
    if fall > max(NEGLIGIBLE, 3 * error):
        warnings.warn(
            f"svi: the loss was still falling, by {fall:.2g} nats over {len(late)} steps; raise num_steps or "
            "learning_rate, or standardise the data",
            InferenceWarning,
            stacklevel=4,
        )


def _elbo(model: Callable[..., Any], guide: Callable[..., Any], params: dict, data: dict, keys: Array) -> np.ndarray:
    """log p(θ, y) − log q(θ) at one draw for each key, `(num_draws,)`."""
    terms = jax.jit(
        lambda params, data: jax.lax.map(lambda key: -Trace_ELBO().loss(key, params, model, guide, **data), keys)
    )
    return np.asarray(terms(params, data))


def _draws(
    model: Callable[..., Any], guide: Callable[..., Any], params: dict, data: dict, key: Array, num_draws: int
) -> dict[str, Array]:
    """Latent and deterministic sites by name, `(num_draws, ...)`."""
    if isinstance(guide, AutoGuide):
        return jax.jit(lambda params: guide.sample_posterior(key, params, sample_shape=(num_draws,)))(params)
    key_guide, key_model = jax.random.split(key)
    latent = Predictive(guide, params=params, num_samples=num_draws)(key_guide, **data)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key_model)).get_trace(**data)
    derived = [name for name, site in trace.items() if site["type"] == "deterministic"]
    if not derived:
        return latent
    return latent | Predictive(model, latent, params=params, return_sites=derived)(key_model, **data)
