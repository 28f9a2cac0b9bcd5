"""`bayesmat library`: list the pre-trained models of a library, and train one on tables of your own."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bayesmat as bm
from bayesmat.nn import _library as stored, _pretrain as pretraining

from ._prior import read_smiles

_SHOWN = 8  # reasons that are named


@dataclass(frozen=True, eq=False)
class Table:
    """One property of a user's file; see `nn.Measured`."""

    name: str
    unit: str
    smiles: tuple[str, ...]
    y: np.ndarray
    sources: tuple[str, ...]


def add_commands(commands: Any) -> None:
    """Add `library list` and `library train` to the command line's grammar."""
    group = commands.add_parser("library", help="pre-trained models: list them, or train your own")
    verbs = group.add_subparsers(dest="what", required=True, metavar="list|train")
    shown = verbs.add_parser("list", help="what a library holds, best first")
    shown.add_argument("library", nargs="?", metavar="NAME_OR_FOLDER", help="default: the one of this installation")
    shown.add_argument("--property", metavar="NAME")
    shown.add_argument("--min-r2", type=float, metavar="X", help="lowest R2 on held-out rows")
    shown.set_defaults(call=_list)
    train = verbs.add_parser("train", help="train networks of random shape on tables of properties")
    train.add_argument("files", nargs="*", metavar="DATA.csv", help="tables with a header, possibly .gz or .tsv")
    train.add_argument("--smiles", metavar="COLUMN", default="smiles", help="of the structures (default: smiles)")
    train.add_argument("--targets", nargs="+", metavar="COLUMN[=UNIT]",
                       help="properties (default: every column of numbers)")  # fmt: skip
    train.add_argument("--long", metavar="NAME,VALUE[,UNIT]",
                       help="columns of files with one value a line under the name of its property")  # fmt: skip
    train.add_argument("--tables", nargs="+", default=[], metavar="NAME",
                       help="measured tables of this installation, see `bayesmat data list`; or: all")  # fmt: skip
    train.add_argument("--per-atom", nargs="+", default=[], metavar="COLUMN",
                       help="properties whose value per heavy atom is learned as well")  # fmt: skip
    train.add_argument("--exclude", metavar="FILE", help="structures never to be trained on, as in `prior train`")
    train.add_argument("--models", type=int, required=True, metavar="N", help="networks, evenly over the properties")
    train.add_argument("--keep", type=int, metavar="K", help="of each property only the K best on held-out rows")
    train.add_argument("--widths", type=int, nargs=2, default=(16, 256), metavar=("LOW", "HIGH"),
                       help="of hidden layers (default: 16 256)")  # fmt: skip
    train.add_argument("--rows", type=int, default=3000, metavar="N", help="of a network at most (default: 3000)")
    train.add_argument("--out", required=True, metavar="FOLDER", help="where the library is saved")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument("--licence", default="", metavar="TEXT", help="of the models, for the card")
    train.set_defaults(call=_train)


def _list(arguments: argparse.Namespace) -> int:
    library = stored.library(arguments.library).query(property=arguments.property, min_r2=arguments.min_r2)
    shown = library.to_dataframe()
    lines = [f"{'R2':>6s} {'MAE':>10s} {'unit':12s} {'rows':>6s} {'material':9s} {'architecture':20s} name"]
    for name, row in shown.iterrows():
        lines.append(f"{row.r2:6.3f} {row.mae:10.4g} {row.unit:12s} {row.num_train:6d} {row.material:9s} "
                     f"{row.architecture:20s} {name}")  # fmt: skip
    lines.append(f"{len(shown)} models of {shown.property.nunique()} properties")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    start = time.perf_counter()
    if arguments.keep is not None and arguments.keep < 1:
        raise bm.BayesmatError(f"--keep is {arguments.keep}; allowed are numbers from 1")
    stored.check_target(arguments.out)
    names = bm.data.names() if arguments.tables == ["all"] else arguments.tables
    tables: list[Any] = [bm.data.load(name) for name in names] + read_tables(
        arguments.files, arguments.smiles, arguments.targets, arguments.long
    )
    if not tables:
        raise bm.BayesmatError("nothing to train on; name files, or --tables all")
    exclude = read_smiles(arguments.exclude, arguments.smiles) if arguments.exclude else []
    print(f"{len({table.name for table in tables})} properties, {sum(len(table.smiles) for table in tables):,} values",
          flush=True)  # fmt: skip
    library = pretraining.train_library(
        tables,
        arguments.models,
        seed=arguments.seed,
        exclude=exclude,
        per_atom=arguments.per_atom,
        widths=tuple(arguments.widths),
        max_rows=arguments.rows,
        licence=arguments.licence,
    )
    _say(library)
    kept = library if arguments.keep is None else library.best(arguments.keep)
    folder = kept.save(arguments.out)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"Written: {folder}, {len(kept)} models, {size:.2f} MB, in {time.perf_counter() - start:.0f} s")
    return 0


def _say(library: stored.Library) -> None:
    """What was left out, and a line per property."""
    about = library.about
    print(f"{about['structures']:,} structures; {about['excluded']:,} excluded")
    refused = sorted(about["refused"].items(), key=lambda pair: -pair[1])
    for reason, count in refused[:_SHOWN]:
        print(f"  {count:7,d}  {reason}")
    if refused[_SHOWN:]:
        print(f"  {sum(count for _, count in refused[_SHOWN:]):7,d}  for {len(refused[_SHOWN:])} other reasons")
    for name, rows in about["properties_left_out"].items():
        print(f"  property left out: {name} ({rows} usable rows)")
    if len(library) < about["asked_for"]:
        print(f"  interrupted: {len(library)} of {about['asked_for']} networks are done")
    table = library.to_dataframe().groupby("property", sort=True)
    print(f"{'property':28s} {'unit':12s} models  best R2  median R2  best MAE")
    for name, rows in table:
        print(f"{name:28s} {rows.unit.iloc[0]:12s} {len(rows):6d} {rows.r2.max():8.3f} {rows.r2.median():10.3f} "
              f"{rows.mae.min():9.3g}")  # fmt: skip


def read_tables(
    paths: list[str], smiles_column: str = "smiles", targets: list[str] | None = None, long: str | None = None
) -> list[Table]:
    """The properties of files: columns of numbers, or lines of name and value.

    Args:
        paths: .csv or .tsv, possibly .gz.
        smiles_column: of the structures, in every file.
        targets: columns (or names, of a long file), each possibly with `=UNIT`; None for every column in which nine
            in ten of the cells that are not empty are numbers.
        long: "NAME,VALUE" or "NAME,VALUE,UNIT", columns of the files that are long.

    Raises:
        BayesmatError: a file cannot be read or has no such column, or no file has one of the targets.
    """
    units = dict(text.rpartition("=")[::2] if "=" in text else (text, "") for text in targets or [])
    columns = long.split(",") if long else []
    if long and len(columns) not in (2, 3):
        raise bm.BayesmatError(f"--long is {long!r}; allowed are NAME,VALUE and NAME,VALUE,UNIT")
    tables: list[Table] = []
    for path in paths:
        frame = _frame(path, smiles_column)
        is_long = bool(columns) and set(columns) <= set(frame.columns)
        tables += _long(frame, path, smiles_column, columns) if is_long else _wide(frame, path, smiles_column, units)
    if units:
        tables = [table for table in tables if table.name in units]
        for name in units:
            if name not in {table.name for table in tables}:
                raise bm.BayesmatError(f"no file has a column of numbers {name!r}; files: {', '.join(paths) or 'none'}")
    return tables


def _frame(path: str, smiles_column: str) -> pd.DataFrame:
    tabs = ".tsv" in [suffix.lower() for suffix in Path(path).suffixes]
    try:
        frame = pd.read_csv(path, sep="\t" if tabs else ",", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        raise bm.BayesmatError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if smiles_column not in frame.columns:
        raise bm.BayesmatError(f"{path}: no column {smiles_column!r}; its columns are {', '.join(frame.columns)}")
    return frame


def _numbers(cells: pd.Series) -> np.ndarray:
    values = pd.to_numeric(cells.str.strip(), errors="coerce").to_numpy(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _table(name: str, unit: str, smiles: pd.Series, y: np.ndarray, path: str) -> Table:
    known = np.isfinite(y)
    return Table(name, unit, tuple(smiles[known]), y[known], (Path(path).name,))


def _wide(frame: pd.DataFrame, path: str, smiles_column: str, units: dict[str, str]) -> list[Table]:
    tables = []
    for name in frame.columns:
        if name == smiles_column or (units and name not in units):
            continue
        y = _numbers(frame[name])
        if units or np.isfinite(y).sum() > 0.9 * (frame[name].str.strip() != "").sum():
            tables.append(_table(name, units.get(name, ""), frame[smiles_column], y, path))
    return tables


def _long(frame: pd.DataFrame, path: str, smiles_column: str, columns: list[str]) -> list[Table]:
    return [
        _table(str(name), rows[columns[2]].iloc[0] if len(columns) == 3 else "", rows[smiles_column],
               _numbers(rows[columns[1]]), path)
        for name, rows in frame.groupby(columns[0], sort=True)
    ]  # fmt: skip
