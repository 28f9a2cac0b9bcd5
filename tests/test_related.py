"""Sources are believed that have to do with the property: the permutation test, and what a fit makes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st

from bayesmat import data, forward, report
from bayesmat.chem import Alphabet, encode
from bayesmat.forward import _process_fit, _related

ROWS = 40
CORPUS = data.load("boiling_point").organic()


def standard(column: np.ndarray) -> np.ndarray:
    """As a fit standardises what one source says."""
    return np.asarray(_process_fit.block("sources", column[:, None]).rows)


def test_the_p_value_is_that_of_all_permutations() -> None:
    """Of the rarer of two statistics, each written out from its definition."""
    rng = np.random.default_rng(0)
    column, y = rng.normal(size=5), rng.normal(size=5)
    rows = standard(column)[:, 0].astype(float)
    smooth = np.exp(-0.5 * np.subtract.outer(rows, rows) ** 2)
    orders = [y[list(order)] - y.mean() for order in itertools.permutations(range(5))]  # the first is y itself
    values = np.array([[z @ np.outer(rows, rows) @ z, z @ smooth @ z] for z in orders])
    each = np.mean(values >= values[:, None] - 1e-9, axis=1).min(1)
    exact = np.mean(each <= each[0] + 1e-9)
    found = [_related.chance(rows[:, None], y, jax.random.key(seed)) for seed in range(8)]
    error = np.sqrt(exact * (1 - exact) / (8 * _related.NUM_SHUFFLES))
    assert 0.05 < exact < 0.95 and abs(np.mean(found) - exact) < 4 * error + 0.02


def test_what_has_nothing_to_do_with_y_is_believed_as_seldom_as_said() -> None:
    rng = np.random.default_rng(1)
    num = 400
    keys = jax.random.split(jax.random.key(0), num)
    p = [_related.chance(standard(rng.normal(size=20)), rng.standard_t(3, size=20), key) for key in keys]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    wrong, level = sum(sum(_related.believed([value])) for value in p), _related.LEVEL
    assert abs(wrong - num * level) < 4 * np.sqrt(num * level * (1 - level))


@pytest.mark.parametrize("relation", [lambda z: z, lambda z: -z, lambda z: z**2, lambda z: np.exp(z)])
def test_relations_of_any_shape_are_seen(relation) -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=60)
    y = relation(z)
    y = (y - y.mean()) / y.std() + 0.7 * rng.normal(size=60)
    assert _related.chance(standard(100.0 + 5.0 * z), y, jax.random.key(0)) <= 0.01


def test_a_source_that_never_changes_its_mind_is_not_believed() -> None:
    y = np.random.default_rng(3).normal(size=30)
    assert _related.chance(standard(np.full(30, 7.0)), y, jax.random.key(0)) == 1.0


@given(st.lists(st.floats(0.001, 1.0), max_size=30))
def test_believed_is_the_procedure_of_benjamini_and_hochberg(chances) -> None:
    found = _related.believed(chances)
    adjusted = scipy.stats.false_discovery_control(chances) if chances else np.zeros(0)
    sure = np.abs(adjusted - _related.LEVEL) > 1e-9
    np.testing.assert_array_equal(np.array(found, bool)[sure], (adjusted <= _related.LEVEL)[sure])


# Fits


def table(rows: np.ndarray) -> data.PropertyTable:
    part = CORPUS.subset(rows)
    size = np.array([sum(c.isalpha() for c in text) for text in part.smiles])
    y = 300 + 60 * np.sqrt(size) + 5.0 * np.random.default_rng(0).normal(size=len(size))
    return replace(part, name="known", label="known", unit="K", y=y)


def fit(rows: np.ndarray, **options) -> forward.Fitted:
    return forward.fit(table(rows), key=jax.random.key(0), cache=False, progress=False, **options)


@pytest.fixture(scope="module")
def fits() -> tuple[forward.Fitted, forward.Fitted, forward.Fitted]:
    """A source; a fit of the same molecules that is given it, and it scrambled; and one that is given nothing.

    Of molecules that it has measured a source tells its leave-one-out means, so these are what is scrambled, in one of
    the nineteen of twenty ways that do not look like something.
    """
    rows = np.random.default_rng(7).permutation(encode(CORPUS.smiles, Alphabet.organic()).kept)[:ROWS]
    source = replace(fit(rows), label="a true one")
    loo_mean = np.random.default_rng(3).permutation(source.loo_mean)
    scrambled = replace(source, label="a scrambled one", loo_mean=loo_mean)
    return source, fit(rows, sources=[scrambled]), fit(rows, sources=[scrambled, source])


def test_a_scrambled_source_costs_nothing(fits) -> None:
    """Not a bit of the fit is another than without it."""
    without, given_it, _ = fits
    assert given_it.sources == () and [label for label, _ in given_it.unrelated] == ["a scrambled one"]
    assert given_it.unrelated[0][1] > _related.LEVEL
    smiles = CORPUS.smiles[:20]
    np.testing.assert_array_equal(given_it.predict_smiles(smiles).mean, without.predict_smiles(smiles).mean)
    np.testing.assert_array_equal(given_it.loo_mean, without.loo_mean)
    assert without.unrelated == () and "set aside" not in without.summary()


def test_a_true_source_is_kept_beside_a_scrambled_one(fits, tmp_path) -> None:
    source, _, both = fits
    assert both.sources == (source,) and [label for label, _ in both.unrelated] == ["a scrambled one"]
    said = f"et aside: a scrambled one, whose predictions agree with the measurements as well when they are shuffled " \
           f"({100 * both.unrelated[0][1]:.0f} % of the shuffles)"  # fmt: skip
    assert f"  s{said}" in both.summary() and "transfers from a true one" in both.summary()
    assert f" S{said}." in report.calibration_to_html(both)
    assert both.predict_smiles("CCCCO").mean.shape == (1,)
    again = forward.load(forward.save(both, tmp_path / "model"))
    assert again.unrelated == both.unrelated and len(again.sources) == 1
