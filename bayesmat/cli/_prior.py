"""`bayesmat prior`: train a prior on molecules of your own, and draw molecules from one."""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bayesmat as bm

_CORPORA = {"organic": "organic", "polymer": "polymer"}  # built-in corpus → its alphabet
_TEXT, _TABLE = (".smi", ".smiles", ".txt"), (".csv", ".tsv")


def add_commands(commands: Any) -> None:
    """Add `prior train` and `prior sample` to the command line's grammar."""
    group = commands.add_parser("prior", help="train a prior over molecules, or draw from one")
    verbs = group.add_subparsers(dest="what", required=True, metavar="train|sample")
    train = verbs.add_parser("train", help="fit a prior to a corpus and save it")
    train.add_argument("corpus", metavar="CORPUS",
                       help="a .smi or .txt file (a SMILES begins each line), a .csv or .tsv file, each possibly .gz, "
                       "or a built-in corpus: organic, polymer")  # fmt: skip
    train.add_argument("--out", required=True, metavar="FOLDER", help="where the prior is saved")
    train.add_argument("--kind", choices=("neural", "ngram"), default="neural")
    train.add_argument("--smiles", metavar="COLUMN", default="smiles", help="column of a table (default: smiles)")
    train.add_argument("--alphabet", choices=("organic", "druglike", "polymer", "corpus"),
                       help="default: polymer for that corpus, else organic; corpus: what occurs")  # fmt: skip
    train.add_argument("--length", type=int, metavar="N", help="tokens in a string at most (default: the alphabet's)")
    train.add_argument("--hidden", type=int, default=384, metavar="N", help="channels of the network (default: 384)")
    train.add_argument("--forms", type=int, default=4, metavar="N",
                       help="random strings of each molecule (default: 4); 0: only the canonical one")  # fmt: skip
    train.add_argument("--epochs", type=int, default=12, metavar="N", help="passes at most (default: 12)")
    train.add_argument("--batch", type=int, default=64, metavar="N", help="strings in a batch (default: 64)")
    train.add_argument("--learning-rate", type=float, default=4e-3, metavar="X", help="highest value (default: 0.004)")
    train.add_argument("--patience", type=int, default=3, metavar="N",
                       help="stop after so many epochs without gain (default: 3)")  # fmt: skip
    train.add_argument("--minutes", type=float, metavar="M", help="time limit of the training")
    train.add_argument("--order", type=int, default=10, metavar="N", help="order of an n-gram (default: 10)")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument("--description", default="", metavar="TEXT", help="of the corpus, for the card")
    train.add_argument("--licence", default="", metavar="TEXT", help="of the weights, for the card")
    train.set_defaults(call=_train)
    sample = verbs.add_parser("sample", help="draw molecules: canonical SMILES, one a line")
    sample.add_argument("prior", metavar="NAME_OR_FOLDER", help="a folder of `prior train`, or a built-in name")
    sample.add_argument("--kind", choices=("neural", "ngram"), default="ngram", help="of a built-in name")
    sample.add_argument("--num", type=int, default=10, metavar="N", help="how many (default: 10)")
    sample.add_argument("--seed", type=int, default=0, metavar="N")
    sample.add_argument("--out", metavar="FILE", help="default: standard output")
    sample.set_defaults(call=_sample)


def read_smiles(path: str | Path, column: str = "smiles") -> list[str]:
    """The SMILES of a file.

    Args:
        path: .smi or .txt, where a SMILES begins each line, or .csv or .tsv with a header; each possibly with .gz.
        column: of a table.

    Raises:
        BayesmatError: the file cannot be read, is of another kind, has no such column, or is empty.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = next(iter(reversed(suffixes[:-1] if packed else suffixes)), "")
    if suffix not in _TEXT + _TABLE:
        raise bm.BayesmatError(f"{path}: allowed are {', '.join(_TEXT + _TABLE)}, each possibly with .gz")
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if packed
            else path.open(encoding="utf-8-sig", newline="") as lines
        ):
            found = list(_first_words(lines) if suffix in _TEXT else _column(lines, suffix, column, path))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise bm.BayesmatError(f"{path}: cannot be read ({reason})") from error
    if not found:
        raise bm.BayesmatError(f"{path}: holds no SMILES")
    return found


def _first_words(lines: Any) -> Iterator[str]:
    for line in lines:
        words = line.split(None, 1)
        if words and not words[0].startswith("#"):
            yield words[0]


def _column(lines: Any, suffix: str, column: str, path: Path) -> Iterator[str]:
    rows = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
    columns = rows.fieldnames or []
    if column not in columns:
        raise bm.BayesmatError(f"{path}: no column {column!r}; its columns are {', '.join(columns) or 'none'}")
    for row in rows:
        if text := (row[column] or "").strip():
            yield text


def _train(arguments: argparse.Namespace) -> int:
    bm.prior.check_target(arguments.out)
    if arguments.corpus in _CORPORA:
        corpus = bm.data.corpus(arguments.corpus)
        smiles, left_out = list(corpus.smiles), corpus.dropped
        description = arguments.description or f"bayesmat.data.corpus({arguments.corpus!r})"
    else:
        smiles, left_out = read_smiles(arguments.corpus, arguments.smiles), {}
        description = arguments.description or Path(arguments.corpus).name
    print(f"{len(smiles):,} structures in {arguments.corpus}")
    _say_set_aside("not in the corpus", left_out)
    alphabet = _alphabet(arguments, smiles)
    prior: bm.prior.NGram | bm.prior.Neural
    if arguments.kind == "ngram":
        prior = bm.prior.fit_ngram(smiles, alphabet, order=arguments.order)
    else:
        minutes = arguments.minutes
        prior = bm.prior.fit_neural(
            smiles,
            alphabet,
            hidden=arguments.hidden,
            forms=arguments.forms,
            epochs=arguments.epochs,
            batch_size=arguments.batch,
            learning_rate=arguments.learning_rate,
            patience=arguments.patience,
            seed=arguments.seed,
            time_limit=None if minutes is None else 60 * minutes,
            description=description,
            report=_say_epoch,
        )
    _say_set_aside("set aside", prior.set_aside)
    if isinstance(prior, bm.prior.Neural):
        held_out = prior.card["held_out"]
        print(f"{prior.card['training']['stop']}; {held_out['bits_per_molecule']:.2f} bits per molecule on")
        print(f"  {held_out['molecules']:,} held-out molecules ({held_out['strings']} strings)")
    print(f"Written: {bm.prior.save(prior, arguments.out, arguments.licence)}")
    return 0


def _alphabet(arguments: argparse.Namespace, smiles: list[str]) -> bm.chem.Alphabet:
    name = arguments.alphabet or _CORPORA.get(arguments.corpus, "organic")
    if name == "corpus":
        alphabet = bm.chem.Alphabet.from_corpus(smiles)
    else:
        alphabet = getattr(bm.chem.Alphabet, name)()
    return alphabet.with_length(arguments.length) if arguments.length else alphabet


def _say_set_aside(what: str, counts: Counter[str] | dict[str, int]) -> None:
    if counts:
        print(f"  {what}: {sum(counts.values()):,}")
    for reason, count in Counter(counts).most_common():
        print(f"    {count:7,d}  {reason}")


def _say_epoch(epoch: Any) -> None:
    print(f"  epoch {epoch.number:3d}: {epoch.train:.2f} bits per molecule in training, {epoch.held_out:.2f} held out, "
          f"{epoch.seconds:.0f} s", flush=True)  # fmt: skip


def _sample(arguments: argparse.Namespace) -> int:
    import jax
    import numpy as np

    if arguments.num < 1:
        raise bm.BayesmatError(f"--num is {arguments.num}; allowed are whole numbers from 1")
    prior = bm.prior.load(arguments.prior, kind=arguments.kind)
    draw = jax.jit(lambda prior, key: prior.sample(key, (arguments.num,)))
    lines = prior.to_text(np.asarray(draw(prior, jax.random.key(arguments.seed))))
    text = "".join(f"{line}\n" for line in lines)
    if arguments.out:
        try:
            Path(arguments.out).write_text(text, encoding="utf-8")
        except OSError as error:
            raise bm.BayesmatError(f"{arguments.out}: cannot be written ({error.strerror})") from error
    else:
        sys.stdout.write(text)
    return 0
