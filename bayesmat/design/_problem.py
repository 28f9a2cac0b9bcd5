"""A design problem as a file: what is wanted, of which properties, with which settings."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from .._types import BayesmatError
from ..chem import Alphabet
from ._conditions import Condition
from ._settings import FILTER_NAMES, from_setting
from ._targets import Interval

_TARGET_KEYS = ("above", "below", "near", "within", "transfer", "data", "smiles", "column", "unit")
_SAMPLER_KEYS = ("particles", "seed", "moves", "target_ess", "max_temperatures")
_TOP_KEYS = ("title", "description", "prior", "filters", "sampler", "targets")
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class Sought:
    """One property of a problem.

    Attributes:
        table: its measurements.
        target: the region wanted.
        transfer: properties whose models feed the one of this property.
    """

    table: data.PropertyTable
    target: Interval
    transfer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampler:
    """Settings of the sampler, see `smc.SMC`; `seed` makes the whole design reproducible."""

    particles: int = 2048
    seed: int = 0
    moves: int = 8
    target_ess: float = 0.5
    max_temperatures: int = 60


@dataclass(frozen=True)
class Problem:
    """A design problem.

    Attributes:
        title: a line.
        description: a paragraph, may be empty.
        prior: a name that `prior.load` knows.
        sought: the properties with targets, by name, in the order of the file.
        conditions: what else is asked of a molecule.
        sampler: settings.
    """

    title: str
    description: str
    prior: str
    sought: dict[str, Sought]
    conditions: tuple[Condition, ...] = ()
    sampler: Sampler = field(default_factory=Sampler)

    def with_sampler(self, **changes: Any) -> Problem:
        """The same problem with other sampler settings; None leaves a setting as it is."""
        kept = {name: value for name, value in changes.items() if value is not None}
        return replace(self, sampler=_checked_sampler(replace(self.sampler, **kept), "command line"))


class _File:
    """A TOML file that can say on which line a key stands."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.lines = text.splitlines()

    def error(self, message: str, *keys: str) -> BayesmatError:
        """An error that names file, line and key."""
        return BayesmatError(f"{self.path}, {self._line(keys)}key {'.'.join(keys)!r}: {message}")

    def _line(self, keys: tuple[str, ...]) -> str:
        """The line of a key: below its section's header where it has one."""
        start = 0
        header = re.compile(rf"\s*\[\s*{re.escape('.'.join(keys[:-1]))}\s*\]")
        for number, line in enumerate(self.lines):
            if len(keys) > 1 and header.match(line):
                start = number
        for names in (keys[-1:], (".".join(keys),)):
            pattern = re.compile(rf"\s*(\[\s*)?(['\"]?)([\w.]+\.)?{re.escape(names[0])}\2\s*(=|\])")
            for number, line in enumerate(self.lines[start:], start + 1):
                if pattern.match(line):
                    return f"line {number}, "
        return f"line {start + 1}, " if start else ""


def read_problem(path: str | Path) -> Problem:
    """Read a problem from a TOML file; `examples/coolant.toml` shows every part.

    Args:
        path: the file; data files it names are looked for beside it.

    Raises:
        BayesmatError: the file cannot be read or is not TOML (names file and line), a key is unknown or wrong (names
            file, line and key), a property is unknown (lists the known ones), or an interval is contradictory.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BayesmatError(f"{path}: cannot be read ({error})") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, there = _place(text, error)
        raise BayesmatError(f"{path}, line {line}: not valid TOML: {error}; the line is {there!r}") from error
    file = _File(path, text)
    _check_keys(file, content, _TOP_KEYS)
    targets = content.get("targets")
    if not isinstance(targets, dict) or not targets:
        raise BayesmatError(f"{path}: a problem needs a section [targets.PROPERTY]; known: {', '.join(data.names())}")
    conditions = _conditions(file, content.get("filters", {}))
    sought = {name: _sought(file, name, body) for name, body in targets.items()}
    for name, one in sought.items():
        if unknown := [source for source in one.transfer if source not in sought or source == name]:
            raise file.error(f"{unknown} are not other targets of this problem", "targets", name, "transfer")
        if deep := [source for source in one.transfer if sought[source].transfer]:
            message = f"{deep} have a transfer of their own; only one step is allowed"
            raise file.error(message, "targets", name, "transfer")
    return Problem(
        title=_text(file, content, "title", "A design problem"),
        description=_text(file, content, "description", ""),
        prior=_text(file, content, "prior", "organic"),
        sought=sought,
        conditions=conditions,
        sampler=_sampler(file, content.get("sampler", {})),
    )


def _place(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """The line that a TOML error is about, and its text; the last one for an error at the end of the document."""
    found = re.search(r"at line (\d+)", str(error))
    lines = text.splitlines() or [""]
    number = min(int(found[1]) if found else len(lines), len(lines))
    return number, lines[number - 1].strip()


def _text(file: _File, content: dict[str, Any], key: str, default: str) -> str:
    value = content.get(key, default)
    if not isinstance(value, str):
        raise file.error(f"must be a text, not {value!r}", key)
    return value.strip()


def _check_keys(file: _File, content: dict[str, Any], allowed: tuple[str, ...], *where: str) -> None:
    for key in content:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise file.error(f"unknown; {hint}allowed: {', '.join(allowed)}", *where, key)


def _conditions(file: _File, body: Any) -> tuple[Condition, ...]:
    if not isinstance(body, dict):
        raise file.error("must be a section", "filters")
    _check_keys(file, body, FILTER_NAMES, "filters")
    found = []
    for name, value in body.items():
        try:
            condition = from_setting(name, value)
            condition.check(Alphabet.organic())
        except BayesmatError as error:
            raise file.error(str(error), "filters", name) from error
        found.append(condition)
    return tuple(found)


def _sought(file: _File, name: str, body: Any) -> Sought:
    if not isinstance(body, dict):
        raise file.error("must be a section with 'above', 'below' or 'near'", "targets", name)
    _check_keys(file, body, _TARGET_KEYS, "targets", name)
    table = _table(file, name, body)
    transfer = body.get("transfer", [])
    if not isinstance(transfer, list) or not all(isinstance(source, str) for source in transfer):
        raise file.error("must be a list of property names", "targets", name, "transfer")
    return Sought(table, _target(file, name, body, table), tuple(transfer))


def _table(file: _File, name: str, body: dict[str, Any]) -> data.PropertyTable:
    if "data" not in body:
        try:
            # A model for what the prior writes. Trained on water, halogens and freons as well, the conductivity model
            # has intervals a third wider on held-out organic molecules.
            return data.load(name).organic()
        except BayesmatError as error:
            raise file.error(f"{error}; or give your own measurements with 'data'", "targets", name) from error
    for key in ("smiles", "column", "unit"):
        if not isinstance(body.get(key), str):
            raise file.error(f"own data need {key!r}, a text", "targets", name, "data")
    try:
        return data.from_csv(file.path.parent / body["data"], body["smiles"], body["column"], body["unit"], name)
    except BayesmatError as error:
        raise file.error(str(error), "targets", name, "data") from error


def _target(file: _File, name: str, body: dict[str, Any], table: data.PropertyTable) -> Interval:
    given = [key for key in ("above", "below", "near", "within") if key in body]
    bounds = {key: _bound(file, name, key, body[key], table) for key in given}
    if ("near" in bounds) != ("within" in bounds):
        raise file.error("'near' and 'within' go together", "targets", name, "near" if "near" in bounds else "within")
    try:
        if "near" in bounds:
            if len(bounds) > 2:
                raise BayesmatError("'near' cannot stand with 'above' or 'below'")
            return Interval(bounds["near"] - bounds["within"], bounds["near"] + bounds["within"])
        return Interval(bounds.get("above", -np.inf), bounds.get("below", np.inf))
    except BayesmatError as error:
        raise file.error(str(error), "targets", name) from error


def _bound(file: _File, name: str, key: str, value: Any, table: data.PropertyTable) -> float:
    """A number in the property's unit; of 'above' and 'below' also a percentile of the measured values."""
    if isinstance(value, bool):
        raise file.error(f"must be a number [{table.unit}], not {value!r}", "targets", name, key)
    if isinstance(value, int | float):
        return float(value)
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found and key in ("above", "below") and 0 <= float(found[1]) <= 100:
        return float(np.percentile(table.y, float(found[1])))
    raise file.error(
        f"must be a number [{table.unit}]" + (', or a percentile such as "90%"' if key in ("above", "below") else "")
        + f", not {value!r}", "targets", name, key
    )  # fmt: skip


def _sampler(file: _File, body: Any) -> Sampler:
    if not isinstance(body, dict):
        raise file.error("must be a section", "sampler")
    _check_keys(file, body, _SAMPLER_KEYS, "sampler")
    for key, value in body.items():
        wanted = float if key == "target_ess" else int
        if isinstance(value, bool) or not isinstance(value, int | wanted):
            raise file.error(f"must be a number, not {value!r}", "sampler", key)
    return _checked_sampler(Sampler(**body), str(file.path))


def _checked_sampler(sampler: Sampler, where: str) -> Sampler:
    limits = {"particles": (16, 2**22), "seed": (0, 2**31 - 1), "moves": (1, 1000), "max_temperatures": (1, 1000)}
    for name, (low, high) in limits.items():
        if not low <= getattr(sampler, name) <= high:
            raise BayesmatError(f"{where}: {name} is {getattr(sampler, name)}; allowed are {low} to {high}")
    if not 0 < sampler.target_ess < 1:
        raise BayesmatError(f"{where}: target_ess is {sampler.target_ess}; allowed are values between 0 and 1")
    return sampler
