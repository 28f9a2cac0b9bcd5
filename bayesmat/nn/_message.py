"""A message-passing network on the decoded graph: φ(x) that depends on the molecule and not on its string.

Neighbours are gathered, never scattered: the sum over an atom's neighbours is its own transpose, so the backward pass
gathers as well, which is what CPUs, GPUs and TPUs all do fast.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError
from ..chem import Alphabet, Graph

MAX_NUMBER = 83
"""Bismuth, the heaviest element of an alphabet."""
NUM_CLASSES = 4
"""Single, double, triple, conjugated in a ring."""
MAX_HYDROGENS, MAX_DEGREE = 4, 7


class Atoms(NamedTuple):
    """A molecule as a list of atoms, which come first; the other of the `slots` places are empty.

    Attributes:
        number: `(slots,)` uint8, atomic number + 1, 0 where there is no atom; a place of attachment is 1.
        hydrogens: `(slots,)` uint8.
        charge: `(slots,)` uint8, 0 negative, 1 none, 2 positive.
        degree: `(slots,)` uint8, heavy neighbours.
        flags: `(slots,)` uint8, 1 for a double or triple bond, plus 2 for a ring.
        neighbour: `(slots, valence)` uint16, slot × 4 + class of the bond, or `slots` × 4 where there is none.
    """

    number: Array
    hydrogens: Array
    charge: Array
    degree: Array
    flags: Array
    neighbour: Array


def atoms(graph: Graph, alphabet: Alphabet, slots: int | None = None) -> Atoms:
    """The atoms of a graph with their neighbours; map over a batch with `jax.vmap`.

    Args:
        graph: one molecule.
        alphabet: of its tokens.
        slots: places for atoms, the alphabet's length if None. A molecule with more loses the last ones without a
            word, so give fewer only where the number of atoms is known.
    """
    slots = slots or alphabet.length
    valence = int(alphabet.valence.max())
    present = graph.atom > 0
    position = jnp.arange(alphabet.length, dtype=jnp.int32)
    # Sorting rows of a hundred integers is the fastest way to bring atoms to the front, and bonds to their atoms.
    token = jnp.sort(jnp.where(present, position, alphabet.length))[:slots]
    some = token < alphabet.length
    token = jnp.where(some, token, 0)
    rank = jnp.cumsum(present, dtype=jnp.int32) - 1
    made = graph.bond_order > 0
    first, second = rank[graph.bond_from], rank[graph.bond_to]
    kind = jnp.maximum(graph.bond_class - 1, 0)
    bits = (NUM_CLASSES * alphabet.length - 1).bit_length()

    def half(of: Array, to: Array) -> Array:
        return jnp.where(made, (of << bits) + NUM_CLASSES * to + kind, alphabet.length << bits)

    by_atom = jnp.sort(jnp.concatenate([half(first, second), half(second, first)])) & (2**bits - 1)
    degree = jnp.where(some, graph.degree[token], 0)
    begin = jnp.cumsum(degree) - degree
    along = jnp.arange(valence)
    nobody = NUM_CLASSES * slots
    neighbour = jnp.where(along < degree[:, None], by_atom[begin[:, None] + along], nobody)
    neighbour = jnp.minimum(neighbour, nobody)

    def of(values: Array) -> Array:
        return jnp.where(some, values[token], 0).astype(jnp.uint8)

    charge = jnp.sign(jnp.asarray(alphabet.charge)[graph.atom]) + 1
    return Atoms(
        number=of(jnp.asarray(alphabet.atomic_number)[graph.atom] + 1),
        hydrogens=of(graph.hydrogens),
        charge=of(charge),
        degree=of(graph.degree),
        flags=of(graph.pi + 2 * graph.in_ring),
        neighbour=neighbour.astype(jnp.uint16),
    )


def capped(molecule: Atoms) -> Atoms:
    """A repeat unit with a methyl group in each place of attachment, as the molecule that it is nearest to."""
    place = molecule.number == 1
    return molecule._replace(
        number=jnp.where(place, 7, molecule.number).astype(jnp.uint8),
        hydrogens=jnp.where(place, 3, molecule.hydrogens).astype(jnp.uint8),
    )


@jax.custom_vjp
def gather_neighbours(messages: Array, neighbour: Array) -> Array:
    """The sum of what an atom's neighbours send it, `(slots, d)`.

    Args:
        messages: `(slots, 4, d)` what each atom says along a bond of each class.
        neighbour: `(slots, valence)` see `Atoms`.
    """
    slots, classes, width = messages.shape
    rows = jnp.pad(messages.reshape(slots * classes, width), ((0, 1), (0, 0)))
    code = neighbour.astype(jnp.int32)
    total = jnp.zeros((slots, width), messages.dtype)
    for k in range(neighbour.shape[-1]):
        total = total + rows.at[code[:, k]].get(mode="promise_in_bounds")
    return total


def _forward(messages: Array, neighbour: Array) -> tuple[Array, Array]:
    return gather_neighbours(messages, neighbour), neighbour


def _backward(neighbour: Array, cotangent: Array) -> tuple[Array, None]:
    # Bonds have two ends: what an atom sent along a class of bonds went to its own neighbours of that class.
    slots, width = cotangent.shape
    rows = jnp.pad(cotangent, ((0, 1), (0, 0)))
    code = neighbour.astype(jnp.int32)
    total = jnp.zeros((slots, NUM_CLASSES, width), cotangent.dtype)
    for k in range(neighbour.shape[-1]):
        own_class = jax.nn.one_hot(code[:, k] % NUM_CLASSES, NUM_CLASSES, dtype=cotangent.dtype)
        heard = rows.at[code[:, k] // NUM_CLASSES].get(mode="promise_in_bounds")
        total = total + own_class[:, :, None] * heard[:, None, :]
    return total, None


gather_neighbours.defvjp(_forward, _backward)


class Dense(eqx.Module):
    """x W + b over the last axis."""

    weight: Array
    bias: Array

    @staticmethod
    def init(key: Array, inputs: int, outputs: int) -> Dense:
        """He's initialisation."""
        return Dense(jax.random.normal(key, (inputs, outputs)) * jnp.sqrt(2.0 / inputs), jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        """`(..., inputs)` to `(..., outputs)`."""
        return x @ self.weight + self.bias


class Layer(eqx.Module):
    """One round of messages: what a neighbour says depends on the class of the bond; then a residual update."""

    say: Dense
    bond: Array
    update: Dense
    scale: Array

    @staticmethod
    def init(key: Array, width: int) -> Layer:
        """`width` channels."""
        first, second, third = jax.random.split(key, 3)
        bond = 0.1 * jax.random.normal(third, (NUM_CLASSES, width))
        return Layer(Dense.init(first, width, width), bond, Dense.init(second, 2 * width, width), jnp.ones(width))

    def __call__(self, h: Array, neighbour: Array) -> Array:
        """`(slots, width)` to the same."""
        messages = jax.nn.relu(self.say(h)[..., None, :] + self.bond)
        heard = gather_neighbours(messages, neighbour)
        new = h + jax.nn.relu(self.update(jnp.concatenate([h, heard], -1)))
        return self.scale * new * jax.lax.rsqrt(jnp.mean(new**2, -1, keepdims=True) + 1e-5)


class MessageNetwork(eqx.Module):
    """A molecule to its features φ, `(num_features,)`; map over a batch with `jax.vmap`.

    Rounds of messages between atoms, a sum and a mean over the atoms, joined by features that are given, two dense
    layers. φ is the last hidden layer; each task is a linear function of it.

    Attributes:
        element: `(85, width)` by atomic number + 1; row 0 is no atom.
        hydrogens: `(5, width)`.
        charge: `(3, width)`.
        degree: `(8, width)`.
        flags: `(4, width)`.
        layers: rounds of messages.
        readout: width to pooled channels.
        given_mean: `(g,)` of the features that are given.
        given_scale: `(g,)` their standard deviations.
        hidden: two dense layers.
        tasks: φ to tasks.
    """

    element: Array
    hydrogens: Array
    charge: Array
    degree: Array
    flags: Array
    layers: tuple[Layer, ...]
    readout: Dense
    given_mean: Array
    given_scale: Array
    hidden: tuple[Dense, Dense]
    tasks: Dense

    @staticmethod
    def init(
        key: Array,
        given: Array,
        num_tasks: int,
        *,
        width: int = 64,
        rounds: int = 3,
        pooled: int = 128,
        features: int = 128,
    ) -> MessageNetwork:
        """A network with random weights.

        Args:
            key: random key.
            given: `(n, g)` features given of some molecules, for their mean and scale.
            num_tasks: outputs.
            width: channels of an atom.
            rounds: of messages.
            pooled: channels of a molecule.
            features: of φ.

        Raises:
            BayesmatError: a size is not positive.
        """
        if min(num_tasks, width, rounds, pooled, features) < 1:
            raise BayesmatError(f"sizes of a network must be positive, got {(num_tasks, width, rounds, pooled)}")
        keys = iter(jax.random.split(key, rounds + 9))
        spread = jnp.maximum(given.std(0), 0.1)

        def table(rows: int) -> Array:
            return 0.3 * jax.random.normal(next(keys), (rows, width))

        inputs = 2 * pooled + given.shape[1]
        return MessageNetwork(
            element=table(MAX_NUMBER + 2).at[0].set(0.0),
            hydrogens=table(MAX_HYDROGENS + 1),
            charge=table(3),
            degree=table(MAX_DEGREE + 1),
            flags=table(4),
            layers=tuple(Layer.init(next(keys), width) for _ in range(rounds)),
            readout=Dense.init(next(keys), width, pooled),
            given_mean=given.mean(0),
            given_scale=spread,
            hidden=(Dense.init(next(keys), inputs, 2 * features), Dense.init(next(keys), 2 * features, features)),
            tasks=Dense.init(next(keys), features, num_tasks),
        )

    def __call__(self, molecule: Atoms, given: Array) -> Array:
        """φ of one molecule, `(num_features,)`; `given` is `(g,)`."""
        some = (molecule.number > 0)[:, None]

        def look_up(table: Array, values: Array) -> Array:
            return jax.nn.one_hot(values, len(table), dtype=table.dtype) @ table

        h = look_up(self.element, molecule.number)
        h = h + look_up(self.hydrogens, jnp.minimum(molecule.hydrogens, MAX_HYDROGENS))
        h = h + look_up(self.charge, molecule.charge) + look_up(self.flags, molecule.flags)
        h = (h + look_up(self.degree, molecule.degree)) * some
        for layer in self.layers:
            h = layer(h, molecule.neighbour) * some
        pooled = jax.nn.relu(self.readout(h)) * some
        total = pooled.sum(0)
        number = jnp.maximum(some.sum(), 1)
        z = (given - jax.lax.stop_gradient(self.given_mean)) / jax.lax.stop_gradient(self.given_scale)
        x = jnp.concatenate([total / 20.0, total / number, z], -1)
        for dense in self.hidden:
            x = jax.nn.relu(dense(x))
        return x

    @staticmethod
    def skeleton(given: int, tasks: int, rounds: int) -> MessageNetwork:
        """A network of the smallest size without numbers, for the structure of its leaves."""
        return _shapes(given, tasks, width=1, rounds=rounds, pooled=1, features=1)

    def check(self, given: int, tasks: int) -> None:
        """Whether stored arrays fit together.

        Raises:
            BayesmatError: they do not, or a number is not finite.
        """
        width, pooled = self.readout.weight.shape
        features = self.tasks.weight.shape[0]
        like = _shapes(given, tasks, width=width, rounds=len(self.layers), pooled=pooled, features=features)
        for found, expected in zip(jax.tree.leaves(self), jax.tree.leaves(like), strict=True):
            if found.shape != expected.shape or not np.isfinite(np.asarray(found)).all():
                raise BayesmatError(f"a network's array of shape {found.shape} should be finite {expected.shape}")


def _shapes(given: int, tasks: int, **sizes: int) -> MessageNetwork:
    """A network whose leaves are shapes; nothing is compiled for it, as the key and the features are arguments."""
    like = (jax.random.key(0), jax.ShapeDtypeStruct((2, given), jnp.float32))
    return jax.eval_shape(lambda key, given: MessageNetwork.init(key, given, tasks, **sizes), *like)
