"""A small perceptron on fingerprint and descriptors, which an abundant linear model is averaged with.

Landmarks are smooth in the descriptors alone; which environments go together, a network learns from thousands of
measurements. Its share is learned from rows that neither has seen. As one more column of the linear model it did worse:
what networks miss of a fold, the other columns learn from the rest of that fold, and then add to a network that has
seen it all.

Source: Breiman 1996, "Stacked regressions", doi 10.1007/BF00117832.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._types import Array
from ..nn import Weights

WIDTHS = (64, 64)
FOLDS = 5
EPOCHS, MAX_STEPS, BATCH = 20, 10_000, 64
RATE, DECAY, DROPOUT = 2e-3, 1e-2, 0.1
CLIP = 5.0
"""Standard deviations at which descriptors are cut: a molecule far away cannot blow the network up."""


def learn(bins: np.ndarray, z: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[Weights, np.ndarray]:
    """A network trained on all n rows, and what networks trained without a fifth say of that fifth, `(n,)`.

    Args:
        bins: `(n, f)` the fingerprint.
        z: `(n, d)` standardised descriptors.
        y: `(n,)` standardised.
        rng: first weights, batches, dropout and folds.
    """
    often = (bins > 0).sum(0) > 1  # of an environment that one molecule has, nothing can be learned
    x = jnp.asarray(np.concatenate([bins * often, np.clip(z, -CLIP, CLIP)], 1), jnp.float32)
    used = np.concatenate([often, np.ones(z.shape[1], bool)])
    target = jnp.asarray(y, jnp.float32)
    fold = rng.permutation(len(y)) % FOLDS
    unseen = np.empty(len(y))
    for left_out in range(FOLDS + 1):  # the last one leaves nothing out
        rows = _batches(np.flatnonzero(fold != left_out), len(y), rng)
        seed = jax.random.key(int(rng.integers(2**31)))
        weights = _trained(_first_weights(used, rng), x, target, rows, seed)
        unseen[fold == left_out] = np.asarray(_on(weights, x[fold == left_out]))
    first = weights.kernels[0] * used[:, None]
    return weights._replace(kernels=(first, *weights.kernels[1:])), unseen


def says(weights: Weights, bins: Array, z: Array) -> Array:
    """The network's `(...)` of fingerprints `(..., f)` and standardised descriptors `(..., d)`."""
    with jax.default_matmul_precision("highest"):
        first, count = weights.kernels[0], bins.shape[-1]
        inner = bins @ first[:count] + jnp.clip(z, -CLIP, CLIP) @ first[count:]
        return _rest(weights, inner)


def _batches(rows: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """`(steps, batch)` of the rows, one permutation after the other; as many steps for every fold."""
    steps = min(EPOCHS * num // BATCH, MAX_STEPS)
    passes = -(-steps * BATCH // len(rows))
    order = np.concatenate([rng.permutation(rows) for _ in range(passes)])
    return order[: steps * BATCH].reshape(steps, BATCH).astype(np.int32)


def _first_weights(used: np.ndarray, rng: np.random.Generator) -> Weights:
    """Normal kernels of variance 2 / (inputs used), as fits a rectifier."""
    shapes = zip((len(used), *WIDTHS), WIDTHS, (used.sum(), *WIDTHS), strict=False)
    kernels = [rng.normal(size=(rows, columns)) * np.sqrt(2 / inputs) for rows, columns, inputs in shapes]
    readout = rng.normal(size=WIDTHS[-1]) / np.sqrt(WIDTHS[-1])
    arrays = (tuple(kernels), tuple(np.zeros(w) for w in WIDTHS), readout, np.zeros(()))
    return Weights(*jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), arrays))


def _on(weights: Weights, x: Array, key: Array | None = None) -> Array:
    """`(n,)` of rows `(n, f + d)`; with a key, some hidden units are left out."""
    return _rest(weights, x @ weights.kernels[0], key)


def _rest(weights: Weights, inner: Array, key: Array | None = None) -> Array:
    """What follows the first product."""
    x = inner
    for layer, bias in enumerate(weights.biases):
        x = jax.nn.silu((x @ weights.kernels[layer] if layer else x) + bias)
        if key is not None:
            key, now = jax.random.split(key)
            x = x * jax.random.bernoulli(now, 1 - DROPOUT, x.shape) / (1 - DROPOUT)
    return x @ weights.readout + weights.offset


@jax.jit
def _trained(weights: Weights, x: Array, y: Array, rows: Array, key: Array) -> Weights:
    """AdamW on Huber's loss, over the given batches."""
    optimiser = optax.adamw(optax.cosine_onecycle_schedule(len(rows), RATE, 0.1), weight_decay=DECAY)

    def loss(weights: Weights, batch: Array, key: Array) -> Array:
        return optax.huber_loss(_on(weights, x[batch], key), y[batch]).mean()

    def step(carry: tuple[Weights, Any, Array], batch: Array) -> tuple[tuple[Weights, Any, Array], None]:
        weights, state, key = carry
        key, now = jax.random.split(key)
        updates, state = optimiser.update(jax.grad(loss)(weights, batch, now), state, weights)
        return (optax.apply_updates(weights, updates), state, key), None

    return jax.lax.scan(step, (weights, optimiser.init(weights), key), rows)[0][0]
