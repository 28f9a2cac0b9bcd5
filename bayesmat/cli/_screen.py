"""`bayesmat screen` and `bayesmat encode`: a library of any size against a design target."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bayesmat as bm

from ._fit import say_reasons

REPORT, TOP = "report.html", "top.csv"


def add_commands(commands: Any) -> None:
    """Add `screen` and `encode` to the command line's grammar."""
    screen = commands.add_parser("screen", help="rank a library by the probability that it is what is wanted")
    _add_library(screen)
    screen.add_argument("--model", required=True, action="append", dest="models", metavar="MODEL",
                        help="a folder of `bayesmat fit`; once for each property")  # fmt: skip
    screen.add_argument("--target", required=True, action="append", dest="targets", metavar='"NAME>VALUE"',
                        help="as in 'boiling_point>473', 'logS>90%%' (of those measured), '350<Tb<400 K'")  # fmt: skip
    screen.add_argument("--out", required=True, metavar="DIR", help=f"folder for the results, {TOP} and {REPORT}")
    screen.add_argument("--top", type=int, default=100, metavar="K", help="molecules to choose (default: 100)")
    screen.add_argument("--similarity", type=float, default=0.6, metavar="S",
                        help="that two chosen molecules may have, Tanimoto (default: 0.6; 1 for no limit)")  # fmt: skip
    screen.add_argument("--engine", choices=("process", "ray"), default="process",
                        help="one process on this machine, or Ray on a cluster (default: process)")  # fmt: skip
    screen.set_defaults(call=_screen)
    encode = commands.add_parser("encode", help="read a library once, to screen it many times")
    _add_library(encode)
    encode.add_argument("--out", required=True, metavar="TOKENS", help="folder for the encoded library")
    encode.add_argument("--model", metavar="MODEL", help="a model that will screen it (default: organic molecules)")
    encode.set_defaults(call=_encode)


def _add_library(command: argparse.ArgumentParser) -> None:
    command.add_argument("library", nargs="+", metavar="LIBRARY",
                         help=".smi, .csv, .tsv (possibly .gz) or .parquet files, a folder of them, an encoded "
                         "library, - for standard input, or with --draw a prior")  # fmt: skip
    command.add_argument("--smiles", metavar="COLUMN", help="of the structures, in tables")
    command.add_argument("--name", metavar="COLUMN", help="to carry along as the rows' names")
    command.add_argument("--draw", type=int, metavar="N", help="LIBRARY is a prior (its name or folder): draw N")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws")
    command.add_argument("--workers", type=int, metavar="N", help="processes that read (default: one for each core)")
    command.add_argument("--resume", action="store_true", help="go on from where an interrupted run in --out ended")


def _screen(arguments: argparse.Namespace) -> int:
    fits = _models(arguments.models)
    targets = bm.design.read_targets(arguments.targets, fits)
    out = Path(arguments.out)
    for name, fit in fits.items():
        wanted = targets[name].text(fit.unit) if name in targets else "no target"
        print(f"{fit.label}: {wanted}, from {len(fit.smiles):,} measured molecules")
    counts = bm.design.screen_to(
        out, _library(arguments), fits, targets, smiles=arguments.smiles, name=arguments.name,
        workers=arguments.workers, resume=arguments.resume, engine=arguments.engine,
    )  # fmt: skip
    _say(counts, "scored")
    found = bm.design.rank(out, fits, targets, top=arguments.top, max_similarity=arguments.similarity)
    table = bm.design.write_picks(found, out / TOP)
    report = bm.report.write_screening(found, out / REPORT)
    best, outlook = found.picks.slice(0, 5).to_pylist(), found.outlook
    print(f"Expected hits: {found.hits:,.1f} in the library; {outlook.hits:.1f} ({outlook.lower:.0f} to "
          f"{outlook.upper:.0f}) among {len(found.picks)} chosen, {found.enrichment:.1f} times chance")  # fmt: skip
    for row in best:
        print(f"  {row['p_hit']:.3f}  {row['smiles']}")
    print(f"Written: {table}, {report}, and every row in {out}/part-*.parquet")
    return 0


def _encode(arguments: argparse.Namespace) -> int:
    alphabet = bm.forward.load(arguments.model).alphabet if arguments.model else bm.chem.Alphabet.organic()
    counts = bm.design.encode_library(
        arguments.out, _library(arguments), alphabet, smiles=arguments.smiles, name=arguments.name,
        workers=arguments.workers, resume=arguments.resume,
    )  # fmt: skip
    _say(counts, "encoded")
    print(f"Written: {arguments.out}; screen it with `bayesmat screen {arguments.out} --model …`")
    return 0


def _library(arguments: argparse.Namespace) -> Any:
    if arguments.draw is not None:
        if len(arguments.library) != 1:
            raise bm.BayesmatError("--draw takes one prior")
        return bm.design.Drawn(bm.prior.load(arguments.library[0]), arguments.draw, arguments.seed)
    paths = [Path(path) for path in arguments.library]
    return paths[0] if len(paths) == 1 else paths


def _models(folders: list[str]) -> dict[str, bm.forward.Fitted]:
    fits: dict[str, bm.forward.Fitted] = {}
    for folder in folders:
        fit = bm.forward.load(folder)
        if fit.name in fits:
            raise bm.BayesmatError(f"{folder} is a second model of {fit.name!r}; give one for each property")
        fits[fit.name] = fit
    return fits


def _say(counts: bm.design.Counts, what: str) -> None:
    print(f"{counts.rows:,} rows: {counts.scored:,} {what}, {counts.duplicates:,} there twice, "
          f"{counts.set_aside:,} set aside")  # fmt: skip
    say_reasons(counts.reasons)
