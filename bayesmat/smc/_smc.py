"""The sampler's face: a NumPyro model in, posterior particles out, with the manners of `numpyro.infer.MCMC`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .._arviz import InferenceData, to_inference_data
from .._types import Array, BayesmatError
from . import _checkpoint, _hosts, _model, _output, _plan, _run
from ._kernels import Kernel
from ._resampling import RESAMPLING
from ._run import Island, Plan
from ._surrogate import Surrogate
from ._tempered import Info, Settings, Status


@dataclass(frozen=True)
class _Setup:
    """What belongs to one model and one shape of its arguments."""

    program: _model.Program
    identity: str
    kernels: dict[str, list[Kernel]]
    compiled: _run.Compiled


class SMC:
    """Tempered sequential Monte Carlo for a NumPyro model with molecular strings or other discrete structures in it.

    The model is any NumPyro function. Its latent sites get kernels by their distribution: strings (whose distribution
    has `regrow`, see `StringPrior`), discrete sites and continuous ones; observed sites and `numpyro.factor` make the
    likelihood. A second run with the same shapes does not compile again.

    Args:
        model: a NumPyro model function.
        num_particles: N; the error of every estimate falls as 1/√N.
        kernels: a list of kernels, or one by site (`"continuous"` for all continuous sites); None for the kernels that
            suit each site. Their proportions and reach are tuned between temperatures.
        target_ess: share of the effective sample size that a temperature may keep, in (0, 1); more means more
            temperatures.
        schedule: "adaptive", or increasing inverse temperatures that end in 1, or the `plan` of an earlier run: then
            the evidence is unbiased.
        num_moves: sweeps of the kernels at each temperature; with `waste_free` between two states of a chain.
        resampling: "systematic", "stratified", "residual" or "multinomial".
        waste_free: length P of the chains whose states are all kept; N/P particles are resampled. 1 for none.
        islands: independent runs; their evidences give its standard error. Spread over hosts with `jax.distributed`.
        max_temperatures: where to give up; the run then ends with a status and what it reached.
        num_devices: local devices over which particles are spread; None for all that divide N/P evenly.
        checkpoint: folder where the state is kept after every temperature.
        resume: whether to go on from what is in that folder; the result is that of an uninterrupted run.
        surrogate: for a dear likelihood, `Surrogate(features)`: each move is then many sweeps by an estimate of the
            likelihood that is learnt as the run goes, and one evaluation. The posterior is the same.
        jit_model_args: whether the model's arguments, all arrays, are data of the compiled program: runs with other
            values of the same shapes then do not look at the model again.
        progress_bar: whether to show β as it rises.

    Raises:
        BayesmatError: a setting is out of range, or the model cannot be sampled.

    >>> import numpyro
    >>> from bayesmat import chem, prior
    >>> alphabet = chem.Alphabet.organic(length=12)
    >>> p_x = prior.fit_ngram(["CCO", "CCCO", "CC(C)O", "CCN"], alphabet, order=4)
    >>> def long_ones():
    ...     x = numpyro.sample("molecule", p_x)
    ...     numpyro.factor("long", 1.0 * (x != 0).sum())
    >>> smc = SMC(long_ones, num_particles=64, num_moves=2, progress_bar=False)
    >>> smc.run(jax.random.key(0))
    >>> smc.status.message
    'The posterior was reached.'
    """

    def __init__(
        self,
        model: _model.Model,
        num_particles: int = 2048,
        kernels: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        *,
        target_ess: float = 0.5,
        schedule: str | Sequence[float] | np.ndarray | Plan = "adaptive",
        num_moves: int = 8,
        resampling: str = "systematic",
        waste_free: int = 1,
        islands: int = 1,
        max_temperatures: int = 60,
        num_devices: int | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        surrogate: Surrogate | None = None,
        jit_model_args: bool = False,
        progress_bar: bool = True,
    ):
        if num_particles < 2 or num_moves < 1 or max_temperatures < 1 or islands < 1 or not 0 < target_ess < 1:
            raise BayesmatError(
                "allowed: num_particles ≥ 2, num_moves ≥ 1, max_temperatures ≥ 1, islands ≥ 1, target_ess between 0 "
                f"and 1; got {num_particles}, {num_moves}, {max_temperatures}, {islands}, {target_ess}"
            )
        if resampling not in RESAMPLING:
            raise BayesmatError(f"resampling is {resampling!r}; allowed: {', '.join(RESAMPLING)}")
        if waste_free < 1 or num_particles % waste_free or num_particles // waste_free < 2:
            raise BayesmatError(f"waste_free is {waste_free}; it must divide num_particles into at least two chains")
        if resume and checkpoint is None:
            raise BayesmatError("resume needs the folder of the checkpoint")
        self.model = model
        self.settings = Settings(num_particles, target_ess, num_moves, resampling, waste_free, surrogate)
        self.kernels = kernels
        self.schedule = _plan.checked_schedule(schedule)
        self.num_islands = _hosts.checked_islands(islands)
        self.max_temperatures = max_temperatures
        self.num_devices = _plan.checked_devices(num_devices, num_particles // waste_free)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.resume = resume
        self.progress_bar = progress_bar
        self.jit_model_args = jit_model_args
        self._compiled: dict[str, _Setup] = {}
        self._by_shape: dict[str, _Setup] = {}
        self._setup: _Setup | None = None
        self._constants: Any = None
        self._islands: list[Island] = []
        self._key: Array | None = None

    def run(self, key: Array, *args: Any, **kwargs: Any) -> None:
        """Sample the posterior; `args` and `kwargs` go to the model.

        Args:
            key: random key; the same key gives the same particles.
        """
        self._setup, self._constants = self._prepared(args, kwargs)
        self._key = key
        mine = _hosts.my_islands(self.num_islands)
        with self._bar(float(len(mine)), "inverse temperature", _BAR) as bar:
            found = [self._run_island(island, done, bar) for done, island in enumerate(mine)]
        self._islands = _hosts.gathered(found, self._most)

    def extend(self, num_steps: int) -> None:
        """Go on at β = 1: more particles of the same posterior, less like those of the prior they came from.

        The random numbers follow from the key of `run`: two extensions are one of as many steps.

        Args:
            num_steps: sets of `num_moves` moves.

        Raises:
            BayesmatError: `run` has not reached the posterior.
        """
        if self.status != Status.CONVERGED:
            raise BayesmatError(f"only a run that reached the posterior can be extended. {self.status.message}")
        mine, most = _hosts.my_islands(self.num_islands), max(len(island.info.beta) for island in self.islands)
        with self._bar(num_steps * len(mine), "steps at β = 1", None) as bar:
            found = [
                _run.extend_island(
                    *(self._island_key(island), self._ready.compiled, self._constants, self._islands[island]),
                    *(num_steps, lambda count, info: bar.update(), self._path(island), self._identity()),
                )
                for island in mine
            ]
        self._islands = _hosts.gathered(found, most + num_steps)

    def _bar(self, total: float, what: str, bar_format: str | None) -> tqdm:
        silent = not self.progress_bar
        return tqdm(total=total, desc=what, bar_format=bar_format, dynamic_ncols=True, disable=silent)

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Setup, list[Array]]:
        """The compiled program for some arguments, and its arrays."""
        if self.jit_model_args:
            leaves, structure = jax.tree.flatten((args, kwargs))
            shapes = str((structure, [(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]))
            if shapes in self._by_shape:
                setup = self._by_shape[shapes]
                return setup, [*setup.program.closed, *map(jnp.asarray, leaves)]
        outputs = () if self.settings.surrogate is None else self.settings.surrogate.outputs
        program, leaves = _model.split(self.model, args, kwargs, self.jit_model_args, outputs)
        arrays = [*program.closed, *map(jnp.asarray, leaves)]
        if program.text not in self._compiled:
            kernels = _plan.assign_kernels(program, arrays, self.kernels, self.settings.surrogate)
            compiled = _run.compile_parts(program, kernels, self.settings, self.num_devices)
            surrogate = self.settings.surrogate
            identity = program.identity + ("" if surrogate is None else surrogate.identity(program.example))
            self._compiled[program.text] = _Setup(program, identity, kernels, compiled)
        if self.jit_model_args:
            self._by_shape[shapes] = self._compiled[program.text]
        return self._compiled[program.text], arrays

    @property
    def _ready(self) -> _Setup:
        if self._setup is None:
            raise BayesmatError("call run(key) first")
        return self._setup

    @property
    def _most(self) -> int:
        return self.max_temperatures if self.schedule is None else len(self.schedule.beta)

    def _run_island(self, island: int, done: int, bar: tqdm) -> Island:
        def report(count: int, info: Info) -> None:
            bar.n = done + float(info.beta)
            of = f"island {island + 1} of {self.num_islands}, " if self.num_islands > 1 else ""
            bar.set_postfix_str(f"{of}temperature {count}")

        return _run.run_island(
            *(self._island_key(island), self._ready.compiled, self._constants, self.schedule, self.max_temperatures),
            *(report, self._path(island), self._identity(), self.resume),
        )

    def _island_key(self, island: int) -> Array:
        assert self._key is not None
        return jax.random.fold_in(self._key, island) if self.num_islands > 1 else self._key

    def _path(self, island: int) -> Path | None:
        return None if self.checkpoint is None else self.checkpoint / f"island-{island:03d}.npz"

    def _identity(self) -> str:
        """Of the run, for its checkpoint; empty without one."""
        if self.checkpoint is None or self._key is None:
            return ""
        data = [jax.random.key_data(self._key), *jax.tree.leaves((self._constants, self.schedule))]
        decided = (self.settings, self.num_islands, self.max_temperatures, self.num_devices, self._ready.kernels)
        return _checkpoint.fingerprint(self._ready.identity, data, decided)

    @property
    def islands(self) -> list[Island]:
        """The finished runs.

        Raises:
            BayesmatError: `run` was not called.
        """
        if not self._islands:
            raise BayesmatError("call run(key) first")
        return self._islands

    @property
    def status(self) -> Status:
        """How the run ended; of several islands the worst."""
        return max(island.status for island in self.islands)

    @property
    def plan(self) -> Plan:
        """The schedule of the first island, to be given to another `SMC` of the same model as `schedule`."""
        info = self.islands[0].info
        if len(info.beta) == 0:
            raise BayesmatError("the run made no step, so there is no plan to repeat")
        return Plan(np.asarray(info.beta), info.tuning)

    @property
    def log_evidences(self) -> np.ndarray:
        """log p(target) by island, `(islands,)`; of the β reached if not 1."""
        return np.array([float(island.state.log_evidence) for island in self.islands])

    @property
    def log_evidence(self) -> float:
        """log p(target), the log of the prior mean of the likelihood."""
        return _output.log_mean_exp(self.log_evidences)

    @property
    def log_evidence_se(self) -> float:
        """Standard error of `log_evidence` from the scatter of the islands; NaN with one."""
        if self.num_islands == 1 or not np.isfinite(self.log_evidence):
            return math.nan
        ratio = np.exp(self.log_evidences - self.log_evidence)
        return float(ratio.std(ddof=1) / math.sqrt(len(ratio)))

    @property
    def weights(self) -> np.ndarray:
        """Posterior weight of every particle, `(islands · N,)`: equal within an island, by evidence between them."""
        return _output.particle_weights(self.log_evidences, self.settings.num_particles)

    @property
    def temperatures(self) -> np.ndarray:
        """Inverse temperatures of the first island from 0 on, `(T + 1,)`."""
        return np.concatenate([[0.0], self.islands[0].info.beta])

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size of each step's weights, first island, `(T,)`."""
        return np.asarray(self.islands[0].info.ess)

    @property
    def acceptance(self) -> np.ndarray:
        """Share of proposals of each step that changed a particle, first island, `(T,)`."""
        return _output.total_rate(self.islands[0].info)

    @property
    def num_ancestors(self) -> int:
        """How many particles of the prior have descendants, summed over islands."""
        return sum(len(np.unique(np.asarray(island.state.ancestor))) for island in self.islands)

    @property
    def num_evaluations(self) -> int:
        """How many times the likelihood of one particle was computed, summed over islands."""
        moves = sum(int(island.info.evaluations.astype(np.int64).sum()) for island in self.islands)
        return moves + self.num_islands * self.settings.num_particles

    @property
    def log_likelihood(self) -> np.ndarray:
        """Of every particle, `(islands · N,)`."""
        return np.concatenate([np.asarray(island.state.log_likelihood) for island in self.islands])

    @property
    def prior_log_likelihood(self) -> np.ndarray:
        """Of the particles that the run started from, draws of the prior, `(islands · N,)`."""
        return np.concatenate([np.asarray(island.prior[1]) for island in self.islands])

    def particles(self) -> dict[str, Array]:
        """The latent sites of all particles as the sampler holds them, leading axis `islands · N`; see `weights`."""
        states = [island.state.particles for island in self.islands]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *states)

    def string_priors(self) -> dict[str, Any]:
        """The distribution of each string site, given the other sites of the first particle."""
        return _output.string_priors(self._ready.program.bind(self._constants), self.islands[0])

    def get_samples(self, group_by_island: bool = False) -> dict[str, Any]:
        """Latent sites and deterministic values of equally weighted posterior samples.

        Args:
            group_by_island: the particles of each island, leading axes `(islands, N)`, without the islands' weights.

        Returns:
            Arrays with leading axis `islands · N`; several islands are resampled by their evidence.
        """
        samples = self._values(self.particles())
        if group_by_island:
            shape = (self.num_islands, self.settings.num_particles)
            return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), samples)
        if self.num_islands == 1:
            return samples
        rows = _output.equal_weight_rows(self.weights)
        return jax.tree.map(lambda leaf: leaf[rows], samples)

    def get_prior_samples(self) -> dict[str, Any]:
        """The same for the particles that the run started from, draws of the prior."""
        drawn = [island.prior[0] for island in self.islands]
        return self._values(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn))

    def _values(self, particles: dict[str, Array]) -> dict[str, Any]:
        return self._ready.compiled.values(self._constants, particles)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per distinct design, best first.

        Strings of one molecule are one design: their weights are added. Columns: the text of each string site, the
        posterior weight, the mean log likelihood, and for each other site and deterministic value its mean over the
        design's particles (and `<name>_sd` where it varies); of a predictive distribution `<name>_mean` and
        `<name>_sd`. Without a string site there is one row per particle.
        """
        return _output.to_table(self._values(self.particles()), self.string_priors(), self.weights, self.log_likelihood)

    def step_memory(self) -> int:
        """Bytes that one temperature of the last run needs at its peak: arguments, results and working memory."""
        island = self.islands[0]
        tuning = jax.tree.map(lambda leaf: leaf[-1], island.info.tuning)
        arguments = (jax.random.key(0), self._constants, island.state, tuning, island.state.beta)
        sizes = self._ready.compiled.step.lower(*arguments).compile().memory_analysis()
        return sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes

    def to_inference_data(self) -> InferenceData:
        """As ArviZ `InferenceData`: islands are chains, particles are draws, without the islands' weights.

        Groups: `posterior` (latent sites and deterministic values), `sample_stats` (the log likelihood as `lp`),
        `prior` (the particles that the run started from) and `constant_data` (log evidence by island).
        """
        shape = (self.num_islands, self.settings.num_particles)
        return to_inference_data(
            _output.as_arrays(self._values(self.particles()), shape),
            prior=_output.as_arrays(self.get_prior_samples(), shape),
            sample_stats={"lp": self.log_likelihood.reshape(shape)},
            constant_data={"log_evidence": self.log_evidences},
            dims={"log_evidence": ["island"]},
            attrs={"sampler": "tempered SMC", "temperatures": len(self.temperatures) - 1},
        )

    def diagnostics(self) -> pd.DataFrame:
        """One row per island and temperature: β, ESS, ancestors, evaluations of the likelihood, and for each site and
        kernel its share of the moves, the share accepted of the proposals that were another particle (`accepted`), and
        of all its proposals (`changed`)."""
        return _output.diagnostics(self.islands, self._ready.kernels)

    def summary(self) -> str:
        """What a practitioner looks at first, as text."""
        return _output.summary(self)

    def warnings(self) -> list[str]:
        """Signs that the posterior is poorly explored, each with advice."""
        return _output.warnings(self)


_BAR = "{desc}: {n:.3g} |{bar}| {elapsed}<{remaining}{postfix}"
