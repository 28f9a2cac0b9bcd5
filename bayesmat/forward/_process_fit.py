"""Fitting the process: which blocks to believe, by stacking, and the predictor that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from scipy.special import logsumexp
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from .. import infer
from .._types import Array, progress
from ..infer import InferenceData
from ..nn import Features, Stack, base_features
from ._process import (
    CLIP,
    Block,
    Hyper,
    Process,
    ProcessData,
    components,
    error_model,
    many_posteriors,
    pairs,
    process_model,
)

NUM_HYPER = 32
NUM_ERRORS = 96
"""Draws of the error model, and levels of its mixing variable for each."""
MANY_ROWS = 500
"""Below it one thread works on a matrix: several take longer to find each other than to do the work, and on a busy
machine a hundred times as long."""
MIN_SCALE = 0.1
"""Floor of a count's standard deviation, where one more group is 0.7; see `_design.MIN_DESCRIPTOR_SCALE`."""


class Candidate(NamedTuple):
    """One model of those that are stacked.

    Attributes:
        name: its blocks.
        used: `(B,)`.
        hyper: `(M, B)` draws, and `(M,)`.
        loo_mean: `(M, n)` of each y without it.
        loo_variance: `(M, n)` noise included.
        log_density: `(n,)` of each y without it, over the draws.
        log_evidence: by importance sampling.
        effective_draws: of the proposals.
    """

    name: str
    used: np.ndarray
    hyper: Hyper
    loo_mean: np.ndarray
    loo_variance: np.ndarray
    log_density: np.ndarray
    log_evidence: float
    effective_draws: float


OWN = ("descriptors", "physical", "fingerprint")
"""Blocks that no other measurement went into."""
MANY = 300
"""From this many rows on the fingerprint is one of the blocks; fewer do not tell what an environment is worth."""


TRANSFER = ("learned", "properties", "sources", "library")
"""Blocks that other measurements went into."""


def own_blocks(n: int, own: Sequence[str]) -> list[str]:
    """Those of `own` that n rows are told."""
    return [name for name in own if n >= MANY or name != "fingerprint" or len(own) == 1]


def make_blocks(
    features: Features,
    transferred: np.ndarray,
    library: Stack | None,
    transfer: Sequence[str],
    own: Sequence[str] = OWN,
) -> list[Block]:
    """The blocks of n training molecules: its own, and those of `transfer` that there are."""
    own = own_blocks(len(features.descriptors), own)
    learned = [name for name in ("learned", "properties") if name in transfer]
    raw = {name: np.asarray(getattr(features, name), np.float64) for name in (*own, *learned)}
    if "sources" in transfer:
        raw["sources"] = np.asarray(transferred, np.float64)
    if "library" in transfer and library is not None:
        raw["library"] = np.asarray(_library_says(library, features), np.float64)
    return [block(name, array) for name, array in raw.items() if array.shape[1]]


@eqx.filter_jit
def _library_says(library: Stack, features: Features) -> Array:
    return library.predict(base_features(features))


def block(name: str, raw: np.ndarray) -> Block:
    """Features `(n, d)` of the training molecules, standardised."""
    center, spread = raw.mean(0), raw.std(0)
    if name == "fingerprint":
        spread = np.where(spread > 0, 1.0, 0.0)  # environments count alike, however rare
    elif name in OWN:
        spread = np.maximum(spread, MIN_SCALE)
    flat = spread < 1e-6 * np.maximum(np.abs(center), 1.0)
    spread = np.where(flat, np.inf, spread)  # a feature that does not vary says nothing
    standard = np.clip((raw - center) / spread, -CLIP, CLIP)
    size = max(float(np.sqrt((standard**2).sum(1).mean())), 1e-6)
    arrays = {
        "center": center,
        "scale": np.where(flat, 1e30, spread * size),
        "limit": CLIP / size,
        "rows": standard / size,
    }
    named: dict[str, Any] = {key: jnp.asarray(value, jnp.float32) for key, value in arrays.items()}
    return Block(name=name, **named)


def candidates(names: list[str]) -> dict[str, np.ndarray]:
    """The models that are compared, as masks over the blocks: without transfer, with each kind of it, with all."""
    own = np.array([name in OWN for name in names], float)
    found = {"no transfer": own}
    for name in names:
        if name not in OWN:
            found[name] = own + (np.array(names) == name)
    if len(found) > 2:
        found["all"] = np.ones(len(names))
    return found


def compare(
    rows: list[np.ndarray], names: list[str], y: np.ndarray, key: Array, apart: np.ndarray | None = None
) -> list[Candidate]:
    """Every candidate fitted to standardised y; float64. For `apart` see `ProcessData`."""
    apart = np.zeros(len(y)) if apart is None else apart
    with jax.enable_x64(True), threadpool_limits(1 if len(y) < MANY_ROWS else None, "blas"):
        between = pairs([jnp.asarray(row, jnp.float64) for row in rows])
        found = []
        for index, (name, used) in enumerate(candidates(names).items()):
            data = ProcessData(between, jnp.asarray(y, jnp.float64), jnp.asarray(used, jnp.float64),
                               jnp.asarray(apart, jnp.float64))  # fmt: skip
            found.append(_candidate(name, used, data, jax.random.fold_in(key, index)))
    return found


FEW_ROWS = 200
_COMPILED: set[tuple[int, int]] = set()


def compile_ahead(n: int, num_blocks: int, num: int) -> None:
    """Have what a fit of n rows runs compiled, by a fit of made-up numbers, so that it can be done beside other work.

    A first fit is compilation for the most part, half of it of features and half of this. Nothing is done where it was
    done before, or for many rows, whose fit of made-up numbers would itself take time.

    Args:
        n: rows.
        num_blocks: blocks of features.
        num: factors of `learn_stretch`.
    """
    if n > FEW_ROWS or (n, num_blocks) in _COMPILED:
        return
    _COMPILED.add((n, num_blocks))
    rng, key = np.random.default_rng(0), jax.random.key(0)
    rows = [rng.normal(size=(n, 2)) / np.sqrt(2) for _ in range(num_blocks)]
    y = sum(row[:, 0] for row in rows) + 0.3 * rng.normal(size=n)
    y = (y - y.mean()) / y.std()
    with jax.enable_x64(True), threadpool_limits(1, "blas"):
        between = pairs([jnp.asarray(row, jnp.float64) for row in rows])
        data = ProcessData(between, jnp.asarray(y), jnp.ones(num_blocks), jnp.zeros(n))
        learn_stretch(combine([_candidate("", np.ones(num_blocks), data, key)]), y, key, num)


def _candidate(name: str, used: np.ndarray, data: ProcessData, key: Array) -> Candidate:
    idata = infer.laplace(process_model, {"data": data}, key, num_draws=num_hyper(len(data.y)),
                          num_proposals=num_proposals(len(data.y)))  # fmt: skip
    drawn = {str(site): idata.posterior[site].values[0] for site in idata.posterior.data_vars}
    hyper = Hyper(drawn["linear"] * used, drawn["smooth"] * used, drawn["length"], drawn["sigma"])
    exact = many_posteriors(Hyper(*map(jnp.asarray, hyper)), data)
    mean, variance = np.asarray(exact.loo_mean), np.asarray(exact.loo_variance)
    density = norm.logpdf(np.asarray(data.y), mean, np.sqrt(variance))
    density = logsumexp(density + np.log(leave_out(density)), axis=0)
    attrs = idata.attrs
    return Candidate(name, used, hyper, mean, variance, density, float(attrs["log_evidence"]),
                     float(attrs["effective_draws"]))  # fmt: skip


def leave_out(log_density: np.ndarray) -> np.ndarray:
    """Weights `(M, n)` of hyperparameter draws for each row, as if it had not been seen.

    Draws that saw y_i favour themselves by p(y_i | y_-i, θ), so that is divided out; truncated importance weights.

    Args:
        log_density: `(M, n)` of each y without it, given each draw.

    Source: Gelfand 1996; Ionides 2008, doi 10.1198/106186008X320456.
    """
    weight = np.exp(log_density.min(0) - log_density)
    weight = np.minimum(weight / weight.sum(0), len(weight) ** -0.5)
    return weight / weight.sum(0)


def num_proposals(n: int) -> int:
    """A Cholesky factor each; with more data the posterior is nearer to normal, and fewer do."""
    return int(np.clip(24000 // n, 48, 768))


def num_hyper(n: int) -> int:
    """Draws of the hyperparameters: each keeps an `(n, n)` array, and with more data they differ less."""
    return int(np.clip(3200 // n, 4, NUM_HYPER))


def stack(log_density: np.ndarray, iterations: int = 500) -> np.ndarray:
    """Weights `(M,)` of models that maximise the mean log density `(M, n)` of their mixture, by EM.

    A prior of one observation for each model keeps weights from deciding on noise.

    Source: Yao et al. 2018, doi 10.1214/17-BA1091.
    """
    count = len(log_density)
    weight = np.full(count, 1.0 / count)
    for _ in range(iterations):
        log_share = np.log(weight)[:, None] + log_density
        share = np.exp(log_share - logsumexp(log_share, axis=0))
        weight = (share.sum(1) + 1.0) / (log_density.shape[1] + count)
    return weight


class Stacked(NamedTuple):
    """Draws of the hyperparameters from all candidates, in proportion to their weights.

    Attributes:
        weight: `(M,)` of the candidates.
        hyper: `(K, B)` and `(K,)`.
        loo_mean: `(K, n)`.
        loo_variance: `(K, n)`.
        owner: `(K,)` the candidate that each draw comes from.
    """

    weight: np.ndarray
    hyper: Hyper
    loo_mean: np.ndarray
    loo_variance: np.ndarray
    owner: np.ndarray


def combine(found: list[Candidate]) -> Stacked:
    """Systematic draws: as many of each candidate as its weight says."""
    weight = stack(np.array([candidate.log_density for candidate in found]))
    num = len(found[0].hyper.sigma)
    owner = np.minimum(np.searchsorted(np.cumsum(weight), (np.arange(num) + 0.5) / num), len(found) - 1)
    turn = np.array([(owner[:k] == owner[k]).sum() for k in range(num)])
    rows = [int(num * (turn[k] + 0.5) / (owner == owner[k]).sum()) for k in range(num)]
    pick = list(zip(owner, rows, strict=True))

    def drawn(part: Callable[[Candidate], Any]) -> Any:
        return np.array([np.asarray(part(found[m]))[row] for m, row in pick])

    hyper = Hyper(drawn(lambda c: c.hyper.linear), drawn(lambda c: c.hyper.smooth), drawn(lambda c: c.hyper.length),
                  drawn(lambda c: c.hyper.sigma))  # fmt: skip
    return Stacked(weight, hyper, drawn(lambda c: c.loo_mean), drawn(lambda c: c.loo_variance), owner)


def exceptions(n: int, num: int) -> int:
    """How many components to add to `num`, for molecules of which the model does not know how far off it is.

    None of n molecules is known to be such an exception. Two that are and two that are not are added to them, so the
    next is one with probability 2 / (n + 4). Without exceptions a fit whose few molecules happen to be easy would be
    far too sure of all others.

    >>> [exceptions(n, 64) for n in (10, 30, 60, 120, 500)]
    [11, 4, 2, 1, 0]

    Source: Agresti and Coull 1998, The American Statistician 52, 119.
    """
    return round(2 * num / (n + 2))


def without(y: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `(n,)` of each y as it is predicted by the others' values alone.

    Args:
        y: `(n,)`.
        kept: `(n,)` bool, the others that count; None for all.
    """
    count = np.ones(len(y)) if kept is None else np.asarray(kept, float)
    others = count.sum() - count
    mean = ((count * y).sum() - count * y) / others
    variance = ((count * y**2).sum() - count * y**2) / others - mean**2
    # The others may all be equal, and still the next one need not be.
    return mean, np.sqrt(np.maximum(variance, 0.01) * (others + 1) / (others - 1))


def learn_stretch(
    stacked: Stacked, y: np.ndarray, key: Array, num: int, kept: np.ndarray | None = None
) -> tuple[np.ndarray, InferenceData]:
    """Factors `(K, num)` of the standard deviations, from leave-one-out errors, and the posterior that they are of.

    They are quantiles of the factor, so that no chance decides how far the tails go, dealt so that each of the K gets
    one of each of `num` ranges.

    Args:
        stacked: K draws.
        y: `(n,)` standardised.
        key: random key.
        num: factors for each draw.
        kept: `(n,)` bool, the rows whose errors count; None for all.
    """
    everyone = np.ones(len(y), bool) if kept is None else kept
    weight = leave_out(norm.logpdf(y, stacked.loo_mean, np.sqrt(stacked.loo_variance)))
    mean = (weight * stacked.loo_mean).sum(0)
    sd = np.sqrt((weight * (stacked.loo_variance + stacked.loo_mean**2)).sum(0) - mean**2)
    center, width = without(y, kept)
    data = {"standardised": (y - mean) / sd, "apart": np.hypot(width, mean - center) / sd,
            "share": np.asarray(2.0 / (everyone.sum() + 4)), "kept": everyone}  # fmt: skip
    idata = infer.laplace(error_model, data, key, num_draws=NUM_ERRORS, num_proposals=1024)
    dof, log_stretch = (idata.posterior[name].values[0] for name in ("noise_dof", "noise_log_stretch"))
    level = (np.arange(NUM_ERRORS) + 0.5) / NUM_ERRORS
    mixing = scipy.stats.gamma.ppf(level[:, None], dof / 2, scale=2 / dof)
    factors = np.sort((np.exp(log_stretch) * mixing**-0.5).ravel())
    draws = len(stacked.loo_mean)
    position = (np.arange(draws * num) + 0.5) / (draws * num)
    ranges = factors[(position * len(factors)).astype(int)].reshape(num, draws)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    return rng.permuted(ranges, axis=1).T, idata


LEFT_OUT = 1e6
"""Variance of the noise of a row that says nothing; that of y is one."""


def out_of_fold(
    rows: list[np.ndarray], names: list[str], y: np.ndarray, key: Array, num: int, folds: int, bar: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Each y as models predict it that were fitted without it: means and standard deviations of its components.

    All of the fit is done again for each fold: hyperparameters, weights of the candidates, stretch. A row is left out
    by noise, so that all folds run what was compiled for the fit itself; features stay standardised and sources
    chosen by all rows.

    Args:
        rows: of each block.
        names: of the blocks.
        y: `(n,)` standardised.
        key: random key.
        num: components for each draw of the hyperparameters.
        folds: how many parts the rows are dealt into.
        bar: show how far it is.
    """
    of_row = np.random.default_rng(np.asarray(jax.random.bits(key, (4,)))).permutation(np.arange(len(y)) % folds)
    loc: list[Any] = [None] * len(y)
    scale: list[Any] = [None] * len(y)
    for fold in progress(range(folds), "fitting again without a part", folds) if bar else range(folds):
        out = of_row == fold
        key_compare, key_stretch = jax.random.split(jax.random.fold_in(key, fold))
        found = compare(rows, names, y, key_compare, np.where(out, LEFT_OUT, 0.0))
        stacked = combine([candidate._replace(log_density=candidate.log_density[~out]) for candidate in found])
        stretch, _ = learn_stretch(stacked, y, key_stretch, num, ~out)
        variance = np.maximum(stacked.loo_variance - LEFT_OUT, stacked.hyper.sigma[:, None] ** 2)
        more = exceptions(len(y), stretch.size)
        of_fold = components(stacked.loo_mean.T, variance.T, stretch, *without(y, ~out), more)
        for row in np.flatnonzero(out):
            loc[row], scale[row] = (np.asarray(part[row]) for part in of_fold)
    return np.array(loc), np.array(scale)


def to_process(
    blocks: list[Block],
    stacked: Stacked,
    y: np.ndarray,
    center: float,
    width: float,
    sources: tuple[Any, ...],
    library: Stack | None,
) -> Process:
    """The K posteriors, with blocks that no draw uses left out."""
    kept = [b for b in range(len(blocks)) if (stacked.hyper.linear[:, b] + stacked.hyper.smooth[:, b]).any()]
    blocks = [blocks[b] for b in kept]
    names = [block.name for block in blocks]
    whole = stacked.hyper
    hyper = Hyper(whole.linear[:, kept], whole.smooth[:, kept], whole.length[:, kept], whole.sigma)
    with jax.enable_x64(True), threadpool_limits(1 if len(y) < MANY_ROWS else None, "blas"):
        between = pairs([jnp.asarray(np.asarray(block.rows), jnp.float64) for block in blocks])
        data = ProcessData(between, jnp.asarray(y, jnp.float64), jnp.ones(len(blocks)), jnp.zeros(len(y)))
        exact = many_posteriors(Hyper(*(jnp.asarray(part, jnp.float64) for part in hyper)), data)
    single = {"linear": hyper.linear, "smooth": hyper.smooth, "length": hyper.length, "weights": exact.weights,
              "root": exact.root, "center": center, "width": width}  # fmt: skip
    named: dict[str, Any] = {name: jnp.asarray(np.asarray(array), jnp.float32) for name, array in single.items()}
    given: dict[str, Any] = {"sources": sources if "sources" in names else ()}
    given["library"] = library if "library" in names else None
    return Process(blocks=tuple(blocks), **given, **named)
