"""Hamiltonian Monte Carlo without tuning, for any NumPyro model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_median

from .._arviz import InferenceData, to_inference_data
from .._types import Array, BayesmatError
from ._diagnose import diagnose

_STATS = {"diverging": "diverging", "potential_energy": "lp", "num_steps": "n_steps", "accept_prob": "acceptance_rate"}
"""NumPyro's names of what it keeps about each transition, and ArviZ's."""


def nuts(
    model: Callable[..., Any],
    data: Mapping[str, Any],
    key: Array,
    *,
    num_warmup: int = 300,
    num_samples: int = 300,
    num_chains: int = 2,
    target_accept: float = 0.9,
    progress_bar: bool = True,
) -> InferenceData:
    """The posterior of a NumPyro model by the No-U-Turn sampler, all chains in one vectorised program.

    Runs in the precision of its surroundings: call it under `jax.enable_x64(True)` for float64. Problems (divergences,
    chains that disagree) are warned about, with advice, as `InferenceWarning`; see `diagnose`.

    Args:
        model: a NumPyro model.
        data: its keyword arguments.
        key: random key.
        num_warmup: transitions for adaptation, thrown away.
        num_samples: draws kept of each chain.
        num_chains: chains; two at least tell whether they agree.
        target_accept: mean acceptance probability that step sizes are tuned to, in (0, 1).
        progress_bar: show NumPyro's progress bar.

    Returns:
        ArviZ data with the groups `posterior` and `sample_stats`.

    Raises:
        BayesmatError: a count is not positive.

    Source: Hoffman and Gelman 2014, https://jmlr.org/papers/v15/hoffman14a.html.
    """
    if min(num_warmup, num_samples, num_chains) < 1:
        raise BayesmatError(
            f"need positive counts, got num_warmup={num_warmup}, num_samples={num_samples}, num_chains={num_chains}"
        )
    kernel = NUTS(model, target_accept_prob=target_accept, init_strategy=init_to_median(num_samples=15))
    sampler = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress_bar,
    )
    sampler.run(key, extra_fields=tuple(_STATS), **data)
    stats = sampler.get_extra_fields(group_by_chain=True)
    idata = to_inference_data(
        sampler.get_samples(group_by_chain=True),
        sample_stats={
            new: np.asarray(stats[old]) * (-1 if old == "potential_energy" else 1) for old, new in _STATS.items()
        },
        attrs={"inference": "nuts"},
    )
    diagnose(idata)
    return idata
