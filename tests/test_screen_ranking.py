"""What a screening says: targets in words, joint draws, picks, expected hits, the page, and the command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from screening import ALPHABET, model as counting_model
from test_report import HOSTILE, Page, layout

import bayesmat as bm
from bayesmat import chem, cli, design, forward, plot, report
from bayesmat.design._screening import _merit, _top
from bayesmat.forward import _joint
from bayesmat.nn import DESCRIPTOR_NAMES

TARGETS = {"k": design.Interval(0.0, 2.0)}
KEY = jax.random.key(0)


def model(name="k"):
    """Random linear functions of the descriptors, as `fit` makes them for large tables: nothing is fitted."""
    rng = np.random.default_rng(3)
    draws, d = 8, len(DESCRIPTOR_NAMES)
    none = jnp.zeros((0,))
    basis = forward.Basis(jnp.ones(d), jnp.full(d, 3.0), none, jnp.zeros((0, d)), none, 1.0)
    weights = rng.normal(size=(1, d + 1)) * 0.3 + rng.normal(size=(draws, d + 1)) * 0.05
    predictor = forward.LinearPredictor(
        **{"alphabet": ALPHABET, "log": False, "name": name, "label": "a made up property", "unit": "W/m/K"},
        linear=forward.Linear(basis, jnp.asarray(weights, jnp.float32)),
        **{"noise_scale": jnp.full(draws, 0.1), "noise_log_stretch": jnp.zeros(draws), "noise_slope": jnp.zeros(draws)},
        **{"noise_mixing": jnp.ones(draws), "novelty_mean": jnp.zeros(()), "novelty_scale": jnp.ones(())},
    )
    return dataclasses.replace(counting_model(name), predictor=predictor)


@pytest.fixture(scope="module")
def fit():
    return model()


@pytest.fixture(scope="module")
def smiles():
    tokens = chem.random_strings(jax.random.key(5), 300, ALPHABET)
    return [chem.to_smiles(row, ALPHABET) for row in np.asarray(tokens)]


@pytest.fixture(scope="module")
def screened(tmp_path_factory, fit, smiles):
    folder = tmp_path_factory.mktemp("screened") / "out"
    library = design.Listed([*smiles, "nonsense", smiles[0]], [f"<b>{n}</b>" for n in range(len(smiles) + 2)])
    design.screen_to(folder, library, [fit], TARGETS)
    return design.rank(folder, [fit], TARGETS, top=20)


# Targets


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("k>0.17", 0.17, math.inf),
        ("k < 3e-1 W/m/K", -math.inf, 0.3),
        (" 0.1 <= k <= 2 ", 0.1, 2.0),
        ("2 W/m/K > k > .5", 0.5, 2.0),
        ("k = 1 +- 0.25 W/m/K", 0.75, 1.25),
        ("k=1±.25", 0.75, 1.25),
        ("k>50%", 0.5, math.inf),
        ("k ≥ -1", -1.0, math.inf),
    ],
)
def test_targets_in_words(fit, text, lower, upper):
    assert design.read_targets([text], {"k": fit}) == {"k": design.Interval(lower, upper)}


def test_two_targets_of_one_property_are_both_to_be_met(fit):
    assert design.read_targets(["k>0.1", "k<0.4"], {"k": fit}) == {"k": design.Interval(0.1, 0.4)}
    with pytest.raises(bm.BayesmatError, match="no value is above"):
        design.read_targets(["k>0.5", "k<0.4"], {"k": fit})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("k", "not a target"),
        ("k=3", "not a target"),
        ("k>", "not a number"),
        ("k>nan", "not a number"),
        ("1<k>2", "not a target"),
        ("k>1+-2", "not a target"),
        ("kk>1", "did you mean 'k'"),
        ("zebra>1", "there are models of k"),
        ("k>400 K", "in K, the model of k in W/m/K"),
        ("k>101%", "between 0 and 100"),
        ("2<k<1", "lower bound must be the smaller"),
    ],
)
def test_what_is_no_target(fit, text, why):
    with pytest.raises(bm.BayesmatError, match=why):
        design.read_targets([text], {"k": fit})


# Joint draws


@pytest.fixture(scope="module")
def process():
    """A Gaussian process of forty made up measurements."""
    tails = ("CO", "CCO", "C(C)O", "CC(C)O", "C(C)CO", "CN", "CCN", "C(C)N", "CCl", "CS")
    texts = tuple(sorted({chem.canonical("C" * length + tail) for length in range(1, 7) for tail in tails})[:40])
    y = np.random.default_rng(0).normal([0.1 * len(text) for text in texts], 0.1)
    ones = np.ones(40, int)
    table = bm.data.PropertyTable("k", "k", "1", texts, y, ones, ones, ("",) * 40, (), "", 40)
    return forward.fit(table, key=KEY, own=("descriptors",), transfer=(), cache=False, progress=False, log=False)


@pytest.mark.slow
def test_draws_have_the_distribution_of_each_molecule(fit, process):
    texts = ["CCCCO", "OCCO", "c1ccccc1", "CCN(CC)CC", "CCCCO"]
    for fitted in (fit, process):
        tokens = chem.encode(texts, fitted.alphabet).tokens
        num = 4096
        drawn = forward.joint_draws(fitted.predictor, tokens, KEY, num)
        law = fitted.predict(jnp.asarray(tokens))
        # A share of num draws has the standard error sqrt(q(1-q)/num) and more, as draws share hyperparameters or
        # functions: all of these, so that only their unequal numbers add to it.
        for q in (0.1, 0.5, 0.9):
            below = (drawn < np.asarray(law.quantile(q))).mean(0)
            np.testing.assert_allclose(below, q, atol=5 * math.sqrt(q * (1 - q) / num) + 0.01)


@pytest.mark.slow
def test_correlations_are_those_of_the_process_conditioned_on_its_data(process):
    """Against the Schur complement of the joint prior covariance, written out pair by pair."""
    p, k = process.predictor.process, 1
    tokens = jnp.asarray(chem.encode(["CCCCO", "OCCO", "CCO"], process.alphabet).tokens)
    features = process.predictor.features(tokens)
    rows = [np.asarray(block(p._raw(block.name, features, None)), float) for block in p.blocks]
    every = [np.concatenate([np.asarray(block.rows, float), row]) for block, row in zip(p.blocks, rows, strict=True)]
    n = len(every[0])
    joint = np.ones((n, n))
    for i in range(n):
        for j in range(n):
            for block, row in enumerate(every):
                apart = ((row[i] - row[j]) ** 2).sum() / float(p.length[k, block]) ** 2
                joint[i, j] += float(p.linear[k, block]) ** 2 * row[i] @ row[j]
                joint[i, j] += float(p.smooth[k, block]) ** 2 * math.exp(-apart / 2)
    noise = (float(process.predictor.noise_scale[k]) / float(p.width)) ** 2
    m = n - 3
    inverse = np.linalg.inv(joint[:m, :m] + (noise + 1e-6) * np.eye(m))
    covariance = joint[m:, m:] - joint[m:, :m] @ inverse @ joint[:m, m:]
    sd = np.sqrt(np.diag(covariance))
    found = _joint._correlation(p, rows, k, noise)
    np.testing.assert_allclose(found, covariance / sd[:, None] / sd, atol=1e-6)
    known = np.asarray(p(features)[1][:, k]) / float(p.width) ** 2  # float32 of a difference of larger numbers
    np.testing.assert_allclose(sd**2, known, rtol=0.02)


def test_many_molecules_alike_have_draws(process):
    smiles = [f"{'C' * a}C({'C' * b})CO" for a in range(1, 21) for b in range(1, 16)]
    tokens = chem.encode(smiles, process.alphabet).tokens
    drawn = forward.joint_draws(process.predictor, np.concatenate([tokens, tokens]), KEY, 64)
    assert drawn.shape == (64, 2 * len(tokens)) and np.isfinite(drawn).all()


def test_a_molecule_there_twice_shares_its_function_not_its_noise(process):
    tokens = chem.encode(["CCCCCCCCCCCCCCCCOCCN", "CCCCCCCCCCCCCCCCOCCN"], process.alphabet).tokens
    drawn = forward.joint_draws(process.predictor, tokens, KEY, 4096)
    assert 0.3 < np.corrcoef(drawn.T)[0, 1] < 1 - 1e-4  # far from the data the function is most of what is not known


def test_exceptions_are_molecules_of_which_a_draw_says_nothing(process):
    """Spread so far that they can be told: as many as their components, and by no means all molecules at once."""
    far = eqx.tree_at(lambda p: p.spread, process.predictor, jnp.asarray(1e8))
    share = far.exceptions / far.num_draws
    assert 1 / 40 < share < 1 / 15
    tokens = chem.encode(["CCCCO", "OCCO", "CCO", "CCN"], process.alphabet).tokens
    drawn = np.abs(forward.joint_draws(far, tokens, KEY, 4096)) > 500.0  # of a normal of 1e8, all but 4e-6
    error = math.sqrt(share * (1 - share) / drawn.size)
    assert abs(drawn.mean() - share) < 4 * error
    both = (drawn[:, 0] & drawn[:, 1]).mean()
    assert abs(both - share**2) < 4 * math.sqrt(share**2 / len(drawn)), "one molecule says nothing of another"
    np.testing.assert_allclose(1 - far(jnp.asarray(tokens)).cdf(500.0), share / 2, rtol=1e-4)


def test_too_many_for_joint_draws(fit):
    with pytest.raises(bm.BayesmatError, match="4,096 or fewer"):
        forward.joint_draws(fit.predictor, np.zeros((5000, ALPHABET.length), np.int32), KEY)


# Figures of merit


def test_enrichment_and_expected_hits():
    assert design.enrichment_factor([3, 2, 1, 0], [1, 1, 0, 0], 0.5) == 2.0
    assert design.enrichment_factor([0, 1, 2, 3], [1, 1, 0, 0], 0.5) == 0.0
    assert design.expected_hits([0.2, 0.9, 0.4], 2) == pytest.approx(1.3)
    for score, hit, fraction in (([1.0], [0], 0.5), ([1.0, 2.0], [1], 0.5), ([1.0], [1], 0.0), ([1.0], [1], 2.0)):
        with pytest.raises(bm.BayesmatError):
            design.enrichment_factor(score, hit, fraction)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200))
def test_the_histogram_of_p_hit_loses_nothing(values):
    p = np.array(values, np.float32)
    both = _merit.Distribution.empty() + p[: len(p) // 2] + p[len(p) // 2 :]
    assert both.count.sum() == len(p)
    assert both.hits.sum() == pytest.approx(p.sum(dtype=float), rel=1e-5, abs=1e-12)
    tested, found = both.curve()
    assert tested[0] == found[0] == 0 and tested[-1] == len(p)
    best = np.cumsum(np.sort(p)[::-1], dtype=float)  # at the ends of bins the curve is exact
    np.testing.assert_allclose(found[1:], best[tested[1:].astype(int) - 1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_outlook_against_enumeration_of_independent_hits(fit):
    """With one draw of the function the number of hits is a sum of independent ones: its mean and spread are known."""
    linear = jax.tree.map(lambda leaf: leaf, fit.predictor.linear)
    linear = dataclasses.replace(linear, weights=linear.weights[:1].repeat(8, 0))
    sure = dataclasses.replace(fit, predictor=dataclasses.replace(fit.predictor, linear=linear))
    tokens = chem.random_strings(jax.random.key(2), 64, ALPHABET)
    middle = np.sort(np.asarray(sure.predict(tokens).mean()))[12:52]
    scorer = design._screening._score.Scorer({"k": sure}, {"k": design.Interval(middle[0], middle[-1])})
    p = scorer(np.asarray(tokens).astype(np.uint8))["p_hit"].astype(float)
    assert 8 < p.sum() < 56
    chosen, num = np.argsort(-p)[:30], 4000
    found = _merit.outlook(scorer, np.asarray(tokens), chosen, num=num)
    spread = math.sqrt((p * (1 - p))[chosen].sum())
    assert found.hits == pytest.approx(p[chosen].sum(), abs=5 * spread / math.sqrt(num) + 1e-3)
    assert found.any == pytest.approx(1 - np.prod(1 - p[chosen]), abs=0.03)
    assert found.lower < found.hits < found.upper and 0 <= found.best <= 1


# Picks


def test_picks_are_the_greedy_choice(screened, smiles):
    picks = screened.picks.to_pylist()
    p = [row["p_hit"] for row in picks]
    assert p == sorted(p, reverse=True) and len(picks) == 20
    index = chem.SimilarityIndex([row["smiles"] for row in picks])
    for place, row in enumerate(picks):
        common = np.bitwise_count(index.words[:place] & index.words[place]).sum(1)
        union = np.bitwise_count(index.words[:place] | index.words[place]).sum(1)
        nearest = (common / union).max(initial=0.0)
        assert nearest <= 0.6 and row["similarity"] == pytest.approx(nearest, abs=1e-6)
    assert screened.counts.rows == len(smiles) + 2 and screened.counts.duplicates >= 1
    assert screened.counts.reasons["RDKit cannot read it"] == 1
    assert screened.hits >= sum(p) and screened.enrichment > 1


def test_without_a_limit_the_picks_are_the_best(screened, fit):
    free = design.rank(screened.folder, [fit], TARGETS, top=20, max_similarity=1.0)
    assert free.picks["p_hit"].to_pylist() >= screened.picks["p_hit"].to_pylist()
    assert free.outlook == free.outlook_best
    again = design.rank(screened.folder, [fit], TARGETS, top=20, max_similarity=1.0)
    assert again.outlook == free.outlook


def test_the_pool_keeps_the_best_of_many_batches(monkeypatch, screened, fit):
    whole, _, pool = _top._collect(
        sorted(screened.folder.glob("part-*")), design._screening._results.result_schema(
            design._screening._score.Scorer({"k": fit}, TARGETS)), 10
    )  # fmt: skip
    free = design.rank(screened.folder, [fit], TARGETS, top=10, max_similarity=1.0)
    assert pool["row"].to_pylist() == free.picks["row"].to_pylist()
    assert whole.count.sum() == screened.counts.scored


def test_rank_refuses(screened, fit, tmp_path):
    for options, why in (({"top": 0}, "top is 0"), ({"max_similarity": 0.0}, "max_similarity"), ({"top": -1}, "top")):
        with pytest.raises(bm.BayesmatError, match=why):
            design.rank(screened.folder, [fit], TARGETS, **options)
    with pytest.raises(bm.BayesmatError, match="other models or targets"):
        design.rank(screened.folder, [fit], {"k": design.Above(0.3)})
    with pytest.raises(bm.BayesmatError, match="holds no screened library"):
        design.rank(tmp_path, [fit], TARGETS)


# The page and the files


def test_the_page(screened, tmp_path):
    named = dataclasses.replace(screened, properties=tuple(
        dataclasses.replace(item, label=HOSTILE) for item in screened.properties))  # fmt: skip
    source = report.screening_to_html(named, HOSTILE)
    assert "<script" not in source and "<img" not in source and "<b>0</b>" not in source
    page = Page(source)
    assert page.open == [] and HOSTILE in page.text
    assert "302" in page.text and "RDKit cannot read it" in page.text
    assert report.screening_to_html(named, HOSTILE) == source
    tags = [tag for tag, _ in page.elements]
    assert tags.count("svg") >= 20 + 3
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")} <= set(identifiers)
    path = report.write_screening(screened, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == report.screening_to_html(screened)


def test_a_browser_needs_no_sideways_scrolling(screened, tmp_path):
    phone, desk = layout(tmp_path, report.screening_to_html(screened), 390, 1280)
    for seen in (phone, desk):
        assert seen["clipped"] == [] and seen["scroll"] <= seen["width"]
    assert (phone["row"], desk["row"]) == ("grid", "table-row")


def test_a_library_without_hits_has_a_page(screened):
    nothing = dataclasses.replace(screened.distribution, hits=0 * screened.distribution.hits)
    outlook = design.Outlook(0.0, 0.0, 0.0, 0.0, None)
    empty = dataclasses.replace(screened, distribution=nothing, outlook=outlook, outlook_best=outlook)
    page = Page(report.screening_to_html(empty))
    assert "Fewer than one hit" in page.text and not {"nan", "None", "inf"} & set(page.text.split())


def test_figure(screened):
    axes = plot.screening(screened).axes
    assert len(axes) == 3 and sum(bar.get_height() for bar in axes[0].patches) == screened.counts.scored


def test_a_spreadsheet_runs_nothing(screened, tmp_path):
    names = ['=cmd|"/c calc"!A1', "+1", "-2", "@x", "\tx", "plain"]
    hostile = screened.picks.slice(0, 6)
    place = hostile.schema.get_field_index("name")
    hostile = hostile.set_column(place, "name", [names])
    path = design.write_picks(dataclasses.replace(screened, picks=hostile), tmp_path / "top.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["rank"] for row in rows] == list("123456")
    assert all(row["name"].startswith("'") for row in rows[:5]) and rows[5]["name"] == "plain"
    assert "reason" not in rows[0] and float(rows[0]["p_hit"]) == pytest.approx(hostile["p_hit"][0].as_py(), rel=1e-5)


# The command line


@pytest.fixture
def at_hand(monkeypatch, fit):
    """Models that are not fitted: folders named by what they model."""
    monkeypatch.setattr(bm.forward, "load", lambda folder: model(Path(folder).name))


def test_screen_as_a_user_calls_it(at_hand, tmp_path, smiles, capsys):
    library = tmp_path / "library.csv"
    library.write_text("id,SMILES\n" + "".join(f"m{n},{text}\n" for n, text in enumerate(smiles)) + "x,C1CC\n")
    out = tmp_path / "out"
    command = ["screen", str(library), "--smiles", "SMILES", "--name", "id", "--model", "k", "--target", "0<k<2",
               "--out", str(out), "--top", "7", "--workers", "0"]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "301 rows" in said and "1  RDKit cannot read it" in said
    assert len((out / "top.csv").read_text().splitlines()) == 8
    assert (out / "report.html").is_file() and json.loads((out / "manifest.json").read_text())["complete"]
    assert cli.main(command) == 2  # there are results, which are not overwritten
    assert "--resume" in capsys.readouterr().err
    before = sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("part-*"))
    assert cli.main([*command, "--resume"]) == 0
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("part-*")) == before


def test_encode_then_screen(at_hand, tmp_path, smiles, capsys):
    (tmp_path / "a.smi").write_text("".join(f"{text} m{n}\n" for n, text in enumerate(smiles)))
    tokens, out = tmp_path / "tokens", tmp_path / "out"
    assert cli.main(["encode", str(tmp_path / "a.smi"), "--out", str(tokens), "--model", "k", "--workers", "0"]) == 0
    assert "300 rows" in capsys.readouterr().out
    assert cli.main(["screen", str(tokens), "--model", "k", "--target", "k>0", "--out", str(out), "--top", "3"]) == 0
    assert "among 3 chosen" in capsys.readouterr().out


@pytest.mark.slow
def test_screen_draws_of_a_prior(at_hand, tmp_path, capsys):
    command = ["screen", "organic", "--draw", "50", "--model", "k", "--target", "k>0", "--out", str(tmp_path / "o")]
    assert cli.main(command) == 0
    assert "50 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["no.csv", "--smiles", "S", "--model", "k", "--target", "k>1"], "there is no such file"),
        (["a.csv", "--model", "k", "--target", "k>1"], "its columns are id, S"),
        (["a.csv", "--smiles", "smi", "--model", "k", "--target", "k>1"], "its columns are id, S"),
        (["a.csv", "--smiles", "S", "--name", "nr", "--model", "k", "--target", "k>1"], "its columns are id, S"),
        (["a.csv", "--smiles", "S", "--model", "k", "--target", "k>1 K"], "in K, the model"),
        (["a.csv", "--smiles", "S", "--model", "k", "--model", "k", "--target", "k>1"], "second model of 'k'"),
        (["a.pdf", "--smiles", "S", "--model", "k", "--target", "k>1"], "not a library"),
        (["a.csv", "--smiles", "S", "--model", "k", "--target", "k>1", "--top", "0"], "top is 0"),
        (["empty.smi", "--model", "k", "--target", "k>1"], "no rows"),
        (["a.csv", "a.csv", "--draw", "3", "--model", "k", "--target", "k>1"], "one prior"),
    ],
)
def test_what_a_user_gets_wrong(at_hand, tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,S\n1,CCO\n")
    Path("a.pdf").write_text("x")
    Path("empty.smi").write_text("")
    assert cli.main(["screen", *arguments, "--out", "out", "--workers", "0"]) == 2
    assert why in capsys.readouterr().err
