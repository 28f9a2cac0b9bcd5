"""From a table of measurements to a fitted property."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from .. import infer
from .._types import Array, BayesmatError, progress as progress_bar
from ..chem import Alphabet, encode
from ..data import PropertyTable
from ..infer import InferenceData
from ..nn import Features, Library, Stack, extractor, learned
from . import _design, _network, _posterior, _process_fit, _related, _store
from ._applicability import Applicability
from ._fitted import Fitted, calibrate, compute_features
from ._models import NoiseData, linear_model, noise_model
from ._predictive import Predictive
from ._predictor import NOVELTY_LIMIT, Linear, LinearPredictor, Predictor, ProcessPredictor
from ._process import components

MIN_ROWS = 10
NUM_SCALE_SETS = 4
"""Sets of scales that the weights of an abundant model are drawn from; each costs a Cholesky factor and more."""


def fit(
    table: PropertyTable,
    *,
    key: Array,
    alphabet: Alphabet | None = None,
    sources: Sequence[Fitted] = (),
    library: Library | None = None,
    own: Sequence[str] = _process_fit.OWN,
    transfer: Sequence[str] | None = None,
    num_draws: int = 64,
    refits: int = 0,
    log: bool | None = None,
    cache: bool = True,
    progress: bool = True,
) -> Fitted:
    """Learn a property from measurements; the model follows from how many there are.

    With fewer than 1,000 rows a Gaussian process on what is known of a molecule: descriptors, φ of the pre-trained
    extractor, what it says of other properties, what each source predicts. Models with and without each kind of
    transfer are fitted, their hyperparameters integrated out, and stacked by leave-one-out predictive density; the
    `summary` says what each was worth. With more rows a hierarchical linear model on descriptors, fingerprint and a
    kernel at 512 landmarks, its weights integrated out exactly, averaged with a small network in the shares that
    predict best what neither has seen. Errors are Student in both, learned from leave-one-out residuals; with n rows,
    n below some 250, two molecules in n + 4 may besides be exceptions, as far from what is predicted as measurements
    are. Sixty rows take half a second and, the first time, some fifteen seconds of compilation; ten thousand half a
    minute.

    Args:
        table: measurements; molecules that the alphabet cannot say are set aside and counted.
        key: random key; the same key gives the same fit.
        alphabet: of the strings that the predictor will read; `Alphabet.organic()` if None.
        sources: fits to transfer from; not used with 1,000 rows and more. Those that would agree with the measurements
            as well if their predictions were shuffled are set aside, see `Fitted.unrelated`.
        library: pre-trained models to transfer from, likewise, such as `nn.library()`. Those of a property of the
            table's name are left out; whether others have seen its molecules, their cards say.
        own: with fewer than 1,000 rows, which features of the molecule itself are used: "descriptors", which compile
            and run several times as fast in a sampler, "physical", which predict better, and "fingerprint", which is
            left out with fewer than 300 rows unless it is named alone.
        transfer: kinds of transfer that are tried with fewer than 1,000 rows: "learned" (φ of the extractor),
            "properties" (what it says of other properties), "sources", "library"; () for none. None for all, but for
            the first two where the extractor was itself trained on a property of the table's name: it has seen the
            answers, so leave-one-out would promise too much.
        num_draws: components K of a predictive, but for those of exceptions.
        refits: judge the fit, and learn the width of its recalibrated and conformal intervals, by predictions of models
            that were fitted again without a part of the rows, for so many parts: leave-one-out predictions of one fit,
            whose hyperparameters have seen all rows, promise one or two per cent too much. 0 for none; ten take as
            long as ten fits. Not used with 1,000 rows and more.
        log: model log y. None decides: all y positive, their skewness above 1, and log y less skewed than y.
        cache: keep the fit on disk and read it when nothing that went in has changed.
        progress: show a progress bar when it takes more than two seconds.

    Raises:
        BayesmatError: fewer than 10 usable rows, values that are not finite, all equal or not positive under a log,
            too few draws, or refits below 3.
    """
    alphabet = Alphabet.organic() if alphabet is None else alphabet
    y_all = np.asarray(table.y, np.float64)
    if not np.isfinite(y_all).all():
        raise BayesmatError(f"{table.name}: {int((~np.isfinite(y_all)).sum())} values are not finite")
    if transfer is None:
        seen = table.name in extractor().property_names
        transfer = tuple(kind for kind in _process_fit.TRANSFER if not seen or kind in ("sources", "library"))
    if unknown := sorted(set(transfer) - set(_process_fit.TRANSFER)):
        raise BayesmatError(f"transfer {unknown[0]!r} is unknown; allowed are {', '.join(_process_fit.TRANSFER)}")
    if not own or (unknown := sorted(set(own) - set(_process_fit.OWN))):
        raise BayesmatError(f"own features {list(own)}; allowed are one or more of {', '.join(_process_fit.OWN)}")
    if num_draws < 8:
        raise BayesmatError(f"num_draws is {num_draws}; a predictive needs at least 8")
    if refits and refits < 3:
        raise BayesmatError(f"refits is {refits}; allowed are 0, and 3 or more")
    if log and (y_all <= 0).any():
        raise BayesmatError(f"{table.name}: log=True, but {int((y_all <= 0).sum())} values are not positive")
    log = is_logarithmic(y_all) if log is None else bool(log)
    shotgun = None if library is None else _chosen(library, table.name)
    options = [num_draws, refits, log, *sorted(own), *sorted(transfer)]
    fingerprint = _store.fingerprint(table, alphabet, tuple(sources), shotgun, options, key)
    if cache and (found := _store.from_cache(table.name, fingerprint)) is not None:
        return found
    how = _How(shotgun, tuple(own), tuple(transfer), num_draws, refits, log, progress)
    fitted = _fit(table, alphabet, tuple(sources), how, key, fingerprint)
    if cache:
        _store.to_cache(fitted)
    return fitted


def _chosen(library: Library, name: str) -> Stack | None:
    """The models of a library that are not of the property itself.

    Raises:
        BayesmatError: they do not read what the shipped extractor gives.
    """
    if library.feature_set != learned().feature_set:
        raise BayesmatError(
            f"the library's models read {library.feature_set.name!r} features of version "
            f"{library.feature_set.version}; a fit gives {learned().feature_set.name!r} of version "
            f"{learned().feature_set.version}: train it again"
        )
    names = [key for key, entry in library.entries.items() if entry.property != name]
    return library.stack(names) if names else None


def is_logarithmic(y: np.ndarray) -> bool:
    """Whether y is modelled by its logarithm: positive, of skewness above 1, and less skewed as a logarithm."""
    if (y <= 0).any() or np.ptp(y) == 0 or not scipy.stats.skew(y) > 1:
        return False
    return bool(abs(scipy.stats.skew(np.log(y))) < scipy.stats.skew(y))


def _fit(
    table: PropertyTable,
    alphabet: Alphabet,
    sources: tuple[Fitted, ...],
    how: _How,
    key: Array,
    fingerprint: str,
) -> Fitted:
    names = ("structures", "features", "scales", "weights", "noise", "calibration")
    stages = iter(progress_bar(names, f"fitting {table.label}") if how.progress else names)

    next(stages)
    encoded = encode(table.smiles, alphabet, description=f"structures of {table.label}")
    smiles = tuple(table.smiles[row] for row in encoded.kept)
    observed = np.asarray(table.y, np.float64)[encoded.kept]
    n = len(smiles)
    if n < MIN_ROWS:
        aside = f"; {len(encoded.refusals)} were set aside: {dict(encoded.refused)}" if encoded.refusals else ""
        raise BayesmatError(f"{table.name}: {n} usable rows, at least {MIN_ROWS} are needed{aside}")
    value = np.log(observed) if how.log else observed
    center, width = float(value.mean()), float(value.std())
    if not width > 1e-9 * max(abs(center), 1e-300):
        raise BayesmatError(f"{table.name}: all {n} values are equal, there is nothing to learn")
    y = (value - center) / width

    next(stages)
    abundant = n >= _design.ABUNDANT
    used = () if abundant else sources
    with ThreadPoolExecutor(1) as beside:
        ahead = None if abundant else beside.submit(_compile_process, n, bool(used), how)
        features = compute_features(encoded.tokens, alphabet)
        if ahead is not None:
            ahead.result()
    used, transferred, unrelated = _believed(used, smiles, features, y, key)
    about = {"alphabet": alphabet, "log": how.log, "name": table.name, "label": table.label, "unit": table.unit}
    task = _Task(features, transferred, y, center, width, tuple(s.predictor.average() for s in used), how, about)
    found = (_linear if abundant else _process)(task, key, stages)
    calibration = calibrate(found.unseen, observed, table.label, table.unit, found.judged)
    familiar = Applicability.from_training(features, 2 * np.log(np.maximum(found.loo_sd, 1e-15)), key)
    unrelated += found.unrelated
    idata = infer.to_inference_data(
        {name: array[None] for name, array in found.posterior.items()},
        dims={**found.dims, "y": ["molecule"], "loo_mean": ["molecule"], "loo_sd": ["molecule"],
              "loo_pit": ["molecule"]},
        coords={**found.coords, "molecule": list(smiles)},
        attrs={**found.attrs, "label": table.label, "unit": table.unit},
        observed_data={"y": observed},
        constant_data={"loo_mean": found.loo_mean, "loo_sd": found.loo_sd, "loo_pit": calibration.pit,
                       **found.constant},
    )  # fmt: skip
    next(stages, None)
    return Fitted(table.name, table.label, table.unit, found.predictor, idata, calibration, familiar, smiles, observed,
                  found.loo_mean, encoded.refusals, used, unrelated, fingerprint)  # fmt: skip


def _believed(
    sources: tuple[Fitted, ...], smiles: tuple[str, ...], features: Features, y: np.ndarray, key: Array
) -> tuple[tuple[Fitted, ...], np.ndarray, tuple[tuple[str, float], ...]]:
    """The sources that have to do with y, what they say `(n, t)`, and the others by label with their p-values."""
    columns = np.reshape([source.transferable(smiles, features) for source in sources], (-1, len(y))).T
    chances = _related.chances(columns, y, key)
    kept = _related.believed(chances)
    others = tuple((source.label, p) for source, p, good in zip(sources, chances, kept, strict=True) if not good)
    return tuple(itertools.compress(sources, kept)), columns[:, np.array(kept, bool)], others


def _compile_process(n: int, has_sources: bool, how: _How) -> None:
    """See `_process_fit.compile_ahead`."""
    told = {"learned": True, "properties": True, "sources": has_sources, "library": how.library is not None}
    blocks = len(_process_fit.own_blocks(n, how.own)) + sum(told[kind] for kind in how.transfer)
    _process_fit.compile_ahead(n, blocks, max(1, how.num_draws // _process_fit.num_hyper(n)))


class _How(NamedTuple):
    """Options of a fit that are not data."""

    library: Stack | None
    own: tuple[str, ...]
    transfer: tuple[str, ...]
    num_draws: int
    refits: int
    log: bool
    progress: bool


class _Task(NamedTuple):
    """What both kinds of model are fitted to."""

    features: Features
    transferred: np.ndarray
    y: np.ndarray
    center: float
    width: float
    sources: tuple[Any, ...]
    how: _How
    about: dict[str, Any]


class _Found(NamedTuple):
    """What both kinds of model come to.

    Attributes:
        predictor: x → p(y | x, D).
        unseen: each measurement as it is predicted without it.
        judged: how that was done, see `Calibration.kind`.
        loo_mean: `(n,)` the function at each molecule given the others, in modelling space.
        loo_sd: `(n,)` its standard deviation.
        posterior: draws by site.
        dims: names of the sites' axes.
        coords: their labels.
        attrs: about the inference.
        constant: what else is told.
        unrelated: what was set aside beside sources, see `Fitted.unrelated`.
    """

    predictor: Predictor
    unseen: Predictive
    judged: str
    loo_mean: np.ndarray
    loo_sd: np.ndarray
    posterior: dict[str, np.ndarray]
    dims: dict[str, list[str]]
    coords: dict[str, Any]
    attrs: dict[str, Any]
    constant: dict[str, np.ndarray]
    unrelated: tuple[tuple[str, float], ...] = ()


def _process(task: _Task, key: Array, stages: Iterator[str]) -> _Found:
    """Scarce measurements: a Gaussian process on counts, learned features, properties and sources, stacked."""
    keys = jax.random.split(key, 3)
    how = task.how
    blocks = _process_fit.make_blocks(task.features, task.transferred, how.library, how.transfer, how.own)
    doubted = [block for block in blocks if block.name == "library"]
    chances = [_related.chance(np.asarray(block.rows), task.y, key) for block in doubted]
    unrelated = tuple(("library", p) for p, good in zip(chances, _related.believed(chances), strict=True) if not good)
    blocks = [block for block in blocks if block.name not in dict(unrelated)]
    names = [block.name for block in blocks]
    next(stages)
    rows = [np.asarray(block.rows) for block in blocks]
    candidates = _process_fit.compare(rows, names, task.y, keys[0])
    next(stages)
    stacked = _process_fit.combine(candidates)
    process = _process_fit.to_process(blocks, stacked, task.y, task.center, task.width, task.sources, task.how.library)
    next(stages)
    each = max(1, task.how.num_draws // len(stacked.owner))
    stretch, errors = _process_fit.learn_stretch(stacked, task.y, keys[1], each)
    more = _process_fit.exceptions(len(task.y), stretch.size)
    # The next molecule's standard deviation is that of all, as the mean of all is not exact either.
    spread = task.width * np.sqrt((len(task.y) + 1) / (len(task.y) - 1))
    predictor = ProcessPredictor(
        process=process, noise_scale=jnp.asarray(task.width * stacked.hyper.sigma, jnp.float32),
        stretch=jnp.asarray(stretch, jnp.float32), spread=jnp.asarray(spread, jnp.float32), exceptions=more,
        **task.about,
    )  # fmt: skip
    next(stages)
    judged = "cross-validation" if how.refits else "leave-one-out"
    if how.refits:
        loc, scale = _process_fit.out_of_fold(rows, names, task.y, keys[2], each, min(how.refits, len(task.y)),
                                                how.progress)  # fmt: skip
    else:
        loc, scale = map(np.asarray, components(stacked.loo_mean.T, stacked.loo_variance.T, stretch,
                                                *_process_fit.without(task.y), more))  # fmt: skip
    unseen = Predictive(jnp.asarray(task.center + task.width * loc, jnp.float32),
                        jnp.asarray(task.width * scale, jnp.float32), how.log)  # fmt: skip
    function = stacked.loo_variance - stacked.hyper.sigma[:, None] ** 2
    loo_sd = task.width * np.sqrt(np.maximum(function.mean(0), 0.0) + stacked.loo_mean.var(0))
    linear, smooth, length, sigma = stacked.hyper
    posterior: dict[str, Any] = {
        "scale": np.concatenate([linear, smooth], 1),
        "length": length,
        "sigma": sigma,
        "model": stacked.owner,
    }
    posterior |= _thinned(errors, len(sigma))
    groups = [f"{name} {kind}" for kind in ("linear", "smooth") for name in names]
    by_model = {
        "weight": stacked.weight,
        "log_evidence": np.array([candidate.log_evidence for candidate in candidates]),
        "loo_log_density": np.array([candidate.log_density.sum() for candidate in candidates]),
        "effective_draws": np.array([candidate.effective_draws for candidate in candidates]),
    }
    dims = {"scale": ["group"], "length": ["block"], **{name: ["candidate"] for name in by_model}}
    coords = {"group": groups, "block": names, "candidate": [candidate.name for candidate in candidates]}
    loo_mean = task.center + task.width * stacked.loo_mean.mean(0)
    return _Found(predictor, unseen, judged, loo_mean, loo_sd, posterior, dims, coords, {"inference": "importance"},
                  by_model, unrelated)  # fmt: skip


def _linear(task: _Task, key: Array, stages: Iterator[str]) -> _Found:
    """Abundant measurements: a linear model on descriptors, fingerprint and landmarks, averaged with a network.

    Only means are averaged. The draws keep their distances from the mean, which the noise model stretches to fit the
    errors that the average has on rows that neither has seen.
    """
    keys = jax.random.split(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[2])).ravel())
    y, center, width, num_draws = task.y, task.center, task.width, task.how.num_draws
    design = _design.build(task.features, rng)
    z = np.asarray((task.features.descriptors - design.basis.descriptor_mean) / design.basis.descriptor_scale)
    network, unseen = _network.learn(np.asarray(task.features.fingerprint), z, y, rng)
    next(stages)
    stats = _posterior.sufficient(design.matrix, y, design.groups)
    scales = infer.laplace(linear_model, {"stats": stats}, keys[0], num_draws=num_draws)
    nodes = _thinned(scales, NUM_SCALE_SETS)
    next(stages)
    weights = _posterior.draw(design.matrix, y, stats, nodes["scale"], nodes["sigma"], num_draws, rng)
    apart = unseen - weights.loo_mean
    share = float(np.clip(apart @ (y - weights.loo_mean) / max(apart @ apart, 1e-12), 0.0, 1.0))
    weights = weights._replace(loo_mean=weights.loo_mean + share * apart)
    on_basis = design.to_basis(weights.draws, weights.scale, rng)
    exact = design.to_basis(weights.draws.mean(0, keepdims=True), weights.scale[:1], None)
    on_basis += (1 - share) * exact - on_basis.mean(0)  # bins never seen have a mean of zero too
    on_basis = np.column_stack([on_basis, np.full(num_draws, share)]) * width
    on_basis[:, 0] += center

    next(stages)
    log_variance = np.log(weights.loo_variance)
    novelty_mean, novelty_scale = float(log_variance.mean()), max(float(log_variance.std()), 1e-3)
    novelty = np.clip((log_variance - novelty_mean) / novelty_scale, -NOVELTY_LIMIT, NOVELTY_LIMIT)
    variance = weights.loo_variance + np.mean(nodes["sigma"] ** 2)
    errors = NoiseData(y - weights.loo_mean, variance, novelty)
    noise = _thinned(infer.laplace(noise_model, {"data": errors}, keys[1], num_draws=num_draws), num_draws)
    level = (rng.permutation(num_draws) + 0.5) / num_draws
    mixing = scipy.stats.gamma.ppf(level, noise["noise_dof"] / 2, scale=2 / noise["noise_dof"])
    arrays = {
        "noise_scale": width * weights.sigma,
        "noise_log_stretch": noise["noise_log_stretch"],
        "noise_slope": noise["noise_slope"],
        "noise_mixing": mixing**-0.5,
        "novelty_mean": novelty_mean + 2 * np.log(width),
        "novelty_scale": novelty_scale,
    }
    named: dict[str, Any] = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    basis = replace(design.basis, network=network)
    linear = Linear(basis, jnp.asarray(on_basis, jnp.float32))
    predictor = LinearPredictor(linear=linear, **named, **task.about)

    next(stages)
    loo_mean = center + width * weights.loo_mean
    loo = leave_one_out_predictive(predictor, loo_mean, width**2 * weights.loo_variance)
    posterior = {**_thinned(scales, len(on_basis)), **noise, "weights": np.asarray(on_basis, np.float32)}
    return _Found(predictor, loo, "leave-one-out", loo_mean, width * np.sqrt(weights.loo_variance), posterior,
                  {"scale": ["group"], "weights": ["column"]},
                  {"group": design.group_names, "column": [*design.column_names(), "network"]},
                  {"inference": scales.attrs["inference"]}, {"network_share": np.array(share)})  # fmt: skip


def _thinned(idata: InferenceData, num: int) -> dict[str, np.ndarray]:
    """`num` draws, evenly spaced over the chains, as `(num, ...)` arrays by name."""
    flat = {str(name): idata.posterior[name].values for name in idata.posterior.data_vars}
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in flat.items()}
    total = len(next(iter(flat.values())))
    chosen = (np.arange(num) + 0.5) * total / num
    return {name: array[chosen.astype(int)] for name, array in flat.items()}


def leave_one_out_predictive(predictor: LinearPredictor, mean: np.ndarray, variance: np.ndarray) -> Predictive:
    """Predictives `(n, K)` from exact moments of the function in place of the predictor's draws.

    The K values of the function are normal quantiles, paired with the noise by a rank-one lattice.
    """
    k = predictor.num_draws
    quantile = scipy.special.ndtri((np.arange(k) + 0.5) / k)
    quantile *= 1.0 / quantile.std()
    by_noise = np.argsort(np.argsort(np.asarray(predictor.noise_mixing)))
    lattice = np.argsort(np.argsort((np.arange(k) * 0.6180339887) % 1.0))
    standard = quantile[lattice[by_noise]]
    loc = jnp.asarray(mean[:, None] + np.sqrt(variance)[:, None] * standard, jnp.float32)
    return predictor.at(loc)
