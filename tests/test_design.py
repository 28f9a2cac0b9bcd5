"""Targets, problems as files, and a small design from file to outputs."""

from __future__ import annotations

import csv
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import bayesmat as bm
from bayesmat import BayesmatError, design
from bayesmat.cli import main

SMALL = """
title = "A small <design> & its name"
[sampler]
particles = 96
moves = 3
seed = 5
[filters]
elements = ["C", "H", "O"]
[targets.tb]
data = "boiling.csv"
smiles = "SMILES"
column = "Tb"
unit = "K"
near = 450
within = 20
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 150 boiling points of simple molecules, three of them unusable, and a problem about them."""
    path = tmp_path_factory.mktemp("design")
    table = bm.data.load("boiling_point")
    rows = [i for i in range(len(table)) if set(table.smiles[i]) <= set("CO()=1c")][::5][:150]
    with (path / "boiling.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["SMILES", "Tb"])
        writer.writerows([table.smiles[i], table.y[i]] for i in rows)
        writer.writerows([["nonsense", "300"], ["CCO", "not a number"], ["C[Hg]C", "366"]])
    (path / "small.toml").write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return design.solve(design.read_problem(folder / "small.toml"), progress_bar=False)


def test_targets_of_numbers_and_words() -> None:
    y = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(design.Above(1.5).log_prob(y), [-np.inf, 0, 0])
    np.testing.assert_array_equal(design.Below(1.5).log_prob(y), [0, -np.inf, -np.inf])
    np.testing.assert_array_equal(design.Near(2, 0.5).log_prob(y), [-np.inf, 0, -np.inf])
    assert design.Interval(1, 2).text("K") == "between 1 and 2 K"
    assert design.Above(473).text("K") == "at least 473 K" and design.Below(3).text("1") == "at most 3"


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (1.0, 1.0), (-math.inf, math.inf), (math.nan, 1.0)])
def test_contradictory_intervals_are_refused(bounds) -> None:
    with pytest.raises(BayesmatError):
        design.Interval(*bounds)
    with pytest.raises(BayesmatError, match="positive"):
        design.Near(1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("title = 'a\n", ("line 1", "title = 'a")),
        ("[targets.boiling_point]\nabove = = 3\n", ("line 2", "above = = 3")),
        ("[targets.boilingpoint]\nabove = 400\n", ("line 1", "boilingpoint", "boiling_point", "melting_point")),
        ("[targets.boiling_point]\nabove = 500\nbelow = 400\n", ("line 1", "boiling_point", "500", "400")),
        ("[targets.boiling_point]\nabovee = 500\n", ("line 2", "abovee", "did you mean 'above'")),
        ("[targets.boiling_point]\nabove = 'hot'\n", ("line 2", "above", "'hot'", "[K]")),
        ("[targets.boiling_point]\nabove = true\n", ("line 2", "above", "True")),
        ("[targets.boiling_point]\nnear = 400\n", ("line 2", "within")),
        ("[targets.boiling_point]\n", ("line 1", "at least one bound")),
        ("[targets.boiling_point]\nabove = 1\ntransfer = ['flash_point']\n", ("line 3", "transfer", "flash_point")),
        ("[sampler]\nparticles = 2\n[targets.boiling_point]\nabove = 1\n", ("particles", "16")),
        ("[sampler]\nparticles = 'many'\n[targets.boiling_point]\nabove = 1\n", ("line 2", "particles", "'many'")),
        ("[filters]\nelements = ['C', 'Q']\n[targets.boiling_point]\nabove = 1\n", ("line 2", "'Q'", "Br")),
        ("[filters]\nelements = 'C'\n[targets.boiling_point]\nabove = 1\n", ("line 2", "elements", "list")),
        ("title = 3\n[targets.boiling_point]\nabove = 1\n", ("line 1", "title", "3")),
        ("title = 'nothing asked'\n", ("[targets.PROPERTY]", "boiling_point")),
        ("[targets.x]\ndata = 'none.csv'\nsmiles='s'\ncolumn='c'\nunit='K'\nabove=1\n", ("line 2", "none.csv")),
    ],
)
def test_problem_errors_name_file_line_and_key(tmp_path, text, parts, capsys) -> None:
    path = tmp_path / "problem.toml"
    path.write_text(text)
    with pytest.raises(BayesmatError) as caught:
        design.read_problem(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert main(["design", str(path), "--out", str(tmp_path / "out")]) == 2
    assert str(path) in capsys.readouterr().err


def test_missing_problem_file(tmp_path) -> None:
    with pytest.raises(BayesmatError, match="cannot be read"):
        design.read_problem(tmp_path / "none.toml")


def test_percentiles_are_of_the_measured_values(tmp_path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[targets.thermal_conductivity]\nabove = "95%"\n')
    sought = design.read_problem(path).sought["thermal_conductivity"]
    assert sought.target.lower == pytest.approx(np.percentile(sought.table.y, 95))
    assert all(bm.chem.is_organic(smiles) for smiles in sought.table.smiles)


def test_a_small_design(run) -> None:
    c = run.candidates
    assert run.sampler.converged and run.posterior_p_hit > run.prior_p_hit
    assert all(bm.chem.is_accepted(smiles) for smiles in c.smiles)
    assert all(set(smiles) <= set("CcOo()[]=#+-H123456789") for smiles in c.smiles)  # as the problem asks
    assert len(set(c.smiles)) == len(c.smiles) == run.sampler.num_distinct
    assert c.weight.sum() == pytest.approx(1) and (np.diff(c.p_hit) <= 0).all()
    np.testing.assert_allclose(c.p_hit, c.p_hit_each["tb"], rtol=1e-6)
    for smiles, known, nearest, similarity in zip(c.smiles, c.known, c.nearest_known, c.similarity, strict=True):
        assert 0 <= similarity <= 1 and (not known or (nearest == smiles and similarity == 1))
    assert run.settings["tb: measurements"] == 151  # 150 and the one that only the alphabet refuses
    assert run.settings["tb: set aside"] == 1


def test_outputs(folder, run, tmp_path) -> None:
    paths = design.write(run, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    rows = list(csv.DictReader((tmp_path / "out/candidates.csv").read_text().splitlines()))
    wanted = {"smiles", "weight", "p_hit", "tb_mean", "tb_sd", "known", "nearest_known", "similarity", "sa_score"}
    assert wanted <= set(rows[0]) and len(rows) == run.sampler.num_distinct
    content = json.loads((tmp_path / "out/run.json").read_text())
    for key in ("settings", "seed", "versions", "log_evidence", "temperatures", "ess", "acceptance", "timings"):
        assert key in content
    assert content["seed"] == 5 and content["temperatures"][0] == 0 and content["temperatures"][-1] == 1
    idata = bm.infer.load(tmp_path / "out/posterior.nc")
    assert idata.posterior["tb_mean"].shape == (1, 96)
    assert set(idata.posterior["smiles"].values.ravel()) == set(run.candidates.smiles)


@pytest.mark.slow
def test_a_target_that_no_molecule_meets(folder, tmp_path) -> None:
    """The run ends with the evidence and the closest it came, not with NaN."""
    path = folder / "impossible.toml"
    path.write_text(SMALL.replace("near = 450\nwithin = 20", "above = 90000") + "\n")
    problem = design.read_problem(path).with_sampler(particles=32)
    run = design.solve(problem, progress_bar=False)
    assert any("extrapolates" in warning for warning in run.warnings)
    assert run.sampler.log_evidence < -10
    assert np.isfinite(run.candidates.log_p_hit).all() and np.isfinite(run.candidates.mean["tb"]).all()
    assert run.posterior_mean["tb"].mean() > run.prior_mean["tb"].mean()  # as far up as it could get
    design.write(run, tmp_path / "out")
    assert "NaN" not in (tmp_path / "out/run.json").read_text()
    html = bm.report.write(run, tmp_path / "out/report.html").read_text()
    assert "nan" not in html.lower().replace("nano", "").replace("financ", "")


@pytest.mark.slow
def test_elements_that_no_particle_has(folder, tmp_path) -> None:
    """Without a feasible particle nothing is called a hit, and every output can still be written."""
    path = folder / "iodine.toml"
    path.write_text(SMALL.replace('["C", "H", "O"]', '["I"]\nforbidden = ["[#8][#8]"]'))
    run = design.solve(design.read_problem(path).with_sampler(particles=16), progress_bar=False)
    assert not run.sampler.converged and run.sampler.log_evidence == -np.inf
    assert (run.candidates.p_hit == 0).all() and run.posterior_p_hit == run.prior_p_hit == 0
    assert run.conditions == ("made of I and H", "without [#8][#8]") and run.timings["of which SMARTS"] < 1
    design.write(run, tmp_path / "out")
    assert "zero everywhere" in bm.report.write(run, tmp_path / "out/report.html").read_text()


@pytest.mark.slow
def test_cli_design_interrupted_and_resumed(folder, run, tmp_path, capsys, monkeypatch) -> None:
    from bayesmat.smc import _checkpoint

    out, save = tmp_path / "out", _checkpoint.save
    command = ["design", str(folder / "small.toml"), "--out", str(out), "--seed", "5", "--particles", "96"]

    def interrupt(*arguments) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint, "save", interrupt)
    assert main(command) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert list((out / "checkpoint").iterdir())
    monkeypatch.setattr(_checkpoint, "save", save)
    assert main([*command, "--resume"]) == 0
    assert not (out / "checkpoint").exists()
    rows = list(csv.DictReader((out / "candidates.csv").read_text().splitlines()))
    assert [row["smiles"] for row in rows] == list(run.candidates.smiles)  # the same seed, the same candidates
    np.testing.assert_allclose([float(row["p_hit"]) for row in rows], run.candidates.p_hit, rtol=1e-3)
    printed = capsys.readouterr().out
    assert "distinct molecules" in printed and "p_hit" in printed
    assert {"candidates.csv", "posterior.nc", "run.json", "report.html"} <= {path.name for path in out.iterdir()}
    html = (out / "report.html").read_text()
    assert "made of C, O and H" in html
    assert "<design>" not in html and "&lt;design&gt;" in html
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in bm.data.names())


def test_cli_folder_that_cannot_be_made(folder, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["design", str(folder / "small.toml"), "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.slow
def test_inverse_and_the_hand_written_model_agree(folder) -> None:
    """The two ways to state a problem have the same likelihood, and give the same posterior from the same key."""
    table = design.read_problem(folder / "small.toml").sought["tb"].table
    few = {"own": ("descriptors",), "transfer": ("sources",)}
    forward = bm.forward.fit(table, key=jax.random.key(0), progress=False, **few)
    prior = bm.prior.load("organic")
    target = design.Near(450.0, 20.0)

    def problem() -> None:
        x = numpyro.sample("molecule", prior)
        y = numpyro.deterministic("tb", forward.predict(x))
        numpyro.factor("target_tb", target.log_prob(y))

    frames = []
    for model in (design.Inverse(prior, {"tb": forward}, {"tb": target}), problem):
        smc = bm.smc.SMC(model, num_particles=64, num_moves=2, progress_bar=False)
        smc.run(jax.random.key(1))
        frames.append(smc.to_dataframe())
        assert "temperatures" in smc.summary()
    assert list(frames[0]["molecule"]) == list(frames[1]["molecule"])
    np.testing.assert_allclose(frames[0]["tb_mean"], frames[1]["tb_mean"], rtol=1e-5)


def test_inverse_needs_models_for_its_targets() -> None:
    prior = bm.prior.load("organic")
    with pytest.raises(BayesmatError, match="no forward model for \\['tb'\\]"):
        design.Inverse(prior, {}, {"tb": design.Above(1.0)})
    with pytest.raises(BayesmatError, match="at least one target"):
        design.Inverse(prior, {}, {})
