"""Figures of design runs, of forward models and of the grammar at work, as matplotlib figures without global state."""

from ._calibration import (
    calibration as calibration,
    calibration_panels as calibration_panels,
    coverage_at as coverage_at,
    pit_panel as pit_panel,
)
from ._canvas import (
    Panel as Panel,
    compose as compose,
    to_png as to_png,
    to_svg as to_svg,
)
from ._diagnostics import diagnostics as diagnostics
from ._grammar import (
    grammar as grammar,
    grammar_panels as grammar_panels,
)
from ._properties import (
    property_distributions as property_distributions,
    property_panels as property_panels,
)
from ._sampler import (
    sampler_panels as sampler_panels,
    sampler_paths as sampler_paths,
)
from ._screening import (
    screening as screening,
    screening_panels as screening_panels,
)
from ._transfer import transfer_matrix as transfer_matrix
