"""Fitting the neural prior: randomised strings of a corpus, in batches of like length.

The loss of a string is -Σ log2 p(token | those before it), `END` included: bits. Where strings are randomised (another
root and Kekulé form in each epoch), it bounds the bits of the molecule from above, which has many strings.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem, nn
from .._types import Array, BayesmatError
from ._neural import Neural
from ._recurrent import Network, new_network, read_through, teacher_forced

LENGTH_STEP = 8
"""Batches are cut to a multiple of this many tokens, so that few shapes are compiled."""


class Batch(NamedTuple):
    """Strings of like length, time first.

    Attributes:
        tokens: `(T, B)`.
        weight: `(B,)` 0 where a column only fills the array.
    """

    tokens: np.ndarray
    weight: np.ndarray


def fit_neural(
    smiles: Sequence[str],
    alphabet: chem.Alphabet | None = None,
    *,
    hidden: int = 384,
    forms: int = 4,
    epochs: int = 12,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    patience: int = 3,
    held_out: float = 0.05,
    seed: int = 0,
    time_limit: float | None = None,
    description: str = "",
    report: Callable[[nn.Epoch], None] | None = None,
) -> Neural:
    """A neural prior fitted to molecules of your own; its `card` says how.

    Args:
        smiles: the corpus; what the alphabet cannot say is left out, `Neural.set_aside` counts it by reason.
        alphabet: None for `Alphabet.organic()`.
        hidden: channels of the recurrent layer. The time per string grows with the square.
        forms: encodings of each molecule, with a random root and Kekulé form each; epochs go through them in turn. 0
            for the one string in RDKit's canonical order: fewer bits a string, but only strings in that order are
            likely, which hinders moves that write a molecule from another end.
        epochs: passes over the corpus at most.
        batch_size: strings in a batch.
        learning_rate: its highest value, see `nn.Schedule`.
        patience: epochs without a lower held-out loss after which the training stops.
        held_out: share of the molecules, at most 4,000 of them, that are not trained on.
        seed: of the split, the strings, the order and the first weights.
        time_limit: seconds of training at most, encoding not counted; see `nn.Schedule`.
        description: of the corpus, for the card.
        report: called after each epoch; losses are bits per molecule.

    Raises:
        BayesmatError: an argument is out of range, or fewer than two molecules can be said.

    >>> small = fit_neural(["CCO", "CCN", "CC(C)O", "c1ccccc1", "CCCl"], hidden=8, epochs=1, forms=0)
    >>> small.card["corpus"]["molecules"], bool(small.log_prob(chem.encode("CCCO", small.alphabet).tokens[0]) < 0)
    (5, True)
    """
    _check(hidden, forms, batch_size, held_out)
    schedule = nn.Schedule(epochs, learning_rate, patience=patience, time_limit=time_limit)
    alphabet = alphabet or chem.Alphabet.organic()
    encodings, refused = encode_forms(smiles, alphabet, forms, seed)
    num = encodings.shape[1]
    if num < 2:
        raise BayesmatError(f"the alphabet can say {num} of the {len(smiles)} molecules, needed are 2: {dict(refused)}")
    order = np.random.default_rng([seed, 0]).permutation(num)
    size = min(4000, max(1, round(held_out * num)))
    test, training = encodings[0, order[:size]], encodings[:, order[size:]]

    def batches(epoch: int) -> list[Batch]:
        return make_batches(training[epoch % len(training)], batch_size, np.random.default_rng([seed, 1, epoch]))

    network = new_network(jax.random.key(seed), alphabet.num_tokens, hidden)
    trained = nn.train(
        network,
        functools.partial(bits, alphabet=alphabet),
        batches,
        make_batches(test, batch_size, None),
        schedule,
        description="training of the prior",
        unit="bits",
        report=report,
    )
    prior = Neural(trained.model, alphabet)
    prior.set_aside = refused
    prior.card = {
        "corpus": {
            "description": description,
            "read": len(smiles),
            "molecules": num,
            "set_aside": dict(refused.most_common()),
        },
        "training": {
            "forms": forms,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "patience": patience,
            "seed": seed,
            "time_limit": time_limit,
            "stop": trained.stop.value,
            "history": [[e.number, round(e.train, 4), round(e.held_out, 4), round(e.seconds, 1)]
                        for e in trained.history],
        },
        "held_out": {
            "molecules": size,
            "bits_per_molecule": round(trained.best.held_out, 4),
            "strings": "randomised" if forms else "canonical",
        },
    }  # fmt: skip
    return prior


def _check(hidden: int, forms: int, batch_size: int, held_out: float) -> None:
    for name, value, least in (("hidden", hidden, 1), ("forms", forms, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise BayesmatError(f"{name} is {value}; allowed are whole numbers from {least}")
    if not 0 < held_out < 1:
        raise BayesmatError(f"held_out is {held_out}; allowed are shares between 0 and 1")


def encode_forms(
    smiles: Sequence[str], alphabet: chem.Alphabet, forms: int, seed: int
) -> tuple[np.ndarray, Counter[str]]:
    """`(max(forms, 1), n, length)` strings of the n molecules that fit in every form, and the others counted."""
    texts = np.asarray(smiles, object)
    alive = np.arange(len(texts))
    small = np.uint8 if alphabet.num_tokens <= 256 else np.int32
    tokens: list[np.ndarray] = []
    refused: Counter[str] = Counter()
    for form in range(max(forms, 1)):
        # `encode` adds the index of a molecule to the seed, so forms stand a corpus apart.
        start = None if forms == 0 else (seed * max(forms, 1) + form) * len(texts)
        name = "strings of the corpus" + (f", form {form + 1} of {forms}" if forms > 1 else "")
        encoded = chem.encode(list(texts[alive]), alphabet, start, name)
        refused += encoded.refused
        tokens = [*(rows[encoded.kept] for rows in tokens), encoded.tokens.astype(small)]
        alive = alive[encoded.kept]
    return np.stack(tokens), refused


def make_batches(tokens: np.ndarray, size: int, rng: np.random.Generator | None) -> list[Batch]:
    """Strings `(n, length)` in batches of like length; shuffled where `rng` is given.

    A batch is as long as its longest string with its `END`, rounded up to a multiple of `LENGTH_STEP`.
    """
    num, length = tokens.shape
    if rng is not None:
        tokens = tokens[rng.permutation(num)]
    lengths = (tokens != chem.END).sum(1)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for begin in range(0, num, size):
        chosen = order[begin : begin + size]
        needed = math.ceil((lengths[chosen[-1]] + 1) / LENGTH_STEP) * LENGTH_STEP
        rows = np.zeros((size, min(length, needed)), tokens.dtype)
        rows[: len(chosen)] = tokens[chosen, : rows.shape[1]]
        batches.append(Batch(np.ascontiguousarray(rows.T), (np.arange(size) < len(chosen)).astype(np.float32)))
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def bits(network: Network, batch: Batch, key: Array | None = None, *, alphabet: chem.Alphabet) -> tuple[Array, Array]:
    """The sum of the bits of a batch's strings, and their number: the loss that `nn.train` asks for."""
    tokens = jnp.asarray(batch.tokens).astype(jnp.int32)
    reading: Any = jax.vmap(functools.partial(read_through, alphabet=alphabet), 1, 1)(tokens)
    log_p = teacher_forced(network, tokens, reading)
    # The first END belongs to the string, the ones after it are certain.
    counted = (reading.previous != chem.END) | (jnp.arange(len(tokens)) == 0)[:, None]
    weight = batch.weight
    nats = -(jnp.where(counted & (weight > 0), log_p, 0)).sum()
    return nats / math.log(2), jnp.sum(weight)
