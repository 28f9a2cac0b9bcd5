"""`bayesmat fit` and `bayesmat predict`: a property from a file of measurements, and its predictions for a library."""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import bayesmat as bm

from .._types import progress, replacing
from ..data import Row, read_rows, readable

REPORT = "calibration.html"
COLUMNS = ("mean", "sd", "q05", "q95", "applicability", "reason")
CHUNK = 1024
MAX_REASONS, MAX_LINES = 20, 5
"""What the terminal names of the rows set aside; all stand in the report and in the predictions."""


def add_commands(commands: Any) -> None:
    """Add `fit` and `predict` to the command line's grammar."""
    fit = commands.add_parser("fit", help="learn a property from a file of measurements")
    fit.add_argument("data", metavar="DATA.csv", help="comma separated, with a header line")
    fit.add_argument("--smiles", required=True, metavar="COLUMN", help="of the structures; repeat units hold two *")
    fit.add_argument("--target", required=True, metavar="COLUMN", help="of the measured values")
    fit.add_argument("--out", required=True, metavar="MODEL", help=f"folder for the model and its {REPORT}")
    fit.add_argument("--unit", default="1", metavar="U", help="of the values (default: 1, a pure number)")
    fit.add_argument("--log", action=argparse.BooleanOptionalAction, help="model the logarithm (default: by skewness)")
    fit.add_argument("--seed", type=int, default=0, metavar="N")
    fit.add_argument("--refits", type=int, default=0, metavar="N",
                     help="judge it by N more, each without a part of the rows (default: leave-one-out)")  # fmt: skip
    fit.add_argument("--transfer", nargs="+", default=[], metavar="NAME",
                     help="tables to transfer from, see `bayesmat data list`; used below 1,000 rows")  # fmt: skip
    fit.set_defaults(call=_fit)
    predict = commands.add_parser("predict", help="predict a property for every row of a file")
    predict.add_argument("model", metavar="MODEL", help="a folder of `bayesmat fit`")
    predict.add_argument("file", metavar="FILE", help="comma or (.tsv) tab separated, with a header, possibly .gz")
    predict.add_argument("--smiles", required=True, metavar="COLUMN", help="of the structures")
    predict.add_argument("--out", required=True, metavar="PREDICTIONS.csv", help="possibly .gz")
    of_interval = "what q05 and q95 are: as the model promises (the default), as errors on unseen rows were, or between"
    kinds = bm.forward.INTERVALS
    predict.add_argument("--intervals", choices=kinds, default="posterior", help=of_interval)
    predict.set_defaults(call=_predict)


def _fit(arguments: argparse.Namespace) -> int:
    import jax

    out = Path(arguments.out)
    _check_model_folder(out)
    table = bm.data.from_csv(arguments.data, arguments.smiles, arguments.target, arguments.unit)
    _, rows = read_rows(arguments.data, arguments.smiles)  # what could be wrong with them is found before the fit
    alphabet = alphabet_of(table.smiles)
    sources = [_source(name) for name in dict.fromkeys(arguments.transfer)]
    fitted = bm.forward.fit(
        table, key=jax.random.key(arguments.seed), alphabet=alphabet, sources=sources, log=arguments.log,
        refits=arguments.refits,
    )  # fmt: skip
    set_aside = sorted([*table.bad_rows, *_refused_rows(rows, table, fitted)])
    bm.forward.save(fitted, out)
    rows_of = dict(zip(table.smiles, table.num_values.tolist(), strict=True))
    name, used = Path(arguments.data).name, sum(rows_of[text] for text in fitted.smiles)
    report = bm.report.write_calibration(fitted, out / REPORT, set_aside, f"{used:,} rows of {name}")
    what = "repeat units" if alphabet.attachments else "molecules"
    print(f"{table.num_read:,} rows read in {name}: {used:,} used, as {len(fitted.smiles):,} {what}; "
          f"{len(set_aside):,} set aside")  # fmt: skip
    counts = Counter(reason for _, reason in set_aside)
    say_reasons(counts, {why: [line for line, reason in set_aside if reason == why][:MAX_LINES] for why in counts})
    for text in fitted.not_believed():
        print(f"  {text}")
    if len(fitted.sources) + len(fitted.unrelated) < len(sources):
        print("  nothing was transferred: the table is large enough to do without")
    print(fitted.calibration.summary())
    print(f"Written: the model in {out}, what it is worth in {report}")
    return 0


def alphabet_of(smiles: Sequence[str]) -> bm.chem.Alphabet:
    """That of polymers where all structures have attachment points `*`, that of organic molecules where none has.

    Raises:
        BayesmatError: some have and some have not.
    """
    polymers = [text for text in smiles if "*" in text]
    if not polymers:
        return bm.chem.Alphabet.organic()
    if len(polymers) == len(smiles):
        return bm.chem.Alphabet.polymer()
    other = next(text for text in smiles if "*" not in text)
    raise bm.BayesmatError(
        f"{len(polymers):,} of {len(smiles):,} structures have attachment points *, such as {polymers[0]}, and the "
        f"others have none, such as {other}; allowed are repeat units alone or molecules alone"
    )


def _check_model_folder(folder: Path) -> None:
    """Before minutes of work: a model can be written there, in place of nothing else than a model.

    Raises:
        BayesmatError: there is something else, or nothing can be written.
    """
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        is_model = isinstance(card, dict) and "calibration" in card
    except (OSError, ValueError):
        is_model = False
    if folder.exists() and not is_model and (not folder.is_dir() or any(folder.iterdir())):
        raise bm.BayesmatError(f"--out {folder} exists and is not a model of `bayesmat fit`; name another folder")
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise bm.BayesmatError(f"--out {folder}: nothing can be written in {parent}")


def _source(name: str) -> bm.forward.Fitted:
    """The fit of a built-in table, as `bayesmat design` makes it: it is found in the cache if it was made before."""
    import jax

    table = bm.data.load(name).organic()
    return bm.forward.fit(table, key=jax.random.key(0), alphabet=bm.chem.Alphabet.organic())


def _refused_rows(
    rows: Iterator[Row], table: bm.data.PropertyTable, fitted: bm.forward.Fitted
) -> list[tuple[int, str]]:
    """(line number, reason) of rows whose structure the alphabet cannot say; a table has structures, not lines."""
    reasons = {refusal.smiles: refusal.reason for refusal in fitted.set_aside}
    if not reasons:
        return []
    named = {line for line, _ in table.bad_rows}
    others = [row for row in rows if row.line not in named]
    canonical = bm.chem.canonicalize([row.text for row in others]).smiles
    return [(row.line, reasons[text]) for row, text in zip(others, canonical, strict=True) if text in reasons]


def say_reasons(counts: Mapping[str, int], lines: Mapping[str, list[int]] | None = None) -> None:
    """Reasons why rows were set aside, the most frequent first, and the first lines that they hold for if known."""
    for reason, count in Counter(counts).most_common(MAX_REASONS):
        where = ""
        if lines is not None:
            more = "…" if count > len(lines[reason]) else ""
            where = f" (line{'s' if count > 1 else ''} {', '.join(map(str, lines[reason]))}{more})"
        print(f"    {count:7,d}  {reason}{where}")
    if len(counts) > MAX_REASONS:
        print(f"    and {len(counts) - MAX_REASONS:,} other reasons")


def _predict(arguments: argparse.Namespace) -> int:
    source, out = Path(arguments.file), Path(arguments.out)
    if out.is_dir() or (out.exists() and source.exists() and out.samefile(source)):
        raise bm.BayesmatError(f"--out {out} is {'a folder' if out.is_dir() else 'the input'}; name another file")
    model = bm.forward.load(arguments.model)
    header, rows = read_rows(source, arguments.smiles)
    columns = _free_names(COLUMNS, header)
    counts: Counter[str] = Counter()
    lines: dict[str, list[int]] = {}
    total = 0
    with _writing(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(readable, [*header, *columns]))
        for row, values in _predicted(model, progress(rows, f"predicting {model.label}"), arguments.intervals):
            writer.writerow([*map(readable, row.cells), *values])
            total += 1
            if reason := values[-1]:
                counts[reason] += 1
                if len(named := lines.setdefault(reason, [])) < MAX_LINES:
                    named.append(row.line)
    unit = "" if model.unit == "1" else f" [{model.unit}]"
    missing = counts.total()
    print(f"{model.label}{unit}: {total - missing:,} of {total:,} rows predicted, {missing:,} not")
    say_reasons(counts, lines)
    for wanted, name in zip(COLUMNS, columns, strict=True):
        if wanted != name:
            print(f"  {source.name} has a column {wanted!r}: that of the predictions is {name!r}")
    print(f"Written: {out}")
    return 0


def _predicted(model: bm.forward.Fitted, rows: Iterator[Row], intervals: str) -> Iterator[tuple[Row, list[str]]]:
    """Each row with the cells that it gets, in order."""
    while chunk := list(itertools.islice(rows, CHUNK)):
        usable = [index for index, row in enumerate(chunk) if not row.reason]
        cells = [["", "", "", "", "", row.reason] for row in chunk]
        found = model.predict_smiles([chunk[index].text for index in usable], intervals)
        numbers = [found.mean, found.sd, found.lower90, found.upper90]
        if (score := getattr(found, "applicability", None)) is not None:
            numbers.append(score)
        for place, values in zip(found.kept, zip(*numbers, strict=True), strict=True):
            cells[usable[place]][: len(values)] = [f"{value:.6g}" for value in values]
        for refusal in found.refusals:
            cells[usable[refusal.index]][-1] = refusal.reason
        yield from zip(chunk, cells, strict=True)


def _free_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """`names`, those that are taken with the first free of the endings _2, _3 …"""
    used = {name.strip() for name in taken}
    endings = ["", *(f"_{number}" for number in range(2, len(used) + 3))]
    return [next(name + ending for ending in endings if name + ending not in used) for name in names]


@contextmanager
def _writing(path: Path) -> Iterator[IO[str]]:
    """A text file that is there once it is complete, packed if its name ends in .gz."""
    try:
        with replacing(path) as partial, _opened(partial) as file:
            yield file
    except OSError as error:
        raise bm.BayesmatError(f"{path}: cannot be written ({error.strerror or error})") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")
