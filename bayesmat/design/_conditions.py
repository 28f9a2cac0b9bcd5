"""What else is asked of a molecule, as a factor of the model.

A `Condition` gives the log of a factor: 0 where a molecule passes, -inf where it does not, or a number in between.
Conditions know no alphabet, so that they can be written down before a prior is chosen; `Filters` puts several
together for one alphabet, and is what a model calls. They share one `Molecule`, which works out only what is asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from .. import nn
from .._types import Array, BayesmatError
from ..chem import Alphabet, Graph, decode


class Molecule:
    """One molecule while a model is traced; every part is computed once, when a condition first asks for it.

    Args:
        tokens: `(length,)` a string of the alphabet.
        alphabet: the alphabet.

    Attributes:
        wanted: bool, whether the value still matters. A function on the host is not asked where it does not.
    """

    def __init__(self, tokens: Array, alphabet: Alphabet):
        self.tokens = tokens
        self.alphabet = alphabet
        self.wanted: Array = jnp.asarray(True)

    @cached_property
    def graph(self) -> Graph:
        """Its atoms and bonds."""
        return decode(self.tokens, self.alphabet)

    @cached_property
    def rings(self) -> nn.Rings:
        """Its rings."""
        return nn.rings(self.graph, self.alphabet)

    @cached_property
    def descriptors(self) -> Array:
        """See `nn.physicochemical`; the compiler leaves out the entries that nothing uses."""
        return nn.physicochemical(self.graph, self.alphabet)


class Condition(ABC):
    """One condition on a molecule.

    Attributes:
        host: the function that it calls on the host, or None if it is computed on the device.
    """

    host: Any = None

    @property
    def hard(self) -> bool:
        """Whether it gives 0 or -inf for every molecule."""
        return True

    @abstractmethod
    def log_prob(self, molecule: Molecule) -> Array:
        """The log of the factor for one molecule, a scalar."""

    @abstractmethod
    def text(self) -> str:
        """The condition in words."""

    def check(self, alphabet: Alphabet) -> None:
        """Raise a BayesmatError if the condition makes no sense for molecules of an alphabet."""
        return None


def penalty(value: Array, lower: float, upper: float, slope: float) -> Array:
    """0 for lower ≤ value ≤ upper; -slope times the distance from there outside, -inf for an infinite slope.

    >>> [float(x) for x in penalty(jnp.array([1.0, 5.0]), 0.0, 2.0, 0.5)]
    [0.0, -1.5]
    """
    distance = jnp.maximum(jnp.maximum(lower - value, value - upper), 0)
    return jnp.where(distance > 0, -slope * jnp.maximum(distance, jnp.finfo(value.dtype).tiny), 0.0)


class Filters:
    """Conditions for molecules of one alphabet: called with tokens, the log of the product of their factors.

    What is computed on the device comes first. A function on the host is asked only about molecules that have passed
    the conditions before it, and in the order in which they are given: put the expensive ones last.

    Args:
        conditions: from this package: `MolecularWeight`, `RingSizes`, `Smarts`, `Score`, …
        alphabet: of the strings.

    Raises:
        BayesmatError: something is no condition, or does not fit the alphabet.

    >>> import jax
    >>> from bayesmat import chem, design
    >>> alphabet = chem.Alphabet.organic()
    >>> filters = Filters([design.Elements(["C", "O"]), design.MolecularWeight(upper=100)], alphabet)
    >>> filters.text()
    'made of C, O and H; molecular weight at most 100 g/mol'
    >>> tokens = chem.encode(["CCO", "CCN", "CCCCCCCC"], alphabet).tokens
    >>> jax.jit(jax.vmap(filters))(tokens).tolist()
    [0.0, -inf, -inf]
    """

    def __init__(self, conditions: Iterable[Condition], alphabet: Alphabet):
        self.conditions = tuple(conditions)
        self.alphabet = alphabet
        if strangers := [condition for condition in self.conditions if not isinstance(condition, Condition)]:
            raise BayesmatError(
                f"{strangers} are no conditions; allowed are those of bayesmat.design, such as Elements"
            )
        for condition in self.conditions:
            condition.check(alphabet)

    def __call__(self, x: Array) -> Array:
        """The log of the product of the factors of one string `(length,)`, a scalar; 0 without conditions."""
        return sum(self.each(x), jnp.zeros(()))

    def each(self, x: Array) -> list[Array]:
        """The log of each factor, scalars; 0 for a function on the host that was not asked."""
        molecule = Molecule(x, self.alphabet)
        found: dict[int, Array] = {}
        on_device_first = sorted(range(len(self.conditions)), key=lambda i: self.conditions[i].host is not None)
        for index in on_device_first:
            found[index] = self.conditions[index].log_prob(molecule)
            molecule.wanted = molecule.wanted & (found[index] > -jnp.inf)
        return [found[index] for index in range(len(self.conditions))]

    @property
    def hard(self) -> bool:
        """Whether the product is 0 or 1 for every molecule."""
        return all(condition.hard for condition in self.conditions)

    @property
    def hosts(self) -> list[Any]:
        """The functions on the host, each with `report()`, `share()` and `warnings()`."""
        return [condition.host for condition in self.conditions if condition.host is not None]

    def text(self) -> str:
        """The conditions in words."""
        return "; ".join(condition.text() for condition in self.conditions)
