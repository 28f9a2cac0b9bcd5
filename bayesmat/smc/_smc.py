"""The sampler's face: a NumPyro model in, posterior particles out, with the manners of `numpyro.infer.MCMC`."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import jax
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .._types import Array, BayesmatError
from . import _model, _tempered


class SMC:
    """Tempered sequential Monte Carlo for a NumPyro model whose latent sites are molecular strings.

    Latent sites need a distribution with `regrow` (see `StringPrior`); observed sites and `numpyro.factor` make the
    likelihood. The whole run is one compiled program; a second run with the same shapes does not compile again.

    Args:
        model: a NumPyro model function.
        num_particles: N; the error of every estimate falls as 1/√N.
        target_ess: share of the effective sample size that a temperature may keep, in (0, 1); more means more
            temperatures.
        num_moves: sweeps of the kernels at each temperature.
        max_temperatures: where to give up; the run then ends with a status and what it reached.
        progress_bar: whether to show β as it rises.

    Raises:
        BayesmatError: a setting is out of range, or the model has a latent site that is no string.

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
        *,
        target_ess: float = 0.5,
        num_moves: int = 8,
        max_temperatures: int = 60,
        progress_bar: bool = True,
    ):
        if num_particles < 2 or num_moves < 1 or max_temperatures < 1 or not 0 < target_ess < 1:
            raise BayesmatError(
                "allowed: num_particles ≥ 2, num_moves ≥ 1, max_temperatures ≥ 1, target_ess between 0 and 1; got "
                f"{num_particles}, {num_moves}, {max_temperatures}, {target_ess}"
            )
        self.model = model
        self.settings = _tempered.Settings(num_particles, target_ess, num_moves, max_temperatures)
        self.progress_bar = progress_bar
        self._result: _tempered.Run | None = None
        self._compiled: dict[Any, Any] = {}
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._priors: dict[str, Any] = {}
        self._bar: tqdm | None = None

    def run(self, key: Array, *args: Any, **kwargs: Any) -> None:
        """Sample the posterior; `args` and `kwargs` go to the model.

        Args:
            key: random key; the same key gives the same particles.
        """
        split = _model.split(self.model, args, kwargs)
        self._arguments, self._priors = (args, kwargs), split.priors
        program = self._program(split)
        if self.progress_bar:
            with tqdm(total=1.0, desc="inverse temperature", bar_format=_BAR, dynamic_ncols=True) as self._bar:
                self._result = jax.block_until_ready(program(key, split.priors, split.constants))
                jax.effects_barrier()
            self._bar = None
        else:
            self._result = jax.block_until_ready(program(key, split.priors, split.constants))

    def _program(self, split: _model.Split) -> Any:
        """The compiled run; one for all arguments that lead to the same program."""
        if split.text not in self._compiled:

            def program(key: Array, priors: dict[str, Any], constants: list[Array]) -> _tempered.Run:
                likelihood = functools.partial(split.log_likelihood, constants)
                report = self._show if self.progress_bar else None
                return _tempered.run(key, priors, likelihood, self.settings, report)

            self._compiled[split.text] = jax.jit(program)
        return self._compiled[split.text]

    def _show(self, count: Any, beta: Any) -> None:
        if self._bar is not None:
            self._bar.n = float(beta)
            self._bar.set_postfix_str(f"temperature {int(count)}")

    @property
    def result(self) -> _tempered.Run:
        """The finished run.

        Raises:
            BayesmatError: `run` was not called.
        """
        if self._result is None:
            raise BayesmatError("call run(key) first")
        return self._result

    @property
    def status(self) -> _tempered.Status:
        """How the run ended."""
        return _tempered.Status(int(self.result.status))

    @property
    def log_evidence(self) -> float:
        """log p(target), the log of the prior probability that the target is met; of the β reached if not 1."""
        return float(self.result.state.log_evidence)

    @property
    def temperatures(self) -> np.ndarray:
        """Inverse temperatures from 0 on, `(T + 1,)`."""
        return np.concatenate([[0.0], np.asarray(self.result.info.beta)[: int(self.result.num_steps)]])

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size of each step's weights, `(T,)`."""
        return np.asarray(self.result.info.ess)[: int(self.result.num_steps)]

    @property
    def acceptance(self) -> np.ndarray:
        """Share of accepted moves of each step, the mean over sites, `(T,)`."""
        return np.asarray(self.result.info.acceptance)[: int(self.result.num_steps)].mean(1)

    @property
    def num_ancestors(self) -> int:
        """How many particles of the prior have descendants."""
        return len(np.unique(np.asarray(self.result.state.ancestor)))

    def get_samples(self) -> dict[str, Any]:
        """Latent sites and deterministic values of the final particles, leading axis `num_particles`."""
        return self._values_at(self.result.state.particles)

    def get_prior_samples(self) -> dict[str, Any]:
        """The same for the particles that the run started from, draws of the prior."""
        return self._values_at(self.result.prior[0])

    def _values_at(self, particles: dict[str, Array]) -> dict[str, Any]:
        args, kwargs = self._arguments

        def values(particle: dict[str, Array]) -> dict[str, Any]:
            return _model.deterministics(_model.trace_at(self.model, particle, args, kwargs))

        return {**particles, **jax.jit(jax.vmap(values))(particles)}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per distinct design, best first: its text, its posterior weight, its log likelihood and the
        deterministic values (`<name>`, or `<name>_mean` and `<name>_sd` for predictive distributions)."""
        samples = self.get_samples()
        texts = {name: self._texts(name, samples.pop(name)) for name in self._priors}
        joint = list(zip(*texts.values(), strict=True))
        counts = Counter(joint)
        first = {design: index for index, design in reversed(list(enumerate(joint)))}
        rows = np.array([first[design] for design in counts])
        table: dict[str, Any] = {name: [texts[name][i] for i in rows] for name in texts}
        table["weight"] = [count / len(joint) for count in counts.values()]
        table["log_likelihood"] = np.asarray(self.result.state.log_likelihood)[rows]
        for name, value in samples.items():
            table.update(_columns(name, value, rows))
        return pd.DataFrame(table).sort_values(["weight", "log_likelihood"], ascending=False, ignore_index=True)

    def _texts(self, name: str, strings: Array) -> list[str]:
        prior = self._priors[name]
        if hasattr(prior, "to_text"):
            return list(prior.to_text(np.asarray(strings)))
        return [" ".join(str(token) for token in row[row != 0]) for row in np.asarray(strings)]

    def summary(self) -> str:
        """What a practitioner looks at first, as text."""
        n = self.settings.num_particles
        distinct = len(self.to_dataframe())
        lines = [
            f"status          {self.status.message}",
            f"temperatures    {len(self.temperatures) - 1}, β reached {self.temperatures[-1]:.4g}",
            f"log evidence    {self.log_evidence:.3f}",
            f"distinct        {distinct} designs in {n} particles",
            f"ancestors       {self.num_ancestors} of {n}",
        ]
        if len(self.ess):
            lines.append(f"ESS             least {self.ess.min():.0f} of {n}")
            lines.append(f"acceptance      {self.acceptance[0]:.3f} at first, {self.acceptance[-1]:.3f} at last")
        return "\n".join([*lines, *(f"warning         {text}" for text in self.warnings())])

    def warnings(self) -> list[str]:
        """Signs that the posterior is poorly explored, each with advice."""
        found = []
        if self.status != _tempered.Status.CONVERGED:
            found.append(self.status.message)
        if len(self.acceptance) and self.acceptance[-1] < 0.01:
            found.append(f"Only {100 * self.acceptance[-1]:.2g} % of the last moves were accepted; raise num_moves.")
        if self.num_ancestors < 0.005 * self.settings.num_particles:
            found.append(
                f"All particles descend from {self.num_ancestors} of the prior's; raise num_particles or target_ess."
            )
        return found


_BAR = "{desc}: {n:.3g} |{bar}| {elapsed}<{remaining}{postfix}"


def _columns(name: str, value: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of one deterministic value; a predictive distribution gives its mean and sd."""
    if hasattr(value, "mean") and hasattr(value, "sd"):
        mean, sd = np.asarray(jax.jit(lambda v: v.mean())(value)), np.asarray(jax.jit(lambda v: v.sd())(value))
        return {f"{name}_mean": mean[rows], f"{name}_sd": sd[rows]}
    array = np.asarray(value)
    return {name: array[rows]} if array.ndim == 1 else {}
