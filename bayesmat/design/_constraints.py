"""Hard conditions on a molecule, as factors computed on the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError
from ..chem import Alphabet


@dataclass(frozen=True)
class Elements:
    """Only these elements may occur, besides hydrogen.

    Args:
        allowed: element symbols.

    Raises:
        BayesmatError: no element is given.

    >>> Elements(["C", "O"]).text()
    'made of C, O and H'
    """

    allowed: tuple[str, ...]

    def __init__(self, allowed: Iterable[str]):
        symbols = tuple(dict.fromkeys(symbol for symbol in allowed if symbol != "H"))
        if not symbols:
            raise BayesmatError("at least one element besides hydrogen must be allowed")
        object.__setattr__(self, "allowed", symbols)

    def check(self, alphabet: Alphabet) -> None:
        """Raise a BayesmatError if the alphabet has no atom of one of the elements."""
        known = sorted({atom.element for atom in alphabet.atoms})
        if unknown := sorted(set(self.allowed) - set(known)):
            raise BayesmatError(f"elements {unknown} are not in the alphabet; allowed are {', '.join(known)}")

    def log_prob(self, x: Array, alphabet: Alphabet) -> Array:
        """0 if the string `(length,)` uses only these elements, else -inf."""
        forbidden = np.zeros(alphabet.num_tokens, bool)
        for token, atom in enumerate(alphabet.atoms, 1):
            forbidden[token] = atom.element not in self.allowed
        return jnp.where(jnp.asarray(forbidden)[x].any(-1), -jnp.inf, 0.0)

    def text(self) -> str:
        """The condition in words."""
        return f"made of {', '.join(self.allowed)} and H"
