"""The pre-trained extractor: from tokens to φ(x) and to what the network learned to predict."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, BayesmatError, over_batches_sharing, read_arrays, replacing_folder
from ..chem import Alphabet, Graph
from ._descriptors import DESCRIPTOR_NAMES, descriptors
from ._message import MessageNetwork, atoms, capped
from ._physicochemical import PHYSICOCHEMICAL_NAMES, physicochemical

FORMAT = 1
"""Raise it whenever arrays or features change their meaning."""

MAX_ROUNDS = 32
"""Of a network that is read: what a card says must not keep a program busy for ever."""

_CARD, _ARRAYS = "card.json", "arrays.npz"


_SIGNED = ("fraction_sp3", "log_p")
GIVEN_NAMES = (*DESCRIPTOR_NAMES, *PHYSICOCHEMICAL_NAMES)
"""What the network is told beside the graph."""


def given_features(graph: Graph, alphabet: Alphabet) -> Array:
    """Descriptors and physico-chemical descriptors of one molecule, `(len(GIVEN_NAMES),)`.

    As log(1 + x), but for the fraction of sp3 carbons and log P.
    """
    physical = physicochemical(graph, alphabet)
    signed = jnp.asarray([name in _SIGNED for name in PHYSICOCHEMICAL_NAMES])
    physical = jnp.where(signed, physical, jnp.log1p(jnp.maximum(physical, 0.0)))
    return jnp.concatenate([jnp.log1p(descriptors(graph, alphabet)), physical])


class Extractor(eqx.Module):
    """A trained network with the names and units of its tasks.

    Attributes:
        network: tokens to φ.
        task_mean: `(t,)`.
        task_scale: `(t,)`.
        task_names: t names; those of RDKit's descriptors begin with `rdkit_`, the others are measured or computed
            properties, of which those in `logarithmic` are natural logarithms.
        logarithmic: names of tasks.
        digest: sha256 of the weights; two extractors with the same one give the same features.
    """

    network: MessageNetwork
    task_mean: Array
    task_scale: Array
    task_names: tuple[str, ...] = eqx.field(static=True)
    logarithmic: tuple[str, ...] = eqx.field(static=True)
    digest: str = eqx.field(static=True)

    @property
    def num_features(self) -> int:
        """Entries of φ."""
        return self.network.tasks.weight.shape[0]

    @property
    def property_names(self) -> tuple[str, ...]:
        """The tasks that are properties: what `properties` gives, in order."""
        return tuple(name for name in self.task_names if not name.startswith("rdkit_"))

    def __call__(self, graph: Graph, given: Array, alphabet: Alphabet, cap: bool = False) -> Array:
        """φ of one molecule, `(num_features,)` float32; map over a batch with `jax.vmap`.

        Small molecules cost less than large ones: a batch is sorted by size. No gradient with respect to the weights
        passes through here; to train them on, differentiate `network(atoms(graph, alphabet), given)`.

        Args:
            graph: see `chem.decode`.
            given: `(len(GIVEN_NAMES),)` see `given_features`.
            alphabet: of the graph's tokens; static under `jax.jit`.
            cap: put methyl groups into the places of attachment of a repeat unit.
        """
        return _on_graphs(alphabet, cap)(self.network, given, *graph)

    def properties(self, phi: Array) -> Array:
        """What the network says about the properties of `property_names` given φ `(..., f)`; in their units."""
        chosen = np.array([not name.startswith("rdkit_") for name in self.task_names])
        head = self.network.tasks
        value = jnp.dot(phi, head.weight[:, chosen], precision=jax.lax.Precision.HIGHEST) + head.bias[chosen]
        return self.task_mean[chosen] + self.task_scale[chosen] * value


SLOTS = (32,)
"""Places for atoms of the programs that small molecules run through; large ones have the alphabet's length. A further
program for the smallest would be 6 % faster and take two seconds more to compile."""
CHUNK = 64
"""Molecules of similar size that share a program."""


@functools.lru_cache(maxsize=64)
def _on_graphs(alphabet: Alphabet, cap: bool) -> Callable[..., Array]:
    return over_batches_sharing(functools.partial(_of_batch, alphabet=alphabet, cap=cap))


def _of_batch(network: MessageNetwork, given: Array, *graph: Array, alphabet: Alphabet, cap: bool) -> Array:
    """φ `(n, f)` of the fields of n graphs, in chunks sorted by the number of atoms."""
    graphs = Graph(*graph)
    n = len(given)
    size = (graphs.atom > 0).sum(1)
    order = jnp.argsort(size)
    chunk = min(CHUNK, n)
    padded = jnp.pad(order, (0, -n % chunk), mode="edge")
    slots = (*(s for s in SLOTS if s < alphabet.length), alphabet.length)

    def with_slots(places: int) -> Callable[[Graph, Array], Array]:
        def one(graph: Graph, given: Array) -> Array:
            molecule = atoms(graph, alphabet, places)
            return network(capped(molecule) if cap else molecule, given)

        return jax.vmap(one)

    def of_chunk(rows: Array) -> Array:
        which = jnp.searchsorted(jnp.asarray(slots), size[rows].max())
        some = jax.tree.map(lambda field: field[rows], graphs)
        return jax.lax.switch(which, [with_slots(places) for places in slots], some, given[rows])

    sorted_phi = jax.lax.map(of_chunk, padded.reshape(-1, chunk)).reshape(len(padded), -1)[:n]
    return jnp.zeros_like(sorted_phi).at[order].set(sorted_phi, unique_indices=True)


def save_network(network: MessageNetwork, folder: str | Path, card: dict[str, Any]) -> Path:
    """Write a network and its card: `card.json` says what it is, `arrays.npz` holds its numbers.

    Args:
        network: to be saved, in half precision.
        folder: it appears once it is complete and replaces what was there.
        card: with "tasks", each with name, mean, sd and log; anything else that is worth knowing.
    """
    leaves = jax.tree.leaves(network)
    named: dict[str, Any] = {f"leaf_{index:03d}": np.asarray(leaf, np.float16) for index, leaf in enumerate(leaves)}
    with replacing_folder(Path(folder)) as partial:
        np.savez_compressed(partial / _ARRAYS, **named)
        digest = hashlib.sha256((partial / _ARRAYS).read_bytes()).hexdigest()
        about = {"format": FORMAT, "given": list(GIVEN_NAMES), "rounds": len(network.layers)}
        (partial / _CARD).write_text(json.dumps(about | card | {"sha256": digest}, indent=1) + "\n", encoding="utf-8")
    return Path(folder)


def read_extractor(folder: str | Path) -> Extractor:
    """Read what `save_network` wrote.

    Raises:
        BayesmatError: the folder holds no network, or is damaged or of another version.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT or card["given"] != list(GIVEN_NAMES):
            raise BayesmatError(f"{folder} was written by another version of bayesmat; train it again")
        if hashlib.sha256((folder / _ARRAYS).read_bytes()).hexdigest() != card["sha256"]:
            raise BayesmatError(f"{folder / _ARRAYS} is damaged: its sha256 is not the card's")
        arrays = read_arrays(folder / _ARRAYS)
        names = tuple(str(task["name"]) for task in card["tasks"])
        if card["rounds"] not in range(1, MAX_ROUNDS + 1):
            raise BayesmatError(f"{folder}: rounds is {card['rounds']!r}, allowed are 1 to {MAX_ROUNDS}")
        skeleton = MessageNetwork.skeleton(len(GIVEN_NAMES), len(names), int(card["rounds"]))
        plan, structure = jax.tree.flatten(skeleton)
        stored = [arrays[f"leaf_{index:03d}"] for index in range(len(plan))]
        if any(array.dtype != np.float16 for array in stored):
            raise BayesmatError(f"{folder / _ARRAYS} should hold numbers in half precision and nothing else")
        network = jax.tree.unflatten(structure, [jnp.asarray(array, jnp.float32) for array in stored])
        network.check(len(GIVEN_NAMES), len(names))
        mean, scale = (np.array([task[key] for task in card["tasks"]], np.float32) for key in ("mean", "sd"))
        if not (np.isfinite(mean) & np.isfinite(scale) & (scale > 0)).all():
            raise BayesmatError(f"{folder}: means of tasks should be finite, standard deviations positive and finite")
        logarithmic = tuple(str(task["name"]) for task in card["tasks"] if task["log"])
    except BayesmatError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BayesmatError(f"{folder} is no saved network, or is damaged: {error!r}") from error
    return Extractor(network, jnp.asarray(mean), jnp.asarray(scale), names, logarithmic, str(card["sha256"]))


@functools.cache
def extractor(name: str = "graph") -> Extractor:
    """The extractor that ships with bayesmat; its card says what it was trained on, and on what not.

    Raises:
        BayesmatError: there is none of that name.

    >>> extractor().num_features
    128
    """
    root = Path(__file__).parent / "weights"
    known = sorted(path.parent.name for path in root.glob("*/card.json"))
    if name not in known:
        raise BayesmatError(f"no extractor is called {name!r}; there are {', '.join(known) or 'none'}")
    with jax.ensure_compile_time_eval():  # the first call may come while a program is traced
        return read_extractor(root / name)
