"""`bayesmat prior train` and `bayesmat prior sample`, as a user calls them."""

from __future__ import annotations

import gzip
import json

import pytest

import bayesmat as bm
from bayesmat import chem, cli
from bayesmat.cli._prior import read_smiles

MOLECULES = ["CCO", "CCN", "CC(C)O", "c1ccccc1", "CCCl", "CC(=O)O", "CCCC", "OCCO", "C[Hg]C", "nonsense"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "mine.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("name,SMILES\n" + "".join(f"m{i},{text}\n" for i, text in enumerate(MOLECULES)))
    return path


@pytest.mark.parametrize("kind", ["ngram", pytest.param("neural", marks=pytest.mark.slow)])
def test_train_then_sample(corpus, tmp_path, capsys, kind) -> None:
    folder, drawn = tmp_path / kind, tmp_path / "drawn.smi"
    quick = ["--hidden", "8", "--epochs", "1", "--forms", "1", "--order", "4", "--length", "40"]
    train = ["prior", "train", str(corpus), "--smiles", "SMILES", "--out", str(folder), "--kind", kind, *quick]
    assert cli.main(train) == 0
    said = capsys.readouterr().out
    assert "element Hg" in said and "RDKit cannot read it" in said and "10 structures" in said
    assert (folder / "card.json").is_file()
    sample = ["prior", "sample", str(folder), "--num", "5", "--seed", "3"]
    assert cli.main([*sample, "--out", str(drawn)]) == 0
    assert cli.main(sample) == 0
    lines = drawn.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines  # the same seed, the same molecules
    assert len(lines) == 5 and all(chem.is_accepted(line) for line in lines)
    assert bm.prior.load(folder).alphabet.length == 40


def test_alphabet_of_the_corpus(corpus, tmp_path, capsys) -> None:
    command = ["prior", "train", str(corpus), "--smiles", "SMILES", "--out", str(tmp_path / "own"), "--kind", "ngram"]
    assert cli.main([*command, "--order", "3", "--alphabet", "corpus"]) == 0
    elements = {atom.element for atom in bm.prior.load(tmp_path / "own").alphabet.atoms}
    assert elements == {"C", "N", "O", "Cl", "Hg"}
    assert "element Hg" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "missing.smi", "--out", "x"], "cannot be read"),
        (["train", "mine.xlsx", "--out", "x"], "allowed are .smi"),
        (["train", "CORPUS", "--out", "x"], "its columns are name, SMILES"),
        (["train", "CORPUS", "--smiles", "name", "--out", "x"], "can say"),
        (["train", "CORPUS", "--smiles", "SMILES", "--hidden", "0", "--out", "x"], "hidden is 0"),
        (["sample", "nowhere"], "no prior 'nowhere'"),
        (["sample", "organic", "--num", "0"], "--num is 0"),
    ],
)
def test_bad_input_is_named(corpus, tmp_path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["prior", *(str(corpus) if word == "CORPUS" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_card_says_what_was_trained_on(tmp_path, capsys) -> None:
    path, folder = tmp_path / "mine.smi", tmp_path / "prior"
    path.write_text("".join(f"{text} a name\n" for text in [*MOLECULES, "CC.O", "CC.N"]))
    quick = ["--hidden", "8", "--epochs", "2", "--forms", "1", "--length", "16", "--licence", "CC0-1.0"]
    assert cli.main(["prior", "train", str(path), "--out", str(folder), *quick]) == 0
    said = capsys.readouterr().out
    assert "set aside: 4" in said and "2  several fragments" in said and "epoch   2:" in said and "held-out" in said
    card = json.loads((folder / "card.json").read_text())
    assert card["kind"] == "neural" and card["licence"] == "CC0-1.0" and card["alphabet"]["length"] == 16
    corpus = card["corpus"]
    assert (corpus["description"], corpus["read"], corpus["molecules"]) == ("mine.smi", 12, 8)
    assert corpus["set_aside"] == {"several fragments": 2, "element Hg": 1, "RDKit cannot read it": 1}
    assert card["training"]["epochs"] == 2 and card["held_out"]["bits_per_molecule"] > 0


def test_files_of_each_kind(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("# comment\nCCO ethanol\n\nCCN\n")
    (tmp_path / "a.tsv").write_text("smiles\tname\nCCO\tethanol\n\tempty\n")
    (tmp_path / "a.smi.gz").write_bytes(gzip.compress(b"CCO\tethanol\n"))
    assert read_smiles(tmp_path / "a.txt") == ["CCO", "CCN"]
    assert read_smiles(tmp_path / "a.tsv") == ["CCO"]
    assert read_smiles(tmp_path / "a.smi.gz") == ["CCO"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", b"", [], "its columns are none"),
        ("a.smi", b"\n\n", [], "holds no SMILES"),
        ("a.smi", b"\xff\xfe\x00", [], "cannot be read"),
        ("a.smi.gz", b"no gzip", [], "cannot be read"),
        ("a.smi", b"C[Hg]C\nCC.O\n", [], "can say 0 of the 2 molecules"),
        ("a.smi", b"C[Hg]C\nCC.O\n", ["--kind", "ngram"], "can say none of the 2 molecules"),
        ("a.smi", b"CCO\nCCN\n", ["--minutes", "-1"], "time_limit is -60"),
    ],
)
def test_bad_files_are_named(tmp_path, capsys, name, content, options, message) -> None:
    (tmp_path / name).write_bytes(content)
    assert cli.main(["prior", "train", str(tmp_path / name), "--out", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_a_prior_is_refused_before_any_training(tmp_path, capsys) -> None:
    (tmp_path / "a.smi").write_text("CCO\nCCN\n")
    assert cli.main(["prior", "train", str(tmp_path / "a.smi"), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "is not a saved prior" in said.err and not said.out
    assert cli.main(["prior", "sample", str(tmp_path)]) == 2
    assert "is not a saved prior" in capsys.readouterr().err
    assert (tmp_path / "a.smi").is_file()
