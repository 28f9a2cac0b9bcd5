"""A fitted property: its predictor, its posterior, and how well it predicted each measurement without it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import infer
from .._types import Array, BayesmatError
from ..chem import Alphabet, Refusal, encode
from ..data import PropertyTable
from ..infer import Calibration, InferenceData
from ..nn import Features, featurize
from ._applicability import Applicability
from ._predictive import Predictive
from ._predictor import Predictor, ProcessPredictor

BATCH = 1024


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for a list of molecules; arrays have one entry for each kept one.

    Attributes:
        kept: `(m,)` indices into the list that was given.
        refusals: the molecules that the alphabet cannot say, with reasons.
        mean: `(m,)` see `Predictive.mean`.
        sd: `(m,)` see `Predictive.sd`.
        lower90: `(m,)` 5 % quantile.
        upper90: `(m,)` 95 % quantile.
        applicability: `(m,)` in (0, 1], small for molecules unlike those that were trained on, see `Applicability`.
        unit: of the numbers.
        predictive: all of it.
    """

    kept: np.ndarray
    refusals: tuple[Refusal, ...]
    mean: np.ndarray
    sd: np.ndarray
    lower90: np.ndarray
    upper90: np.ndarray
    applicability: np.ndarray
    unit: str
    predictive: Predictive


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` returns.

    Attributes:
        name: the table's name.
        label: the property in words.
        unit: of y.
        predictor: x → p(y | x, D), for compiled programs.
        idata: ArviZ data: scales of the feature groups, noise parameters and weights of the basis columns.
        calibration: predictions of the training molecules without their own measurements, and their scores.
        applicability: how usual a molecule is among the training molecules.
        smiles: training molecules.
        y: `(n,)` their measurements.
        loo_mean: `(n,)` the function at each training molecule given the others, in modelling space.
        set_aside: molecules of the table that the alphabet cannot say.
        sources: fits that this one transfers from.
        unrelated: labels of sources that were set aside, "library" for one, and how often their predictions, shuffled,
            would agree with the measurements as well.
        fingerprint: sha256 of everything that went in.
    """

    name: str
    label: str
    unit: str
    predictor: Predictor
    idata: InferenceData
    calibration: Calibration
    applicability: Applicability
    smiles: tuple[str, ...]
    y: np.ndarray
    loo_mean: np.ndarray
    set_aside: tuple[Refusal, ...]
    sources: tuple[Fitted, ...]
    unrelated: tuple[tuple[str, float], ...]
    fingerprint: str
    _row: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row", {text: row for row, text in enumerate(self.smiles)})

    @property
    def alphabet(self) -> Alphabet:
        """Of the strings that the predictor reads."""
        return self.predictor.alphabet

    def predict(self, x: Array | Features, transferred: Array | None = None) -> Predictive:
        """The posterior predictive of tokens `(..., length)` or features; compiled once per shape."""
        return _predict(self.predictor, x, transferred)

    def predict_smiles(self, smiles: str | Sequence[str], intervals: str = "posterior") -> Predictions:
        """Predictions for SMILES; what the alphabet cannot say is returned with its reason.

        Args:
            smiles: one or several.
            intervals: what `lower90` and `upper90` are, see `interval_ends`; all else is what the posterior says.

        Raises:
            BayesmatError: see `interval_ends`.
        """
        ends = self.interval_ends(0.9, intervals)
        encoded = encode(smiles, self.alphabet)
        features = compute_features(encoded.tokens, self.alphabet)
        n = len(encoded.tokens)
        parts = []
        for start in range(0, max(n, 1), BATCH):
            rows = batch(features, slice(start, start + BATCH))
            described = _describe(self.predictor, self.applicability, rows, jnp.asarray(ends, jnp.float32))
            parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: n - start], described))  # noqa: B023
        predictive, mean, sd, lower, upper, usual = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        return Predictions(encoded.kept, encoded.refusals, mean, sd, lower, upper, usual, self.unit, predictive)

    def interval_ends(self, level: float = 0.9, kind: str = "posterior") -> tuple[float, float]:
        """The two quantiles of a predictive that bound its central interval for a share `level` of new molecules.

        Use them with any predictive: `predictive.quantiles(fit.interval_ends(0.5, "conformal"))`.

        Args:
            level: in (0, 1).
            kind: "posterior" for what the model promises; "conformal" for what errors of the training molecules,
                each predicted without its own measurement, say, whatever the model believes; "recalibrated" for a
                compromise, in which the model's promise counts for thirty molecules. See
                `Calibration.conformal_level` and `recalibrated_level`, and `refits` of `fit`.

        Raises:
            BayesmatError: the kind is unknown, the level is not in (0, 1), or there are too few molecules for it.
        """
        if kind not in INTERVALS:
            raise BayesmatError(f"intervals {kind!r}; allowed are {', '.join(INTERVALS)}")
        if not 0 < level < 1:
            raise BayesmatError(f"level is {level}; allowed is a number between 0 and 1")
        asked = INTERVALS[kind](self.calibration, level)
        return 0.5 - asked / 2, 0.5 + asked / 2

    def predict_features(self, features: Features, transferred: np.ndarray | None = None) -> Predictive:
        """The posterior predictive of n molecules on the host, in batches of one compiled shape."""
        n = len(features.descriptors)
        parts = []
        for start in range(0, max(n, 1), BATCH):
            rows = slice(start, start + BATCH)
            part = batch(features, rows)
            given = None if transferred is None else jnp.asarray(_padded(np.asarray(transferred)[rows]), jnp.float32)
            predictive = self.predict(part, given)
            parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: n - start], predictive))  # noqa: B023
        return jax.tree.map(lambda *leaves: jnp.concatenate([jnp.asarray(leaf) for leaf in leaves]), *parts)

    def transferable(self, smiles: Sequence[str], features: Features) -> np.ndarray:
        """What a dependent model is told about molecules: the posterior mean of the function, `(n,)`.

        For a molecule in this fit's own table it is the leave-one-out mean. So the columns that a dependent model is
        trained on are what it will get for new molecules, and no measured value reaches it through its own source.

        Args:
            smiles: n canonical SMILES, as in property tables.
            features: of the same molecules.
        """
        given = self.transferred(smiles, features)
        average = self.predictor.average()
        result = np.empty(len(smiles))
        for start in range(0, len(smiles), BATCH):
            rows = slice(start, start + BATCH)
            own = jnp.asarray(_padded(given[rows]), jnp.float32) if self.sources else None
            value = _value(average, batch(features, rows), own)
            result[rows] = np.asarray(value)[: len(smiles[rows]), 0]
        for index, text in enumerate(smiles):
            if (row := self._row.get(text)) is not None:
                result[index] = self.loo_mean[row]
        return result

    def transferred(self, smiles: Sequence[str], features: Features) -> np.ndarray:
        """The transferred columns of this fit for n molecules, `(n, t)`, leave-one-out where a source measured them.

        Give them to `predict` when judging held-out molecules; for new molecules the predictor makes its own.
        """
        columns = [source.transferable(smiles, features) for source in self.sources]
        return np.stack(columns, axis=1) if columns else np.zeros((len(smiles), 0))

    def evaluate(self, table: PropertyTable) -> Calibration:
        """Held-out calibration on measurements that the fit has not seen.

        What a source knows of a test molecule from its own measurement of it is left out (see `transferred`).

        Raises:
            BayesmatError: a molecule of the table was trained on, or the alphabet can say none of them.
        """
        if seen := [text for text in table.smiles if text in self._row]:
            raise BayesmatError(f"{len(seen)} molecules were trained on, such as {seen[0]}; hold them out to evaluate")
        encoded = encode(table.smiles, self.alphabet, description=f"structures of {table.label}")
        smiles = [table.smiles[row] for row in encoded.kept]
        if not smiles:
            raise BayesmatError(f"{table.name}: the alphabet can say none of the {len(table)} molecules")
        features = compute_features(encoded.tokens, self.alphabet)
        predictive = self.predict_features(features, self.transferred(smiles, features))
        return calibrate(predictive, table.y[encoded.kept], self.label, self.unit, "held-out")

    def summary(self) -> str:
        """A few lines of text: what was fitted, on what, and how well it predicts."""
        posterior = self.idata.posterior
        scales = ", ".join(
            f"{name} {float(posterior['scale'].sel(group=name).mean()):.2g}" for name in posterior["group"].values
        )
        scales = textwrap.fill(scales, 110, initial_indent=" " * 4, subsequent_indent=" " * 4)
        aside = Counter(refusal.reason for refusal in self.set_aside)
        space = "log y" if self.predictor.log else "y"
        kind = "Gaussian process" if "weight" in self.idata.constant_data else "linear"
        lines = [
            f"{self.label}: {len(self.smiles)} molecules, {kind} in {space} with {self.predictor.num_draws} draws",
            f"  prior scale of feature groups, in standard deviations of {space}:",
            scales,
            f"  Student errors, ν = {float(posterior['noise_dof'].mean()):.3g}" + self._exceptions(),
        ]
        lines += self._comparison()
        if self.sources:
            lines.append(f"  transfers from {', '.join(source.label for source in self.sources)}")
        lines += [f"  {text}" for text in self.not_believed()]
        if aside:
            reasons = ", ".join(f"{count} {reason}" for reason, count in aside.most_common())
            lines.append(f"  set aside: {sum(aside.values())} ({reasons})")
        return "\n".join([*lines, self.calibration.summary()])

    def _exceptions(self) -> str:
        """The share of molecules of which the model does not know how far off it is, see `fit`."""
        predictor = self.predictor
        if not isinstance(predictor, ProcessPredictor) or not predictor.exceptions:
            return ""
        return f"; one molecule in {predictor.num_draws / predictor.exceptions:.0f} may be an exception"

    def not_believed(self) -> list[str]:
        """A sentence for each source that was set aside."""
        return [
            f"set aside: {label}, whose predictions agree with the measurements as well when they are shuffled "
            f"({100 * p:.0f} % of the shuffles)"
            for label, p in self.unrelated
        ]

    def _comparison(self) -> list[str]:
        """Which models were compared, what each was given for a weight, and how much transfer was worth."""
        found = self.idata.constant_data
        if "weight" not in found:
            return []
        names = [str(name) for name in found["candidate"].values]
        weight, density = found["weight"].values, found["loo_log_density"].values
        shares = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, weight, strict=True))
        gain = (density - density[0]) / len(self.smiles)
        help_ = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names[1:], gain[1:], strict=True))
        lines = [f"  stacked: {shares}", f"  nats per measurement that transfer is worth, leave-one-out: {help_}"]
        harmful = [name for name, value in zip(names[1:], gain[1:], strict=True) if value < -0.05]
        if harmful:
            lines.append(f"  negative transfer from {', '.join(harmful)}; their weights are small for it")
        return lines


_predict = eqx.filter_jit(lambda predictor, x, transferred: predictor(x, transferred))
_value = eqx.filter_jit(lambda function, features, own: function(features) if own is None else function(features, own))


@eqx.filter_jit
def _describe(
    predictor: Predictor, familiar: Applicability, features: Features, ends: Array
) -> tuple[Predictive | Array, ...]:
    p = predictor(features)
    usual = familiar(features, predictor.log_variance(features))
    told = p.summary(ends)
    return p, told.mean, told.sd, told.quantiles[..., 0], told.quantiles[..., 1], usual


INTERVALS: dict[str, Callable[[Calibration, float], float]] = {
    "posterior": lambda calibration, level: level,
    "recalibrated": Calibration.recalibrated_level,
    "conformal": Calibration.conformal_level,
}
"""Kinds of intervals: which central probability to ask of a predictive."""
_ENDS = (0.05, 0.95)
_score = eqx.filter_jit(lambda p, y: (p.mean(), p.quantiles(_ENDS), p.cdf(y), p.log_prob(y)))
_featurize = jax.jit(jax.vmap(featurize, (0, None)), static_argnums=1)


def _padded(array: np.ndarray) -> np.ndarray:
    """A batch brought to one length, so that one compiled program serves every number of molecules."""
    return np.concatenate([array, np.zeros((BATCH - len(array), *array.shape[1:]), array.dtype)])


def batch(features: Features, rows: slice) -> Features:
    """Some rows on the device, padded."""
    return Features(*(jnp.asarray(_padded(np.asarray(array)[rows])) for array in features))


def compute_features(tokens: np.ndarray, alphabet: Alphabet) -> Features:
    """Features of `(n, length)` tokens as NumPy arrays, in batches."""
    n = len(tokens)
    parts = [
        jax.tree.map(np.asarray, _featurize(jnp.asarray(_padded(tokens[start : start + BATCH]), jnp.int32), alphabet))
        for start in range(0, max(n, 1), BATCH)
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:n], *parts)


def calibrate(predictive: Predictive, observed: np.ndarray, label: str, unit: str, kind: str) -> Calibration:
    """Scores of predictives `(n, K)` against observations that they had not seen.

    With a log the CRPS is that of log y, as the score of y itself is infinite under Student errors of log y.

    Args:
        predictive: one for each observation.
        observed: `(n,)` [unit].
        label: the property in words.
        unit: of the observations.
        kind: see `Calibration`.
    """
    y = np.asarray(observed, np.float64)
    scored = _score(predictive, jnp.asarray(y, jnp.float32))
    mean, ends, pit, log_density = (np.asarray(v, np.float64) for v in scored)
    lower, upper = ends.T
    draws = np.asarray(predictive.loc)[..., None] + np.asarray(predictive.scale)[..., None] * _STRATA
    draws = draws.reshape(len(y), -1).T.astype(np.float64)
    crps = float(infer.crps(np.log(y) if predictive.log else y, draws).mean())
    scale = "of log y" if predictive.log else ""
    return Calibration(label, unit, kind, y, mean, lower, upper, pit, infer.nll(log_density), crps, scale)


_STRATA = np.array([-1.2815516, -0.5244005, 0.0, 0.5244005, 1.2815516], np.float32)
"""Quantiles 0.1, 0.3 … 0.9 of a standard normal: five draws for each component."""
