"""Figures: what stands on their axes, that SVGs can share a page, and that the same run gives the same bytes."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from test_report import make_calibration, make_run

from bayesmat import chem, plot

SIZES = (1, 360, 21600)


def _labels(figure):
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def test_axes_carry_units():
    run = make_run()
    assert _labels(plot.property_distributions(run)) == [
        ("thermal conductivity (W/m/K)", "share of molecules (% per bin)"),
        ("boiling point (K)", "share of molecules (% per bin)"),
        ("viscosity (Pa s)", "share of molecules (% per bin)"),
    ]
    for x, y in _labels(plot.sampler_paths(run)):
        assert x == "step (number)" and re.search(r"\(.+\)$", y)
    for x, y in _labels(plot.calibration(make_calibration()))[:2]:
        assert re.search(r"\(.+\)$", x) and re.search(r"\(.+\)$", y)


def test_a_unit_of_one_is_spelt_out():
    run = make_run(num_properties=1)
    run = dataclasses.replace(run, targets=(dataclasses.replace(run.targets[0], label="refractive index", unit="1"),))
    assert _labels(plot.property_distributions(run))[0][0] == "refractive index (dimensionless)"


def test_histograms_hold_the_whole_sample():
    run = make_run(num_properties=1)
    (axes,) = plot.property_distributions(run).axes
    outlines = [p for p in axes.patches if p.get_label() in ("prior", "posterior")]
    for outline in outlines:
        assert 98.5 < np.sum(outline.get_data().values) <= 100 + 1e-9
    assert len(outlines) == 2


def test_target_is_shaded_where_it_was_asked_for():
    (axes,) = plot.property_distributions(make_run(num_properties=1)).axes
    (shade,) = [patch for patch in axes.patches if patch.get_label() == "target"]
    assert shade.get_x() == pytest.approx(0.19)
    assert shade.get_x() + shade.get_width() == pytest.approx(axes.get_xlim()[1])


def test_decades_get_a_logarithmic_axis_in_plain_numbers():
    figure = plot.property_distributions(make_run())
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear", "log"]
    assert "mathdefault" not in plot.to_svg(figure) and ">0.01<" in plot.to_svg(figure)


def test_effective_sample_size_is_a_share():
    ess = plot.sampler_paths(make_run()).axes[1]
    assert 40 < ess.lines[0].get_ydata().min() and ess.lines[0].get_ydata().max() < 60


def test_coverage_is_the_share_of_measurements_inside():
    calibration = make_calibration()
    inside = (calibration.lower90 <= calibration.observed) & (calibration.observed <= calibration.upper90)
    assert plot.coverage_at(calibration, 0.9) == pytest.approx(inside.mean(), abs=1 / 360)
    assert plot.coverage_at(calibration, 0.33) == pytest.approx(np.mean(np.abs(2 * calibration.pit - 1) <= 0.33))
    curve = next(line for line in plot.calibration(calibration).axes[1].lines if line.get_label() == "model")
    assert np.interp(90, *curve.get_data()) == pytest.approx(100 * inside.mean(), abs=0.5)


@pytest.mark.parametrize("size", SIZES)
def test_calibration_stays_small(size):
    svg = plot.to_svg(plot.calibration(make_calibration(size)))
    assert len(svg) < 300_000


def test_cells_count_every_molecule():
    figure = plot.calibration(make_calibration(21600))
    counts = figure.axes[0].collections[0].get_array()
    assert 0.995 * 21600 < counts.sum() <= 21600


@pytest.mark.parametrize("make", [plot.property_distributions, plot.sampler_paths])
def test_svg_is_one_element_with_identifiers_of_its_own(make):
    svg = plot.to_svg(make(make_run()), label='a "label" & <more>')
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.attrib["aria-label"] == 'a "label" & <more>' and root.attrib["viewBox"]
    assert "<style" not in svg and "<metadata" not in svg and "<?xml" not in svg and "DejaVu" not in svg
    names = set(re.findall(r'\bid="([^"]+)"', svg))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {
        pair for n in names for pair in ((n, ""), ("", n))
    }
    other = plot.to_svg(plot.calibration(make_calibration()))
    assert not names & set(re.findall(r'\bid="([^"]+)"', other))


def test_same_figure_same_bytes_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    assert plot.to_svg(plot.property_distributions(make_run())) == plot.to_svg(plot.property_distributions(make_run()))
    png = plot.to_png(plot.sampler_paths(make_run()))
    assert png == plot.to_png(plot.sampler_paths(make_run())) and png.startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


def test_dollar_signs_are_not_mathematics():
    run = make_run(num_properties=1)
    run = dataclasses.replace(run, targets=(dataclasses.replace(run.targets[0], label="cost $x_{1$", unit="$"),))
    assert "cost $x_{1$ ($)" in plot.to_svg(plot.property_distributions(run))


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [([], []), ([math.nan, math.inf], [1.0]), ([0.3] * 5, [0.3] * 5), ([0.0] * 3, []), ([1e-9, 1.0, 1e9], [-1.0])],
)
def test_odd_samples_are_drawn(prior, posterior):
    run = make_run(num_properties=1)
    run = dataclasses.replace(
        run,
        prior_mean={"thermal_conductivity": np.array(prior)},
        posterior_mean={"thermal_conductivity": np.array(posterior)},
    )
    assert plot.to_svg(plot.property_distributions(run)).startswith("<svg")


@pytest.mark.parametrize("steps", [0, 1, 2, 200])
def test_any_number_of_steps_is_drawn(steps):
    run = make_run(1, num_properties=1)
    sampler = dataclasses.replace(
        run.sampler,
        temperatures=np.linspace(0, 0.5, steps + 1),
        ess=np.full(steps, 10.0),
        acceptance=np.full(steps, 0.1),
    )
    assert plot.to_svg(plot.sampler_paths(dataclasses.replace(run, sampler=sampler))).startswith("<svg")


def test_grammar_shows_every_legal_token_and_the_written_one():
    alphabet = chem.Alphabet.druglike()
    (tokens,) = chem.encode("CC(=O)Nc1ccc(O)cc1", alphabet).tokens
    figure = plot.grammar(tokens, alphabet)
    mask, state = figure.axes
    cells = mask.collections[0].get_array().reshape(alphabet.num_tokens, -1)
    num = int((tokens > 0).sum()) + 1
    assert cells.shape[1] == num and (cells == 2).sum() == num
    assert (np.argmax(cells == 2, axis=0) == tokens[:num]).all()
    # After the first carbon: an atom, a bond, a branch, a ring or the end; nothing can be closed.
    legal = {alphabet.names[i] for i in np.flatnonzero(cells[:, 1])}
    assert {"end", "C", "=", "#", "(", "~"} <= legal and not legal & {")", "~0"}
    free, rings, depth = (line.get_ydata() for line in state.lines)
    assert free[0] == 4 and rings.max() == 1 and depth.max() == 1 and rings[-1] == depth[-1] == 0


def test_notebooks_show_figures():
    png = plot.grammar(chem.encode("CCO", chem.Alphabet.druglike()).tokens[0], chem.Alphabet.druglike())._repr_png_()
    assert png.startswith(b"\x89PNG") and len(png) > 5_000
