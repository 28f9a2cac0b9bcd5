"""One run of the sampler from the prior to β = 1, temperature by temperature, with checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from .._types import Array
from . import _checkpoint, _tempered
from ._kernels import Kernel
from ._model import Particle, Program
from ._tempered import Info, Settings, State, Status
from ._tuning import Tuning


class Plan(NamedTuple):
    """A schedule to repeat: with both frozen the evidence is unbiased.

    Attributes:
        beta: `(T,)` inverse temperatures, the last 1.
        tuning: of the kernels at each temperature, leading axis T; None to tune as the run goes.
    """

    beta: np.ndarray
    tuning: Tuning | None


class Island(NamedTuple):
    """A finished run.

    Attributes:
        state: at the end.
        prior: the particles before the first step and their log likelihood.
        info: diagnostics, leading axis T.
        status: how it ended.
        tuning: of a further step.
    """

    state: State
    prior: tuple[Particle, Array]
    info: Info
    status: Status
    tuning: Tuning


class Compiled(NamedTuple):
    """The compiled parts of a run; see `compile_parts`."""

    init: Callable[..., Any]
    step: Any
    values: Callable[..., Any]


def compile_parts(program: Program, kernels: dict[str, list[Kernel]], settings: Settings, num_devices: int) -> Compiled:
    """The functions of (key, constants, …) that a run calls, to be compiled once."""
    mesh = _tempered.particle_mesh(num_devices) if num_devices > 1 else None

    def spread(state: State) -> State:
        if mesh is None:
            return state
        sharding = NamedSharding(mesh, PartitionSpec(_tempered.AXIS))
        rows = jax.lax.with_sharding_constraint
        return state._replace(
            particles=jax.tree.map(lambda leaf: rows(leaf, sharding), state.particles),
            log_likelihood=rows(state.log_likelihood, sharding),
        )

    @jax.jit
    def init(key: Array, constants: Any) -> tuple[State, Tuning]:
        state, tuning = _tempered.init(key, program.bind(constants), kernels, settings)
        return spread(state), tuning

    @jax.jit
    def step(key: Array, constants: Any, state: State, tuning: Tuning, beta: Array) -> tuple[State, Tuning, Info]:
        problem = program.bind(constants)
        state, tuning, info = _tempered.step(key, state, tuning, beta, problem, kernels, settings, mesh)
        return spread(state), tuning, info

    @jax.jit
    def values(constants: Any, particles: Particle) -> dict[str, Any]:
        return jax.vmap(program.bind(constants).values)(particles)

    return Compiled(init, step, values)


def run_island(
    key: Array,
    compiled: Compiled,
    constants: Any,
    plan: Plan | None,
    max_temperatures: int,
    report: Callable[[int, Info], None],
    path: Path | None = None,
    identity: str = "",
    resume: bool = False,
) -> Island:
    """From the prior to β = 1.

    Args:
        key: random key.
        compiled: the program.
        constants: its data.
        plan: the temperatures; None to find them.
        max_temperatures: where to give up when they are to be found.
        report: called after every temperature with their number and its diagnostics.
        path: of the checkpoint, written after every temperature; None for none.
        identity: of the run, see `_checkpoint.fingerprint`.
        resume: whether to go on from the checkpoint if there is one.
    """
    key_init, _ = jax.random.split(key)
    most = max_temperatures if plan is None else len(plan.beta)
    infos: list[Info] = []
    if resume and path is not None and path.exists():
        state, tuning, prior, infos = _restore(path, identity, compiled, constants, key)
    else:
        state, tuning = compiled.init(key_init, constants)
        prior = (state.particles, state.log_likelihood)
    feasible = bool(np.isfinite(np.asarray(prior[1])).any())
    while feasible and len(infos) < most and (plan is not None or float(state.beta) < 1):
        count = len(infos)
        beta = np.nan if plan is None else plan.beta[count]
        if plan is not None and plan.tuning is not None:
            tuning = jax.tree.map(lambda leaf, t=count: jnp.asarray(leaf[t]), plan.tuning)
        state, tuning, info = _step(key, count, compiled, constants, state, tuning, beta)
        infos.append(info)
        _save(path, identity, state, tuning, prior, stack(infos))
        report(len(infos), info)
    if not feasible:
        state, status = state._replace(log_evidence=jnp.asarray(-jnp.inf, state.beta.dtype)), Status.NO_MASS
    else:
        status = Status.CONVERGED if float(state.beta) >= 1 else Status.TOO_MANY_TEMPERATURES
    return Island(state, prior, stack(infos) if infos else _no_info(compiled, constants, key), status, tuning)


def extend_island(
    key: Array,
    compiled: Compiled,
    constants: Any,
    island: Island,
    num_steps: int,
    report: Callable[[int, Info], None],
    path: Path | None = None,
    identity: str = "",
) -> Island:
    """More steps at β = 1; `key` is that of the run."""
    state, tuning, infos = island.state, island.tuning, [island.info]
    for count in range(len(island.info.beta), len(island.info.beta) + num_steps):
        state, tuning, info = _step(key, count, compiled, constants, state, tuning, 1.0)
        infos.append(stack([info]))
        report(count + 1, info)
    info = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
    _save(path, identity, state, tuning, island.prior, info)
    return Island(state, island.prior, info, island.status, tuning)


def _step(
    key: Array, count: int, compiled: Compiled, constants: Any, state: State, tuning: Tuning, beta: float
) -> tuple[State, Tuning, Info]:
    key_step = jax.random.fold_in(jax.random.split(key)[1], count)
    state, tuning, info = compiled.step(key_step, constants, state, tuning, jnp.asarray(beta, state.beta.dtype))
    return state, tuning, jax.tree.map(np.asarray, info)


def _save(path: Path | None, identity: str, state: State, tuning: Tuning, prior: Any, info: Info) -> None:
    if path is not None:
        card = {"fingerprint": identity, "temperatures": len(info.beta), "beta": float(info.beta[-1])}
        _checkpoint.save(path, (state, tuning, prior, info), card)


def stack(infos: Sequence[Info]) -> Info:
    """Diagnostics with a leading axis."""
    return jax.tree.map(lambda *rows: np.stack(rows), *infos)


def _shapes(compiled: Compiled, constants: Any, key: Array) -> tuple[State, Tuning, Info]:
    state, tuning = jax.eval_shape(compiled.init, key, constants)
    info = jax.eval_shape(compiled.step, key, constants, state, tuning, jax.ShapeDtypeStruct((), state.beta.dtype))[2]
    return state, tuning, info


def _no_info(compiled: Compiled, constants: Any, key: Array) -> Info:
    info = _shapes(compiled, constants, key)[2]
    return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype), info)


def _restore(
    path: Path, identity: str, compiled: Compiled, constants: Any, key: Array
) -> tuple[State, Tuning, tuple[Particle, Array], list[Info]]:
    state, tuning, info = _shapes(compiled, constants, key)
    like = (state, tuning, (state.particles, state.log_likelihood), info)
    (state, tuning, prior, table), card = _checkpoint.load(path, like, identity)
    infos = [jax.tree.map(lambda leaf, t=t: leaf[t], table) for t in range(card["temperatures"])]
    return (*jax.tree.map(jnp.asarray, (state, tuning, prior)), infos)
