"""The network of the neural prior: one gated recurrent layer that is told where in the molecule it stands.

With token x read before place t and features f of the grammar's state there (Cho et al. 2014, arXiv:1406.1078, the
variant whose reset gate acts after the product):

    a = E[x] + f W,   b = h U                                     (each in thirds: reset, update, candidate)
    r = σ(a_r + b_r),   z = σ(a_z + b_z),   n = tanh(a_n + r (b_n + c)),   h' = z h + (1 - z) n
    p(next token) = softmax(h' O + o), over the legal tokens

A branch must not make the layer forget what it hangs on. So its first channels are remembered at every `(`, and at the
matching `)` they become g h + (1 - g) h_remembered, with a learnt g for each channel. This costs no matrix product.

All functions here work on one string as well as on arrays with more leading axes.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import chem
from .._types import Array

NUM_FREE = 5  # free valence 0 … 4 and more
NUM_RINGS = 5  # open rings 0 … 4 and more
NUM_DISTANCES = 9  # bonds to the atom that opened a ring, 0 … 8 and more
NUM_WATCHED = 3  # so many of the most recently opened rings
NUM_FEATURES = NUM_FREE + NUM_RINGS + NUM_WATCHED * (NUM_DISTANCES + 1) + 7
REMEMBERED_DEPTH = 6
"""Nested branches whose beginnings are remembered; deeper ones go on without."""


class Place(NamedTuple):
    """Where a string stands, as far as the network is told.

    Attributes:
        grammar: the automaton.
        previous: the token written last, `END` at the start.
        level: bonds between the first atom and the current one.
        stack_level: `(max_depth,)` the same for the atoms to return to.
        ring_level: `(max_rings,)` the same for the atoms that opened the rings, newest ring first.
    """

    grammar: chem.State
    previous: Array
    level: Array
    stack_level: Array
    ring_level: Array


def first_place(alphabet: chem.Alphabet) -> Place:
    """The place before the first token."""
    zero = jnp.zeros((), jnp.int32)
    branches, rings = jnp.zeros(alphabet.max_depth, jnp.int32), jnp.zeros(alphabet.max_rings, jnp.int32)
    return Place(chem.start(alphabet), zero, zero, branches, rings)


def next_place(place: Place, token: Array, alphabet: chem.Alphabet) -> Place:
    """The place after a token, for one string."""
    depth = place.grammar.depth
    branches = jnp.arange(alphabet.max_depth)
    returned = jnp.where(branches == depth - 1, place.stack_level, 0).sum(-1, dtype=jnp.int32)
    is_atom = (token > 0) & (token <= len(alphabet.atoms))
    opened = (token == alphabet.open_token) & (branches == depth)
    closed_ring = token - alphabet.first_ring_close_token
    return Place(
        grammar=chem.advance(place.grammar, token, alphabet),
        previous=token,
        level=jnp.where(token == alphabet.close_token, returned, place.level + is_atom),
        stack_level=jnp.where(opened, place.level, place.stack_level),
        ring_level=chem.update_rings(place.ring_level, closed_ring, token == alphabet.ring_open_token, place.level),
    )


def features(place: Place, alphabet: chem.Alphabet) -> Array:
    """`(NUM_FEATURES,)` numbers in [0, 1] that say where one string stands; they do not depend on the array sizes."""
    grammar = place.grammar
    left = alphabet.length - grammar.position
    watched = min(NUM_WATCHED, alphabet.max_rings)
    is_open = jnp.arange(watched) < grammar.rings
    distance = (place.level - place.ring_level[:watched]).clip(0, NUM_DISTANCES - 1)
    rings = is_open[:, None] & (distance[:, None] == jnp.arange(NUM_DISTANCES))
    double = is_open & (grammar.ring_order[:watched] == 2)
    rings = jnp.pad(jnp.concatenate([rings, double[:, None]], 1), ((0, NUM_WATCHED - watched), (0, 0)))
    others = jnp.stack([
        chem.starts_branch(grammar),
        grammar.depth > 0,
        grammar.depth.clip(0, 4) / 4,
        left.clip(0, 32) / 32,
        left.clip(0, 8) / 8,
        grammar.attachments > 0,
        grammar.attachments > 1,
    ])  # fmt: skip
    free = grammar.free.clip(0, NUM_FREE - 1) == jnp.arange(NUM_FREE)
    opened = grammar.rings.clip(0, NUM_RINGS - 1) == jnp.arange(NUM_RINGS)
    parts = [free, opened, rings.ravel(), others]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


class Memory(NamedTuple):
    """What the network knows of a prefix; H channels, M remembered ones, D remembered branches.

    Attributes:
        hidden: `(..., H)`.
        branches: `(..., D, M)` the first M channels at the beginnings of the open branches.
    """

    hidden: Array
    branches: Array


class Turn(NamedTuple):
    """Which branch the previous token opened or closed, counted from 0; -1 for none.

    Attributes:
        opened: `(...)` int32.
        closed: `(...)` int32.
    """

    opened: Array
    closed: Array


def turn(place: Place, alphabet: chem.Alphabet) -> Turn:
    """What the previous token did to the branches, for one string."""
    depth = place.grammar.depth
    return Turn(
        opened=jnp.where(place.previous == alphabet.open_token, depth - 1, -1),
        closed=jnp.where(place.previous == alphabet.close_token, depth, -1),
    )


class Network(eqx.Module):
    """The arrays, and what is computed with them; V tokens, H channels.

    Attributes:
        token: `(V, 3H)` what the previous token adds to the gates; row `END` stands for the start.
        place: `(NUM_FEATURES, 3H)` what the features add.
        recurrent: `(H, 3H)` what the hidden channels add.
        candidate: `(H,)` bias of the candidate's recurrent part.
        keep: `(M,)` logits of g, how much of a remembered channel outlives a branch.
        output: `(H, V)` from hidden channels to logits.
        output_bias: `(V,)`.
    """

    token: Array
    place: Array
    recurrent: Array
    candidate: Array
    keep: Array
    output: Array
    output_bias: Array

    @property
    def hidden_size(self) -> int:
        """H, the number of hidden channels."""
        return self.recurrent.shape[0]

    def start(self) -> Memory:
        """The memory of the empty string."""
        dtype = self.recurrent.dtype
        return Memory(jnp.zeros(self.hidden_size, dtype), jnp.zeros((REMEMBERED_DEPTH, self.keep.shape[0]), dtype))

    def read(self, previous: Array, told: Array) -> Array:
        """`(..., 3H)` what tokens `(...)` and features `(..., NUM_FEATURES)` add to the gates."""
        return self.token[previous] + told.astype(self.place.dtype) @ self.place

    def advance(self, memory: Memory, added: Array, turn: Turn) -> Memory:
        """The memory after the previous token, with what `read` says of it."""
        hidden, branches = self._around_branch(memory, turn)
        a_reset, a_update, a_candidate = jnp.split(added, 3, -1)
        b_reset, b_update, b_candidate = jnp.split(hidden @ self.recurrent, 3, -1)
        reset, update = jax.nn.sigmoid(a_reset + b_reset), jax.nn.sigmoid(a_update + b_update)
        candidate = jnp.tanh(a_candidate + reset * (b_candidate + self.candidate))
        return Memory(candidate + update * (hidden - candidate), branches)

    def _around_branch(self, memory: Memory, turn: Turn) -> tuple[Array, Array]:
        """Remember the channels where a branch opens; bring them back where it closes."""
        size = self.keep.shape[0]
        if not size:
            return memory.hidden, memory.branches
        index = jnp.arange(memory.branches.shape[-2])
        opened = (turn.opened[..., None] == index)[..., None]
        closed = (turn.closed[..., None] == index)[..., None]
        now = memory.hidden[..., :size]
        branches = jnp.where(opened, now[..., None, :], memory.branches)
        remembered = jnp.where(closed, branches, 0).sum(-2)
        returns = closed.any(-2)
        mixed = remembered + jax.nn.sigmoid(self.keep) * (now - remembered)
        hidden = jnp.concatenate([jnp.where(returns, mixed, now), memory.hidden[..., size:]], -1)
        return hidden, branches

    def logits(self, hidden: Array) -> Array:
        """`(..., V)` of hidden channels `(..., H)`; the mask is not in it."""
        return hidden @ self.output + self.output_bias


def new_network(key: Array, num_tokens: int, hidden: int, remembered: int | None = None) -> Network:
    """A network with random weights; `remembered` channels outlive a branch, a quarter of all by default."""
    keys = jax.random.split(key, 4)
    # The update gate begins half open towards the past.
    bias = jnp.concatenate([jnp.zeros(hidden), jnp.ones(hidden), jnp.zeros(hidden)])
    blocks = [jax.random.orthogonal(k, hidden) for k in jax.random.split(keys[0], 3)]
    return Network(
        token=0.3 * jax.random.normal(keys[1], (num_tokens, 3 * hidden)) + bias,
        place=0.1 * jax.random.normal(keys[2], (NUM_FEATURES, 3 * hidden)),
        recurrent=jnp.concatenate(blocks, 1),
        candidate=jnp.zeros(hidden),
        keep=jnp.zeros(hidden // 4 if remembered is None else remembered),
        output=jax.random.normal(keys[3], (hidden, num_tokens)) / hidden**0.5,
        output_bias=jnp.zeros(num_tokens),
    )


class Reading(NamedTuple):
    """All that the network is told of a given string, place by place; T places.

    Attributes:
        previous: `(T,)` the token before each place.
        told: `(T, NUM_FEATURES)`.
        turn: of `(T,)`.
        legal: `(T, V)` bool, the mask.
    """

    previous: Array
    told: Array
    turn: Turn
    legal: Array


def read_through(tokens: Array, alphabet: chem.Alphabet) -> Reading:
    """What the network is told of one string `(T,)`, by one pass of the automaton."""

    def step(place: Place, token: Array) -> tuple[Place, Reading]:
        legal = chem.legal(place.grammar, alphabet)
        seen = Reading(place.previous, features(place, alphabet), turn(place, alphabet), legal)
        return next_place(place, token, alphabet), seen

    return jax.lax.scan(step, first_place(alphabet), tokens.astype(jnp.int32))[1]


def teacher_forced(network: Network, tokens: Array, reading: Reading) -> Array:
    """`(T, ...)` log probability of each token of strings `(T, ...)`, time first.

    What needs no memory is computed for all places at once; the scan holds one matrix product a step.
    """
    # `Network.read` of all places; as one product, for the gradient of a gather of so many rows is slow.
    marks = jnp.concatenate([jax.nn.one_hot(reading.previous, len(network.token)), reading.told], -1)
    added = marks.astype(network.token.dtype) @ jnp.concatenate([network.token, network.place])

    def step(memory: Memory, inputs: tuple[Array, Turn]) -> tuple[Memory, Array]:
        memory = network.advance(memory, *inputs)
        return memory, memory.hidden

    first = network.start()
    lead = tokens.shape[1:]
    memory = Memory(*(jnp.broadcast_to(leaf, lead + leaf.shape) for leaf in first))
    hidden = jax.lax.scan(step, memory, (added, reading.turn))[1]
    logits = jnp.where(reading.legal, network.logits(hidden), -jnp.inf)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None].astype(jnp.int32), -1)[..., 0]
