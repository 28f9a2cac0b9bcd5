"""Figures of a design run and of its forward models, as matplotlib figures without global state."""

from ._calibration import (
    calibration as calibration,
    calibration_panels as calibration_panels,
    coverage_at as coverage_at,
)
from ._canvas import (
    Panel as Panel,
    compose as compose,
    to_png as to_png,
    to_svg as to_svg,
)
from ._properties import (
    property_distributions as property_distributions,
    property_panels as property_panels,
)
from ._sampler import (
    sampler_panels as sampler_panels,
    sampler_paths as sampler_paths,
)
