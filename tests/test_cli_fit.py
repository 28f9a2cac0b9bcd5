"""`bayesmat fit` and `bayesmat predict`, as a user calls them; rows of any file; the calibration report."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import types

import numpy as np
import pytest
from hypothesis import given, strategies as st
from test_report import HOSTILE, Page, make_calibration

import bayesmat as bm
from bayesmat import cli, report
from bayesmat.cli import _fit
from bayesmat.data import read_rows

TAILS = ("CO", "CCO", "C(C)O", "CC(C)O", "C(C)CO", "CN", "CCN", "C(C)N", "CCl", "CS")
MOLECULES = sorted({bm.chem.canonical("C" * length + tail) for length in range(1, 7) for tail in TAILS})[:40]
"""As many as in the smallest fit of test_forward.py, whose compiled programs serve here too."""
BAD = ["salt,[Na+].[Cl-],0.2", "broken,C1CC,0.1", "no value,CCO,", "mercury,C[Hg]C,0.13", "word,CCCO,high"]


def value(smiles: str) -> float:
    return 0.1 + 0.005 * len(smiles) + (0.05 if "O" in smiles else 0.02)


def table_text() -> str:
    rows = [f'"m, {i}",{smiles},{value(smiles):.4f}' for i, smiles in enumerate(MOLECULES)]
    again = f"again,{MOLECULES[3]},{value(MOLECULES[3]):.4f}"
    return "\n".join(["name,SMILES,k", *rows[:4], *BAD, again, *rows[4:]]) + "\n"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a model, its data file, and what the command said."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "mine.csv").write_text(table_text())
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", said)
        assert cli.main(command(folder / "mine.csv", folder / "deep" / "model", "--unit", "W/m/K", "--no-log")) == 0
    return folder / "deep" / "model", folder / "mine.csv", said.getvalue()


def command(data, out, *more):
    return ["fit", str(data), "--smiles", "SMILES", "--target", "k", "--out", str(out), *more]


def no_fit(*_, **__):
    raise AssertionError("fitted too early")


def test_fit_says_what_became_of_each_row(fitted):
    model, _, said = fitted
    n = len(MOLECULES)
    assert f"{n + 6} rows read in mine.csv: {n + 1} used, as {n} molecules; 5 set aside" in said
    for line, reason in enumerate(("several fragments", "RDKit cannot read it", "no value", "element Hg"), 6):
        assert f"1  {reason} (line {line})" in said
    assert "value is not a finite number (line 10)" in said
    assert "leave-one-out" in said and "90 % →" in said and str(model / "calibration.html") in said


def test_model_and_report(fitted):
    model, *_ = fitted
    loaded = bm.forward.load(model)
    assert loaded.smiles == tuple(sorted(MOLECULES)) and loaded.unit == "W/m/K" and not loaded.predictor.log
    source = (model / "calibration.html").read_text()
    page = Page(source)
    assert page.open == [] and "<script" not in source
    assert "line 9" in page.text and "element Hg" in page.text and f"{len(MOLECULES) + 1} rows of mine.csv" in page.text
    drawn = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    assert sum(label.startswith("structure of") for label in drawn) == 10 and len(drawn) == 13
    judged = loaded.calibration
    worst = judged.observed[np.abs(judged.mean - judged.observed).argmax()]
    assert page.text.index("Worst predictions") < page.text.index(bm.report._text.number(float(worst), 4))


def test_fit_again_takes_the_place_of_a_model(fitted, capsys):
    model, data, _ = fitted
    before = (model / "arrays.npz").read_bytes()
    (model / "calibration.html").unlink()
    assert cli.main(command(data, model, "--unit", "W/m/K", "--no-log")) == 0  # from the cache
    assert (model / "arrays.npz").read_bytes() == before and (model / "calibration.html").is_file()


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (lambda out: (out.mkdir(), (out / "notes.txt").write_text("mine")), [], "is not a model of `bayesmat fit`"),
        (lambda out: (out.mkdir(), (out / "card.json").write_text('{"kind": "ngram"}')), [], "is not a model"),
        (lambda out: out.write_text("mine"), [], "is not a model"),
        (lambda out: None, ["--transfer", "boiling_pint"], "did you mean 'boiling_point'"),
        (lambda out: None, ["--target", "kk"], "its columns are ['name', 'SMILES', 'k']"),
        (lambda out: None, ["--target", "name"], "none of"),
    ],
)
def test_fit_refuses_before_the_work(fitted, tmp_path, monkeypatch, capsys, make, more, message):
    monkeypatch.setattr(bm.forward, "fit", no_fit)
    make(tmp_path / "out")
    assert cli.main(command(fitted[1], tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err
    made = [path.name for path in tmp_path.rglob("*")]
    assert made in ([], ["out"], ["out", "notes.txt"], ["out", "card.json"])


def test_fit_where_nothing_can_be_written(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bm.forward, "fit", no_fit)
    (tmp_path / "file").write_text("mine")
    assert cli.main(command(fitted[1], tmp_path / "file" / "model")) == 2
    assert "nothing can be written" in capsys.readouterr().err


def test_alphabet_follows_the_structures():
    assert _fit.alphabet_of(["CCO", "CC"]) == bm.chem.Alphabet.organic()
    assert _fit.alphabet_of(["*CC*", "*CO*"]) == bm.chem.Alphabet.polymer()
    with pytest.raises(bm.BayesmatError, match=r"1 of 3 structures .* such as \*CC\*, .* none, such as CCO"):
        _fit.alphabet_of(["CCO", "*CC*", "CC"])


def test_options_reach_the_fit(tmp_path, monkeypatch, capsys):
    seen = []

    def record(table, **options):
        seen.append((table, options))
        if table.name == "k":
            raise bm.BayesmatError("enough")
        return f"fit of {table.name}"

    monkeypatch.setattr(bm.forward, "fit", record)
    (tmp_path / "p.csv").write_text("SMILES,k\n" + "".join(f"*{'C' * n}*,{n}\n" for n in range(1, 13)))
    more = ["--log", "--seed", "7", "--refits", "5", "--transfer", "viscosity", "thermal_conductivity", "viscosity"]
    assert cli.main(command(tmp_path / "p.csv", tmp_path / "out", *more)) == 2
    assert capsys.readouterr().err == "bayesmat: enough\n"
    (one, first), (two, _), (own, options) = seen
    assert (one.name, two.name, own.unit) == ("viscosity", "thermal_conductivity", "1")
    assert first["alphabet"] == bm.chem.Alphabet.organic() and options["alphabet"] == bm.chem.Alphabet.polymer()
    assert options["sources"] == ["fit of viscosity", "fit of thermal_conductivity"] and options["log"] is True
    assert options["refits"] == 5


# predict


def predict(model, path, out, *more, column="SMILES"):
    return cli.main(["predict", str(model), str(path), "--smiles", column, "--out", str(out), *more])


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


ROWS = [
    (b'"a, b",CCCCO,1', ""),
    (b"caf\xe9,CCCO,2", ""),
    (b"bytes,CC\xe9,3", "not UTF-8 text"),
    (b"short,CCO", "number of cells is 2, the header has 3"),
    (b"long,CCO,1,2,3", "number of cells is 5, the header has 3"),
    (b"", "empty line"),
    (b'"two\nlines",CCCCN,4', ""),
    (b'"open,CCO,5', "a quote is opened and never closed"),
    (b"none,,6", "empty string"),
    (b'"stray"quote,OCC,7', ""),
    (b"salt,[Na+].[Cl-],8", "several fragments"),
    (b'again,CCCCO,"9"', ""),
]


@pytest.mark.parametrize("chunk", [1024, 5])
def test_predict_loses_no_row(fitted, tmp_path, monkeypatch, capsys, chunk):
    monkeypatch.setattr(_fit, "CHUNK", chunk)
    source, out = tmp_path / "library.csv", tmp_path / "deep" / "predictions.csv"
    source.write_bytes(b"\xef\xbb\xbfmean,SMILES,reason\r\n" + b"\r\n".join(row for row, _ in ROWS))
    assert predict(fitted[0], source, out) == 0
    said = capsys.readouterr().out
    header, *rows = rows_of(out)
    assert header == ["mean", "SMILES", "reason", "mean_2", "sd", "q05", "q95", "applicability", "reason_2"]
    assert "has a column 'mean': that of the predictions is 'mean_2'" in said
    assert "5 of 12 rows predicted, 7 not" in said and "empty line (line 7)" in said and "[W/m/K]" in said
    assert [row[-1] for row in rows] == [reason for _, reason in ROWS]
    assert [row[0] for row in rows[:3]] == ["a, b", "caf\\xe9", "bytes"] and rows[6][0] == "two\nlines"
    assert all((row[3] == "") == bool(row[-1]) for row in rows) and all(len(row) == 9 for row in rows)
    assert rows[0][3:7] == rows[-1][3:7]
    found = bm.forward.load(fitted[0]).predict_smiles([row[1] for row in rows if not row[-1]])
    numbers = np.array([[float(cell) for cell in row[3:7]] for row in rows if not row[-1]])
    expected = np.stack([found.mean, found.sd, found.lower90, found.upper90], axis=1)
    np.testing.assert_allclose(numbers, expected, rtol=1e-4)
    assert [path.name for path in out.parent.iterdir()] == ["predictions.csv"]


def test_conformal_intervals(fitted, tmp_path):
    source, out = tmp_path / "library.csv", tmp_path / "predictions.csv"
    source.write_text("SMILES\nCCCCO\nOCC\n")
    assert predict(fitted[0], source, out, "--intervals", "conformal") == 0
    model = bm.forward.load(fitted[0])
    found, usual = (model.predict_smiles(["CCCCO", "OCC"], kind) for kind in ("conformal", "posterior"))
    assert (np.abs(found.lower90 - usual.lower90) > 1e-3 * found.sd).all()
    numbers = np.array([[float(cell) for cell in row[3:5]] for row in rows_of(out)[1:]])
    np.testing.assert_allclose(numbers, np.stack([found.lower90, found.upper90], 1), rtol=1e-4)


class StandIn:
    """A model that predicts the number of characters."""

    label, unit = "length", "1"

    def predict_smiles(self, smiles, intervals):
        kept = np.array([i for i, text in enumerate(smiles) if text != "bad"], int)
        size = np.array([float(len(smiles[i])) for i in kept])
        refusals = [bm.chem.Refusal(i, text, "is bad") for i, text in enumerate(smiles) if text == "bad"]
        numbers = {name: size for name in ("mean", "sd", "lower90", "upper90")}
        return types.SimpleNamespace(kept=kept, refusals=refusals, applicability=0.5 * size / size, **numbers)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(bm.forward, "load", lambda folder: StandIn())


def test_packed_and_tab_separated_files(stand_in, tmp_path, capsys):
    source, out = tmp_path / "a.tsv.gz", tmp_path / "b.csv.gz"
    source.write_bytes(gzip.compress("SMILES\tnäme\nCCO\tx,y\nbad\tz\n".encode()))
    assert predict("model", source, out) == 0
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert lines == ["SMILES,näme,mean,sd,q05,q95,applicability,reason", 'CCO,"x,y",3,3,3,3,0.5,', "bad,z,,,,,,is bad"]
    source = tmp_path / "only.csv"
    source.write_text("SMILES\n")
    assert predict("model", source, out) == 0 and "0 of 0 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"name,smiles\nx,CCO\n", "no column 'SMILES'; its columns are name, smiles"),
        ("a.csv", b"SMILES,SMILES\nx,CCO\n", "more than one column 'SMILES'"),
        ("a.csv.gz", gzip.compress(b"SMILES\n" + b"CCO\n" * 9999, mtime=0)[:-9], "cannot be read"),
        ("a.csv.gz", b"SMILES\nCCO\n", "cannot be read"),
        ("missing.csv", None, "cannot be read (No such file"),
    ],
)
def test_a_bad_file_leaves_the_old_predictions(stand_in, tmp_path, capsys, name, content, message):
    source, out = tmp_path / name, tmp_path / "out.csv"
    out.write_text("old")
    if content is not None:
        source.write_bytes(content)
    assert predict("model", source, out) == 2
    assert message in capsys.readouterr().err
    assert out.read_text() == "old" and {path.name for path in tmp_path.iterdir()} <= {name, "out.csv"}


def test_output_that_cannot_be(stand_in, tmp_path, capsys):
    source = tmp_path / "a.csv"
    source.write_text("SMILES\nCCO\n")
    for out, message in ((source, "is the input"), (tmp_path, "is a folder"), (source / "b.csv", "cannot be written")):
        assert predict("model", source, out) == 2
        assert message in capsys.readouterr().err
    assert source.read_text() == "SMILES\nCCO\n"


# Rows of any file

CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["", '"', "\n", '"\n"', "\r\n,"])


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=8))
def test_rows_of_a_written_file_come_back(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "SMILES", "c"), *cells])
    rows = list(read_rows(path, "SMILES")[1])
    assert [tuple(row.cells) for row in rows] == cells
    assert all(not row.reason and row.text == row.cells[1] for row in rows)


@given(
    st.lists(st.sampled_from([b'"', b"\n", b"\r", b",", b"a", b"\xff", b"\x00", b'","', b"\xe2\x80\xa8"]), max_size=40)
)
def test_any_bytes_are_rows(tmp_path_factory, parts):
    path, body = tmp_path_factory.mktemp("rows") / "a.csv", b"".join(parts)
    path.write_bytes(b"SMILES,b\n" + body)
    rows = list(read_rows(path, "SMILES")[1])
    ends = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    num_lines = ends.count(b"\n") + (not ends.endswith(b"\n") and bool(ends))
    numbers = [row.line for row in rows]
    assert numbers == sorted(set(numbers)) and (numbers[-1:] or [1]) == [num_lines + 1]
    assert all(len(row.cells) == 2 for row in rows)
    joined = num_lines - len(rows)  # a line is missing only where a quoted cell holds its end
    assert joined == sum(io.StringIO(c, newline="").read().replace("\r\n", "\n").replace("\r", "\n").count("\n")
                         for row in rows for c in row.cells)  # fmt: skip


def test_a_forgotten_quote_costs_one_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("SMILES,note\n" + 'C,"forgotten\n' + "CC,x\n" * 40000)
    rows = list(read_rows(path, "SMILES")[1])
    assert len(rows) == 40001 and [row.line for row in rows if row.reason] == [2]


def test_lines_are_joined_only_to_a_whole_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('SMILES,a,b\n"CC,1,2\nCN",3\nCO,"x\ny",4\n')
    rows = list(read_rows(path, "SMILES")[1])
    assert [(row.line, row.cells[0]) for row in rows] == [(2, "CC,1,2"), (3, 'CN"'), (5, "CO")]
    assert [row.reason.split(" ")[0] for row in rows] == ["a", "number", ""]


# The report


def fit_like(**changes):
    calibration = make_calibration(40)
    fields = {"label": "conductivity", "smiles": ("CCO",) * 40, "sources": (), "calibration": calibration,
              "predictor": types.SimpleNamespace(log=False), "not_believed": list}  # fmt: skip
    return types.SimpleNamespace(**(fields | changes))


def text_of(fit, set_aside=()):
    return Page(report.calibration_to_html(fit, set_aside)).text.replace("\u00a0", " ")


def test_report_warns_where_it_should():
    good = fit_like()
    assert "Read this first" not in text_of(good) and "every row was used" in text_of(good)
    calibration = good.calibration
    narrow = dataclasses.replace(calibration, pit=np.clip(0.5 + 2.5 * (calibration.pit - 0.5), 0, 1))
    wide = dataclasses.replace(make_calibration(360), pit=0.5 + 0.5 * (make_calibration(360).pit - 0.5))
    useless = dataclasses.replace(calibration, mean=np.full(40, calibration.observed.mean()))
    assert "overconfident" in text_of(fit_like(calibration=narrow))
    assert "wider than they need" in text_of(fit_like(calibration=wide, smiles=("CCO",) * 360))
    assert "hardly better than their mean" in text_of(fit_like(calibration=useless))
    assert "Only 12 molecules" in text_of(fit_like(smiles=("CCO",) * 12, calibration=make_calibration(12)))
    assert "more than a fifth" in text_of(good, [(line, "no value") for line in range(2, 14)])


def test_report_of_hostile_text_and_many_rows():
    calibration = dataclasses.replace(make_calibration(40), label=HOSTILE, unit=HOSTILE)
    fit = fit_like(label=HOSTILE, smiles=(HOSTILE,) * 40, calibration=calibration, sources=(fit_like(label=HOSTILE),),
                   not_believed=lambda: [HOSTILE])  # fmt: skip
    source = report.calibration_to_html(fit, [(line, HOSTILE) for line in range(2, 702)], HOSTILE)
    page = Page(source)
    assert "<script" not in source and "<img" not in source and page.open == []
    assert "200 further rows" in page.text and "line 501" in page.text and "line 502" not in page.text
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    links = {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    assert links <= set(identifiers)


def test_worst_are_ranked_in_the_space_of_the_model():
    observed, mean = np.array([1.0, 100.0, 10.0]), np.array([3.0, 110.0, 10.5])
    calibration = bm.infer.Calibration("k", "K", "leave-one-out", observed, mean, mean - 1, mean + 1,
                                       np.array([0.01, 0.3, 0.5]), 1.0, 1.0)  # fmt: skip
    names = ("C", "CC", "CCC")
    for log, order in ((True, ["C", "CC", "CCC"]), (False, ["CC", "C", "CCC"])):
        fit = fit_like(smiles=names, calibration=calibration, predictor=types.SimpleNamespace(log=log))
        page = Page(report.calibration_to_html(fit))
        drawn = [a["aria-label"] for tag, a in page.elements if tag == "svg"][3:]
        assert drawn == [f"structure of {name}" for name in order]
    assert "2.0 %" in page.text.replace("\u00a0", " ")


def test_pit_histogram_holds_every_measurement():
    for size, classes in ((1, 4), (40, 4), (130, 13), (21600, 20)):
        panel = bm.plot.pit_panel(make_calibration(size))
        (axes,) = bm.plot.compose([panel]).axes
        stairs = [patch.get_data() for patch in axes.patches if hasattr(patch, "get_data")][-1]
        assert len(stairs.values) == classes and stairs.values.sum() == pytest.approx(100)
        assert f"{size} points in {classes} classes" in panel.description
