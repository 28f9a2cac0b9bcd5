"""`bayesmat prior train` and `bayesmat prior sample`, as a user calls them."""

from __future__ import annotations

import gzip

import pytest

import bayesmat as bm
from bayesmat import chem, cli

MOLECULES = ["CCO", "CCN", "CC(C)O", "c1ccccc1", "CCCl", "CC(=O)O", "CCCC", "OCCO", "C[Hg]C", "nonsense"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "mine.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("name,SMILES\n" + "".join(f"m{i},{text}\n" for i, text in enumerate(MOLECULES)))
    return path


@pytest.mark.parametrize("kind", ["ngram", "neural"])
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
