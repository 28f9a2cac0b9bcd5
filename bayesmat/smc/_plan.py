"""What a run will do: which kernels each block gets, which temperatures, how many devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._types import Array, BayesmatError
from ._kernels import Kernel, check_string_kernel, default_string_kernels
from ._model import Block, Program
from ._run import Plan
from ._surrogate import Surrogate
from ._values import HMC, Gibbs, PriorDraw, RandomWalk

_KINDS = {"string": ("string", "pair"), "discrete": ("discrete",), "continuous": ("continuous",)}

MOST_GIBBS = 64
"""Evaluations of the likelihood that a Gibbs sweep over one site may take before prior draws are the default."""


def assign_kernels(
    program: Program, arrays: list[Array], given: Any, surrogate: Surrogate | None = None
) -> dict[str, list[Kernel]]:
    """The kernels of each block.

    Args:
        program: the model.
        arrays: its data.
        given: a list, or lists by site, or None; a block for which there is none gets the default.
        surrogate: whether moves are made by one; each particle is then accepted alone, so none may need another.

    Raises:
        BayesmatError: a kernel suits no site, or a site is named that is not there.
    """
    problem = program.bind(arrays)
    names = [block.name for block in problem.blocks]
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - set(names)):
            raise BayesmatError(f"there are kernels for {unknown}; the model has the blocks {names}")
        by_block = {name: list(own) for name, own in given.items()}
    else:
        by_block = {block.name: [kernel for kernel in given or () if _suits(kernel, block)] for block in problem.blocks}
        idle = [kernel.name for kernel in given or () if not any(_suits(kernel, block) for block in problem.blocks)]
        if idle:
            raise BayesmatError(f"kernels {idle} suit no site of the model; it has {_described(problem.blocks)}")
    has_string = any(block.kind == "string" for block in problem.blocks)
    kernels = {}
    for block in problem.blocks:
        prior = jax.eval_shape(block.prior, program.example)
        default = _default(block, prior, program, has_string)
        own = by_block.get(block.name) or [kernel for kernel in default if surrogate is None or kernel.kind != "pair"]
        for kernel in own:
            if not _suits(kernel, block):
                raise BayesmatError(f"kernel {kernel.name!r} does not suit {_described([block])}")
            if surrogate is not None and kernel.kind == "pair":
                raise BayesmatError(f"kernel {kernel.name!r} moves two particles at once, which a surrogate cannot")
            if block.kind == "string":
                check_string_kernel(kernel, block.name, prior)
            if isinstance(kernel, Gibbs) and block.support is None:
                raise BayesmatError(f"the values of site {block.name!r} cannot be listed, so Gibbs cannot move it")
        kernels[block.name] = own
    return kernels


def _suits(kernel: Any, block: Block) -> bool:
    return kernel.kind in _KINDS[block.kind] and kernel.site in (None, block.name)


def _described(blocks: Sequence[Block]) -> str:
    return ", ".join(f"{block.kind} site {', '.join(block.sites)}" for block in blocks)


def _default(block: Block, prior: Any, program: Program, has_string: bool) -> list[Any]:
    if block.kind == "string":
        return default_string_kernels(prior)
    if block.kind == "continuous":
        # Beside a string the likelihood is dear, and its gradient more so.
        return [RandomWalk()] if has_string else [RandomWalk(), HMC()]
    if block.support is None:
        return [PriorDraw()]
    evaluations = program.example[block.name].size * jax.eval_shape(block.support, program.example).size
    return [Gibbs()] if evaluations <= MOST_GIBBS else [PriorDraw(), Gibbs()]


def checked_schedule(schedule: Any) -> Plan | None:
    """The plan of a schedule; None for the adaptive one.

    Raises:
        BayesmatError: it is none.
    """
    if isinstance(schedule, Plan):
        return schedule
    if isinstance(schedule, str):
        if schedule != "adaptive":
            raise BayesmatError(f"schedule is {schedule!r}; allowed: 'adaptive', inverse temperatures, or a plan")
        return None
    beta = np.asarray(schedule, float)
    if beta.ndim != 1 or len(beta) == 0 or not (np.diff(beta) >= 0).all() or beta[0] < 0 or beta[-1] != 1:
        raise BayesmatError("a schedule is a list of inverse temperatures from [0, 1] that do not fall and end in 1")
    return Plan(beta, None)


def checked_devices(num_devices: int | None, num_chains: int) -> int:
    """How many local devices to use.

    Raises:
        BayesmatError: there are not so many, or the particles cannot be spread evenly.
    """
    present = jax.local_device_count()
    if num_devices is None:
        return max(num for num in range(1, present + 1) if num_chains % num == 0)
    if not 1 <= num_devices <= present or num_chains % num_devices:
        raise BayesmatError(
            f"num_devices is {num_devices}; allowed are 1 to {present} that divide {num_chains} particles evenly"
        )
    return num_devices
