"""Libraries of pre-trained networks: what each has learned, where from and how well; found by query, used on device.

A library is a folder of `card.json` (what the models are) and `arrays.npz` (their numbers, one flat array each of
weights, standards and features); nothing in it can run code when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from .._types import Array, BayesmatError, cache_dir, read_arrays, replacing_folder
from ._ensemble import Member, Network, shapes, stack, unpack

FORMAT = 1
"""Raise it whenever arrays or cards change their meaning."""

_CARD, _ARRAYS = "card.json", "arrays.npz"
_MADE = "make one with `bayesmat library train --tables all --models 500 --out FOLDER`"


@dataclass(frozen=True)
class Entry:
    """What a library says about one model.

    Attributes:
        name: property and the beginning of the checksum; equal names are equal models.
        property: what it predicts, in `unit`.
        unit: of predictions and of `mae`; "1" for pure numbers, "" where not known.
        material: "molecule", "polymer" or "mixed", by what it was trained on.
        widths: of its hidden layers, never rising.
        num_features: base features that it uses.
        r2: on held-out rows; of the logarithm where `log` is true.
        mae: mean absolute error on held-out rows, in `unit`.
        num_train, num_held_out: rows.
        seed: (seed of the library, number of the model).
        learning_rate, weight_decay: of the training.
        slope: of the activation.
        log: whether the logarithm was learned.
        y_center, y_scale: mean and standard deviation in training.
        source: of the data.
        licence: of the model.
        sha256: of its numbers.
    """

    name: str
    property: str
    unit: str
    material: str
    widths: tuple[int, ...]
    num_features: int
    r2: float
    mae: float
    num_train: int
    num_held_out: int
    seed: tuple[int, int]
    learning_rate: float
    weight_decay: float
    slope: float
    log: bool
    y_center: float
    y_scale: float
    source: str
    licence: str
    sha256: str


class Pretrained(eqx.Module):
    """One pre-trained model, a function of base features; a pytree, for use inside `jax.jit` and `jax.vmap`."""

    network: Network
    entry: Entry = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        """The last hidden layer `(..., w)` of base features `(..., d)`."""
        return self.hidden(x)

    def hidden(self, x: Array) -> Array:
        """The last hidden layer `(..., w)` of base features `(..., d)`.

        Raises:
            BayesmatError: d is not the number of base features of the library.
        """
        return self.network.hidden(_checked(x, self.network))

    def predict(self, x: Array) -> Array:
        """The property `(...,)` in `entry.unit` of base features `(..., d)`.

        Raises:
            BayesmatError: d is not the number of base features of the library.
        """
        return self.network.predict(_checked(x, self.network))


class Stack(eqx.Module):
    """Several models evaluated at once, padded to one shape; a pytree.

    Attributes:
        networks: their arrays along a first axis.
        entries: what they are, in order.
    """

    networks: Network
    entries: tuple[Entry, ...] = eqx.field(static=True)

    def hidden(self, x: Array) -> Array:
        """Last hidden layers `(..., M, w)` of base features `(..., d)`; zero beyond the width of a narrower model.

        Raises:
            BayesmatError: d is not the number of base features of the library.
        """
        return jax.vmap(lambda network: network.hidden(_checked(x, network)), out_axes=-2)(self.networks)

    def predict(self, x: Array) -> Array:
        """Predictions `(..., M)` of base features `(..., d)`, each in the unit of its property.

        Raises:
            BayesmatError: d is not the number of base features of the library.
        """
        return jax.vmap(lambda network: network.predict(_checked(x, network)), out_axes=-1)(self.networks)


def _checked(x: Array, network: Network) -> Array:
    x = jnp.asarray(x)
    if not x.ndim or x.shape[-1] != network.center.shape[-1]:
        raise BayesmatError(
            f"base features of shape {x.shape}; the last axis needs the {network.center.shape[-1]} features named by "
            f"the library"
        )
    return x


@dataclass(frozen=True)
class FeatureSet:
    """Which base features models were trained on; models of different sets do not mix.

    Attributes:
        name: of the function that makes them.
        version: raised whenever a value changes.
        features: their names, in order.
    """

    name: str
    version: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Library:
    """Pre-trained models, found by name or by query; immutable.

    Attributes:
        feature_set: the base features that the models read.
        members: the numbers of each model, by name.
        entries: what each model is, by name, in the order of `members`.
        about: counts of the training, such as excluded and unreadable structures.
    """

    feature_set: FeatureSet
    members: Mapping[str, Member] = field(repr=False)
    entries: Mapping[str, Entry] = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def list(self) -> tuple[Entry, ...]:
        """What each model is."""
        return tuple(self.entries.values())

    def to_dataframe(self) -> pd.DataFrame:
        """One row per model, in the columns of `Entry` and its architecture in words."""
        rows = [asdict(entry) | {"architecture": _architecture(entry)} for entry in self.entries.values()]
        return pd.DataFrame(rows, columns=[*(f.name for f in fields(Entry)), "architecture"]).set_index("name")

    def query(
        self,
        property: str | None = None,
        material: str | None = None,
        architecture: str | None = None,
        min_r2: float | None = None,
    ) -> Library:
        """The models that meet every condition given, best held-out R² first; possibly none.

        Args:
            property: its name.
            material: "molecule", "polymer" or "mixed".
            architecture: widths of the hidden layers, such as "128-64-16".
            min_r2: the lowest R² on held-out rows.

        Raises:
            BayesmatError: the library has no such property or material at all.
        """
        for what, asked in (("property", property), ("material", material)):
            known = sorted({getattr(entry, what) for entry in self.entries.values()})
            if asked is not None and asked not in known:
                raise BayesmatError(f"no model of {what} {asked!r} in the library; known: {', '.join(known)}")
        chosen = [
            entry
            for entry in self.entries.values()
            if (property is None or entry.property == property)
            and (material is None or entry.material == material)
            and (architecture is None or _architecture(entry) == architecture)
            and (min_r2 is None or entry.r2 >= min_r2)
        ]
        return self.only(entry.name for entry in sorted(chosen, key=lambda e: (-e.r2, e.name)))

    def best(self, num: int) -> Library:
        """Of each property the `num` models of highest held-out R²."""
        properties = dict.fromkeys(entry.property for entry in self.entries.values())
        return self.only(name for p in properties for name in list(self.query(property=p))[:num])

    def only(self, names: Iterable[str]) -> Library:
        """The named models, in that order.

        Raises:
            BayesmatError: there is no model of one of the names.
        """
        names = [self._known(name) for name in names]
        members = {name: self.members[name] for name in names}
        return Library(self.feature_set, members, {name: self.entries[name] for name in names}, self.about)

    def __getitem__(self, name: str) -> Pretrained:
        network = unpack(self.members[self._known(name)], len(self.feature_set.features))
        return Pretrained(jax.tree.map(jnp.asarray, network), self.entries[name])

    def stack(self, names: Iterable[str] | None = None) -> Stack:
        """Models to evaluate at once; all of them if None. Memory grows with the widest, see `query`.

        Raises:
            BayesmatError: there is no model of one of the names, or none is asked for.
        """
        names = list(self.entries if names is None else names)
        if not names:
            raise BayesmatError("a stack needs at least one model")
        d = len(self.feature_set.features)
        networks = [unpack(self.members[self._known(name)], d) for name in names]
        return Stack(stack(networks), tuple(self.entries[name] for name in names))

    def _known(self, name: str) -> str:
        if name not in self.entries:
            raise BayesmatError(f"no model {name!r} in the library of {len(self)}; `list()` says which there are")
        return name

    def __add__(self, other: Library) -> Library:
        """Both libraries in one; a model that is in both is there once.

        Raises:
            BayesmatError: their models read different base features.
        """
        if self.feature_set != other.feature_set:
            mine, theirs = ((f.name, f.version, len(f.features)) for f in (self.feature_set, other.feature_set))
            raise BayesmatError(f"models on base features {mine} do not mix with models on {theirs}")
        members, entries = {**self.members, **other.members}, {**self.entries, **other.entries}
        return Library(self.feature_set, members, entries, {"merged": [dict(self.about), dict(other.about)]})

    def save(self, folder: str | Path) -> Path:
        """Write the library into a folder, which appears only once it is complete.

        Raises:
            BayesmatError: the folder holds something else, or cannot be written.
        """
        folder = check_target(folder)
        members = self.members.values()
        parts = {"weights": (np.float16, 1), "standards": (np.float32, 2), "features": (np.uint16, 1)}
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(m, name) for m in members] or [np.zeros((2, 0)[2 - dims :])], -1).astype(kind)
            for name, (kind, dims) in parts.items()
        }
        card = {
            "format": FORMAT,
            "feature_set": asdict(self.feature_set),
            "about": dict(self.about),
            "models": [asdict(entry) for entry in self.entries.values()],
        }
        with replacing_folder(folder) as partial:
            np.savez_compressed(partial / _ARRAYS, **arrays)
            text = json.dumps(card, allow_nan=False).replace('{"name"', '\n{"name"')  # one line per model
            (partial / _CARD).write_text(text + "\n", encoding="utf-8")
        return folder


def _architecture(entry: Entry) -> str:
    return "-".join(map(str, entry.widths))


def check_target(folder: str | Path) -> Path:
    """The folder, if `Library.save` may write there; worth asking before a long training.

    Raises:
        BayesmatError: it is a file, or holds something else than a library.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _CARD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise BayesmatError(f"{folder} exists and is not a library; name a new or an empty folder")
    return folder


def entry_of(member: Member, property: str, unit: str, material: str, source: str = "", licence: str = "") -> Entry:
    """The entry of a trained network under the name of its property."""
    digest = _digest(member)
    return Entry(
        name=f"{property}-{digest[:10]}",
        property=property,
        unit=unit,
        material=material,
        num_features=len(member.features),
        source=source,
        licence=licence,
        sha256=digest,
        **{name: getattr(member, name) for name in _SHARED},
    )


_SHARED = tuple({f.name for f in fields(Entry)} & {f.name for f in fields(Member)})


def _digest(member: Member) -> str:
    """sha256 of all numbers that a prediction depends on."""
    exact = [list(member.widths), member.slope, member.log, member.y_center, member.y_scale]
    digest = hashlib.sha256(json.dumps(exact).encode())
    for array in (member.features, member.standards, member.weights):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def library(path: str | Path | None = None) -> Library:
    """A library of pre-trained models.

    Args:
        path: a folder that `Library.save` wrote, or one of such folders (shards), or the name of a library in
            `cache_dir()/library`; None for the one that comes with the package.

    Raises:
        BayesmatError: there is none, it is damaged, or it was written in another format.
    """
    if path is None:
        folder = Path(__file__).parent / "weights" / "library"
        if not folder.is_dir():
            raise BayesmatError(f"this installation has no library of models; {_MADE}")
        return _read(folder)
    folder = Path(path)
    if not folder.is_dir() and (named := cache_dir() / "library" / path).is_dir():
        folder = named
    shards = [] if (folder / _CARD).is_file() else sorted(card.parent for card in folder.glob(f"*/{_CARD}"))
    return functools.reduce(Library.__add__, map(_read, shards)) if shards else _read(folder)


def _read(folder: Path) -> Library:
    if not (folder / _CARD).is_file():
        raise BayesmatError(f"{folder} holds no library of models; {_MADE}")
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise BayesmatError(f"{folder} has format {card['format']}, this version reads {FORMAT}")
        names = card["feature_set"]["features"]
        feature_set = FeatureSet(str(card["feature_set"]["name"]), str(card["feature_set"]["version"]), tuple(names))
        entries = [_entry(row) for row in card["models"]]
        members = _members(entries, read_arrays(folder / _ARRAYS), len(names), folder)
        about = dict(card["about"])
    except BayesmatError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BayesmatError(f"{folder} is not a library of models, or is damaged: {error!r}") from error
    if len({entry.name for entry in entries}) < len(entries):
        raise BayesmatError(f"{folder} is damaged: two of its models have one name")
    numbers = {entry.name: member for entry, member in zip(entries, members, strict=True)}
    return Library(feature_set, numbers, {entry.name: entry for entry in entries}, about)


_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}


def _entry(row: dict[str, Any]) -> Entry:
    """A line of the card as what it must be: text, finite numbers, shapes of a sensible size."""
    row = row | {"widths": tuple(row["widths"]), "seed": tuple(row["seed"])}
    entry = Entry(**row)
    for f in fields(Entry):
        value, kind = getattr(entry, f.name), _KINDS.get(str(f.type))
        plain = isinstance(value, kind) if kind else all(type(v) is int for v in value)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise BayesmatError(f"model {entry.name!r} of a library has {f.name} {value!r}")
    widths = entry.widths
    if not widths or min(widths) < 1 or entry.num_features < 1 or list(widths) != sorted(widths, reverse=True):
        raise BayesmatError(f"model {entry.name!r} of a library has widths {widths} and {entry.num_features} features")
    return entry


def _members(entries: Sequence[Entry], arrays: dict[str, np.ndarray], d: int, folder: Path) -> list[Member]:
    """The flat arrays cut into models; every number is looked at, and every checksum."""
    weights, standards, features = (arrays[name] for name in ("weights", "standards", "features"))
    kinds = [(a.dtype, a.ndim) for a in (weights, standards, features)]
    if kinds != [(np.float16, 1), (np.float32, 2), (np.uint16, 1)] or standards.shape != (2, len(features)):
        raise BayesmatError(f"{folder / _ARRAYS} is damaged: its arrays are of types and dimensions {kinds}")
    if not np.isfinite(weights).all() or not np.isfinite(standards).all() or (features >= d).any():
        raise BayesmatError(f"{folder / _ARRAYS} is damaged: it has weights or features out of range")
    members, at, column = [], 0, 0
    for entry in entries:
        own = slice(column, column + entry.num_features)
        shared = {name: getattr(entry, name) for name in _SHARED}
        member = Member(target=0, features=features[own], standards=standards[:, own], **shared)
        if len(member.features) != entry.num_features:
            raise BayesmatError(f"{folder / _ARRAYS} is damaged: it ends inside the model {entry.name!r}")
        size = sum(math.prod(shape) for shape in shapes(member))
        member = Member(
            **{f.name: getattr(member, f.name) for f in fields(Member)} | {"weights": weights[at : at + size]}
        )
        if len(member.weights) != size or _digest(member) != entry.sha256:
            raise BayesmatError(f"model {entry.name!r} in {folder} is damaged: its checksum is not the card's")
        members.append(member)
        at, column = at + size, column + entry.num_features
    if at != len(weights) or column != len(features):
        raise BayesmatError(f"{folder / _ARRAYS} is damaged: it holds more numbers than the card's models")
    return members
