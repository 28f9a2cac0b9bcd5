"""The neural prior: a normalised distribution over molecular strings, as a NumPyro distribution.

    p(x) = Π_i softmax(network(x_1 … x_{i-1}))_{x_i} over the legal tokens

The network is `_recurrent.Network`; the mask of `chem.legal` makes every string a molecule.

Many strings are written by a few hundred slots: a slot whose string has ended takes the next one, so that no step is
spent on what follows an end, and the matrix products keep their size. A string's randomness depends on its own key
and on the place only, so the slots write what one scan a string would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import chem
from .._types import Array
from ._base import StringDistribution
from ._recurrent import Memory, Network, Place, features, first_place, next_place, turn

NUM_SLOTS = 512
"""Strings that are written at the same time; more is hardly faster, and memory grows with it."""


class _Writer(NamedTuple):
    """All that the rest of a string depends on."""

    place: Place
    memory: Memory


class Neural(StringDistribution):
    """A distribution over molecular strings, event shape `(length,)` of int32 tokens.

    Made by `fit_neural` or `load`. It has the protocol of a string site: `sample`, `log_prob` and
    `regrow(key, x, cut)`, the draw conditional on the first `cut` tokens.

    Args:
        network: the network.
        alphabet: what the tokens mean.

    Attributes:
        set_aside: how many molecules of the corpus the alphabet could not say, by reason.
        card: what is known of the training; empty where it was not made by `fit_neural` or `load`.
    """

    pytree_data_fields = ("network",)
    card: Mapping[str, Any] = {}
    set_aside: Counter[str] = Counter()

    def __init__(self, network: Network, alphabet: chem.Alphabet):
        self.network = network
        super().__init__(alphabet)

    def _first(self) -> _Writer:
        return _Writer(first_place(self.alphabet), self.network.start())

    def _think(self, writer: _Writer) -> tuple[_Writer, Array]:
        """The writer with the previous token read, and `(num_tokens,)` logits of the next one, -inf if not legal."""
        place, network = writer.place, self.network
        added = network.read(place.previous, features(place, self.alphabet))
        memory = network.advance(writer.memory, added, turn(place, self.alphabet))
        logits = jnp.where(chem.legal(place.grammar, self.alphabet), network.logits(memory.hidden), -jnp.inf)
        return _Writer(place, memory), logits

    def _draw(self, writer: _Writer, key: Array, old: Array, keep: Array) -> tuple[_Writer, Array]:
        """One token of one string: the given one, or a draw."""
        position = writer.place.grammar.position
        writer, logits = self._think(writer)
        mass = jnp.exp(logits - logits.max())
        # A product with a triangle of ones is faster than a scan on every device, and must be exact.
        triangle = jnp.triu(jnp.ones((len(mass), len(mass)), mass.dtype))
        cumulative = jnp.dot(mass, triangle, precision=jax.lax.Precision.HIGHEST)
        u = jax.random.uniform(jax.random.fold_in(key, position), dtype=mass.dtype)
        # The first token whose cumulative mass exceeds u of the total; never one of mass zero.
        drawn = (cumulative <= u * cumulative[-1] * (1 - 1e-6)).sum().astype(jnp.int32)
        token = jnp.where(keep, old, drawn)
        return _Writer(next_place(writer.place, token, self.alphabet), writer.memory), token

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Strings of shape `sample_shape + (length,)`."""
        length = self.alphabet.length
        if not sample_shape:
            return self.regrow(key, jnp.zeros(length, jnp.int32), jnp.asarray(0))
        num = int(np.prod(sample_shape))
        drawn = self._write_many(jax.random.split(key, num)) if num else jnp.zeros((0, length), jnp.int32)
        return drawn.reshape(*sample_shape, length)

    def regrow(self, key: Array, x: Array, cut: Array) -> Array:
        """A string drawn from the prior given that its first `cut` tokens are those of `x`.

        Args:
            key: random key.
            x: `(length,)` a legal string.
            cut: how many tokens stay; at the end of the string or beyond, all tokens stay but `END` is drawn anew.
        """

        def step(writer: _Writer, inputs: tuple[Array, Array]) -> tuple[_Writer, Array]:
            return self._draw(writer, key, *inputs)

        kept = jnp.arange(self.alphabet.length) < cut
        return jax.lax.scan(step, self._first(), (x.astype(jnp.int32), kept))[1]

    def _write_many(self, keys: Array, num_slots: int = NUM_SLOTS) -> Array:
        """`(n, length)` strings, one for each of n keys; see the module's docstring."""
        num, length = len(keys), self.alphabet.length
        slots = min(num, num_slots)
        first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (slots, *leaf.shape)), self._first())
        draw = jax.vmap(lambda writer, key: self._draw(writer, key, jnp.int32(0), jnp.bool_(False)))

        def step(state: tuple[_Writer, Array, Array, Array]) -> tuple[_Writer, Array, Array, Array]:
            writer, string, next_string, written = state
            position = writer.place.grammar.position
            writer, token = draw(writer, keys[string.clip(0, num - 1)])
            written = written.at[string, position].set(token, mode="drop")
            ended = (token == chem.END) | (position == length - 1)
            coming = next_string + jnp.cumsum(ended, dtype=jnp.int32) - 1
            string = jnp.where(ended, coming.clip(0, num), string)  # `num` means that nothing is left to do
            writer = jax.tree.map(
                lambda new, old: jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old), first, writer
            )
            return writer, string, next_string + ended.sum(dtype=jnp.int32), written

        string = jnp.arange(slots, dtype=jnp.int32)
        empty = jnp.zeros((num, length), jnp.int32)
        start = (first, string, jnp.int32(slots), empty)
        return jax.lax.while_loop(lambda state: (state[1] < num).any(), step, start)[3]

    def token_log_probs(self, x: Array) -> Array:
        """`(length,)` log probability of each token of one string given those before it."""

        def step(writer: _Writer, token: Array) -> tuple[_Writer, Array]:
            writer, logits = self._think(writer)
            some = jnp.isfinite(logits).any()  # after an illegal token none may be legal: -inf it is, not NaN
            log_p = jnp.where(some, jax.nn.log_softmax(jnp.where(some, logits, 0)), -jnp.inf)[token]
            return _Writer(next_place(writer.place, token, self.alphabet), writer.memory), log_p

        writer, log_p = jax.lax.scan(step, self._first(), x)
        # A string that fills the array has no END token inside it, and must be complete all the same.
        complete = chem.legal(writer.place.grammar, self.alphabet)[chem.END]
        return log_p.at[-1].add(jnp.where(complete, 0.0, -jnp.inf))
