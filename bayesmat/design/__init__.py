"""p(x | y in U): targets, the inverse problem as a model, and a whole design run."""

from ._constraints import Elements as Elements
from ._inverse import Inverse as Inverse
from ._known import KnownCompounds as KnownCompounds
from ._outputs import write as write
from ._problem import (
    Problem as Problem,
    Sampler as Sampler,
    Sought as Sought,
    read_problem as read_problem,
)
from ._run import (
    Candidates as Candidates,
    DesignRun as DesignRun,
    SamplerSummary as SamplerSummary,
    TargetSummary as TargetSummary,
)
from ._solve import (
    fit_forward as fit_forward,
    solve as solve,
    versions as versions,
)
from ._targets import (
    Above as Above,
    Below as Below,
    Interval as Interval,
    Near as Near,
)
