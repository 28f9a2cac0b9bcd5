"""Self-contained HTML pages about a design run, a fitted property, a screening; for people who did not make them."""

from ._forward import (
    calibration_to_html as calibration_to_html,
    write_calibration as write_calibration,
)
from ._page import (
    to_html as to_html,
    write as write,
)
from ._screening import (
    screening_to_html as screening_to_html,
    write_screening as write_screening,
)
