"""Our side: the inverse problem as a NumPyro model, its run, and a record of every molecule that it evaluated."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

import bayesmat as bm

from .iqsprx import Bounds
from .setting import Setting


@dataclass
class Record:
    """Strings in the order in which they were evaluated, in batches, with their log likelihoods."""

    tokens: list[np.ndarray] = field(default_factory=list)
    log_p: list[np.ndarray] = field(default_factory=list)
    _molecules: dict[str, float] = field(default_factory=dict)
    _read: int = 0

    def add(self, tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        """Called from the compiled program; gives zeros, which the model adds to its likelihood."""
        self.tokens.append(np.array(tokens, np.int16).reshape(-1, np.shape(tokens)[-1]))
        self.log_p.append(np.array(log_p, np.float32).ravel())
        return np.zeros(np.shape(log_p), np.float32)

    def clear(self) -> None:
        """Forget everything."""
        self.tokens.clear()
        self.log_p.clear()
        self._molecules.clear()
        self._read = 0

    @property
    def evaluations(self) -> int:
        """Strings so far, repeated ones too."""
        return sum(map(len, self.log_p))

    def hits(self) -> np.ndarray:
        """Distinct strings with p_hit > 1/2, `(n, length)`."""
        return np.unique(np.concatenate(self.tokens)[np.concatenate(self.log_p) > np.log(0.5)], axis=0)

    def molecules(self, prior: bm.prior.NGram) -> dict[str, float]:
        """log likelihood of every molecule, by canonical SMILES, in the order of first evaluation."""
        for tokens, log_p in zip(self.tokens[self._read :], self.log_p[self._read :], strict=True):
            for name, value in zip(prior.to_text(tokens.astype(np.int32)), log_p.tolist(), strict=True):
                self._molecules.setdefault(name, value)
        self._read = len(self.tokens)
        return self._molecules


@dataclass(frozen=True)
class Found:
    """A run of ours.

    Attributes:
        tokens: `(N, length)` strings of the last population.
        log_evidence: log of the prior probability of the box.
        cpu_s: CPU seconds of the run, compilation apart.
        temperatures: steps after β = 0.
        converged: whether β = 1 was reached.
    """

    tokens: np.ndarray
    log_evidence: float
    cpu_s: float
    temperatures: int
    converged: bool


class Ours:
    """SMC on any box; compiles on the first run, which is not timed.

    Args:
        setting: the forward models and the prior.
        particles: of the population.
        record: keeps what is evaluated; costs a little time.
        power: of the likelihood; 1 for the posterior, more to search for probable hits.
        steps: more steps at β = 1.
        settings: others of `bm.smc.SMC`.
    """

    def __init__(
        self,
        setting: Setting,
        particles: int,
        record: Record | None = None,
        power: float = 1.0,
        steps: int = 0,
        **settings: Any,
    ):
        predictors = {name: fitted.predictor for name, fitted in setting.fitted.items()}
        prior = setting.prior

        def model(low: dict[str, jax.Array], high: dict[str, jax.Array], power: jax.Array) -> None:
            def log_p(y: dict[str, Any]) -> jax.Array:
                return sum((y[name].log_prob_interval(low[name], high[name]) for name in sorted(low)), jnp.zeros(()))

            x = numpyro.sample("molecule", prior)
            phi = bm.nn.featurize(x, prior.alphabet)
            y = {name: predictors[name](phi) for name in sorted(low)}
            if record is not None:  # beside what is predicted, so that an estimate of it is no evaluation
                shape = jax.ShapeDtypeStruct((), jnp.float32)
                zero = jax.pure_callback(record.add, shape, x, log_p(y), vmap_method="broadcast_all")
                y = jax.tree.map(lambda leaf: leaf + zero, y)
            y = {name: numpyro.deterministic(name, value) for name, value in y.items()}
            numpyro.factor("hit", power * log_p(y))

        self.record, self.length, self.compiled = record, prior.alphabet.length, False
        self.power, self.steps = power, steps
        self.smc = bm.smc.SMC(model, particles, progress_bar=False, **settings)

    def run(self, bounds: Bounds, seed: int) -> Found:
        """One timed run; the record holds this run only."""
        limits = [{name: jnp.float32(ends[side]) for name, ends in bounds.items()} for side in (0, 1)]
        arguments = (*limits, jnp.float32(self.power))
        if not self.compiled:
            self.smc.run(jax.random.key(seed + 999), *arguments)
            self.smc.get_samples()
            self.compiled = True
        if self.record is not None:
            self.record.clear()
        start = time.process_time()
        self.smc.run(jax.random.key(seed), *arguments)
        if self.steps:
            self.smc.extend(self.steps)
        tokens = np.asarray(self.smc.get_samples()["molecule"])
        cpu_s = time.process_time() - start
        steps = len(self.smc.temperatures) - 1
        converged = self.smc.status == bm.smc.Status.CONVERGED
        return Found(tokens.reshape(-1, self.length), self.smc.log_evidence, cpu_s, steps, converged)

    def particle_iterations(self, found: Found) -> int:
        """Particles times moves: what a run did."""
        settings = self.smc.settings
        return found.temperatures * settings.num_particles * settings.num_moves
