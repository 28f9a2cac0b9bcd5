"""The best of the usual ways to transfer: a Gaussian process on descriptors and on what seven source models say.

y = g1(f_s) + g3(x) + ε with an RBF kernel each, x the standardised descriptors and f_s the sources' predictions, which
is affine transfer with g2 = 1 (Minami et al. 2023); its five hyperparameters are averaged over. The sources are random
forests on RDKit's descriptors of whole tables of other properties, without any molecule of any target.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from pretrain_extractor import LOGARITHMIC, TABLES, chemicals_table, descriptors, polymer_tables
from sklearn.ensemble import RandomForestRegressor
from targets import held_out, without_held_out

from bayesmat import data, infer
from bayesmat._types import Array

from .regression import CLIP, Case, Predict, Predicted, filled, mixture

MOLECULES = (
    "boiling_point", "melting_point", "critical_temperature", "heat_of_vaporisation", "permittivity", "density",
    "log_p",
)  # fmt: skip
POLYMERS = ("Tg", "Egc", "eps", "nc", "Xc", "Ei", "Eat")
MOST_ROWS = 3000
"""Of a source's table, for the time that descriptors take."""
NUM_DRAWS, NUM_PROPOSALS = 32, 512


@cache
def source(name: str) -> RandomForestRegressor:
    """A random forest on descriptors of a whole table, its logarithm where that is usual."""
    if name in POLYMERS:
        values: dict[str, dict[str, float]] = {}
        polymer_tables(values)
        found = values[f"polymer_{name}"]
    elif name == "log_p":
        found = chemicals_table(TABLES[name], positive=False)
    else:
        table = without_held_out(data.load(name).organic())
        found = dict(zip(table.smiles, np.asarray(table.y, float), strict=True))
    smiles = [text for text in found if text and text not in held_out()]
    if len(smiles) > MOST_ROWS:
        smiles = [smiles[row] for row in np.random.default_rng(0).choice(len(smiles), MOST_ROWS, replace=False)]
    y = np.array([found[text] for text in smiles])
    x = descriptors(smiles).astype(float)
    model = RandomForestRegressor(200, max_features=1 / 3, min_samples_leaf=2, random_state=0)
    return model.fit(np.nan_to_num(x), np.log(y) if name in LOGARITHMIC else y)


_SAID: dict[tuple[str, str], np.ndarray] = {}
"""By target and source."""


def transferred(case: Case) -> np.ndarray:
    """Predictions of the sources, but for the target's own property, `(n, t)`."""
    names = [name for name in (POLYMERS if case.target.polymer else MOLECULES) if name != case.target.name]
    for key in [(case.target.name, name) for name in names]:
        if key not in _SAID:
            _SAID[key] = source(key[1]).predict(np.nan_to_num(case.descriptors))
    return np.column_stack([_SAID[case.target.name, name] for name in names])


def model(own: Array, other: Array, y: Array) -> None:
    """Of squared distances `(n, n)` by the mean squared distance, and standardised y `(n,)`."""
    own_scale = numpyro.sample("own_scale", dist.HalfNormal(1.0))
    other_scale = numpyro.sample("other_scale", dist.HalfNormal(1.0))
    own_length = numpyro.sample("own_length", dist.LogNormal(0.0, 0.7))
    other_length = numpyro.sample("other_length", dist.LogNormal(0.0, 0.7))
    sigma = numpyro.sample("sigma", dist.LogNormal(jnp.log(0.3), 0.8))
    covariance = _kernel(own, own_scale, own_length) + _kernel(other, other_scale, other_length)
    noisy = covariance + (sigma**2 + 1e-6) * jnp.eye(len(y))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(y)), covariance_matrix=noisy), obs=y)


def _kernel(squared: Array, scale: Array, length: Array) -> Array:
    return scale**2 * jnp.exp(-0.5 * squared / length**2)


def with_sources(case: Case, train: np.ndarray, seed: int) -> Predict:
    """Predictives are mixtures over draws of the hyperparameters, by importance sampling around their mode."""
    x = filled(case.descriptors, train)
    blocks = []
    for raw in (x, transferred(case)):
        center, spread = raw[train].mean(0), raw[train].std(0)
        varies = spread > 1e-9 * np.maximum(1.0, np.abs(center))
        blocks.append(np.clip((raw - center)[:, varies] / spread[varies], -CLIP, CLIP))
    squared = [_squared(block, block[train]) for block in blocks]
    unit = [distances[train].mean() for distances in squared]
    own, other = (distances / by for distances, by in zip(squared, unit, strict=True))
    y = case.target.y[train]
    center, width = y.mean(), y.std()
    rows = {"own": own[train], "other": other[train], "y": (y - center) / width}
    idata = infer.laplace(model, rows, jax.random.key(seed), num_draws=NUM_DRAWS, num_proposals=NUM_PROPOSALS)
    draws = {name: idata.posterior[name].values[0] for name in ("own_scale", "other_scale", "own_length",
                                                                "other_length", "sigma")}  # fmt: skip

    def predict(test: np.ndarray) -> Predicted:
        means, sds = [], []
        for own_scale, other_scale, own_length, other_length, sigma in zip(*draws.values(), strict=True):
            k = own_scale**2 * np.exp(-0.5 * own / own_length**2)
            k += other_scale**2 * np.exp(-0.5 * other / other_length**2)
            noisy = k[train] + (sigma**2 + 1e-6) * np.eye(len(train))
            weights = np.linalg.solve(noisy, k[test].T)
            means.append(center + width * (rows["y"] @ weights))
            variance = own_scale**2 + other_scale**2 + sigma**2 - (weights * k[test].T).sum(0)
            sds.append(width * np.sqrt(np.maximum(variance, 1e-9)))
        return mixture(case.target.y[test], np.transpose(means), np.transpose(sds))

    return predict


def _squared(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    norms = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T
    return np.maximum(norms, 0.0)
